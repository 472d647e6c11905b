package bpf_test

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/vmgate/vmgate/bpf"
)

// frameMaker makes frames that a world's VMs might send: mostly right, of every
// kind, and spoilt in every way.
type frameMaker struct {
	r     *rand.Rand
	m     *model
	flows []bpf.VmgateFlowKey
}

func newFrameMaker(r *rand.Rand, m *model) *frameMaker {
	fm := &frameMaker{r: r, m: m}
	for k := range m.flows {
		fm.flows = append(fm.flows, k)
	}
	return fm
}

var be = binary.BigEndian

// next makes one frame of at least 15 bytes.
func (fm *frameMaker) next() []byte {
	var frame []byte
	switch n := fm.r.IntN(100); {
	case n < 40 && len(fm.flows) > 0:
		frame = fm.ofFlow()
	case n < 55:
		frame = fm.arp()
	case n < 65:
		frame = fm.nd()
	case n < 70:
		frame = fm.dhcp()
	case n < 75:
		frame = append(fm.header(fm.someMAC(), fm.someMAC(), pick[uint16](fm.r, 0x20, 0x100, 0x600, 0x5dd, 0x88cc, 0x8847, 0x0800, 0x88b5)), fm.bytes(fm.r.IntN(80))...)
	default:
		frame = fm.anyIP()
	}
	return fm.spoil(frame)
}

func (fm *frameMaker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(fm.r.Uint32())
	}
	return b
}

func (fm *frameMaker) someMAC() macAdr {
	switch n := fm.r.IntN(20); {
	case n < 12:
		return macAdr(macApp1)
	case n < 18:
		return macAdr(pick(fm.r, worldMACs...))
	}
	return macAdr(pick(fm.r, macGateway, macGateway, macNobody, broadcast, mac("33:33:00:00:00:01"), mac("01:00:5e:00:00:16")))
}

// spoil changes, cuts or extends some frames.
func (fm *frameMaker) spoil(frame []byte) []byte {
	if chance(fm.r, 20) {
		for range 1 + fm.r.IntN(3) {
			i := fm.r.IntN(min(len(frame), 110))
			frame[i] = pick(fm.r, byte(fm.r.Uint32()), 0, 0xff, frame[i]^1<<fm.r.IntN(8))
		}
	}
	if chance(fm.r, 8) {
		frame = frame[:fm.r.IntN(len(frame))]
	}
	if chance(fm.r, 10) {
		frame = append(frame, fm.bytes(fm.r.IntN(30))...)
	}
	for len(frame) < 15 {
		frame = append(frame, 0)
	}
	return frame
}

// header makes the Ethernet header with random tags.
func (fm *frameMaker) header(src, dst macAdr, ethertype uint16) []byte {
	switch n := fm.r.IntN(20); {
	case n < 12:
		return fm.tagged(src, dst, ethertype)
	case n < 14:
		return fm.tagged(src, dst, ethertype, 5)
	case n < 16:
		return fm.tagged(src, dst, ethertype, 5, 6)
	case n < 18:
		return fm.tagged(src, dst, ethertype, pick[uint16](fm.r, 0, 0xe000, 5))
	}
	var tags []uint16
	for range 1 + fm.r.IntN(3) {
		tags = append(tags, uint16(fm.r.Uint32()))
	}
	return fm.tagged(src, dst, ethertype, tags...)
}

func (fm *frameMaker) tagged(src, dst macAdr, ethertype uint16, tags ...uint16) []byte {
	b := append(append([]byte(nil), dst[:]...), src[:]...)
	for _, tci := range tags {
		b = be.AppendUint16(b, pick[uint16](fm.r, 0x8100, 0x8100, 0x8100, 0x88a8))
		b = be.AppendUint16(b, tci)
	}
	return be.AppendUint16(b, ethertype)
}

func ethertypeOf(a addr) uint16 {
	if isMapped(a) {
		return 0x0800
	}
	return 0x86dd
}

// ofFlow is a packet of a decided flow, either way.
func (fm *frameMaker) ofFlow() []byte {
	key := pick(fm.r, fm.flows...)
	i := fm.r.IntN(2)
	dir := fm.m.flows[key].f.Dir[i]
	if dir.InPort != portApp {
		i = 1 - i
		dir = fm.m.flows[key].f.Dir[i]
	}
	var tags []uint16
	if key.Vlan != 0 {
		tags = append(tags, uint16(key.Vlan>>16))
	}
	if key.Vlan&0xfff != 0 {
		tags = append(tags, uint16(key.Vlan))
	}
	src, dst := key.Addr[i], key.Addr[1-i]
	if fm.m.proxy && chance(fm.r, 60) {
		dir.DstMac = fm.m.mac
	}
	b := fm.tagged(dir.SrcMac, dir.DstMac, ethertypeOf(src), tags...)
	body := fm.transport(key.Proto, be16(key.Port[i]), be16(key.Port[1-i]))
	if chance(fm.r, 10) && (key.Proto == 6 || key.Proto == 17) {
		body = fm.quote(src, dst, body, &key.Proto) // an error about it, the other way
		src, dst = dst, src
	}
	return append(b, fm.network(src, dst, key.Proto, body)...)
}

