package vmi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// maxTextPages bounds the text that is hashed to 512 MiB.
const maxTextPages = 128 << 10

func (g *linuxGuest) Fingerprint(ctx context.Context, pid uint32, start uint64) (Fingerprint, error) {
	g = g.during(ctx)
	f, err := retry(ctx, g.k, func() (Fingerprint, error) { return g.fingerprint(ctx, id{pid, start}) })
	if err != nil {
		return Fingerprint{}, fmt.Errorf("cannot take the fingerprint of process %d: %w", pid, err)
	}
	return f, nil
}

func (g *linuxGuest) fingerprint(ctx context.Context, want id) (Fingerprint, error) {
	t, err := g.k.find(ctx, want)
	if err != nil {
		return Fingerprint{}, err
	}
	p := g.process(t, nil)
	f := Fingerprint{PID: p.PID, Start: p.Start, Path: p.Path, BuildID: p.BuildID, Resident: []PageRun{}}
	if !g.k.isDirect(t.mm) {
		return f, nil // a kernel thread or a zombie: it runs no program
	}
	user, err := g.k.userSpace(t.mm)
	if err != nil {
		return Fingerprint{}, err
	}
	pages := g.k.cacheOf(t.mm)
	hash := sha256.New()
	for _, s := range user.textSegments(g.k, t.mm) {
		for i := range s.pages {
			if f.Pages++; f.Pages > maxTextPages {
				return Fingerprint{}, fmt.Errorf("its text has more than %d pages", maxTextPages)
			}
			if err := g.addPage(ctx, hash.Write, &f, user, pages, s.va+i*pageSize, s.first+i); err != nil {
				return Fingerprint{}, err
			}
		}
	}
	if now, err := g.k.task(t.addr); err != nil || now.id() != want || now.mm != t.mm {
		return Fingerprint{}, fmt.Errorf("%w: it has ended, or runs another program now", ErrUnstable)
	}
	if len(f.Resident) > 0 {
		f.SHA256 = hex.EncodeToString(hash.Sum(nil))
	}
	return f, nil
}

// addPage hashes one page of text: as the process maps it, or, where it has not
// touched it, as the page cache would give it.
func (g *linuxGuest) addPage(ctx context.Context, hash func([]byte) (int, error), f *Fingerprint, user userSpace, file pageCache, va, number uint64) error {
	if f.Pages%256 == 0 && ctx.Err() != nil {
		return ctx.Err()
	}
	if err := g.k.budget.spend(); err != nil {
		return err
	}
	mapped, _, mapErr := user.walk(va)
	cached, cacheErr := file.page(number)
	phys := mapped
	if mapErr != nil {
		if phys = cached; cacheErr != nil {
			return nil // not resident
		}
	}
	var page, inFile [pageSize]byte
	if g.k.mem.ReadPhys(page[:], phys) != nil {
		return nil
	}
	if mapErr == nil && cacheErr == nil && mapped != cached && g.k.mem.ReadPhys(inFile[:], cached) == nil && page != inFile {
		f.Altered = appendPage(f.Altered, number)
	}
	f.Resident = appendPage(f.Resident, number)
	_, _ = hash(binary.LittleEndian.AppendUint64(nil, number)) // a hash never fails
	_, _ = hash(page[:])
	return nil
}

// segment is a stretch of an executable's text: pages of its file, and where the
// process has them.
type segment struct{ va, first, pages uint64 }

// textSegments are the executable stretches of the program that the process was
// started with.
func (u userSpace) textSegments(k *linuxKernel, mm uint64) []segment {
	const executable = 1 // PF_X
	le := binary.LittleEndian
	headers, bias := u.programHeaders(k, mm)
	var out []segment
	for ; len(headers) >= phdrSize; headers = headers[phdrSize:] {
		if le.Uint32(headers) != ptLoad || le.Uint32(headers[4:])&executable == 0 {
			continue
		}
		offset, va, size := le.Uint64(headers[8:]), le.Uint64(headers[16:]), le.Uint64(headers[32:])
		if size == 0 || size > maxTextPages*pageSize {
			continue
		}
		out = append(out, segment{(bias + va) &^ pageMask, offset / pageSize, (offset%pageSize + size + pageMask) / pageSize})
	}
	slices.SortFunc(out, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
	return out
}

// find looks for a living process, in the listings first.
func (k *linuxKernel) find(ctx context.Context, want id) (task, error) {
	if pid, err := k.pidStruct(want.pid); err == nil && pid != 0 {
		if t, ok := k.taskOfPID(pid); ok && t.id() == want && k.living(t) {
			return t, nil
		}
	}
	for _, view := range []func(context.Context) ([]task, error){k.treeView, k.slabView} {
		tasks, err := view(ctx)
		if err != nil {
			return task{}, err
		}
		for _, t := range tasks {
			if t.leads() && t.id() == want && k.living(t) {
				return t, nil
			}
		}
	}
	return task{}, fmt.Errorf("%w: %d", ErrNoProcess, want.pid)
}

// pageCache finds a file's pages in the guest's memory.
type pageCache struct {
	k    *linuxKernel
	head uint64 // of the array of its pages; 0 where it has none
}

// cacheOf is the page cache of the file that a process executes.
func (k *linuxKernel) cacheOf(mm uint64) pageCache {
	none := pageCache{k: k}
	if k.FileMapping.size == 0 || k.MappingPages.size == 0 {
		return none
	}
	exe, err := k.member(mm, k.MMExe)
	if err != nil || !k.isDirect(exe) {
		return none
	}
	mapping, err := k.member(exe, k.FileMapping)
	if err != nil || !k.isDirect(mapping) {
		return none
	}
	head, err := k.member(mapping, k.MappingPages)
	if err != nil {
		return none
	}
	return pageCache{k, head}
}

var errNotCached = errors.New("not in the page cache")

// page gives the physical address of a page. A large folio has one entry, and in
// the slots beside it "siblings" that name its slot (include/linux/xarray.h).
func (c pageCache) page(number uint64) (uint64, error) {
	entry, base := c.head, uint64(0) // base: the first page that entry stands for
	if _, inner := xaNode(entry); !inner && number != 0 {
		return 0, errNotCached // an array with its first entry only
	}
	for level := 0; ; level++ {
		addr, inner := xaNode(entry)
		if !inner {
			break
		}
		if level == maxXALevels+1 {
			return 0, errNotCached
		}
		shift, slots, err := c.k.node(addr, max(level-1, 0)) // files may be larger than pids are many
		if err != nil {
			return 0, err
		}
		if shift > 52 || level == 0 && number>>(shift+xaShift) != 0 {
			return 0, errNotCached
		}
		slot := number >> shift & (xaSlots - 1)
		if s := slots[slot]; s&3 == 2 && s>>2 < xaSlots {
			slot = s >> 2
		}
		entry = slots[slot]
		base = number>>(shift+xaShift)<<(shift+xaShift) | slot<<shift
	}
	record := uint64(c.k.PageRecord.size)
	if entry&3 != 0 || entry < c.k.vmemmap || number < base || record == 0 {
		return 0, errNotCached // nothing, or swapped out
	}
	frame := (entry-c.k.vmemmap)/record + number - base
	if frame >= c.k.limit/pageSize {
		return 0, errNotCached
	}
	return frame * pageSize, nil
}
