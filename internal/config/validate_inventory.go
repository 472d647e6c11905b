package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// addrIn is an address in the group of segments that share layer 2.
type addrIn struct {
	group string
	addr  netip.Addr
}

func (v *checker) checkSegments() {
	if len(v.Segments) > maxSegments {
		v.report(fmt.Sprintf("segments[%d]", maxSegments), "more than %d segments", maxSegments)
	}
	names, vnics := map[string]string{}, map[string]string{}
	for i := range v.Segments {
		s, path := &v.Segments[i], fmt.Sprintf("segments[%d]", i)
		v.checkName(path+".name", s.Name, maxName)
		if s.Name != "" {
			checkUnique(v, names, path+".name", s.Name, "segment "+s.Name)
		}
		v.checkDevice(path+".vnic", s.VNIC)
		if s.VNIC != "" {
			checkUnique(v, vnics, path+".vnic", s.VNIC, "vNIC "+s.VNIC)
		}
		switch s.Mode {
		case "bridged":
		case "routed":
			v.report(path+".mode", "%s.mode: routed is not supported yet: use bridged, and a router of your own in the segment", path)
		default:
			v.report(path+".mode", "%s.mode: unknown value %q: want bridged", path, s.Mode)
		}
		v.oneOf(path+".kind", s.Kind, "internal", "wan")
		if s.Reflect && s.Proxy {
			v.report(path+".proxy", "%s.proxy: it does what reflect does, for another kind of vSwitch: choose one of the two", path)
		}
		v.oneOf(path+".multicast", s.Multicast, "drop", "flood")
		v.oneOf(path+".datapath", s.Datapath, "auto", "xdp", "tcx", "xdp-generic")
		v.checkName(path+".group", s.Group, maxName)
		v.checkSubnets(path, s)
		v.segments[s.Name] = s
	}
}

func (v *checker) checkSubnets(segment string, s *Segment) {
	for i, subnet := range s.Subnets {
		path := fmt.Sprintf("%s.subnets[%d]", segment, i)
		v.checkPrefix(path, subnet)
		for j, other := range s.Subnets[:i] {
			if subnet.Overlaps(other) {
				first := fmt.Sprintf("%s.subnets[%d]", segment, j)
				v.report(path, "%s: %s overlaps %s of the same segment (line %d): keep one, or make them disjoint",
					path, subnet, other, v.src.find(first).line)
			}
		}
	}
}

// checkDevice checks the name of a network device as the kernel would.
func (v *checker) checkDevice(path, name string) {
	switch {
	case name == "":
		v.report(path, "%s is missing: name the gateway's network device in this segment", path)
	case len(name) > maxDevice:
		v.report(path, "%s: %q has %d bytes, and a device's name can have %d", path, name, len(name), maxDevice)
	case name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r") || !utf8.ValidString(name):
		v.report(path, "%s: %q is no name of a network device", path, name)
	}
}

func (v *checker) checkInventory() {
	if len(v.VMs)+len(v.Routers) > maxVMs {
		v.report("vms", "%d VMs and routers: at most %d", len(v.VMs)+len(v.Routers), maxVMs)
	}
	places := memoryPlaces{}
	for i := range v.VMs {
		vm, path := &v.VMs[i], fmt.Sprintf("vms[%d]", i)
		segment := v.checkMember(path, vm.ID, vm.Segment, vm.MACs, vm.VLANs)
		v.checkAddresses(path+".addresses", &vm.Addresses, segment)
		v.checkMemory(path+".memory", vm.Memory, places)
	}
	for i := range v.Routers {
		r, path := &v.Routers[i], fmt.Sprintf("routers[%d]", i)
		segment := v.checkMember(path, r.ID, r.Segment, r.MACs, r.VLANs)
		if segment != nil && segment.Proxy {
			v.report(path+".segment", "%s.segment: %s has proxy: true, and its VMs could not reach a router behind the same vSwitch: give the router a segment of its own", path, r.Segment)
		}
		for j, addr := range r.Addresses {
			v.checkAddress(fmt.Sprintf("%s.addresses[%d]", path, j), addr, segment)
		}
	}
}

