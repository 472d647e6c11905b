package vmi

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// device makes a PCI device's directory as sysfs has it.
func device(t *testing.T, root, address, id string, command uint16, memory []byte) {
	t.Helper()
	dir := filepath.Join(root, address)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := make([]byte, 64)
	binary.LittleEndian.PutUint16(config[4:], command)
	for name, content := range map[string][]byte{
		"vendor": []byte("0x1af4\n"), "device": []byte(id + "\n"), "config": config, "resource2": memory,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenIvshmem(t *testing.T) {
	const on = 2
	ram := bytes.Repeat([]byte("0123456789abcdef"), 2<<20/16)
	root := t.TempDir()
	device(t, root, "0000:00:02.0", "0x1000", on, ram) // another device
	device(t, root, "0000:00:03.0", "0x1110", on, ram)
	device(t, root, "0000:00:04.0", "0x1110", on, ram[:1<<20])
	device(t, root, "0000:00:05.0", "0x1110", on, ram[:1<<20])
	device(t, root, "0000:00:06.0", "0x1110", 0, ram[:4096])
	for _, c := range []struct {
		name string
		dev  Ivshmem
		err  string
	}{
		{"the only one of its size", Ivshmem{Size: 2 << 20}, ""},
		{"by address", Ivshmem{Size: 1 << 20, Device: "0000:00:05.0"}, ""},
		{"two of its size", Ivshmem{Size: 1 << 20}, "2 ivshmem devices have 1048576 bytes"},
		{"none of its size", Ivshmem{Size: 8 << 20}, "no ivshmem device has 8388608 bytes; there are others: 0000:00:03.0"},
		{"of another size", Ivshmem{Size: 2 << 20, Device: "0000:00:04.0"}, "has 1048576 bytes"},
		{"no such", Ivshmem{Size: 2 << 20, Device: "0000:00:09.0"}, "is not there"},
		{"of another kind", Ivshmem{Size: 2 << 20, Device: "0000:00:02.0"}, "no ivshmem device"},
		{"no address", Ivshmem{Size: 2 << 20, Device: "../../x"}, "no address of a PCI device"},
		{"switched off", Ivshmem{Size: 4096}, "switched off"},
		{"an unknown machine", Ivshmem{Size: 2 << 20, Machine: "vax"}, "vax"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := openIvshmem(root, c.dev)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkDevice(t, m, c.dev.Size)
		})
	}
	if _, err := openIvshmem(t.TempDir(), Ivshmem{Size: 4096}); err == nil || !strings.Contains(err.Error(), "has none") {
		t.Errorf("a machine without: %v", err)
	}
}

// checkDevice checks memory that is made of repetitions of 0 to f.
func checkDevice(t *testing.T, m Memory, size uint64) {
	t.Helper()
	got := make([]byte, 32)
	if err := m.ReadPhys(got, 4093); err != nil || string(got) != "def0123456789abcdef0123456789abc" {
		t.Errorf("%q, %v", got, err)
	}
	if err := m.ReadPhys(got, size-31); err == nil {
		t.Error("read beyond the end")
	}
	if ranges, err := m.Ranges(); err != nil || len(ranges) != 1 || ranges[0] != (Range{0, size}) {
		t.Errorf("ranges %v, %v", ranges, err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.ReadPhys(got, 0); err == nil {
		t.Error("read after Close")
	}
}

// A device that is unplugged under its reader is an error, not the end.
func TestOpenIvshmem_DeviceGoes(t *testing.T) {
	root := t.TempDir()
	device(t, root, "0000:00:03.0", "0x1110", 2, make([]byte, 1<<20))
	m, err := openIvshmem(root, Ivshmem{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := os.Truncate(filepath.Join(root, "0000:00:03.0", "resource2"), 0); err != nil {
		t.Fatal(err)
	}
	if err := m.ReadPhys(make([]byte, 8), 0); err == nil || !strings.Contains(err.Error(), "the device is gone") {
		t.Errorf("%v", err)
	}
}

// nfit makes a table of ranges of persistent memory, with other things between.
func nfit(ranges ...Range) []byte {
	table := make([]byte, 40)
	le := binary.LittleEndian
	for i, r := range ranges {
		other := make([]byte, 48) // a memory device's region
		le.PutUint16(other, 1)
		le.PutUint16(other[2:], 48)
		spa := make([]byte, 56)
		le.PutUint16(spa[2:], 56)
		le.PutUint16(spa[4:], uint16(i+1))
		copy(spa[16:], "\x79\xd3\xf0\x66\xf3\xb4\x74\x40\xac\x43\x0d\x33\x18\xb7\x8c\xdb")
		le.PutUint64(spa[32:], r.Start)
		le.PutUint64(spa[40:], r.End-r.Start)
		table = append(append(table, other...), spa...)
	}
	return table
}

func TestOpenNVDIMM(t *testing.T) {
	dir := t.TempDir()
	table, physical := filepath.Join(dir, "NFIT"), filepath.Join(dir, "mem")
	if err := os.WriteFile(table, nfit(Range{0, 1 << 20}, Range{1 << 20, 3 << 20}, Range{3 << 20, 5 << 20}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(physical, bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		dev  NVDIMM
		err  string
	}{
		{"the only one of its size", NVDIMM{Size: 1 << 20}, ""},
		{"by address", NVDIMM{Size: 2 << 20, Address: 3 << 20}, ""},
		{"two of its size", NVDIMM{Size: 2 << 20}, "2 of this machine's NVDIMMs have 2097152 bytes"},
		{"none of its size", NVDIMM{Size: 4 << 20}, "there are 1048576 bytes at 0x0, 2097152 bytes at 0x100000"},
		{"of another size", NVDIMM{Size: 1 << 20, Address: 1 << 20}, "no NVDIMM of 1048576 bytes at 0x100000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := openNVDIMM(table, physical, c.dev)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkDevice(t, m, c.dev.Size)
		})
	}
	if _, err := openNVDIMM(filepath.Join(dir, "none"), physical, NVDIMM{Size: 4096}); err == nil || !strings.Contains(err.Error(), "has none") {
		t.Errorf("a machine without: %v", err)
	}
}

func FuzzParseNFIT(f *testing.F) {
	f.Add(nfit(Range{4 << 30, 5 << 30}))
	f.Fuzz(func(t *testing.T, table []byte) {
		for _, r := range parseNFIT(table) {
			if r.Start >= r.End || r.End > maxPhys {
				t.Errorf("%#x", r)
			}
		}
	})
}
