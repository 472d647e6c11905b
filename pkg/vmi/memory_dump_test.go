package vmi

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// limeRange is a range of a LiME file.
func limeRange(phys uint64, data []byte) []byte {
	out := binary.LittleEndian.AppendUint32([]byte("EMiL"), 1)
	out = binary.LittleEndian.AppendUint64(out, phys)
	out = binary.LittleEndian.AppendUint64(out, phys+uint64(len(data))-1)
	return append(append(out, make([]byte, 8)...), data...)
}

// elfSegment is one of a core's PT_LOADs.
type elfSegment struct {
	phys uint64
	data []byte
}

// elfCore is a core of physical memory as QEMU writes it, with a note first.
func elfCore(segments ...elfSegment) []byte {
	le := binary.LittleEndian
	const header, program = 64, 56
	offset := uint64(header + program*(len(segments)+1))
	out := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	out = le.AppendUint16(le.AppendUint16(out, 4), 62) // ET_CORE, EM_X86_64
	out = le.AppendUint32(out, 1)
	for _, v := range []uint64{0, header, 0} {
		out = le.AppendUint64(out, v)
	}
	out = le.AppendUint32(out, 0)
	for _, v := range []uint16{header, program, uint16(len(segments) + 1), 0, 0, 0} {
		out = le.AppendUint16(out, v)
	}
	note := []byte("\x05\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00CORE\x00\x00\x00\x00")
	put := func(typ uint32, phys, off, size uint64) {
		out = le.AppendUint32(le.AppendUint32(out, typ), 0)
		for _, v := range []uint64{off, 0, phys, size, size, 0} {
			out = le.AppendUint64(out, v)
		}
	}
	put(4, 0, offset, uint64(len(note)))
	at := offset + uint64(len(note))
	for _, s := range segments {
		put(1, s.phys, at, uint64(len(s.data)))
		at += uint64(len(s.data))
	}
	out = append(out, note...)
	for _, s := range segments {
		out = append(out, s.data...)
	}
	return out
}

func filled(c string, n int) []byte { return bytes.Repeat([]byte(c), n*pageSize) }

func writeFile(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "memory")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenAs_Dumps(t *testing.T) {
	for name, content := range map[string][]byte{
		"LiME": slices.Concat(limeRange(0x1000, filled("a", 2)), limeRange(fourGiB, filled("b", 1))),
		"ELF":  elfCore(elfSegment{fourGiB, filled("b", 1)}, elfSegment{0x1000, filled("a", 2)}),
		// By virtual addresses: the same memory twice, in pieces.
		"overlapping ELF": elfCore(elfSegment{0x1000, filled("a", 2)}, elfSegment{0x2000, filled("a", 1)}, elfSegment{fourGiB, filled("b", 1)}, elfSegment{fourGiB, filled("b", 1)}),
	} {
		t.Run(name, func(t *testing.T) {
			m, err := OpenAs(writeFile(t, content), FormatAuto, "")
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			ranges, err := m.Ranges()
			if want := []Range{{0x1000, 0x3000}, {fourGiB, fourGiB + pageSize}}; err != nil || !slices.Equal(ranges, want) {
				t.Errorf("ranges %#x, %v; want %#x", ranges, err, want)
			}
			buf := make([]byte, 2)
			if err := m.ReadPhys(buf, 0x2fff-1); err != nil || string(buf) != "aa" {
				t.Errorf("%q, %v", buf, err)
			}
			if err := m.ReadPhys(buf, fourGiB); err != nil || string(buf) != "bb" {
				t.Errorf("%q, %v", buf, err)
			}
			for _, hole := range []uint64{0, 0xfff, 0x2fff, 0x3000, fourGiB - 1, fourGiB + pageSize - 1, 1 << 63} {
				if err := m.ReadPhys(buf, hole); err == nil {
					t.Errorf("no error at %#x: %q", hole, buf)
				}
			}
		})
	}
}

