// Package demo shows the gateway's main job on real virtual machines: it boots
// three guests, puts a real gatewayd between their switches, plays honest,
// suspect and malicious processes in them, and compares what the gateway does
// with what it must do.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Options say where the demonstration's parts are.
type Options struct {
	Gatewayd string    // the daemon's program
	Engine   string    // suricata or snort
	Report   string    // path of the report for programs
	Out      io.Writer // for people
	Log      *slog.Logger
}

// step is one thing to show: what must happen, and how to see it.
type step struct {
	name     string
	expected string
	limit    time.Duration
	run      func(context.Context, *stage) (seen string, err error)
}

func steps() []step {
	return []step{
		{"1 forward", "held, traced to client in app1, forwarded by XDP, no retransmission", time.Minute, forward},
		{"2 policy", "app2 to web1:22 dropped by rule no-ssh", time.Minute, policy},
		{"3 same vSwitch", "app1 to app2 decided, out of the vNIC it came in by", time.Minute, sameSwitch},
		{"4 suspect", "through the IDS both ways from the first packet, completes", time.Minute, suspect},
		{"5 hidden and malicious", "recognised, inspected, convicted by the IDS's alert, cut off", 3 * time.Minute, malicious},
		{"6 the rest of app1 lives", "transfer whole, nothing lost, new connections succeed", 3 * time.Minute, restLives},
		{"7 VM level", "isolate cuts all of app2, ARP included; release restores it", 2 * time.Minute, isolation},
		{"8 reuse", "the malicious process's port, used by an honest one, is forwarded", time.Minute, reuse},
		{"9 inspect", "bpftool prints the verdicts with field names", time.Minute, inspect},
	}
}

// errDiffers says that the demonstration ran, but not as expected.
var errDiffers = errors.New("not everything went as expected")

// Run sets everything up, shows the steps, and takes everything down again, also
// when ctx ends early. It returns an error if any step differs.
func Run(ctx context.Context, opt Options) (err error) {
	scr := &screen{out: opt.Out, begin: time.Now()}
	report := &Report{}
	all := steps()
	defer func() {
		report.close(err, len(all))
		report.table(opt.Out)
		if err == nil && !report.OK {
			err = errDiffers
		}
		err = errors.Join(err, report.save(opt.Report))
	}()
	st, err := newStage(ctx, opt, scr)
	if err != nil {
		return err
	}
	defer func() {
		scr.line("taking everything down")
		err = errors.Join(err, st.close())
	}()
	for _, s := range all {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		report.add(st.show(ctx, s))
	}
	return nil
}

// show runs one step.
func (st *stage) show(ctx context.Context, s step) StepResult {
	st.screen.line("── %s: %s", s.name, s.expected)
	begin := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("no result within %s", s.limit))
	defer cancel()
	seen, err := s.run(ctx, st)
	result := StepResult{Step: s.name, Expected: s.expected, Seen: seen, MS: float64(time.Since(begin).Microseconds()) / 1000, OK: err == nil}
	if err != nil {
		result.Seen = err.Error()
	}
	st.screen.line("%s %s", map[bool]string{true: "ok", false: "NO"}[result.OK], result.Seen)
	return result
}
