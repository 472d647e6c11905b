package punt

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var (
	addr4 = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	addr6 = [2]netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
)

func tcpHeader(flags func(*layers.TCP)) *layers.TCP {
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 443}
	flags(tcp)
	return tcp
}

func over(ip gopacket.NetworkLayer, transport gopacket.SerializableLayer, payload int) []byte {
	if t, ok := transport.(interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}); ok {
		_ = t.SetNetworkLayerForChecksum(ip)
	}
	return frame(ip.(gopacket.SerializableLayer), transport, gopacket.Payload(make([]byte, payload)))
}

// v6 is an IPv6 packet whose payload, extension headers and all, is given in bytes.
func v6(next layers.IPProtocol, payload ...byte) []byte {
	return frame(ipv6(addr6[0], addr6[1], next), gopacket.Payload(payload))
}

func cat(parts ...[]byte) (all []byte) {
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

func decodeOne(data []byte) (*Packet, error) {
	p := &Packet{Len: len(data), Received: time.Now()}
	return p, newDecoder().decode(p, data)
}

func TestDecode_FindsTheFlow(t *testing.T) {
	syn := tcpHeader(func(t *layers.TCP) { t.SYN = true })
	rst := tcpHeader(func(t *layers.TCP) { t.RST, t.ACK = true, true })
	udp := &layers.UDP{SrcPort: 5353, DstPort: 53}
	sctp := &layers.SCTP{SrcPort: 2905, DstPort: 2906}
	echo := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoReply, 0), Id: 77}
	unreachable := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, 1), Id: 77}
	udpBytes := []byte{0x14, 0xe9, 0, 53, 0, 8, 0, 0}
	options := ipv4(addr4[0], addr4[1], layers.IPProtocolTCP)
	options.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}

	for name, c := range map[string]struct {
		data         []byte
		proto        uint8
		sport, dport uint16
		flags        uint8
	}{
		"tcp syn":            {over(ipv4(addr4[0], addr4[1], 6), syn, 0), 6, 40000, 443, 2},
		"tcp rst, payload":   {over(ipv4(addr4[0], addr4[1], 6), rst, 9), 6, 40000, 443, 0x14},
		"tcp, ip options":    {over(options, syn, 0), 6, 40000, 443, 2},
		"udp":                {over(ipv4(addr4[0], addr4[1], 17), udp, 12), 17, 5353, 53, 0},
		"sctp":               {over(ipv4(addr4[0], addr4[1], 132), sctp, 4), 132, 2905, 2906, 0},
		"echo":               {over(ipv4(addr4[0], addr4[1], 1), echo, 8), 1, 77, 77, 0},
		"icmp error":         {over(ipv4(addr4[0], addr4[1], 1), unreachable, 8), 1, 0, 0, 0},
		"gre":                {over(ipv4(addr4[0], addr4[1], 47), gopacket.Payload("abcd"), 0), 47, 0, 0, 0},
		"v6 tcp":             {over(ipv6(addr6[0], addr6[1], 6), syn, 0), 6, 40000, 443, 2},
		"v6 echo":            {v6(58, 128, 0, 0, 0, 0, 77, 0, 1), 58, 77, 77, 0},
		"v6 neighbour":       {v6(58, 135, 0, 0, 0, 0, 77, 0, 1), 58, 0, 0, 0},
		"v6 destination":     {v6(60, cat([]byte{17, 0, 1, 4, 0, 0, 0, 0}, udpBytes)...), 17, 5353, 53, 0},
		"v6 hop-by-hop":      {v6(0, cat([]byte{60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0}, udpBytes)...), 17, 5353, 53, 0},
		"v6 authenticated":   {v6(51, cat([]byte{17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2}, udpBytes)...), 17, 5353, 53, 0},
		"v6 atomic fragment": {v6(44, cat([]byte{17, 0, 0, 0, 0, 0, 0, 9}, udpBytes)...), 17, 5353, 53, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := decodeOne(c.data)
			if err != nil {
				t.Fatal(err)
			}
			addrs := addr4
			if c.data[0]>>4 == 6 {
				addrs = addr6
			}
			if p.Proto != c.proto || p.TCPFlags != c.flags ||
				p.Src != netip.AddrPortFrom(addrs[0], c.sport) || p.Dst != netip.AddrPortFrom(addrs[1], c.dport) {
				t.Errorf("decoded %+v, want protocol %d, ports %d to %d, flags %#x", p, c.proto, c.sport, c.dport, c.flags)
			}
		})
	}
}

