package vmi

import (
	"context"
	"errors"
	"fmt"
)

// Link is one pointer in guest memory: where it is and what it holds.
type Link struct {
	Phys  uint64 // guest-physical address of the pointer
	Value uint64 // kernel address that it holds
}

// Links are the pointers that list a process in the guest. They are for tools
// that test the detection of hidden processes (package vmitest); nothing in this
// package writes them.
type Links struct {
	Node         uint64 // kernel address of the process's own list node
	Next, Prev   Link   // of the node
	NextPrev     Link   // the next node's pointer back here
	PrevNext     Link   // the previous node's pointer here
	HeadNode     uint64 // kernel address of the head of the list
	HeadPrev     Link   // the head's pointer to the last node
	LastNext     Link   // the last node's pointer to the head
	First        Link   // what leads /proc to the process
	FirstIfShown uint64 // what First holds as long as the process is shown
}

// ErrNoProcess: there is no such process.
var ErrNoProcess = errors.New("no such process")

// Links finds what lists a process, hidden or not, of a guest that Open returned.
func (g *linuxGuest) Links(ctx context.Context, pid uint32) (Links, error) {
	g = g.during(ctx)
	return retry(ctx, g.k, func() (Links, error) {
		c, err := g.k.census(ctx, 1)
		if err != nil {
			return Links{}, err
		}
		for key, s := range c.last {
			if key.pid == pid {
				return g.k.links(s.task)
			}
		}
		return Links{}, fmt.Errorf("%w: %d", ErrNoProcess, pid)
	})
}

func (k *linuxKernel) links(t task) (Links, error) {
	var errs []error
	at := func(va uint64) Link {
		phys, _, err := k.phys(va)
		value, readErr := k.u64(va)
		errs = append(errs, err, readErr)
		return Link{phys, value}
	}
	node, head := t.addr+uint64(k.TaskTasks.off), k.sym["init_task"]+uint64(k.TaskTasks.off)
	l := Links{
		Node: node, Next: at(node), Prev: at(node + 8), HeadNode: head, HeadPrev: at(head + 8),
		First:        at(t.threadPID + uint64(k.PIDTasks.off)),
		FirstIfShown: t.addr + uint64(k.TaskPIDLinks.off),
	}
	l.NextPrev, l.PrevNext, l.LastNext = at(l.Next.Value+8), at(l.Prev.Value), at(l.HeadPrev.Value)
	return l, errors.Join(errs...)
}
