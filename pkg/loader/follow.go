package loader

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

// retryAfter is how long a device that refused the programs is left alone: the
// attempt itself makes netlink messages.
const retryAfter = 5 * time.Second

// Follow keeps the ports of SetPorts attached while devices come and go: a
// device that appears (again) is attached, one that went is recorded. It calls
// changed, on the caller's goroutine, for each port whose state became another
// one. It blocks until ctx is done, and returns nil then.
func (d *Dataplane) Follow(ctx context.Context, changed func(PortState)) error {
	for {
		if err := d.followOnce(ctx, changed); err != nil || ctx.Err() != nil {
			return err
		}
		// The subscription lost messages: look at everything and begin again.
	}
}

// followOnce serves one subscription; it returns nil when that has ended.
func (d *Dataplane) followOnce(ctx context.Context, changed func(PortState)) error {
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	defer func() {
		close(done)
		for range updates { // until the receiver has ended
		}
	}()
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			if ctx.Err() == nil { // else it is how the subscription ends
				d.log.Warn("following devices", "error", err)
			}
		},
	})
	if err != nil {
		close(updates)
		return fmt.Errorf("cannot follow devices: %w", err)
	}
	retry := time.NewTicker(retryAfter)
	defer retry.Stop()
	d.refresh(changed, func(PortState) bool { return true })
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, ok := <-updates:
			if !ok {
				return nil
			}
			a := u.Link.Attrs()
			d.refresh(changed, func(st PortState) bool {
				return (st.Device == a.Name || st.Ifindex == a.Index) && !isRefused(st, a.Index)
			})
		case <-retry.C:
			d.refresh(changed, func(st PortState) bool { return !st.Attached })
		}
	}
}

// isRefused reports whether this very device has refused the programs already.
func isRefused(st PortState, index int) bool {
	return st.Err != nil && st.Ifindex == index
}

// refresh looks at the selected ports again and attaches those whose device is
// another one than before.
func (d *Dataplane) refresh(changed func(PortState), selected func(PortState) bool) {
	var news []PortState
	d.mu.Lock()
	for i, st := range d.ports {
		if !selected(st) || d.isCurrent(st) {
			continue
		}
		d.ports[i] = d.attach(st.Port)
		if now := d.ports[i]; now.Ifindex != st.Ifindex || now.Attached != st.Attached || errorText(now.Err) != errorText(st.Err) {
			news = append(news, now)
		}
	}
	d.mu.Unlock()
	for _, st := range news {
		changed(st)
	}
}

// isCurrent reports whether a port is as its state says: the same device, with
// our program on it and in its bridge; or as missing as before.
func (d *Dataplane) isCurrent(st PortState) bool {
	dev, err := netlink.LinkByName(st.Device)
	if isNotFound(err) {
		return st.Ifindex == 0
	}
	if err != nil || !st.Attached || dev.Attrs().Index != st.Ifindex {
		return false
	}
	if st.Bridge != "" && dev.Attrs().MasterIndex == 0 {
		return false
	}
	return d.hasHooks(st, dev)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
