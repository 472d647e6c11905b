package snort

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// The phases of an engine. Only in PhaseUp do packets pass between In and Out.
const (
	PhaseStarting = "starting"
	PhaseUp       = "up"
	PhaseDown     = "down"
)

// State is how the engine does.
type State struct {
	Phase    string    `json:"phase"`
	PID      int       `json:"pid"`      // 0 while there is no process
	Since    time.Time `json:"since"`    // of the phase
	Restarts int       `json:"restarts"` // since Run began
	Detail   string    `json:"detail,omitempty"`

	Lines     uint64 `json:"lines"`     // read from the engine
	Malformed uint64 `json:"malformed"` // of them, too long or not understood
	Lost      uint64 `json:"lost"`      // alerts, because onAlert was slower than they came
}

// Engine is one inline engine between two devices. Its methods may be called
// from any goroutine; Run only once at a time.
type Engine struct {
	cfg     Config
	drv     driver
	binary  string
	version string

	lines, malformed, lost atomic.Uint64

	mu    sync.Mutex
	state State
	proc  *process // while the phase is up

	reloading sync.Mutex
}

// queueLength bounds the alerts that wait for onAlert: some 0.1 s of the
// heaviest flood seen.
const queueLength = 4096

// New checks the configuration, that the engine's program is there in a version
// that can be run, and that the rule files can be read. It writes nothing.
func New(c Config) (*Engine, error) {
	c, err := c.complete()
	if err != nil {
		return nil, fmt.Errorf("cannot use the IDS configuration: %w", err)
	}
	e := &Engine{cfg: c, drv: driverOf(c.Engine), state: State{Phase: PhaseDown, Since: time.Now(), Detail: "not started"}}
	if e.binary, err = findBinary(c); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	args, _, _ := e.drv.version()
	printed, err := output(ctx, e.binary, args, maxLine)
	if err == nil {
		e.version, err = parseVersion(e.drv, printed)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use %s as %s: %w", e.binary, c.Engine, err)
	}
	return e, nil
}

func driverOf(engine string) driver {
	if engine == EngineSnort {
		return snort3{}
	}
	return suricata{}
}

func findBinary(c Config) (string, error) {
	name := c.Binary
	if name == "" {
		name = c.Engine
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("cannot find the IDS engine: %w; install %s or name its program", err, c.Engine)
	}
	return path, nil
}

// Version is the program's version, such as "7.0.10".
func (e *Engine) Version() string { return e.version }

// Check has the engine test its configuration and rules without running. The
// error names rule file and line.
func (e *Engine) Check(ctx context.Context) error {
	if err := os.MkdirAll(e.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the IDS directory: %w", err)
	}
	defer os.Remove(e.cfg.Dir) // succeeds only if nothing else is in it
	dir, err := os.MkdirTemp(e.cfg.Dir, "check-")
	if err != nil {
		return fmt.Errorf("cannot make a directory for the IDS check: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := e.drv.configure(e.cfg, e.cfg.MTU+headerRoom, dir, true); err != nil {
		return err
	}
	printed, err := output(ctx, e.binary, e.drv.checkArgs(dir), 1<<20)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("cannot check the IDS rules in time: %w", ctx.Err())
	}
	return fmt.Errorf("%s refuses its rules: %w", e.cfg.Engine, condense(e.drv, printed, err))
}

// Reload has the running engine take over the rule files as they are now,
// without losing a packet. The rules are checked first: after an error the old
// ones are still in force.
func (e *Engine) Reload(ctx context.Context) error {
	e.reloading.Lock()
	defer e.reloading.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := e.Check(ctx); err != nil {
		return fmt.Errorf("cannot reload, the old rules stay: %w", err)
	}
	e.mu.Lock()
	p := e.proc
	e.mu.Unlock()
	if p == nil {
		return errors.New("cannot reload: the engine is not up; it will read the new rules when it starts")
	}
	if err := e.drv.reload(ctx, e.cfg.Dir, p); err != nil {
		return fmt.Errorf("cannot reload: %w", err)
	}
	return nil
}

// State says how the engine does now.
func (e *Engine) State() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state
	s.Lines, s.Malformed, s.Lost = e.lines.Load(), e.malformed.Load(), e.lost.Load()
	return s
}

// accept takes one line of the engine. It never waits.
func (e *Engine) accept(line []byte, queue chan<- Alert) {
	e.lines.Add(1)
	a, isAlert, err := e.drv.parse(line)
	if err != nil {
		e.malformed.Add(1)
		e.cfg.Log.Debug("IDS line not understood", "error", err)
		return
	}
	if !isAlert {
		return
	}
	select {
	case queue <- a:
	default:
		e.lost.Add(1)
	}
}

func (e *Engine) overlong() {
	e.lines.Add(1)
	e.malformed.Add(1)
}
