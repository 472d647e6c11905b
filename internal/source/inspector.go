package source

import (
	"context"
	"time"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/vmi/remote"
)

// How long an inspector may take to open a guest, connection and discovery
// included, and to say that it is still there.
const (
	openTimeout  = 10 * time.Second
	checkTimeout = 2 * time.Second
)

// openInspector opens a guest that an inspector looks into.
func openInspector(ctx context.Context, place config.Inspector) (*Opened, error) {
	files, err := remote.ClientTLS(remote.Files{Certificate: place.Certificate, Key: place.Key, CA: place.CA})
	if err != nil {
		return nil, err
	}
	client := remote.NewClient(place.Address, files)
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	guest, err := client.Open(ctx, place.VM)
	if err != nil {
		client.Close()
		return nil, err
	}
	return &Opened{
		Guest: guest,
		Same: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			return guest.Check(ctx)
		},
		Close: func() error { client.Close(); return nil },
	}, nil
}
