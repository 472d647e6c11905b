package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi/vmitest"
)

const (
	machine      = "q35"
	workers      = 5
	quiet        = 12 * time.Second // before the chosen worker begins its flood
	transferSize = 40 << 20
	transferRate = 1 << 20 // bytes a second
)

// malicious: one of several workers is hidden from its guest and floods web1.
// The gateway is told nothing.
func malicious(ctx context.Context, st *stage) (string, error) {
	if err := st.startHonest(ctx); err != nil {
		return "", err
	}
	chosen, err := st.startWorkers(ctx)
	if err != nil {
		return "", err
	}
	mark := st.feed.mark()
	if err := st.hide(ctx, chosen); err != nil {
		return "", err
	}
	if err := st.showHidden(ctx, chosen); err != nil {
		return "", err
	}
	isIt := func(e event.Event) bool {
		return e.SrcVM == "app1" && e.SrcProcess != nil && int(e.SrcProcess.PID) == chosen.PID()
	}
	if _, err := st.feed.wait(ctx, mark, "a hidden process", func(e event.Event) bool {
		return isIt(e) && e.Type == "verdict" && e.Verdict == "check" && e.Cause == "hidden"
	}); err != nil {
		return "", err
	}
	inspected, err := st.feed.wait(ctx, mark, "that its traffic is inspected", func(e event.Event) bool {
		return isIt(e) && e.Type == "decision" && e.Verdict == "check" && e.DestPort == 80
	})
	if err != nil {
		return "", err
	}
	alert, err := st.feed.wait(ctx, mark, "an alert of the IDS", func(e event.Event) bool { return isIt(e) && e.Type == "alert" })
	if err != nil {
		return "", err
	}
	st.screen.line("          as the IDS saw it: %s %s:%d → %s:%d [%d:%d] %s, %s", alert.Proto, alert.SrcIP, alert.SrcPort,
		alert.DestIP, alert.DestPort, alert.Alert.GID, alert.Alert.SID, alert.Alert.Signature, alert.Alert.Action)
	convicted, err := st.feed.wait(ctx, mark, "its conviction", func(e event.Event) bool {
		return isIt(e) && e.Type == "verdict" && e.Verdict == "drop"
	})
	if err != nil {
		return "", err
	}
	if _, err := chosen.WaitLine(ctx, contains(`"kept":false`)); err != nil {
		return "", fmt.Errorf("its other connection lives on: %w", err)
	}
	listed, err := st.onMaliciousList(ctx, chosen.PID())
	if err != nil {
		return "", err
	}
	dropped, err := st.dropsGrow(ctx)
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("%s hidden; alert %.0f ms after its first inspected packet; convicted (%s), listed; %d dropped in XDP and rising; its other connection is cut",
		convicted.SrcProcess, float64(alert.Timestamp.Sub(inspected.Timestamp).Microseconds())/1000, convicted.Cause, dropped)
	return seen, differs(seen, listed, "it is not on the malicious list")
}

// startHonest starts the transfer that must survive, before anything bad is done.
func (st *stage) startHonest(ctx context.Context) (err error) {
	st.transfer, err = st.lab.App1.Guest.Start(ctx, "backup", "transfer", "-upload", webAlt, fmt.Sprint(transferSize), fmt.Sprint(transferRate))
	if err != nil {
		return fmt.Errorf("cannot start the transfer: %w", err)
	}
	line, err := st.transfer.WaitLine(ctx, contains(`"bytes":`))
	if err != nil {
		return fmt.Errorf("the transfer does not run: %w", err)
	}
	st.screen.line("backup[%d] in app1 sends %d MiB to web1: %s", st.transfer.PID(), transferSize>>20, strings.TrimSpace(line))
	return nil
}

// startWorkers starts processes that are alike but for when they flood, and
// picks the one that will.
func (st *stage) startWorkers(ctx context.Context) (*lab.Process, error) {
	bad := rand.IntN(workers)
	var chosen *lab.Process
	for i := range workers {
		wait := "1h"
		if i == bad {
			wait = quiet.String()
		}
		p, err := st.lab.App1.Guest.Start(ctx, fmt.Sprintf("worker%d", i+1), "flood", web, "-wait", wait, "-keep", webAlt)
		if err != nil {
			return nil, fmt.Errorf("cannot start worker %d: %w", i+1, err)
		}
		line, err := p.WaitLine(ctx, contains(`"kept":`))
		if err != nil {
			return nil, fmt.Errorf("worker %d did not connect: %w", i+1, err)
		}
		if i == bad {
			c, err := parse(line)
			if err != nil {
				return nil, err
			}
			chosen, st.port = p, c.Port
		}
	}
	st.attacker = chosen
	st.screen.line("%d workers run in app1; chosen at random, unknown to the gateway: pid %d", workers, chosen.PID())
	return chosen, nil
}

