package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// Lists implements api.Backend.
func (b backend) Lists(context.Context) ([]api.ListEntry, error) {
	var entries []api.ListEntry
	for _, e := range b.book.Entries() {
		entry := api.ListEntry{
			ID: e.ID, List: string(e.List), Origin: string(e.Origin),
			Name: e.Name, Path: e.Path, Fingerprint: e.Fingerprint, VM: e.VM, Reason: e.Reason, Added: e.Added, Expires: e.Expires,
		}
		if e.Instance != nil {
			entry.PID, entry.Start = e.Instance.PID, e.Instance.Start
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// AddListEntry implements api.Backend.
func (b backend) AddListEntry(ctx context.Context, entry api.ListEntry) error {
	return b.ImportListEntries(ctx, []api.ListEntry{entry})
}

// ImportListEntries implements api.Backend.
func (b backend) ImportListEntries(_ context.Context, entries []api.ListEntry) error {
	var added []string
	inv := b.state.Load().inv
	for _, e := range entries {
		if n := inv.byName[e.VM]; e.VM != "" && (n == nil || n.vm == nil) {
			return fmt.Errorf("%w: there is no VM %q in the inventory", api.ErrNotFound, e.VM)
		}
	}
	for i, e := range entries {
		id, err := b.book.Add(verdict.ListEntry{
			List: verdict.ListKind(e.List), Origin: verdict.Origin(e.Origin),
			Name: e.Name, Path: e.Path, Fingerprint: e.Fingerprint, VM: e.VM, Reason: e.Reason, Added: time.Now(),
		})
		if err != nil {
			for _, id := range added {
				_, _ = b.book.Remove(id) // it was added a moment ago
			}
			return fmt.Errorf("%w: entry %d: %w", api.ErrInvalid, i+1, err)
		}
		added = append(added, id)
	}
	b.journal.note("operator", fmt.Sprintf("%d list entries added", len(entries)))
	return errors.Join(b.effects.rejudge(), b.save())
}

// RemoveListEntry implements api.Backend.
func (b backend) RemoveListEntry(_ context.Context, id string) error {
	entry, err := b.book.Remove(id)
	switch {
	case errors.Is(err, verdict.ErrNoEntry):
		return fmt.Errorf("%w: %w", api.ErrNotFound, err)
	case err != nil:
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	b.journal.note("operator", fmt.Sprintf("entry %s removed from the %s list", id, entry.List))
	return errors.Join(b.effects.rejudge(), b.save())
}

// Policy implements api.Backend.
func (b backend) Policy(context.Context) (api.Policy, error) {
	s, c := b.state.Load(), b.keeper.last()
	p := api.Policy{Default: s.policy.Default.String()}
	for i := range s.policy.Rules {
		r := &s.policy.Rules[i]
		p.Rules = append(p.Rules, api.Rule{
			Name: r.Name, Line: r.Line, Match: r.String(), Action: r.Action.String(), Alert: r.Alert,
			Flows: c.flowsBy[s.rules[r.Name]],
		})
	}
	return p, nil
}

// CheckConfig implements api.Backend.
func (b backend) CheckConfig(ctx context.Context, text []byte) (api.Changes, error) {
	cfg, err := b.parse(text)
	if err != nil {
		return api.Changes{}, err
	}
	old := b.state.Load().cfg
	if err := b.changeable(ctx, old, cfg); err != nil {
		return api.Changes{}, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	return api.Changes{Lines: config.Diff(old, cfg)}, nil
}

// parse reads a configuration text as if it stood in the configuration file.
func (b backend) parse(text []byte) (*config.Config, error) {
	cfg, err := config.Parse(b.opt.ConfigPath, text)
	if err == nil {
		err = cfg.CheckFiles()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	return cfg, nil
}

// ApplyConfig implements api.Backend. The file is replaced only once the
// configuration is in force.
func (b backend) ApplyConfig(ctx context.Context, text []byte) (api.Changes, error) {
	cfg, err := b.parse(text)
	if err != nil {
		return api.Changes{}, err
	}
	changes, err := b.change(ctx, cfg)
	if err != nil {
		return api.Changes{}, err
	}
	return changes, replaceFile(b.opt.ConfigPath, text)
}

// replaceFile writes text to path so that a crash leaves the old file or the new.
func replaceFile(path string, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".gateway-*.yaml")
	if err != nil {
		return fmt.Errorf("the configuration is in force, but cannot be stored: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Chmod(0o640), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("the configuration is in force, but cannot be stored in %s: %w", path, err)
	}
	return nil
}
