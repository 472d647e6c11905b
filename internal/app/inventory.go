package app

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// segment is a configured segment with its numbers.
type segment struct {
	*config.Segment
	number uint32 // also its port id
	group  uint32
}

// node is an inventory entry, a VM or a router, with its number.
type node struct {
	id      uint32
	name    string
	segment *segment
	macs    []config.MAC
	vlans   []config.VLAN
	vm      *config.VM     // nil for a router
	router  *config.Router // nil for a VM
}

// hasMemory says whether the node's memory is declared, so that its processes
// can be known.
func (n *node) hasMemory() bool { return n != nil && n.vm != nil && n.vm.Memory != nil }

// learns says whether the node's addresses are learned.
func (n *node) learns() bool { return n.vm != nil && n.vm.Addresses.Learn }

// inventory is what a configuration says of segments, VMs and routers, with the
// numbers of the kernel maps. It never changes; a reload makes another.
type inventory struct {
	numbers  *numbers
	segments map[uint32]*segment
	byID     map[uint32]*node
	byName   map[string]*node
	byMAC    map[config.MAC]*node
	byAddr   map[netip.Addr]*node // static addresses
	prefixes []prefixOwner
}

type prefixOwner struct {
	prefix netip.Prefix
	node   *node
}

func newInventory(cfg *config.Config, nums *numbers) *inventory {
	inv := &inventory{
		numbers:  nums,
		segments: map[uint32]*segment{},
		byID:     map[uint32]*node{},
		byName:   map[string]*node{},
		byMAC:    map[config.MAC]*node{},
		byAddr:   map[netip.Addr]*node{},
	}
	byName := map[string]*segment{}
	for i := range cfg.Segments {
		s := &segment{Segment: &cfg.Segments[i]}
		s.number, s.group = nums.Segments[s.Name], nums.Groups[s.Group]
		inv.segments[s.number] = s
		byName[s.Name] = s
	}
	for i := range cfg.VMs {
		vm := &cfg.VMs[i]
		n := &node{name: vm.ID, segment: byName[vm.Segment], macs: vm.MACs, vlans: vm.VLANs, vm: vm}
		inv.add(n)
		for _, addr := range vm.Addresses.Static {
			inv.byAddr[addr] = n
		}
		if vm.Addresses.Prefix.IsValid() {
			inv.prefixes = append(inv.prefixes, prefixOwner{vm.Addresses.Prefix, n})
		}
	}
	for i := range cfg.Routers {
		r := &cfg.Routers[i]
		n := &node{name: r.ID, segment: byName[r.Segment], macs: r.MACs, vlans: r.VLANs, router: r}
		inv.add(n)
		for _, addr := range r.Addresses {
			inv.byAddr[addr] = n
		}
	}
	return inv
}

func (inv *inventory) add(n *node) {
	n.id = inv.numbers.VMs[n.name]
	if len(n.vlans) == 0 {
		n.vlans = []config.VLAN{{}}
	}
	inv.byID[n.id] = n
	inv.byName[n.name] = n
	for _, mac := range n.macs {
		inv.byMAC[mac] = n
	}
}

// addresses lists the prefixes that a node may use as a source.
func (n *node) addresses() []netip.Prefix {
	var prefixes []netip.Prefix
	static := func(addrs []netip.Addr) {
		for _, addr := range addrs {
			prefixes = append(prefixes, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	if n.router != nil {
		static(n.router.Addresses)
		return prefixes
	}
	static(n.vm.Addresses.Static)
	if n.vm.Addresses.Prefix.IsValid() {
		prefixes = append(prefixes, n.vm.Addresses.Prefix)
	}
	return prefixes
}

// byHardware finds the node that has a MAC address, nil if none.
func (inv *inventory) byHardware(mac net.HardwareAddr) *node {
	if len(mac) != 6 {
		return nil
	}
	return inv.byMAC[config.MAC(mac)]
}

// byAddress finds the node that has an address, nil if none.
func (inv *inventory) byAddress(addr netip.Addr) *node {
	addr = addr.Unmap()
	if n := inv.byAddr[addr]; n != nil {
		return n
	}
	for _, p := range inv.prefixes {
		if p.prefix.Contains(addr) {
			return p.node
		}
	}
	return nil
}

// hasRouter says whether a router or DHCP server lies in the segment.
func (inv *inventory) hasRouter(s *segment) bool {
	for _, n := range inv.byID {
		if n.router != nil && n.segment == s {
			return true
		}
	}
	return false
}

// hasVLANs says whether a node of the segment sends tagged frames.
func (inv *inventory) hasVLANs(s *segment) bool {
	for _, n := range inv.byID {
		if n.segment == s && slices.ContainsFunc(n.vlans, func(v config.VLAN) bool { return v != config.VLAN{} }) {
			return true
		}
	}
	return false
}

// groups lists the numbers of the layer 2 groups.
func (inv *inventory) groups() []uint32 {
	var groups []uint32
	for _, number := range inv.numbers.Groups {
		groups = append(groups, number)
	}
	return groups
}

// endpoint describes one end of a flow: the node that sent or receives its
// frames, and the address, which for a router may lie anywhere behind it.
func endpoint(n *node, addr netip.AddrPort) verdict.Endpoint {
	e := verdict.Endpoint{Addr: addr.Addr().Unmap(), Port: addr.Port()}
	if n == nil {
		return e
	}
	e.Segment = n.segment.Name
	e.WAN = n.segment.Kind == "wan"
	if n.vm != nil {
		e.VM = n.name
	} else {
		e.Router = n.name
	}
	return e
}
