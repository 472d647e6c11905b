package loader

import (
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestEnsureBridge_KeepsTheHostOffIt(t *testing.T) {
	gatewayNS(t)
	must(t, EnsureBridge("vmgbr", "/pins/a"))
	must(t, EnsureBridge("vmgbr", "/pins/a")) // adopts
	br := byName(t, "vmgbr").(*netlink.Bridge)
	if *br.MulticastSnooping || br.Flags&unix.IFF_UP == 0 {
		t.Errorf("snooping %v, flags %v", *br.MulticastSnooping, br.Flags)
	}
	addrs, err := netlink.AddrList(br, netlink.FAMILY_ALL)
	must(t, err)
	if len(addrs) > 0 {
		t.Errorf("it has addresses: %v", addrs)
	}
	for path, want := range map[string]string{
		"/proc/sys/net/ipv6/conf/vmgbr/disable_ipv6": "1",
		"/proc/sys/net/ipv4/conf/vmgbr/arp_ignore":   "8",
	} {
		if readFile(t, path) != want {
			t.Errorf("%s = %q, want %s", path, readFile(t, path), want)
		}
	}
}

func TestEnsureBridge_RefusesAnothersBridge(t *testing.T) {
	gatewayNS(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	err := EnsureBridge("br0", "/pins/a")
	if err == nil || !strings.Contains(err.Error(), "choose another name") {
		t.Errorf("error %v", err)
	}
	must(t, EnsureBridge("vmgbr", "/pins/a"))
	if err := EnsureBridge("vmgbr", "/pins/b"); err == nil {
		t.Error("took the bridge of another gateway")
	}
	must(t, removeBridges("/pins/a"))
	if exists("vmgbr") || !exists("br0") {
		t.Errorf("after removal: ours is there %v, the other's is there %v", exists("vmgbr"), exists("br0"))
	}
}

func TestSetBridgeFDB_EndsUpWithWhatIsWantedAlone(t *testing.T) {
	gatewayNS(t)
	must(t, EnsureBridge("vmgbr", "/pins/a"))
	for _, name := range []string{"p0", "p1"} {
		newStation(t, name)
		must(t, netlink.LinkSetMaster(byName(t, name), byName(t, "vmgbr")))
	}
	a, b, c := MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0, 0, 0, 0, 2}, MAC{2, 0, 0, 0, 0, 3}
	must(t, SetBridgeFDB("vmgbr", []FDBEntry{{a, "p0"}, {b, "p0"}, {c, "missing"}}))
	must(t, SetBridgeFDB("vmgbr", []FDBEntry{{a, "p1"}, {c, "missing"}}))
	got := map[MAC]int{}
	neighs, err := netlink.NeighList(0, unix.AF_BRIDGE)
	must(t, err)
	for _, n := range neighs {
		if n.State == unix.NUD_NOARP && n.HardwareAddr[0] == 2 && n.HardwareAddr[1] == 0 {
			got[MAC(n.HardwareAddr)] = n.LinkIndex
		}
	}
	if len(got) != 1 || got[a] != byName(t, "p1").Attrs().Index {
		t.Errorf("entries %v, want %v on p1", got, a)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return strings.TrimSpace(string(b))
}
