package e2e_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/vmgate/vmgate/internal/event"
)

// reload puts a setup in force by SIGHUP or by the verb.
func (g *gateway) reload(t *testing.T, byVerb bool, s setup) {
	t.Helper()
	g.write(s)
	if byVerb {
		if out, exit := g.run("reload", "--socket", g.Socket()); exit != 0 {
			t.Fatalf("reload ended with %d: %s", exit, out)
		}
		return
	}
	mark := g.events.mark()
	must(t, g.Signal(syscall.SIGHUP))
	g.events.wait(t, mark, "the reload", func(e event.Event) bool {
		return e.Type == "config" && strings.Contains(e.Message, "configuration loaded")
	})
}

// TestReload: what the new rules say holds at once, for what runs as well.
func TestReload(t *testing.T) {
	for _, byVerb := range []bool{false, true} {
		name := "SIGHUP"
		if byVerb {
			name = "verb"
		}
		t.Run(name, func(t *testing.T) {
			g := namespaced(t, setup{})
			web := serve(t, g.Web1, 80)
			app := serve(t, g.App2, 7000)
			cut := newStream(t, g.App1, web, false)
			kept := newStream(t, g.App1, app, false)

			// allow → deny
			before := g.counts()
			g.reload(t, byVerb, setup{Rules: rulesWith("web", "deny")})
			cut.stalls(t)
			if _, err := echo(g.App1, address(g.Web1, 80, false), 64); err == nil {
				t.Error("a new connection passes a rule that denies now")
			}
			if g.since(before, "apps/drop-verdict") == 0 {
				t.Error("XDP dropped nothing of the flow that was cut")
			}
			kept.moves(t)

			// deny → allow
			g.reload(t, byVerb, setup{})
			cut.moves(t)
			if _, err := echo(g.App1, address(g.Web1, 80, false), 64); err != nil {
				t.Errorf("a new connection under a rule that allows again: %v", err)
			}
			cut.finish(t)
			kept.moves(t)
			if n := kept.finish(t); n > 0 {
				t.Errorf("the flow whose rule stayed lost %d segments", n)
			}
		})
	}
}

// TestReload_LosesNoPacketOfWhatStays: over many reloads that change other
// rules, none of a bulk flow's packets is dropped or leaves XDP.
func TestReload_LosesNoPacketOfWhatStays(t *testing.T) {
	g := namespaced(t, setup{})
	web := serve(t, g.Web1, 80)
	bulk := newStream(t, g.App1, web, false)
	before := g.counts()
	for i := range 6 {
		action := "deny"
		if i%2 == 1 {
			action = "allow"
		}
		g.reload(t, true, setup{Rules: rulesWith("inspect", action)})
		bulk.moves(t)
	}
	now := g.counts()
	for kind, n := range now {
		if (strings.Contains(kind, "/drop-") || strings.HasSuffix(kind, "/punt")) && n > before[kind] {
			t.Errorf("%s grew by %d", kind, n-before[kind])
		}
	}
	if n := bulk.finish(t); n > 0 {
		t.Errorf("%d segments were lost", n)
	}
}

// TestReload_OfAWrongFileKeepsTheOldConfiguration, and says so.
func TestReload_OfAWrongFileKeepsTheOldConfiguration(t *testing.T) {
	g := namespaced(t, setup{})
	web := serve(t, g.Web1, 80)
	stream := newStream(t, g.App1, web, false)
	right := g.render(setup{})
	g.writeText(strings.Replace(right, "segments:", "segmets:", 1))
	out, exit := g.run("reload", "--socket", g.Socket())
	if exit != 5 || !containsAll(out, "segmets", "gateway.yaml:") {
		t.Errorf("reload ended with %d: %s", exit, out)
	}
	status, err := g.Client.Status(t.Context())
	must(t, err)
	if !strings.Contains(status.LastError, "segmets") {
		t.Errorf("status tells of the error %q", status.LastError)
	}
	must(t, g.Signal(syscall.SIGHUP))
	stream.moves(t)
	if _, err := echo(g.App1, address(g.Web1, 80, false), 64); err != nil {
		t.Errorf("under the old configuration: %v", err)
	}
	g.writeText(right)
	if out, exit := g.run("reload", "--socket", g.Socket()); exit != 0 {
		t.Errorf("reload of the right file ended with %d: %s", exit, out)
	}
	if status, err = g.Client.Status(t.Context()); err != nil || status.LastError != "" {
		t.Errorf("status still tells of %q, %v", status.LastError, err)
	}
	if n := stream.finish(t); n > 0 {
		t.Errorf("%d segments were lost", n)
	}
}
