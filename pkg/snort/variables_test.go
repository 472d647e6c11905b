package snort

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func prefixes(texts ...string) (nets []RuleAddress) {
	for _, text := range texts {
		not := strings.HasPrefix(text, "!")
		a := RuleAddress{Not: not}
		switch text = strings.TrimPrefix(text, "!"); text {
		case "any":
		case "$HOME_NET":
			a.Home = true
		default:
			a.Prefix = netip.MustParsePrefix(text)
		}
		nets = append(nets, a)
	}
	return nets
}

// Each kind of value is taken by both engines, and means what it says.
func TestEngine_TakesVariables(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		c := configFor(t, engine, w, "")
		c.HomeNets = append(c.HomeNets, netip.MustParsePrefix("2001:db8::/32"))
		c.Variables = []Variable{
			{Name: "OUTSIDE", Addresses: prefixes("!$HOME_NET")},
			{Name: "EXTERNAL_NET", Addresses: prefixes("192.168.0.0/16", "!192.168.1.10/32")},
			{Name: "HTTP_SERVERS", Addresses: prefixes("192.168.1.74/32", "2001:db8:1::/48")},
			{Name: "ALL", Addresses: prefixes("any")},
			{Name: "HOME_BUT_ONE", Addresses: prefixes("$HOME_NET", "!192.168.1.10/32")},
			{Name: "HTTP_PORTS", Ports: []RulePorts{{First: 9990, Last: 9999}, {Not: true, First: 9998, Last: 9998}}},
			{Name: "SHELLCODE_PORTS", Ports: []RulePorts{{Not: true, First: 9999, Last: 9999}}},
			{Name: "ANY_PORTS", Ports: []RulePorts{{Last: 65535}}},
			{Name: "LOW_PORTS", Ports: []RulePorts{{Last: 1023}}},
		}
		rules, want := "", map[uint32]bool{}
		// What is sent goes from 192.168.1.10:40009 to 192.168.1.74:9999.
		for i, r := range []struct {
			header string
			fires  bool
		}{
			{"any any -> $HTTP_SERVERS $HTTP_PORTS", true},
			{"any any -> $SQL_SERVERS any", true},
			{"$HOME_NET any -> any any", true},
			{"$ALL $ANY_PORTS -> $ALL $FILE_DATA_PORTS", true},
			{"any any -> $HOME_BUT_ONE any", true},
			{"any any -> !$OUTSIDE any", true},
			{"any any -> any !$SHELLCODE_PORTS", true},
			{"$OUTSIDE any -> any any", false},
			{"$EXTERNAL_NET any -> any any", false},
			{"$HOME_BUT_ONE any -> any any", false},
			{"any any -> any $SHELLCODE_PORTS", false},
			{"any $LOW_PORTS -> any any", false},
			{"$HTTP_SERVERS any -> any any", false},
		} {
			sid := uint32(i + 1)
			rules += fmt.Sprintf("alert udp %s (msg:\"%s\"; content:\"find-%02d\"; sid:%d;)\n", r.header, strings.ReplaceAll(r.header, "$", ""), sid, sid)
			if r.fires {
				want[sid] = true
			}
		}
		rules += "drop udp any any -> any any (msg:\"the last\"; content:\"the-end\"; sid:99;)\n"
		c.Rules = []string{ruleFile(t, rules)}
		r := run(t, c)
		r.await(PhaseUp)
		for sid := range 13 { // in packets of their own, since Snort tells of three alerts a packet
			w.i0.send(udpFrame(t, false, fmt.Appendf(nil, "find-%02d", sid+1)))
		}
		w.i0.send(udpFrame(t, false, []byte("the-end")))
		for {
			a, ok := r.alert(10 * time.Second)
			if !ok {
				t.Fatal("no last alert")
			}
			if a.SID == 99 {
				break
			}
			if !want[a.SID] {
				t.Errorf("fires, and should not: %s", a.Message)
			}
			delete(want, a.SID)
		}
		for sid := range want {
			t.Errorf("rule %d does not fire", sid)
		}
	})
}

