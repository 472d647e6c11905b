package source

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// stuck is a guest whose memory does not answer until it is closed.
type stuck struct {
	vmi.Guest
	closed chan struct{}
}

func (s stuck) Owners(context.Context, vmi.Query) (vmi.Answer, error) {
	<-s.closed
	return vmi.Answer{Verified: "late"}, nil
}

func TestImpatient(t *testing.T) {
	g := stuck{closed: make(chan struct{})}
	opened := impatiently(&Opened{Guest: g, Close: func() error { close(g.closed); return nil }})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := opened.Owners(ctx, vmi.Query{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	if a, err := opened.Owners(t.Context(), vmi.Query{}); err != nil || a.Verified != "late" {
		t.Errorf("%+v, %v", a, err)
	}
}
