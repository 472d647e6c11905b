package vmi_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// TestFlips flips bits and bytes in a guest's memory, one for each look: this
// many, or as many as the environment says (scripts/fuzz.sh: a hundred thousand).
const (
	flipsEach = 10_000
	envFlips  = "VMI_TEST_FLIPS"
)

// Bounds on one look at a memory that makes no sense. The time is for a machine
// that is busy with other tests.
const (
	flipTime  = 20 * time.Second
	flipBytes = 512 << 20
)

// flipped is a guest's memory, of which a few bytes are not as they were.
type flipped struct {
	ram    []byte
	ranges []vmi.Range
	flips  []flip
	trace  func(addr, n uint64) // nil: nobody wants to know what is read
}

// flip is a byte that is another: at its address, XORed with mask.
type flip struct {
	at   uint64
	mask byte
}

func (m *flipped) ReadPhys(p []byte, addr uint64) error {
	if addr > uint64(len(m.ram)) || uint64(len(p)) > uint64(len(m.ram))-addr {
		return errors.New("no RAM there")
	}
	if m.trace != nil {
		m.trace(addr, uint64(len(p)))
	}
	copy(p, m.ram[addr:])
	for _, f := range m.flips {
		if f.at-addr < uint64(len(p)) {
			p[f.at-addr] ^= f.mask
		}
	}
	return nil
}

func (m *flipped) Ranges() ([]vmi.Range, error) { return m.ranges, nil }
func (m *flipped) Close() error                 { return nil }

// asks are what is asked of the flipped memory. Each says what it was told that
// is wrong by a second opinion on the same memory, and is skipped where there is
// an error: that is an honest answer.
var asks = []struct {
	name   string
	weight int
	ask    func(ctx context.Context, g vmi.Guest, mem *flipped, rnd *rand.Rand) (wrong error, err error)
}{
	{"owners", 50, askOwners},
	{"processes", 22, askProcesses},
	{"sockets", 18, askSockets},
	{"findings", 8, askFindings},
	{"open", 2, askOpen},
}

// flipQueries are sockets of the agents.
var flipQueries = []vmi.Query{
	{Proto: 6, Local: netip.MustParseAddrPort("[::1]:81")}, {Proto: 6, Local: netip.MustParseAddrPort("127.0.0.1:82")},
	{Proto: 6, Local: netip.MustParseAddrPort("0.0.0.0:90")}, {Proto: 6, Local: netip.MustParseAddrPort("0.0.0.0:99")},
	{Proto: 17, Local: netip.MustParseAddrPort("127.0.0.1:53")}, {Proto: 17, Local: netip.MustParseAddrPort("0.0.0.0:91")},
	{Proto: 6, Local: netip.MustParseAddrPort("0.0.0.0:80")}, {Proto: 6, Local: netip.MustParseAddrPort("0.0.0.0:4444")},
}

func askOwners(ctx context.Context, g vmi.Guest, _ *flipped, rnd *rand.Rand) (wrong error, err error) {
	q := flipQueries[rnd.IntN(len(flipQueries))]
	a, err := g.Owners(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, p := range a.Owners {
		if err := vmi.CheckHolder(ctx, g, p.PID, p.Start, q.Local.Port()); err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("%+v of port %d, verified by %q: %w", p, q.Local.Port(), a.Verified, err))
		}
	}
	return wrong, nil
}

func askProcesses(ctx context.Context, g vmi.Guest, _ *flipped, rnd *rand.Rand) (wrong error, err error) {
	list, err := g.Processes(ctx)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	some := []vmi.Process{list[rnd.IntN(len(list))]}
	for _, p := range list {
		if p.Hidden {
			some = append(some, p)
		}
	}
	for _, p := range some {
		if err := vmi.CheckProcess(ctx, g, p); err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("%+v: %w", p, err))
		}
	}
	return wrong, nil
}

func askSockets(ctx context.Context, g vmi.Guest, _ *flipped, _ *rand.Rand) (wrong error, err error) {
	list, err := g.Sockets(ctx)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	for _, s := range list {
		if s.Proto != 6 && s.Proto != 17 {
			continue
		}
		if !s.Local.Addr().IsValid() {
			wrong = errors.Join(wrong, fmt.Errorf("a socket without an address: %+v", s))
		}
	}
	return wrong, nil
}

func askFindings(ctx context.Context, g vmi.Guest, _ *flipped, _ *rand.Rand) (wrong error, err error) {
	list, err := g.Findings(ctx)
	for _, f := range list {
		if f.Kind == "" || !printableLine(f.Subject) || !printableLine(f.Evidence) {
			wrong = errors.Join(wrong, fmt.Errorf("finding %+v", f))
		}
	}
	return wrong, err
}

func askOpen(ctx context.Context, _ vmi.Guest, mem *flipped, rnd *rand.Rand) (wrong error, err error) {
	g, err := vmi.Open(ctx, mem, vmi.Options{})
	if err != nil {
		if !errors.Is(err, vmi.ErrNotReady) && !errors.Is(err, vmi.ErrNotUnderstood) {
			return fmt.Errorf("an error of no kind: %w", err), nil
		}
		return nil, err
	}
	if !printableLine(g.OS()) {
		return fmt.Errorf("it is %q", g.OS()), nil
	}
	return askOwners(ctx, g, mem, rnd)
}

func printableLine(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\ufffd' })
}

// readSpan is a piece of memory that a look has read.
type readSpan struct{ at, n uint64 }

