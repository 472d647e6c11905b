package snort

import (
	"net/netip"
	"slices"

	// Decodes hostile packets for years; nothing to write anew for three headers.
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// fillFrame takes from the frame that an alert is about what its record does not
// say: the MAC addresses, the outer VLAN, and who sent it to whom. Of a tunnel that
// are the outer addresses; its inside was chosen by whoever built it. What the frame
// does not have stays as it is.
func (a *Alert) fillFrame(frame []byte) {
	packet := gopacket.NewPacket(frame[:min(len(frame), maxHeaders)], layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true})
	hasIP := false
	for depth, layer := range packet.Layers() {
		switch l := layer.(type) {
		case *layers.Ethernet:
			if depth == 0 {
				a.SrcMAC, a.DstMAC = slices.Clone(l.SrcMAC), slices.Clone(l.DstMAC)
				a.VLAN = 0
			}
		case *layers.Dot1Q:
			if depth == 1 {
				a.VLAN = l.VLANIdentifier
			}
		case *layers.IPv4:
			if hasIP {
				return
			}
			hasIP = true
			a.fillIP(l.SrcIP, l.DstIP, uint8(l.Protocol))
		case *layers.IPv6:
			if hasIP {
				return
			}
			hasIP = true
			a.fillIP(l.SrcIP, l.DstIP, uint8(l.NextHeader))
		case *layers.IPv6HopByHop:
			a.Proto = uint8(l.NextHeader)
		case *layers.IPv6Routing:
			a.Proto = uint8(l.NextHeader)
		case *layers.IPv6Destination:
			a.Proto = uint8(l.NextHeader)
		case *layers.IPv6Fragment:
			a.Proto = uint8(l.NextHeader)
		case *layers.TCP:
			a.fillPorts(hasIP, uint16(l.SrcPort), uint16(l.DstPort))
			return
		case *layers.UDP:
			a.fillPorts(hasIP, uint16(l.SrcPort), uint16(l.DstPort))
			return
		case *layers.SCTP:
			a.fillPorts(hasIP, uint16(l.SrcPort), uint16(l.DstPort))
			return
		default:
			return
		}
	}
}

// maxHeaders bounds how far a frame is looked into, in bytes.
const maxHeaders = 512

func (a *Alert) fillIP(src, dst []byte, proto uint8) {
	from, okFrom := netip.AddrFromSlice(src)
	to, okTo := netip.AddrFromSlice(dst)
	if !okFrom || !okTo {
		return
	}
	a.Src, a.Dst, a.Proto = netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0), proto
}

func (a *Alert) fillPorts(hasIP bool, src, dst uint16) {
	if hasIP {
		a.Src, a.Dst = netip.AddrPortFrom(a.Src.Addr(), src), netip.AddrPortFrom(a.Dst.Addr(), dst)
	}
}
