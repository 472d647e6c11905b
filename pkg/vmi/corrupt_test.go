package vmi_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// snapshot copies the shared guest's memory to a file that stays as it is.
func snapshot(t testing.TB) string {
	t.Helper()
	f := guest(t)
	from, err := os.Open(f.MemoryFile())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.CreateTemp("/dev/shm", "vmi-snapshot-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(to.Name()) })
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	return to.Name()
}

// liar is memory that now and then says something else than what is there.
type liar struct {
	vmi.Memory
	mu   sync.Mutex
	rand *rand.Rand
	rate int // one read of so many is false; 0: none
	last uint64
}

func (l *liar) ReadPhys(p []byte, addr uint64) error {
	err := l.Memory.ReadPhys(p, addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || l.rate == 0 || len(p) < 4 {
		return err
	}
	// Long reads, as of types and symbols, get several lies.
	for range 1 + len(p)>>16 {
		if l.rand.IntN(l.rate) != 0 {
			continue
		}
		at := l.rand.IntN(len(p)-3) &^ 3
		if at+8 <= len(p) && at&7 == 0 {
			l.lie(p[at : at+8])
		} else {
			binary.LittleEndian.PutUint32(p[at:], l.rand.Uint32()>>l.rand.IntN(32))
		}
	}
	if len(p) >= 8 {
		l.last = binary.LittleEndian.Uint64(p)
	}
	return nil
}

// lie makes a word another pointer, a near miss, nothing, or noise.
func (l *liar) lie(word []byte) {
	v := binary.LittleEndian.Uint64(word)
	switch l.rand.IntN(5) {
	case 0:
		v = l.last
	case 1:
		v += 8 * uint64(l.rand.IntN(512))
	case 2:
		v = 0
	case 3:
		v ^= 1 << l.rand.IntN(64)
	default:
		v = l.rand.Uint64()
	}
	binary.LittleEndian.PutUint64(word, v)
}

// FuzzOpen_CorruptedGuest opens a guest whose memory lies, and asks it
// everything: whatever comes out, it comes in time and without a panic.
func FuzzOpen_CorruptedGuest(f *testing.F) {
	if testing.Short() {
		f.Skip("boots a guest")
	}
	path := snapshot(f)
	for seed := range uint64(30) {
		f.Add(seed, uint16(20)<<(seed%8), seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, rate uint16, fromStart bool) {
		mem, err := vmi.OpenFile(path, "")
		if err != nil {
			t.Fatal(err)
		}
		defer mem.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		l := &liar{Memory: mem, rand: rand.New(rand.NewPCG(seed, 0))}
		if fromStart {
			l.rate = int(rate) + 1
		}
		start := time.Now()
		g, err := vmi.Open(ctx, l, vmi.Options{})
		if err != nil {
			if !fromStart {
				t.Fatal(err)
			}
			return
		}
		l.mu.Lock()
		l.rate = int(rate) + 1
		l.mu.Unlock()
		_, _ = g.Processes(ctx)
		_, _ = g.Sockets(ctx)
		_, _ = g.Findings(ctx)
		_, _ = g.Modules(ctx)
		for _, port := range []string{"80", "82", "90", "4242"} {
			for _, proto := range []uint8{1, 6, 17, 132} {
				_, _ = g.Owners(ctx, vmi.Query{Proto: proto, Local: local(t, port)})
				_, _ = g.Owners(ctx, vmi.Query{Proto: proto, Local: local(t, port), Remote: netip.MustParseAddrPort("192.0.2.1:4")})
			}
		}
		_, _ = g.Alive(ctx, 1, 1)
		if d := time.Since(start); d > 15*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// A guest that wipes what it tells crash tools is found by its symbol table.
func TestGuest_WithoutVMCoreInfo(t *testing.T) {
	path := snapshot(t)
	ram, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wiped := 0
	for page := 0; page < len(ram); page += 4096 {
		if bytes.HasPrefix(ram[page:], []byte("OSRELEASE=")) || bytes.HasPrefix(ram[page+12:], []byte("VMCOREINFO\x00")) {
			clear(ram[page : page+4096])
			wiped++
		}
	}
	if wiped == 0 {
		t.Fatal("there was none")
	}
	if err := os.WriteFile(path, ram, 0o600); err != nil {
		t.Fatal(err)
	}
	mem, err := vmi.OpenFile(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	start := time.Now()
	g, err := vmi.Open(t.Context(), mem, vmi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("opened in %v", time.Since(start))
	if g.OS() != guest(t).os.OS() {
		t.Errorf("found %s", g.OS())
	}
	a, err := g.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "80")})
	if err != nil {
		t.Fatal(err)
	}
	guest(t).checkOwners(t, a, []string{"web"})
}

// A kernel that is overwritten, as by a reboot, is noticed before anything is
// answered from what is left of it.
func TestGuest_ChangedKernel(t *testing.T) {
	path := snapshot(t)
	mem, err := vmi.OpenFile(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	g, err := vmi.Open(t.Context(), mem, vmi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	q := vmi.Query{Proto: 6, Local: local(t, "80")}
	if a, err := g.Owners(t.Context(), q); err != nil || len(a.Owners) != 1 {
		t.Fatalf("owners in a snapshot: %+v, %v", a, err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// The next kernel comes: firmware and trampoline overwrite the first MiB, all
	// else is still there.
	if _, err := file.WriteAt(make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	expectChanged(t, g, q)
	if g, err := vmi.Open(t.Context(), mem, vmi.Options{}); err == nil {
		t.Errorf("a dead kernel was opened: %s", g.OS())
	}
	if err := file.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	expectChanged(t, g, q)
}

func expectChanged(t *testing.T, g vmi.Guest, q vmi.Query) {
	t.Helper()
	if a, err := g.Owners(t.Context(), q); !errors.Is(err, vmi.ErrChanged) {
		t.Errorf("Owners: %+v, %v; want ErrChanged", a, err)
	}
	if _, err := g.Processes(t.Context()); !errors.Is(err, vmi.ErrChanged) {
		t.Errorf("Processes: %v; want ErrChanged", err)
	}
}
