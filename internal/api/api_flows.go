package api

import "context"

func (s *Server) routeFlows() {
	s.handle("GET /v1/flows", func(ctx context.Context, _ *call) (any, error) {
		return list(s.Backend.Flows(ctx))
	})
}
