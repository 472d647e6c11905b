package loader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var trafficAddrs = [2][2]string{{"10.8.0.1", "2001:db8:8::1"}, {"10.8.0.2", "2001:db8:8::2"}}

// TestTraffic_OfRealStacksPasses: TCP, UDP and ICMP of two kernels, on IPv4 and
// IPv6, untagged, with one tag and with two, over both data paths. The test
// decides for the daemon, by the pending entries.
func TestTraffic_OfRealStacksPasses(t *testing.T) {
	if lacksTCX() {
		t.Skip("needs TCX (Linux 6.6) for the stations' tags")
	}
	for _, path := range []Datapath{DatapathXDP, DatapathTCX} {
		for _, tags := range [][]uint16{nil, {5}, {5, 6}} {
			t.Run(fmt.Sprintf("%s, tags %v", path, tags), func(t *testing.T) {
				g := newGateway(t)
				g.attach(by(path, path))
				g.equip(path, tags)
				g.decideAll()
				for family := range 2 {
					a, b := netip.MustParseAddr(trafficAddrs[0][family]), netip.MustParseAddr(trafficAddrs[1][family])
					g.tcpEcho(a, b, 1<<20)
					g.udpEcho(a, b)
					g.ping(a, b)
				}
				if n := g.count(1, "forward"); n == 0 {
					t.Error("nothing was forwarded by the data path")
				}
			})
		}
	}
}

// equip gives the stations addresses, offloads that suit the path, and tags.
func (g *gateway) equip(path Datapath, tags []uint16) {
	g.t.Helper()
	for i, s := range g.vm {
		id := uint32(i + 1)
		must(g.t, inNetNS(s.ns, func() error { return s.stack(path, tags, trafficAddrs[i]) }))
		key := MACKey{MAC: s.mac, Group: 1}
		if len(tags) > 0 {
			key.VLANOuter = tags[0]
		}
		if len(tags) > 1 {
			key.VLANInner = tags[1]
		}
		must(g.t, g.d.PutMAC(key, MACEntry{VM: id, Segment: id, Port: id}))
		must(g.t, g.d.SetVM(id, VMEntry{Verdict: forward, Budget: 1000, Name: "vm"}))
		for _, a := range trafficAddrs[i] {
			addr := netip.MustParseAddr(a)
			for _, vm := range []uint32{0, id} {
				must(g.t, g.d.PutAddr(AddrKey{VM: vm, Prefix: netip.PrefixFrom(addr, addr.BitLen())}, AddrEntry{VM: id, Port: id, MAC: s.mac}))
			}
		}
	}
}

// stack prepares a station; it runs in its namespace.
func (s *station) stack(path Datapath, tags []uint16, addrs [2]string) error {
	dev, err := netlink.LinkByName("vm")
	if err != nil {
		return err
	}
	if path == DatapathXDP { // it sees what is in the frame, and loses what is left to a device
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		if err := e.Change("vm", map[string]bool{"tx-checksum-ip-generic": false, "tx-vlan-hw-insert": false, "tx-vlan-stag-hw-insert": false}); err != nil {
			return err
		}
	}
	if err := writeSysctl("ipv6/conf/vm/disable_ipv6", "0"); err != nil {
		return err
	}
	for i, a := range addrs {
		addr, err := netlink.ParseAddr(a + []string{"/24", "/64"}[i])
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
		if err := netlink.AddrAdd(dev, addr); err != nil {
			return err
		}
		// Room for two tags.
		_, network, _ := net.ParseCIDR(addr.IPNet.String())
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: network, Scope: netlink.SCOPE_LINK, MTU: 1400}); err != nil {
			return err
		}
	}
	if len(tags) == 0 {
		return nil
	}
	return errors.Join(s.tagger(dev, ebpf.AttachTCXEgress, pushTags(tags)), s.tagger(dev, ebpf.AttachTCXIngress, popTags(len(tags))))
}

