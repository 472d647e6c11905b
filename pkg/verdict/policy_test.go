package verdict_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vmgate/vmgate/pkg/verdict"
)

const (
	icmp = 1
	tcp  = 6
	udp  = 17
)

// flow is tcp from app1 in apps (10.0.1.11) to web1 in web (10.0.2.80), port 80.
func flow(change ...func(*verdict.Flow)) verdict.Flow {
	f := verdict.Flow{
		Src:   verdict.Endpoint{VM: "app1", Segment: "apps", Addr: netip.MustParseAddr("10.0.1.11"), Port: 40000},
		Dst:   verdict.Endpoint{VM: "web1", Segment: "web", Addr: netip.MustParseAddr("10.0.2.80"), Port: 80},
		Proto: tcp,
	}
	for _, c := range change {
		c(&f)
	}
	return f
}

func TestMatch_EveryGivenFieldMustMatch(t *testing.T) {
	prefix := netip.MustParsePrefix
	outside := func(f *verdict.Flow) {
		f.Dst = verdict.Endpoint{Router: "gw", Segment: "out", WAN: true, Addr: netip.MustParseAddr("192.0.2.1"), Port: 443}
	}
	for _, test := range []struct {
		rule  verdict.Rule
		flow  verdict.Flow
		match bool
	}{
		{verdict.Rule{}, flow(), true},
		{verdict.Rule{From: verdict.Selector{Segment: "apps"}}, flow(), true},
		{verdict.Rule{From: verdict.Selector{Segment: "web"}}, flow(), false},
		{verdict.Rule{To: verdict.Selector{Segment: "apps"}}, flow(), false},
		{verdict.Rule{To: verdict.Selector{VM: "web1"}}, flow(), true},
		{verdict.Rule{To: verdict.Selector{VM: "web1", Segment: "apps"}}, flow(), false},
		{verdict.Rule{From: verdict.Selector{VM: "web1"}}, flow(), false},
		{verdict.Rule{To: verdict.Selector{Router: "gw"}}, flow(), false},
		{verdict.Rule{To: verdict.Selector{Router: "gw"}}, flow(outside), true},
		{verdict.Rule{To: verdict.Selector{WAN: true}}, flow(), false},
		{verdict.Rule{To: verdict.Selector{WAN: true}}, flow(outside), true},
		{verdict.Rule{From: verdict.Selector{WAN: true}}, flow(outside), false},
		{verdict.Rule{From: verdict.Selector{Subnet: prefix("10.0.1.0/24")}}, flow(), true},
		{verdict.Rule{From: verdict.Selector{Subnet: prefix("10.0.2.0/24")}}, flow(), false},
		{verdict.Rule{From: verdict.Selector{Subnet: prefix("::/0")}}, flow(), false},
		{verdict.Rule{From: verdict.Selector{Subnet: prefix("10.0.1.0/24")}}, flow(func(f *verdict.Flow) {
			f.Src.Addr = netip.MustParseAddr("::ffff:10.0.1.11")
		}), true},
		{verdict.Rule{From: verdict.Selector{Subnet: prefix("fe80::/10")}}, flow(func(f *verdict.Flow) {
			f.Src.Addr = netip.MustParseAddr("fe80::1%eth0")
		}), true},
		{verdict.Rule{Proto: tcp}, flow(), true},
		{verdict.Rule{Proto: udp}, flow(), false},
		{verdict.Rule{Proto: tcp, Ports: []verdict.PortRange{{22, 22}, {80, 80}}}, flow(), true},
		{verdict.Rule{Proto: tcp, Ports: []verdict.PortRange{{8000, 8010}}}, flow(), false},
		{verdict.Rule{Ports: []verdict.PortRange{{79, 81}}}, flow(), true},
		{verdict.Rule{Ports: []verdict.PortRange{{40000, 40000}}}, flow(), false}, // the source's
		{verdict.Rule{Ports: []verdict.PortRange{{80, 80}}}, flow(func(f *verdict.Flow) { f.Proto = icmp }), false},
	} {
		test.rule.Name, test.rule.Action = "rule", verdict.ActionAllow
		policy := &verdict.Policy{Rules: []verdict.Rule{test.rule}}
		if got := policy.Match(test.flow).Name == "rule"; got != test.match {
			t.Errorf("%s: matches %t, want %t", &test.rule, got, test.match)
		}
	}
}

func TestMatch_FirstRuleWins(t *testing.T) {
	policy := &verdict.Policy{Rules: []verdict.Rule{
		{Name: "other", Proto: udp, Action: verdict.ActionDeny},
		{Name: "first", Line: 7, Proto: tcp, Action: verdict.ActionCheck},
		{Name: "second", Proto: tcp, Action: verdict.ActionAllow},
	}}
	if r := policy.Match(flow()); r.Name != "first" || r.Line != 7 {
		t.Errorf("matched %s", r.Name)
	}
}

