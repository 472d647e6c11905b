package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/internal/lab/daemon"
)

// stage is everything that the steps play on.
type stage struct {
	opt     Options
	screen  *screen
	lab     *lab.Topology
	gateway *daemon.Daemon
	client  *api.Client
	feed    *feed

	followed chan struct{} // closed when the feed has ended
	stop     context.CancelFunc

	// What one step leaves for another.
	transfer *lab.Process // of an honest process in app1, since before the flood
	attacker *lab.Process
	port     int // that the malicious process held
	unhide   func() error
}

// newStage boots the guests and starts the gateway. On failure nothing is left.
func newStage(ctx context.Context, opt Options, scr *screen) (st *stage, err error) {
	st = &stage{opt: opt, screen: scr}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close())
			st = nil
		}
	}()
	scr.line("booting app1, app2 and web1 (%s): this takes 5 to 60 seconds", lab.Acceleration())
	if st.lab, err = lab.NewTopology(ctx, lab.Guests, opt.Log); err != nil {
		return st, fmt.Errorf("cannot set up the virtual machines: %w", err)
	}
	scr.line("guests are up; two vSwitches, app1 and app2 on one, web1 on the other")
	if st.gateway, err = startGateway(st); err != nil {
		return st, err
	}
	st.client = st.gateway.Client
	if err := st.awaitGateway(ctx); err != nil {
		return st, err
	}
	feedCtx, stop := context.WithCancel(ctx)
	st.stop, st.feed, st.followed = stop, newFeed(scr), make(chan struct{})
	go func() {
		defer close(st.followed)
		if err := st.feed.follow(feedCtx, st.client); err != nil && feedCtx.Err() == nil {
			scr.line("%v", err)
		}
	}()
	return st, st.startServers(ctx)
}

// awaitGateway waits until the gateway sees everything that it is to see.
func (st *stage) awaitGateway(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	told := map[string]bool{}
	tell := func(what string) {
		if !told[what] {
			told[what] = true
			st.screen.line("%s", what)
		}
	}
	return st.gateway.Await(ctx, func(status api.Status) bool {
		tell("gatewayd is up: vNICs gw-apps and gw-web attached, pid " + fmt.Sprint(status.PID))
		tell(status.IDS.Engine + " is inline")
		vms, err := st.client.VMs(ctx)
		if err != nil {
			return false // the daemon ends
		}
		ready := true
		for _, vm := range vms {
			if vm.Memory == "ready" {
				tell(vm.ID + " is understood from its memory: " + vm.OS)
			}
			ready = ready && vm.Memory == "ready"
		}
		return ready
	})
}

// startServers starts what the other processes connect to.
func (st *stage) startServers(ctx context.Context) error {
	for _, s := range []struct {
		host  *lab.Host
		name  string
		ports string
	}{{st.lab.Web1, "webserver", "22,80,8080"}, {st.lab.App2, "appserver", "7000"}} {
		p, err := s.host.Guest.Start(ctx, s.name, "serve", "-tcp", s.ports)
		if err != nil {
			return fmt.Errorf("cannot start %s in %s: %w", s.name, s.host.Name, err)
		}
		if _, err := p.WaitLine(ctx, contains(`"serving":true`)); err != nil {
			return fmt.Errorf("%s in %s does not serve: %w", s.name, s.host.Name, err)
		}
		st.screen.line("%s[%d] serves tcp %s in %s", s.name, p.PID(), s.ports, s.host.Name)
	}
	return nil
}

// close takes everything down, in the opposite order.
func (st *stage) close() error {
	var errs []error
	if st.stop != nil {
		st.stop()
		<-st.followed
	}
	if st.gateway != nil {
		errs = append(errs, st.gateway.Close())
	}
	if st.lab != nil {
		errs = append(errs, st.lab.Close())
	}
	return errors.Join(errs...)
}

// poll calls done until it says so, fails, or ctx ends.
func poll(ctx context.Context, what string, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		case <-time.After(200 * time.Millisecond):
		}
	}
}
