package bpf_test

import (
	"bytes"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

// ethertypeCanary is the local experimental ethertype, of the daemon's frames for
// the IDS.
const ethertypeCanary = layers.EthernetType(0x88b5)

func canary(t *testing.T, tags []layers.Dot1Q) []byte {
	t.Helper()
	stack := ethernet(macNobody, mac("02:00:00:00:00:98"), tags, 0, ethertypeCanary)
	return serialise(t, append(stack, gopacket.Payload(bytes.Repeat([]byte{1}, 46)))...)
}

func TestCanary_ComesUpFromTheIDSAlone(t *testing.T) { bothPaths(t, testCanary_ComesUpFromTheIDSAlone) }

func testCanary_ComesUpFromTheIDSAlone(t *testing.T, g *gateway) {
	up := want{action: xdpPass, reason: bpf.VmgateReasonREASON_CANARY}
	for _, side := range []uint32{portIDSIn, portIDSOut} {
		i := g.ids(side)
		i.expect(canary(t, nil), up)
		i.expect(canary(t, vlan(5)), dropped(bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE))
		for _, mode := range []bpf.VmgateMode{bpf.VmgateModeMODE_MONITOR, bpf.VmgateModeMODE_OPEN, bpf.VmgateModeMODE_CLOSE} {
			g.mode(mode)
			i.expect(canary(t, nil), up)
		}
		g.mode(bpf.VmgateModeMODE_ENFORCE)
	}
}

func TestCanary_OfIP(t *testing.T) { bothPaths(t, testCanary_OfIP) }

func testCanary_OfIP(t *testing.T, g *gateway) {
	ours, other := mac("0a:76:6d:67:00:01"), mac("0a:76:6d:68:00:01")
	frame := func(src net.HardwareAddr, tags []layers.Dot1Q) []byte {
		return serialise(t, append(ethernet(src, macNobody, tags, 0, layers.EthernetTypeIPv4), gopacket.Payload(bytes.Repeat([]byte{1}, 46)))...)
	}
	for _, side := range []uint32{portIDSIn, portIDSOut} {
		i := g.ids(side)
		i.expect(frame(ours, nil), want{action: xdpPass, reason: bpf.VmgateReasonREASON_CANARY})
		i.expect(frame(other, nil), dropped(bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE))
		i.expect(frame(ours, vlan(5)), dropped(bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE))
	}
	g.expect(frame(ours, nil), dropped(bpf.VmgateReasonREASON_DROP_MALFORMED))
}

func TestCanary_OfAGuestGetsNowhere(t *testing.T) { bothPaths(t, testCanary_OfAGuestGetsNowhere) }

func testCanary_OfAGuestGetsNowhere(t *testing.T, g *gateway) {
	frame := canary(t, nil)
	g.expect(frame, dropped(bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE))
	copy(frame, macWeb)
	copy(frame[6:], macApp1)
	for _, v := range []bpf.VmgateVerdict{forward, check} { // check: all of its frames go to the IDS
		g.vmVerdict(idApp1, v)
		g.expect(frame, dropped(bpf.VmgateReasonREASON_DROP_ETHERTYPE))
	}
}
