package vmi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// btf is a kernel's type information (Documentation/bpf/btf.rst), decoded no
// further than is asked for: of its 100,000 types we need a few dozen structs,
// and decoding all, as cilium/ebpf/btf would, takes ten times as long.
type btf struct {
	types   []byte   // the type section
	strings []byte   // the string section
	offsets []uint32 // of each type in the type section, by id; 0 is void
	structs map[string]uint32
}

// field is where a member lies in a struct.
type field struct {
	off  uint32 // bytes
	size uint32 // bytes; 0 where unknown
	bit  uint8  // of a bit field: its first bit, counted from off
	bits uint8  // of a bit field: its width; 0 for an ordinary member
}

const (
	btfMagic     = 0xeb9f
	btfHeaderLen = 24
	maxBTF       = 64 << 20
	maxBTFTypes  = 1 << 21
	maxBTFDepth  = 32 // of typedefs, arrays and anonymous structs within another
)

// Kinds of types, from include/uapi/linux/btf.h.
const (
	btfInt = iota + 1
	btfPtr
	btfArray
	btfStruct
	btfUnion
	btfEnum
	btfFwd
	btfTypedef
	btfVolatile
	btfConst
	btfRestrict
	btfFunc
	btfFuncProto
	btfVar
	btfDatasec
	btfFloat
	btfDeclTag
	btfTypeTag
	btfEnum64
)

var errBTF = errors.New("malformed BTF")

// btfSections reads the header: where the sections are, counted from its start.
func btfSections(head []byte) (typeOff, typeLen, strOff, strLen uint64, err error) {
	le := binary.LittleEndian
	if len(head) < btfHeaderLen || le.Uint16(head) != btfMagic || head[2] != 1 {
		return 0, 0, 0, 0, fmt.Errorf("%w: no header", errBTF)
	}
	hdr := uint64(le.Uint32(head[4:]))
	typeOff, typeLen = hdr+uint64(le.Uint32(head[8:])), uint64(le.Uint32(head[12:]))
	strOff, strLen = hdr+uint64(le.Uint32(head[16:])), uint64(le.Uint32(head[20:]))
	if hdr < btfHeaderLen || typeOff+typeLen > maxBTF || strOff+strLen > maxBTF || typeLen%4 != 0 {
		return 0, 0, 0, 0, fmt.Errorf("%w: sections beyond %d bytes", errBTF, maxBTF)
	}
	return typeOff, typeLen, strOff, strLen, nil
}

// parseBTF indexes the types of data, which begins with the header, and finds
// the structs that want names. data is kept.
func parseBTF(data []byte, want map[string]bool) (*btf, error) {
	typeOff, typeLen, strOff, strLen, err := btfSections(data)
	if err != nil {
		return nil, err
	}
	if size := uint64(len(data)); typeOff+typeLen > size || strOff+strLen > size {
		return nil, fmt.Errorf("%w: truncated", errBTF)
	}
	b := &btf{
		types:   data[typeOff : typeOff+typeLen],
		strings: data[strOff : strOff+strLen],
		offsets: make([]uint32, 1, typeLen/20+1),
		structs: make(map[string]uint32, len(want)),
	}
	for at := uint32(0); int(at) < len(b.types); {
		size, err := b.typeSize(at)
		if err != nil {
			return nil, err
		}
		if kind := b.kind(at); kind == btfStruct {
			name := b.nameBytes(b.word(at))
			if want[string(name)] {
				if _, dup := b.structs[string(name)]; !dup {
					b.structs[string(name)] = uint32(len(b.offsets))
				}
			}
		}
		if len(b.offsets) > maxBTFTypes {
			return nil, fmt.Errorf("%w: more than %d types", errBTF, maxBTFTypes)
		}
		b.offsets = append(b.offsets, at)
		at += size
	}
	return b, nil
}

func (b *btf) word(at uint32) uint32 { return binary.LittleEndian.Uint32(b.types[at:]) }

func (b *btf) kind(at uint32) uint32 { return b.word(at+4) >> 24 & 0x1f }

func (b *btf) vlen(at uint32) uint32 { return b.word(at+4) & 0xffff }

