package snort

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Variable is one that rules name with a $: of addresses or of ports, one of the two.
// It is written into the engines' own configuration languages, so its values are
// typed and its name is checked by New.
type Variable struct {
	Name      string        // such as HTTP_SERVERS, without the $
	Addresses []RuleAddress // what a packet's address may be: one of these, and none of the negated ones
	Ports     []RulePorts   // likewise
}

// RuleAddress is a prefix, or all of $HOME_NET, or, if neither is given, any address.
type RuleAddress struct {
	Not    bool
	Home   bool
	Prefix netip.Prefix
}

// RulePorts are ports from First to Last, both included.
type RulePorts struct {
	Not         bool
	First, Last uint16
}

const (
	maxVariables = 128
	maxElements  = 1024 // of one variable
)

var variableName = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,62}$`)

// Of the rule sets in the field: those of Emerging Threats for Suricata, and the
// community's for Snort 3. Servers of all kinds may be anywhere at home.
var (
	serversAtHome = []string{
		"HTTP_SERVERS", "SMTP_SERVERS", "SQL_SERVERS", "DNS_SERVERS", "TELNET_SERVERS", "SSH_SERVERS", "FTP_SERVERS", "SIP_SERVERS",
		"DC_SERVERS", "DNP3_SERVER", "DNP3_CLIENT", "MODBUS_SERVER", "MODBUS_CLIENT", "ENIP_SERVER", "ENIP_CLIENT",
	}
	portsOf = []Variable{
		{Name: "HTTP_PORTS", Ports: []RulePorts{onePort(80), onePort(8000), onePort(8008), onePort(8080), onePort(8888)}},
		{Name: "SHELLCODE_PORTS", Ports: []RulePorts{{Not: true, First: 80, Last: 80}}},
		{Name: "ORACLE_PORTS", Ports: []RulePorts{{First: 1024, Last: 65535}}},
		{Name: "SSH_PORTS", Ports: []RulePorts{onePort(22)}},
		{Name: "FTP_PORTS", Ports: []RulePorts{onePort(21), onePort(2100), onePort(3535)}},
		{Name: "SIP_PORTS", Ports: []RulePorts{onePort(5060), onePort(5061), onePort(5600)}},
		{Name: "MAIL_PORTS", Ports: []RulePorts{onePort(110), onePort(143)}},
		{Name: "DNP3_PORTS", Ports: []RulePorts{onePort(20000)}},
		{Name: "MODBUS_PORTS", Ports: []RulePorts{onePort(502)}},
		{Name: "GENEVE_PORTS", Ports: []RulePorts{onePort(6081)}},
		{Name: "VXLAN_PORTS", Ports: []RulePorts{onePort(4789)}},
		{Name: "TEREDO_PORTS", Ports: []RulePorts{onePort(3544)}},
	}
)

func onePort(n uint16) RulePorts { return RulePorts{First: n, Last: n} }

// allVariables are those that rules may name: the configured ones before the usual.
func (c Config) allVariables() []Variable {
	home := make([]RuleAddress, len(c.HomeNets))
	for i, p := range c.HomeNets {
		home[i] = RuleAddress{Prefix: p.Masked()}
	}
	if len(home) == 0 {
		home = []RuleAddress{{}}
	}
	all := append([]Variable{}, c.Variables...)
	given := map[string]*Variable{}
	for i := range c.Variables {
		given[c.Variables[i].Name] = &c.Variables[i]
	}
	add := func(v Variable) {
		if given[v.Name] == nil {
			all = append(all, v)
		}
	}
	add(Variable{Name: "HOME_NET", Addresses: home})
	// Any, not the rest of the world: an attack may come from another VM.
	add(Variable{Name: "EXTERNAL_NET", Addresses: []RuleAddress{{}}})
	add(Variable{Name: "AIM_SERVERS", Addresses: []RuleAddress{{}}})
	for _, name := range serversAtHome {
		add(Variable{Name: name, Addresses: []RuleAddress{{Home: true}}})
	}
	files := append([]RulePorts{}, portsOf[0].Ports...)
	if v := given["HTTP_PORTS"]; v != nil {
		files = append([]RulePorts{}, v.Ports...)
	}
	for _, v := range portsOf {
		add(v)
	}
	add(Variable{Name: "FILE_DATA_PORTS", Ports: append(files, onePort(110), onePort(143))})
	return all
}

// checkVariables refuses what an engine would refuse less clearly, or take for
// something else.
func (c Config) checkVariables() error {
	if len(c.Variables) > maxVariables {
		return fmt.Errorf("%d rule variables: at most %d", len(c.Variables), maxVariables)
	}
	seen := map[string]bool{}
	for _, v := range c.Variables {
		if !variableName.MatchString(v.Name) {
			return fmt.Errorf("rule variable %q: a name is a capital letter, then capitals, digits and '_', 63 in all at most", v.Name)
		}
		if seen[v.Name] {
			return fmt.Errorf("rule variable %s is given twice", v.Name)
		}
		seen[v.Name] = true
		if err := errors.Join(v.check(), c.checkKind(v)); err != nil {
			return fmt.Errorf("rule variable %s: %w", v.Name, err)
		}
	}
	home := c.home()
	for _, v := range c.Variables {
		for _, a := range v.Addresses {
			if a.Home && a.Not && home == "any" {
				return fmt.Errorf("rule variable %s: it would match nothing, since HOME_NET is any address", v.Name)
			}
		}
	}
	return nil
}

func (v Variable) check() error {
	switch n := len(v.Addresses) + len(v.Ports); {
	case len(v.Addresses) > 0 && len(v.Ports) > 0:
		return errors.New("it has addresses and ports: give one of the two")
	case n == 0:
		return errors.New("give addresses or ports")
	case n > maxElements:
		return fmt.Errorf("%d elements: at most %d", n, maxElements)
	}
	for _, a := range v.Addresses {
		switch isAny := !a.Home && !a.Prefix.IsValid(); {
		case a.Home && a.Prefix.IsValid():
			return errors.New("an address is a prefix or $HOME_NET, not both")
		case a.Home && v.Name == "HOME_NET":
			return errors.New("it is made of itself")
		case isAny && (a.Not || len(v.Addresses) > 1):
			return errors.New("any stands alone, and is not negated")
		case a.Prefix.Addr().Is4In6(), a.Prefix.Addr().Zone() != "":
			return fmt.Errorf("%s is in no packet as it is written", a.Prefix)
		}
	}
	for _, p := range v.Ports {
		switch isAny := p.First == 0 && p.Last == 65535; {
		case p.First > p.Last:
			return fmt.Errorf("the ports from %d to %d are none", p.First, p.Last)
		case isAny && (p.Not || len(v.Ports) > 1):
			return errors.New("any stands alone, and is not negated")
		}
	}
	return nil
}

// checkKind refuses ports for a variable that rules use as addresses, and the reverse.
func (c Config) checkKind(v Variable) error {
	c.Variables = nil
	for _, usual := range c.allVariables() {
		if usual.Name == v.Name && (len(usual.Ports) > 0) != (len(v.Ports) > 0) {
			return errors.New("rules use it for the other kind: addresses where these are ports, or the reverse")
		}
	}
	return nil
}

// written is a variable in the notation that both engines read.
type written struct{ Name, Value string }

// written are the variables of addresses and of ports.
func (c Config) written() (nets, ports []written) {
	home := c.home()
	for _, v := range c.allVariables() {
		if len(v.Ports) > 0 {
			ports = append(ports, written{v.Name, list(v.Ports, RulePorts.text)})
			continue
		}
		nets = append(nets, written{v.Name, list(v.Addresses, func(a RuleAddress) string { return a.text(home) })})
	}
	return nets, ports
}

// home is $HOME_NET.
func (c Config) home() string {
	for _, v := range c.allVariables() {
		if v.Name == "HOME_NET" {
			return list(v.Addresses, func(a RuleAddress) string { return a.text("") })
		}
	}
	return "any"
}

func list[E any](elements []E, text func(E) string) string {
	texts := make([]string, len(elements))
	for i, e := range elements {
		texts[i] = text(e)
	}
	if len(texts) == 1 && !strings.HasPrefix(texts[0], "!") {
		if texts[0] == "any" || strings.HasPrefix(texts[0], "[") {
			return texts[0]
		}
	}
	return "[" + strings.Join(texts, ",") + "]"
}

func (a RuleAddress) text(home string) string {
	text := "any"
	switch {
	case a.Home:
		text = home
	case a.Prefix.IsValid():
		text = a.Prefix.Masked().String()
	}
	if a.Not {
		return "!" + text
	}
	return text
}

func (p RulePorts) text() string {
	text := strconv.Itoa(int(p.First))
	switch {
	case p.First == 0 && p.Last == 65535:
		text = "any"
	case p.Last > p.First:
		text += ":" + strconv.Itoa(int(p.Last))
	}
	if p.Not {
		return "!" + text
	}
	return text
}
