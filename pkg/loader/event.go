package loader

import "fmt"

// EventType says what an event is about; the numbers are those of enum
// event_type in bpf/types.h.
type EventType uint32

// The types of events.
const (
	EventDrop       EventType = iota // a dropped packet, sampled
	EventSpoof                       // a claim of another's MAC, address or segment
	EventUndecided                   // a flow that cannot be held; its pending entry exists
	EventNewAddress                  // an address was learned
	EventDHCP                        // a declared DHCP server has answered a client
)

var eventTypeNames = [...]string{"drop", "spoof", "undecided", "new-address", "dhcp"}

// String returns the type's name.
func (t EventType) String() string {
	if int(t) < len(eventTypeNames) {
		return eventTypeNames[t]
	}
	return fmt.Sprintf("event-%d", uint32(t))
}

// Event is what a kernel program reports of one packet.
type Event struct {
	Time            uint64
	Type            EventType
	Reason          Reason
	Cause           uint32
	Port            uint32
	VM, Owner, Rule uint32  // 0 for none
	Key             FlowKey // the zero FlowKey where the frame has none
	From            int     // index into the key's ends of the sender
	SrcMAC, DstMAC  MAC
	Ethertype       uint16 // host order
	FrameLen        uint16
	DHCP            []byte // of EventDHCP: the first 512 bytes of the message at most
}

func eventFromWire(w wireEvent) Event {
	return Event{
		Time:      w.Time,
		Type:      EventType(w.Type),
		Reason:    Reason(w.Reason),
		Cause:     uint32(w.Cause),
		Port:      w.Port,
		VM:        w.Vm,
		Owner:     w.Owner,
		Rule:      w.Rule,
		Key:       flowKeyFromWire(w.Key),
		From:      int(w.From & 1),
		SrcMAC:    w.SrcMac,
		DstMAC:    w.DstMac,
		Ethertype: hton16(w.Ethertype),
		FrameLen:  w.FrameLen,
	}
}
