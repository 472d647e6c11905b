package snort

import (
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
)

// unixsock makes a datagram of alert_unixsock as Snort 2.9 and 3 send it.
func unixsock(message string, gid, sid uint32, frame []byte) []byte {
	b := make([]byte, unixsockLen)
	copy(b[:unixsockMsg-1], message)
	put := binary.NativeEndian.PutUint32
	put(b[unixsockTime:], 1795300459)
	put(b[unixsockTime+4:], 617966)
	put(b[unixsockCap:], uint32(len(frame)))
	put(b[unixsockCap+4:], uint32(len(frame)))
	copy(b[unixsockFrame:], frame)
	for i, v := range []uint32{gid, sid, 3, 4, 2, 77, 77, 1795300459, 617966} {
		put(b[unixsockEvent+4*i:], v)
	}
	return b
}

func TestParseUnixsock(t *testing.T) {
	a, err := parseUnixsock(unixsock("TCP \x1bflood", 1, 1000001, syn(t, 2661, 7)), ActionAlert)
	must(t, err)
	same(t, "datagram", a, Alert{
		Engine: EngineSnort, Action: ActionAlert, GID: 1, SID: 1000001, Rev: 3, Priority: 2, Message: "TCP  flood", Proto: 6,
		Src: netip.MustParseAddrPort("192.168.1.10:2661"), Dst: netip.MustParseAddrPort("192.168.1.74:80"),
		SrcMAC: macA, DstMAC: macB, Time: time.Unix(1795300459, 617966000),
	})
	if a, _ := parseUnixsock(unixsock("m", 1, 2, syn(t, 1, 1)), ActionDrop); a.Action != ActionDrop {
		t.Errorf("the operator chose drop, and it is %s", a.Action)
	}
	long := unixsock("m", 1, 2, nil)
	binary.NativeEndian.PutUint32(long[unixsockCap:], 65536)
	noTime := unixsock("m", 1, 2, nil)
	clear(noTime[unixsockTime : unixsockTime+8])
	clear(noTime[unixsockEvent+28:])
	for name, b := range map[string][]byte{
		"empty": nil, "short": make([]byte, unixsockLen-1), "long": make([]byte, unixsockLen+1), "zeros": make([]byte, unixsockLen),
		"a packet longer than its room": long, "no time": noTime,
	} {
		if a, err := parseUnixsock(b, ActionAlert); err == nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// TestRecorded reads what Snort 3.11.1 wrote about a dropped SYN, a UDP datagram that
// passed, and a dropped SYN with a tag; the other tests make records by the headers of
// Snort 2.9, of which there is none here.
func TestRecorded(t *testing.T) {
	file, err := os.Open("testdata/alert_unixsock.gz")
	must(t, err)
	defer file.Close()
	z, err := gzip.NewReader(file)
	must(t, err)
	datagram, err := io.ReadAll(z)
	must(t, err)
	a, err := parseUnixsock(datagram, ActionAlert)
	must(t, err)
	if age := a.Time.Year(); age != 2026 {
		t.Errorf("time %v", a.Time)
	}
	syn := Alert{
		Engine: EngineSnort, Action: ActionAlert, GID: 1, SID: 1000001, Rev: 1, Priority: 2, Message: "TCP sync flood", Proto: 6, Time: a.Time,
		Src: netip.MustParseAddrPort("192.168.1.10:2661"), Dst: netip.MustParseAddrPort("192.168.1.74:80"), SrcMAC: macA, DstMAC: macB,
	}
	same(t, "datagram", a, syn)
	syn.Message = ""
	marker, tagged := syn, syn
	marker.SID, marker.Rev, marker.Priority, marker.Proto = 1000002, 2, 0, 17
	marker.Src, marker.Dst = netip.MustParseAddrPort("192.168.1.10:40009"), netip.MustParseAddrPort("192.168.1.74:9999")
	tagged.Src, tagged.VLAN = netip.MustParseAddrPort("192.168.1.10:1234"), 5
	for name, dropped := range map[string]Action{
		"unified2-114": ActionDrop,
		"unified2-104": ActionReject, // what is not said; the test's own word for it
	} {
		unstated := ActionReject
		in := &intake{log: testLog(t), queue: make(chan Alert, 10)}
		s := &spool{base: filepath.Join("testdata", name), unstated: unstated, to: in}
		must(t, s.open(unstamped))
		must(t, s.read(s.record))
		s.flush()
		s.file.Close()
		if len(in.queue) != 3 || in.malformed.Load() != 0 {
			t.Fatalf("%s: %d alerts, %d not understood", name, len(in.queue), in.malformed.Load())
		}
		for i, want := range []Alert{syn, marker, tagged} {
			got := <-in.queue
			want.Action, want.Time = dropped, got.Time
			if i == 1 && name == "unified2-114" {
				want.Action = ActionAlert
			}
			same(t, fmt.Sprintf("%s, %d", name, i), got, want)
		}
	}
}

// What a frame is inside of comes from its sender: who that is, its outside says.
func TestFillFrame(t *testing.T) {
	eth := func(next layers.EthernetType) *layers.Ethernet {
		return &layers.Ethernet{SrcMAC: macA, DstMAC: macB, EthernetType: next}
	}
	four := func(next layers.IPProtocol) *layers.IPv4 {
		return &layers.IPv4{Version: 4, TTL: 64, Protocol: next, SrcIP: ipA, DstIP: ipB}
	}
	inner := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: ipB, DstIP: ipA}
	udp := &layers.UDP{SrcPort: 1, DstPort: 2}
	must(t, udp.SetNetworkLayerForChecksum(inner))
	six := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: netip.MustParseAddr("fd00::1").AsSlice(), DstIP: netip.MustParseAddr("fd00::2").AsSlice()}
	udp6 := &layers.UDP{SrcPort: 3, DstPort: 4}
	must(t, udp6.SetNetworkLayerForChecksum(six))
	tagged := serialize(t, eth(layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 20, Type: layers.EthernetTypeDot1Q},
		&layers.Dot1Q{VLANIdentifier: 30, Type: layers.EthernetTypeIPv6}, six, udp6)
	for _, c := range []struct {
		name     string
		frame    []byte
		proto    uint8
		src, dst string
		vlan     uint16
	}{
		{"tunnel", serialize(t, eth(layers.EthernetTypeIPv4), four(layers.IPProtocolIPv4), inner, udp), 4, "192.168.1.10:0", "192.168.1.74:0", 0},
		{"two tags, IPv6", tagged, 17, "[fd00::1]:3", "[fd00::2]:4", 20},
		{"cut behind IP", syn(t, 5, 5)[:34], 6, "192.168.1.10:0", "192.168.1.74:0", 0},
		{"no IP", serialize(t, eth(layers.EthernetTypeARP)), 0, "invalid AddrPort", "invalid AddrPort", 0},
	} {
		var a Alert
		a.fillFrame(c.frame)
		if a.Proto != c.proto || a.Src.String() != c.src || a.Dst.String() != c.dst || a.VLAN != c.vlan || a.SrcMAC.String() != macA.String() {
			t.Errorf("%s: %+v", c.name, a)
		}
	}
}

