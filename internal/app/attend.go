package app

import (
	"context"
	"errors"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/pkg/snort"
)

// attendant keeps canaries going through one engine, and looks at it.
type attendant struct {
	*instance
	device  [directions]string // the engine's ends
	pid     int                // of the process that is looked after; 0 where others run it
	begun   bool               // something is looked after
	birds   *canary
	ends    [directions]*canaryPort
	taps    [directions]*canaryPort // nil where the engine is out of sight
	threads *threads                // nil where there is no process, or none in sight
	watch   watch
	pulse   pulse
	out     [directions]uint64 // frames that came out so far
}

const attendantNice = -15

// watchEngine looks after the engine until ctx is done. The kernel sends it traffic
// only once it is proven; one of ours that hangs is killed.
func (n *instance) watchEngine(ctx context.Context) {
	isVM := func(mac net.HardwareAddr) bool { return n.now().inv.byHardware(mac) != nil }
	a := &attendant{instance: n, device: [directions]string{n.ports.EngineIn, n.ports.EngineOut}, birds: newCanary(isVM)}
	n.beats.macs.Store(&[2]net.HardwareAddr{a.birds.client, a.birds.server})
	a.pulse.beats, a.pulse.optional = &n.beats, n.own == nil
	a.ends, a.taps = canaryPorts(n.ports, n.log)
	defer a.close()
	// A thread of its own, which ends with it, and before others: who looks late
	// notices late. Without the capability it is as good as it can be.
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), attendantNice)
	for ctx.Err() == nil {
		if a.threads.wait(lookEvery) {
			n.died(a.threads.pid)
			a.leave()
			time.Sleep(lookEvery) // its supervision is about to notice
			continue
		}
		a.round()
	}
}

// round looks once, and sends the next canaries.
func (a *attendant) round() {
	s := a.engine.State()
	if s.Phase != snort.PhaseUp {
		a.leave()
		return
	}
	if !a.begun || a.pid != s.PID {
		a.leave()
		a.begun, a.pid = true, s.PID
		if s.PID != 0 {
			a.threads = newThreads(s.PID, a.device)
		}
		a.birds.forget()
		a.out, _ = a.framesThrough()
	}
	sight := a.look()
	if sight.ending {
		a.died(s.PID)
		a.leave()
		return
	}
	wasUp := a.proven()
	hung := a.watch.tick(lookEvery, sight)
	if hung == "" {
		hung = a.pulse.tick(lookEvery, s.Lines)
	}
	if hung != "" {
		a.hung(s.PID, hung)
		a.leave()
		return
	}
	if a.proven() && !wasUp {
		a.prove(s.PID)
	}
	for d, port := range a.ends {
		port.send(a.birds.next(d))
	}
}

// proven says whether the engine lets canaries through both ways, and tells of the
// heartbeat.
func (a *attendant) proven() bool { return a.watch.up() && a.pulse.felt() }

// look reads everything that tells how the engine does.
func (a *attendant) look() *sight {
	sight := &sight{}
	for port := range a.ends {
		a.taps[port].drain(func(frame []byte) { a.birds.entered(port, frame) })
		a.ends[port].drain(func(frame []byte) {
			if kind, ok := a.birds.came(port, frame); ok {
				sight.life[directions-1-port] = true
				a.instance.seen[directions-1-port].Store(time.Now().UnixNano())
				a.pulse.passed(kind, directions-1-port)
			}
		})
	}
	sight.waiting = a.birds.look()
	if a.threads != nil {
		err := a.threads.look()
		sight.ending = errors.Is(err, errEnding)
		if err == nil {
			sight.threads = a.threads.all
		}
	}
	out, given := a.out, uint64(0)
	if sight.life != [directions]bool{true, true} || a.watch.suspect() {
		out, given = a.framesThrough()
	}
	for d := range out {
		// A first reading has nothing to compare with.
		sight.life[d] = sight.life[d] || a.watch.suspect() && out[d] != a.out[d]
	}
	a.out, sight.given = out, given
	return sight
}

// leave forgets the process that was looked after.
func (a *attendant) leave() {
	if a.threads != nil {
		a.threads.close()
	}
	a.begun, a.threads, a.watch = false, nil, watch{}
	a.pulse.forget()
}

func (a *attendant) close() {
	a.leave()
	for d := range a.ends {
		a.ends[d].close()
		a.taps[d].close()
	}
}

// framesThrough counts the frames so far that came out of the engine, by direction,
// and those that it was given, canaries aside.
func (n *instance) framesThrough() (out [directions]uint64, given uint64) {
	counters, err := n.dp.Counters()
	if err != nil {
		n.log.Error("cannot read what went through the IDS", "error", err)
	}
	far := map[uint32]int{idsOutPort(n.number): inToOut, idsInPort(n.number): outToIn}
	for _, c := range counters {
		switch name := c.Reason.String(); {
		case name == "check" || name == "egress-check":
			given += c.Packets
		case name == "canary":
		default:
			if d, ok := far[c.PortID]; ok {
				out[d] += c.Packets
			}
		}
	}
	return out, given
}

// prove lets traffic to the process pid of the engine: canaries came through.
func (n *instance) prove(pid int) {
	if !n.set(pid, true) {
		return
	}
	n.metrics.CountIDS("up")
	n.log.Info("ids", "engine", n.number, "state", "up", "pid", pid)
	n.note("up: canaries come through in both directions, and alerts come back")
}

// died takes the traffic from the process pid of the engine, which has ended; its
// supervision says why, and starts another.
func (n *instance) died(pid int) { n.set(pid, false) }

// hung takes the traffic from the process pid of the engine, and kills it if it is
// ours; its supervision starts another.
func (n *instance) hung(pid int, why string) {
	if !n.isUp() && n.own == nil || !n.set(pid, false) {
		return
	}
	n.metrics.CountIDS("hung")
	n.log.Error("ids", "engine", n.number, "state", "hung", "pid", pid, "detail", why)
	n.journal.note("ids", why)
	n.mu.Lock()
	n.why = why
	n.mu.Unlock()
	if n.own != nil {
		n.own.Kill(pid, why)
	}
}
