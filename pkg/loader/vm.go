package loader

import (
	"fmt"
	"net/netip"

	"github.com/vmgate/vmgate/bpf"
)

// VMEntry is what the kernel knows of a VM, by its id. The entry of id 0 stands
// for "no VM".
type VMEntry struct {
	Verdict, Cause uint32
	Router         bool   // may use any source address but the inventory's own
	DHCPServer     bool   // may answer DHCP
	Learn          bool   // addresses are learned: the first to claim one keeps it
	Budget         uint32 // undecided flows a second for each sub-budget
	Name           string // at most 31 bytes are kept
}

// SetVM writes the entry of a VM id (1 to MaxVMs-1). The zero VMEntry frees the id.
func (d *Dataplane) SetVM(id uint32, e VMEntry) error {
	if id == 0 {
		return fmt.Errorf("cannot write VM 0: it stands for no VM")
	}
	if err := d.vms.put(id, e); err != nil || e != (VMEntry{}) {
		return err
	}
	// The next VM with this id begins with no learned addresses to its account.
	if err := d.maps["learned"].Put(id, &bpf.VmgateLearned{}); err != nil {
		return fmt.Errorf("cannot clear entry %d of map learned: %w", id, err)
	}
	return nil
}

// Unlearn gives a VM back its share of claims for an address that is none any
// more; how many addresses a VM may claim is limited by family.
func (d *Dataplane) Unlearn(id uint32, addr netip.Addr) error {
	var n bpf.VmgateLearned
	if err := d.maps["learned"].Lookup(id, &n); err != nil {
		return fmt.Errorf("cannot read entry %d of map learned: %w", id, err)
	}
	count := &n.Ipv6
	if addr.Is4() {
		count = &n.Ipv4
	}
	if *count == 0 {
		return nil
	}
	*count--
	if err := d.maps["learned"].Put(id, &n); err != nil {
		return fmt.Errorf("cannot write entry %d of map learned: %w", id, err)
	}
	return nil
}

// VM returns the entry of a VM id.
func (d *Dataplane) VM(id uint32) (VMEntry, error) { return d.vms.at(id) }

// SetVMVerdict changes verdict and cause of a VM and leaves the rest of its
// entry. It takes effect with the next packet of every flow from and to the VM.
// Writers of one id must not run at the same time.
func (d *Dataplane) SetVMVerdict(id, verdict, cause uint32) error {
	e, err := d.VM(id)
	if err != nil {
		return err
	}
	e.Verdict, e.Cause = verdict, cause
	return d.SetVM(id, e)
}

// VMs iterates over the VM ids in use.
func (d *Dataplane) VMs() *Entries[uint32, VMEntry] { return d.vms.used() }

// MACKey names a station: a MAC address in a layer 2 group, with its VLAN ids
// (0 for none).
type MACKey struct {
	MAC                  MAC
	VLANOuter, VLANInner uint16
	Group                uint16
}

// MACEntry says which VM speaks with a MAC address, and where.
type MACEntry struct {
	VM, Segment uint32
	Port        uint32 // port id where its frames come from and go to
}

// PutMAC writes who speaks with a MAC address.
func (d *Dataplane) PutMAC(key MACKey, e MACEntry) error { return d.macs.put(key, e) }

// DeleteMAC forgets a MAC address. Deleting what is not there is no error.
func (d *Dataplane) DeleteMAC(key MACKey) error { return d.macs.delete(key) }

// MACs iterates over all MAC addresses.
func (d *Dataplane) MACs() *Entries[MACKey, MACEntry] { return d.macs.all() }

func (e VMEntry) wire() wireVM {
	w := wireVM{Verdict: wireVerdict(e.Verdict), Cause: wireCause(e.Cause), Budget: e.Budget}
	w.Flags = flag(e.Router, bpf.VmgateVmFlagVM_ROUTER) | flag(e.DHCPServer, bpf.VmgateVmFlagVM_DHCP_SERVER) | flag(e.Learn, bpf.VmgateVmFlagVM_LEARN)
	putCstr(w.Name[:], e.Name)
	return w
}

func vmFromWire(w wireVM) VMEntry {
	return VMEntry{
		Verdict:    uint32(w.Verdict),
		Cause:      uint32(w.Cause),
		Router:     w.Flags&bpf.VmgateVmFlagVM_ROUTER != 0,
		DHCPServer: w.Flags&bpf.VmgateVmFlagVM_DHCP_SERVER != 0,
		Learn:      w.Flags&bpf.VmgateVmFlagVM_LEARN != 0,
		Budget:     w.Budget,
		Name:       cstr(w.Name[:]),
	}
}

func (k MACKey) wire() wireMACKey {
	return wireMACKey{Vlan: wireVLAN(k.VLANOuter, k.VLANInner), Mac: k.MAC, Group: k.Group}
}

func macKeyFromWire(w wireMACKey) MACKey {
	return MACKey{MAC: w.Mac, VLANOuter: uint16(w.Vlan >> 16), VLANInner: uint16(w.Vlan), Group: w.Group}
}

func (e MACEntry) wire() wireMACEntry {
	return wireMACEntry{Vm: e.VM, Segment: e.Segment, Port: e.Port}
}

func macEntryFromWire(w wireMACEntry) MACEntry {
	return MACEntry{VM: w.Vm, Segment: w.Segment, Port: w.Port}
}