// quote makes the ICMP error about a packet; it travels from the packet's
// receiver to its sender.
func (fm *frameMaker) quote(src, dst addr, body []byte, proto *uint8) []byte {
	packet := fm.network(src, dst, *proto, body)
	kind := pick[byte](fm.r, 3, 3, 11, 12, 4, 5)
	*proto = 1
	if !isMapped(src) {
		kind, *proto = pick[byte](fm.r, 1, 2, 3, 4), 58
	}
	return append([]byte{kind, byte(fm.r.IntN(5)), 0, 0, 0, 0, 0, 0}, packet...)
}

func (fm *frameMaker) transport(proto uint8, sport, dport uint16) []byte {
	data := fm.bytes(fm.r.IntN(40))
	b := be.AppendUint16(be.AppendUint16(nil, sport), dport)
	switch proto {
	case 6:
		b = be.AppendUint32(b, pick[uint32](fm.r, 7, 8))
		b = append(b, 0, 0, 0, 0, pick[byte](fm.r, 0x50, 0x50, 0x50, 0x60, 0x40, 0xf0), pick[byte](fm.r, 0x10, 0x10, 2, 2, 0x12, 0x11, 4, 0x14, 3, 0), 1, 0, 0, 0, 0, 0)
	case 17, 136:
		b = be.AppendUint16(b, uint16(8+len(data)+pick(fm.r, 0, 0, 0, 0, 0, -1, 1)))
		b = append(b, 0, 0)
	case 132:
		b = append(b, fm.bytes(8)...)
	case 1:
		b = append([]byte{pick[byte](fm.r, 0, 8, 8, 8, 13, 3), 0, 0, 0}, b...)
	case 58:
		b = append([]byte{pick[byte](fm.r, 128, 129, 128, 1, 130, 143, 200), 0, 0, 0}, b...)
	}
	return append(b, data...)
}

// network puts an IP header before the body, at times with options, extension
// headers or as a fragment.
func (fm *frameMaker) network(src, dst addr, proto uint8, body []byte) []byte {
	if isMapped(src) {
		return fm.ip4(src, dst, proto, body)
	}
	return fm.ip6(src, dst, proto, body)
}

func (fm *frameMaker) ip4(src, dst addr, proto uint8, body []byte) []byte {
	var options []byte
	if chance(fm.r, 10) {
		for len(options) < 36 && chance(fm.r, 70) {
			options = append(options, pick(fm.r, []byte{1}, []byte{1}, []byte{7, 4, 0, 0}, []byte{148, 4, 0, 0}, []byte{0}, []byte{131, 3, 4}, fm.bytes(3))...)
		}
		for len(options)%4 != 0 {
			options = append(options, 0)
		}
	}
	frag := uint16(0)
	if chance(fm.r, 12) {
		frag = pick[uint16](fm.r, 0x2000, 0x2000, 0x2000|3, 4, 8, 0x1fff, 0x4000)
		if frag&0x2000 != 0 && chance(fm.r, 90) {
			body = body[:len(body)&^7]
		}
	}
	b := []byte{0x40 | byte(5+len(options)/4), 0}
	b = be.AppendUint16(b, uint16(20+len(options)+len(body)))
	b = be.AppendUint16(b, uint16(fm.r.IntN(3)))
	b = be.AppendUint16(b, frag)
	b = append(b, pick[byte](fm.r, 64, 1, 255), proto, 0, 0)
	b = append(append(b, src[12:]...), dst[12:]...)
	return append(append(b, options...), body...)
}

