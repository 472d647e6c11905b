package vmi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// kallsymsTable says where the parts of the kernel's own symbol table are
// (kernel/kallsyms_internal.h), as kernel addresses.
type kallsymsTable struct {
	names, tokenTable, tokenIndex uint64
	offsets                       uint64
	relativeBase                  uint64 // the value, not its place; 0 if the kernel has none
	num                           uint32
}

const (
	maxSymbols     = 1 << 20
	maxSymbolNames = 16 << 20
	maxSymbolLen   = 512
	maxTokenTable  = 4096
)

var errKallsyms = errors.New("malformed kallsyms")

// kallsymsFromInfo takes the places from VMCOREINFO, which has them from 6.1 on.
func kallsymsFromInfo(s *space, v vmcoreinfo) (kallsymsTable, error) {
	var t kallsymsTable
	var num uint64
	for _, part := range []struct {
		name string
		to   *uint64
	}{
		{"kallsyms_names", &t.names}, {"kallsyms_token_table", &t.tokenTable}, {"kallsyms_token_index", &t.tokenIndex},
		{"kallsyms_offsets", &t.offsets}, {"kallsyms_num_syms", &num},
	} {
		va, ok := v.symbol(part.name)
		if !ok || !inImage(va) {
			return t, fmt.Errorf("%w: VMCOREINFO does not say where %s is", errKallsyms, part.name)
		}
		*part.to = va
	}
	var err error
	if t.num, err = s.u32(num); err != nil {
		return t, err
	}
	if base, ok := v.symbol("kallsyms_relative_base"); ok {
		if t.relativeBase, err = s.u64(base); err != nil {
			return t, err
		}
	}
	return t, nil
}

// tokens is the decompression table: what each byte of a name stands for.
type tokens [256][]byte

// parseTokens splits the table by its index. A token is a zero-terminated string.
func parseTokens(table, index []byte) (*tokens, error) {
	var t tokens
	if len(index) < 512 {
		return nil, fmt.Errorf("%w: token index cut off", errKallsyms)
	}
	for i := range t {
		at := int(binary.LittleEndian.Uint16(index[2*i:]))
		if at >= len(table) {
			return nil, fmt.Errorf("%w: token %d beyond the table", errKallsyms, i)
		}
		end := bytes.IndexByte(table[at:], 0)
		if end < 0 || end > maxSymbolLen {
			return nil, fmt.Errorf("%w: token %d has no end", errKallsyms, i)
		}
		t[i] = table[at : at+end]
	}
	return &t, nil
}

// walkNames calls fn with every symbol's index, type and name; name is valid
// during the call only. It returns the number of bytes that the names take.
func walkNames(names []byte, num uint32, t *tokens, fn func(i uint32, typ byte, name []byte)) (int, error) {
	buf := make([]byte, 0, maxSymbolLen)
	at := 0
	for i := range num {
		if at >= len(names) {
			return 0, fmt.Errorf("%w: names end at symbol %d of %d", errKallsyms, i, num)
		}
		n := int(names[at])
		at++
		if n >= 0x80 { // long names, from 6.1 on
			if at >= len(names) {
				return 0, fmt.Errorf("%w: names cut off", errKallsyms)
			}
			n = n&0x7f | int(names[at])<<7
			at++
		}
		if n == 0 || n > len(names)-at {
			return 0, fmt.Errorf("%w: symbol %d is %d bytes long", errKallsyms, i, n)
		}
		buf = buf[:0]
		for _, c := range names[at : at+n] {
			if buf = append(buf, t[c]...); len(buf) > maxSymbolLen {
				return 0, fmt.Errorf("%w: symbol %d is too long", errKallsyms, i)
			}
		}
		at += n
		if len(buf) > 1 {
			fn(i, buf[0], buf[1:])
		}
	}
	return at, nil
}

// symbolEncoding turns an entry of kallsyms_offsets into an address. at is the
// address of the entry itself.
type symbolEncoding func(t kallsymsTable, entry uint32, at uint64) uint64

// symbolEncodings are those that kernels have used; nothing in memory says
// which one, so that they are tried against an address that is known.
var symbolEncodings = []symbolEncoding{
	// CONFIG_KALLSYMS_ABSOLUTE_PERCPU (up to 6.14): what is not negative is absolute.
	func(t kallsymsTable, entry uint32, _ uint64) uint64 {
		if int32(entry) >= 0 {
			return uint64(entry)
		}
		return t.relativeBase - 1 - uint64(int64(int32(entry)))
	},
	// Unsigned offsets from the base.
	func(t kallsymsTable, entry uint32, _ uint64) uint64 { return t.relativeBase + uint64(entry) },
	// From 7.0: signed, relative to the entry's own place.
	func(_ kallsymsTable, entry uint32, at uint64) uint64 { return at + uint64(int64(int32(entry))) },
}

// symbols are the addresses of those kernel symbols that were asked for.
type symbols map[string]uint64

// readSymbols looks the wanted names up. known must be among them and have the
// given address: that decides which encoding the kernel uses.
func readSymbols(s *space, t kallsymsTable, want map[string]bool, known string, address uint64) (symbols, error) {
	index, err := symbolIndex(s, t, want)
	if err != nil {
		return nil, err
	}
	i, ok := index[known]
	if !ok {
		return nil, fmt.Errorf("%w: no symbol %s", errKallsyms, known)
	}
	entryAt := func(i uint32) uint64 { return t.offsets + 4*uint64(i) }
	entry, err := s.u32(entryAt(i))
	if err != nil {
		return nil, err
	}
	for _, decode := range symbolEncodings {
		if decode(t, entry, entryAt(i)) != address {
			continue
		}
		out := make(symbols, len(index))
		for name, i := range index {
			entry, err := s.u32(entryAt(i))
			if err != nil {
				return nil, err
			}
			out[name] = decode(t, entry, entryAt(i))
		}
		return out, nil
	}
	return nil, fmt.Errorf("%w: no known encoding puts %s at %#x", errKallsyms, known, address)
}

// symbolIndex finds the positions of the wanted names. Of several symbols of
// one name the global one counts, else the first.
func symbolIndex(s *space, t kallsymsTable, want map[string]bool) (map[string]uint32, error) {
	if t.num == 0 || t.num > maxSymbols || t.tokenTable <= t.names || t.tokenTable-t.names > maxSymbolNames {
		return nil, fmt.Errorf("%w: %d symbols in %#x bytes", errKallsyms, t.num, t.tokenTable-t.names)
	}
	names, table, tokenIndex := make([]byte, t.tokenTable-t.names), make([]byte, maxTokenTable), make([]byte, 512)
	if err := errors.Join(s.read(names, t.names), s.read(table, t.tokenTable), s.read(tokenIndex, t.tokenIndex)); err != nil {
		return nil, err
	}
	tok, err := parseTokens(table, tokenIndex)
	if err != nil {
		return nil, err
	}
	index, global := make(map[string]uint32, len(want)), make(map[string]bool)
	_, err = walkNames(names, t.num, tok, func(i uint32, typ byte, name []byte) {
		if !want[string(name)] {
			return
		}
		isGlobal := typ >= 'A' && typ <= 'Z'
		if _, dup := index[string(name)]; !dup || isGlobal && !global[string(name)] {
			index[string(name)], global[string(name)] = i, isGlobal
		}
	})
	return index, err
}