// hide takes the process off app1's own listings by writing to its memory.
func (st *stage) hide(ctx context.Context, p *lab.Process) error {
	file, pid := st.lab.App1.Guest.MemoryFile(), uint32(p.PID())
	if err := vmitest.Hide(file, machine, pid); err != nil {
		return err
	}
	st.unhide = func() error { return vmitest.Unhide(file, machine, pid) }
	ps, _, err := st.lab.App1.Guest.Run(ctx, "ps")
	if err != nil {
		return err
	}
	st.screen.line("app1's own ps, with pid %d made invisible:", pid)
	for line := range strings.Lines(ps) {
		fields := strings.Fields(line)
		if len(fields) > 0 && fields[0] == fmt.Sprint(pid) {
			return fmt.Errorf("ps in app1 still shows pid %d", pid)
		}
		if strings.Contains(line, " worker") || strings.Contains(line, "backup") {
			st.screen.line("          | %s", strings.TrimRight(line, "\n"))
		}
	}
	return nil
}

// showHidden prints what the gateway sees beside it.
func (st *stage) showHidden(ctx context.Context, p *lab.Process) error {
	processes, err := st.client.Processes(ctx, "app1")
	if err != nil {
		return err
	}
	st.screen.line("gatewayd ps app1:")
	for _, known := range processes {
		if !strings.HasPrefix(known.Name, "worker") && known.Name != "backup" {
			continue
		}
		hidden := ""
		if known.Hidden {
			hidden = "  HIDDEN: " + known.HiddenWhy
		}
		st.screen.line("          | %5d %-10s seen by %s%s", known.PID, known.Name, strings.Join(known.Views, ","), hidden)
		if int(known.PID) == p.PID() && !known.Hidden {
			return fmt.Errorf("the gateway does not see that pid %d is hidden", p.PID())
		}
	}
	return nil
}

func (st *stage) onMaliciousList(ctx context.Context, pid int) (bool, error) {
	entries, err := st.client.Lists(ctx)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.List == "malicious" && e.VM == "app1" && int(e.PID) == pid {
			return true, nil
		}
	}
	return false, nil
}

// dropsGrow waits until XDP drops by verdict, and tells how many so far.
func (st *stage) dropsGrow(ctx context.Context) (uint64, error) {
	first, err := st.counts(ctx)
	if err != nil {
		return 0, err
	}
	key := [2]string{"apps", "drop-verdict"}
	var now counts
	err = poll(ctx, "XDP drops nothing more of it", func() (bool, error) {
		now, err = st.counts(ctx)
		return now[key] > first[key], err
	})
	return now[key], err
}

// restLives: while the flood goes on against the wall, the rest of app1 works.
func restLives(ctx context.Context, st *stage) (string, error) {
	if st.attacker == nil || st.transfer == nil {
		return "", fmt.Errorf("there is no flood: step 5 did not get so far")
	}
	const wanted = 10
	p, err := st.lab.App1.Guest.Start(ctx, "honest", "connect", web, "-n", fmt.Sprint(wanted), "-every", "300ms")
	if err != nil {
		return "", err
	}
	if _, err := p.Wait(ctx); err != nil {
		return "", fmt.Errorf("the honest connections did not end: %w", err)
	}
	made := 0
	for _, line := range p.Lines() {
		if c, err := parse(line); err == nil && c.OK {
			made++
		}
	}
	st.screen.line("honest[%d] in app1 made %d of %d new connections during the flood", p.PID(), made, wanted)
	line, err := st.transfer.WaitLine(ctx, contains(`"done":true`))
	if err != nil {
		return "", fmt.Errorf("the transfer did not end: %w", err)
	}
	t, err := parse(line)
	if err != nil {
		return "", err
	}
	flow, err := st.flowOf(ctx, t.Port, 8080)
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("%d bytes, sha256 %.12s… right; of %d packets: %s; %d/%d new connections",
		t.Bytes, t.SHA256, t.SegsOut, t.losses(flow), made, wanted)
	return seen, differs(seen,
		t.OK && t.Bytes == transferSize, "the transfer is not whole: "+t.Error,
		t.lost(flow) == 0, "packets were lost at the gateway",
		made == wanted, "honest connections failed")
}
