package vmi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// holdersOf finds the processes that hold any of the sockets.
func (g *linuxGuest) holdersOf(ctx context.Context, socks []sock) (Answer, error) {
	files := make(map[uint64]openFile)
	for _, s := range socks {
		f, ok, err := g.k.openFile(s)
		if err != nil {
			return Answer{}, err
		}
		if ok {
			files[f.file] = f
		}
	}
	if len(files) == 0 {
		return Answer{}, nil
	}
	holders, hit, err := g.resolve(ctx, files)
	if err != nil || len(holders) == 0 {
		return Answer{}, err
	}
	// Read again: sockets still lead to these files, and the files are still there.
	for _, s := range socks {
		now, err := g.k.sock(s.addr, s.proto)
		if err != nil || now.local != s.local || now.remote != s.remote || now.socket != s.socket {
			return Answer{}, fmt.Errorf("%w: socket on port %d changed (%w)", ErrUnstable, s.local.Port(), errors.Join(err))
		}
	}
	answer := Answer{Cached: hit, Verified: strconv.Itoa(len(socks)) + " sockets, " + strconv.Itoa(len(files)) + " files and " +
		strconv.Itoa(len(holders)) + " descriptors, pids and start times read again"}
	answer.Owners, err = g.describe(ctx, holders, nil)
	return answer, err
}

// resolve gives the verified holders of files, from the cache where it holds.
func (g *linuxGuest) resolve(ctx context.Context, files map[uint64]openFile) (out []holder, hit bool, err error) {
	var want map[uint64]uint64
	for file, f := range files {
		g.mu.Lock()
		c, ok := g.holders[file]
		g.mu.Unlock()
		if ok && c.inode == f.inode && c.count == f.count && (c.until.IsZero() || time.Now().Before(c.until)) && g.allHold(c.holders, file) {
			out = append(out, c.holders...)
			continue
		}
		if want == nil {
			want = make(map[uint64]uint64)
		}
		want[file] = f.count
	}
	if len(want) == 0 {
		return out, true, nil
	}
	found, err := g.findHolders(ctx, want)
	if err != nil {
		return nil, false, err
	}
	if err := g.k.addRings(ctx, want, found); err != nil {
		return nil, false, err
	}
	for file := range want {
		if !g.allHold(found[file], file) {
			return nil, false, fmt.Errorf("%w: a descriptor was closed or passed on", ErrUnstable)
		}
		if len(found[file]) > 0 {
			c := cached{inode: files[file].inode, count: files[file].count, holders: found[file]}
			if uint64(len(c.holders)) < c.count {
				c.until = time.Now().Add(incompleteFor)
			}
			g.remember(file, c)
		}
		out = append(out, found[file]...)
	}
	return out, false, nil
}

func (g *linuxGuest) allHold(holders []holder, file uint64) bool {
	return !slices.ContainsFunc(holders, func(h holder) bool { return !g.k.verify(h, file) })
}

func (g *linuxGuest) remember(file uint64, c cached) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.holders) >= maxCached {
		clear(g.holders) // what is still asked for comes back at the price of one search
	}
	g.holders[file] = c
}
