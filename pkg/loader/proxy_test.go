package loader

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// isolatedSwitch makes an ordinary, learning vSwitch in a namespace of its own: a
// bridge with the ports up, towards the gateway's vnic.0, and p0 and p1, which
// are isolated from each other, towards two stations.
func isolatedSwitch(t *testing.T) [2]*station {
	t.Helper()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	sw, err := netns.New()
	must(t, err)
	t.Cleanup(func() { _ = sw.Close() })
	must(t, netns.Set(home))
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "vnic.0"
	up := netlink.NewVeth(attrs)
	up.PeerName, up.PeerNamespace = "up", netlink.NsFd(sw)
	must(t, netlink.LinkAdd(up))
	var vms [2]*station
	for i, port := range []string{"p0", "p1"} {
		ns, err := netns.New()
		must(t, err)
		must(t, netns.Set(home))
		vms[i] = &station{t: t, dev: "vm", ns: ns, sock: -1}
		t.Cleanup(vms[i].close)
		must(t, inNetNS(sw, func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = port
			veth := netlink.NewVeth(attrs)
			veth.PeerName, veth.PeerNamespace = "vm", netlink.NsFd(ns)
			return netlink.LinkAdd(veth)
		}))
	}
	must(t, inNetNS(sw, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "sw"
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge)); err != nil {
			return err
		}
		for _, port := range []string{"up", "p0", "p1"} {
			link, err := netlink.LinkByName(port)
			if err != nil {
				return err
			}
			if err := errors.Join(netlink.LinkSetMaster(link, bridge), netlink.LinkSetUp(link)); err != nil {
				return err
			}
			if port != "up" {
				if err := netlink.LinkSetIsolated(link, true); err != nil {
					return err
				}
			}
		}
		// XDP loses what a sender leaves to the device: the vSwitch finishes it.
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		return e.Change("up", map[string]bool{"tx-checksum-ip-generic": false, "rx-gro": true})
	}))
	return vms
}

func (s *station) bringUp(addrs ...string) error {
	return inNetNS(s.ns, func() error {
		dev, err := netlink.LinkByName("vm")
		if err != nil {
			return err
		}
		s.mac = MAC(dev.Attrs().HardwareAddr)
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(dev, addr); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(dev)
	})
}

// TestProxy_TwoVMsBehindAnIsolatingSwitchTalkThroughTheGateway: the third way to
// put several VMs behind one vSwitch, over both data paths and both families.
func TestProxy_TwoVMsBehindAnIsolatingSwitchTalkThroughTheGateway(t *testing.T) {
	for _, path := range []Datapath{DatapathXDP, DatapathTCX} {
		gatewayNS(t)
		g := &gateway{t: t, pins: pinsDir(t)}
		g.vm = isolatedSwitch(t)
		must(t, EnsureBridge("vmgbr", g.pins))
		g.open()
		must(t, g.d.SetSettings(testSettings))
		must(t, g.d.Heartbeat())
		g.attach([]Port{{ID: 1, Device: "vnic.0", Segment: 1, Group: 1, Bridge: "vmgbr", Reflect: true, Proxy: true, Datapath: path}})
		must(t, g.d.SetRule(1, Rule{Verdict: forward, Name: "test"}))
		addrs := [2][2]string{{"10.9.0.1", "2001:db8:9::1"}, {"10.9.0.2", "2001:db8:9::2"}}
		for i, s := range g.vm {
			id := uint32(i + 1)
			must(t, s.bringUp(addrs[i][0]+"/24", addrs[i][1]+"/64"))
			must(t, g.d.SetVM(id, VMEntry{Verdict: forward, Budget: 100, Name: "vm"}))
			must(t, g.d.PutMAC(MACKey{MAC: s.mac, Group: 1}, MACEntry{VM: id, Segment: 1, Port: 1}))
			for _, a := range addrs[i] {
				addr := netip.MustParseAddr(a)
				entry := AddrEntry{VM: id, Port: 1, MAC: s.mac}
				must(t, g.d.PutAddr(AddrKey{VM: id, Prefix: netip.PrefixFrom(addr, addr.BitLen())}, entry))
				must(t, g.d.PutAddr(AddrKey{Prefix: netip.PrefixFrom(addr, addr.BitLen())}, entry))
			}
		}
		for family := range 2 {
			a, b := netip.MustParseAddr(addrs[0][family]), netip.MustParseAddr(addrs[1][family])
			g.asksAndIsAnswered(netip.AddrPortFrom(a, 7000), netip.AddrPortFrom(b, 7001))
		}
		if n := g.count(1, "control-answered"); n < 2 {
			t.Errorf("%s: %d questions answered, want at least 2", path, n)
		}
		if n := g.count(1, "drop-spoof"); n != 0 {
			t.Errorf("%s: %d spoofs", path, n)
		}
		g.neverSawTheOthersMAC()
	}
}

// asksAndIsAnswered sends UDP from the first VM to the second, whose process
// answers; the test decides for the daemon.
func (g *gateway) asksAndIsAnswered(from, to netip.AddrPort) {
	g.t.Helper()
	var server, client *net.UDPConn
	must(g.t, inNetNS(g.vm[1].ns, func() (err error) {
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(to))
		return err
	}))
	defer server.Close()
	must(g.t, inNetNS(g.vm[0].ns, func() (err error) {
		client, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		return err
	}))
	defer client.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, peer, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDPAddrPort(buf[:n], peer)
		}
	}()
	key, i := NewFlowKey(unix.IPPROTO_UDP, from, to, 0, 0, 1)
	buf := make([]byte, 100)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		_, _ = client.Write([]byte("who are you?"))
		_ = client.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err := client.Read(buf); err == nil && string(buf[:n]) == "who are you?" {
			return
		}
		p, found, err := g.d.Pending(key)
		must(g.t, err)
		if !found {
			continue
		}
		if p.SrcMAC != g.vm[0].mac || p.DstMAC != g.vm[1].mac {
			g.t.Fatalf("pending with MACs %s and %s, want the VMs' own", p.SrcMAC, p.DstMAC)
		}
		f := Flow{Created: Now(), Verdict: forward, Rule: 1, Initiator: i}
		f.Dir[i] = FlowDir{SrcMAC: p.SrcMAC, DstMAC: p.DstMAC, InPort: 1, OutPort: 1, VM: 1, LastSeen: Now()}
		f.Dir[1-i] = FlowDir{SrcMAC: p.DstMAC, DstMAC: p.SrcMAC, InPort: 1, OutPort: 1, VM: 2, LastSeen: Now()}
		must(g.t, g.d.PutFlow(key, f))
	}
	counters, _ := g.d.Counters()
	g.t.Fatalf("no answer from %s: %v", to, counters)
}

// neverSawTheOthersMAC looks into the stations' neighbour tables.
func (g *gateway) neverSawTheOthersMAC() {
	g.t.Helper()
	device := MAC(byName(g.t, "vnic.0").Attrs().HardwareAddr)
	for i, s := range g.vm {
		must(g.t, inNetNS(s.ns, func() error {
			known, err := netlink.NeighList(0, netlink.FAMILY_ALL)
			for _, n := range known {
				if mac := n.HardwareAddr; len(mac) == 6 && MAC(mac) == g.vm[1-i].mac {
					g.t.Errorf("VM %d knows %s as %s", i+1, n.IP, mac)
				}
				if len(n.HardwareAddr) == 6 && MAC(n.HardwareAddr) == device {
					return nil
				}
			}
			return errors.Join(err, errors.New("the gateway's MAC is not among the neighbours"))
		}))
	}
}
