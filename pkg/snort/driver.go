package snort

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// alertsPerSecond is how many lines an engine may write in a second about one rule
// and one source address; the rest of the packets is dropped all the same. One line
// convicts, but of several processes of one VM each needs its own.
const alertsPerSecond = 20

// driver is what differs between the engines.
type driver interface {
	// version gives the arguments that make the program tell its version, what
	// it then says, and the lowest major version that the package can run.
	version() (args []string, says *regexp.Regexp, lowest int)
	// configure writes the engine's configuration into dir, snap being the
	// longest frame in bytes. With check it is for a test, which opens nothing.
	configure(c Config, snap int, dir string, check bool) error
	checkArgs(dir string) []string
	runArgs(c Config, dir string) []string
	// needsTerminal says that it keeps its words back in a pipe.
	needsTerminal() bool
	// message reads one line that the engine printed.
	message(line []byte) message
	// ready says whether an engine inspects that has printed m.
	ready(m message) bool
	// readyAtOnce says that nothing has to be printed for it: open sockets do.
	readyAtOnce() bool
	// listen opens where the alerts come from. It is called before the engine's
	// start and holds over restarts.
	listen(dir string, by account, to *splitter) (source, error)
	format
	// reload has the running engine read its rules again.
	reload(ctx context.Context, dir string, p *process) error
	// files are the names, relative to dir, of all that it makes there, but for what
	// the engine makes in outDir; patterns of filepath.Match.
	files() []string
	// leftovers are those of files that one engine leaves to the next, who must
	// not find them.
	leftovers() []string
}

// source reads alerts.
type source interface {
	// serve reads until ctx ends, and then what is there already; it frees
	// everything that listen opened.
	serve(ctx context.Context) error
}

// message is a line of the engine's own log.
type message struct {
	level slog.Level
	text  string
}

//go:embed suricata.yaml.tmpl snort.lua.tmpl
var templates embed.FS

// render writes one of the embedded templates. The values were checked by
// Config.complete to mean nothing in the target language.
func render(name, path string, values any) error {
	t, err := template.New(name).ParseFS(templates, name)
	if err != nil {
		return fmt.Errorf("cannot read template: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, values); err != nil {
		return fmt.Errorf("cannot write configuration: %w", err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		return fmt.Errorf("cannot write configuration: %w", err)
	}
	return nil
}

// removeFiles removes what the patterns match in dir.
func removeFiles(dir string, patterns []string) {
	for _, pattern := range patterns {
		// The pattern is well-formed and dir has no wildcards, so there is no error.
		paths, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, path := range paths {
			_ = os.RemoveAll(path) // what is left over shows when it is made again
		}
	}
}

// parseVersion finds "7.0.10" in what the program printed.
func parseVersion(d driver, printed string) (string, error) {
	_, says, lowest := d.version()
	found := says.FindStringSubmatch(printed)
	if found == nil {
		return "", fmt.Errorf("it does not tell its version: %.80q", strings.TrimSpace(printed))
	}
	major, err := strconv.Atoi(found[2])
	if err != nil || major < lowest {
		return "", fmt.Errorf("version %s is too old, %d or later is needed", found[1], lowest)
	}
	return found[1], nil
}

// condense makes an error of what an engine printed when it refused its
// configuration: the first few complaints, which name file and line.
func condense(d driver, printed string, cause error) error {
	const enough = 4
	var errs, warnings []string
	for line := range strings.Lines(printed) {
		m := d.message([]byte(strings.TrimRight(line, "\r\n")))
		switch {
		case m.level >= slog.LevelError:
			errs = append(errs, m.text)
		case m.level >= slog.LevelWarn:
			warnings = append(warnings, m.text)
		}
	}
	said := errs
	if len(said) == 0 {
		said = warnings
	}
	said = slices.Compact(said)
	if len(said) == 0 {
		return fmt.Errorf("%w, without a word about why", cause)
	}
	more := ""
	if len(said) > enough {
		more = fmt.Sprintf("; and %d more", len(said)-enough)
		said = said[:enough]
	}
	return fmt.Errorf("%s%s", strings.Join(said, "; "), more)
}
