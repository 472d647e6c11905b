package snort

import (
	"context"
	"fmt"
	"os/exec"
	"sync"
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
	Repeated  uint64 `json:"repeated"`  // lines of which the second had enough: not read
}

// Engine is one inline engine between two devices. Its methods may be called
// from any goroutine; Run only once at a time.
type Engine struct {
	cfg     Config
	drv     driver
	binary  string
	user    account
	version string

	alerts intake

	mu        sync.Mutex
	isRunning bool // Run runs
	state     State
	proc      *process // while the phase is up

	loading chan struct{} // holds one token while the copies of the rules change or are read
	proven  bool          // an engine took the copies, so they stay; under loading
}

// New checks the configuration, that the engine's program is there in a version
// that can be run, and that the rule files can be read. It writes nothing.
func New(c Config) (*Engine, error) {
	c, err := c.complete()
	if err != nil {
		return nil, fmt.Errorf("cannot use the IDS configuration: %w", err)
	}
	e := &Engine{
		cfg:     c,
		drv:     driverOf(c.Engine),
		alerts:  intake{log: c.Log},
		state:   State{Phase: PhaseDown, Since: time.Now(), Detail: "not started"},
		loading: make(chan struct{}, 1),
	}
	if e.binary, err = findBinary(c); err != nil {
		return nil, err
	}
	if e.user, err = findAccount(c.User); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	args, _, _ := e.drv.version()
	printed, err := output(ctx, program{binary: e.binary, args: args, user: e.user}, maxLine)
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

// State says how the engine does now.
func (e *Engine) State() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state
	e.alerts.counts(&s)
	return s
}
