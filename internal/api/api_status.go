package api

import "context"

func (s *Server) routeStatus() {
	s.handle("GET /v1/status", func(ctx context.Context, _ *call) (any, error) {
		return s.Backend.Status(ctx)
	})
	s.handle("POST /v1/reload", func(ctx context.Context, _ *call) (any, error) {
		return s.Backend.Reload(ctx)
	})
}
