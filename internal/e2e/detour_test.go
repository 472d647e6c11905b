package e2e_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/vmgate/vmgate/internal/lab"
)

// TestDetour_PcapsArriveByteForByte: what is replayed from a capture comes out of the
// detour in its order and unchanged: tags, IPv6, fragments, frames of the MTU, TCP.
func TestDetour_PcapsArriveByteForByte(t *testing.T) {
	eachEngine(t, func(t *testing.T, s setup) {
		t.Run("xdp", func(t *testing.T) { testDetour_Pcaps(t, s, nil) })
		t.Run("tcx", func(t *testing.T) { // which is what takes tags from another namespace
			s := s
			s.VLANs = `[0, 5, "5.6"]`
			testDetour_Pcaps(t, s, nil, []uint16{5}, []uint16{5, 6})
		})
	})
}

func testDetour_Pcaps(t *testing.T, s setup, taggings ...[]uint16) {
	s.IDS = harmlessRule
	g := namespaced(t, s)
	absorb(t, g.Web1, 443)
	for _, six := range []bool{false, true} {
		for _, tags := range taggings {
			p := newProbe(g.App1, g.Web1, 443)
			p.six, p.tags = six, tags
			absorb(t, g.App1, p.source)
			there, back := replay(t, session(t, p, false)), replay(t, session(t, p, true))
			// The first of a flow opens the way: a held packet is no part of the replay.
			_, first := g.first(t, p, len(tags) == 2)
			g.webWire.wait(t, "the first of "+p.String(), func(f []byte) bool { return bytes.Equal(f, first) })
			before := g.counts()
			g.replayed(t, g.App1, g.webWire, there, p.String())
			g.replayed(t, g.Web1, g.appsWire, back, "answers to "+p.String())
			for kind, want := range (counts{"ids-out/ids-return": uint64(len(there)), "ids-in/ids-return": uint64(len(back)), "apps/forward": 0, "web/forward": 0}) {
				if n := g.since(before, kind); n != want {
					t.Errorf("%s: %s: %d, want %d", p, kind, n, want)
				}
			}
		}
	}
}

// session is a capture of one direction of a UDP flow, as a pcap file in memory.
func session(t *testing.T, p probe, back bool) []byte {
	t.Helper()
	p.reply = back
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	must(t, w.WriteFileHeader(65535, layers.LinkTypeEthernet))
	add := func(frame []byte) {
		must(t, w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: len(frame), Length: len(frame)}, frame))
	}
	headers := 28
	if p.six {
		headers = 48
	}
	if len(p.tags) > 1 {
		headers += 4 // a wire has room for one tag beside its MTU
	}
	for _, size := range []int{60, 600, 1500 - headers} { // the last fills the MTU
		one := p.again()
		one.payload = strings.Repeat(one.payload, size/len(one.payload)+1)[:size]
		add(one.frame(t))
	}
	large := p.again()
	large.payload = strings.Repeat(large.payload, 400)[:4000]
	for _, fragment := range fragments(t, large.frame(t), p.six, len(p.tags)) {
		add(fragment)
	}
	add(p.again().frame(t))
	return file.Bytes()
}

// replay reads a capture back.
func replay(t *testing.T, file []byte) (frames [][]byte) {
	t.Helper()
	r, err := pcapgo.NewReader(bytes.NewReader(file))
	must(t, err)
	for {
		frame, _, err := r.ReadPacketData()
		if err == io.EOF {
			return frames
		}
		must(t, err)
		frames = append(frames, frame)
	}
}

// fragments cuts a frame's IP packet, which is too long for the wire, into three.
func fragments(t *testing.T, frame []byte, six bool, tags int) (cut [][]byte) {
	t.Helper()
	const step = 1400 // bytes, a multiple of 8
	l3 := 14 + 4*tags
	header, id := 20, uint32(len(frame))<<8|uint32(frame[len(frame)-1])
	if six {
		header = 40
	}
	body := frame[l3+header:]
	for at := 0; at < len(body); at += step {
		part, more := body[at:min(at+step, len(body))], at+step < len(body)
		f := bytes.Clone(frame[:l3+header])
		ip := f[l3:]
		if six {
			binary.BigEndian.PutUint16(ip[4:], uint16(8+len(part)))
			next := ip[6]
			ip[6] = 44
			offset := uint16(at)
			if more {
				offset |= 1
			}
			f = append(f, next, 0, byte(offset>>8), byte(offset))
			f = binary.BigEndian.AppendUint32(f, id)
		} else {
			binary.BigEndian.PutUint16(ip[2:], uint16(header+len(part)))
			binary.BigEndian.PutUint16(ip[4:], uint16(id))
			offset := uint16(at / 8)
			if more {
				offset |= 0x2000
			}
			binary.BigEndian.PutUint16(ip[6:], offset)
			ip[10], ip[11] = 0, 0
			sum := uint32(0)
			for i := 0; i < header; i += 2 {
				sum += uint32(binary.BigEndian.Uint16(ip[i:]))
			}
			for sum>>16 != 0 {
				sum = sum&0xffff + sum>>16
			}
			binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
		}
		cut = append(cut, append(f, part...))
	}
	return cut
}

// replayed sends frames and wants them to come out, all and in their order.
func (g *gateway) replayed(t *testing.T, from *lab.Host, wire *capture, frames [][]byte, what string) {
	t.Helper()
	for _, frame := range frames {
		sendRaw(t, from, frame)
	}
	last := frames[len(frames)-1]
	wire.wait(t, what, func(f []byte) bool { return bytes.Equal(f, last) })
	came := wire.seen(func(f []byte) bool {
		for _, frame := range frames {
			if bytes.Equal(f, frame) {
				return true
			}
		}
		return false
	})
	for i, frame := range frames {
		if i >= len(came) || !bytes.Equal(came[i], frame) {
			t.Errorf("%s: frame %d of %d is not what came as the %dth of %d", what, i, len(frames), i, len(came))
			return
		}
	}
	if len(came) != len(frames) {
		t.Errorf("%s: %d frames came of %d", what, len(came), len(frames))
	}
}