func (fm *frameMaker) ip6(src, dst addr, proto uint8, body []byte) []byte {
	var chain []byte
	for n := 0; n < 10 && chance(fm.r, 12+n*9); n++ {
		kind := pick[byte](fm.r, 60, 60, 60, 43, 44, 51, 0)
		if kind == 44 && chance(fm.r, 60) && proto != 58 {
			body = body[:len(body)&^7]
		}
		ext := []byte{proto, byte(fm.r.IntN(3)), 0, 0, 0, 0, 0, byte(fm.r.IntN(3))}
		switch kind {
		case 44:
			ext[1] = 0
			be.PutUint16(ext[2:], pick[uint16](fm.r, 0, 1, 1, 8, 16, 16|1, 0xfff8))
		case 51:
			ext[1] = pick[byte](fm.r, 0, 2, 4)
			ext = append(ext, make([]byte, int(ext[1])*4)...)
		default:
			ext[3] = pick[byte](fm.r, 0, 0, 0, 1)
			ext = append(ext, make([]byte, int(ext[1])*8)...)
		}
		chain, proto = append(ext, chain...), kind
	}
	b := be.AppendUint32(nil, 0x60000000)
	b = be.AppendUint16(b, uint16(len(chain)+len(body)))
	b = append(b, proto, pick[byte](fm.r, 255, 255, 64, 1))
	b = append(append(b, src[:]...), dst[:]...)
	return append(append(b, chain...), body...)
}

func (fm *frameMaker) someAddr(v4 bool) addr {
	if v4 {
		return pick(fm.r, app1, app1, app1, web, web, app2, gw, far, none4, ip("10.0.0.5"), ip("224.0.0.22"), ip("255.255.255.255"), ip("169.254.0.1"), ip("127.0.0.1")).As16()
	}
	return pick(fm.r, app16, app16, app16, web6, web6, app26, gw6, far6, none6, ip("2001:db8::77"), ip("ff02::1"), ip("fe80::ff:fe00:1"), ip("fe80::ff:fe00:2"), ip("::1")).As16()
}

func (fm *frameMaker) anyIP() []byte {
	v4 := chance(fm.r, 50)
	src, dst := fm.someAddr(v4), fm.someAddr(v4)
	proto := pick[uint8](fm.r, 6, 6, 17, 17, 17, 1, 58, 132, 136, 47, 50, 51, 4, 41, 2, 59, 89)
	body := fm.transport(proto, pick(fm.r, worldPorts...), pick(fm.r, worldPorts...))
	return append(fm.header(fm.someMAC(), fm.someMAC(), ethertypeOf(src)), fm.network(src, dst, proto, body)...)
}

func (fm *frameMaker) arp() []byte {
	src := fm.someMAC()
	b := fm.header(src, pick(fm.r, macAdr(broadcast), fm.someMAC()), 0x0806)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, pick[byte](fm.r, 1, 1, 1, 2, 2, 3))
	sender, target := fm.someAddr(true), fm.someAddr(true)
	if chance(fm.r, 10) {
		target = sender
	}
	other := fm.someMAC()
	b = append(append(b, src[:]...), sender[12:]...)
	return append(append(b, other[:]...), target[12:]...)
}

func (fm *frameMaker) nd() []byte {
	src := fm.someMAC()
	kind := pick[byte](fm.r, 135, 135, 135, 136, 136, 133, 134, 137)
	body := []byte{kind, pick[byte](fm.r, 0, 0, 0, 0, 0, 0, 1), 0, 0, 0, 0, 0, 0}
	switch kind {
	case 134:
		body = append(body, make([]byte, 8)...)
	case 135, 136:
		target := fm.someAddr(false)
		body = append(body, target[:]...)
	}
	for range fm.r.IntN(3) {
		mac := pick(fm.r, src, src, src, fm.someMAC())
		body = append(append(body, pick[byte](fm.r, 1, 2, 1, 2, 3), pick[byte](fm.r, 1, 1, 1, 1, 1, 0, 2)), mac[:]...)
	}
	b := fm.header(src, pick(fm.r, macAdr(mac("33:33:ff:00:00:02")), fm.someMAC()), 0x86dd)
	return append(b, fm.network(fm.someAddr(false), fm.someAddr(false), 58, body)...)
}

func (fm *frameMaker) dhcp() []byte {
	src, v4 := fm.someMAC(), chance(fm.r, 60)
	client, server := uint16(68), uint16(67)
	if !v4 {
		client, server = 546, 547
	}
	if chance(fm.r, 30) {
		client, server = server, client
	}
	body := be.AppendUint16(be.AppendUint16(nil, client), server)
	message := append([]byte{pick[byte](fm.r, 1, 1, 1, 2), 1, 6}, make([]byte, 41)...)
	mac := pick(fm.r, src, src, src, fm.someMAC())
	copy(message[28:], mac[:])
	body = append(be.AppendUint16(body, uint16(8+len(message))), 0, 0)
	b := fm.header(src, fm.someMAC(), map[bool]uint16{true: 0x0800, false: 0x86dd}[v4])
	return append(b, fm.network(fm.someAddr(v4), fm.someAddr(v4), 17, append(body, message...))...)
}
