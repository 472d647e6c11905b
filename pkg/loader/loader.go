package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/bpf"
)

// Errors of map operations, as the kernel gives them.
const (
	errMapFull      = unix.E2BIG
	errBucketTooBig = unix.ENOSPC
)

// Options says where a data plane lives.
type Options struct {
	// Pins is the directory under bpffs that holds maps and links, such as
	// /sys/fs/bpf/vmgate. It is made if it is missing.
	Pins string
	// Log gets what happens at the devices. Nil: nothing is logged.
	Log *slog.Logger
}

// Dataplane gives access to the kernel side of one gateway. Its map methods may
// be called from any goroutine; those that touch devices (SetPorts, Follow) want
// to run in the gateway's network namespace.
type Dataplane struct {
	pins pinDir
	log  *slog.Logger
	spec *ebpf.CollectionSpec
	maps map[string]*ebpf.Map // owned

	macs      table[MACKey, MACEntry, wireMACKey, wireMACEntry]
	addrs     table[AddrKey, AddrEntry, wireAddrKey, wireAddrEntry]
	verdicts  table[VerdictKey, VerdictEntry, wireVerdictKey, wireVerdictEntry]
	flows     table[FlowKey, Flow, wireFlowKey, wireFlow]
	pending   table[FlowKey, Pending, wireFlowKey, wirePending]
	vms       array[VMEntry, wireVM]
	owners    array[Owner, wireOwner]
	rules     array[Rule, wireRule]
	settings  array[Settings, wireSettings]
	heartbeat array[clockValue, uint64]

	// useClsact puts TC programs into clsact filters: the kernel has no TCX.
	useClsact bool

	mu    sync.Mutex // guards ports and everything at the devices
	ports []PortState
}

// Open loads the maps of the gateway that is pinned under o.Pins: pinned maps
// are adopted with all that they hold, missing ones are made and pinned. It
// attaches nothing. A pinned map that does not fit this build is an error that
// names it.
func Open(o Options) (*Dataplane, error) {
	spec, err := bpf.LoadVmgate()
	if err != nil {
		return nil, fmt.Errorf("cannot read the BPF objects built into this program: %w", err)
	}
	d := &Dataplane{pins: pinDir(o.Pins), log: o.Log, spec: spec, useClsact: lacksTCX()}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if err := d.pins.create(); err != nil {
		return nil, err
	}
	if d.maps, err = d.pins.openMaps(spec); err != nil {
		return nil, err
	}
	d.bindMaps()
	if err := d.presetNone(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close frees the file descriptors. Pins, links and enforcement stay.
func (d *Dataplane) Close() error {
	var errs []error
	for _, m := range d.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

func (d *Dataplane) bindMaps() {
	m := d.maps
	d.macs = table[MACKey, MACEntry, wireMACKey, wireMACEntry]{
		m["vm_macs"], "vm_macs", MACKey.wire, macKeyFromWire, MACEntry.wire, macEntryFromWire}
	d.addrs = table[AddrKey, AddrEntry, wireAddrKey, wireAddrEntry]{
		m["vm_addrs"], "vm_addrs", AddrKey.wire, addrKeyFromWire, AddrEntry.wire, addrEntryFromWire}
	d.verdicts = table[VerdictKey, VerdictEntry, wireVerdictKey, wireVerdictEntry]{
		m["verdicts"], "verdicts", VerdictKey.wire, verdictKeyFromWire, VerdictEntry.wire, verdictEntryFromWire}
	d.flows = table[FlowKey, Flow, wireFlowKey, wireFlow]{
		m["flows"], "flows", FlowKey.wire, flowKeyFromWire, Flow.wire, flowFromWire}
	d.pending = table[FlowKey, Pending, wireFlowKey, wirePending]{
		m["pending"], "pending", FlowKey.wire, flowKeyFromWire, Pending.wire, pendingFromWire}
	d.vms = array[VMEntry, wireVM]{m["vms"], "vms", VMEntry.wire, vmFromWire}
	d.owners = array[Owner, wireOwner]{m["owners"], "owners", Owner.wire, ownerFromWire}
	d.rules = array[Rule, wireRule]{m["rules"], "rules", Rule.wire, ruleFromWire}
	d.settings = array[Settings, wireSettings]{m["settings"], "settings", Settings.wire, settingsFromWire}
	d.heartbeat = array[clockValue, uint64]{m["heartbeat"], "heartbeat", clockValue.wire, clockFromWire}
}

// presetNone makes "no VM" and "no owner" forward: they add nothing to a
// verdict, while an id that nobody has written is undecided.
func (d *Dataplane) presetNone() error {
	const forward = 1 // VERDICT_FORWARD
	return errors.Join(
		d.vms.put(0, VMEntry{Verdict: forward}),
		d.owners.put(0, Owner{Verdict: forward}),
	)
}