// checkMember checks what VMs and routers have in common, and returns the
// segment, nil if there is none of that name.
func (v *checker) checkMember(path, id, segment string, macs []MAC, vlans []VLAN) *Segment {
	v.checkName(path+".id", id, maxName)
	if id != "" {
		checkUnique(v, v.ids, path+".id", id, "id "+id)
	}
	s := v.segments[segment]
	if segment == "" {
		v.report(path+".segment", "%s.segment is missing: name the segment that it is in", path)
	} else if s == nil {
		v.report(path+".segment", "%s.segment: no segment is called %q", path, segment)
	}
	if len(macs) == 0 {
		v.report(path+".macs", "%s.macs is missing: without a MAC address no frame can be told to be its", path)
	}
	for i, mac := range macs {
		entry := fmt.Sprintf("%s.macs[%d]", path, i)
		if mac == (MAC{}) {
			v.report(entry, "%s: %s is no VM's address", entry, mac)
		} else {
			checkUnique(v, v.macs, entry, mac, "MAC "+mac.String())
		}
	}
	for i, vlan := range vlans {
		if slices.Contains(vlans[:i], vlan) {
			v.report(fmt.Sprintf("%s.vlans[%d]", path, i), "%s.vlans: the same VLAN twice", path)
		}
	}
	return s
}

func (v *checker) checkAddresses(path string, a *Addresses, segment *Segment) {
	given := 0
	for _, is := range []bool{a.Static != nil, a.Prefix.IsValid(), a.Learn} {
		if is {
			given++
		}
	}
	if given != 1 {
		v.report(path, "%s: %d of static, prefix and learn are given: give exactly one", path, given)
	}
	if a.Static != nil && len(a.Static) == 0 {
		v.report(path+".static", "%s.static is empty: name the addresses, or use learn: true", path)
	}
	for i, addr := range a.Static {
		v.checkAddress(fmt.Sprintf("%s.static[%d]", path, i), addr, segment)
	}
	if a.Prefix.IsValid() {
		v.checkPrefix(path+".prefix", a.Prefix)
		v.checkInside(path+".prefix", a.Prefix, segment)
	}
}

// checkAddress checks one address that an inventory entry alone may use.
func (v *checker) checkAddress(path string, addr netip.Addr, segment *Segment) {
	if addr.Zone() != "" || addr.Is4In6() || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() {
		v.report(path, "%s: %s is no address of one machine on a network: write 192.0.2.1 or 2001:db8::1", path, addr)
		return
	}
	v.checkInside(path, netip.PrefixFrom(addr, addr.BitLen()), segment)
	if segment != nil {
		checkUnique(v, v.addrs, path, addrIn{segment.Group, addr}, "address "+addr.String())
	}
}

// checkInside holds addresses to their segment's subnets, if it has any of the
// same family. Link-local addresses are in every segment.
func (v *checker) checkInside(path string, prefix netip.Prefix, segment *Segment) {
	if segment == nil || len(segment.Subnets) == 0 || prefix.Addr().IsLinkLocalUnicast() {
		return
	}
	for _, subnet := range segment.Subnets {
		if subnet.Bits() <= prefix.Bits() && subnet.Contains(prefix.Addr()) {
			return
		}
	}
	what := prefix.String()
	if prefix.IsSingleIP() {
		what = prefix.Addr().String()
	}
	v.report(path, "%s: %s is in no subnet of segment %s: correct it, or add its subnet there (line %d)",
		path, what, segment.Name, segment.Line)
}

func (v *checker) checkPrefix(path string, p netip.Prefix) {
	switch {
	case !p.IsValid():
	case p.Addr().Is4In6():
		v.report(path, "%s: %s is an IPv4 prefix in IPv6 clothes: write it as IPv4", path, p)
	case p != p.Masked():
		v.report(path, "%s: %s has bits beyond its length: write %s", path, p, p.Masked())
	}
}
