package vmi

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// madeUp is memory that a fuzzer has chosen, again and again up to its size.
type madeUp []byte

const madeUpSize = 1 << 20

func (m madeUp) ReadPhys(p []byte, addr uint64) error {
	if addr > madeUpSize || uint64(len(p)) > madeUpSize-addr {
		return errors.New("no RAM there")
	}
	for i := range p {
		p[i] = m[(addr+uint64(i))%uint64(len(m))]
	}
	return nil
}

func (m madeUp) Ranges() ([]Range, error) { return []Range{{0, madeUpSize}}, nil }
func (m madeUp) Close() error             { return nil }

func FuzzPageTable(f *testing.F) {
	f.Add([]byte{0x07, 0x10, 0, 0, 0, 0, 0, 0}, uint64(0), uint64(imageBase), false) // each entry leads to one table
	f.Add([]byte{0x87, 0, 0, 0, 0, 0, 0, 0}, uint64(0x1000), uint64(0), true)
	f.Fuzz(func(t *testing.T, content []byte, root, va uint64, five bool) {
		if len(content) == 0 {
			return
		}
		tables := pageTable{mem: madeUp(content), root: root, levels: 4}
		if five {
			tables.levels = 5
		}
		if phys, run, err := tables.walk(va); err == nil && (phys >= maxPhys || run == 0 || run > 1<<30) {
			t.Fatalf("%#x is at %#x for %d bytes", va, phys, run)
		}
		pages := 0
		_ = tables.mapped(imageBase, imageLimit, func(va, phys uint64) error {
			if pages++; va < imageBase || va >= imageLimit || phys >= maxPhys {
				t.Fatalf("%#x is at %#x", va, phys)
			}
			return nil
		})
		if pages > (imageLimit-imageBase)/pageSize {
			t.Fatalf("%d pages", pages)
		}
		if image, ok := tables.image(); ok && (image.Start >= image.End || image.End-image.Start > maxImage+pageSize) {
			t.Fatalf("the image is %+v", image)
		}
	})
}

// FuzzWalks walks lists, trees and tables of a made-up kernel: all end, in
// bounded time and with bounded results.
func FuzzWalks(f *testing.F) {
	f.Add([]byte{0x00, 0x10, 0, 0, 0x80, 0x88, 0xff, 0xff}, uint32(1))
	f.Add([]byte{0x02, 0x10, 0, 0, 0x80, 0x88, 0xff, 0xff, 0, 0x20, 0, 0, 0x80, 0x88, 0xff, 0xff}, uint32(4711))
	f.Fuzz(func(t *testing.T, content []byte, pid uint32) {
		if len(content) == 0 {
			return
		}
		k := newLinuxKernel(space{mem: madeUp(content), direct: direct4, limit: madeUpSize}, symbols{
			"init_task": direct4 + 0x100, "init_pid_ns": direct4 + 0x200, "net_namespace_list": direct4 + 0x300,
			"tcp_hashinfo": direct4 + 0x400, "udp_table": direct4 + 0x500, "raw_v4_hashinfo": direct4 + 0x600, "modules": direct4 + 0x700,
		}, linuxHelp{})
		k.linuxLayout = &linuxLayout{
			processLayout: processLayout{
				TaskTasks: field{off: 16, size: 16}, TaskPID: field{off: 32, size: 4}, TaskThreadPID: field{off: 40, size: 8},
				TaskChildren: field{off: 48, size: 16}, TaskSibling: field{off: 64, size: 16}, TaskSignal: field{off: 80, size: 8},
				NodeShift: field{size: 1}, NodeSlots: field{off: 8, size: 512}, IDRHead: field{off: 8, size: 8},
			},
			fileLayout: fileLayout{
				TableMax: field{size: 4}, TableFD: field{off: 8, size: 8},
			},
			socketLayout: socketLayout{
				HashBindSize: field{off: 8, size: 4}, BindHeadSize: field{size: 16}, UDPMask: field{off: 8, size: 4},
				UDPSlotSize: field{size: 16}, RawHash: field{size: 8}, SockPeer4: field{size: 4},
				SockLocal4: field{off: 4, size: 4}, SockFamily: field{off: 8, size: 2},
			},
		}
		k.taskSpan, k.sockSpan = span{0, 96}, span{0, 64}
		k = k.bounded(context.Background())
		k.budget.left = 1 << 17
		steps := 0
		_ = k.list(direct4+0x300, 1000, func(uint64) error { steps++; return nil })
		_ = k.hlist(direct4+0x300, 1000, func(uint64) (bool, error) { steps++; return true, nil })
		if steps > 2000 {
			t.Fatalf("%d steps", steps)
		}
		_, _ = k.pidStruct(pid)
		_, _ = k.namespaces()
		_ = k.scanFiles(direct4+0x800, map[uint64]uint64{direct4: 1}, func(uint64, uint32) {})
		for _, view := range []func(context.Context) ([]task, error){k.tasksView, k.pidsView, k.treeView} {
			if tasks, err := view(t.Context()); err == nil && len(tasks) > maxPID {
				t.Fatalf("%d tasks", len(tasks))
			}
		}
		if all, err := k.allSockets(t.Context()); err == nil && len(all) > maxSockets {
			t.Fatalf("%d sockets", len(all))
		}
	})
}

func FuzzSystemMap(f *testing.F) {
	f.Add("ffffffff81000000 T _stext\nffffffff82000000 D linux_banner\nffffffff82800000 D init_top_pgt\n")
	f.Add("0 A x\n")
	f.Fuzz(func(t *testing.T, text string) {
		out, err := parseSystemMap(strings.NewReader(text), symbolNames())
		if err == nil && (!inImage(out["linux_banner"]) || !inImage(out["_stext"])) {
			t.Fatalf("%v", out)
		}
	})
}

func FuzzRegisters(f *testing.F) {
	f.Add("CR0=80050033 CR2=00 CR3=00000000034ec000 CR4=000006f0\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRegisters(text)
		if err == nil && !strings.Contains(text, "CR3=") {
			t.Fatalf("%+v", r)
		}
	})
}

func TestParseRegisters(t *testing.T) {
	r, err := ParseRegisters("RAX=00 RBX=01\nCR0=80050033 CR2=00007f CR3=00000000034ec000 CR4=000006f0\nCR3=1 CR4=2")
	if err != nil || r != (Registers{CR3: 0x34ec000, CR4: 0x6f0}) {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := ParseRegisters("CR3=12 EFER=0"); err == nil {
		t.Errorf("%+v without CR4", r)
	}
}
