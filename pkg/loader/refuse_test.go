package loader

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// nothingOn fails if the device has anything of ours.
func (g *gateway) nothingOn(device string) {
	g.t.Helper()
	dev := byName(g.t, device)
	if dev.Attrs().MasterIndex != 0 {
		g.t.Errorf("%s is in a bridge", device)
	}
	for _, attach := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		if lacksTCX() {
			break
		}
		there, err := link.QueryPrograms(link.QueryOptions{Target: dev.Attrs().Index, Attach: attach})
		must(g.t, err)
		if len(there.Programs) > 0 {
			g.t.Errorf("%s has a program at %s", device, attach)
		}
	}
	if f := allFilters(dev); len(f) > 0 {
		g.t.Errorf("%s has filters: %v", device, f)
	}
	for _, h := range hooksOf(PortVNIC, DatapathXDP) {
		if _, err := os.Stat(pinDir(g.pins).linkPath(device, h.name)); !errors.Is(err, os.ErrNotExist) {
			g.t.Errorf("pin of %s's %s: %v", device, h.name, err)
		}
	}
}

func (g *gateway) refused(ports []Port, n int, want string) {
	g.t.Helper()
	states, err := g.d.SetPorts(ports)
	must(g.t, err)
	st := states[n]
	if st.Attached || st.Err == nil || !strings.Contains(st.Err.Error(), want) {
		g.t.Errorf("attached %v, error %v; want one that says %q", st.Attached, st.Err, want)
	}
	g.nothingOn(st.Device)
	var p wirePort
	must(g.t, g.d.maps["ports"].Lookup(st.ID, &p))
	var index uint32
	if err := g.d.maps["tx_ports"].Lookup(st.ID, &index); p.Ifindex != 0 || !errors.Is(err, ebpf.ErrKeyNotExist) {
		g.t.Errorf("the port is in the device maps: %v, %d (%v)", p, index, err)
	}
}

// bare is a gateway with nothing attached.
func bare(t *testing.T) *gateway {
	g := newGateway(t)
	_, err := g.d.SetPorts(nil)
	must(t, err)
	g.nothingOn("vnic.0")
	g.nothingOn("vnic-1")
	return g
}

func TestSetPorts_RefusedDeviceIsLeftAsItWas(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, g *gateway)
		want  string
	}{
		"another XDP program": {func(t *testing.T, g *gateway) {
			pass, err := loadPass()
			must(t, err)
			defer pass.Close()
			must(t, netlink.LinkSetXdpFd(byName(t, "vnic.0"), pass.FD()))
		}, `another XDP program is on it (id `},
		"large MTU of the peer": {func(t *testing.T, g *gateway) {
			must(t, inNetNS(g.vm[0].ns, func() error {
				dev, err := netlink.LinkByName("vm")
				if err != nil {
					return err
				}
				return netlink.LinkSetMTU(dev, 9000)
			}))
			must(t, netlink.LinkSetMTU(byName(t, "vnic.0"), 9000))
		}, "its MTU of 9000 is too large for XDP"},
		"no native XDP": {func(t *testing.T, g *gateway) {
			must(t, netlink.LinkDel(byName(t, "vnic.0")))
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "vnic.0"
			must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		}, "has no native XDP"},
		"missing bridge": {func(t *testing.T, g *gateway) {
			must(t, netlink.LinkDel(byName(t, "vmgbr")))
		}, "cannot find bridge vmgbr"},
	} {
		t.Run(name, func(t *testing.T) {
			g := bare(t)
			test.spoil(t, g)
			ports := testPorts
			if name == "no native XDP" {
				ports = []Port{{ID: 1, Device: "vnic.0", Datapath: DatapathXDP}}
			}
			g.refused(ports, 0, test.want)
		})
	}
}

func TestSetPorts_RefusesSenselessLists(t *testing.T) {
	d := openMaps(t)
	for want, ports := range map[string][]Port{
		"no device":    {{ID: 1}},
		"out of range": {{ID: MaxPorts, Device: "a"}},
		"both a and b": {{ID: 1, Device: "a"}, {ID: 1, Device: "b"}},
		"two ports":    {{ID: 1, Device: "a"}, {ID: 2, Device: "a"}},
		"in bridge br": {{ID: 1, Device: "a", Kind: PortIDSIn, Bridge: "br"}},
		"unknown kind": {{ID: 1, Device: "a", Kind: 9}},
	} {
		if _, err := d.SetPorts(ports); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}

func TestSetPorts_MissingDeviceIsAState(t *testing.T) {
	g := newGateway(t)
	states, err := g.d.SetPorts(append([]Port{{ID: 3, Device: "absent"}}, testPorts...))
	must(t, err)
	if st := states[0]; st.Attached || st.Ifindex != 0 || !errors.Is(st.Err, ErrNoDevice) {
		t.Errorf("state %+v", st)
	}
	g.passes(1)
}
