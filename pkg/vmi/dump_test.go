package vmi_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// dumpOf writes the shared guest's memory as it is now behind a header, which
// makes it a dump of another format.
func dumpOf(t *testing.T, header func(size uint64) []byte) string {
	t.Helper()
	ram, err := os.ReadFile(snapshot(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(path, slices.Concat(header(uint64(len(ram))), ram), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func limeHeader(size uint64) []byte {
	out := binary.LittleEndian.AppendUint32([]byte("EMiL"), 1)
	return append(binary.LittleEndian.AppendUint64(append(out, make([]byte, 8)...), size-1), make([]byte, 8)...)
}

// elfHeader is that of a core with one segment.
func elfHeader(size uint64) []byte {
	le := binary.LittleEndian
	out := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	le.PutUint16(out[16:], 4)
	le.PutUint16(out[18:], 62)
	le.PutUint32(out[20:], 1)
	le.PutUint64(out[32:], 64)
	le.PutUint16(out[52:], 64)
	le.PutUint16(out[54:], 56)
	le.PutUint16(out[56:], 1)
	out = le.AppendUint32(le.AppendUint32(out, 1), 0)
	for _, v := range []uint64{64 + 56, 0, 0, size, size, 0} {
		out = le.AppendUint64(out, v)
	}
	return out
}

func TestGuest_InDumps(t *testing.T) {
	f := guest(t)
	for name, header := range map[string]func(uint64) []byte{"LiME": limeHeader, "ELF": elfHeader} {
		t.Run(name, func(t *testing.T) {
			mem, err := vmi.OpenAs(dumpOf(t, header), vmi.FormatAuto, "")
			if err != nil {
				t.Fatal(err)
			}
			defer mem.Close()
			g, err := vmi.Open(t.Context(), mem, vmi.Options{})
			if err != nil {
				t.Fatal(err)
			}
			a, err := g.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "80")})
			if err != nil {
				t.Fatal(err)
			}
			f.checkOwners(t, a, []string{"web"})
			list, err := g.Processes(t.Context())
			if err != nil || len(list) < 20 {
				t.Fatalf("%d processes, %v", len(list), err)
			}
			for _, p := range list {
				if p.Hidden {
					t.Errorf("%d %s: %s", p.PID, p.Name, p.HiddenWhy)
				}
			}
		})
	}
}
