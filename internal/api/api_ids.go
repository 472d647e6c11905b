package api

import (
	"context"
	"time"
)

// IDS is the inline engine in detail. Counts of packets are since the maps were made.
type IDS struct {
	IDSStatus
	Version   string   `json:"version,omitempty"` // of the engine's program
	RuleFiles []string `json:"rule_files"`
	Rules     int      `json:"rules_loaded"`           // in force; a file with a rule that the engine does not take is refused as a whole
	Refused   string   `json:"last_refused,omitempty"` // what the engine said of rules that were last refused

	PacketsIn  uint64 `json:"packets_in"`  // given to the engine
	PacketsOut uint64 `json:"packets_out"` // that came back and were delivered
	NotBack    uint64 `json:"not_back"`    // the difference: dropped by its rules or for want of room, or on their way

	Engines []IDSEngine `json:"engines"` // the instances, by their numbers
}

// IDSEngine is one instance of the engine. Its counts are since the daemon's start.
type IDSEngine struct {
	State      string    `json:"state"` // starting, up, down
	PID        int       `json:"pid,omitempty"`
	Since      time.Time `json:"since"`
	Restarts   int       `json:"restarts"`
	LastReason string    `json:"last_reason,omitempty"` // why it was last not up

	CanaryAge time.Duration `json:"canary_age_ns"` // since a canary came through, of the worse direction; -1: none yet
	AlertAge  time.Duration `json:"alert_age_ns"`  // since the alert of a heartbeat came; -1: none yet

	Lines     uint64 `json:"lines"` // read from the engine
	Malformed uint64 `json:"malformed"`
	Lost      uint64 `json:"lost"`     // alerts for which there was no time
	Repeated  uint64 `json:"repeated"` // lines of which the second had enough
}

func (s *Server) routeIDS() {
	s.handle("GET /v1/ids", func(ctx context.Context, _ *call) (any, error) {
		ids, err := s.Backend.IDS(ctx)
		ids.RuleFiles, _ = list(ids.RuleFiles, nil)
		ids.Engines, _ = list(ids.Engines, nil)
		return ids, err
	})
	s.handle("POST /v1/ids/reload", func(ctx context.Context, _ *call) (any, error) {
		return nil, s.Backend.ReloadIDS(ctx)
	})
	s.handle("POST /v1/ids/test", func(ctx context.Context, _ *call) (any, error) {
		return nil, s.Backend.TestIDS(ctx)
	})
}
