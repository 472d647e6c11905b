package app

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// The directions through the engine, and at the same time the port that a
// direction begins at.
const (
	inToOut = iota
	outToIn
	directions
)

var directionNames = [directions]string{"ids-in to ids-out", "ids-out to ids-in"}

const (
	// ethertypeCanary is the local experimental ethertype (IEEE 802): both engines
	// pass what is not IP, whatever the rules say.
	ethertypeCanary = 0x88b5
	// canaryFlows are the IP flows of canaries. An engine with several workers
	// shares packets out by a hash of addresses and ports, which 16 flows cover.
	canaryFlows = 16
	// kinds of canary: 0 is not IP, the others are the IP flows.
	canaryKinds   = 1 + canaryFlows
	canaryPayload = 16 + 1 + 1 + 8 // nonce, direction, kind, number
	canaryLen     = 60             // the least that Ethernet carries, without its checksum; IP ones are longer
	maxCanary     = 256
)

// The heartbeat is the last IP flow, for which there is a rule (pulse.go).
const (
	canaryPortNumber = 9     // discard
	firstCanary      = 40001 // source port of the first IP flow
	heartbeatPort    = 34997 // of the flow that the heartbeat rule is about
	heartbeatKind    = canaryFlows
	heartbeatMagic   = "vmgate-heartbeat"
)

// canaryOUI begins the MAC addresses of canaries; bpf/ids.h knows it. Locally
// administered, unicast.
var canaryOUI = [4]byte{0x0a, 0x76, 0x6d, 0x67}

// canary makes small frames that are sent into one port of the engine and looked
// for at the other. Kind 0 has an ethertype of its own, the others are UDP datagrams
// of as many flows. What is in them is a nonce, new with every start, for what a
// dead engine or another daemon's has left in a queue; the direction, the kind and
// the number in the row. Guests cannot bring one in: their frames end at their vNIC.
type canary struct {
	client, server net.HardwareAddr
	nonce          [16]byte
	frames         [directions][canaryKinds][]byte // as they are sent, but for the number
	numberAt       [canaryKinds]int
	lanes          [directions][canaryKinds]lane
	turn           [directions]int // the last IP flow
}

// lane is one kind of canary in one direction, by numbers: 0 for none.
type lane struct {
	sent    uint64 // the last one sent
	entered uint64 // the last one that came to the engine's port
	before  uint64 // entered, when it was looked the time before
	seen    uint64 // the highest that came back
}

// waiting says whether one has been with the engine since the last look.
func (l *lane) waiting() bool { return l.seen > 0 && l.before > l.seen }

// newCanary makes no frame yet. taken says whether a MAC address is a VM's.
func newCanary(taken func(net.HardwareAddr) bool) *canary {
	c := &canary{}
	_, _ = rand.Read(c.nonce[:]) // never fails
	for _, mac := range []*net.HardwareAddr{&c.client, &c.server} {
		*mac = append(net.HardwareAddr{}, canaryOUI[:]...)
		*mac = append(*mac, 0, 0)
		for {
			_, _ = rand.Read((*mac)[4:])
			if !taken(*mac) {
				break
			}
		}
	}
	for d := range c.frames {
		for kind := range c.frames[d] {
			c.frames[d][kind] = c.template(d, kind)
			c.numberAt[kind] = bytes.Index(c.frames[d][kind], c.nonce[:]) + len(c.nonce) + 2
		}
	}
	return c
}

// next returns the frames that are due in a direction: one that is not IP, and one of
// the IP flows in turn.
func (c *canary) next(direction int) (frames [][]byte) {
	c.turn[direction] = (c.turn[direction] + 1) % canaryFlows
	for _, kind := range [...]int{0, 1 + c.turn[direction]} {
		l := &c.lanes[direction][kind]
		l.sent++
		frames = append(frames, c.frame(direction, kind, l.sent))
	}
	return frames
}

// frame is a canary with its number.
func (c *canary) frame(direction, kind int, number uint64) []byte {
	b := bytes.Clone(c.frames[direction][kind])
	binary.BigEndian.PutUint64(b[c.numberAt[kind]:], number)
	return b
}

