package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/store"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/snort"
)

// Reload reads the configuration file again and puts it in force. If it is
// wrong, the one in force stays and the error says why.
func (a *App) Reload(ctx context.Context) (api.Changes, error) {
	cfg, err := config.Load(a.opt.ConfigPath)
	if err != nil {
		return api.Changes{}, a.refused(fmt.Errorf("%w: %w", api.ErrInvalid, err))
	}
	return a.change(ctx, cfg)
}

// change replaces the configuration in force, or says why it cannot.
func (a *App) change(ctx context.Context, cfg *config.Config) (api.Changes, error) {
	a.reloads.Lock()
	defer a.reloads.Unlock()
	old := a.state.Load()
	resolveMTU(cfg)
	if err := a.changeable(ctx, old.cfg, cfg); err != nil {
		return api.Changes{}, a.refused(fmt.Errorf("%w: %w", api.ErrInvalid, err))
	}
	if !slices.Equal(idsPorts(old.cfg), idsPorts(cfg)) {
		if err := ensureIDSPorts(cfg); err != nil {
			return api.Changes{}, a.refused(err)
		}
	}
	if err := a.install(cfg); err != nil {
		return api.Changes{}, a.refused(errors.Join(err, a.install(old.cfg)))
	}
	if cfg.IDS.Engine != "" && sameIDS(old.cfg, cfg) {
		if err := a.ids.reload(ctx, cfg); err != nil {
			return api.Changes{}, a.refused(err)
		}
	}
	changes := api.Changes{Lines: config.Diff(old.cfg, cfg)}
	a.log.Info("configuration loaded", "changes", len(changes.Lines))
	a.journal.note("config", fmt.Sprintf("configuration loaded, %d changes", len(changes.Lines)))
	return changes, nil
}

// changeable says whether a running daemon can take over the configuration.
func (a *App) changeable(ctx context.Context, old, cfg *config.Config) error {
	if old.Gateway != cfg.Gateway {
		return errors.New("the gateway section has changed: restart the daemon for that (decided traffic goes on meanwhile)")
	}
	if old.Decision.Queues != cfg.Decision.Queues || old.Decision.QueueBase != cfg.Decision.QueueBase ||
		old.Decision.HeldPerFlow != cfg.Decision.HeldPerFlow || old.Decision.HeldPerVM != cfg.Decision.HeldPerVM ||
		old.Metrics != cfg.Metrics || old.Events != cfg.Events {
		return errors.New("decision.queues, queue-base and held-*, metrics and events are read at the start: restart the daemon to change them")
	}
	return checkEngine(ctx, cfg, a.log)
}

// refused records why a configuration was not loaded.
func (a *App) refused(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lastError = err.Error()
	return err
}

// Teardown removes what a daemon that no longer runs left in the kernel:
// programs, maps, bridges, IDS ports, and its engine. Nothing passes the gateway's vNICs by its
// word afterwards, and nothing is filtered.
func Teardown(opt Options) error {
	cfg, err := config.Load(opt.ConfigPath)
	if err != nil {
		return err
	}
	held, err := store.Open(storePath(cfg)) // locked while a daemon runs
	if err != nil {
		return err
	}
	err = removeKernelSide(cfg)
	if gone := os.Remove(socketPath(cfg)); gone != nil && !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return errors.Join(err, held.Close())
}

func removeKernelSide(cfg *config.Config) error {
	var errs []error
	for number := range loader.MaxIDS {
		errs = append(errs, snort.Clear(idsDir(cfg)+numbered(number)))
	}
	errs = append(errs, loader.Remove(cfg.Gateway.Pins), removeIDSPorts(cfg))
	return errors.Join(errs...)
}

// checkEngine has the engine read its rules, before anything depends on it. Of one
// that others run, it reads what its alerts are taken with.
func checkEngine(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	if cfg.IDS.Engine == "" {
		return nil
	}
	for _, s := range cfg.Segments {
		if s.Group != cfg.Segments[0].Group {
			return fmt.Errorf("ids: one engine serves one layer 2 group, but segment %s is in group %s and segment %s in %s: run a gateway for each group, or leave ids out",
				cfg.Segments[0].Name, cfg.Segments[0].Group, s.Name, s.Group)
		}
	}
	if err := writeHeartbeat(cfg); err != nil {
		return err
	}
	n, err := (&ids{log: log}).newInstance(cfg, 0)
	if err != nil || n.own == nil {
		return err
	}
	return n.own.Check(ctx)
}