// What nothing was said of is there, too, with home networks and without.
func TestEngine_KnowsTheUsualVariables(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		c := configFor(t, engine, &wire{}, "")
		for _, home := range [][]netip.Prefix{nil, c.HomeNets} {
			c.HomeNets = home
			rules := ""
			for i, v := range c.allVariables() {
				header := "any any -> $" + v.Name + " any"
				if len(v.Ports) > 0 {
					header = "any any -> any $" + v.Name
				}
				rules += fmt.Sprintf("alert tcp %s (msg:\"v\"; content:\"never\"; sid:%d;)\n", header, 100+i)
			}
			c.Rules = []string{ruleFile(t, rules)}
			e, err := New(c)
			must(t, err)
			if err := e.Check(t.Context()); err != nil {
				t.Errorf("home %v: %v", home, err)
			}
		}
	})
}

func TestVariables_Refused(t *testing.T) {
	base := Config{HomeNets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	web := []RulePorts{onePort(80)}
	for name, c := range map[string]struct {
		variables []Variable
		says      string
	}{
		"lower case":      {[]Variable{{Name: "web", Ports: web}}, "capital"},
		"Lua":             {[]Variable{{Name: "A = 1 } os.execute('x')--", Ports: web}}, "capital"},
		"YAML":            {[]Variable{{Name: "A: any\n  B", Ports: web}}, "capital"},
		"line at the end": {[]Variable{{Name: "A\n", Ports: web}}, "capital"},
		"no name":         {[]Variable{{Ports: web}}, "capital"},
		"long":            {[]Variable{{Name: strings.Repeat("A", 64), Ports: web}}, "63"},
		"twice":           {[]Variable{{Name: "A", Ports: web}, {Name: "A", Ports: web}}, "twice"},
		"nothing":         {[]Variable{{Name: "A"}}, "give addresses or ports"},
		"both":            {[]Variable{{Name: "A", Ports: web, Addresses: prefixes("any")}}, "one of the two"},
		"not any":         {[]Variable{{Name: "A", Addresses: prefixes("!any")}}, "any stands alone"},
		"any and one":     {[]Variable{{Name: "A", Addresses: prefixes("any", "10.0.0.0/8")}}, "any stands alone"},
		"no ports":        {[]Variable{{Name: "A", Ports: []RulePorts{{Not: true, Last: 65535}}}}, "any stands alone"},
		"reverse":         {[]Variable{{Name: "A", Ports: []RulePorts{{First: 2, Last: 1}}}}, "none"},
		"mapped":          {[]Variable{{Name: "A", Addresses: prefixes("::ffff:10.0.0.0/104")}}, "as it is written"},
		"itself":          {[]Variable{{Name: "HOME_NET", Addresses: prefixes("$HOME_NET")}}, "itself"},
		"never":           {[]Variable{{Name: "HOME_NET", Addresses: prefixes("any")}, {Name: "A", Addresses: prefixes("!$HOME_NET")}}, "match nothing"},
		"other kind":      {[]Variable{{Name: "HTTP_PORTS", Addresses: prefixes("any")}}, "other kind"},
		"many":            {make([]Variable, maxVariables+1), "at most"},
		"long list":       {[]Variable{{Name: "A", Ports: make([]RulePorts, maxElements+1)}}, "at most"},
	} {
		base.Variables = c.variables
		if err := base.checkVariables(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want one about %q", name, err, c.says)
		}
	}
}

// FuzzVariables: whatever is taken means nothing in YAML and Lua.
func FuzzVariables(f *testing.F) {
	f.Add("HTTP_SERVERS", "10.0.0.0/8", true, false, uint16(0), uint16(0))
	f.Add("A'", "fe80::%'/64", false, true, uint16(1), uint16(2))
	f.Fuzz(func(t *testing.T, name, address string, not, home bool, first, last uint16) {
		v := Variable{Name: name, Ports: []RulePorts{{not, first, last}}}
		if address != "" {
			p, err := netip.ParsePrefix(address)
			if err != nil {
				return
			}
			v = Variable{Name: name, Addresses: []RuleAddress{{not, home, p}}}
		}
		c := Config{Variables: []Variable{v}}
		if c.checkVariables() != nil {
			return
		}
		nets, ports := c.written()
		for _, w := range append(nets, ports...) {
			if strings.ContainsFunc(w.Name, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' }) ||
				strings.Trim(w.Value, "0123456789abcdefny.:/,![]") != "" {
				t.Errorf("%q %q", w.Name, w.Value)
			}
		}
	})
}
