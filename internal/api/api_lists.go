package api

import (
	"context"
	"encoding/hex"
	"fmt"
)

// Bounds of a list entry; comm has 15 bytes (TASK_COMM_LEN), PATH_MAX is 4096
// and a build id has at most 64 bytes in practice.
const (
	maxName        = 15
	maxPath        = 4096
	maxFingerprint = 128
	maxReason      = 1024
)

func (s *Server) routeLists() {
	s.handle("GET /v1/lists", func(ctx context.Context, _ *call) (any, error) {
		return list(s.Backend.Lists(ctx))
	})
	s.handle("POST /v1/lists", s.addListEntry)
	s.handle("POST /v1/lists/import", s.importList)
	s.handle("DELETE /v1/lists/{id}", func(ctx context.Context, c *call) (any, error) {
		err := s.Backend.RemoveListEntry(ctx, c.PathValue("id"))
		return nil, hint(err, ErrNotFound, "\"gatewayd lists\" shows the ids")
	})
}

func (s *Server) addListEntry(ctx context.Context, c *call) (any, error) {
	var entry ListEntry
	if err := c.decode(&entry); err != nil {
		return nil, err
	}
	if err := entry.Check(); err != nil {
		return nil, err
	}
	entry.Origin = "operator"
	return nil, hint(s.Backend.AddListEntry(ctx, entry), ErrNotFound, hintVMs)
}

func (s *Server) importList(ctx context.Context, c *call) (any, error) {
	var entries []ListEntry
	if err := c.decode(&entries); err != nil {
		return nil, err
	}
	for i := range entries {
		if err := entries[i].Check(); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		entries[i].Origin = "import"
	}
	return nil, hint(s.Backend.ImportListEntries(ctx, entries), ErrNotFound, hintVMs)
}

// Check says what is wrong with an entry that is to be added: it must name a
// list and at least one property of processes, and nothing that the daemon
// alone sets. The error wraps ErrInvalid.
func (e *ListEntry) Check() error {
	switch {
	case e.List != "suspect" && e.List != "malicious":
		return fmt.Errorf("%w: list %q: want suspect or malicious", ErrInvalid, e.List)
	case e.Name == "" && e.Path == "" && e.Fingerprint == "":
		return fmt.Errorf("%w: the entry matches everything: give a name, a path or a fingerprint", ErrInvalid)
	case e.ID != "" || e.Origin != "" || e.PID != 0 || e.Start != 0 || !e.Added.IsZero() || !e.Expires.IsZero():
		return fmt.Errorf("%w: id, origin, pid, start_ns, added and expires are set by the daemon", ErrInvalid)
	case len(e.Name) > maxName:
		return fmt.Errorf("%w: name %q has more than %d bytes, and the kernel cuts names off there: match the path", ErrInvalid, e.Name, maxName)
	case len(e.Path) > maxPath, len(e.Reason) > maxReason:
		return fmt.Errorf("%w: the path has more than %d bytes or the reason more than %d", ErrInvalid, maxPath, maxReason)
	case e.Path != "" && e.Path[0] != '/':
		return fmt.Errorf("%w: path %q is not absolute", ErrInvalid, e.Path)
	}
	if _, err := hex.DecodeString(e.Fingerprint); err != nil || len(e.Fingerprint) > maxFingerprint {
		return fmt.Errorf("%w: fingerprint %q is no build id in hex: \"readelf -n FILE\" shows it", ErrInvalid, e.Fingerprint)
	}
	return nil
}