func (c *canary) template(direction, kind int) []byte {
	payload := append(append([]byte{}, c.nonce[:]...), byte(direction), byte(kind), 0, 0, 0, 0, 0, 0, 0, 0)
	if kind == heartbeatKind {
		payload = append(payload, heartbeatMagic...)
	}
	eth := layers.Ethernet{SrcMAC: c.client, DstMAC: c.server, EthernetType: ethertypeCanary}
	ip := layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: canaryAddress(kind, 0), DstIP: canaryAddress(kind, 1)}
	udp := layers.UDP{SrcPort: layers.UDPPort(firstCanary + kind), DstPort: canaryPortNumber}
	if kind == heartbeatKind {
		udp.DstPort = heartbeatPort
	}
	if direction == outToIn { // the answers of the other direction
		eth.SrcMAC, eth.DstMAC = eth.DstMAC, eth.SrcMAC
		ip.SrcIP, ip.DstIP = ip.DstIP, ip.SrcIP
		udp.SrcPort, udp.DstPort = udp.DstPort, udp.SrcPort
	}
	stack := []gopacket.SerializableLayer{&eth, gopacket.Payload(payload)}
	if kind != 0 {
		eth.EthernetType = layers.EthernetTypeIPv4
		stack = []gopacket.SerializableLayer{&eth, &ip, &udp, gopacket.Payload(payload)}
	}
	out := gopacket.NewSerializeBuffer()
	err := errors.Join(udp.SetNetworkLayerForChecksum(&ip), gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...))
	if err != nil {
		panic("app: canary: " + err.Error()) // every layer is whole
	}
	frame := bytes.Clone(out.Bytes())
	if kind != 0 {
		// No UDP checksum, as RFC 768 allows: the number may change alone.
		frame[14+20+6], frame[14+20+7] = 0, 0
	}
	for len(frame) < canaryLen {
		frame = append(frame, 0)
	}
	return frame
}

// canaryAddress is an end of an IP flow: each has two addresses of its own of
// TEST-NET-1 (RFC 5737), so that no rule that counts packets by address minds them.
func canaryAddress(kind, end int) net.IP { return net.IPv4(192, 0, 2, byte(2*kind+end)) }

// recognise says which canary of ours a frame is: nothing else looks like it.
func (c *canary) recognise(frame []byte) (direction, kind int, number uint64, ok bool) {
	at := bytes.Index(frame, c.nonce[:])
	if at < 0 || len(frame) < at+canaryPayload {
		return 0, 0, 0, false
	}
	payload := frame[at+len(c.nonce):]
	direction, kind, number = int(payload[0]), int(payload[1]), binary.BigEndian.Uint64(payload[2:])
	if direction >= directions || kind >= canaryKinds || number > c.lanes[direction][kind].sent {
		return 0, 0, 0, false
	}
	return direction, kind, number, bytes.Equal(frame, c.frame(direction, kind, number))
}

// came takes a frame that has come out of the engine at a port. It says whether it
// is a canary of ours that is later than any before, and of which kind.
func (c *canary) came(port int, frame []byte) (kind int, ok bool) {
	direction, kind, number, ok := c.recognise(frame)
	if !ok || direction != directions-1-port {
		return 0, false
	}
	l := &c.lanes[direction][kind]
	if number <= l.seen {
		return 0, false
	}
	l.seen = number
	return kind, true
}

// entered takes a frame that has come to the engine's end of a port.
func (c *canary) entered(port int, frame []byte) {
	direction, kind, number, ok := c.recognise(frame)
	if ok && direction == port {
		l := &c.lanes[direction][kind]
		l.entered = max(l.entered, number)
	}
}

// look ends a look: it says of each direction whether a canary has been with the
// engine for at least one whole interval.
func (c *canary) look() (waiting [directions]bool) {
	for d := range c.lanes {
		for k := range c.lanes[d] {
			l := &c.lanes[d][k]
			waiting[d] = waiting[d] || l.waiting()
			l.before = l.entered
		}
	}
	return waiting
}

// forget begins anew with another process of the engine: what is under way will
// not come back.
func (c *canary) forget() {
	for d := range c.lanes {
		for k := range c.lanes[d] {
			l := &c.lanes[d][k]
			*l = lane{sent: l.sent, seen: 0}
		}
	}
}
