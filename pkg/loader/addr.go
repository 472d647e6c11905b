package loader

import (
	"fmt"
	"net/netip"
)

// AddrKey is an address prefix, as one VM may use it or, with VM 0, as the
// whole inventory knows it ("whose is it?"). The longest prefix wins. A VM's
// address therefore has two entries, one under its id and one under 0.
type AddrKey struct {
	VM     uint32
	Prefix netip.Prefix
}

// AddrEntry says whose a prefix is and where ARP and neighbour discovery for it
// are delivered.
type AddrEntry struct {
	VM   uint32
	Port uint32
	MAC  MAC
}

// PutAddr writes an address prefix.
func (d *Dataplane) PutAddr(key AddrKey, e AddrEntry) error {
	if !key.Prefix.IsValid() {
		return fmt.Errorf("cannot write an address of VM %d: no valid prefix", key.VM)
	}
	k, v := key.wire(), e.wire()
	// The kernel compares overlapping prefixes by their lengths.
	v.Bits = uint16(k.Prefixlen - addrKeyVMBits)
	return d.addrs.putWire(key, k, v)
}

// Addr finds the longest prefix that covers an address of a VM or, with VM 0, of
// the inventory.
func (d *Dataplane) Addr(vm uint32, addr netip.Addr) (AddrEntry, bool, error) {
	return d.addrs.get(AddrKey{VM: vm, Prefix: netip.PrefixFrom(addr, addr.BitLen())})
}

// DeleteAddr forgets an address prefix. Deleting what is not there is no error.
func (d *Dataplane) DeleteAddr(key AddrKey) error { return d.addrs.delete(key) }

// Addrs iterates over all prefixes, those that the kernel learned included.
func (d *Dataplane) Addrs() *Entries[AddrKey, AddrEntry] { return d.addrs.all() }

// The prefix covers the VM id (32 bits) and the address in its 16-byte form, in
// which IPv4 has 96 leading bits of its own.
const (
	addrKeyVMBits = 32
	mappedBits    = 96
)

func (k AddrKey) wire() wireAddrKey {
	p := k.Prefix.Masked()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += mappedBits
	}
	return wireAddrKey{Prefixlen: uint32(addrKeyVMBits + bits), Vm: hton32(k.VM), Addr: p.Addr().As16()}
}

func addrKeyFromWire(w wireAddrKey) AddrKey {
	addr, bits := netip.AddrFrom16(w.Addr), int(w.Prefixlen)-addrKeyVMBits
	if addr.Is4In6() && bits >= mappedBits {
		addr, bits = addr.Unmap(), bits-mappedBits
	}
	return AddrKey{VM: hton32(w.Vm), Prefix: netip.PrefixFrom(addr, bits)}
}

func (e AddrEntry) wire() wireAddrEntry {
	return wireAddrEntry{Vm: e.VM, Port: e.Port, Mac: e.MAC}
}

func addrEntryFromWire(w wireAddrEntry) AddrEntry {
	return AddrEntry{VM: w.Vm, Port: w.Port, MAC: w.Mac}
}
