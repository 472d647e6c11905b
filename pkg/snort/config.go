package snort

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
)

// The engines that the package can run.
const (
	EngineSuricata = "suricata" // 7.0 or later
	EngineSnort    = "snort"    // 3.x
)

const (
	defaultMTU = 1500
	minMTU     = 576
	maxMTU     = 65517 // with headerRoom still within 16 bits
	maxThreads = 64
	headerRoom = 18  // Ethernet header and one VLAN tag, beside the MTU
	maxSunPath = 107 // sockaddr_un.sun_path without its final zero, see unix(7)
)

// Config says which engine runs where. It is not changed by the package.
type Config struct {
	Engine    string         // EngineSuricata or EngineSnort
	Binary    string         // the engine's program; empty: found on PATH by the engine's name
	User      string         // who runs it; "": vmgate-ids if there is such a user, else nobody
	NetNS     string         // path of the network namespace it runs in, such as /run/netns/x; empty: the caller's
	In, Out   string         // the engine's devices in that namespace; packets towards servers enter at In
	Rules     []string       // absolute paths of rule files, at least one
	HomeNets  []netip.Prefix // $HOME_NET of the rules; empty: any
	Variables []Variable     // of the rules, instead of the usual ones or beside them
	Threads   int            // that inspect; 0: 1. Flows are shared out among them by hash
	MTU       int            // of In and Out, bytes; 0: 1500. Where a device's own is larger, that one counts
	Dir       string         // absolute; owned by this package: configuration, sockets, logs; best on tmpfs. Made and emptied by Run. User must be able to search its parents
	Log       *slog.Logger   // nil: slog.Default()
}

var (
	deviceName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,15}$`)
	// The directory is written into the engines' own configuration languages, and
	// Suricata expands rule paths with glob(3): what means something there is
	// refused rather than escaped in three ways.
	plainPath = regexp.MustCompile(`^/[\p{L}\p{N}/ ._+@=:,~#%-]*$`)
)

// complete fills in the defaults and checks everything that can be checked
// without running the engine.
func (c Config) complete() (Config, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.MTU == 0 {
		c.MTU = defaultMTU
	}
	if c.Threads == 0 {
		c.Threads = 1
	}
	switch {
	case c.Threads < 1 || c.Threads > maxThreads:
		return c, fmt.Errorf("%d threads: say 1 to %d", c.Threads, maxThreads)
	case c.Engine != EngineSuricata && c.Engine != EngineSnort:
		return c, fmt.Errorf("engine %q: say %s or %s", c.Engine, EngineSuricata, EngineSnort)
	case c.MTU < minMTU || c.MTU > maxMTU:
		return c, fmt.Errorf("MTU %d is not between %d and %d", c.MTU, minMTU, maxMTU)
	case c.In == c.Out:
		return c, fmt.Errorf("the pair needs two devices, both are %q", c.In)
	}
	for _, name := range []string{c.In, c.Out} {
		if !deviceName.MatchString(name) {
			return c, fmt.Errorf("device name %q: 1 to 15 letters, digits, '_', '.', '-'", name)
		}
	}
	for _, p := range c.HomeNets {
		if !p.IsValid() {
			return c, errors.New("a home network is no valid prefix")
		}
	}
	if err := errors.Join(c.checkVariables(), c.checkDir()); err != nil {
		return c, err
	}
	return c, c.checkRules()
}

func (c Config) checkDir() error {
	if c.Dir == "/" || !plainPath.MatchString(c.Dir) || filepath.Clean(c.Dir) != c.Dir {
		return fmt.Errorf("directory %q: give a clean absolute path of its own, without quotes and wildcards", c.Dir)
	}
	if n := len(filepath.Join(outOf(c.Dir), suricataCommand)); n > maxSunPath {
		return fmt.Errorf("directory %q: the path of a socket in it would have %d bytes, the kernel takes %d; choose a shorter one", c.Dir, n, maxSunPath)
	}
	return nil
}

func (c Config) checkRules() error {
	if len(c.Rules) == 0 {
		return errors.New("no rule files: an engine without rules inspects nothing")
	}
	for _, path := range c.Rules {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("rule file %q: give an absolute path", path)
		}
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("rule file: %w", err)
		}
		info, err := f.Stat()
		f.Close()
		if err != nil {
			return fmt.Errorf("rule file: %w", err)
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("rule file %s is no regular file", path)
		}
	}
	return nil
}
