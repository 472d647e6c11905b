package api

import "context"

func (s *Server) routePolicy() {
	s.handle("GET /v1/policy", func(ctx context.Context, _ *call) (any, error) {
		policy, err := s.Backend.Policy(ctx)
		policy.Rules, _ = list(policy.Rules, nil)
		return policy, err
	})
	s.handle("POST /v1/config/check", s.withText(s.Backend.CheckConfig))
	s.handle("POST /v1/config/apply", s.withText(s.Backend.ApplyConfig))
}

// withText hands the body on as it is: a configuration is YAML, and the
// positions in its errors must be those of the operator's file.
func (s *Server) withText(do func(context.Context, []byte) (Changes, error)) func(context.Context, *call) (any, error) {
	return func(ctx context.Context, c *call) (any, error) {
		text, err := c.body()
		if err != nil {
			return nil, err
		}
		changes, err := do(ctx, text)
		changes.Lines, _ = list(changes.Lines, nil)
		return changes, err
	}
}
