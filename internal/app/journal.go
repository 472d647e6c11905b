package app

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/snort"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// journal tells the event log and the followers of "gatewayd monitor" what
// happens. It never blocks.
type journal struct {
	hub *event.Hub
	log *event.Log // nil for none
}

func (j *journal) write(e event.Event) {
	if e.Timestamp.IsZero() {
		e.Timestamp = time.Now()
	}
	if j.log != nil {
		j.log.Write(e)
	}
	j.hub.Publish(e)
}

// decision records the decision on a flow; a rule may ask for an alert as well.
func (j *journal) decision(c *flowCase, d verdict.Decision, took time.Duration) {
	e := flowEvent(c.request.Flow)
	e.Type = "decision"
	e.Verdict, e.Cause, e.Rule = d.Verdict.String(), d.Cause.String(), d.Rule
	e.Micros = took.Microseconds()
	e.Evidence = d.Evidence
	e.SrcProcess, e.DestProcess = firstProcess(c.request.SrcOwner), firstProcess(c.request.DstOwner)
	j.write(e)
	if d.Alert {
		e.Type = "alert"
		e.Alert = &event.Alert{Action: alertAction(d.Verdict), Signature: "policy rule " + d.Rule, Category: "policy", Severity: 3}
		j.write(e)
	}
}

// effect records that the standing verdict of a process or a VM has changed.
func (j *journal) effect(effect verdict.Effect) {
	e := event.Event{
		Type: "verdict", SrcVM: effect.VM, SrcProcess: effect.Process,
		Verdict: effect.Verdict.String(), Cause: effect.Cause.String(), Evidence: effect.Evidence,
	}
	for _, evidence := range effect.Evidence {
		if evidence.Verdict == effect.Verdict {
			e.Message = evidence.Detail
			break
		}
	}
	j.write(e)
}

// alert records an alert of the IDS, and the process that it was traced to; or that
// there were more of them in the last second than were told.
func (j *journal) alert(a snort.Alert, vm string, p *verdict.Process, more int) {
	e := event.Event{
		Timestamp: a.Time, Type: "alert", SrcVM: vm, SrcProcess: p,
		Proto: event.ProtoName(a.Proto),
		Alert: &event.Alert{
			Action: string(a.Action), GID: a.GID, SID: a.SID, Rev: a.Rev,
			Signature: a.Message, Category: a.Class, Severity: a.Priority,
		},
	}
	if more > 0 {
		e.Message = fmt.Sprintf("and %d more like it within a second", more)
	}
	e.SrcIP, e.SrcPort, e.DestIP, e.DestPort = ends(a.Src, a.Dst)
	e.FlowID = event.FlowID(a.Proto, a.Src, a.Dst, uint32(a.VLAN)<<16)
	e.CommunityID = event.CommunityID(a.Proto, a.Src, a.Dst)
	j.write(e)
}

// dataplane records a sampled event of the kernel programs.
func (j *journal) dataplane(ev loader.Event, inv *inventory, rule string, process *verdict.Process) {
	e := event.Event{Type: "drop", Reason: ev.Reason.String(), Rule: rule, SrcProcess: process}
	switch ev.Type {
	case loader.EventSpoof:
		e.Type = "spoof"
	case loader.EventNewAddress:
		e.Type = "vm"
		e.Message = "the VM has claimed a new address"
	}
	if ev.Cause != 0 {
		e.Cause = verdict.Cause(ev.Cause).String()
	}
	if n := inv.byID[ev.VM]; n != nil {
		e.SrcVM = n.name
	}
	if ev.Key != (loader.FlowKey{}) {
		src, dst := ev.Key.Addr(ev.From), ev.Key.Addr(1-ev.From)
		outer, inner := ev.Key.VLAN()
		e.SrcIP, e.SrcPort, e.DestIP, e.DestPort = ends(src, dst)
		e.Proto = event.ProtoName(ev.Key.Proto())
		e.VLAN = vlans(outer, inner)
		e.FlowID = event.FlowID(ev.Key.Proto(), src, dst, uint32(outer)<<16|uint32(inner))
		e.CommunityID = event.CommunityID(ev.Key.Proto(), src, dst)
	}
	if e.SrcIP == "" {
		e.Message = strings.TrimSpace(e.Message + " source " + ev.SrcMAC.String())
	}
	j.write(e)
}

// note records something that is about no flow.
func (j *journal) note(kind, message string) {
	j.write(event.Event{Type: kind, Message: message})
}

// flowEvent begins an event about a flow.
func flowEvent(f verdict.Flow) event.Event {
	src, dst := addrPort(f.Src), addrPort(f.Dst)
	e := event.Event{
		Proto: event.ProtoName(f.Proto), VLAN: vlans(f.VLAN, f.Inner),
		SrcVM: f.Src.VM, DestVM: f.Dst.VM,
		FlowID:      event.FlowID(f.Proto, src, dst, uint32(f.VLAN)<<16|uint32(f.Inner)),
		CommunityID: event.CommunityID(f.Proto, src, dst),
	}
	e.SrcIP, e.SrcPort, e.DestIP, e.DestPort = ends(src, dst)
	return e
}

func addrPort(e verdict.Endpoint) netip.AddrPort { return netip.AddrPortFrom(e.Addr, e.Port) }

func ends(src, dst netip.AddrPort) (srcIP string, srcPort uint16, dstIP string, dstPort uint16) {
	return src.Addr().String(), src.Port(), dst.Addr().String(), dst.Port()
}

func vlans(outer, inner uint16) []uint16 {
	switch {
	case inner != 0:
		return []uint16{outer, inner}
	case outer != 0:
		return []uint16{outer}
	}
	return nil
}

func firstProcess(o verdict.Owner) *verdict.Process {
	if len(o.Processes) == 0 {
		return nil
	}
	return &o.Processes[0]
}

func alertAction(v verdict.Verdict) string {
	if v == verdict.Drop {
		return "blocked"
	}
	return "allowed"
}
