package loader

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kernels before 6.6 have no TCX links: there the TC programs are filters of a
// clsact qdisc. A filter outlives the daemon as it is, without a pin.

const clsactPriority = 1

func (h hook) clsactParent() uint32 {
	if h.attach == ebpf.AttachTCXEgress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// setFilter makes the hook's filter, or changes its program in place; adopted
// says which.
func (h hook) setFilter(prog *ebpf.Program, dev netlink.Link) (adopted bool, err error) {
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: dev.Attrs().Index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("cannot add a clsact qdisc: %w", err)
	}
	adopted = slices.ContainsFunc(ourFilters(dev), func(f *netlink.BpfFilter) bool {
		return f.Parent == h.clsactParent()
	})
	err = netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: dev.Attrs().Index,
			Parent:    h.clsactParent(),
			Handle:    1,
			Protocol:  unix.ETH_P_ALL,
			Priority:  clsactPriority,
		},
		Fd:           prog.FD(),
		Name:         h.program,
		DirectAction: true,
	})
	if err != nil {
		return false, fmt.Errorf("cannot add a TC filter: %w", err)
	}
	return adopted, nil
}

// hasFilter reports whether the hook's filter is on a device.
func (h hook) hasFilter(dev netlink.Link) bool {
	return slices.ContainsFunc(ourFilters(dev), func(f *netlink.BpfFilter) bool {
		return f.Parent == h.clsactParent() && strings.HasPrefix(f.Name, h.program)
	})
}

// dropFilter removes the hook's filter from a device, and the clsact qdisc with
// it once no filter of anybody is left.
func (h hook) dropFilter(dev netlink.Link) error {
	for _, f := range ourFilters(dev) {
		if f.Parent != h.clsactParent() {
			continue
		}
		if err := netlink.FilterDel(f); err != nil {
			return fmt.Errorf("cannot remove the TC filter %s from %s: %w", f.Name, dev.Attrs().Name, err)
		}
	}
	return dropEmptyClsact(dev)
}

func dropEmptyClsact(dev netlink.Link) error {
	qdiscs, err := netlink.QdiscList(dev)
	if err != nil {
		return fmt.Errorf("cannot list the qdiscs of %s: %w", dev.Attrs().Name, err)
	}
	for _, q := range qdiscs {
		if q.Type() != "clsact" || len(allFilters(dev)) > 0 {
			continue
		}
		if err := netlink.QdiscDel(q); err != nil {
			return fmt.Errorf("cannot remove the clsact qdisc of %s: %w", dev.Attrs().Name, err)
		}
	}
	return nil
}

func allFilters(dev netlink.Link) []netlink.Filter {
	var all []netlink.Filter
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		// Without a clsact qdisc there is an error instead of an empty list.
		if filters, err := netlink.FilterList(dev, parent); err == nil {
			all = append(all, filters...)
		}
	}
	return all
}

func ourFilters(dev netlink.Link) []*netlink.BpfFilter {
	var ours []*netlink.BpfFilter
	for _, f := range allFilters(dev) {
		if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(b.Name, "vmgate_") {
			ours = append(ours, b)
		}
	}
	return ours
}

// lacksTCX reports whether the kernel knows no TCX.
func lacksTCX() bool {
	const loopback = 1 // in every network namespace
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
	return errors.Is(err, unix.EINVAL)
}