func (s *station) tagger(dev netlink.Link, at ebpf.AttachType, insns asm.Instructions) error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: insns})
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachTCX(link.TCXOptions{Program: prog, Interface: dev.Attrs().Index, Attach: at})
	if err == nil {
		s.t.Cleanup(func() { _ = l.Close() })
	}
	return err
}

// pushTags tags every frame that a station sends, the first tag outermost.
func pushTags(tags []uint16) asm.Instructions {
	insns := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	for i := len(tags) - 1; i >= 0; i-- {
		insns = append(insns, asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, int32(hton16(unix.ETH_P_8021Q))), asm.Mov.Imm(asm.R3, int32(tags[i])), asm.FnSkbVlanPush.Call())
	}
	return append(insns, asm.Mov.Imm(asm.R0, 0), asm.Return())
}

func popTags(n int) asm.Instructions {
	insns := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	for range n {
		insns = append(insns, asm.Mov.Reg(asm.R1, asm.R6), asm.FnSkbVlanPop.Call())
	}
	return append(insns, asm.Mov.Imm(asm.R0, 0), asm.Return())
}

// decideAll lets every flow pass whose first packet has come, as a daemon would
// whose policy allows all; the sender's retry finds it decided.
func (g *gateway) decideAll() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- func() error {
			for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
				pending := g.d.PendingAll()
				for key, p := range pending.All() {
					f := Flow{Created: Now(), Verdict: forward, Rule: 1, Initiator: p.From, SynSeq: p.SynSeq}
					f.Dir[p.From] = FlowDir{SrcMAC: p.SrcMAC, DstMAC: p.DstMAC, InPort: p.InPort, OutPort: p.OutPort, VM: p.VM[0], LastSeen: Now()}
					f.Dir[1-p.From] = FlowDir{SrcMAC: p.DstMAC, DstMAC: p.SrcMAC, InPort: p.OutPort, OutPort: p.InPort, VM: p.VM[1], LastSeen: Now()}
					if err := errors.Join(g.d.PutFlow(key, f), g.d.DeletePending(key), g.d.Heartbeat()); err != nil {
						return err
					}
				}
				if err := pending.Err(); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	g.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			g.t.Error(err)
		}
	})
}

const patience = 30 * time.Second

// tcpEcho sends size bytes, which come back as they were.
func (g *gateway) tcpEcho(a, b netip.Addr, size int) {
	g.t.Helper()
	var server net.Listener
	must(g.t, inNetNS(g.vm[1].ns, func() (err error) {
		server, err = net.Listen("tcp", netip.AddrPortFrom(b, 4000).String())
		return err
	}))
	defer server.Close()
	go func() {
		if c, err := server.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	var c net.Conn
	must(g.t, inNetNS(g.vm[0].ns, func() (err error) {
		c, err = net.DialTimeout("tcp", server.Addr().String(), patience)
		return err
	}))
	defer c.Close()
	must(g.t, c.SetDeadline(time.Now().Add(patience)))
	sent := bytes.Repeat([]byte("TCP through the gateway "), size/24)
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, len(sent))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		g.t.Fatalf("TCP %s to %s: %d bytes came back: %v\n%v", a, b, n, err, g.counted())
	}
}

func (g *gateway) udpEcho(a, b netip.Addr) {
	g.t.Helper()
	var server, client net.PacketConn
	must(g.t, inNetNS(g.vm[1].ns, func() (err error) {
		server, err = net.ListenPacket("udp", netip.AddrPortFrom(b, 4001).String())
		return err
	}))
	defer server.Close()
	go func() {
		buf := make([]byte, 2000)
		for {
			n, peer, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(buf[:n], peer)
		}
	}()
	must(g.t, inNetNS(g.vm[0].ns, func() (err error) {
		client, err = net.ListenPacket("udp", netip.AddrPortFrom(a, 0).String())
		return err
	}))
	defer client.Close()
	g.asks("UDP", client, server.LocalAddr(), bytes.Repeat([]byte{7}, 1000), 0)
}

