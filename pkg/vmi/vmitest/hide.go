// Package vmitest plays the rootkit: it hides processes of a running guest from
// that guest's own listings, and hooks its system calls, by writing to its memory
// from outside. It is for
// tests and demonstrations of what package vmi finds. It writes to the memory of
// a running machine without stopping it: never use it on one that matters.
package vmitest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// timeout bounds one operation.
const timeout = 10 * time.Second

// grace is how long a guest's CPU may still stand on a list node that has been
// taken out; the kernel would wait for a grace period of RCU.
const grace = 50 * time.Millisecond

// Hide makes a process of a Linux guest invisible to its ps: the process leaves
// the list of tasks, and its pid leads /proc nowhere. It keeps running and its
// sockets keep working. It can exit, and its parent can wait for it: its own
// list node is closed on itself, so that the kernel's unlinking at exit touches
// nobody else, and of its struct pid only the first of four lists is emptied, so
// that the kernel does not free it early. What no longer finds it is what goes by
// its pid: kill, /proc, ptrace; a signal to its process group still does.
//
// path is the guest's shared memory file, machine its type as for vmi.OpenFile.
func Hide(path, machine string, pid uint32) error {
	if err := change(path, machine, pid, unlink); err != nil {
		return fmt.Errorf("cannot hide process %d: %w", pid, err)
	}
	return nil
}

// Unhide lists a process again that Hide has hidden.
func Unhide(path, machine string, pid uint32) error {
	if err := change(path, machine, pid, link); err != nil {
		return fmt.Errorf("cannot show process %d again: %w", pid, err)
	}
	return nil
}

// linker is what the Linux implementation of vmi.Guest offers beyond the interface.
type linker interface {
	Links(ctx context.Context, pid uint32) (vmi.Links, error)
}

func change(path, machine string, pid uint32, edit func(ram, vmi.Links) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	mem, err := vmi.OpenFile(path, machine)
	if err != nil {
		return err
	}
	defer mem.Close()
	guest, err := vmi.Open(ctx, mem, vmi.Options{})
	if err != nil {
		return err
	}
	linux, ok := guest.(linker)
	if !ok {
		return fmt.Errorf("%s is not Linux", guest.OS())
	}
	ram, err := openRAM(path, machine)
	if err != nil {
		return err
	}
	defer ram.file.Close()
	links, err := linux.Links(ctx, pid)
	if err != nil {
		return err
	}
	return edit(ram, links)
}

// unlink takes a process out, in the order of the kernel's list_del_rcu: who is
// walking the list meanwhile finds on from the node.
func unlink(m ram, l vmi.Links) error {
	if l.First.Value != l.FirstIfShown {
		return errors.New("it is hidden already")
	}
	if l.NextPrev.Value != l.Node || l.PrevNext.Value != l.Node {
		return errors.New("the list of tasks is changing; try again")
	}
	err := errors.Join(
		m.write(l.NextPrev.Phys, l.Prev.Value), m.write(l.PrevNext.Phys, l.Next.Value),
		m.write(l.First.Phys, 0),
	)
	if err != nil {
		return err
	}
	time.Sleep(grace)
	return errors.Join(m.write(l.Next.Phys, l.Node), m.write(l.Prev.Phys, l.Node))
}

// link puts a process back at the end of the list.
func link(m ram, l vmi.Links) error {
	if l.First.Value != 0 || l.Next.Value != l.Node {
		return errors.New("it is not hidden")
	}
	if l.LastNext.Value != l.HeadNode {
		return errors.New("the list of tasks is changing; try again")
	}
	return errors.Join(
		m.write(l.Next.Phys, l.HeadNode), m.write(l.Prev.Phys, l.HeadPrev.Value),
		m.write(l.LastNext.Phys, l.Node), m.write(l.HeadPrev.Phys, l.Node),
		m.write(l.First.Phys, l.FirstIfShown),
	)
}

// ram is the guest's memory file, for writing.
type ram struct {
	file   *os.File
	layout vmi.Layout
}

func openRAM(path, machine string) (ram, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return ram{}, err
	}
	info, err := file.Stat()
	if err != nil {
		return ram{}, errors.Join(err, file.Close())
	}
	layout, err := vmi.LayoutFor(machine, uint64(info.Size()))
	if err != nil {
		return ram{}, errors.Join(err, file.Close())
	}
	return ram{file, layout}, nil
}

// write stores a kernel address at a guest-physical one.
func (m ram) write(phys, value uint64) error {
	offset, run, ok := m.layout.Offset(phys)
	if !ok || run < 8 {
		return fmt.Errorf("no RAM at %#x", phys)
	}
	var raw [8]byte
	binary.LittleEndian.PutUint64(raw[:], value)
	_, err := m.file.WriteAt(raw[:], int64(offset))
	return err
}
