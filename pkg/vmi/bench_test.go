package vmi_test

import (
	"net/netip"
	"testing"

	"github.com/vmgate/vmgate/pkg/vmi"
)

var webPort = vmi.Query{Proto: 6, Local: netip.AddrPortFrom(netip.Addr{}, 82)}

func BenchmarkOwners_Warm(b *testing.B) {
	g := guest(b).os
	for b.Loop() {
		if a, err := g.Owners(b.Context(), webPort); err != nil || len(a.Owners) != 1 {
			b.Fatalf("%+v, %v", a, err)
		}
	}
}

// Cold is the first look-up after discovery: no holder is known.
func BenchmarkOwners_Cold(b *testing.B) {
	f := guest(b)
	for b.Loop() {
		b.StopTimer()
		g, err := vmi.Open(b.Context(), f.mem, vmi.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if a, err := g.Owners(b.Context(), webPort); err != nil || len(a.Owners) != 1 {
			b.Fatalf("%+v, %v", a, err)
		}
	}
}

// Nobody holds the port: the search ends with who could send nevertheless.
func BenchmarkOwners_None(b *testing.B) {
	g := guest(b).os
	nobody := vmi.Query{Proto: 6, Local: netip.MustParseAddrPort("127.0.0.1:4444")}
	for b.Loop() {
		if a, err := g.Owners(b.Context(), nobody); err != nil || len(a.Owners) != 0 {
			b.Fatal(a, err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	f := guest(b)
	for b.Loop() {
		if _, err := vmi.Open(b.Context(), f.mem, vmi.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProcesses(b *testing.B) {
	g := guest(b).os
	for b.Loop() {
		if list, err := g.Processes(b.Context()); err != nil || len(list) < 20 {
			b.Fatal(err)
		}
	}
}

func BenchmarkSockets(b *testing.B) {
	g := guest(b).os
	for b.Loop() {
		if _, err := g.Sockets(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFindings(b *testing.B) {
	g := guest(b).os
	for b.Loop() {
		if _, err := g.Findings(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