func TestOpenAs_Refuses(t *testing.T) {
	lime, core := limeRange(0x1000, filled("a", 1)), elfCore(elfSegment{0x1000, filled("a", 1)})
	huge := limeRange(0, filled("a", 1))
	binary.LittleEndian.PutUint64(huge[16:], 1<<63)
	program := slices.Clone(core)
	program[16] = 2 // ET_EXEC
	for name, c := range map[string]struct {
		content []byte
		format  Format
		want    string
	}{
		"a cut LiME range":               {lime[:len(lime)-1], FormatAuto, "cut off"},
		"a cut LiME header":              {append(slices.Clone(lime), "EMiL"...), FormatAuto, "cut off"},
		"something behind a LiME range":  {append(slices.Clone(lime), make([]byte, 100)...), FormatAuto, "no header of version 1"},
		"a LiME range of half the world": {huge, FormatAuto, "cut off"},
		"LiME beyond the address space":  {limeRange(maxPhys-1, filled("a", 1)), FormatAuto, "beyond"},
		"a cut core":                     {core[:len(core)-1], FormatAuto, "cut off"},
		"a program":                      {program, FormatAuto, "not a core"},
		"a core without memory":          {elfCore(), FormatAuto, "no memory"},
		"a compressed kdump":             {[]byte("KDUMP   and so on"), FormatAuto, "compressed kdump"},
		"RAM that says it is a core":     {core[:pageSize], FormatAuto, "size of RAM"},
		"RAM as LiME":                    {filled("a", 1), FormatLiME, "no header"},
		"RAM as a core":                  {filled("a", 1), FormatELF, "ELF"},
		"a core as RAM":                  {core, FormatRaw, "multiple of 4096"},
		"an unknown format":              {core, "zip", "no format"},
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := OpenAs(writeFile(t, c.content), c.format, ""); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v; want %q", m, err, c.want)
			}
		})
	}
}

// The guest writes what its memory begins with; nothing but the name of the
// format may make a live memory file a dump.
func TestOpenFile_NeverTakesRAMForADump(t *testing.T) {
	for _, head := range [][]byte{elfCore(elfSegment{0, filled("b", 1)}), limeRange(0, filled("b", 1))} {
		ram := make([]byte, 4*pageSize)
		copy(ram, head)
		m, err := OpenFile(writeFile(t, ram), "")
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4)
		if err := m.ReadPhys(got, 0); err != nil || !bytes.Equal(got, head[:4]) {
			t.Errorf("%q, %v; want %q", got, err, head[:4])
		}
		_ = m.Close()
	}
}

// What is made of any dump has its memory in order, once, and within the file.
func FuzzLayoutOf(f *testing.F) {
	f.Add(slices.Concat(limeRange(0x1000, []byte("abc")), limeRange(0x1001, []byte("defg"))))
	f.Add(elfCore(elfSegment{fourGiB, []byte("ab")}, elfSegment{0x1000, []byte("cdef")}, elfSegment{0x1002, []byte("ghijk")}))
	f.Fuzz(func(t *testing.T, content []byte) {
		size := uint64(len(content))
		for _, format := range []Format{FormatAuto, FormatLiME, FormatELF} {
			l, err := layoutOf(bytes.NewReader(content), size, format, "")
			if err != nil {
				continue
			}
			end := uint64(0)
			for i, p := range l.parts {
				if p.size == 0 || p.offset > size || p.size > size-p.offset || p.phys < end || p.phys+p.size < p.phys {
					t.Fatalf("part %d of %+v", i, l.parts)
				}
				end = p.phys + p.size
				for _, at := range []uint64{p.phys, end - 1} {
					if off, run, ok := l.Offset(at); !ok || off-p.offset != at-p.phys || run != end-at {
						t.Fatalf("%#x of part %d is at %#x, %d, %v", at, i, off, run, ok)
					}
				}
			}
		}
	})
}
