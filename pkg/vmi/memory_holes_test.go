package vmi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Every source that is a file leaves its holes as they are, whoever reads what.
func TestFileSources_KeepTheirHoles(t *testing.T) {
	const ram = 8 << 20
	lime := binary.LittleEndian.AppendUint32([]byte("EMiL"), 1)
	lime = binary.LittleEndian.AppendUint64(lime, 0)
	lime = binary.LittleEndian.AppendUint64(lime, ram-1)
	lime = append(lime, make([]byte, 8)...)
	for _, c := range []struct {
		name string
		head []byte
		open func(path string) (Memory, error)
	}{
		{"a memory file", nil, func(path string) (Memory, error) { return OpenFile(path, "q35") }},
		{"a memory file by its layout", nil, func(path string) (Memory, error) {
			l, err := LayoutOf(Part{Phys: 0, Offset: 0, Size: ram})
			if err != nil {
				return nil, err
			}
			return OpenLayout(path, l)
		}},
		{"LiME", lime, func(path string) (Memory, error) { return OpenAs(path, FormatLiME, "") }},
		{"ELF", sparseELF(ram), func(path string) (Memory, error) { return OpenAs(path, FormatELF, "") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			fd, err := unix.MemfdCreate("sparse", 0) // shared memory, as QEMU's files are
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), "sparse")
			defer f.Close()
			page := bytes.Repeat([]byte("x"), pageSize)
			if err := f.Truncate(int64(len(c.head)) + ram); err != nil {
				t.Fatal(err)
			}
			for at, b := range map[int64][]byte{0: c.head, int64(len(c.head)) + 3<<20: page} {
				if _, err := f.WriteAt(b, at); err != nil {
					t.Fatal(err)
				}
			}
			before := blocks(t, fd)
			m, err := c.open(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			found := false
			for range 2 { // the second time by the mapping, where one is used
				for at := uint64(0); at < ram; at += pageSize {
					got := make([]byte, pageSize)
					if err := m.ReadPhys(got, at); err != nil {
						t.Fatal(err)
					}
					found = found || at == 3<<20 && bytes.Equal(got, page)
				}
				if err := m.ReadPhys(make([]byte, ram), 0); err != nil {
					t.Fatal(err)
				}
				if _, err := m.Ranges(); err != nil {
					t.Fatal(err)
				}
			}
			if after := blocks(t, fd); after != before || !found {
				t.Errorf("%d blocks became %d; the page was found: %v", before, after, found)
			}
		})
	}
}

func blocks(t *testing.T, fd int) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

// sparseELF is the head of a core with one segment of size bytes behind it.
func sparseELF(size uint64) []byte {
	core := elfCore(elfSegment{0, nil})
	const program = 64 + 56 // the second program header: type, flags, offset, …
	le := binary.LittleEndian
	le.PutUint64(core[program+32:], size)
	le.PutUint64(core[program+40:], size)
	return core
}
