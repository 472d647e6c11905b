package loader

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// following runs Follow in the gateway's namespace until the test ends.
func (g *gateway) following() <-chan PortState {
	g.t.Helper()
	ns, err := netns.Get()
	must(g.t, err)
	states, ended := make(chan PortState, 64), make(chan error, 1)
	ctx, cancel := context.WithCancel(g.t.Context())
	go func() {
		ended <- inNetNS(ns, func() error { return g.d.Follow(ctx, func(st PortState) { states <- st }) })
	}()
	g.t.Cleanup(func() {
		cancel()
		must(g.t, <-ended)
		_ = ns.Close()
	})
	return states
}

func await(t *testing.T, states <-chan PortState, what string, ok func(PortState) bool) PortState {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case st := <-states:
			if ok(st) {
				return st
			}
			t.Logf("passing over state %+v", st)
		case <-timeout:
			t.Fatalf("no port became %s", what)
		}
	}
}

func TestFollow_AttachesADeviceThatComesBack(t *testing.T) {
	g := newGateway(t)
	g.passes(1)
	old := byName(t, "vnic-1").Attrs().Index
	states := g.following()
	must(t, netlink.LinkDel(byName(t, "vnic-1")))
	gone := await(t, states, "gone", func(st PortState) bool { return !st.Attached })
	if gone.Device != "vnic-1" || !errors.Is(gone.Err, ErrNoDevice) || gone.Ifindex != 0 {
		t.Errorf("state %+v", gone)
	}
	for pin := range g.linkIDs() {
		if device, _ := splitLink(pin); device == "vnic-1" {
			t.Errorf("the link %s of a device that is gone is left", pin)
		}
	}
	g.vm[1].plug("vnic-1")
	back := await(t, states, "attached", func(st PortState) bool { return st.Attached })
	if back.Device != "vnic-1" || back.Ifindex == old || back.Adopted {
		t.Errorf("state %+v; old index %d", back, old)
	}
	g.decide() // the station has another MAC now
	g.passes(2)
}

func TestFollow_RestoresWhatSomebodyTookAway(t *testing.T) {
	g := newGateway(t)
	g.following()
	must(t, netlink.LinkSetNoMaster(byName(t, "vnic.0")))
	bridge := byName(t, "vmgbr").Attrs().Index
	for deadline := time.Now().Add(5 * time.Second); byName(t, "vnic.0").Attrs().MasterIndex != bridge; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("vnic.0 did not come back into the bridge")
		}
	}
	g.passes(1)
}

func TestFollow_LeavesADeviceAloneThatRefusedThePrograms(t *testing.T) {
	g := bare(t)
	pass, err := loadPass()
	must(t, err)
	defer pass.Close()
	must(t, netlink.LinkSetXdpFd(byName(t, "vnic.0"), pass.FD()))
	g.refused(testPorts, 0, "another XDP program")
	updates, done := make(chan netlink.LinkUpdate, 4096), make(chan struct{})
	must(t, netlink.LinkSubscribe(updates, done))
	g.following()
	// Each attempt enslaves the device and releases it, which makes messages: an
	// attempt for each of them would never end. There is one when Follow begins.
	must(t, netlink.LinkSetAlias(byName(t, "vnic.0"), "touched"))
	attempts, enslaved := 0, false
	for end := time.After(2 * time.Second); attempts < 3; {
		select {
		case u := <-updates:
			now := u.Header.Type == unix.RTM_NEWLINK && u.Link.Attrs().Name == "vnic.0" && u.Link.Attrs().MasterIndex != 0
			if now && !enslaved {
				attempts++
			}
			enslaved = now
			continue
		case <-end:
		}
		break
	}
	close(done)
	for range updates { // until the receiver has ended
	}
	if attempts == 0 || attempts > 2 { // a bridge may send the message of one attempt twice
		t.Errorf("%d attempts, want one", attempts)
	}
}

func TestFollow_EndsWithItsContext(t *testing.T) {
	d := openMaps(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Follow(ctx, func(PortState) {}); err != nil {
		t.Errorf("error %v", err)
	}
}
