package snort

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	suricataConfig  = "suricata.yaml"
	eveSocket       = "eve.sock"
	suricataCommand = "command.sock"
)

// suricata drives Suricata 7.
type suricata struct{}

var suricataVersion = regexp.MustCompile(`Suricata version ((\d+)\.\d+\.\d+)`)

func (suricata) version() ([]string, *regexp.Regexp, int) {
	return []string{"-V"}, suricataVersion, 7 // exception policies came with it
}

func (suricata) configure(c Config, snap int, dir string, check bool) error {
	type port struct {
		Device, Peer string
		Cluster      int
	}
	return render("suricata.yaml.tmpl", filepath.Join(dir, suricataConfig), map[string]any{
		"HomeNet":       c.homeNet(),
		"Rules":         c.Rules,
		"Dir":           dir,
		"Check":         check,
		"EveSocket":     filepath.Join(dir, eveSocket),
		"CommandSocket": filepath.Join(dir, suricataCommand),
		"ReadDirs":      suricataReads(dir),
		"Snap":          snap,
		"Ports":         []port{{c.In, c.Out, 98}, {c.Out, c.In, 99}},
	})
}

// suricataReads are the directories that the engine may read: it cannot open a
// file elsewhere, whoever owns it. Those that are missing it would complain about.
func suricataReads(dir string) []string {
	return slices.DeleteFunc([]string{dir + "/", "/usr/", "/etc/suricata/", "/proc/", "/sys/"}, func(dir string) bool {
		_, err := os.Stat(dir)
		return err != nil
	})
}

func (suricata) checkArgs(dir string) []string {
	return []string{"-T", "-c", filepath.Join(dir, suricataConfig), "-l", dir, "--init-errors-fatal"}
}

func (suricata) runArgs(_ Config, dir string) []string {
	return []string{"-c", filepath.Join(dir, suricataConfig), "-l", dir, "--af-packet", "--init-errors-fatal"}
}

// message reads a line of the console in its JSON form.
func (suricata) message(line []byte) message {
	var r struct {
		Level  string `json:"log_level"`
		Engine struct {
			Message string `json:"message"`
		} `json:"engine"`
	}
	if err := json.Unmarshal(line, &r); err != nil || r.Engine.Message == "" {
		return message{slog.LevelInfo, clean(string(line), maxMessage)}
	}
	level := slog.LevelInfo
	switch r.Level {
	case "Error", "Emergency", "Alert", "Critical":
		level = slog.LevelError
	case "Warning":
		level = slog.LevelWarn
	}
	return message{level, clean(r.Engine.Message, maxMessage)}
}

func (suricata) ready(m message) bool { return strings.Contains(m.text, "Engine started") }

func (suricata) readyAtOnce() bool { return false }

func (suricata) listen(dir string, to *splitter) (source, error) {
	return listenEve(filepath.Join(dir, eveSocket), to)
}

func (suricata) parse(line []byte) (Alert, bool, error) { return parseEve(line) }

func (suricata) reload(ctx context.Context, dir string, _ *process) error {
	return reloadSuricata(ctx, filepath.Join(dir, suricataCommand))
}

func (suricata) files() []string {
	return []string{suricataConfig, eveSocket, suricataCommand, "suricata.log"}
}

func (suricata) leftovers() []string { return []string{suricataCommand} }
