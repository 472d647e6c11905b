package e2e_test

import (
	"strings"
	"testing"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
)

// TestVNIC_ThatGoesAndComesIsAttachedAgain, and the others do not notice.
func TestVNIC_ThatGoesAndComesIsAttachedAgain(t *testing.T) {
	g := namespaced(t, setup{})
	serve(t, g.Web1, 80)
	if _, err := echo(g.App1, address(g.Web1, 80, false), 64); err != nil {
		t.Fatal(err)
	}
	other := newStream(t, g.App1, serve(t, g.App2, 7000), false)
	must(t, g.Gateway.Delete("gw-web")) // its vSwitch's end and the hosts on it go as well
	await(t, "the vNIC is missing", func() bool { return g.segment("web") == "missing" })
	other.moves(t)

	mark := g.events.mark()
	sw, err := g.NewVSwitch("sw3", g.Gateway, "gw-web")
	must(t, err)
	again, err := sw.AddHost(lab.Host{Name: "web1b", MAC: g.Web1.MAC, V4: g.Web1.V4, V6: g.Web1.V6})
	must(t, err)
	g.events.wait(t, mark, "the attachment", func(e event.Event) bool {
		return e.Type == "config" && strings.Contains(e.Message, "gw-web attached")
	})
	await(t, "the vNIC is attached", func() bool { return g.segment("web") == "attached" })
	serve(t, again, 80)
	for _, six := range []bool{false, true} {
		if _, err := echo(g.App1, address(again, 80, six), 100_000); err != nil {
			t.Errorf("through the new vNIC: %v", err)
		}
	}
	if g.counts()["web/forward"] == 0 {
		t.Error("XDP forwards nothing from the new vNIC")
	}
	other.moves(t)
	if n := other.finish(t); n > 0 {
		t.Errorf("the flow beside it lost %d segments", n)
	}
}

// segment is the state of a segment.
func (g *gateway) segment(name string) string {
	g.t.Helper()
	status, err := g.Client.Status(g.t.Context())
	must(g.t, err)
	for _, s := range status.Segments {
		if s.Name == name {
			return s.State
		}
	}
	return "unknown"
}

// TestVNIC_MissingAtTheStartIsAStateAndNoError.
func TestVNIC_MissingAtTheStartIsAStateAndNoError(t *testing.T) {
	g := newGateway(t)
	g.writeText(strings.Replace(g.render(setup{}), "vnic: gw-web", "vnic: gw-none", 1))
	must(t, g.Start())
	await(t, "gatewayd is up", func() bool {
		_, err := g.Client.Status(t.Context())
		return err == nil
	})
	status, err := g.Client.Status(t.Context())
	must(t, err)
	for _, s := range status.Segments {
		if s.Name == "web" && (s.State != "missing" || s.VNIC != "gw-none" || s.Detail == "") {
			t.Errorf("segment web: %+v", s)
		}
	}
	await(t, "the other segment is attached", func() bool { return g.segment("apps") == "attached" })
	serve(t, g.App2, 7000)
	if _, err := echo(g.App1, address(g.App2, 7000, false), 64); err != nil {
		t.Errorf("in the segment that is there: %v", err)
	}
}
