package snort

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	snortConfig = "snort.lua"
	snortAlerts = "*alert_json.txt" // several threads put their number in front
)

// snort3 drives Snort 3.
type snort3 struct{}

var snortVersion = regexp.MustCompile(`Version ((\d+)(?:\.\d+)+)`)

func (snort3) version() ([]string, *regexp.Regexp, int) {
	return []string{"-V"}, snortVersion, 3
}

func (snort3) configure(c Config, snap int, dir string, check bool) error {
	nets, ports := c.written()
	return render("snort.lua.tmpl", filepath.Join(dir, snortConfig), map[string]any{
		"Nets": nets, "PortGroups": ports,
		"Rules":   c.Rules,
		"Check":   check,
		"Snap":    snap,
		"Threads": c.Threads,
		"Limit":   alertsPerSecond,
		"Classes": classes,
	})
}

func (snort3) checkArgs(dir string) []string {
	return []string{"-T", "-c", filepath.Join(dir, snortConfig), "-l", outOf(dir)}
}

func (snort3) runArgs(c Config, dir string) []string {
	return []string{"-Q", "-c", filepath.Join(dir, snortConfig), "-i", c.In + ":" + c.Out, "-l", outOf(dir), "-z", strconv.Itoa(c.Threads)}
}

func (snort3) needsTerminal() bool { return true }

// message reads a line of Snort's standard output and error, where errors and
// warnings begin with their name: "ERROR: FILE:LINE what".
func (snort3) message(line []byte) message {
	text := strings.TrimSpace(clean(string(line), maxMessage))
	switch {
	case strings.HasPrefix(text, "FATAL: see prior "): // a count of what was said
	case strings.HasPrefix(text, "ERROR:"), strings.HasPrefix(text, "FATAL:"):
		return message{slog.LevelError, strings.TrimSpace(text[len("ERROR:"):])}
	case strings.HasPrefix(text, "WARNING:"):
		return message{slog.LevelWarn, strings.TrimSpace(text[len("WARNING:"):])}
	}
	return message{slog.LevelInfo, text}
}

func (snort3) ready(message) bool { return false }

// readyAtOnce is true since Snort opens its sockets when everything else has been
// read, and packets wait in their rings for it.
func (snort3) readyAtOnce() bool { return true }

func (snort3) listen(dir string, by account, to *splitter) (source, error) {
	return watchFiles(outOf(dir), snortAlerts, &by, to)
}

func (snort3) parse(line []byte) (Alert, bool, error) { return parseAlertJSON(line) }

func (snort3) marks() [3]string {
	return [3]string{`"sid" : `, `"src_addr" : "`, `"action" : "`}
}

// reload sends SIGHUP, and waits for what Snort says of it (src/main.cc): that all
// its threads have changed over, or that it keeps the old configuration.
func (snort3) reload(ctx context.Context, _ string, p *process) error {
	const answer = "== reload "
	answers, forget := p.said.listen(answer)
	defer forget()
	p.signal(unix.SIGHUP)
	select {
	case text := <-answers:
		if text == answer+"complete" {
			return nil
		}
		return fmt.Errorf("Snort keeps its old rules: %s", strings.TrimPrefix(text, "== "))
	case <-p.exited:
		return fmt.Errorf("Snort keeps its old rules: %w", p.ended())
	case <-ctx.Done():
		return fmt.Errorf("Snort does not say that it has the new rules: %w", ctx.Err())
	}
}

func (snort3) files() []string { return []string{snortConfig} }

func (snort3) leftovers() []string { return []string{filepath.Join(outDir, snortAlerts)} }
