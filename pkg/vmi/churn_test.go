package vmi_test

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/internal/lab/churn"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// A guest that forks and sends as fast as it can: every sender that is named is
// the sender. The whole, of 10,000 questions, is a benchmark
// (vmi_wrong_attributions).
func TestChurn_NoWrongAttribution(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: guests take seconds to boot")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: a network namespace for the guest's packets")
	}
	if err := lab.GuestSupport(""); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	g, err := churn.Start(ctx, lab.GuestConfig{Name: "churn"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	mem, err := vmi.OpenFile(g.MemoryFile(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	guest, err := vmi.Open(ctx, mem, vmi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		life string
		n    int
	}{{"0s", 600}, {"50ms", 600}} {
		sender, err := g.Churn(ctx, "-n", strconv.Itoa(c.n), "-life", c.life)
		if err != nil {
			t.Fatal(err)
		}
		var tally churn.Tally
		for tally.Asked < c.n {
			q, ok, err := g.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if err := tally.Ask(ctx, guest, q, 50*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if status, err := sender.Wait(ctx); err != nil || status != 0 {
			t.Fatalf("churn ended with %d, %v", status, err)
		}
		t.Logf("lives up to %s: %v", c.life, &tally)
		// The past may be wrong, and says that it is the past: ports are used again.
		if tally.Wrong > 0 {
			t.Errorf("lives up to %s: wrong: %v", c.life, tally.Mistakes)
		}
		if tally.Asked < c.n || c.life != "0s" && tally.Right < c.n/2 {
			t.Errorf("lives up to %s: %v", c.life, &tally)
		}
	}
}
