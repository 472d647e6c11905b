package snort

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The engine reads copies of the rule files, in its own directory: what was
// checked is what is loaded, and an engine that has to start again finds the
// rules that were good, whatever has become of the originals meanwhile. A rule
// file therefore has to stand alone, without files beside it.
const (
	rulesDir = "rules"
	maxRules = 256 << 20 // bytes of one file
)

func rulePath(dir string, i int) string {
	return filepath.Join(dir, rulesDir, strconv.Itoa(i)+".rules")
}

// withRulesIn is c with the copies in dir instead of the originals.
func (c Config) withRulesIn(dir string) Config {
	copies := make([]string, len(c.Rules))
	for i := range copies {
		copies[i] = rulePath(dir, i)
	}
	c.Rules = copies
	return c
}

// originals puts the names of the originals into what an engine says about the
// copies in dir.
func (c Config) originals(dir string) *strings.Replacer {
	var pairs []string
	for i, path := range c.Rules {
		pairs = append(pairs, rulePath(dir, i), path)
	}
	return strings.NewReplacer(pairs...)
}

// copyRules makes the copies in dir.
func (c Config) copyRules(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, rulesDir), 0o700); err != nil {
		return fmt.Errorf("cannot copy the rules: %w", err)
	}
	for i, path := range c.Rules {
		if err := copyFile(path, rulePath(dir, i)); err != nil {
			return fmt.Errorf("cannot copy rule file %s: %w", path, err)
		}
	}
	return nil
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	n, err := io.Copy(out, io.LimitReader(in, maxRules+1))
	if err == nil && n > maxRules {
		err = fmt.Errorf("longer than %d bytes", maxRules)
	}
	return err
}

// stage copies the rules into a new directory and has the engine test them
// there. After an error there is no such directory.
func (e *Engine) stage(ctx context.Context) (staged string, err error) {
	dir, err := os.MkdirTemp(e.cfg.Dir, "check-")
	if err != nil {
		return "", fmt.Errorf("cannot make a directory for the IDS check: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	if err := e.cfg.copyRules(dir); err != nil {
		return "", err
	}
	if err := e.drv.configure(e.cfg.withRulesIn(dir), e.cfg.MTU+headerRoom, dir, true); err != nil {
		return "", err
	}
	if err := errors.Join(e.user.makeDir(dir), e.user.share(dir)); err != nil {
		return "", fmt.Errorf("cannot make a directory for the IDS check: %w", err)
	}
	printed, err := output(ctx, program{binary: e.binary, args: e.drv.checkArgs(dir), user: e.user}, 1<<20)
	if ctx.Err() != nil {
		return "", fmt.Errorf("cannot check the IDS rules in time: %w", ctx.Err())
	}
	if err != nil {
		said := e.cfg.originals(dir).Replace(printed)
		return "", fmt.Errorf("%s refuses its rules: %w", e.cfg.Engine, condense(e.drv, said, err))
	}
	return dir, nil
}

// adopt makes staged copies those that the engine loads next. Restore puts back those
// from before, if there were any.
func (e *Engine) adopt(staged string) (restore func() error, err error) {
	if err := os.MkdirAll(filepath.Join(e.cfg.Dir, rulesDir), 0o700); err != nil {
		return nil, fmt.Errorf("cannot take over the rules: %w", err)
	}
	was := e.proven
	before := filepath.Join(staged, "before")
	if err := os.Mkdir(before, 0o700); err != nil {
		return nil, fmt.Errorf("cannot take over the rules: %w", err)
	}
	var taken []func() error
	restore = func() error {
		e.proven = was
		var errs []error
		for _, back := range taken {
			errs = append(errs, back())
		}
		return errors.Join(errs...)
	}
	for i := range e.cfg.Rules {
		current, aside := rulePath(e.cfg.Dir, i), filepath.Join(before, filepath.Base(rulePath("", i)))
		err := os.Rename(current, aside)
		if err == nil {
			taken = append(taken, func() error { return os.Rename(aside, current) })
		}
		if err == nil || errors.Is(err, os.ErrNotExist) {
			err = os.Rename(rulePath(staged, i), current)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cannot take over the rules: %w", err), restore())
		}
	}
	e.proven = true
	return restore, nil
}

// Check has the engine test its configuration and rules without running. The
// error is the engine's own and names rule file and line.
func (e *Engine) Check(ctx context.Context) error {
	if err := os.MkdirAll(e.cfg.Dir, 0o711); err != nil {
		return fmt.Errorf("cannot make the IDS directory: %w", err)
	}
	defer os.Remove(e.cfg.Dir) // succeeds only if nothing else is in it
	if err := errors.Join(os.Lchown(e.cfg.Dir, 0, int(e.user.gid)), os.Chmod(e.cfg.Dir, 0o750)); err != nil {
		return fmt.Errorf("cannot make the IDS directory: %w", err)
	}
	staged, err := e.stage(ctx)
	if err != nil {
		return err
	}
	return os.RemoveAll(staged)
}

// Reload has the running engine take over the rule files as they are now,
// without losing a packet. The rules are tested first: after an error about
// them the old ones are still in force, also after a restart of the engine. If
// it is just not up, the new rules are those that it starts with.
func (e *Engine) Reload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	e.mu.Lock()
	isRunning := e.isRunning
	e.mu.Unlock()
	if !isRunning {
		return errors.New("cannot reload: the engine is not run")
	}
	staged, err := e.stage(ctx)
	if err != nil {
		return fmt.Errorf("cannot reload, the old rules stay: %w", err)
	}
	defer os.RemoveAll(staged)

	select {
	case e.loading <- struct{}{}:
		defer func() { <-e.loading }()
	case <-ctx.Done():
		return fmt.Errorf("cannot reload, the old rules stay: the engine is busy loading: %w", ctx.Err())
	}
	restore, err := e.adopt(staged)
	if err != nil {
		return err
	}
	e.mu.Lock()
	p := e.proc
	e.mu.Unlock()
	if p == nil {
		return nil
	}
	if err := e.drv.reload(ctx, e.cfg.Dir, p); err != nil {
		return errors.Join(fmt.Errorf("cannot reload: %w", err), restore())
	}
	return nil
}
