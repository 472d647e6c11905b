package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/lab"
)

// probe is a crafted UDP datagram between two hosts.
type probe struct {
	from, to   *lab.Host
	six        bool // IPv6
	tags       []uint16
	port       int // of the destination
	source     int // port of the source
	payload    string
	reply      bool             // from and to change places, ports included
	mac        net.HardwareAddr // instead of the sender's own
	fakeSource net.IP
}

var ports, probes atomic.Uint32

// freshPort is a source port that no other probe of this process has.
func freshPort() int { return 20000 + int(ports.Add(1)) }

// newProbe is a probe of a flow of its own, whose payload is in no other frame.
func newProbe(from, to *lab.Host, port int) probe {
	return probe{from: from, to: to, port: port, source: freshPort()}.again()
}

// again is another datagram of the same flow.
func (p probe) again() probe {
	p.payload = fmt.Sprintf("<e2e-probe-%d>", probes.Add(1))
	return p
}

// answer is a datagram in the other direction.
func (p probe) answer() probe {
	p.reply = !p.reply
	return p.again()
}

// frame is the probe as bytes on the wire, at least 60 as Ethernet wants.
func (p probe) frame(t *testing.T) []byte {
	t.Helper()
	from, to, source, port := p.from, p.to, p.source, p.port
	if p.reply {
		from, to, source, port = to, from, port, source
	}
	eth := &layers.Ethernet{SrcMAC: from.MAC, DstMAC: to.MAC}
	if p.mac != nil {
		eth.SrcMAC = p.mac
	}
	inner, ip := layers.EthernetTypeIPv4, gopacket.NetworkLayer(nil)
	var stack []gopacket.SerializableLayer
	if p.six {
		six := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: from.V6.Addr().AsSlice(), DstIP: to.V6.Addr().AsSlice()}
		inner, ip, stack = layers.EthernetTypeIPv6, six, append(stack, six)
		if p.fakeSource != nil {
			six.SrcIP = p.fakeSource
		}
	} else {
		four := &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: layers.IPProtocolUDP, SrcIP: from.V4.Addr().AsSlice(), DstIP: to.V4.Addr().AsSlice()}
		ip, stack = four, append(stack, four)
		if p.fakeSource != nil {
			four.SrcIP = p.fakeSource
		}
	}
	udp := &layers.UDP{SrcPort: layers.UDPPort(source), DstPort: layers.UDPPort(port)}
	must(t, udp.SetNetworkLayerForChecksum(ip))
	for i := len(p.tags) - 1; i >= 0; i-- {
		stack = append([]gopacket.SerializableLayer{&layers.Dot1Q{VLANIdentifier: p.tags[i], Type: inner}}, stack...)
		inner = layers.EthernetTypeDot1Q
	}
	eth.EthernetType = inner
	stack = append([]gopacket.SerializableLayer{eth}, stack...)
	buffer := gopacket.NewSerializeBuffer()
	payload := fmt.Sprintf("%-60s", p.payload)
	must(t, gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		append(stack, udp, gopacket.Payload(payload))...))
	return bytes.Clone(buffer.Bytes())
}

// send puts the probe on its sender's wire and returns the frame.
func (p probe) send(t *testing.T) []byte {
	t.Helper()
	from := p.from
	if p.reply {
		from = p.to
	}
	frame := p.frame(t)
	sendRaw(t, from, frame)
	return frame
}

// sendRaw sends a frame from a host's interface.
func sendRaw(t *testing.T, from *lab.Host, frame []byte) {
	t.Helper()
	fd := packetSocket(t, from.Namespace, from.Interface, 0)
	defer unix.Close(fd)
	_, err := unix.Write(fd, frame)
	must(t, err)
}

func (p probe) String() string {
	return fmt.Sprintf("%s %s:%d to %s:%d tags %v six %v reply %v", p.payload, p.from.Name, p.source, p.to.Name, p.port, p.tags, p.six, p.reply)
}

// passes sends a probe until it arrives: the first of a flow that the gateway
// decides only for the next is lost.
func (g *gateway) passes(t *testing.T, c *capture, p probe) {
	t.Helper()
	p.send(t)
	c.wait(t, p.String(), carries(p.payload))
}

// fence waits until all that was sent before has gone through the gateway: a
// new flow from the same host takes the long way, to the daemon and back.
func (g *gateway) fence(t *testing.T, c *capture, from *lab.Host) {
	t.Helper()
	to, port := g.Web1, 80
	if c == g.appsWire {
		to, port = g.App2, 7000
		if from == g.App2 {
			to = g.App1
		}
	}
	g.passes(t, c, newProbe(from, to, port))
}
