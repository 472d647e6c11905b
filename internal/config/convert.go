package config

import (
	"fmt"
	"strconv"
	"time"

	"github.com/vmgate/vmgate/pkg/verdict"
)

// ParseProtocol returns the IP protocol number of a name that verdict.ProtoName
// gives, or of a decimal number; 0 for "any".
func ParseProtocol(s string) (uint8, error) {
	if proto, known := verdict.ProtoNumber(s); known {
		return proto, nil
	}
	proto, err := strconv.ParseUint(s, 10, 8)
	if err != nil || proto == 0 {
		return 0, fmt.Errorf("unknown protocol %q: want tcp, udp, udplite, sctp, icmp, icmpv6, any or a number from 1 to 255", s)
	}
	return uint8(proto), nil
}

// VerdictPolicy returns the policy as the decision takes it.
func (c *Config) VerdictPolicy() *verdict.Policy {
	policy := &verdict.Policy{Default: action(c.Policy.Default)}
	for _, r := range c.Policy.Rules {
		proto, err := ParseProtocol(r.Protocol)
		mustBeValid(err)
		rule := verdict.Rule{
			Name: r.Name, Line: r.Line, From: r.From.selector(), To: r.To.selector(),
			Proto: proto, Action: action(r.Action), Alert: r.Alert,
			Clear: verdict.ClearAfter{Packets: uint64(r.Clear.Packets), Bytes: uint64(r.Clear.Bytes), Time: time.Duration(r.Clear.Seconds) * time.Second},
		}
		for _, ports := range r.Ports {
			rule.Ports = append(rule.Ports, verdict.PortRange(ports))
		}
		policy.Rules = append(policy.Rules, rule)
	}
	return policy
}

// ListEntries returns the entries of both lists as the decision takes them.
// Their Added is zero.
func (c *Config) ListEntries() []verdict.ListEntry {
	var entries []verdict.ListEntry
	for _, e := range c.Lists.Suspect {
		entries = append(entries, e.entry(verdict.Suspect))
	}
	for _, e := range c.Lists.Malicious {
		entries = append(entries, e.entry(verdict.Malicious))
	}
	return entries
}

// VMRuleSet returns the rules about whole VMs as the decision takes them.
func (c *Config) VMRuleSet() []verdict.VMRule {
	var rules []verdict.VMRule
	for _, r := range c.VMRules {
		then := verdict.Check
		if r.Then == "isolate" {
			then = verdict.Drop
		}
		rules = append(rules, verdict.VMRule{When: verdict.VMSign(r.When), Count: r.Count, Within: r.Within, VM: r.VM, Then: then, Line: r.Line})
	}
	return rules
}

// Knobs returns the failure knobs as the decision takes them.
func (c *Config) Knobs() verdict.Knobs {
	noOwner, err := verdict.ParseVerdict(c.Failure.NoOwner)
	mustBeValid(err)
	introspection, err := verdict.ParseVerdict(c.Failure.Introspection)
	mustBeValid(err)
	return verdict.Knobs{NoOwner: noOwner, Introspection: introspection}
}

func (s Selector) selector() verdict.Selector { return verdict.Selector(s) }

func (e *ListEntry) entry(list verdict.ListKind) verdict.ListEntry {
	return verdict.ListEntry{
		List: list, Origin: verdict.OriginConfig,
		Name: e.Name, Path: e.Path, Fingerprint: e.Fingerprint, VM: e.VM, Reason: e.Reason,
	}
}

func action(s string) verdict.Action {
	a, err := verdict.ParseAction(s)
	mustBeValid(err)
	return a
}

// mustBeValid holds validate to its promise: a Config from Parse converts.
func mustBeValid(err error) {
	if err != nil {
		panic("config: not validated: " + err.Error())
	}
}
