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

// Settings are the knobs that the kernel programs read with every packet.
type Settings struct {
	Mode             Mode
	IDS              IDSState
	NewFlowsOpen     bool          // when the daemon is silent
	HeldPerFlow      uint32        // packets of an undecided flow that are held
	HeartbeatTimeout time.Duration // after it without Heartbeat the daemon counts as silent
	PendingTimeout   time.Duration
	TCPEstablished   time.Duration // idle times
	TCPTransient     time.Duration // handshake not complete, or FIN or RST seen
	UDPIdle          time.Duration
	OtherIdle        time.Duration
	IDSIn, IDSOut    uint32 // port ids; 0 for none
	EventSample      uint32 // at most this many events a second and reason; 0: none
}

// SetSettings writes the settings; they hold from the next packet.
func (d *Dataplane) SetSettings(s Settings) error { return d.settings.put(0, s) }

// Settings returns the settings in force.
func (d *Dataplane) Settings() (Settings, error) { return d.settings.at(0) }

func (s Settings) wire() wireSettings {
	return wireSettings{
		Mode:             bpf.VmgateMode(s.Mode),
		Ids:              bpf.VmgateIdsState(s.IDS),
		NewFlowsOpen:     flag[uint32](s.NewFlowsOpen, 1),
		HeldPerFlow:      s.HeldPerFlow,
		HeartbeatTimeout: uint64(s.HeartbeatTimeout),
		PendingTimeout:   uint64(s.PendingTimeout),
		TcpEstablished:   uint64(s.TCPEstablished),
		TcpTransient:     uint64(s.TCPTransient),
		UdpIdle:          uint64(s.UDPIdle),
		OtherIdle:        uint64(s.OtherIdle),
		IdsIn:            s.IDSIn,
		IdsOut:           s.IDSOut,
		EventSample:      s.EventSample,
	}
}

func settingsFromWire(w wireSettings) Settings {
	return Settings{
		Mode:             Mode(w.Mode),
		IDS:              IDSState(w.Ids),
		NewFlowsOpen:     w.NewFlowsOpen != 0,
		HeldPerFlow:      w.HeldPerFlow,
		HeartbeatTimeout: time.Duration(w.HeartbeatTimeout),
		PendingTimeout:   time.Duration(w.PendingTimeout),
		TCPEstablished:   time.Duration(w.TcpEstablished),
		TCPTransient:     time.Duration(w.TcpTransient),
		UDPIdle:          time.Duration(w.UdpIdle),
		OtherIdle:        time.Duration(w.OtherIdle),
		IDSIn:            w.IdsIn,
		IDSOut:           w.IdsOut,
		EventSample:      w.EventSample,
	}
}
