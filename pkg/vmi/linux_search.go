package vmi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
)

// Discovery without VMCOREINFO: kernels before 6.1 do not say there where their
// symbols are, some have none, and a guest can wipe it. The symbol table is
// found by its looks instead.

// digits are ten neighbours of the token table that every kernel has: the
// tokens of the characters 0 to 9 are these themselves.
var digits = []byte("0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00")

const (
	bannerHead   = "Linux version "
	searchChunk  = 1 << 20
	minSymbols   = 10_000
	maxImage     = 512 << 20 // KERNEL_IMAGE_SIZE without KASLR
	maxHits      = 64
	imageAlign   = 2 << 20 // CONFIG_PHYSICAL_ALIGN is a multiple
	markerStride = 256     // names between two entries of kallsyms_markers
)

// traces are the places, in guest-physical memory, that a kernel shows by.
type traces struct {
	digits, banners []uint64
}

// findTraces reads the populated memory within some ranges.
func findTraces(ctx context.Context, mem Memory, within []Range) (traces, error) {
	ranges, err := mem.Ranges()
	if err != nil {
		return traces{}, err
	}
	var t traces
	buf := make([]byte, searchChunk+64) // what lies across two chunks is seen whole in the first
	for _, r := range common(ranges, within) {
		for phys := r.Start; phys < r.End; phys += searchChunk {
			if err := ctx.Err(); err != nil {
				return t, err
			}
			b := buf[:min(uint64(len(buf)), r.End-phys)]
			if err := mem.ReadPhys(b, phys); err != nil {
				return t, err
			}
			t.digits = appendHits(t.digits, b, digits, phys)
			t.banners = appendHits(t.banners, b, []byte(bannerHead), phys)
		}
	}
	return t, nil
}

// common is what two lists of ranges share.
func common(a, b []Range) []Range {
	var out []Range
	for _, x := range a {
		for _, y := range b {
			if r := (Range{max(x.Start, y.Start), min(x.End, y.End)}); r.Start < r.End {
				out = append(out, r)
			}
		}
	}
	return out
}

func appendHits(hits []uint64, b, pattern []byte, phys uint64) []uint64 {
	for at := 0; len(hits) < maxHits; at++ {
		i := bytes.Index(b[at:], pattern)
		if i < 0 || at+i >= searchChunk {
			break
		}
		at += i
		hits = append(hits, phys+uint64(at))
	}
	return hits
}

// searchLinux finds a kernel within ranges by its symbol table. Until the page tables agree
// with what was found all failures are ErrNotReady: it may be a kernel that has
// just been unpacked, or the remains of one.
func searchLinux(ctx context.Context, mem Memory, within []Range, help linuxHelp) (*linuxKernel, error) {
	found, err := findTraces(ctx, mem, within)
	if err != nil {
		return nil, err
	}
	failed := fmt.Errorf("%w: no Linux kernel in its memory", ErrNotReady)
	for _, hit := range found.digits {
		tables, err := tablesNear(mem, hit)
		if err != nil {
			continue // digits like these are in other places too
		}
		for _, t := range tables {
			k, err := t.kernel(ctx, mem, found.banners, help)
			if err == nil {
				return k, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			failed = stronger(failed, err)
		}
	}
	return nil, failed
}

// stronger is the later of two reasons, unless only the former is of a kernel
// that runs.
func stronger(former, later error) error {
	if errors.Is(former, ErrNotUnderstood) && !errors.Is(later, ErrNotUnderstood) {
		return former
	}
	return later
}

// kernel tries every encoding of the addresses against every banner.
func (t foundTable) kernel(ctx context.Context, mem Memory, banners []uint64, help linuxHelp) (*linuxKernel, error) {
	limit, err := memoryLimit(mem)
	if err != nil {
		return nil, err
	}
	notReady := func(err error) error { return fmt.Errorf("%w: %w", ErrNotReady, err) }
	s := space{mem: mem, physBase: t.base, limit: limit, budget: &budget{ctx: ctx, left: maxReads}}
	index, err := symbolIndex(&s, t.kallsymsTable, symbolNames())
	if err != nil {
		return nil, notReady(err)
	}
	failed := notReady(errors.New("a symbol table without its kernel"))
	for _, decode := range symbolEncodings {
		sym := make(symbols, len(index))
		for name, i := range index {
			at := t.offsets + 4*uint64(i)
			entry, err := s.u32(at)
			if err != nil {
				return nil, notReady(err)
			}
			sym[name] = decode(t.kallsymsTable, entry, at)
		}
		for _, banner := range banners {
			k := newLinuxKernel(s, sym, help)
			k.slide(t.base, banner)
			if !k.place(banner) {
				continue
			}
			if err := k.finish(); errors.Is(err, ErrNotReady) {
				failed = stronger(failed, fmt.Errorf("Linux %s: %w", k.release, errStarting))
				continue
			} else if err != nil {
				failed = fmt.Errorf("%w: Linux %s: %w", ErrNotUnderstood, k.release, err)
				continue
			}
			return k, nil
		}
	}
	return nil, failed
}

// slide moves symbols that are relative to their table's place, which so far
// counts from the physical address base, to where the page tables map the
// kernel. Those of the other encodings do not lead to the banner by that place
// and stay as they are.
func (k *linuxKernel) slide(base, banner uint64) {
	va, root := k.sym["linux_banner"], k.sym["init_top_pgt"]
	if va-imageBase+base != banner {
		return
	}
	for _, levels := range []int{4, 5} {
		tables := pageTable{mem: k.mem, root: root - imageBase + base, levels: levels}
		for slot := uint64(imageBase); slot < imageLimit; slot += imageAlign {
			to := slot + banner%imageAlign
			if phys, _, err := tables.walk(to); err != nil || phys != banner {
				continue
			}
			for name, at := range k.sym {
				if at >= 1<<63 { // those of each processor's own data are not
					k.sym[name] += to - va
				}
			}
			return
		}
	}
}

// place sets the kernel's translation up on the assumption that its banner is
// at a physical address, and says whether its page tables confirm that.
func (k *linuxKernel) place(banner uint64) bool {
	va := k.sym["linux_banner"]
	root := k.sym["init_top_pgt"]
	k.physBase = banner - (va - imageBase)
	if !inImage(va) || !inImage(root) || k.physBase%imageAlign != 0 {
		return false
	}
	text, err := k.cstring(va, 512)
	if err != nil {
		return false
	}
	release, _, _ := strings.Cut(strings.TrimPrefix(text, bannerHead), " ")
	k.release = printable(release)
	for _, levels := range []int{4, 5} {
		k.tables = pageTable{mem: k.mem, root: k.imagePhys(root), levels: levels}
		if phys, _, err := k.tables.walk(va); err == nil && phys == banner {
			return true
		}
	}
	return false
}