// typeSize is the length of the record at offset at, which is checked to lie
// within the section: later reads of the record cannot fail.
func (b *btf) typeSize(at uint32) (uint32, error) {
	if uint64(at)+12 > uint64(len(b.types)) {
		return 0, fmt.Errorf("%w: type cut off", errBTF)
	}
	size, n := uint32(12), b.vlen(at)
	switch kind := b.kind(at); kind {
	case btfInt, btfVar, btfDeclTag:
		size += 4
	case btfArray:
		size += 12
	case btfStruct, btfUnion, btfDatasec, btfEnum64:
		size += 12 * n
	case btfEnum, btfFuncProto:
		size += 8 * n
	case btfPtr, btfFwd, btfTypedef, btfVolatile, btfConst, btfRestrict, btfFunc, btfFloat, btfTypeTag:
	default:
		return 0, fmt.Errorf("%w: kind %d", errBTF, kind)
	}
	if uint64(at)+uint64(size) > uint64(len(b.types)) {
		return 0, fmt.Errorf("%w: type cut off", errBTF)
	}
	return size, nil
}

func (b *btf) nameBytes(off uint32) []byte {
	if uint64(off) >= uint64(len(b.strings)) {
		return nil
	}
	s := b.strings[off:min(uint64(off)+128, uint64(len(b.strings)))]
	for i, c := range s {
		if c == 0 {
			return s[:i]
		}
	}
	return s
}

// resolve follows typedefs and qualifiers to the record of a type.
func (b *btf) resolve(id uint32) (at uint32, err error) {
	for range maxBTFDepth {
		if id == 0 || uint64(id) >= uint64(len(b.offsets)) {
			return 0, fmt.Errorf("%w: no type %d", errBTF, id)
		}
		at = b.offsets[id]
		switch b.kind(at) {
		case btfTypedef, btfVolatile, btfConst, btfRestrict, btfTypeTag:
			id = b.word(at + 8)
		default:
			return at, nil
		}
	}
	return 0, fmt.Errorf("%w: typedefs too deep", errBTF)
}

// sizeOf is the size in bytes of a type; 0 for those that have none.
func (b *btf) sizeOf(id uint32, depth int) uint32 {
	at, err := b.resolve(id)
	if err != nil || depth > maxBTFDepth {
		return 0
	}
	switch b.kind(at) {
	case btfPtr:
		return 8
	case btfInt, btfStruct, btfUnion, btfEnum, btfFloat, btfEnum64:
		return b.word(at + 8)
	case btfArray:
		return b.sizeOf(b.word(at+12), depth+1) * b.word(at+20)
	}
	return 0
}

// structSize is the size of a struct in bytes.
func (b *btf) structSize(name string) (uint32, bool) {
	id, ok := b.structs[name]
	if !ok {
		return 0, false
	}
	return b.word(b.offsets[id] + 8), true
}

// member finds a member by its path, such as "sock", "__sk_common", "skc_num".
// Members of anonymous structs count as the outer struct's own.
func (b *btf) member(path ...string) (field, bool) {
	id, ok := b.structs[path[0]]
	if !ok {
		return field{}, false
	}
	var f field
	for _, name := range path[1:] {
		budget := 1 << 14
		step, typ, ok := b.find(id, name, 0, &budget)
		if !ok {
			return field{}, false
		}
		step.off += f.off
		f, id = step, typ
	}
	return f, f.off < 1<<20
}

// find looks for a member in one struct or union. budget bounds the members
// seen: anonymous structs of hostile BTF could contain each other.
func (b *btf) find(id uint32, name string, depth int, budget *int) (f field, typ uint32, ok bool) {
	at, err := b.resolve(id)
	if err != nil || depth > maxBTFDepth {
		return f, 0, false
	}
	if kind := b.kind(at); kind != btfStruct && kind != btfUnion {
		return f, 0, false
	}
	bitfields := b.word(at+4)>>31 == 1
	for i := range b.vlen(at) {
		if *budget--; *budget < 0 {
			return f, 0, false
		}
		m := at + 12 + 12*i
		member, typ, off := b.nameBytes(b.word(m)), b.word(m+4), b.word(m+8)
		f = field{off: off / 8}
		if bitfields {
			f = field{off: off & 0xffffff / 8, bit: uint8(off & 7), bits: uint8(off >> 24)}
		}
		if string(member) == name {
			f.size = b.sizeOf(typ, 0)
			return f, typ, true
		}
		if len(member) > 0 {
			continue
		}
		if inner, typ, ok := b.find(typ, name, depth+1, budget); ok {
			inner.off += f.off
			return inner, typ, true
		}
	}
	return field{}, 0, false
}
