package app

import (
	"context"
	"net"
	"time"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/snort"
)

// attendant keeps canaries going through one engine, and looks at it.
type attendant struct {
	ids     *ids
	engine  engine
	own     *snort.Engine      // the same, nil where others run it
	device  [directions]string // the engine's ends
	pid     int                // of the process that is looked after; 0 where others run it
	begun   bool               // something is looked after
	birds   *canary
	ports   [directions]*canaryPort
	taps    [directions]*canaryPort // nil where the engine is out of sight
	threads *threads                // nil where there is no process, or none in sight
	watch   watch
	pulse   pulse
	out     [directions]uint64 // frames that came out so far
}

// watchEngine looks after the engine until ctx is done. The kernel sends it traffic
// only once it is proven; one of ours (own is not nil) that hangs is killed.
func (i *ids) watchEngine(ctx context.Context, cfg *config.Config, engine engine, own *snort.Engine) {
	ports := idsPorts(cfg)
	isVM := func(mac net.HardwareAddr) bool { return i.now().inv.byHardware(mac) != nil }
	a := &attendant{ids: i, engine: engine, own: own, device: [directions]string{ports.EngineIn, ports.EngineOut}, birds: newCanary(isVM)}
	i.beats.macs.Store(&[2]net.HardwareAddr{a.birds.client, a.birds.server})
	a.pulse.beats, a.pulse.optional = &i.beats, own == nil
	a.ports, a.taps = canaryPorts(ports, i.log)
	defer a.close()
	for ctx.Err() == nil {
		if a.threads.wait(lookEvery) {
			i.died(a.threads.pid)
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
		a.out, _ = a.ids.framesThrough()
	}
	sight := a.look()
	wasUp := a.proven()
	hung := a.watch.tick(lookEvery, sight)
	if hung == "" {
		hung = a.pulse.tick(lookEvery, s.Lines)
	}
	if hung != "" {
		a.ids.hung(a.own, s.PID, hung)
		a.leave()
		return
	}
	if a.proven() && !wasUp {
		a.ids.prove(s.PID)
	}
	for d, port := range a.ports {
		port.send(a.birds.next(d))
	}
}

// proven says whether the engine lets canaries through both ways, and tells of the
// heartbeat.
func (a *attendant) proven() bool { return a.watch.up() && a.pulse.felt() }

// look reads everything that tells how the engine does.
func (a *attendant) look() *sight {
	sight := &sight{}
	for port := range a.ports {
		a.taps[port].drain(func(frame []byte) { a.birds.entered(port, frame) })
		a.ports[port].drain(func(frame []byte) {
			if kind, ok := a.birds.came(port, frame); ok {
				sight.life[directions-1-port] = true
				a.pulse.passed(kind, directions-1-port)
			}
		})
	}
	sight.waiting = a.birds.look()
	if a.threads != nil && a.threads.look() == nil {
		sight.threads = a.threads.all
	}
	out, given := a.out, uint64(0)
	if sight.life != [directions]bool{true, true} || a.watch.suspect() {
		out, given = a.ids.framesThrough()
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
	for d := range a.ports {
		a.ports[d].close()
		a.taps[d].close()
	}
}

// framesThrough counts the frames so far that came out of the engine, by direction,
// and those that it was given, canaries aside.
func (i *ids) framesThrough() (out [directions]uint64, given uint64) {
	counters, err := i.dp.Counters()
	if err != nil {
		i.log.Error("cannot read what went through the IDS", "error", err)
	}
	far := map[uint32]int{idsOutPort: inToOut, idsInPort: outToIn}
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
func (i *ids) prove(pid int) {
	if !i.set(pid, true) {
		return
	}
	i.log.Info("ids", "state", "up", "pid", pid)
	i.journal.note("ids", "engine up: canaries come through in both directions, and alerts come back")
}

// died takes the traffic from the process pid of the engine, which has ended; its
// supervision says why, and starts another.
func (i *ids) died(pid int) { i.set(pid, false) }

// hung takes the traffic from the process pid of the engine, and kills it if it is
// ours; its supervision starts another.
func (i *ids) hung(own *snort.Engine, pid int, why string) {
	if !i.isUp() && own == nil || !i.set(pid, false) {
		return
	}
	i.log.Error("ids", "state", "hung", "pid", pid, "detail", why)
	i.journal.note("ids", why)
	if own != nil {
		own.Kill(pid, why)
	}
}
