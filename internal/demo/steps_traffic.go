package demo

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmgate/vmgate/internal/event"
)

const (
	web     = "10.77.0.21:80"
	webAlt  = "10.77.0.21:8080"
	webSSH  = "10.77.0.21:22"
	appEcho = "10.77.0.12:7000"
	bulk    = "200000" // bytes that a connection echoes, so that there are packets to count
)

// forward: one packet is held and traced, all later ones stay in XDP.
func forward(ctx context.Context, st *stage) (string, error) {
	before, err := st.settled(ctx)
	if err != nil {
		return "", err
	}
	mark := st.feed.mark()
	p, c, err := st.connect(ctx, st.lab.App1, "client", web, "-size", bulk)
	if err != nil {
		return "", err
	}
	e, err := st.feed.wait(ctx, mark, "the decision", decisionOn("app1", "web1", 80))
	if err != nil {
		return "", err
	}
	after, err := st.counts(ctx)
	if err != nil {
		return "", err
	}
	flow, err := st.flowOf(ctx, "app1", c.Port)
	if err != nil {
		return "", err
	}
	punted := after.since(before, "apps", "punt") + after.since(before, "web", "punt")
	redirected := flow.Src.Packets + flow.Dst.Packets
	seen := fmt.Sprintf("%s of app1, rule %s, held %.1f ms; %d punted, %d by XDP; %s",
		e.SrcProcess, e.Rule, float64(e.Micros)/1000, punted, redirected, c.losses(flow))
	return seen, differs(seen,
		c.OK && c.unharmed(flow), "the connection failed, or packets were lost",
		e.Verdict == "forward" && e.Rule == "web", "the decision is another",
		isProcess(e, "client", p.PID()), "it was not traced to the process",
		punted == 1 && redirected > 20, "later packets left XDP")
}

// policy: what no rule allows ends, under the name of the rule that says so.
func policy(ctx context.Context, st *stage) (string, error) {
	mark := st.feed.mark()
	_, c, err := st.connect(ctx, st.lab.App2, "intruder", webSSH, "-timeout", "2s")
	if err != nil {
		return "", err
	}
	e, err := st.feed.wait(ctx, mark, "the decision", decisionOn("app2", "web1", 22))
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("%s by rule %s; the client says: %s", e.Verdict, e.Rule, c.Error)
	return seen, differs(seen,
		!c.OK, "the connection came about",
		e.Verdict == "drop" && e.Rule == "no-ssh", "the decision is another")
}

// sameSwitch: two VMs behind one vSwitch meet only through the gateway.
func sameSwitch(ctx context.Context, st *stage) (string, error) {
	before, err := st.settled(ctx)
	if err != nil {
		return "", err
	}
	mark := st.feed.mark()
	p, c, err := st.connect(ctx, st.lab.App1, "neighbour", appEcho, "-size", bulk)
	if err != nil {
		return "", err
	}
	e, err := st.feed.wait(ctx, mark, "the decision", decisionOn("app1", "app2", 7000))
	if err != nil {
		return "", err
	}
	after, err := st.counts(ctx)
	if err != nil {
		return "", err
	}
	flow, err := st.flowOf(ctx, "app1", c.Port)
	if err != nil {
		return "", err
	}
	apps, all := after.since(before, "apps", "forward"), flow.Src.Packets+flow.Dst.Packets
	peer := "nobody"
	if e.DestProcess != nil {
		peer = e.DestProcess.String()
	}
	seen := fmt.Sprintf("%s → %s, rule %s; all %d packets of both came in by gw-apps; %s",
		e.SrcProcess, peer, e.Rule, all, c.losses(flow))
	return seen, differs(seen,
		c.OK && c.unharmed(flow), "the connection failed, or packets were lost",
		e.Verdict == "forward" && e.Rule == "app-to-app", "the decision is another",
		isProcess(e, "neighbour", p.PID()), "it was not traced to the process",
		all > 20 && apps >= all, "it took another way")
}

// suspect: a process on the suspect list is inspected, and works.
func suspect(ctx context.Context, st *stage) (string, error) {
	before, err := st.settled(ctx)
	if err != nil {
		return "", err
	}
	mark := st.feed.mark()
	p, c, err := st.connect(ctx, st.lab.App1, "suspect-tool", web, "-size", bulk)
	if err != nil {
		return "", err
	}
	e, err := st.feed.wait(ctx, mark, "the decision", decisionOn("app1", "web1", 80))
	if err != nil {
		return "", err
	}
	after, err := st.counts(ctx)
	if err != nil {
		return "", err
	}
	flow, err := st.flowOf(ctx, "app1", c.Port)
	if err != nil {
		return "", err
	}
	there, back := after.since(before, "ids-out", "ids-return"), after.since(before, "ids-in", "ids-return")
	first := after.since(before, "web", "egress-check")
	sent, answered := flow.Src.Packets+held, flow.Dst.Packets
	seen := fmt.Sprintf("%s is %s (%s); through the IDS: %d of %d packets there, the held one first, %d of %d back; %s",
		e.SrcProcess, e.Verdict, e.Cause, there, sent, back, answered, c.losses(flow))
	return seen, differs(seen,
		c.OK && c.unharmed(flow), "the connection failed, or packets were lost",
		e.Verdict == "check" && e.Cause == "suspect", "the decision is another",
		isProcess(e, "suspect-tool", p.PID()), "it was not traced to the process",
		first == 1 && there > 20 && back > 20 && there >= sent && back >= answered, "packets went past the IDS")
}

func isProcess(e event.Event, name string, pid int) bool {
	return e.SrcProcess != nil && e.SrcProcess.Name == name && int(e.SrcProcess.PID) == pid
}

// differs takes pairs of a condition and what is wrong when it does not hold.
func differs(seen string, pairs ...any) error {
	var errs []error
	for i := 0; i < len(pairs); i += 2 {
		if !pairs[i].(bool) {
			errs = append(errs, fmt.Errorf("%s", pairs[i+1]))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w (%s)", err, seen)
	}
	return nil
}
