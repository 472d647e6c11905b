package snort

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
)

// The rule of the paper's SYN flood, see docs: alerts and drops from the 11th
// SYN of a source within a minute.
const synFlood = `drop tcp any any -> 192.168.1.74 any (msg:"TCP sync flood"; flow:stateless; flags:S; detection_filter: track by_src, count 10, seconds 60; sid:1000001; rev:1;)
`

// Also the second answer to "is it up": what is sent the moment that Run says
// so must arrive.
func TestEngine_FramesComeOutAsTheyWentIn(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		r := run(t, configFor(t, engine, w, synFlood))
		r.await(PhaseUp)
		canary := append(append(append([]byte{}, macB...), macA...), 0x88, 0xb5)
		canary = append(canary, bytes.Repeat([]byte{0xa5}, 50)...)
		for name, frame := range map[string][]byte{
			"udp":     udpFrame(t, false, []byte("hello")),
			"mtu":     udpFrame(t, false, bytes.Repeat([]byte("x"), 1472)),
			"non-IP":  canary,
			"vlan":    tcpFrame(t, false, 5, tcpSYN(1234), nil),
			"vlanmtu": tcpFrame(t, false, 4094, tcpSYN(1235), bytes.Repeat([]byte("y"), 1460)),
		} {
			w.i0.send(frame)
			if !w.i1.arrives(frame, 2*time.Second) {
				t.Errorf("%s: into i0, not out of i1", name)
			}
			w.i1.send(frame)
			if !w.i0.arrives(frame, 2*time.Second) {
				t.Errorf("%s: into i1, not out of i0", name)
			}
		}
	})
}

func TestEngine_SYNFloodIsDroppedFromTheEleventhOn(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		r := run(t, configFor(t, engine, w, synFlood))
		r.await(PhaseUp)
		for i := range 10 {
			frame := syn(t, uint16(2000+i), 7)
			w.i0.send(frame)
			if !w.i1.arrives(frame, 2*time.Second) {
				t.Fatalf("SYN %d of 10 did not pass", i+1)
			}
		}
		if a, ok := r.alert(50 * time.Millisecond); ok {
			t.Fatalf("alert before the 11th SYN: %+v", a)
		}
		frame := syn(t, 2010, 7)
		sent := time.Now()
		w.i0.send(frame)
		a, ok := r.alert(2 * time.Second)
		t.Logf("packet to alert: %v", time.Since(sent))
		if !ok {
			t.Fatal("no alert for the 11th SYN")
		}
		if w.i1.arrives(frame, 100*time.Millisecond) {
			t.Error("the 11th SYN passed")
		}
		want := Alert{
			Engine: engine, Action: ActionDrop, GID: 1, SID: 1000001, Rev: 1, Message: "TCP sync flood", Priority: 3, Proto: 6,
			Src: netip.MustParseAddrPort("192.168.1.10:2010"), Dst: netip.MustParseAddrPort("192.168.1.74:80"), SrcMAC: macA, DstMAC: macB,
		}
		if engine == EngineSnort {
			want.Priority = 0 // of a rule without class
		}
		if age := time.Since(a.Time); age < 0 || age > 10*time.Second {
			t.Errorf("alert's time is %v ago", age)
		}
		if a.Raw == "" {
			t.Error("alert without its line")
		}
		a.Raw, a.Time = "", time.Time{}
		if got, want := fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", want); got != want {
			t.Errorf("alert\n got %s\nwant %s", got, want)
		}
		if s := r.State(); s.Lines == 0 || s.Malformed != 0 || s.Lost != 0 {
			t.Errorf("counters %+v", s)
		}
	})
}

// Flows are diverted to the engine while they live: its first packet of one is
// anything but a SYN.
func TestEngine_ConnectionSurvivesItsDiversion(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		r := run(t, configFor(t, engine, w, synFlood+`alert tcp any any -> any any (msg:"marker"; flow:established,to_server; content:"find-me"; sid:7;)
`))
		r.await(PhaseUp)
		seq, ack := uint32(1000), uint32(5000)
		for i := range 5 {
			request := []byte(fmt.Sprintf("request %d", i))
			if i == 4 {
				request = []byte("now find-me")
			}
			out := tcpFrame(t, false, 0, tcpData(seq, ack, false), request)
			w.i0.send(out)
			if !w.i1.arrives(out, 2*time.Second) {
				t.Fatalf("request %d was lost", i)
			}
			seq += uint32(len(request))
			answer := []byte(fmt.Sprintf("answer %d", i))
			back := tcpFrame(t, true, 0, tcpData(ack, seq, true), answer)
			w.i1.send(back)
			if !w.i0.arrives(back, 2*time.Second) {
				t.Fatalf("answer %d was lost", i)
			}
			ack += uint32(len(answer))
		}
		if a, ok := r.alert(2 * time.Second); !ok || a.SID != 7 || a.Action != ActionAlert {
			t.Errorf("a midstream connection is not inspected: %+v", a)
		}
	})
}

// Also where the configuration says less than the devices can: frames must not
// be cut.
func TestEngine_JumboFrames(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWireMTU(t, 9000)
		r := run(t, configFor(t, engine, w, synFlood))
		r.await(PhaseUp)
		frame := udpFrame(t, false, bytes.Repeat([]byte("j"), 9000-28))
		w.i0.send(frame)
		if !w.i1.arrives(frame, 2*time.Second) {
			t.Error("a frame of 9014 bytes is lost")
		}
	})
}

// BenchmarkSuricata_PacketToAlert sends one packet at a time.
func BenchmarkSuricata_PacketToAlert(b *testing.B) {
	w := newWire(b)
	r := run(b, suricataConfigFor(b, w, rule("find-me", 1)))
	r.await(PhaseUp)
	frame := udpFrame(b, false, []byte("find-me"))
	var took []time.Duration
	for b.Loop() {
		b.StopTimer() // the pace of an attack that is noticed, not of a flood
		time.Sleep(2 * time.Millisecond)
		b.StartTimer()
		sent := time.Now()
		w.i0.send(frame)
		if _, ok := r.alert(2 * time.Second); !ok {
			b.Fatal("no alert")
		}
		took = append(took, time.Since(sent))
	}
	if s := r.State(); s.Lines != uint64(len(took)) {
		b.Errorf("%d packets, but %d lines", len(took), s.Lines)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "us-median")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "us-p99")
}

func BenchmarkParseEve(b *testing.B) {
	line, err := os.ReadFile("testdata/eve.json")
	must(b, err)
	for b.Loop() {
		if _, _, err := parseEve(line); err != nil {
			b.Fatal(err)
		}
	}
}
