package loader

import (
	"errors"
	"fmt"
)

// PortKind says what a port is; the numbers are those of enum port_kind in
// bpf/types.h.
type PortKind uint32

// The kinds of ports.
const (
	PortVNIC   PortKind = iota // a vNIC of the gateway, in a segment
	PortIDSIn                  // the gateway's end of the IDS port that packets towards the server enter
	PortIDSOut                 // the gateway's end of the other one
)

// Port is a device that the kernel programs are wanted on.
type Port struct {
	ID      uint32 // 1 to MaxPorts-1
	Device  string // its name in the caller's network namespace
	Kind    PortKind
	Segment uint32 // segment number, 0 for IDS ports
	Group   uint32 // layer 2 group; flows of two groups never meet, IDS ports serve those of theirs

	HasRouter bool   // a router or DHCP server is behind it
	Reflect   bool   // frames may leave by the port they came by
	Tagged    bool   // the segment has VLANs
	Proxy     bool   // its VMs reach each other by the device's MAC; wants Reflect
	Multicast bool   // what goes to all or to a group is flooded
	Answer    bool   // ARP and neighbour solicitations are answered here
	Bridge    string // bridge that the device is enslaved to, "" for none; see EnsureBridge

	Datapath Datapath // of a vNIC; IDS ports are XDP
}

// PortState is a wanted port and what became of it.
type PortState struct {
	Port
	Ifindex  int   // 0 while there is no such device
	Attached bool  // all programs are attached
	Adopted  bool  // the links were there already and went on without a gap
	Err      error // why it is not attached: ErrNoDevice, or what failed and what to do

	Datapath Datapath // in use: not DatapathAuto
	Fallback error    // why DatapathAuto has chosen TCX, nil if it has not
}

// ErrNoDevice is the state of a port whose device does not exist (yet).
var ErrNoDevice = errors.New("no such device")

// checkPorts refuses a list that no data plane can have.
func checkPorts(ports []Port) error {
	ids, devices := map[uint32]string{}, map[string]bool{}
	for _, p := range ports {
		switch {
		case p.Device == "":
			return fmt.Errorf("port %d names no device", p.ID)
		case p.ID == 0 || p.ID >= MaxPorts:
			return fmt.Errorf("port id %d of %s is out of range: at most %d ports", p.ID, p.Device, MaxPorts-1)
		case ids[p.ID] != "":
			return fmt.Errorf("port id %d is given to both %s and %s", p.ID, ids[p.ID], p.Device)
		case devices[p.Device]:
			return fmt.Errorf("device %s is given to two ports", p.Device)
		case p.Kind > PortIDSOut:
			return fmt.Errorf("port %s is of unknown kind %d", p.Device, p.Kind)
		case p.Bridge != "" && p.Kind != PortVNIC:
			return fmt.Errorf("IDS port %s must not be in bridge %s", p.Device, p.Bridge)
		}
		ids[p.ID], devices[p.Device] = p.Device, true
	}
	return nil
}
