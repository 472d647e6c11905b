package bench_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/bench/result"
	"github.com/vmgate/vmgate/internal/lab/churn"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// askWithin is the deadline of a question: that of decisions.
const askWithin = 200 * time.Millisecond

// BenchmarkAttribution has the large guest fork children as fast as it can, each
// of which sends one packet that says its pid, UDP and TCP in turn, and asks for
// the owner of each as it arrives, while a sweep passes each second.
//
// vmi_wrong_attributions counts the answers that name somebody else, of 10,000
// about children that live up to 20 ms after they have sent, evenly spread.
// vmi_caught_short_lived_percent is how many of those that end at once are named
// nevertheless, as the owner or as who was last seen with the socket. The time
// of an answer is that of a new socket's first look-up.
func BenchmarkAttribution(b *testing.B) {
	want(b, "vmi_wrong_attributions", "vmi_caught_short_lived_percent")
	conditions := result.Conditions(nil)
	c := newCrowd(b, 450)
	conditions["guest"] = c.conditions(nil)
	guest := c.open(b)
	must(b, guest.Sweep(b.Context()))
	found := map[string]result.Figure{}

	tally := c.churn(b, guest, 10_000, "-life", "20ms")
	if tally.Asked < 9_900 {
		b.Fatalf("too few questions: %v", tally)
	}
	found["vmi_wrong_attributions"] = result.Of("answers", []float64{float64(tally.Wrong)})
	found["vmi_right_percent"] = result.Of("%", []float64{tally.Percent(tally.Right)})
	found["vmi_unknown_percent"] = result.Of("%", []float64{tally.Percent(tally.Unknown)})
	found["vmi_past_wrong"] = result.Of("answers", []float64{float64(tally.PastWrong)})
	found["vmi_new_socket_p50_us"] = result.Of("µs", []float64{us(tally.Quantile(0.5))})
	found["vmi_new_socket_p99_us"] = result.Of("µs", []float64{us(tally.Quantile(0.99))})
	for _, mistake := range tally.Mistakes {
		b.Log(mistake)
	}

	var caught, live []float64
	for range vmiRuns {
		tally := c.churn(b, guest, 500)
		caught = append(caught, tally.Percent(tally.Right+tally.PastRight))
		live = append(live, tally.Percent(tally.Right))
		if tally.Wrong > 0 {
			b.Logf("wrong: %v", tally.Mistakes)
		}
	}
	found["vmi_caught_short_lived_percent"] = result.Of("%", caught)
	found["vmi_caught_short_lived_live_percent"] = result.Of("%", live)
	for _, life := range []string{"1ms", "10ms", "100ms", "1s"} {
		tally := c.churn(b, guest, 200, "-life", life, "-parallel", "32")
		found["vmi_caught_up_to_"+life+"_percent"] = result.Of("%", []float64{tally.Percent(tally.Right + tally.PastRight)})
	}
	record(b, found, conditions, nil)
}

// churn asks n questions.
func (c *crowdGuest) churn(b *testing.B, guest vmi.Guest, n int, more ...string) *churn.Tally {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var sweeping sync.WaitGroup
	defer sweeping.Wait()
	defer cancel()
	sweeping.Go(func() {
		for ctx.Err() == nil {
			_ = guest.Sweep(ctx) // at the end it is cut short
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
	begin := time.Now()
	sender, err := c.Churn(ctx, append([]string{"-n", strconv.Itoa(n)}, more...)...)
	must(b, err)
	tally := new(churn.Tally)
	for tally.Asked < n {
		q, ok, err := c.Next(ctx)
		must(b, err)
		if !ok {
			break
		}
		must(b, tally.Ask(ctx, guest, q, askWithin))
	}
	status, err := sender.Wait(ctx)
	must(b, err)
	if status != 0 {
		b.Fatalf("churn ended with status %d", status)
	}
	progress(b, "%v in %v (%v)", tally, time.Since(begin).Round(time.Second), more)
	return tally
}