// ping sends an echo request by a raw socket; the other kernel answers.
func (g *gateway) ping(a, b netip.Addr) {
	g.t.Helper()
	network, kind := "ip4:icmp", byte(8)
	if a.Is6() {
		network, kind = "ip6:ipv6-icmp", 128
	}
	var raw net.PacketConn
	must(g.t, inNetNS(g.vm[0].ns, func() (err error) {
		raw, err = net.ListenPacket(network, a.String())
		return err
	}))
	defer raw.Close()
	request := append([]byte{kind, 0, 0, 0, 0x12, 0x34, 0, 1}, "a ping's load"...)
	request = append(request, 0)
	sum := uint32(0)
	for i := 0; i < len(request)-1; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(request[i:]))
	}
	binary.BigEndian.PutUint16(request[2:], ^uint16(sum+sum>>16)) // ICMPv6's is the kernel's
	g.asks("ICMP", raw, &net.IPAddr{IP: b.AsSlice()}, request, 8)
}

// asks sends a datagram until it comes back; the first skip bytes may differ.
func (g *gateway) asks(what string, c net.PacketConn, to net.Addr, request []byte, skip int) {
	g.t.Helper()
	buf := make([]byte, 2000)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		_, err := c.WriteTo(request, to)
		must(g.t, err)
		must(g.t, c.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		for err == nil {
			var n int
			n, _, err = c.ReadFrom(buf)
			if err == nil && n == len(request) && bytes.Equal(buf[skip:n], request[skip:]) {
				return
			}
		}
	}
	g.t.Fatalf("%s: no answer from %s\n%v", what, to, g.counted())
}

func (g *gateway) counted() (lines []string) {
	counters, _ := g.d.Counters()
	for _, c := range counters {
		lines = append(lines, fmt.Sprintf("%d %s %d", c.PortID, c.Reason, c.Packets))
	}
	return lines
}

// TestHotplug_LosesNothingElsewhere: vNICs come and go while others work.
func TestHotplug_LosesNothingElsewhere(t *testing.T) {
	for _, path := range []Datapath{DatapathXDP, DatapathTCX} {
		t.Run(string(path), func(t *testing.T) {
			g := newGateway(t)
			g.attach(by(path, path))
			states := g.following()
			third := Port{ID: 3, Device: "vnic.2", Segment: 3, Group: 1, Bridge: "vmgbr", Datapath: path}
			_, err := g.d.SetPorts(append(by(path, path), third))
			must(t, err)
			g.underTraffic(func() {
				for range 5 {
					newStation(t, "vnic.2")
					await(t, states, "attached", func(st PortState) bool { return st.Device == "vnic.2" && st.Attached })
					must(t, netlink.LinkDel(byName(t, "vnic.2")))
					await(t, states, "gone", func(st PortState) bool { return st.Device == "vnic.2" && !st.Attached })
				}
			})
		})
	}
}

// TestTags_ThatTheDeviceStrippedAreNoticed: the other end of the veth leaves its
// tags beside the frame, as veths do, and XDP takes the packets for untagged ones.
// None of them gets to a decision.
func TestTags_ThatTheDeviceStrippedAreNoticed(t *testing.T) {
	if lacksTCX() {
		t.Skip("needs TCX (Linux 6.6) for the stations' tags")
	}
	g := newGateway(t)
	g.equip(DatapathTCX, []uint16{5}) // with the stations' offloads on
	g.vm[0].ready()
	var c net.PacketConn
	must(t, inNetNS(g.vm[0].ns, func() (err error) {
		c, err = net.ListenPacket("udp", trafficAddrs[0][0]+":0")
		return err
	}))
	defer c.Close()
	for deadline := time.Now().Add(patience); g.count(1, "drop-stripped") == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nobody noticed: %v", g.counted())
		}
		_, _ = c.WriteTo([]byte("tagged"), &net.UDPAddr{IP: net.ParseIP(trafficAddrs[1][0]), Port: 4001})
	}
}
