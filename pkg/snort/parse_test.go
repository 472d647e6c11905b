package snort

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func mac(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// The recorded lines of both engines are about the same flood.
func TestParse_RecordedLines(t *testing.T) {
	want := Alert{
		Action: ActionDrop, GID: 1, SID: 1000001, Rev: 1, Message: "TCP sync flood", Proto: 6,
		Src: netip.MustParseAddrPort("192.168.1.10:2661"), Dst: netip.MustParseAddrPort("192.168.1.74:80"),
		SrcMAC: mac("b6:c4:6f:97:87:16"), DstMAC: mac("ee:29:f1:41:ba:25"),
	}
	bySnort, bySuricata := want, want
	bySnort.Engine, bySnort.Time = EngineSnort, time.Unix(1795300459, 617966000)
	bySuricata.Engine, bySuricata.Time = EngineSuricata, time.Date(2026, 11, 21, 22, 9, 52, 61157000, time.UTC)
	bySuricata.Src, bySuricata.Priority = netip.MustParseAddrPort("192.168.1.10:2671"), 3
	for _, c := range []struct {
		file string
		drv  driver
		want Alert
	}{{"testdata/alert_json.txt", snort3{}, bySnort}, {"testdata/eve.json", suricata{}, bySuricata}} {
		text, err := os.ReadFile(c.file)
		must(t, err)
		line := bytes.TrimSpace(text)
		got, isAlert, err := c.drv.parse(line)
		if err != nil || !isAlert {
			t.Fatalf("%s: %v, %v", c.file, isAlert, err)
		}
		if got.Raw != string(line) {
			t.Errorf("%s: raw line %q", c.file, got.Raw)
		}
		same(t, c.file, got, c.want)
	}
}

func same(t *testing.T, name string, got, want Alert) {
	t.Helper()
	if !got.Time.Equal(want.Time) {
		t.Errorf("%s: time %v, want %v", name, got.Time, want.Time)
	}
	got.Raw, got.Time, want.Time = "", time.Time{}, time.Time{}
	if got, want := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); got != want {
		t.Errorf("%s:\n got %s\nwant %s", name, got, want)
	}
}

const snortLine = `{ "seconds" : 1795300459, "timestamp" : "11/21-22:34:19.000001", "action" : "ACTION", "gid" : 1, "sid" : 7, "rev" : 2, "msg" : "MSG", "class" : "CLASS", "priority" : 3, "proto" : "PROTO", "src_addr" : "SRC", "dst_addr" : "2001:db8::2", "eth_src" : "b6:c4:6f:97:87:16", "eth_dst" : "EE:29:F1:41:BA:25", "vlan" : 5, "iface" : "i0p:i1p", "dir" : "C2S", "pkt_num" : 27 }`

func snortWith(action, msg, proto string) string {
	return strings.NewReplacer("ACTION", action, "MSG", msg, "CLASS", "misc", "PROTO", proto, "SRC", "2001:db8::1").Replace(snortLine)
}

func TestParseAlertJSON_MessageIsNotEscaped(t *testing.T) {
	for _, c := range []struct{ msg, want string }{
		{`plain`, `plain`},
		{`say "hello" there`, `say "hello" there`},
		{"tab\there", "tab here"},
		{`back\slash \" and \u0041`, `back\slash \" and \u0041`},
		{`", "sid" : 9, "x" : "`, `", "sid" : 9, "x" : "`},
		{`", "class" : "evil`, `", "class" : "evil`},
		{"escape \x1b[31m", "escape  [31m"},
		{"bad \xff utf8", "bad \uFFFD utf8"},
		{strings.Repeat("é", 1000), strings.Repeat("é", 512)},
		{``, ``},
	} {
		a, ok, err := parseAlertJSON([]byte(snortWith("drop", c.msg, "TCP")))
		if err != nil || !ok {
			t.Errorf("%q: %v", c.msg, err)
			continue
		}
		if a.Message != c.want || a.SID != 7 || a.Class != "misc" {
			t.Errorf("%q: message %q, sid %d, class %q", c.msg, a.Message, a.SID, a.Class)
		}
	}
}

func TestParseAlertJSON_ICMPv6HasNoPorts(t *testing.T) {
	a, ok, err := parseAlertJSON([]byte(snortWith("would_drop", "m", "ICMP")))
	if err != nil || !ok {
		t.Fatal(err)
	}
	same(t, "icmpv6", a, Alert{
		Engine: EngineSnort, Action: ActionAlert, GID: 1, SID: 7, Rev: 2, Message: "m", Class: "misc", Priority: 3, Proto: 58,
		Src: netip.MustParseAddrPort("[2001:db8::1]:0"), Dst: netip.MustParseAddrPort("[2001:db8::2]:0"),
		SrcMAC: mac("b6:c4:6f:97:87:16"), DstMAC: mac("ee:29:f1:41:ba:25"), VLAN: 5, Time: time.Unix(1795300459, 1000),
	})
}

