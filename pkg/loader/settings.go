package loader

import (
	"time"

	"github.com/vmgate/vmgate/bpf"
)

// Mode says how verdicts are enforced.
type Mode uint32

// The modes.
const (
	ModeEnforce Mode = iota
	ModeMonitor      // decide and count, forward everything
	ModeClose        // the operator's panic: nothing passes
	ModeOpen         // the operator's panic: everything passes
)

// IDSState tells the kernel what to do with traffic to be checked.
type IDSState uint32

// The states of the IDS.
const (
	IDSUp         IDSState = iota
	IDSDownClosed          // dead or hung: what is to be checked is dropped
	IDSDownOpen            // dead or hung: what is to be checked is forwarded
)

// IDSInstance is one engine between two ports.
type IDSInstance struct {
	In, Out uint32 // port ids; 0 for none
	State   IDSState
}

// Settings are the knobs that the kernel programs read with every packet.
type Settings struct {
	Mode             Mode
	NewFlowsOpen     bool          // when the daemon is silent
	HeldPerFlow      uint32        // packets of an undecided flow that are held
	HeartbeatTimeout time.Duration // after it without Heartbeat the daemon counts as silent
	PendingTimeout   time.Duration
	TCPEstablished   time.Duration // idle times
	TCPTransient     time.Duration // handshake not complete, or FIN or RST seen
	UDPIdle          time.Duration
	OtherIdle        time.Duration
	EventSample      uint32 // at most this many events a second and reason; 0: none
	IDS              [MaxIDS]IDSInstance
	Slots            [IDSSlots]uint8 // whose flows are whose: index into IDS by FlowKey.IDSSlot
}

// SetSettings writes the settings; they hold from the next packet.
func (d *Dataplane) SetSettings(s Settings) error { return d.settings.put(0, s) }

// Settings returns the settings in force.
func (d *Dataplane) Settings() (Settings, error) { return d.settings.at(0) }

func (s Settings) wire() wireSettings {
	w := wireSettings{
		Mode:             bpf.VmgateMode(s.Mode),
		NewFlowsOpen:     flag[uint32](s.NewFlowsOpen, 1),
		HeldPerFlow:      s.HeldPerFlow,
		HeartbeatTimeout: uint64(s.HeartbeatTimeout),
		PendingTimeout:   uint64(s.PendingTimeout),
		TcpEstablished:   uint64(s.TCPEstablished),
		TcpTransient:     uint64(s.TCPTransient),
		UdpIdle:          uint64(s.UDPIdle),
		OtherIdle:        uint64(s.OtherIdle),
		EventSample:      s.EventSample,
		IdsSlot:          s.Slots,
	}
	for i, one := range s.IDS {
		w.Ids[i].In, w.Ids[i].Out, w.Ids[i].State = one.In, one.Out, bpf.VmgateIdsState(one.State)
	}
	return w
}

func settingsFromWire(w wireSettings) Settings {
	s := Settings{
		Mode:             Mode(w.Mode),
		NewFlowsOpen:     w.NewFlowsOpen != 0,
		HeldPerFlow:      w.HeldPerFlow,
		HeartbeatTimeout: time.Duration(w.HeartbeatTimeout),
		PendingTimeout:   time.Duration(w.PendingTimeout),
		TCPEstablished:   time.Duration(w.TcpEstablished),
		TCPTransient:     time.Duration(w.TcpTransient),
		UDPIdle:          time.Duration(w.UdpIdle),
		OtherIdle:        time.Duration(w.OtherIdle),
		EventSample:      w.EventSample,
		Slots:            w.IdsSlot,
	}
	for i, one := range w.Ids {
		s.IDS[i] = IDSInstance{In: one.In, Out: one.Out, State: IDSState(one.State)}
	}
	return s
}