func TestDecode_RefusesWhatItCannotReadWhole(t *testing.T) {
	syn := over(ipv4(addr4[0], addr4[1], 6), tcpHeader(func(t *layers.TCP) { t.SYN = true }), 0)
	longOffset := append([]byte(nil), syn...)
	longOffset[20+12] = 0xf0
	mapped := frame(ipv6(netip.MustParseAddr("::ffff:192.0.2.1"), addr6[1], 17), gopacket.Payload(make([]byte, 8)))
	var chain []byte
	for range maxExtensions + 1 {
		chain = append(chain, 60, 0, 1, 4, 0, 0, 0, 0)
	}
	for name, data := range map[string][]byte{
		"empty":                   {},
		"version 5":               {0x50, 0, 0, 20},
		"half an IP header":       syn[:12],
		"half a TCP header":       syn[:30],
		"TCP offset beyond":       longOffset,
		"mapped address":          mapped,
		"endless extensions":      v6(60, chain...),
		"late hop-by-hop":         v6(60, 0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0),
		"two fragment headers":    v6(44, 44, 0, 0, 1, 0, 0, 0, 9, 17, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0),
		"extension beyond packet": v6(60, 17, 9, 1, 4, 0, 0, 0, 0),
		"no payload":              v6(59, 1, 2, 3, 4),
		"half an echo":            v6(58, 128, 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := decodeOne(data); err == nil {
				t.Errorf("decoded as %+v", p)
			}
		})
	}
}

// v6Fragment is a fragment of a UDP datagram behind a destination header.
func v6Fragment(id byte, offset int, more byte, payload ...byte) []byte {
	return v6(44, cat([]byte{60, 0, byte(offset >> 8), byte(offset) | more, 0, 0, 0, id}, payload)...)
}

func TestDecode_Fragments(t *testing.T) {
	head := v6Fragment(1, 0, 1, 17, 0, 1, 4, 0, 0, 0, 0, 0x14, 0xe9, 0, 53, 0, 16, 0, 0)
	tail := v6Fragment(1, 24, 0, 1, 2, 3, 4)
	d, start := newDecoder(), time.Now()
	decode := func(data []byte, after time.Duration, vlan uint16) (*Packet, error) {
		p := &Packet{Len: len(data), Received: start.Add(after), VLAN: vlan}
		return p, d.decode(p, data)
	}
	if _, err := decode(tail, 0, 0); !errors.Is(err, errNoHead) {
		t.Errorf("a tail before its head: %v, want %v", err, errNoHead)
	}
	if p, err := decode(head, 0, 0); err != nil || p.Proto != 17 || p.Src.Port() != 5353 {
		t.Fatalf("head: %+v, %v", p, err)
	}
	if p, err := decode(tail, time.Second, 0); err != nil || p.Proto != 17 || p.Src.Port() != 5353 || p.Dst.Port() != 53 {
		t.Errorf("tail: %+v, %v, want the head's protocol and ports", p, err)
	}
	if _, err := decode(v6Fragment(1, 8, 0, 1, 2, 3, 4), time.Second, 0); !errors.Is(err, errOverlap) {
		t.Errorf("a tail over the head's ports: %v, want %v", err, errOverlap)
	}
	if _, err := decode(v6Fragment(2, 24, 0, 1, 2, 3, 4), time.Second, 0); !errors.Is(err, errNoHead) {
		t.Errorf("another packet's tail: %v, want %v", err, errNoHead)
	}
	if _, err := decode(tail, time.Second, 5); !errors.Is(err, errNoHead) {
		t.Errorf("a tail in another VLAN: %v, want %v", err, errNoHead)
	}
	if _, err := decode(tail, fragmentLifetime+time.Second, 0); !errors.Is(err, errNoHead) {
		t.Errorf("a tail long after its head: %v, want %v", err, errNoHead)
	}
}

func TestFragments_FloodOfHeadsIsBounded(t *testing.T) {
	f, now := newFragments(), time.Now()
	for id := range uint32(3 * maxFragmentHeads) {
		f.put(fragmentKey{id: id}, fragmentHead{seen: now})
	}
	if n := f.heads.Len(); n != maxFragmentHeads {
		t.Errorf("%d heads are remembered, want %d", n, maxFragmentHeads)
	}
	if _, ok := f.get(fragmentKey{id: 3*maxFragmentHeads - 1}, now); !ok {
		t.Error("the youngest head is forgotten")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(over(ipv4(addr4[0], addr4[1], 6), tcpHeader(func(t *layers.TCP) { t.SYN = true }), 0), 60)
	f.Add(v6Fragment(1, 0, 1, 17, 0, 1, 4, 0, 0, 0, 0, 0x14, 0xe9, 0, 53, 0, 16, 0, 0), 64)
	f.Add(v6(0, 60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0, 0x14, 0xe9, 0, 53, 0, 8, 0, 0), 1400)
	d := newDecoder() // kept, as in the reader: one packet must not leak into the next
	f.Fuzz(func(t *testing.T, data []byte, length int) {
		p := &Packet{Len: length, Received: time.Now()}
		kept := d.decode(p, append([]byte(nil), data...))
		if kept != nil {
			return
		}
		if !p.Src.Addr().IsValid() || !p.Dst.Addr().IsValid() || p.Src.Addr().Is4() != p.Dst.Addr().Is4() ||
			p.Src.Addr().Is4In6() || p.Dst.Addr().Is4In6() {
			t.Errorf("decoded the ends %v and %v", p.Src, p.Dst)
		}
		if p.Proto != 6 && p.TCPFlags != 0 {
			t.Errorf("protocol %d has TCP flags %#x", p.Proto, p.TCPFlags)
		}
		fresh, err := decodeOne(data)
		if err == nil && (fresh.Src != p.Src || fresh.Dst != p.Dst || fresh.Proto != p.Proto) {
			t.Errorf("decoded %+v after other packets, %+v alone", p, fresh)
		}
	})
}