// spansOf records what each ask reads from a memory without flips.
func spansOf(t *testing.T, g vmi.Guest, mem *flipped) [][]readSpan {
	t.Helper()
	out := make([][]readSpan, len(asks))
	for i, a := range asks {
		mem.trace = func(addr, n uint64) { out[i] = append(out[i], readSpan{addr, n}) }
		for seed := range uint64(40) { // all that chance may choose
			if wrong, err := a.ask(t.Context(), g, mem, rand.New(rand.NewPCG(seed, 0))); wrong != nil || err != nil {
				t.Fatalf("%s without flips: %v, %v", a.name, wrong, err)
			}
			if a.name == "open" {
				break
			}
		}
		mem.trace = nil
	}
	return out
}

// chosen is a flip that a look is likely to see: in what it read before, where
// small pieces are as likely as large ones, or anywhere.
func chosen(spans []readSpan, size uint64, rnd *rand.Rand) flip {
	f := flip{at: rnd.Uint64N(size), mask: 1 << rnd.IntN(8)}
	if rnd.IntN(10) > 0 {
		s := spans[rnd.IntN(len(spans))]
		f.at = s.at + rnd.Uint64N(s.n)
	}
	if rnd.IntN(3) == 0 {
		f.mask = byte(1 + rnd.IntN(255))
	}
	return f
}

func TestFlips(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	total := flipsEach
	if n := fromEnv(envFlips); n > 0 {
		total = n
	}
	ram, err := os.ReadFile(snapshot(t))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var workers sync.WaitGroup
	counts, slowest := make(map[string]int), time.Duration(0)
	const shares = 2
	begin := time.Now()
	for share := range shares {
		workers.Go(func() {
			w := newFlipper(t, ram, uint64(share))
			for i := 0; i < total/shares && !t.Failed(); i++ {
				w.look(t)
				if i%1000 == 999 {
					w.expectHonest(t)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for name, n := range w.counts {
				counts[name] += n
			}
			slowest = max(slowest, w.slowest)
		})
	}
	workers.Wait()
	t.Logf("%d flips in %v, the slowest look %v: %v", total, time.Since(begin).Round(time.Second), slowest.Round(time.Millisecond), counts)
}

// flipper looks at one memory, again and again.
type flipper struct {
	mem     *flipped
	guest   vmi.Guest
	rnd     *rand.Rand
	seed    uint64
	spans   [][]readSpan
	counts  map[string]int
	slowest time.Duration
}

func newFlipper(t *testing.T, ram []byte, seed uint64) *flipper {
	mem := &flipped{ram: ram, ranges: []vmi.Range{{Start: 0, End: uint64(len(ram))}}}
	g, err := vmi.Open(t.Context(), mem, vmi.Options{})
	if err != nil {
		t.Error(err)
		return nil
	}
	return &flipper{mem: mem, guest: g, rnd: rand.New(rand.NewPCG(seed, 1)), seed: seed, spans: spansOf(t, g, mem), counts: make(map[string]int)}
}

// look flips one byte, asks once and puts the byte back.
func (w *flipper) look(t *testing.T) {
	i := w.pick()
	a := asks[i]
	f := chosen(w.spans[i], uint64(len(w.mem.ram)), w.rnd)
	w.mem.flips = []flip{f}
	what := fmt.Sprintf("%s with byte %#x XOR %#x", a.name, f.at, f.mask)
	defer func() {
		w.mem.flips = nil
		if p := recover(); p != nil {
			t.Errorf("%s: panic: %v\n%s", what, p, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), flipTime)
	defer cancel()
	before, begin := allocatedBytes(), time.Now()
	wrong, err := a.ask(ctx, w.guest, w.mem, w.rnd)
	took, more := time.Since(begin), allocatedBytes()-before
	w.slowest = max(w.slowest, took)
	if wrong != nil {
		t.Errorf("%s: %v", what, wrong)
	}
	if took > flipTime || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%s: took %v", what, took)
	}
	if more > flipBytes {
		t.Errorf("%s: allocated %d MiB", what, more>>20)
	}
	outcome := "answered"
	switch {
	case errors.Is(err, vmi.ErrNotUnderstood):
		outcome = "not understood"
	case errors.Is(err, vmi.ErrChanged):
		outcome = "changed"
	case errors.Is(err, vmi.ErrNotReady):
		outcome = "not ready"
	case errors.Is(err, vmi.ErrUnstable):
		outcome = "unstable"
	case err != nil:
		t.Errorf("%s: an error of no kind: %v", what, err)
	}
	w.counts[a.name+" "+outcome]++
}

func (w *flipper) pick() int {
	n := w.rnd.IntN(100)
	for i, a := range asks {
		if n -= a.weight; n < 0 {
			return i
		}
	}
	return 0
}

// expectHonest checks that no lie stays: with all bytes as they were, all
// answers are.
func (w *flipper) expectHonest(t *testing.T) {
	f := shared.f
	for _, c := range []struct {
		q      vmi.Query
		owners []string
	}{{flipQueries[0], []string{"web"}}, {flipQueries[2], []string{"kid", "par"}}, {flipQueries[7], nil}} {
		var want []uint32
		for _, name := range c.owners {
			want = append(want, f.agent[name])
		}
		slices.Sort(want)
		for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			a, err := w.guest.Owners(t.Context(), c.q)
			var got []uint32
			for _, p := range a.Owners {
				got = append(got, p.PID)
			}
			if err == nil && slices.Equal(got, want) {
				break
			}
			if time.Since(begin) > 2*time.Second { // some of what was found incomplete is kept for a second
				t.Errorf("after flips that are undone, owners of port %d are %v, %v; want %v", c.q.Local.Port(), got, err, want)
				break
			}
		}
	}
	list, err := w.guest.Processes(t.Context())
	if err != nil || slices.ContainsFunc(list, func(p vmi.Process) bool { return p.Hidden }) {
		t.Errorf("after flips that are undone: %d processes, %v", len(list), err)
	}
}

// allocatedBytes is what this process has allocated so far.
func allocatedBytes() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
