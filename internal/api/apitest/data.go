package apitest

import (
	"net/netip"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/pkg/verdict"
	"github.com/vmgate/vmgate/pkg/vmi"
)

func status() api.Status {
	return api.Status{
		Version: "1.2.3", PID: 4711, Started: noon, Config: "/etc/vmgate/gateway.yaml", Loaded: noon.Add(time.Hour),
		LastError: "gateway.yaml:3:1: unknown key \"x\"\n    3 | x: 1\n      | ^", Enforcement: "enforce",
		Segments: []api.SegmentStatus{
			{Name: "apps", VNIC: "eth1", State: "attached", Datapath: "xdp"},
			{Name: "web", VNIC: "eth2", State: "missing", Detail: "no such device"},
		},
		IDS: api.IDSStatus{Engine: "suricata", State: "up", PID: 4712, Since: noon, Restarts: 1},
		VMs: 4, Flows: 2, Pending: 1,
		Failure:  map[string]string{"daemon": "closed", "ids": "closed", "introspection": "check", "no-owner": "check"},
		Counters: []api.Counter{{Segment: "apps", Reason: "spoof-ip", Packets: 3, Bytes: 180}},
	}
}

func vms() []api.VM {
	return []api.VM{
		{ID: "app1", Name: "Application 1", Segment: "apps", MACs: []string{"52:54:00:00:00:11"}, Addresses: []string{"10.0.0.11"},
			Memory: "ready", OS: "Linux 6.1.0", Verdict: "forward", Cause: "none", Flows: 2},
		{ID: "web1", Name: "web1", Segment: "web", MACs: []string{"52:54:00:00:00:21"}, Addresses: []string{"10.0.0.21", "2001:db8::21"},
			Memory: "ready", OS: "Linux 6.1.0", Verdict: "forward", Cause: "none", Flows: 2},
		{ID: "dark", Name: "dark", Segment: "apps", MACs: []string{"52:54:00:00:00:31"}, Addresses: []string{"learn"},
			Memory: "failing", Detail: "guest has not booted yet", Verdict: "forward", Cause: "none"},
		{ID: "gw", Name: "gw", Segment: "web", Router: true, MACs: []string{"52:54:00:00:00:01"}, Addresses: []string{"10.0.0.1"},
			Memory: "none", Verdict: "forward", Cause: "none"},
	}
}

func processes() []api.Process {
	return []api.Process{
		{Process: vmi.Process{PID: 2, Name: "kthreadd", Kernel: true, Views: []string{"tasks", "pids"}}, Verdict: "forward", Cause: "none"},
		{Process: vmi.Process{PID: 120, PPID: 1, Start: 5e9, Name: "curl", Path: "/usr/bin/curl", Args: []string{"curl", "http://web1/"},
			UID: 1000, Views: []string{"tasks", "pids", "tree", "slab"}}, Verdict: "forward", Cause: "none"},
		// Its name tries to clear the terminal and to forge a line.
		{Process: vmi.Process{PID: 666, PPID: 1, Start: 6e9, Name: "\x1b[2Jx\nroot", Path: "/tmp/.x", Views: []string{"slab"},
			Hidden: true, HiddenWhy: "not in tasks, pids"}, Verdict: "drop", Cause: "hidden"},
	}
}

// answerFor knows an owner of port 40000; a query with a remote end finds it
// half open, and one of port 1 nobody but a candidate.
func answerFor(q api.OwnerQuery) vmi.Answer {
	owner := processes()[1].Process
	owner.Via, owner.NetNS = "descriptor 5", 4026531840
	a := vmi.Answer{Owners: []vmi.Process{owner}, State: vmi.StateHeld, ReadAt: noon, Verified: "its socket, read twice"}
	switch {
	case q.Port.Port == 1:
		owner.Via = "packet socket, descriptor 5"
		a.Owners, a.Candidates, a.Untraced = nil, []vmi.Process{owner}, 1
		a.State, a.Note = vmi.StateNone, "no socket has this port"
	case q.Port.Port != 40000:
		a.Owners, a.State, a.Note = nil, vmi.StateNone, "no socket has this port"
	case q.Remote.IsValid():
		a.State, a.Note = vmi.StateHalfOpen, "its handshake is under way; the owners listen on its port"
	}
	return a
}

func sockets() []vmi.Socket {
	return []vmi.Socket{
		{Proto: 6, Local: netip.MustParseAddrPort("10.0.0.11:40000"), Remote: netip.MustParseAddrPort("10.0.0.21:80"), State: "established", Family: "ipv4", NetNS: 4026531840, PIDs: []uint32{120, 121}},
		{Proto: 17, Local: netip.MustParseAddrPort("[::]:5353"), State: "bound", Family: "ipv6", Unlisted: true},
		{State: "close", Family: "packet", NetNS: 4026531840, PIDs: []uint32{120}},
	}
}

