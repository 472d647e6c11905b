package api

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
)

const hintVMs = "\"gatewayd vms\" lists the VMs"

func (s *Server) routeVMs() {
	s.handle("GET /v1/vms", func(ctx context.Context, _ *call) (any, error) {
		return list(s.Backend.VMs(ctx))
	})
	s.handle("GET /v1/vms/{vm}/processes", func(ctx context.Context, c *call) (any, error) {
		answer, err := list(s.Backend.Processes(ctx, c.PathValue("vm")))
		return answer, hint(err, ErrNotFound, hintVMs)
	})
	s.handle("GET /v1/vms/{vm}/sockets", func(ctx context.Context, c *call) (any, error) {
		answer, err := list(s.Backend.Sockets(ctx, c.PathValue("vm")))
		return answer, hint(err, ErrNotFound, hintVMs)
	})
	s.handle("GET /v1/vms/{vm}/owner/{proto}/{port}", func(ctx context.Context, c *call) (any, error) {
		query, err := c.ownerQuery()
		if err != nil {
			return nil, err
		}
		answer, err := s.Backend.Owner(ctx, query)
		return answer, hint(err, ErrNotFound, hintVMs)
	})
	s.handle("GET /v1/vms/{vm}/processes/{pid}/fingerprint", func(ctx context.Context, c *call) (any, error) {
		pid, err := strconv.ParseUint(c.PathValue("pid"), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: %q is no pid", ErrInvalid, c.PathValue("pid"))
		}
		return s.Backend.Fingerprint(ctx, c.PathValue("vm"), uint32(pid))
	})
	s.handle("GET /v1/vms/{vm}/modules", func(ctx context.Context, c *call) (any, error) {
		answer, err := list(s.Backend.Modules(ctx, c.PathValue("vm")))
		return answer, hint(err, ErrNotFound, hintVMs)
	})
	s.handle("GET /v1/vms/{vm}/findings", func(ctx context.Context, c *call) (any, error) {
		answer, err := list(s.Backend.Findings(ctx, c.PathValue("vm")))
		return answer, hint(err, ErrNotFound, hintVMs)
	})
}

// ownerQuery reads a query for the owner of a socket: its port from the path,
// the rest from the parameters addr, remote and netns.
func (c *call) ownerQuery() (q OwnerQuery, err error) {
	if q.Port, err = c.port(); err != nil {
		return q, err
	}
	wrong := func(what, text string) (OwnerQuery, error) {
		return OwnerQuery{}, fmt.Errorf("%w: %q is no %s", ErrInvalid, text, what)
	}
	params := c.URL.Query()
	if text := params.Get("addr"); text != "" {
		if q.Addr, err = netip.ParseAddr(text); err != nil {
			return wrong("address", text)
		}
	}
	if text := params.Get("remote"); text != "" {
		if q.Remote, err = netip.ParseAddrPort(text); err != nil {
			return wrong("address with a port", text)
		}
	}
	if text := params.Get("netns"); text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return wrong("number of a network namespace", text)
		}
		q.NetNS = uint32(n)
	}
	return q, nil
}

// values is the inverse of ownerQuery, for what is not in the path.
func (q OwnerQuery) values() url.Values {
	v := make(url.Values)
	if q.Addr.IsValid() {
		v.Set("addr", q.Addr.String())
	}
	if q.Remote.IsValid() {
		v.Set("remote", q.Remote.String())
	}
	if q.NetNS != 0 {
		v.Set("netns", strconv.FormatUint(uint64(q.NetNS), 10))
	}
	return v
}

// list makes an empty answer [] and not null.
func list[T any](items []T, err error) ([]T, error) {
	if items == nil {
		items = []T{}
	}
	return items, err
}
