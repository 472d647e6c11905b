package qemu

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/qmp"
)

const pageSize = 4096

// maxQuestions bounds how often a monitor is asked for an address: two answers
// are enough for RAM in one piece, and some twenty for each further piece.
const maxQuestions = 400

// layoutBy asks a monitor where RAM is in the guest, and where in QEMU's own
// address space: the offsets of the layout.
func layoutBy(ctx context.Context, monitor *qmp.Monitor) (vmi.Layout, error) {
	guest, err := guestLayout(ctx, monitor)
	if err != nil {
		return vmi.Layout{}, err
	}
	q := questioner{ctx: ctx, monitor: monitor, left: maxQuestions}
	for _, p := range guest.Parts() {
		if err := q.split(p.Phys, p.Phys+p.Size); err != nil {
			return vmi.Layout{}, fmt.Errorf("its RAM is not laid out as that of its machine type: %w", err)
		}
	}
	return vmi.LayoutOf(q.parts...)
}

// guestLayout asks a monitor for the machine's type and the size of its RAM.
// Offsets are those of a file that has all of it.
func guestLayout(ctx context.Context, monitor *qmp.Monitor) (vmi.Layout, error) {
	var size struct {
		Base    uint64 `json:"base-memory"`
		Plugged uint64 `json:"plugged-memory"`
	}
	if err := monitor.Execute(ctx, "query-memory-size-summary", nil, &size); err != nil {
		return vmi.Layout{}, err
	}
	if size.Plugged != 0 {
		return vmi.Layout{}, fmt.Errorf("it has %d bytes of memory that was plugged in, which is not supported", size.Plugged)
	}
	var kind string
	property := struct {
		Path     string `json:"path"`
		Property string `json:"property"`
	}{"/machine", "type"}
	if err := monitor.Execute(ctx, "qom-get", property, &kind); err != nil {
		return vmi.Layout{}, err
	}
	return vmi.LayoutFor(strings.TrimSuffix(kind, "-machine"), size.Base)
}

// questioner asks for host addresses of RAM.
type questioner struct {
	ctx     context.Context
	monitor *qmp.Monitor
	left    int
	parts   []vmi.Part
}

// split divides a range of guest addresses into parts that are in one piece in
// the host: what begins and ends at the same distance is.
func (q *questioner) split(from, to uint64) error {
	first, err := q.address(from)
	if err != nil {
		return err
	}
	last, err := q.address(to - pageSize)
	if err != nil {
		return err
	}
	if last-first == to-pageSize-from {
		if n := len(q.parts); n > 0 && q.parts[n-1].Phys+q.parts[n-1].Size == from && q.parts[n-1].Offset+q.parts[n-1].Size == first {
			q.parts[n-1].Size += to - from
		} else {
			q.parts = append(q.parts, vmi.Part{Phys: from, Offset: first, Size: to - from})
		}
		return nil
	}
	if to-from <= pageSize {
		return errors.New("the monitor contradicts itself")
	}
	middle := from + (to-from)/2/pageSize*pageSize
	if err := q.split(from, middle); err != nil {
		return err
	}
	return q.split(middle, to)
}

var hostAddress = regexp.MustCompile(`^Host virtual address for 0x[0-9a-f]+ \([^)]*\) is 0x([0-9a-f]{1,16})\s*$`)

// address asks for the host address of one page (monitor/hmp-cmds.c of QEMU:
// hmp_gpa2hva).
func (q *questioner) address(phys uint64) (uint64, error) {
	if q.left--; q.left < 0 {
		return 0, errors.New("it is in too many pieces")
	}
	text, err := q.monitor.Human(q.ctx, fmt.Sprintf("gpa2hva %#x", phys))
	if err != nil {
		return 0, err
	}
	found := hostAddress.FindStringSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("the monitor says of %#x: %q", phys, text[:min(len(text), 100)])
	}
	address, err := strconv.ParseUint(found[1], 16, 64)
	if err != nil || address%pageSize != 0 {
		return 0, fmt.Errorf("the monitor says that %#x is at %q", phys, found[1])
	}
	return address, nil
}