func findings() []vmi.Finding {
	return []vmi.Finding{{
		Kind: vmi.HiddenProcess, Severity: vmi.High, Subject: "process 666 (miner)", PID: 666,
		Evidence: "its own ps does not show it, in 3 samples that agree", Views: []string{"tree", "slab"},
	}}
}

func modules() []vmi.Module {
	return []vmi.Module{
		{Name: "virtio_net", State: "live", Base: 0xffffffffc0400000, Size: 65536, Views: []string{"list", "tree", "sysfs"}},
		{Name: "diamorphine", State: "live", Base: 0xffffffffc0500000, Size: 12288, Views: []string{"tree"}, Hidden: true},
	}
}

func curl() *verdict.Process {
	return &verdict.Process{Instance: verdict.Instance{VM: "app1", PID: 120, Start: 5e9}, Name: "curl", Path: "/usr/bin/curl", UID: 1000}
}

func verdicts() []api.PortVerdict {
	expires := noon.Add(2 * time.Minute)
	return []api.PortVerdict{{Port: api.Port{VM: "app1", Proto: "tcp", Port: 40000}, Verdict: "drop", Cause: "alert",
		Owner: curl(), Observed: noon, Expires: &expires}}
}

func lists() []api.ListEntry {
	return []api.ListEntry{
		{ID: "e1", List: "suspect", Origin: "config", Name: "nc", Reason: "CVE-2026-1", Added: noon},
		{ID: "e2", List: "malicious", Origin: "learned", Name: "x", VM: "app1", PID: 666, Start: 6e9, Reason: "alert 1:1000001", Added: noon},
	}
}

func flows() []api.Flow {
	return []api.Flow{
		{Proto: "tcp", Src: api.FlowEnd{Addr: "10.0.0.11", Port: 40000, VM: "app1", Process: curl(), Packets: 10, Bytes: 1000},
			Dst: api.FlowEnd{Addr: "10.0.0.21", Port: 80, VM: "web1", Packets: 8, Bytes: 80000}, Verdict: "forward", Cause: "rule",
			Rule: "web", Age: 90 * time.Second, Idle: 1500 * time.Millisecond},
		{Proto: "icmpv6", VLAN: "10.20", Src: api.FlowEnd{Addr: "2001:db8::11", VM: "app1", Packets: 1, Bytes: 64},
			Dst: api.FlowEnd{Addr: "2001:db8::99"}, Verdict: "drop", Cause: "rule", Rule: "default", Age: time.Second, Idle: time.Second},
	}
}

func policy() api.Policy {
	return api.Policy{Default: "deny", Rules: []api.Rule{
		{Name: "web", Line: 42, Match: "segment apps -> vm web1 tcp/80", Action: "allow", Alert: true, Flows: 1}}}
}

func explanation(t api.Tuple) api.Explanation {
	proto, _ := api.ParseProto(t.Proto)
	return api.Explanation{
		Flow: verdict.Flow{Proto: proto,
			Src: verdict.Endpoint{VM: "app1", Segment: "apps", Addr: netip.MustParseAddr(t.Src), Port: t.SrcPort},
			Dst: verdict.Endpoint{Router: "gw", Segment: "web", Addr: netip.MustParseAddr(t.Dst), Port: t.DstPort}},
		Verdict: "forward", Cause: "rule", Rule: "web", Location: "/etc/vmgate/gateway.yaml:42",
		SrcOwner: verdict.Owner{State: verdict.OwnerKnown, Processes: []verdict.Process{*curl()}, Observed: noon},
		DstOwner: verdict.Owner{State: verdict.OwnerUndeclared},
		Decision: verdict.Decision{Verdict: verdict.Forward, Cause: verdict.CauseRule, Rule: "web", Evidence: []verdict.Evidence{
			{Kind: verdict.EvidenceRule, Observed: noon, Verdict: verdict.Forward, Cause: verdict.CauseRule, Detail: "rule web, line 42"}}},
		InMap: true,
		Notes: []string{"the flow's last packet was 2s ago"},
	}
}

func events() []event.Event {
	return []event.Event{
		{Timestamp: noon, Type: "decision", SrcIP: "10.0.0.11", SrcPort: 40000, DestIP: "10.0.0.21", DestPort: 80, Proto: "TCP",
			SrcVM: "app1", DestVM: "web1", SrcProcess: curl(), Verdict: "forward", Cause: "rule", Rule: "web"},
		{Timestamp: noon, Type: "drop", SrcIP: "10.0.0.21", DestIP: "10.0.0.99", Proto: "ICMP", SrcVM: "web1", Reason: "spoof-ip"},
		{Timestamp: noon, Type: "alert", SrcVM: "app1", Verdict: "drop", Alert: &event.Alert{Action: "blocked", GID: 1, SID: 1000001, Rev: 2, Signature: "SYN flood"}},
		{Timestamp: noon, Type: "lost", Message: "3 events lost"},
		{Timestamp: noon, Type: "operator", SrcVM: "app2", Message: "isolate app2 by root"},
	}
}
