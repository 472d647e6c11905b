package snort

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	suricataConfig  = "suricata.yaml"
	suricataLimits  = "threshold.config"
	suricataKinds   = "classification.config"
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
	nets, ports := c.written()
	limits, kinds := filepath.Join(dir, suricataLimits), filepath.Join(dir, suricataKinds)
	for path, text := range map[string]string{limits: suricataLimit(), kinds: suricataClasses()} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("cannot write configuration: %w", err)
		}
	}
	return render("suricata.yaml.tmpl", filepath.Join(dir, suricataConfig), map[string]any{
		"Nets":          nets,
		"PortGroups":    ports,
		"Rules":         c.Rules,
		"Dir":           dir,
		"Thresholds":    limits,
		"Classes":       kinds,
		"Check":         check,
		"EveSocket":     filepath.Join(dir, eveSocket),
		"CommandSocket": filepath.Join(outOf(dir), suricataCommand),
		"Out":           outOf(dir),
		"ReadDirs":      suricataReads(dir),
		"Snap":          snap,
		"Threads":       c.Threads,
		"Ports":         []port{{c.In, c.Out, 98}, {c.Out, c.In, 99}},
	})
}

// suricataLimit is the event filter for all rules: it holds back lines, not
// actions. Rules with a threshold or detection_filter of their own are left alone
// by it.
func suricataLimit() string {
	return fmt.Sprintf("threshold gen_id 0, sig_id 0, type limit, track by_src, count %d, seconds 1\n", alertsPerSecond)
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
	return []string{"-T", "-c", filepath.Join(dir, suricataConfig), "-l", outOf(dir), "--init-errors-fatal"}
}

func (suricata) runArgs(_ Config, dir string) []string {
	return []string{"-c", filepath.Join(dir, suricataConfig), "-l", outOf(dir), "--af-packet", "--init-errors-fatal"}
}

func (suricata) needsTerminal() bool { return false }

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
		switch {
		case strings.Contains(r.Engine.Message, "has an event var set"):
			level = slog.LevelInfo // our event filter leaves that rule alone, as it should
		case strings.Contains(r.Engine.Message, "failed to set SIOCETHTOOL"):
			level = slog.LevelInfo // it may not: the offloads of its ports are off already
		}
	}
	return message{level, clean(r.Engine.Message, maxMessage)}
}

func (suricata) ready(m message) bool { return strings.Contains(m.text, "Engine started") }

func (suricata) readyAtOnce() bool { return false }

func (suricata) listen(dir string, _ account, to *splitter) (source, error) {
	return listenEve(filepath.Join(dir, eveSocket), to)
}

func (suricata) parse(line []byte) (Alert, bool, error) { return parseEve(line) }

func (suricata) marks() [3]string {
	return [3]string{`"signature_id":`, `"src_ip":"`, `"action":"`}
}

func (suricata) reload(ctx context.Context, dir string, _ *process) error {
	return reloadSuricata(ctx, filepath.Join(outOf(dir), suricataCommand))
}

func (suricata) files() []string {
	return []string{suricataConfig, suricataLimits, suricataKinds, eveSocket}
}

func (suricata) leftovers() []string { return []string{filepath.Join(outDir, suricataCommand)} }
