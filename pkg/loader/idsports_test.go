package loader

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
)

func testIDSPorts(t *testing.T) IDSPorts {
	gatewayNS(t)
	return idsPortsInPlace(t)
}

// idsPortsInPlace names IDS ports for the namespace that the test is in.
func idsPortsInPlace(t *testing.T) IDSPorts {
	p := IDSPorts{
		In: "ids-in", Out: "ids-out", EngineIn: "eng-in", EngineOut: "eng-out",
		NetNS: fmt.Sprintf("vmgate-test-%d-%d", os.Getpid(), serial.Add(1)), MTU: 1600,
	}
	t.Cleanup(func() { must(t, RemoveIDSPorts(p)) })
	return p
}

func TestEnsureIDSPorts_BothEndsAreFitForAnEngine(t *testing.T) {
	p := testIDSPorts(t)
	must(t, EnsureIDSPorts(p))
	index := byName(t, "ids-in").Attrs().Index
	must(t, EnsureIDSPorts(p)) // adopts
	if byName(t, "ids-in").Attrs().Index != index {
		t.Error("it was made anew, not adopted")
	}
	ns, err := openNetNS(p.NetNS)
	must(t, err)
	defer ns.Close()
	check := func(name, xdp string) error {
		dev, err := netlink.LinkByName(name)
		// The kernel looks at a fresh device's state a moment later.
		for deadline := time.Now().Add(5 * time.Second); err == nil && dev.Attrs().OperState == netlink.OperUnknown && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			dev, err = netlink.LinkByName(name)
		}
		if err != nil {
			return err
		}
		if dev.Attrs().MTU != 1600 || dev.Attrs().OperState != netlink.OperUp {
			t.Errorf("%s has MTU %d and is %s", name, dev.Attrs().MTU, dev.Attrs().OperState)
		}
		got := ""
		if x := dev.Attrs().Xdp; x != nil && x.Attached {
			got = programName(ebpf.ProgramID(x.ProgId))
		}
		if got != xdp {
			t.Errorf("%s runs %q, want %q", name, got, xdp)
		}
		addrs, err := netlink.AddrList(dev, netlink.FAMILY_ALL)
		if err != nil || len(addrs) > 0 {
			t.Errorf("%s has addresses %v (%v)", name, addrs, err)
		}
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		on, err := activeOffloads(e, name, slices.Concat(rxMerging, rxVLAN, txVLAN, txSegmentation, txChecksum))
		if len(on) > 0 {
			t.Errorf("%s has %v on", name, on)
		}
		return err
	}
	for _, name := range []string{"ids-in", "ids-out"} {
		must(t, check(name, ""))
	}
	for _, name := range []string{"eng-in", "eng-out"} {
		must(t, inNetNS(ns, func() error { return check(name, passProgram) }))
	}
}

func TestRemoveIDSPorts_LeavesNothing(t *testing.T) {
	p := testIDSPorts(t)
	must(t, EnsureIDSPorts(p))
	for range 2 {
		must(t, RemoveIDSPorts(p))
		if exists("ids-in") || exists("ids-out") {
			t.Error("ports are left")
		}
		if _, err := os.Stat(netnsDir + "/" + p.NetNS); err == nil {
			t.Error("the namespace is left")
		}
	}
}

func TestEnsureIDSPorts_RefusesAnothersDevice(t *testing.T) {
	p := testIDSPorts(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "ids-out"
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	if err := EnsureIDSPorts(p); err == nil || !strings.Contains(err.Error(), "ids-out exists and is not") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(netnsDir + "/" + p.NetNS); err == nil || exists("ids-in") {
		t.Error("what it had made is left")
	}
	must(t, RemoveIDSPorts(p))
	if !exists("ids-out") {
		t.Error("another's device was removed")
	}
}
