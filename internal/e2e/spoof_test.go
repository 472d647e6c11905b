package e2e_test

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// TestSpoofs: a lie about who one is goes nowhere, is counted and told.
func TestSpoofs(t *testing.T) {
	g := namespaced(t, setup{})
	for _, six := range []bool{false, true} {
		family, web1, app2 := "IPv4", net.IP(g.Web1.V4.Addr().AsSlice()), net.IP(g.App2.V4.Addr().AsSlice())
		if six {
			family, web1, app2 = "IPv6", g.Web1.V6.Addr().AsSlice(), g.App2.V6.Addr().AsSlice()
		}
		for _, c := range []struct {
			name   string
			mac    net.HardwareAddr
			source net.IP
			reason string
			kind   string // of the event
			vm     string // that the MAC names
		}{
			{"anotherVMsMAC", g.App2.MAC, nil, "drop-spoof", "spoof", "app2"},
			{"MACofAnotherSegment", g.Web1.MAC, nil, "drop-spoof", "spoof", "web1"},
			{"unknownMAC", net.HardwareAddr{2, 0x66, 0, 0, 0, 1}, nil, "drop-unknown-source", "drop", ""},
			{"anotherSegmentsAddress", nil, web1, "drop-spoof", "spoof", "app1"},
			{"neighboursAddress", nil, app2, "drop-spoof", "spoof", "app1"},
		} {
			t.Run(family+"/"+c.name, func(t *testing.T) {
				p := newProbe(g.App1, g.Web1, 80)
				if c.name == "anotherSegmentsAddress" { // not from and to the same
					p = newProbe(g.App1, g.App2, 7000)
				}
				p.six, p.mac, p.fakeSource = six, c.mac, c.source
				mark, before := g.events.mark(), g.counts()
				p.send(t)
				g.awaitCount(t, before, "apps/"+c.reason, 1)
				e := g.events.wait(t, mark, "the spoof", func(e event.Event) bool { return e.Reason == c.reason })
				if e.Type != c.kind || e.SrcVM != c.vm {
					t.Errorf("the event is %q about %q, want %q about %q", e.Type, e.SrcVM, c.kind, c.vm)
				}
				g.fence(t, g.webWire, g.App1)
				for _, wire := range []*capture{g.webWire, g.appsWire} {
					if len(wire.seen(carries(p.payload))) > 0 {
						t.Error("it arrived")
					}
				}
			})
		}
	}
	t.Run("ARP", func(t *testing.T) {
		before := g.counts()
		frame := arp(t, g.App1.MAC, g.Web1.V4.Addr().AsSlice(), g.App2.V4.Addr().AsSlice(), broadcast)
		sendRaw(t, g.App1, frame)
		await(t, "the lie is counted", func() bool {
			now := g.counts()
			return now["apps/drop-control"]+now["apps/drop-spoof"] > before["apps/drop-control"]+before["apps/drop-spoof"]
		})
		g.fence(t, g.appsWire, g.App1)
		if len(g.appsWire.seen(func(f []byte) bool { return bytes.Equal(f, frame) })) > 0 {
			t.Error("it arrived")
		}
	})
}

// TestSpoofs_LegitimateExceptionsPass: who has no address yet may still ask.
func TestSpoofs_LegitimateExceptionsPass(t *testing.T) {
	g := namespaced(t, setup{})
	t.Run("ARPprobe", func(t *testing.T) {
		sendRaw(t, g.App1, arp(t, g.App1.MAC, net.IPv4zero.To4(), g.Web1.V4.Addr().AsSlice(), broadcast))
		g.appsWire.wait(t, "web1's defence of its address", func(f []byte) bool {
			return sentTo(g.App1.MAC)(f) && f[12] == 8 && f[13] == 6 && bytes.Equal(f[28:32], g.Web1.V4.Addr().AsSlice())
		})
	})
	t.Run("IPv6DAD", func(t *testing.T) {
		before := g.counts()
		sendRaw(t, g.App1, duplicateCheck(t, g.App1, g.App1))
		sendRaw(t, g.App1, duplicateCheck(t, g.App1, g.Web1))
		g.webWire.wait(t, "the question to the address's holder", func(f []byte) bool {
			const solicitation = 135
			return sentTo(g.Web1.MAC)(f) && len(f) >= 78 && f[20] == 58 && f[54] == solicitation && bytes.Equal(f[62:78], g.Web1.V6.Addr().AsSlice())
		})
		g.awaitCount(t, before, "apps/control-absorbed", 1) // the one for its own address concerns nobody
	})
	t.Run("DHCP", func(t *testing.T) {
		before := g.counts()
		sendRaw(t, g.App1, discover(t, g.App1))
		await(t, "DHCP counts as control traffic", func() bool {
			now := g.counts()
			return now["apps/control"]+now["apps/control-absorbed"] > before["apps/control"]+before["apps/control-absorbed"]
		})
	})
	t.Run("nothingOfItIsASpoof", func(t *testing.T) {
		for kind, n := range g.counts() {
			if strings.HasSuffix(kind, "/drop-spoof") || strings.HasSuffix(kind, "/drop-control") {
				t.Errorf("%s: %d", kind, n)
			}
		}
	})
}

// arp is a request from someone who claims an address.
func arp(t *testing.T, mac net.HardwareAddr, claims, asks net.IP, to net.HardwareAddr) []byte {
	t.Helper()
	return serialize(t,
		&layers.Ethernet{SrcMAC: mac, DstMAC: to, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: layers.ARPRequest, SourceHwAddress: mac, SourceProtAddress: claims,
			DstHwAddress: make([]byte, 6), DstProtAddress: asks,
		})
}

// duplicateCheck is what a host sends before it uses an address: here, another's.
func duplicateCheck(t *testing.T, from, target *lab.Host) []byte {
	t.Helper()
	addr := target.V6.Addr().As16()
	group := net.ParseIP("ff02::1:ff00:0")
	copy(group[13:], addr[13:])
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.IPv6zero, DstIP: group}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	must(t, icmp.SetNetworkLayerForChecksum(ip))
	to := net.HardwareAddr{0x33, 0x33, group[12], group[13], group[14], group[15]}
	return serialize(t,
		&layers.Ethernet{SrcMAC: from.MAC, DstMAC: to, EthernetType: layers.EthernetTypeIPv6},
		ip, icmp, &layers.ICMPv6NeighborSolicitation{TargetAddress: addr[:]})
}

func discover(t *testing.T, from *lab.Host) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero, DstIP: net.IPv4bcast}
	udp := &layers.UDP{SrcPort: 68, DstPort: 67}
	must(t, udp.SetNetworkLayerForChecksum(ip))
	return serialize(t,
		&layers.Ethernet{SrcMAC: from.MAC, DstMAC: broadcast, EthernetType: layers.EthernetTypeIPv4}, ip, udp,
		&layers.DHCPv4{
			Operation: layers.DHCPOpRequest, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, Xid: 7, ClientHWAddr: from.MAC,
			Options: layers.DHCPOptions{layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{byte(layers.DHCPMsgTypeDiscover)})},
		})
}

func serialize(t *testing.T, stack ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buffer := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...))
	return bytes.Clone(buffer.Bytes())
}
