package api

import (
	"context"
	"fmt"
)

func (s *Server) routeMeasures() {
	s.handle("POST /v1/measures", s.measure)
}

func (s *Server) measure(ctx context.Context, c *call) (any, error) {
	var m Measure
	if err := c.decode(&m); err != nil {
		return nil, err
	}
	switch m.Action {
	case "isolate", "inspect", "release":
	default:
		return nil, fmt.Errorf("%w: measure %q: want isolate, inspect or release", ErrInvalid, m.Action)
	}
	if m.VM == "" {
		return nil, fmt.Errorf("%w: no VM is named", ErrInvalid)
	}
	m.By = c.peer.name
	advice := hintVMs
	if m.PID != 0 {
		advice = fmt.Sprintf("\"gatewayd ps %s\" lists its processes", m.VM)
	}
	return nil, hint(s.Backend.Measure(ctx, m), ErrNotFound, advice)
}
