package snort

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
)

// The rules that people have, in each engine's own words: variables, classes, and
// the parts of protocols are known to both.
func TestEngine_KnowsWhatRulesInTheFieldName(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		rules := `alert tcp $EXTERNAL_NET any -> $HTTP_SERVERS $HTTP_PORTS (msg:"uri"; flow:to_server,established; http.uri; content:"/evil/x"; reference:cve,2021-44228; metadata:policy balanced-ips drop; classtype:web-application-attack; sid:1; rev:4;)
`
		if engine == EngineSnort {
			rules = strings.Replace(rules, "http.uri; content", "http_uri; content", 1)
			rules += `alert http (msg:"service"; flow:to_server,established; http_header:field user-agent; content:"wicked",nocase; classtype:malware-cnc; sid:2;)
`
		} else {
			rules += `alert http any any -> any any (msg:"service"; flow:to_server,established; http.user_agent; content:"wicked"; nocase; classtype:domain-c2; sid:2;)
`
		}
		for i, v := range []string{"HOME_NET", "SQL_SERVERS", "SMTP_SERVERS", "DNS_SERVERS", "TELNET_SERVERS", "SSH_SERVERS", "FTP_SERVERS", "SIP_SERVERS"} {
			if engine == EngineSuricata && i > 4 {
				break // not in its rule sets
			}
			rules += fmt.Sprintf("alert tcp any any -> $%s any (msg:\"v\"; content:\"never\"; sid:%d;)\n", v, 100+i)
		}
		for i, v := range []string{"SSH_PORTS", "ORACLE_PORTS", "FILE_DATA_PORTS", "FTP_PORTS"} {
			rules += fmt.Sprintf("alert tcp any any -> any $%s (msg:\"v\"; content:\"never\"; sid:%d;)\n", v, 200+i)
		}
		w := newWire(t)
		c := configFor(t, engine, w, rules)
		e, err := New(c)
		must(t, err)
		must(t, e.Check(t.Context()))
		r := run(t, c)
		r.await(PhaseUp)
		connection(t, w, 40123, 8080, "GET /a/%65vil/%78 HTTP/1.1\r\nHost: victim\r\nUser-Agent: WICKED\r\n\r\n")
		found := map[uint32]Alert{}
		for len(found) < 2 {
			a, ok := r.alert(5 * time.Second)
			if !ok {
				t.Fatalf("alerts only %+v", found)
			}
			found[a.SID] = a
		}
		if a := found[1]; a.Class != "web-application-attack" || a.Priority != 1 || a.Rev != 4 || a.Action != ActionAlert || a.Src.Port() != 40123 {
			t.Errorf("%+v", a)
		}
		if a := found[2]; a.Priority != 1 || !strings.Contains("malware-cnc domain-c2", a.Class) {
			t.Errorf("%+v", a)
		}
	})
}

// connection plays a whole one with a request and an answer, and wants each segment
// to come out as it went in.
func connection(t testing.TB, w *wire, sport, dport layers.TCPPort, request string) {
	t.Helper()
	across := func(back bool, tcp layers.TCP, payload string) {
		t.Helper()
		from, to := w.i0, w.i1
		tcp.SrcPort, tcp.DstPort = sport, dport
		if back {
			from, to = to, from
			tcp.SrcPort, tcp.DstPort = dport, sport
		}
		frame := tcpFrame(t, back, 0, tcp, []byte(payload))
		from.send(frame)
		if !to.arrives(frame, 2*time.Second) {
			t.Fatalf("lost: %+v %q", tcp, payload)
		}
	}
	answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	req, ans := uint32(len(request)), uint32(len(answer))
	across(false, layers.TCP{SYN: true, Seq: 100}, "")
	across(true, layers.TCP{SYN: true, ACK: true, Seq: 500, Ack: 101}, "")
	across(false, layers.TCP{ACK: true, Seq: 101, Ack: 501}, "")
	across(false, layers.TCP{ACK: true, PSH: true, Seq: 101, Ack: 501}, request)
	across(true, layers.TCP{ACK: true, PSH: true, Seq: 501, Ack: 101 + req}, answer)
	across(false, layers.TCP{ACK: true, FIN: true, Seq: 101 + req, Ack: 501 + ans}, "")
	across(true, layers.TCP{ACK: true, FIN: true, Seq: 501 + ans, Ack: 102 + req}, "")
	across(false, layers.TCP{ACK: true, Seq: 102 + req, Ack: 502 + ans}, "")
}
