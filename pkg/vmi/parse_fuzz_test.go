package vmi

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
)

// btfBuilder makes BTF by hand.
type btfBuilder struct {
	types   []byte
	strings []byte
}

func (b *btfBuilder) str(s string) uint32 {
	if len(b.strings) == 0 {
		b.strings = []byte{0}
	}
	if s == "" {
		return 0
	}
	at := uint32(len(b.strings))
	b.strings = append(append(b.strings, s...), 0)
	return at
}

func (b *btfBuilder) words(w ...uint32) {
	for _, x := range w {
		b.types = binary.LittleEndian.AppendUint32(b.types, x)
	}
}

func (b *btfBuilder) bytes() []byte {
	out := []byte{0x9f, 0xeb, 1, 0}
	for _, x := range []uint32{24, 0, uint32(len(b.types)), uint32(len(b.types)), uint32(len(b.strings))} {
		out = binary.LittleEndian.AppendUint32(out, x)
	}
	return append(append(out, b.types...), b.strings...)
}

// sample has a struct whose member lies in an anonymous union behind a typedef,
// and a bit field.
func sampleBTF() []byte {
	var b btfBuilder
	b.words(b.str("int"), btfInt<<24, 4, 32)                                                                        // 1
	b.words(0, btfUnion<<24|1, 4, b.str("inner"), 1, 0)                                                             // 2
	b.words(b.str("alias"), btfTypedef<<24, 2)                                                                      // 3
	b.words(0, btfArray<<24, 0, 1, 1, 5)                                                                            // 4
	b.words(b.str("outer"), 1<<31|btfStruct<<24|3, 32, 0, 3, 64, b.str("list"), 4, 96, b.str("flag"), 1, 3<<24|261) // 5
	return b.bytes()
}

func TestBTF_Members(t *testing.T) {
	b, err := parseBTF(sampleBTF(), map[string]bool{"outer": true})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]field{
		"inner": {off: 8, size: 4},
		"list":  {off: 12, size: 20},
		"flag":  {off: 32, size: 4, bit: 5, bits: 3},
	} {
		if got, ok := b.member("outer", path); !ok || got != want {
			t.Errorf("outer.%s: %+v, %v; want %+v", path, got, ok, want)
		}
	}
	if _, ok := b.member("outer", "none"); ok {
		t.Error("a member that is not there")
	}
	if size, ok := b.structSize("outer"); size != 32 || !ok {
		t.Errorf("size %d", size)
	}
}

func FuzzBTF(f *testing.F) {
	f.Add(sampleBTF())
	if real, err := os.ReadFile("/sys/kernel/btf/vmlinux"); err == nil {
		f.Add(real)
	}
	want := layoutStructs()
	want["outer"] = true
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseBTF(data, want)
		if err != nil {
			return
		}
		for name := range b.structs {
			if size, ok := b.structSize(name); !ok {
				t.Errorf("%s has no size but %d", name, size)
			}
			for _, m := range []string{"inner", "list", "flag", "pid", "sk_protocol"} {
				if got, ok := b.member(name, m); ok && got.off >= 1<<20 {
					t.Errorf("%s.%s at %#x", name, m, got.off)
				}
			}
		}
		_, _ = newLinuxLayout(b)
	})
}

// sampleKallsyms has tokens for "T_s" (1) and "text" (2), and single letters.
func sampleKallsyms() (names, table, index []byte) {
	for i := range 256 {
		index = binary.LittleEndian.AppendUint16(index, uint16(len(table)))
		switch i {
		case 1:
			table = append(table, "T_s\x00"...)
		case 2:
			table = append(table, "text\x00"...)
		default:
			table = append(table, byte(i), 0)
		}
	}
	names = []byte{2, 1, 2, 3, 'd', 'a', 'b', 0x83, 0, 'D', 'o', 'k'}
	return names, table, index
}

func TestKallsyms_Names(t *testing.T) {
	names, table, index := sampleKallsyms()
	tok, err := parseTokens(table, index)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	used, err := walkNames(names, 3, tok, func(_ uint32, typ byte, name []byte) { got = append(got, string(typ)+" "+string(name)) })
	if err != nil || used != len(names) {
		t.Fatal(used, err)
	}
	for i, want := range []string{"T _stext", "d ab", "D ok"} {
		if got[i] != want {
			t.Errorf("symbol %d: %q, want %q", i, got[i], want)
		}
	}
}

func TestKallsyms_Encodings(t *testing.T) {
	table := kallsymsTable{relativeBase: 0xffffffff81000000}
	minus := func(n int32) uint32 { return uint32(-n) }
	for i, c := range []struct {
		entry uint32
		want  uint64
	}{{minus(1 + 0x1234), 0xffffffff81001234}, {0x1234, 0xffffffff81001234}, {minus(0x10), 0xffffffff82000000 - 0x10}} {
		if got := symbolEncodings[i](table, c.entry, 0xffffffff82000000); got != c.want {
			t.Errorf("encoding %d: %#x, want %#x", i, got, c.want)
		}
	}
	if got := symbolEncodings[0](table, 0x1f000, 0); got != 0x1f000 {
		t.Errorf("per-CPU symbol at %#x", got)
	}
}

func FuzzKallsyms(f *testing.F) {
	names, table, index := sampleKallsyms()
	f.Add(names, table, index, uint32(3))
	f.Fuzz(func(t *testing.T, names, table, index []byte, num uint32) {
		tok, err := parseTokens(table, index)
		if err != nil {
			return
		}
		used, err := walkNames(names, num, tok, func(_ uint32, _ byte, name []byte) {
			if len(name) == 0 || len(name) > maxSymbolLen {
				t.Errorf("name of %d bytes", len(name))
			}
		})
		if err == nil && used > len(names) {
			t.Errorf("used %d of %d bytes", used, len(names))
		}
	})
}

func FuzzVMCoreInfo(f *testing.F) {
	f.Add([]byte("OSRELEASE=6.1.0\nBUILD-ID=abc\nSYMBOL(_stext)=ffffffff81000000\nNUMBER(phys_base)=-4096\nKERNELOFFSET=0\n\x00rest"))
	f.Add([]byte("OSRELEASE=\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, ok := parseVMCoreInfo(text)
		if !ok {
			return
		}
		if v.release == "" || len(v.release) > 256 || !bytes.HasPrefix(text, []byte("OSRELEASE=")) {
			t.Errorf("release %q", v.release)
		}
		v.symbol("_stext")
		v.number("phys_base")
	})
}

func TestVMCoreInfo(t *testing.T) {
	v, ok := parseVMCoreInfo([]byte("OSRELEASE=6.1.0\nSYMBOL(_stext)=ffffffff81000000\nNUMBER(phys_base)=-4096\n\x00x=y"))
	stext, ok1 := v.symbol("_stext")
	base, ok2 := v.number("phys_base")
	if !ok || !ok1 || !ok2 || v.release != "6.1.0" || stext != 0xffffffff81000000 || base != ^uint64(4095) {
		t.Errorf("%+v %v: %#x %v, %#x %v", v, ok, stext, ok1, base, ok2)
	}
}

func FuzzBuildID(f *testing.F) {
	f.Add([]byte("\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00\xde\xad\xbe\xef"))
	f.Fuzz(func(t *testing.T, notes []byte) { _ = findBuildID(notes) })
}

func TestBuildID(t *testing.T) {
	note := "\x02\x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00ab\x00\x00x\x00\x00\x00" +
		"\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00\xde\xad\xbe\xef"
	if got := findBuildID([]byte(note)); got != "deadbeef" {
		t.Errorf("%q", got)
	}
}