// u2Record is a record of a unified2 file.
func u2Record(kind uint32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, kind)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(body))), body...)
}

// u2Head is what all events begin with, in the order of types 7 to 105.
func u2Head(event uint32) (b []byte) {
	for _, v := range []uint32{0, event, 1795300459, 617966, 1000001, 1, 3, 4, 2} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func u2Old(kind, event uint32, blocked byte) []byte {
	b := u2Head(event)
	if kind == u2Event6 || kind == u2Event6VLAN {
		b = append(append(b, netip.MustParseAddr("fd00::1").AsSlice()...), netip.MustParseAddr("fd00::2").AsSlice()...)
	} else {
		b = append(append(b, ipA.To4()...), ipB.To4()...)
	}
	b = binary.BigEndian.AppendUint16(b, 2661)
	b = binary.BigEndian.AppendUint16(b, 80)
	b = append(b, 6, 0, 0, blocked)
	if kind == u2EventVLAN || kind == u2Event6VLAN {
		b = append(b, 0, 0, 0, 0, 0, 5, 0, 0)
	}
	return u2Record(kind, b)
}

func u2New(event uint32, status, action byte) []byte {
	b := u2Head(event)
	binary.BigEndian.PutUint32(b[16:], 1)
	binary.BigEndian.PutUint32(b[20:], 1000001)
	b = append(b, make([]byte, 12+12)...) // policies, then IPv4 in the last word
	b = append(append(append(b, ipA.To4()...), make([]byte, 12)...), ipB.To4()...)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, 2661)
	b = binary.BigEndian.AppendUint16(b, 80)
	b = append(b, 0, 5, 0, 0, 0x44, 6, status, action)
	return u2Record(u2Event3, append(b, make([]byte, 1200)...))
}

