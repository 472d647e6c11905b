package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/vmgate/vmgate/internal/api"
)

const maxEntries = 10000

// importEntry is an entry as files have it: what the daemon alone sets is no
// part of it, and so refused.
type importEntry struct {
	List        string `json:"list"`
	Name        string `json:"name"`
	Path        string `json:"path"`
	Fingerprint string `json:"fingerprint"`
	VM          string `json:"vm"`
	Reason      string `json:"reason"`
}

// columns are the fields by their names in CSV.
func (e *importEntry) columns() map[string]*string {
	return map[string]*string{
		"list": &e.List, "name": &e.Name, "path": &e.Path,
		"fingerprint": &e.Fingerprint, "vm": &e.VM, "reason": &e.Reason,
	}
}

func (e *importEntry) entry() (api.ListEntry, error) {
	entry := api.ListEntry{List: e.List, Name: e.Name, Path: e.Path, Fingerprint: e.Fingerprint, VM: e.VM, Reason: e.Reason}
	return entry, entry.Check()
}

// parseEntries reads JSON or CSV, whichever the text begins like. Errors name
// the line.
func parseEntries(text []byte) ([]api.ListEntry, error) {
	text = bytes.TrimPrefix(text, []byte("\uFEFF")) // spreadsheets write it
	parse := parseCSV
	if start := bytes.TrimSpace(text); len(start) > 0 && (start[0] == '[' || start[0] == '{') {
		parse = parseJSON
	}
	entries, err := parse(text)
	if err == nil && len(entries) == 0 {
		err = errors.New("the file has no entries")
	}
	if err != nil {
		return nil, invalidInput{fmt.Errorf("cannot import, and nothing was imported: %w", err)}
	}
	return entries, nil
}

func parseCSV(text []byte) ([]api.ListEntry, error) {
	r := csv.NewReader(bytes.NewReader(text))
	r.ReuseRecord = true
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, csvError(err)
	}
	header = slices.Clone(header)
	known := new(importEntry).columns()
	for i, name := range header {
		if known[name] == nil || slices.Contains(header[:i], name) {
			return nil, lineError(1, "column %q is unknown or there twice: the columns are list, name, path, fingerprint, vm and reason", name)
		}
	}
	var entries []api.ListEntry
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, csvError(err)
		}
		var e importEntry
		for i, name := range header {
			*e.columns()[name] = record[i]
		}
		line, _ := r.FieldPos(0)
		if entries, err = appendEntry(entries, e, line); err != nil {
			return nil, err
		}
	}
}

// csvError names the line the way that all errors of an import do.
func csvError(err error) error {
	if e, ok := errors.AsType[*csv.ParseError](err); ok {
		return lineError(e.Line, "%w", e.Err)
	}
	return err
}

func parseJSON(text []byte) ([]api.ListEntry, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	// The decoder's position is the end of what it has read last.
	line := func() int { return 1 + bytes.Count(text[:d.InputOffset()], []byte("\n")) }
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, lineError(line(), "want an array of objects")
	}
	var entries []api.ListEntry
	for d.More() {
		var e importEntry
		if err := d.Decode(&e); err != nil {
			return nil, lineError(line(), "%w", err)
		}
		var err error
		if entries, err = appendEntry(entries, e, line()); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, lineError(line(), "the array does not end: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, lineError(line(), "something follows the array")
	}
	return entries, nil
}

func appendEntry(entries []api.ListEntry, e importEntry, line int) ([]api.ListEntry, error) {
	if len(entries) == maxEntries {
		return nil, lineError(line, "more than %d entries: split the file", maxEntries)
	}
	entry, err := e.entry()
	if err != nil {
		return nil, lineError(line, "%w", err)
	}
	return append(entries, entry), nil
}

func lineError(line int, format string, args ...any) error {
	return fmt.Errorf("line %d: %w", line, fmt.Errorf(format, args...))
}
