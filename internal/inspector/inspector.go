// Package inspector looks into the guests of a hypervisor host for gateways
// elsewhere: it finds the QEMU machines that it was told to serve, keeps their
// guests open, and answers look-ups. What travels are answers, never memory.
package inspector

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/source"
	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/remote"
)

// Inspector serves the guests of this host.
type Inspector struct {
	cfg     *config.InspectorConfig
	log     *slog.Logger
	server  *remote.Server
	finder  finder
	keepers map[string]*source.Keeper // by the VM's name
	allowed map[string][]string       // VMs by client

	mu       sync.Mutex
	sessions map[string]session // by the VM's name
}

// session gives a name to a guest as it was discovered.
type session struct {
	guest vmi.Guest
	id    string
}

// New makes an inspector and reads its certificates.
func New(cfg *config.InspectorConfig, log *slog.Logger) (*Inspector, error) {
	i := &Inspector{
		cfg: cfg, log: log,
		keepers: map[string]*source.Keeper{}, allowed: map[string][]string{}, sessions: map[string]session{},
	}
	var err error
	if i.finder, err = newFinder(cfg); err != nil {
		return nil, err
	}
	var names []string
	for _, client := range cfg.Clients {
		names = append(names, client.Name)
		i.allowed[client.Name] = client.VMs
		for _, vm := range client.VMs {
			if i.keepers[vm] == nil {
				i.keepers[vm] = i.keeper(vm)
			}
		}
	}
	files := remote.Files{Certificate: cfg.Certificate, Key: cfg.Key, CA: cfg.ClientCA}
	if i.server, err = remote.NewServer(i, files, names, log); err != nil {
		return nil, fmt.Errorf("cannot be an inspector: %w", err)
	}
	return i, nil
}

func (i *Inspector) keeper(vm string) *source.Keeper {
	log := i.log.With("vm", vm)
	open := func(ctx context.Context) (*source.Opened, error) {
		mem, err := i.finder.open(ctx, vm)
		if err != nil {
			return nil, err
		}
		return mem.Discover(ctx, vmi.Options{HiddenSamples: i.cfg.HiddenSamples, Log: log})
	}
	return source.NewKeeper(vm, open, log)
}

// Run serves on a listener, which it closes, until ctx is done. A machine that
// is not there yet is looked for again and again, as is one that has gone.
func (i *Inspector) Run(ctx context.Context, listener net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, k := range i.keepers {
		group.Go(func() error { k.Keep(ctx); return nil })
	}
	group.Go(func() error { return i.server.Serve(ctx, listener) })
	i.log.Info("inspector is up", "listen", listener.Addr().String(), "vms", len(i.keepers), "clients", len(i.allowed))
	return group.Wait()
}

// Guest implements remote.Backend.
func (i *Inspector) Guest(client, vm string) (vmi.Guest, string, error) {
	if !slices.Contains(i.allowed[client], vm) {
		return nil, "", fmt.Errorf("%w: %.100q", remote.ErrUnknownVM, vm)
	}
	guest, err := i.keepers[vm].Current()
	if err != nil {
		return nil, "", err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.sessions[vm]
	if now.guest != guest { // each discovery makes another
		now = session{guest, rand.Text()}
		i.sessions[vm] = now
	}
	return guest, now.id, nil
}

// Changed implements remote.Backend.
func (i *Inspector) Changed(vm string) { i.keepers[vm].Noticed(vmi.ErrChanged) }