func TestParseAction(t *testing.T) {
	for word, want := range map[string]Action{
		"drop": ActionDrop, "block": ActionDrop, "blocked": ActionDrop, "force_drop": ActionDrop, "Drop": ActionDrop,
		"reject": ActionReject, "reset": ActionReject,
		"allow": ActionAlert, "allowed": ActionAlert, "alert": ActionAlert, "rewrite": ActionAlert,
		"would_drop": ActionAlert, "cant_drop": ActionAlert, "would_block": ActionAlert, "cant_reset": ActionAlert,
	} {
		if got, err := parseAction(word); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", word, got, err, want)
		}
	}
	for _, word := range []string{"", "dropped?", "would"} {
		if got, err := parseAction(word); err == nil {
			t.Errorf("%q was taken as %s", word, got)
		}
	}
}

func TestParseEve_Forms(t *testing.T) {
	line := func(more string) []byte {
		return []byte(`{"timestamp":"2026-11-21T22:09:52.061157+0100","event_type":"alert",` + more +
			`"alert":{"action":"allowed","gid":1,"signature_id":7,"rev":2,"signature":"m","category":"c","severity":1}}`)
	}
	base := Alert{
		Engine: EngineSuricata, Action: ActionAlert, GID: 1, SID: 7, Rev: 2, Message: "m", Class: "c", Priority: 1,
		Time: time.Date(2026, 11, 21, 21, 9, 52, 61157000, time.UTC),
	}
	ends := `"src_ip":"2001:db8::1","dest_ip":"2001:db8::2","proto":"IPv6-ICMP","icmp_type":128,"icmp_code":0,`
	withEnds := base
	withEnds.Proto, withEnds.Src, withEnds.Dst = 58, netip.MustParseAddrPort("[2001:db8::1]:0"), netip.MustParseAddrPort("[2001:db8::2]:0")
	tagged := withEnds
	tagged.VLAN = 5
	// What is inside a tunnel was written by its sender, with any address in it.
	tunnelled := withEnds
	tunnelled.Src, tunnelled.Dst, tunnelled.Proto = netip.MustParseAddrPort("10.0.0.1:0"), netip.MustParseAddrPort("10.0.0.2:0"), 47
	for name, c := range map[string]struct {
		more string
		want Alert
	}{
		"not IP": {``, base},
		"icmpv6": {ends, withEnds},
		"vlan":   {ends + `"vlan":[5,6],`, tagged},
		"tunnel": {ends + `"tunnel":{"src_ip":"10.0.0.1","src_port":0,"dest_ip":"10.0.0.2","dest_port":0,"proto":"GRE","depth":0},`, tunnelled},
	} {
		got, ok, err := parseEve(line(c.more))
		if err != nil || !ok {
			t.Errorf("%s: %v, %v", name, ok, err)
			continue
		}
		same(t, name, got, c.want)
	}
	if _, ok, err := parseEve([]byte(`{"event_type":"flow"}`)); ok || err != nil {
		t.Errorf("another event: %v, %v", ok, err)
	}
	for _, bad := range []string{`"src_ip":"fe80::1%eth0",`, `"src_ip":"x",`, `"src_port":70000,`, `"ether":{"src_mac":"1:2"},`, `"vlan":[-1],`, `"vlan":[4096],`} {
		if a, ok, err := parseEve(line(bad)); err == nil || ok {
			t.Errorf("%s: %+v", bad, a)
		}
	}
}

func FuzzParseEve(f *testing.F)       { fuzz(f, suricata{}, "testdata/eve.json") }
func FuzzParseAlertJSON(f *testing.F) { fuzz(f, snort3{}, "testdata/alert_json.txt") }

func fuzz(f *testing.F, drv driver, seed string) {
	text, err := os.ReadFile(seed)
	must(f, err)
	f.Add(bytes.TrimSpace(text))
	f.Add([]byte(snortWith("reset", `a "b" c`, "ICMP")))
	f.Add([]byte(`{"event_type":"alert","alert":{},"tunnel":{},"vlan":[1]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		a, isAlert, err := drv.parse(line)
		if err != nil && isAlert {
			t.Fatal("an alert and an error")
		}
		if isAlert {
			bounded(t, a)
		}
	})
}

// bounded says what the rest of the daemon may rely on.
func bounded(t *testing.T, a Alert) {
	for text, limit := range map[string]int{a.Message: maxMessage, a.Class: maxClass} {
		if len(text) > limit || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("text %q", text)
		}
	}
	if a.Action != ActionAlert && a.Action != ActionDrop && a.Action != ActionReject {
		t.Errorf("action %q", a.Action)
	}
	for _, m := range []net.HardwareAddr{a.SrcMAC, a.DstMAC} {
		if m != nil && len(m) != 6 {
			t.Errorf("MAC %v", m)
		}
	}
	for _, end := range []netip.AddrPort{a.Src, a.Dst} {
		if end.Addr().Zone() != "" {
			t.Errorf("address %v", end)
		}
	}
	if len(a.Raw) > maxRaw {
		t.Errorf("raw line of %d bytes", len(a.Raw))
	}
	if a.VLAN > 4095 {
		t.Errorf("VLAN %d", a.VLAN)
	}
	if _, err := json.Marshal(a); err != nil {
		t.Errorf("cannot be written as JSON: %v", err)
	}
}
