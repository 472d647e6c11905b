package api

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/vmgate/vmgate/pkg/verdict"
)

// maxFor keeps expiry times far from the end of what the maps can express.
const maxFor = 10 * 365 * 24 * time.Hour

func (s *Server) routeVerdicts() {
	s.handle("GET /v1/verdicts", func(ctx context.Context, _ *call) (any, error) {
		return list(s.Backend.Verdicts(ctx))
	})
	s.handle("PUT /v1/verdicts", s.setVerdict)
	s.handle("DELETE /v1/verdicts/{vm}/{proto}/{port}", s.deleteVerdict)
}

func (s *Server) setVerdict(ctx context.Context, c *call) (any, error) {
	var change VerdictChange
	if err := c.decode(&change); err != nil {
		return nil, err
	}
	if err := change.check(); err != nil {
		return nil, err
	}
	change.By = c.peer.name
	return nil, hint(s.Backend.SetVerdict(ctx, change), ErrNotFound, hintVMs)
}

func (s *Server) deleteVerdict(ctx context.Context, c *call) (any, error) {
	port, err := c.port()
	if err != nil {
		return nil, err
	}
	return nil, hint(s.Backend.DeleteVerdict(ctx, port), ErrNotFound, "\"gatewayd verdicts\" lists what there is")
}

// port reads the port of a VM that the call's path names.
func (c *call) port() (Port, error) {
	number, err := strconv.ParseUint(c.PathValue("port"), 10, 16)
	if err != nil {
		return Port{}, fmt.Errorf("%w: %q is no port", ErrInvalid, c.PathValue("port"))
	}
	port := Port{VM: c.PathValue("vm"), Proto: c.PathValue("proto"), Port: uint16(number)}
	return port, port.check()
}

func (v *VerdictChange) check() error {
	if err := v.Port.check(); err != nil {
		return err
	}
	if _, err := verdict.ParseVerdict(v.Verdict); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if v.For < 0 || v.For > maxFor {
		return fmt.Errorf("%w: a verdict for %v: want more than nothing and at most ten years", ErrInvalid, v.For)
	}
	return nil
}

// check also brings the protocol into its usual form.
func (p *Port) check() error {
	if p.VM == "" {
		return fmt.Errorf("%w: no VM is named", ErrInvalid)
	}
	proto, ports, err := normalProto(p.Proto)
	if err != nil {
		return err
	}
	if ports && p.Port == 0 {
		return fmt.Errorf("%w: %s has no port 0", ErrInvalid, proto)
	}
	p.Proto = proto
	return nil
}
