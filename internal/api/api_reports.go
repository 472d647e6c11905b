package api

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"
)

// Bounds of a report.
const (
	maxAuthor = 64
	maxReport = 366 * 24 * time.Hour
)

// Report is what another tool says of a process (VM and PID), a file (Fingerprint, in
// VM or in any), a flow, or a VM as a whole.
type Report struct {
	Finding     string        `json:"finding"` // suspect or malicious
	VM          string        `json:"vm,omitempty"`
	PID         uint32        `json:"pid,omitempty"`
	Fingerprint string        `json:"fingerprint,omitempty"` // ELF build id in hex
	Flow        *Tuple        `json:"flow,omitempty"`
	Author      string        `json:"author"`       // the tool, as it calls itself
	Reason      string        `json:"reason"`       // for people
	For         time.Duration `json:"for_ns"`       // until it expires
	By          string        `json:"by,omitempty"` // filled by the server from peer credentials
}

func (s *Server) routeReports() {
	s.handle("POST /v1/reports", s.report)
}

func (s *Server) report(ctx context.Context, c *call) (any, error) {
	var r Report
	if err := c.decode(&r); err != nil {
		return nil, err
	}
	if err := r.Check(); err != nil {
		return nil, err
	}
	r.By = c.peer.name
	advice := hintVMs
	switch {
	case r.Flow != nil:
		advice = "\"gatewayd flows\" lists the flows"
	case r.PID != 0:
		advice = fmt.Sprintf("\"gatewayd ps %s\" lists its processes", r.VM)
	}
	return nil, hint(s.Backend.Report(ctx, r), ErrNotFound, advice)
}

// Check says what is wrong with a report. The error wraps ErrInvalid.
func (r *Report) Check() error {
	switch {
	case r.Finding != "suspect" && r.Finding != "malicious":
		return fmt.Errorf("%w: finding %q: want suspect or malicious", ErrInvalid, r.Finding)
	case r.Author == "" || r.Reason == "":
		return fmt.Errorf("%w: author and reason are needed: who says so, and why", ErrInvalid)
	case len(r.Author) > maxAuthor || len(r.Reason) > maxReason:
		return fmt.Errorf("%w: the author has more than %d bytes or the reason more than %d", ErrInvalid, maxAuthor, maxReason)
	case r.For <= 0 || r.For > maxReport:
		return fmt.Errorf("%w: for_ns %d: a report stands for a time, a year at most", ErrInvalid, r.For)
	}
	return r.checkSubject()
}

// checkSubject wants exactly one.
func (r *Report) checkSubject() error {
	switch {
	case r.Flow != nil && (r.VM != "" || r.PID != 0 || r.Fingerprint != ""),
		r.Fingerprint != "" && r.PID != 0:
		return fmt.Errorf("%w: a report is about one thing: a VM, a process of it, a file, or a flow", ErrInvalid)
	case r.Flow == nil && r.VM == "" && r.Fingerprint == "":
		return fmt.Errorf("%w: the report is about nothing: give vm, vm and pid, fingerprint, or flow", ErrInvalid)
	case r.Flow != nil:
		return r.Flow.check()
	}
	if _, err := hex.DecodeString(r.Fingerprint); err != nil || len(r.Fingerprint) > maxFingerprint {
		return fmt.Errorf("%w: fingerprint %q is no build id in hex: \"readelf -n FILE\" shows it", ErrInvalid, r.Fingerprint)
	}
	return nil
}
