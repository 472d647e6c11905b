package verdict

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// IP protocol numbers that rules name.
const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoICMPv6  = 58
	protoSCTP    = 132
	protoUDPLite = 136
)

// DefaultRule is the name of the rule that stands for "no rule matched".
const DefaultRule = "default"

// Action is what a rule does with a flow. The zero Action denies.
type Action uint8

// The actions.
const (
	ActionDeny Action = iota
	ActionAllow
	ActionCheck
)

var actionNames = [...]string{"deny", "allow", "check"}

// String returns the action as it is written in the configuration.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// ParseAction is the inverse of String.
func ParseAction(s string) (Action, error) {
	for i, name := range actionNames {
		if name == s {
			return Action(i), nil
		}
	}
	return ActionDeny, fmt.Errorf("unknown action %q: want allow, deny or check", s)
}

// MarshalText implements encoding.TextMarshaler.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Action) UnmarshalText(b []byte) (err error) {
	*a, err = ParseAction(string(b))
	return err
}

// Verdict is what the action asks for. An action that does not exist drops.
func (a Action) Verdict() Verdict {
	switch a {
	case ActionAllow:
		return Forward
	case ActionCheck:
		return Check
	default:
		return Drop
	}
}

// Selector names one end of a flow; all fields that are given must match, and
// the zero Selector matches every end.
type Selector struct {
	Segment string
	Subnet  netip.Prefix
	VM      string
	Router  string
	WAN     bool
}

func (s *Selector) matches(e *Endpoint) bool {
	return (s.Segment == "" || s.Segment == e.Segment) &&
		(s.VM == "" || s.VM == e.VM) &&
		(s.Router == "" || s.Router == e.Router) &&
		(!s.WAN || e.WAN) &&
		(!s.Subnet.IsValid() || s.Subnet.Contains(e.Addr.Unmap().WithZone("")))
}

// String writes the selector for people, "any" for the zero Selector.
func (s *Selector) String() string {
	var parts []string
	if s.Segment != "" {
		parts = append(parts, "segment "+s.Segment)
	}
	if s.Subnet.IsValid() {
		parts = append(parts, "subnet "+s.Subnet.String())
	}
	if s.VM != "" {
		parts = append(parts, "vm "+s.VM)
	}
	if s.Router != "" {
		parts = append(parts, "router "+s.Router)
	}
	if s.WAN {
		parts = append(parts, "wan")
	}
	if parts == nil {
		return "any"
	}
	return strings.Join(parts, " ")
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// String writes "80" or "8000-8010".
func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Rule is one rule of a policy.
type Rule struct {
	Name string
	Line int // in the configuration file, 0 if unknown

	From, To Selector
	Proto    uint8       // IP protocol number, 0 for any
	Ports    []PortRange // of the destination; none for any. Match only protocols that have ports

	Action Action
	Alert  bool
	Clear  ClearAfter
}

// ClearAfter says when a flow that is checked, and about whose ends nothing comes up,
// is forwarded again: when all that is given was reached. The zero ClearAfter: never.
type ClearAfter struct {
	Packets, Bytes uint64
	Time           time.Duration
}

// Reached says whether a flow is to be cleared that has been clean for so much.
func (c ClearAfter) Reached(packets, bytes uint64, clean time.Duration) bool {
	return c != ClearAfter{} && packets >= c.Packets && bytes >= c.Bytes && clean >= c.Time
}

// String writes what the rule matches, for people: "segment apps -> vm web1 tcp/80".
func (r *Rule) String() string {
	s := r.From.String() + " -> " + r.To.String()
	if r.Proto == 0 && len(r.Ports) == 0 {
		return s
	}
	s += " " + ProtoName(r.Proto)
	for i, ports := range r.Ports {
		s += string("/,"[min(i, 1)]) + ports.String()
	}
	return s
}

func (r *Rule) matches(f *Flow) bool {
	return (r.Proto == 0 || r.Proto == f.Proto) && r.matchesPort(f) &&
		r.From.matches(&f.Src) && r.To.matches(&f.Dst)
}

// matchesPort never matches a port where the flow has none: what Endpoint.Port
// holds for ICMP is an identifier.
func (r *Rule) matchesPort(f *Flow) bool {
	if len(r.Ports) == 0 {
		return true
	}
	if !HasPorts(f.Proto) {
		return false
	}
	for _, ports := range r.Ports {
		if ports.First <= f.Dst.Port && f.Dst.Port <= ports.Last {
			return true
		}
	}
	return false
}

// HasPorts says whether the IP protocol has ports that rules can name.
func HasPorts(proto uint8) bool {
	return proto == protoTCP || proto == protoUDP || proto == protoSCTP || proto == protoUDPLite
}

// ProtoName names an IP protocol as the configuration does: "tcp", "any" for 0,
// and the number where there is no name.
func ProtoName(proto uint8) string {
	switch proto {
	case 0:
		return "any"
	case protoICMP:
		return "icmp"
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case protoICMPv6:
		return "icmpv6"
	case protoSCTP:
		return "sctp"
	case protoUDPLite:
		return "udplite"
	default:
		return fmt.Sprint(proto)
	}
}

// ProtoNumber is the inverse of ProtoName for names: 0 for "any".
func ProtoNumber(name string) (number uint8, known bool) {
	for _, proto := range [...]uint8{0, protoICMP, protoTCP, protoUDP, protoICMPv6, protoSCTP, protoUDPLite} {
		if ProtoName(proto) == name {
			return proto, true
		}
	}
	return 0, false
}

// Policy is an ordered list of rules, of which the first match decides. It must
// not be changed once it is in use. A nil Policy denies.
type Policy struct {
	Default Action // of a flow that no rule matches
	Rules   []Rule
}

// Match returns the first rule that matches the flow; if none does, a rule
// named DefaultRule with the default action. It is never nil, and the caller
// must not change it.
func (p *Policy) Match(flow Flow) *Rule {
	if p == nil {
		return &Rule{Name: DefaultRule}
	}
	for i := range p.Rules {
		if p.Rules[i].matches(&flow) {
			return &p.Rules[i]
		}
	}
	return &Rule{Name: DefaultRule, Action: p.Default}
}

// Digest identifies the policy's content and order: policies with the same
// digest treat every flow alike and call their rules by the same names. Lines
// do not count, so that a new comment is no new policy.
func (p *Policy) Digest() uint64 {
	h := sha256.New()
	if p == nil {
		p = &Policy{}
	}
	fmt.Fprintf(h, "%d %d\n", p.Default, len(p.Rules))
	for i := range p.Rules {
		r := &p.Rules[i]
		// %q and %v of fixed-shape values keep the encoding unambiguous.
		fmt.Fprintf(h, "%q %+q %+q %d %v %d %t %d\n", r.Name, r.From.fields(), r.To.fields(), r.Proto, r.Ports, r.Action, r.Alert, r.Clear)
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

func (s *Selector) fields() []string {
	return []string{s.Segment, s.Subnet.String(), s.VM, s.Router, fmt.Sprint(s.WAN)}
}
