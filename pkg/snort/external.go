package snort

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Formats of the lines of an engine that others run.
const (
	FormatEVE   = "eve"        // Suricata's EVE JSON
	FormatSnort = "alert_json" // Snort 3's, with the field class behind msg
)

// ExternalConfig says where the alerts of an engine come from that is not run by
// this package: in a virtual machine of its own, or beside the gateway. At least
// one source is named; all of them are read.
type ExternalConfig struct {
	TLS       *TLSConfig // lines over TLS; nil: none
	Socket    string     // path of a unix stream socket to listen on for lines; "": none
	File      string     // path of a file to which lines are appended; "": none
	Format    string     // of all lines; "": FormatEVE
	Datagrams string     // path of a unix datagram socket to listen on for Snort's alert_unixsock; "": none
	Spool     string     // path of Snort's unified2 files without the .TIMESTAMP at their ends; "": none
	// Unstated is the action of an alert that does not say what became of the packet:
	// those of alert_unixsock never do, of unified2 all that are not marked as
	// blocked. "": ActionAlert, which convicts nobody.
	Unstated Action
	Log      *slog.Logger // nil: slog.Default()
}

// External takes the alerts of an engine that others run. Of the engine itself it
// knows nothing: it can neither tell whether it inspects nor start it again. Its
// methods may be called from any goroutine; Run only once at a time.
type External struct {
	cfg    ExternalConfig
	lines  format
	alerts intake
	since  time.Time
	// connected counts the connections over which alerts come now.
	connected atomic.Int32
}

// NewExternal checks the configuration, and that the certificates can be read. It
// opens nothing.
func NewExternal(c ExternalConfig) (*External, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Unstated == "" {
		c.Unstated = ActionAlert
	}
	e := &External{cfg: c, lines: suricata{}, alerts: intake{log: c.Log}, since: time.Now()}
	if c.Format == FormatSnort {
		e.lines = snort3{}
	}
	switch {
	case c.Format != "" && c.Format != FormatEVE && c.Format != FormatSnort:
		return nil, fmt.Errorf("cannot read alerts of format %q: say %s or %s", c.Format, FormatEVE, FormatSnort)
	case c.Unstated != ActionAlert && c.Unstated != ActionDrop:
		return nil, fmt.Errorf("cannot take alerts without action as %q: say %s or %s", c.Unstated, ActionAlert, ActionDrop)
	case c.TLS == nil && c.Socket == "" && c.File == "" && c.Datagrams == "" && c.Spool == "":
		return nil, errors.New("cannot take alerts of an external IDS: no source is named")
	}
	for _, path := range []string{c.Socket, c.Datagrams} {
		if len(path) > maxSunPath {
			return nil, fmt.Errorf("cannot listen on %s: its path has %d bytes, the kernel takes %d", path, len(path), maxSunPath)
		}
	}
	if c.TLS != nil {
		if _, err := c.TLS.server(); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// State says that the engine is up, for all that can be known here; the detail says
// whether anybody is connected to send its alerts.
func (e *External) State() State {
	s := State{Phase: PhaseUp, Since: e.since}
	if e.cfg.File == "" && e.cfg.Datagrams == "" && e.cfg.Spool == "" && e.connected.Load() == 0 {
		s.Detail = "nobody is connected to send alerts"
	}
	e.alerts.counts(&s)
	return s
}

// Run takes alerts until ctx ends, or returns an error where one of the sources
// cannot be read. onState is called once; onAlert as in Engine.Run.
func (e *External) Run(ctx context.Context, onState func(State), onAlert func(Alert)) (err error) {
	sources, err := e.open()
	if err != nil {
		return fmt.Errorf("cannot take alerts of an external IDS: %w", err)
	}
	handOver := e.alerts.open(onAlert)
	defer handOver()
	onState(e.State())
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range sources {
		group.Go(func() error { return s.serve(ctx) })
	}
	return group.Wait()
}

// open opens all sources, or none.
func (e *External) open() (sources []source, err error) {
	defer func() {
		if err == nil {
			return
		}
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		for _, s := range sources {
			_ = s.serve(ended) // frees what it opened
		}
	}()
	add := func(s source, failed error) {
		if failed != nil {
			err = errors.Join(err, failed)
			return
		}
		sources = append(sources, s)
	}
	c := e.cfg
	if c.TLS != nil {
		add(listenTLS(c.TLS, e.streams()))
	}
	if c.Socket != "" {
		add(listenLines(c.Socket, e.streams()))
	}
	if c.File != "" {
		add(followFile(c.File, e.alerts.splitter(e.lines)))
	}
	if c.Datagrams != "" {
		add(listenDatagrams(c.Datagrams, c.Unstated, &e.alerts))
	}
	if c.Spool != "" {
		add(followSpool(c.Spool, c.Unstated, &e.alerts))
	}
	return sources, err
}

func (e *External) streams() streams {
	return streams{log: e.cfg.Log, connected: &e.connected, to: func() *splitter { return e.alerts.splitter(e.lines) }}
}
