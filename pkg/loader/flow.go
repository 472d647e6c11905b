package loader

// FlowDir is one direction of a flow: from one end of the key to the other.
type FlowDir struct {
	Packets, Bytes, LastSeen uint64 // kept by the kernel
	SrcMAC, DstMAC           MAC
	InPort, OutPort          uint32 // port ids
	VM                       uint32 // the sending end's VM, 0 for none
	Owner                    uint32 // the sending end's owner id, 0 for none
	TCPFlags                 uint32 // seen so far; kept by the kernel
}

// Flow is a decided flow. Its effective verdict is the strictest of Verdict and
// those of Rule and of both ends' VMs and owners.
type Flow struct {
	Dir       [2]FlowDir // Dir[i] is from Addr(i) of the key
	Created   uint64
	Expires   uint64 // absolute; 0: by idle time alone
	Verdict   uint32 // of this flow alone
	Cause     uint32
	Rule      uint32 // rule id
	SynSeq    uint32 // of the initiator's SYN, host order; 0 if picked up midstream
	Initiator int    // index into Dir
	Cleared   bool   // found clean: what says check is lifted, of this flow alone
}

// Pending is a flow that waits for the daemon's decision. The kernel makes it.
type Pending struct {
	FirstSeen, LastSeen uint64
	Punted              uint32    // packets sent up so far
	VM                  [2]uint32 // of the first packet's sender and receiver, 0 for none
	InPort, OutPort     uint32
	SrcMAC, DstMAC      MAC
	SynSeq              uint32 // host order
	From                int    // index into the key's ends of the first packet's sender
	TCPFlags            uint32 // of the first packet
	FrameLen            uint32
}

// PutFlow writes a decided flow, replacing what stood. Its counters start at
// what f says.
func (d *Dataplane) PutFlow(key FlowKey, f Flow) error {
	return d.flows.put(key, f)
}

// Flow returns the entry of key, and whether there is one.
func (d *Dataplane) Flow(key FlowKey) (Flow, bool, error) { return d.flows.get(key) }

// DeleteFlow forgets a flow; its next packet is decided anew. Deleting what is
// not there is no error.
func (d *Dataplane) DeleteFlow(key FlowKey) error { return d.flows.delete(key) }

// Flows iterates over all flows, expired ones that nothing has swept included.
func (d *Dataplane) Flows() *Entries[FlowKey, Flow] { return d.flows.all() }

// Pending returns the pending entry of key, and whether there is one.
func (d *Dataplane) Pending(key FlowKey) (Pending, bool, error) { return d.pending.get(key) }

// DeletePending ends the waiting of a flow. Deleting what is not there is no error.
func (d *Dataplane) DeletePending(key FlowKey) error { return d.pending.delete(key) }

// PendingAll iterates over all pending entries.
func (d *Dataplane) PendingAll() *Entries[FlowKey, Pending] { return d.pending.all() }

func (f Flow) wire() wireFlow {
	w := wireFlow{
		Created:   f.Created,
		Expires:   f.Expires,
		Verdict:   wireVerdict(f.Verdict),
		Cause:     wireCause(f.Cause),
		Rule:      f.Rule,
		SynSeq:    hton32(f.SynSeq),
		Initiator: uint32(f.Initiator & 1),
		Cleared:   flag[uint32](f.Cleared, 1),
	}
	for i, dir := range f.Dir {
		to := &w.Dir[i]
		to.Packets, to.Bytes, to.LastSeen = dir.Packets, dir.Bytes, dir.LastSeen
		to.SrcMac, to.DstMac = dir.SrcMAC, dir.DstMAC
		to.InPort, to.OutPort = uint16(dir.InPort), uint16(dir.OutPort)
		to.Vm, to.Owner, to.TcpFlags = dir.VM, dir.Owner, dir.TCPFlags
	}
	return w
}

func flowFromWire(w wireFlow) Flow {
	f := Flow{
		Created:   w.Created,
		Expires:   w.Expires,
		Verdict:   uint32(w.Verdict),
		Cause:     uint32(w.Cause),
		Rule:      w.Rule,
		SynSeq:    hton32(w.SynSeq),
		Initiator: int(w.Initiator & 1),
		Cleared:   w.Cleared != 0,
	}
	for i, from := range w.Dir {
		dir := &f.Dir[i]
		dir.Packets, dir.Bytes, dir.LastSeen = from.Packets, from.Bytes, from.LastSeen
		dir.SrcMAC, dir.DstMAC = from.SrcMac, from.DstMac
		dir.InPort, dir.OutPort = uint32(from.InPort), uint32(from.OutPort)
		dir.VM, dir.Owner, dir.TCPFlags = from.Vm, from.Owner, from.TcpFlags
	}
	return f
}

func (p Pending) wire() wirePending {
	return wirePending{
		FirstSeen: p.FirstSeen,
		LastSeen:  p.LastSeen,
		Punted:    p.Punted,
		Vm:        p.VM,
		InPort:    uint16(p.InPort),
		OutPort:   uint16(p.OutPort),
		SrcMac:    p.SrcMAC,
		DstMac:    p.DstMAC,
		SynSeq:    hton32(p.SynSeq),
		From:      uint32(p.From & 1),
		TcpFlags:  p.TCPFlags,
		FrameLen:  p.FrameLen,
	}
}

func pendingFromWire(w wirePending) Pending {
	return Pending{
		FirstSeen: w.FirstSeen,
		LastSeen:  w.LastSeen,
		Punted:    w.Punted,
		VM:        w.Vm,
		InPort:    uint32(w.InPort),
		OutPort:   uint32(w.OutPort),
		SrcMAC:    w.SrcMac,
		DstMAC:    w.DstMac,
		SynSeq:    hton32(w.SynSeq),
		From:      int(w.From & 1),
		TCPFlags:  w.TcpFlags,
		FrameLen:  w.FrameLen,
	}
}
