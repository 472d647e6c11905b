package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vmgate/vmgate/internal/api"
)

// isolation: an isolated VM neither sends nor receives, not even ARP.
func isolation(ctx context.Context, st *stage) (string, error) {
	if err := st.client.Measure(ctx, api.Measure{Action: "isolate", VM: "app2"}); err != nil {
		return "", err
	}
	before, err := st.counts(ctx)
	if err != nil {
		return "", err
	}
	_, from, err := st.connect(ctx, st.lab.App2, "outbound", web, "-timeout", "2s")
	if err != nil {
		return "", err
	}
	_, to, err := st.connect(ctx, st.lab.App1, "inbound", appEcho, "-timeout", "2s")
	if err != nil {
		return "", err
	}
	arp, err := st.answersARP(ctx)
	if err != nil {
		return "", err
	}
	after, err := st.counts(ctx)
	if err != nil {
		return "", err
	}
	dropped := after.since(before, "apps", "drop-verdict")
	if err := st.client.Measure(ctx, api.Measure{Action: "release", VM: "app2"}); err != nil {
		return "", err
	}
	_, again, err := st.connect(ctx, st.lab.App2, "outbound", web, "-timeout", "10s")
	if err != nil {
		return "", err
	}
	arpAgain, err := st.answersARP(ctx)
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("isolated: from app2 %s, to app2 %s, ARP answered %t, %d dropped; released: from app2 %s, ARP answered %t",
		passed(from), passed(to), arp, dropped, passed(again), arpAgain)
	return seen, differs(seen,
		!from.OK && !to.OK, "a connection passed",
		!arp, "ARP passed",
		again.OK && arpAgain, "release did not restore it")
}

// answersARP says whether app1 gets an answer to an ARP request for app2.
func (st *stage) answersARP(ctx context.Context) (bool, error) {
	_, exit, err := st.lab.App1.Guest.Run(ctx, "arping -c 2 -w 3 -I eth0 10.77.0.12 >/dev/null 2>&1")
	return exit == 0, err
}

func passed(c connection) string {
	if c.OK {
		return "passes"
	}
	return "is cut"
}

// reuse: a port's bad name dies with the process that gave it.
func reuse(ctx context.Context, st *stage) (string, error) {
	if st.attacker == nil {
		return "", fmt.Errorf("there was no malicious process: step 5 did not get so far")
	}
	if err := st.unhide(); err != nil { // else its guest could not kill it
		return "", err
	}
	if err := st.attacker.Signal(syscall.SIGKILL); err != nil {
		return "", err
	}
	if _, err := st.attacker.Wait(ctx); err != nil {
		return "", fmt.Errorf("the malicious process did not end: %w", err)
	}
	mark := st.feed.mark()
	p, c, err := st.connect(ctx, st.lab.App1, "successor", webAlt, "-source-port", fmt.Sprint(st.port), "-timeout", "20s")
	if err != nil {
		return "", err
	}
	e, err := st.feed.wait(ctx, mark, "the decision on the port's new holder", decisionOn("app1", "web1", 8080))
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("pid %d is gone; %s from the same port %d: %s by rule %s", st.attacker.PID(), e.SrcProcess, st.port, e.Verdict, e.Rule)
	return seen, differs(seen,
		c.OK && c.Port == st.port, "the connection failed: "+c.Error,
		e.Verdict == "forward", "the decision is another",
		isProcess(e, "successor", p.PID()), "it was not traced to its new holder")
}

// inspect: the maps speak for themselves.
func inspect(ctx context.Context, st *stage) (string, error) {
	pin := filepath.Join(st.gateway.Pins, "verdicts")
	out, err := exec.CommandContext(ctx, "bpftool", "map", "dump", "pinned", pin).Output()
	if err != nil {
		return "", fmt.Errorf("bpftool cannot dump %s: %w", pin, err)
	}
	var entries []struct {
		Key   map[string]any `json:"key"`
		Value map[string]any `json:"value"`
	}
	if err := json.Unmarshal(out, &entries); err != nil {
		return "", fmt.Errorf("bpftool prints no fields: %w", err)
	}
	st.screen.line("bpftool map dump pinned %s:", pin)
	named := len(entries) > 0
	for i, e := range entries {
		for _, field := range []string{"vm", "port", "proto"} {
			named = named && e.Key[field] != nil
		}
		for _, field := range []string{"verdict", "cause", "owner", "observed", "expires"} {
			named = named && e.Value[field] != nil
		}
		if i < 5 {
			st.screen.line("          | vm %v proto %v port %v: %v %v owner %v", e.Key["vm"], e.Key["proto"], e.Key["port"],
				e.Value["verdict"], e.Value["cause"], e.Value["owner"])
		}
	}
	seen := fmt.Sprintf("%d entries with vm, port, proto, verdict, cause, owner, observed, expires", len(entries))
	return seen, differs(seen, named, "fields have no names", strings.Contains(string(out), "VERDICT_"), "verdicts have no names")
}
