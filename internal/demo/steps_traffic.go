package demo

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
)

const (
	web     = "10.77.0.21:80"
	webAlt  = "10.77.0.21:8080"
	webSSH  = "10.77.0.21:22"
	appEcho = "10.77.0.12:7000"
	bulk    = "200000" // bytes that a connection echoes, so that there are packets to count
)

// act is one connection that a process made, and what the gateway did with it.
type act struct {
	process       *lab.Process
	connection    connection
	decision      event.Event
	flow          api.Flow
	before, after counts
}

// play has a process of app1 connect, and collects all that there is to see.
func (st *stage) play(ctx context.Context, name, target, vm string, port uint16) (a act, err error) {
	if a.before, err = st.settled(ctx); err != nil {
		return a, err
	}
	mark := st.feed.mark()
	if a.process, a.connection, err = st.connect(ctx, st.lab.App1, name, target, "-size", bulk); err != nil {
		return a, err
	}
	if a.decision, err = st.feed.wait(ctx, mark, "the decision", decisionOn("app1", vm, port)); err != nil {
		return a, err
	}
	// The flow first: what it has counted by then is in the counters by now.
	if a.flow, err = st.flowOf(ctx, a.connection.Port, port); err != nil {
		return a, err
	}
	a.after, err = st.counts(ctx)
	return a, err
}

// counted is how many packets were counted at a place under a reason meanwhile.
func (a act) counted(place, reason string) uint64 { return a.after.since(a.before, place, reason) }

// differs says what of an act, or of more conditions, is not as it must be.
func (a act) differs(seen, name, verdict string, more ...any) error {
	return differs(seen, append([]any{
		a.connection.OK && a.connection.unharmed(a.flow), "the connection failed, or packets were lost",
		a.decision.Verdict == verdict, "the decision is another",
		isProcess(a.decision, name, a.process.PID()), "it was not traced to the process",
	}, more...)...)
}

// forward: one packet is held and traced, all later ones stay in XDP.
func forward(ctx context.Context, st *stage) (string, error) {
	a, err := st.play(ctx, "client", web, "web1", 80)
	if err != nil {
		return "", err
	}
	punted := a.counted("apps", "punt") + a.counted("web", "punt")
	redirected := a.flow.Src.Packets + a.flow.Dst.Packets
	seen := fmt.Sprintf("%s of app1, rule %s, held %.1f ms; %d punted, %d by XDP; %s",
		a.decision.SrcProcess, a.decision.Rule, float64(a.decision.Micros)/1000, punted, redirected, a.connection.losses(a.flow))
	return seen, a.differs(seen, "client", "forward",
		a.decision.Rule == "web", "another rule decided",
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
	a, err := st.play(ctx, "neighbour", appEcho, "app2", 7000)
	if err != nil {
		return "", err
	}
	peer := "nobody"
	if a.decision.DestProcess != nil {
		peer = a.decision.DestProcess.String()
	}
	here, all := a.counted("apps", "forward"), a.flow.Src.Packets+a.flow.Dst.Packets
	seen := fmt.Sprintf("%s → %s, rule %s; all %d packets of both came in by gw-apps; %s",
		a.decision.SrcProcess, peer, a.decision.Rule, all, a.connection.losses(a.flow))
	return seen, a.differs(seen, "neighbour", "forward",
		a.decision.Rule == "app-to-app", "another rule decided",
		all > 20 && here >= all, "it took another way")
}

// suspect: a process on the suspect list is inspected, and works.
func suspect(ctx context.Context, st *stage) (string, error) {
	a, err := st.play(ctx, "suspect-tool", web, "web1", 80)
	if err != nil {
		return "", err
	}
	there, back := a.counted("ids-out", "ids-return"), a.counted("ids-in", "ids-return")
	sent, answered := a.flow.Src.Packets+held, a.flow.Dst.Packets
	seen := fmt.Sprintf("%s is %s (%s); through the IDS: %d of %d packets there, the held one first, %d of %d back; %s",
		a.decision.SrcProcess, a.decision.Verdict, a.decision.Cause, there, sent, back, answered, a.connection.losses(a.flow))
	return seen, a.differs(seen, "suspect-tool", "check",
		a.decision.Cause == "suspect", "the cause is another",
		a.counted("web", "egress-check") == held, "the held packet went past the IDS",
		there > 20 && back > 20 && there >= sent && back >= answered, "packets went past the IDS")
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