func TestMatch_NoRuleIsTheDefault(t *testing.T) {
	for _, test := range []struct {
		policy *verdict.Policy
		want   verdict.Verdict
	}{
		{nil, verdict.Drop},
		{&verdict.Policy{}, verdict.Drop},
		{&verdict.Policy{Default: verdict.ActionCheck}, verdict.Check},
		{&verdict.Policy{Default: verdict.ActionAllow}, verdict.Forward},
		{&verdict.Policy{Default: 99}, verdict.Drop},
	} {
		r := test.policy.Match(flow())
		if r.Name != "default" || r.Action.Verdict() != test.want {
			t.Errorf("%+v: %s %s, want default %s", test.policy, r.Name, r.Action, test.want)
		}
	}
}

func TestRule_String(t *testing.T) {
	for want, rule := range map[string]verdict.Rule{
		"any -> any": {},
		"segment apps -> vm web1 tcp/80": {
			From: verdict.Selector{Segment: "apps"}, To: verdict.Selector{VM: "web1"}, Proto: tcp, Ports: []verdict.PortRange{{80, 80}},
		},
		"segment apps subnet 10.0.0.0/8 -> router gw wan sctp/1-9,20": {
			From: verdict.Selector{Segment: "apps", Subnet: netip.MustParsePrefix("10.0.0.0/8")},
			To:   verdict.Selector{Router: "gw", WAN: true}, Proto: 132, Ports: []verdict.PortRange{{1, 9}, {20, 20}},
		},
		"any -> any icmpv6": {Proto: 58},
		"any -> any 47":     {Proto: 47},
	} {
		if got := rule.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDigest_ChangesWithBehaviourOnly(t *testing.T) {
	base := func() *verdict.Policy {
		return &verdict.Policy{Default: verdict.ActionDeny, Rules: []verdict.Rule{
			{Name: "a", Line: 1, From: verdict.Selector{Segment: "apps"}, Proto: tcp, Ports: []verdict.PortRange{{80, 80}}, Action: verdict.ActionAllow},
			{Name: "b", Line: 2, To: verdict.Selector{VM: "web1"}, Action: verdict.ActionCheck},
		}}
	}
	same := base()
	same.Rules[0].Line = 9
	if base().Digest() != same.Digest() {
		t.Error("a moved line changes the digest")
	}
	seen := map[uint64]string{base().Digest(): "base"}
	for name, change := range map[string]func(*verdict.Policy){
		"default":  func(p *verdict.Policy) { p.Default = verdict.ActionCheck },
		"order":    func(p *verdict.Policy) { p.Rules[0], p.Rules[1] = p.Rules[1], p.Rules[0] },
		"removed":  func(p *verdict.Policy) { p.Rules = p.Rules[:1] },
		"name":     func(p *verdict.Policy) { p.Rules[0].Name = "c" },
		"segment":  func(p *verdict.Policy) { p.Rules[0].From = verdict.Selector{Segment: "app"} },
		"vm":       func(p *verdict.Policy) { p.Rules[0].From = verdict.Selector{VM: "apps"} },
		"side":     func(p *verdict.Policy) { p.Rules[0].From, p.Rules[0].To = p.Rules[0].To, p.Rules[0].From },
		"subnet":   func(p *verdict.Policy) { p.Rules[0].From.Subnet = netip.MustParsePrefix("10.0.0.0/8") },
		"router":   func(p *verdict.Policy) { p.Rules[0].From.Router = "gw" },
		"wan":      func(p *verdict.Policy) { p.Rules[0].From.WAN = true },
		"protocol": func(p *verdict.Policy) { p.Rules[0].Proto = udp },
		"ports":    func(p *verdict.Policy) { p.Rules[0].Ports[0].Last = 81 },
		"action":   func(p *verdict.Policy) { p.Rules[0].Action = verdict.ActionDeny },
		"alert":    func(p *verdict.Policy) { p.Rules[0].Alert = true },
		"clear":    func(p *verdict.Policy) { p.Rules[0].Clear.Packets = 1 },
	} {
		p := base()
		change(p)
		if other, twice := seen[p.Digest()]; twice {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[p.Digest()] = name
	}
}

func ExamplePolicy_Match() {
	policy := &verdict.Policy{Rules: []verdict.Rule{{
		Name: "web", From: verdict.Selector{Segment: "apps"}, To: verdict.Selector{VM: "web1"},
		Proto: tcp, Ports: []verdict.PortRange{{First: 80, Last: 80}}, Action: verdict.ActionAllow,
	}}}
	rule := policy.Match(flow())
	fmt.Printf("%s: %s: %s\n", rule.Name, rule, rule.Action)
	// Output: web: segment apps -> vm web1 tcp/80: allow
}
