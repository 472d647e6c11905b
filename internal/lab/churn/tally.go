package churn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// Tally counts answers.
type Tally struct {
	Asked     int
	Right     int // the sender, and nobody else
	Wrong     int // somebody else
	Unknown   int // nobody, or an error that says to try again
	PastRight int // of the unknown: last seen with the sender
	PastWrong int // of the unknown: last seen with somebody else
	Took      []time.Duration
	Mistakes  []string // of the wrong, some
}

// Ask has introspection answer a question, within deadline.
func (t *Tally) Ask(ctx context.Context, os vmi.Guest, q Question, deadline time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	begin := time.Now()
	answer, err := os.Owners(bounded, vmi.Query{Proto: q.Proto, Local: q.Local, Remote: q.Remote})
	t.Took = append(t.Took, time.Since(begin))
	t.Asked++
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, vmi.ErrUnstable), errors.Is(err, context.DeadlineExceeded):
		t.Unknown++
	case err != nil:
		return err
	case len(answer.Owners) == 1 && answer.Owners[0].PID == q.PID:
		t.Right++
	case len(answer.Owners) > 0:
		t.Wrong++
		if len(t.Mistakes) < 10 {
			t.Mistakes = append(t.Mistakes, fmt.Sprintf("%+v: %+v", q, answer))
		}
	default:
		t.Unknown++
		if len(answer.Past) > 0 && answer.Past[0].PID == q.PID {
			t.PastRight++
		} else if len(answer.Past) > 0 {
			t.PastWrong++
		}
	}
	return nil
}

// Percent is n of all that were asked.
func (t *Tally) Percent(n int) float64 { return 100 * float64(n) / float64(max(t.Asked, 1)) }

// Quantile is the time that a part p, from 0 to 1, of the answers took at most.
func (t *Tally) Quantile(p float64) time.Duration {
	if len(t.Took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t.Took))
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

func (t *Tally) String() string {
	return fmt.Sprintf("%d asked: %d right (%.1f %%), %d unknown, %d wrong; of the unknown the past knew %d and was wrong about %d; p50 %v, p99 %v",
		t.Asked, t.Right, t.Percent(t.Right), t.Unknown, t.Wrong, t.PastRight, t.PastWrong, t.Quantile(0.5), t.Quantile(0.99))
}
