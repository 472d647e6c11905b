package vmi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// A System.map is the symbol table that a kernel's build leaves, one line a
// symbol: address in hex, type, name. It counts from where the kernel was linked
// for, which is not where it runs.

// maxSystemMap is some ten times what distributions' kernels have.
const maxSystemMap = 64 << 20

// readSystemMap reads the wanted symbols from a file.
func readSystemMap(path string, want map[string]bool) (symbols, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the System.map: %w", err)
	}
	defer file.Close()
	out, err := parseSystemMap(file, want)
	if err != nil {
		return nil, fmt.Errorf("cannot read the System.map %s: %w", path, err)
	}
	return out, nil
}

// parseSystemMap reads the text. Of several symbols of one name the global one
// counts, else the first, as with kallsyms.
func parseSystemMap(r io.Reader, want map[string]bool) (symbols, error) {
	limited := &io.LimitedReader{R: r, N: maxSystemMap + 1}
	out, global := make(symbols, len(want)), make(map[string]bool)
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 4<<10), 4<<10)
	for n := 1; lines.Scan(); n++ {
		address, rest, _ := strings.Cut(lines.Text(), " ")
		typ, name, ok := strings.Cut(rest, " ")
		va, err := strconv.ParseUint(address, 16, 64)
		if err != nil || !ok || len(typ) != 1 {
			return nil, fmt.Errorf("line %d is not an address, a type and a name", n)
		}
		name, _, _ = strings.Cut(name, "\t") // /proc/kallsyms goes on with the module
		if !want[name] {
			continue
		}
		isGlobal := typ[0] >= 'A' && typ[0] <= 'Z'
		if _, dup := out[name]; !dup || isGlobal && !global[name] {
			out[name], global[name] = va, isGlobal
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("it has more than %d MiB", maxSystemMap>>20)
	}
	for _, name := range []string{"linux_banner", "init_top_pgt", "_stext"} {
		if !inImage(out[name]) {
			return nil, fmt.Errorf("it does not have %s", name)
		}
	}
	return out, nil
}

// openByMap finds the kernel that a System.map is of: at the place that its
// VMCOREINFO gives, else by its banner.
func openByMap(ctx context.Context, mem Memory, infos []vmcoreinfo, help linuxHelp) (*linuxKernel, error) {
	sym, err := readSystemMap(help.systemMap, symbolNames())
	if err != nil {
		return nil, err
	}
	try := func(banners []uint64) (*linuxKernel, error) {
		failed := fmt.Errorf("the System.map %s %w: none is where it would put linux_banner", help.systemMap, errHelp)
		for _, banner := range banners {
			k, err := kernelByMap(ctx, mem, sym, banner, help)
			if err == nil {
				return k, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if !errors.Is(err, errPlace) {
				failed = fmt.Errorf("the System.map %s: %w", help.systemMap, err)
			}
		}
		return nil, failed
	}
	var told []uint64
	for _, info := range infos {
		text, ok := info.symbol("_stext")
		base, ok2 := info.number("phys_base")
		if ok && ok2 && inImage(text) {
			told = append(told, sym["linux_banner"]-sym["_stext"]+text-imageBase+base)
		}
	}
	if k, err := try(told); err == nil || ctx.Err() != nil {
		return k, err
	}
	found, err := findTraces(ctx, mem, []Range{{0, maxPhys}})
	if err != nil {
		return nil, err
	}
	return try(found.banners)
}

// errPlace: the page tables do not map the kernel's banner.
var errPlace = fmt.Errorf("%w: no page tables of such a kernel map the banner", errHelp)

// kernelByMap makes a kernel of symbols and the physical address of its banner.
func kernelByMap(ctx context.Context, mem Memory, sym symbols, banner uint64, help linuxHelp) (*linuxKernel, error) {
	limit, err := memoryLimit(mem)
	if err != nil {
		return nil, err
	}
	k := newLinuxKernel(space{mem: mem, limit: limit, budget: &budget{ctx: ctx, left: maxReads}}, sym, help)
	k.vetted = "System.map"
	k.slide(banner-(sym["linux_banner"]-imageBase), banner)
	if !k.place(banner) {
		return nil, errPlace
	}
	if err := k.finish(); err != nil {
		if errors.Is(err, ErrNotReady) {
			return nil, fmt.Errorf("Linux %s: %w", k.release, errStarting)
		}
		return nil, fmt.Errorf("Linux %s: %w", k.release, err)
	}
	return k, nil
}
