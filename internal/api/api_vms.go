package api

import "context"

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
		port, err := c.port()
		if err != nil {
			return nil, err
		}
		answer, err := s.Backend.Owner(ctx, port)
		return answer, hint(err, ErrNotFound, hintVMs)
	})
	s.handle("GET /v1/vms/{vm}/findings", func(ctx context.Context, c *call) (any, error) {
		answer, err := list(s.Backend.Findings(ctx, c.PathValue("vm")))
		return answer, hint(err, ErrNotFound, hintVMs)
	})
}

// list makes an empty answer [] and not null.
func list[T any](items []T, err error) ([]T, error) {
	if items == nil {
		items = []T{}
	}
	return items, err
}