func u2PacketOf(event uint32, frame []byte) []byte {
	var b []byte
	for _, v := range []uint32{0, event, 1795300459, 1795300459, 617966, linkEthernet, uint32(len(frame))} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return u2Record(u2Packet, append(b, frame...))
}

func TestParseU2Event(t *testing.T) {
	for _, c := range []struct {
		name   string
		record []byte
		action Action
	}{
		{"7, blocked", u2Old(u2Event, 1, 1), ActionDrop},
		{"7", u2Old(u2Event, 1, 0), "unstated"},
		{"104, blocked", u2Old(u2EventVLAN, 1, 1), ActionDrop},
		{"104", u2Old(u2EventVLAN, 1, 0), "unstated"},
		{"104, would have been", u2Old(u2EventVLAN, 1, 2), ActionAlert},
		{"104, could not be", u2Old(u2EventVLAN, 1, 3), ActionAlert},
		{"72", u2Old(u2Event6, 1, 1), ActionDrop},
		{"105", u2Old(u2Event6VLAN, 1, 0), "unstated"},
		{"114, drop", u2New(1, 0, 5), ActionDrop},
		{"114, forced block", u2New(1, 3, 6), ActionDrop},
		{"114, reset", u2New(1, 0, 7), ActionReject},
		{"114, would drop", u2New(1, 2, 5), ActionAlert},
		{"114, can't drop", u2New(1, 1, 5), ActionAlert},
		{"114, pass", u2New(1, 0, 1), ActionAlert},
		{"114, unknown", u2New(1, 0, 200), ActionAlert},
	} {
		kind := binary.BigEndian.Uint32(c.record)
		a, key, err := parseU2Event(kind, c.record[u2HeaderLen:], "unstated")
		must(t, err)
		src := "192.168.1.10:2661"
		if kind == u2Event6 || kind == u2Event6VLAN {
			src = "[fd00::1]:2661"
		}
		if a.Action != c.action || a.Src.String() != src || a.Dst.Port() != 80 || a.GID != 1 || a.SID != 1000001 || a.Rev != 3 || a.Priority != 2 || a.Proto != 6 ||
			!a.Time.Equal(time.Unix(1795300459, 617966000)) || key != (u2Key{0, 1, 1795300459}) {
			t.Errorf("%s: %+v", c.name, a)
		}
		for cut := range 52 {
			if a, _, err := parseU2Event(kind, c.record[u2HeaderLen:][:cut], ActionAlert); err == nil {
				t.Fatalf("%s cut after %d bytes: %+v", c.name, cut, a)
			}
		}
	}
}

