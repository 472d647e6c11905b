package e2e_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
)

// checkForgedAlerts: lines whose parts do not agree blame nobody; the same line with
// parts that do ends the flow.
func (g *gateway) checkForgedAlerts(t *testing.T, m *machine) {
	t.Helper()
	victim := newProbe(g.App1, g.Web1, 443)
	g.passes(t, g.webWire, victim)
	for i, c := range []struct {
		what   string
		mac    net.HardwareAddr
		from   *lab.Host
		source int
		vm     string // that the event names
	}{
		{"its address, its neighbour's MAC", g.App2.MAC, g.App1, victim.source, ""},
		{"its address, a MAC of nobody", net.HardwareAddr{2, 0x66, 0, 0, 0, 1}, g.App1, victim.source, ""},
		{"its neighbour's address, its MAC", g.App1.MAC, g.App2, victim.source, ""},
		{"no MAC, and no such flow", nil, g.App1, freshPort(), "app1"},
		{"all as it is", g.App1.MAC, g.App1, victim.source, "app1"},
	} {
		sid, mark := uint32(7000300+i), g.events.mark()
		m.writeAlert(t, sid, c.mac, c.from, c.source, g.Web1)
		e := g.events.wait(t, mark, "the alert: "+c.what, func(e event.Event) bool { return e.Type == "alert" && e.Alert.SID == sid })
		if e.SrcVM != c.vm || e.SrcProcess != nil {
			t.Errorf("%s: blamed on %q, process %v", c.what, e.SrcVM, e.SrcProcess)
		}
		if c.what != "all as it is" {
			g.passes(t, g.webWire, victim.again())
			continue
		}
		await(t, "the flow is ended", func() bool { return g.flowOf("app1", victim.source).Verdict == "drop" })
	}
	for _, name := range []string{"app1", "app2", "web1"} {
		if vm := g.vm(name); vm.Verdict != "forward" {
			t.Errorf("%s is %s (%s)", name, vm.Verdict, vm.Cause)
		}
	}
}

// writeAlert has the engine's machine send a line of an alert that drops.
func (m *machine) writeAlert(t *testing.T, sid uint32, mac net.HardwareAddr, from *lab.Host, source int, to *lab.Host) {
	t.Helper()
	ether := ""
	if mac != nil {
		ether = fmt.Sprintf(`"ether":{"src_mac":%q,"dest_mac":%q},`, mac, to.MAC)
	}
	line := fmt.Sprintf(`{"timestamp":%q,"in_iface":"ids4","event_type":"alert","src_ip":%q,"src_port":%d,"dest_ip":%q,"dest_port":443,"proto":"UDP",%s`+
		`"alert":{"action":"blocked","gid":1,"signature_id":%d,"rev":1,"signature":"forged","category":"","severity":3}}`+"\n",
		time.Now().Format("2006-01-02T15:04:05.000000-0700"), from.V4.Addr(), source, to.V4.Addr(), ether, sid)
	file, err := os.OpenFile(filepath.Join(m.dir, "eve.json"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	defer file.Close()
	_, err = file.WriteString(line)
	must(t, err)
}
