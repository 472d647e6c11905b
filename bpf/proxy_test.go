package bpf_test

import (
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

// proxied is a gateway whose port is a proxy for app1 and app2.
func proxied(t *testing.T, path datapath) *gateway {
	g := load(t, path, bpf.VmgatePortConfig{Id: portApp, Segment: portApp, Group: group, Proxy: 1, Mac: [6]byte(macGateway)}, nil)
	g.populate()
	g.put("ports", uint32(portApp), bpf.VmgatePort{
		Ifindex: loopback, Mac: [6]byte(macGateway), Flags: bpf.VmgatePortFlagPORT_REFLECT | bpf.VmgatePortFlagPORT_PROXY,
	})
	return g
}

func TestProxy(t *testing.T) {
	answered := redirected(portApp, bpf.VmgateReasonREASON_CONTROL_ANSWERED)
	for _, path := range []datapath{pathXDP, pathTCX} {
		t.Run(string(path), func(t *testing.T) {
			g := proxied(t, path)
			question := arp(macApp1, broadcast, 1, macApp1, app1, nil, app2).build(t)
			answer := arp(macGateway, macApp1, 2, macGateway, app2, macApp1, app1).build(t)
			g.expect(question, answered.as(answer))
			g.expect(overwrite(question, 0, macGateway...), answered.as(answer)) // asked again
			elsewhere := arp(macApp1, broadcast, 1, macApp1, app1, nil, web).build(t)
			g.expect(elsewhere, controlTo(portWeb).rewritten(elsewhere, macWeb))

			mcast, to := solicited(app26)
			solicitation := nd(macApp1, mcast, app16, to, 255, 135, ndBody(app26, 1, macApp1)...).build(t)
			advert := nd(macGateway, macApp1, app26, app16, 255, 136, overwrite(ndBody(app26, 2, macGateway), 0, 0x60)...).build(t)
			g.expect(solicitation, answered.as(advert))
			isFree := nd(macApp1, mcast, none6, to, 255, 135, ndBody(app26, 0, nil)...).build(t)
			g.expect(isFree, absorbed)

			g.vmVerdict(idApp2, drop)
			g.expect(question, cutOff)
			g.vmVerdict(idApp2, forward)

			// Undecided, it goes up for whom it is; decided, it leaves as the gateway's.
			asked := udpApp1ToWeb(1, 2).with(func(p *packet) { p.dstMAC, p.dst = macGateway, app2 }).build(t)
			g.expect(asked, punted().rewritten(asked, macApp2))
			flow := g.decide(17, 0, app1, 1, app2, 2, func(f *bpf.VmgateFlow) {
				d := &f.Dir[f.Initiator]
				d.DstMac, d.OutPort = [6]byte(macApp2), portApp
			})
			w := forwardedTo(portApp).rewritten(asked, macApp2)
			copy(w.out[6:], macGateway)
			g.expect(asked, w)
			g.owner(ownerApp, check)
			g.expect(asked, checkedBy(portIDSIn).rewritten(asked, macApp2))
			toIDS := overwrite(asked, 0, macApp2...)
			back := redirected(portApp, bpf.VmgateReasonREASON_IDS_RETURN)
			back.out = w.out
			g.ids(portIDSOut).expect(toIDS, back)
			if g.flow(flow).Dir[0].Packets+g.flow(flow).Dir[1].Packets != 2 {
				t.Errorf("flow %+v", g.flow(flow))
			}
			stranger := udpApp1ToWeb(1, 2).with(func(p *packet) { p.dstMAC, p.dst = macGateway, far }).build(t)
			g.expect(stranger, unknownDst)
		})
	}
}

// as says how the frame leaves.
func (w want) as(out []byte) want {
	w.out = out
	return w
}

func TestProxy_EgressPutsTheDevicesMACInAndSendsNothingBackToAll(t *testing.T) {
	g := proxied(t, pathXDP)
	frame := udpApp1ToWeb(1, 2).with(func(p *packet) { p.dstMAC, p.dst = macApp2, app2 }).build(t)
	g.expectEgress(frame, overwrite(frame, 6, macGateway...), tcOK, bpf.VmgateReasonREASON_EGRESS)
	fromWeb := udpApp1ToWeb(1, 2).reversed(&layers.UDP{SrcPort: 2, DstPort: 1}).build(t)
	g.expectEgress(fromWeb, fromWeb, tcOK, bpf.VmgateReasonREASON_EGRESS)
	toAll := dhcp(macApp1, broadcast, macApp1, layers.DHCPOpRequest).build(t)
	g.expectEgress(toAll, toAll, tcShot, bpf.VmgateReasonREASON_CONTROL_ABSORBED)
}

func (g *gateway) expectEgress(frame, out []byte, action uint32, r reason) {
	g.Helper()
	before := g.counters(g.port)
	opts := skbRun(frame, bpf.VmgateMarkMARK_FORWARD)
	got, err := g.progs["vmgate_egress"].Run(opts)
	if err != nil {
		g.Fatal(err)
	}
	counted := diff(before, g.counters(g.port))
	if got != action || string(opts.DataOut) != string(out) || counted[r].Packets != 1 {
		g.Errorf("action %d, counted %v, left as\n% x, want\n% x", got, counted, opts.DataOut, out)
	}
}

func TestAnswer_ForWhomeverIsKnown(t *testing.T) {
	for _, path := range []datapath{pathXDP, pathTCX} {
		t.Run(string(path), func(t *testing.T) {
			g := load(t, path, bpf.VmgatePortConfig{Id: portApp, Segment: portApp, Group: group, Answer: 1}, nil)
			g.populate()
			answered := redirected(portApp, bpf.VmgateReasonREASON_CONTROL_ANSWERED)
			g.expect(arp(macApp1, broadcast, 1, macApp1, app1, nil, gw).build(t),
				answered.as(arp(macRouter, macApp1, 2, macRouter, gw, macApp1, app1).build(t)))
			g.address(idRouter, far6, portRouter, macRouter)
			mcast, to := solicited(far6)
			// The router remains one to those who ask.
			g.expect(nd(macApp1, mcast, app16, to, 255, 135, ndBody(far6, 1, macApp1)...).build(t),
				answered.as(nd(macRouter, macApp1, far6, app16, 255, 136, overwrite(ndBody(far6, 2, macRouter), 0, 0xe0)...).build(t)))
			g.vmVerdict(idRouter, drop)
			g.expect(arp(macApp1, broadcast, 1, macApp1, app1, nil, gw).build(t), cutOff)
		})
	}
}