// TestSpool: from the end of the newest file on, from one file to the next, events
// with and without packets, one that is written in pieces, and other records between.
func TestSpool(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "snort.u2")
	write := func(stamp string, parts ...[]byte) {
		f, err := os.OpenFile(base+"."+stamp, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		must(t, err)
		for _, p := range parts {
			_, err := f.Write(p)
			must(t, err)
		}
		must(t, f.Close())
	}
	must(t, os.WriteFile(base+".old", []byte("not one"), 0o600))
	write("1000", u2Old(u2Event, 1, 1))
	write("2000", u2Old(u2Event, 2, 1), u2PacketOf(2, syn(t, 2002, 1)))
	r := runExternal(t, ExternalConfig{Spool: base})
	expect := func(what string, hasMAC bool) {
		t.Helper()
		a, ok := r.alert(10 * time.Second)
		if !ok || a.SID != 1000001 || (a.SrcMAC != nil) != hasMAC {
			t.Fatalf("%s: %v, %+v", what, ok, a)
		}
	}
	write("2000", u2Record(110, []byte("extra data of someone")), u2Old(u2Event, 3, 1), u2Record(110, nil), u2PacketOf(3, syn(t, 2661, 1)))
	expect("event and packet", true)
	write("2000", u2Old(u2Event, 4, 1), u2PacketOf(99, syn(t, 2661, 1)))
	expect("an event with another's packet", false)
	event, packet := u2Old(u2EventVLAN, 5, 1), u2PacketOf(5, syn(t, 2661, 1))
	write("2000", event[:20])
	write("2000", event[20:], packet[:50])
	expect("half a packet: it is not waited for", false)
	write("2000", packet[50:])
	write("2000", u2Old(u2Event, 6, 1))
	write("3000", u2Old(u2Event, 7, 1), u2PacketOf(7, syn(t, 2661, 1)))
	expect("the last one of a file", false)
	expect("the first one of the next", true)
	write("3000", u2Record(u2Event, nil), u2Old(u2Event, 8, 1))
	expect("behind a bad one", false)
	bad := u2Record(u2Event, nil)
	binary.BigEndian.PutUint32(bad[4:], 1<<31)
	write("3000", bad, u2Old(u2Event, 9, 1))
	write("4000", u2Old(u2Event, 10, 1))
	expect("in the file behind a damaged one", false)
	if a, ok := r.alert(100 * time.Millisecond); ok {
		t.Errorf("one too many: %+v", a)
	}
	if s := r.external.State(); s.Malformed != 2 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}

func FuzzParseUnixsock(f *testing.F) {
	f.Add(unixsock("m", 1, 2, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := make([]byte, unixsockLen) // most inputs shall get past the length
		copy(whole, b)
		if len(b) > 512 {
			copy(whole[unixsockEvent:], b[512:])
		}
		if a, err := parseUnixsock(whole, ActionAlert); err == nil {
			bounded(t, a)
		}
	})
}

func FuzzSpool(f *testing.F) {
	f.Add(append(u2Old(u2Event, 1, 1), u2PacketOf(1, []byte("frame"))...))
	f.Add(u2New(1, 0, 5))
	path := filepath.Join(f.TempDir(), fmt.Sprintf("u2-%d.2", os.Getpid()))
	f.Fuzz(func(t *testing.T, file []byte) {
		must(t, os.WriteFile(path, file, 0o600))
		in := &intake{log: slog.New(slog.DiscardHandler), queue: make(chan Alert, 1000)}
		s := &spool{base: strings.TrimSuffix(path, ".2"), unstated: ActionAlert, to: in}
		must(t, s.open(2))
		defer s.file.Close()
		must(t, s.read(s.record))
		s.flush()
		for len(in.queue) > 0 {
			bounded(t, <-in.queue)
		}
	})
}

// Snort 3 writes one file without a timestamp, and may begin it anew.
func TestSpool_OneFile(t *testing.T) {
	base := filepath.Join(t.TempDir(), "unified2.log")
	r := runExternal(t, ExternalConfig{Spool: base})
	for i := range uint32(2) {
		f, err := os.OpenFile(base, os.O_CREATE|os.O_WRONLY, 0o600)
		must(t, err)
		_, err = f.Write(u2Old(u2Event, i, 1))
		must(t, err)
		if i == 0 {
			_, err = f.Write(u2Record(110, make([]byte, 500)))
			must(t, err)
		}
		if a, ok := r.alert(10 * time.Second); !ok || a.SID != 1000001 {
			t.Errorf("%v, %+v", ok, a)
		}
		must(t, f.Close())
		must(t, os.Truncate(base, 0))
	}
}
