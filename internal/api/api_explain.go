package api

import (
	"context"
	"fmt"
	"net/netip"
)

func (s *Server) routeExplain() {
	s.handle("POST /v1/explain", s.explain)
}

func (s *Server) explain(ctx context.Context, c *call) (any, error) {
	var t Tuple
	if err := c.decode(&t); err != nil {
		return nil, err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return s.Backend.Explain(ctx, t)
}

// check also brings protocol and addresses into their usual form.
func (t *Tuple) check() error {
	proto, _, err := normalProto(t.Proto)
	if err != nil {
		return err
	}
	src, err := parseAddr(t.Src)
	if err != nil {
		return err
	}
	dst, err := parseAddr(t.Dst)
	if err != nil {
		return err
	}
	if src.Is4() != dst.Is4() {
		return fmt.Errorf("%w: %s and %s are of different IP versions", ErrInvalid, src, dst)
	}
	t.Proto, t.Src, t.Dst = proto, src.String(), dst.String()
	return nil
}

func parseAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%w: %q is no IP address", ErrInvalid, s)
	}
	return addr.Unmap(), nil
}
