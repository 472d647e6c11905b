package loader

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// hook is a place on a device where one program goes.
type hook struct {
	name    string // last part of the pin's name
	program string
	attach  ebpf.AttachType
	generic bool // XDP in the stack, not in the driver
}

var (
	hookEgress  = hook{name: "egress", program: "vmgate_egress", attach: ebpf.AttachTCXEgress}
	hookMark    = hook{name: "ingress", program: "vmgate_mark", attach: ebpf.AttachTCXIngress}
	hookTCX     = hook{name: "ingress", program: "vmgate_tcx", attach: ebpf.AttachTCXIngress}
	hookDeliver = hook{name: "ingress", program: "vmgate_deliver", attach: ebpf.AttachTCXIngress}
	hookVNIC    = hook{name: "xdp", program: "vmgate_ingress", attach: ebpf.AttachXDP}
	hookGeneric = hook{name: "xdp", program: "vmgate_ingress", attach: ebpf.AttachXDP, generic: true}
	hookIDS     = hook{name: "xdp", program: "vmgate_ids", attach: ebpf.AttachXDP}
)

// create makes and pins the hook's link on a device.
func (h hook) create(prog *ebpf.Program, dev netlink.Link, pin string) error {
	var (
		l   link.Link
		err error
	)
	if h.attach == ebpf.AttachXDP {
		// Driver mode or nothing, unless asked for: generic XDP runs after the stack
		// has begun with a packet, and would be slower than the bridge, silently.
		flag, _ := h.xdpMode()
		l, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: dev.Attrs().Index, Flags: link.XDPAttachFlags(flag)})
	} else {
		// At the head: a program before ours could end the chain.
		l, err = link.AttachTCX(link.TCXOptions{Program: prog, Interface: dev.Attrs().Index, Attach: h.attach, Anchor: link.Head()})
	}
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return errors.Join(fmt.Errorf("cannot pin the link at %s: %w", pin, err), l.Detach())
	}
	return nil
}

// adopt puts prog in the place of the program of a pinned link, without a gap;
// the data path of a vNIC changes so, too. A link that is not on this device, or
// of another hook, is dropped and not adopted.
func (h hook) adopt(prog *ebpf.Program, dev netlink.Link, pin string) (bool, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil { // not a link
		return false, dropPinned(pin)
	}
	defer l.Close()
	if h.matches(l, dev) {
		if err := l.Update(prog); err != nil {
			return false, fmt.Errorf("cannot update %s on %s in place: %w", h.program, dev.Attrs().Name, err)
		}
		return true, nil
	}
	return false, dropPinned(pin)
}

// matches reports whether a link has our program for this hook on this very
// device: an interface index alone may mean another device, or one of the same
// index in another namespace.
func (h hook) matches(l link.Link, dev netlink.Link) bool {
	info, err := l.Info()
	if err != nil || !strings.HasPrefix(programName(info.Program), "vmgate_") {
		return false
	}
	index := dev.Attrs().Index
	if h.attach == ebpf.AttachXDP {
		x := info.XDP()
		xdp := dev.Attrs().Xdp
		_, mode := h.xdpMode()
		return x != nil && int(x.Ifindex) == index && xdp != nil && xdp.ProgId == uint32(info.Program) && xdp.AttachMode == mode
	}
	t := info.TCX()
	return t != nil && int(t.Ifindex) == index && ebpf.AttachType(t.AttachType) == h.attach &&
		tcxHasLink(index, h.attach, info.ID)
}

// isLinked reports whether the pinned link of the hook is on the device.
func (h hook) isLinked(dev netlink.Link, pin string) bool {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return false
	}
	defer l.Close()
	return h.matches(l, dev)
}

func tcxHasLink(index int, attach ebpf.AttachType, id link.ID) bool {
	there, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: attach})
	if err != nil {
		return false
	}
	for _, p := range there.Programs {
		if got, ok := p.LinkID(); ok && got == id {
			return true
		}
	}
	return false
}

// dropPinned detaches a pinned link, at once, and removes its pin. A pin that is
// not there is no error.
func dropPinned(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil: // no link, or of a kind that this build does not know: without its pin it ends
		return os.Remove(pin)
	}
	defer l.Close()
	// The link of a device that is gone says ENOLINK or nothing; without its pin it ends.
	_ = l.Detach()
	if err := l.Unpin(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove the pinned link %s: %w", pin, err)
	}
	return nil
}

func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return ""
	}
	return info.Name
}
