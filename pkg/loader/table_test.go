package loader

import (
	"net/netip"
	"strings"
	"testing"
)

func openMaps(t *testing.T) *Dataplane {
	t.Helper()
	d, err := Open(Options{Pins: pinsDir(t)})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

func collect[K comparable, V any](t *testing.T, e *Entries[K, V]) map[K]V {
	t.Helper()
	all := map[K]V{}
	for k, v := range e.All() {
		if _, twice := all[k]; twice {
			t.Errorf("%v came twice", k)
		}
		all[k] = v
	}
	must(t, e.Err())
	return all
}

func TestFlows_AllAreSeenAlsoBeyondOneBatch(t *testing.T) {
	d := openMaps(t)
	const flows = 5*batchSize + 7
	for n := range flows {
		must(t, d.PutFlow(numbered(n), Flow{Rule: uint32(n)}))
	}
	got := collect(t, d.Flows())
	if len(got) != flows || got[numbered(4711)].Rule != 4711 {
		t.Errorf("saw %d flows, want %d", len(got), flows)
	}
}

func TestFlows_MayBeDeletedMeanwhile(t *testing.T) {
	d := openMaps(t)
	const flows = 3 * batchSize
	for n := range flows {
		must(t, d.PutFlow(numbered(n), Flow{}))
	}
	all := d.Flows()
	for key := range all.All() {
		must(t, d.DeleteFlow(key))
	}
	must(t, all.Err())
	if left := collect(t, d.Flows()); len(left) > 0 {
		t.Errorf("%d flows are left", len(left))
	}
}

func numbered(n int) FlowKey {
	key, _ := NewFlowKey(6, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 1),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, 1}), 2), 0, 0, 1)
	return key
}

func TestTables_PutListDelete(t *testing.T) {
	d := openMaps(t)
	mac, macEntry := MACKey{MAC: MAC{2, 1}, VLANOuter: 5, Group: 2}, MACEntry{VM: 3, Segment: 1, Port: 4}
	must(t, d.PutMAC(mac, macEntry))
	if got := collect(t, d.MACs()); len(got) != 1 || got[mac] != macEntry {
		t.Errorf("MACs %v", got)
	}
	addr, addrEntry := AddrKey{3, netip.MustParsePrefix("10.0.0.1/32")}, AddrEntry{VM: 3, Port: 4, MAC: MAC{2, 1}}
	prefix := AddrKey{0, netip.MustParsePrefix("2001:db8::/64")}
	must(t, d.PutAddr(addr, addrEntry))
	must(t, d.PutAddr(prefix, addrEntry))
	if got := collect(t, d.Addrs()); len(got) != 2 || got[addr] != addrEntry || got[prefix] != addrEntry {
		t.Errorf("addresses %v", got)
	}
	var kernel wireAddrEntry
	wire := addr.wire()
	must(t, d.maps["vm_addrs"].Lookup(&wire, &kernel))
	if kernel.Bits != 128 { // IPv4 as ::ffff:a.b.c.d
		t.Errorf("the kernel sees a prefix of %d bits", kernel.Bits)
	}
	port, verdict := VerdictKey{3, 6, 443}, VerdictEntry{Verdict: drop, Cause: 2, Owner: 9, Observed: 1, Expires: 2}
	must(t, d.PutVerdict(port, verdict))
	if got := collect(t, d.Verdicts()); len(got) != 1 || got[port] != verdict {
		t.Errorf("verdicts %v", got)
	}
	for range 2 { // the second time nothing is there
		must(t, d.DeleteMAC(mac))
		must(t, d.DeleteAddr(addr))
		must(t, d.DeleteAddr(prefix))
		must(t, d.DeleteVerdict(port))
		must(t, d.DeletePending(numbered(1)))
	}
	if n := len(collect(t, d.MACs())) + len(collect(t, d.Addrs())) + len(collect(t, d.Verdicts())); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	if _, found, err := d.Pending(numbered(1)); found || err != nil {
		t.Errorf("pending entry found %v, error %v", found, err)
	}
}

func TestOwners_OnlyIdsInUseAreSeen(t *testing.T) {
	d := openMaps(t)
	last := Owner{Verdict: drop, Comm: "x"}
	must(t, d.SetOwner(MaxOwners-1, last))
	must(t, d.SetOwner(1, Owner{Verdict: forward}))
	must(t, d.SetOwner(1, Owner{}))
	if got := collect(t, d.Owners()); len(got) != 1 || got[MaxOwners-1] != last {
		t.Errorf("owners %v", got)
	}
	if err := d.SetOwner(MaxOwners, last); err == nil || !strings.Contains(err.Error(), "owners") {
		t.Errorf("error %v beyond the last id", err)
	}
}

func TestSetVMVerdict_LeavesTheRest(t *testing.T) {
	d := openMaps(t)
	want := VMEntry{Verdict: forward, Router: true, Learn: true, Budget: 5, Name: "app1"}
	must(t, d.SetVM(2, want))
	must(t, d.SetVMVerdict(2, drop, 7))
	want.Verdict, want.Cause = drop, 7
	if got := collect(t, d.VMs()); len(got) != 1 || got[2] != want {
		t.Errorf("VMs %+v", got)
	}
}

func TestLimits_AreThoseOfTheMaps(t *testing.T) {
	d := openMaps(t)
	for name, max := range map[string]uint32{
		"tx_ports": MaxPorts, "ports": MaxPorts, "vms": MaxVMs, "rules": MaxRules, "owners": MaxOwners,
		"stats": MaxPorts * reasonMax,
	} {
		if got := d.maps[name].MaxEntries(); got != max {
			t.Errorf("map %s has %d entries, the package says %d", name, got, max)
		}
	}
}
