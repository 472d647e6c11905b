package config

import (
	"fmt"
	"strings"

	"github.com/vmgate/vmgate/pkg/verdict"
)

func (v *checker) checkPolicy() {
	v.oneOf("policy.default", v.Policy.Default, "deny", "allow", "check")
	if len(v.Policy.Rules) > maxRules {
		v.report(fmt.Sprintf("policy.rules[%d]", maxRules), "more than %d rules", maxRules)
	}
	names := map[string]string{}
	for i := range v.Policy.Rules {
		r, path := &v.Policy.Rules[i], fmt.Sprintf("policy.rules[%d]", i)
		v.checkName(path+".name", r.Name, maxRuleName)
		if r.Name == verdict.DefaultRule {
			v.report(path+".name", "%s.name: %q is what the policy's default is called: choose another", path, r.Name)
		} else if r.Name != "" {
			checkUnique(v, names, path+".name", r.Name, "rule "+r.Name)
		}
		v.checkSelector(path+".from", &r.From)
		v.checkSelector(path+".to", &r.To)
		v.checkPorts(path, r)
		v.checkClearAfter(path+".clear-after", r)
		if r.Action == "" {
			v.report(path+".action", "%s.action is missing: want allow, deny or check", path)
		} else {
			v.oneOf(path+".action", r.Action, "allow", "deny", "check")
		}
	}
}

// checkSelector refuses references to nothing, and selectors that can match
// nothing: a deny rule that never matches is a hole nobody sees.
func (v *checker) checkSelector(path string, s *Selector) {
	v.checkSegmentRef(path+".segment", s.Segment)
	v.checkVMRef(path+".vm", s.VM)
	v.checkRouterRef(path+".router", s.Router)
	v.checkPrefix(path+".subnet", s.Subnet)
	if s.VM != "" && s.Router != "" {
		v.report(path, "%s: no end is a VM and behind a router: name one", path)
	}
	for _, member := range []struct{ id, segment string }{
		{s.VM, v.segmentOfVM(s.VM)}, {s.Router, v.segmentOfRouter(s.Router)},
	} {
		switch {
		case member.segment == "":
		case s.Segment != "" && s.Segment != member.segment:
			v.report(path, "%s: can match nothing, because %s is in segment %s, not %s", path, member.id, member.segment, s.Segment)
		case s.WAN && v.segments[member.segment] != nil && v.segments[member.segment].Kind != "wan":
			v.report(path, "%s: can match nothing, because %s is in segment %s, which is not of kind wan", path, member.id, member.segment)
		}
	}
	if segment := v.segments[s.Segment]; s.WAN && segment != nil && segment.Kind != "wan" {
		v.report(path, "%s: can match nothing, because segment %s is not of kind wan", path, s.Segment)
	}
}

func (v *checker) checkSegmentRef(path, name string) {
	if name != "" && v.segments[name] == nil {
		v.report(path, "%s: no segment is called %q", path, name)
	}
}

func (v *checker) checkVMRef(path, id string) {
	entry := v.ids[id]
	switch {
	case id == "" || strings.HasPrefix(entry, "vms["):
	case entry != "":
		v.report(path, "%s: %s is a router (line %d), not a VM: write router: %s", path, id, v.src.find(entry).line, id)
	default:
		v.report(path, "%s: no VM has the id %q", path, id)
	}
}

func (v *checker) checkRouterRef(path, id string) {
	entry := v.ids[id]
	switch {
	case id == "" || strings.HasPrefix(entry, "routers["):
	case entry != "":
		v.report(path, "%s: %s is a VM (line %d), not a router: write vm: %s", path, id, v.src.find(entry).line, id)
	default:
		v.report(path, "%s: no router has the id %q", path, id)
	}
}

func (v *checker) segmentOfVM(id string) string {
	for i := range v.VMs {
		if id != "" && v.VMs[i].ID == id {
			return v.VMs[i].Segment
		}
	}
	return ""
}

func (v *checker) segmentOfRouter(id string) string {
	for i := range v.Routers {
		if id != "" && v.Routers[i].ID == id {
			return v.Routers[i].Segment
		}
	}
	return ""
}

func (v *checker) checkPorts(path string, r *Rule) {
	proto, err := ParseProtocol(r.Protocol)
	if err != nil {
		v.report(path+".protocol", "%s.protocol: %v", path, err)
		return
	}
	switch {
	case r.Ports == nil:
	case len(r.Ports) == 0:
		v.report(path+".ports", "%s.ports is empty: name ports, or leave the line out for all", path)
	case !verdict.HasPorts(proto):
		v.report(path+".ports", "%s.ports: protocol %s has no ports: write protocol: tcp, udp, udplite or sctp, or leave ports out", path, r.Protocol)
	}
}

func (v *checker) checkLists() {
	for _, list := range []struct {
		path    string
		kind    verdict.ListKind
		entries []ListEntry
	}{
		{"lists.suspect", verdict.Suspect, v.Lists.Suspect},
		{"lists.malicious", verdict.Malicious, v.Lists.Malicious},
	} {
		for i := range list.entries {
			path := fmt.Sprintf("%s[%d]", list.path, i)
			entry := list.entries[i].entry(list.kind)
			if err := entry.Validate(); err != nil {
				v.report(path, "%s: %v", path, err)
			}
			v.checkVMRef(path+".vm", entry.VM)
		}
	}
}
