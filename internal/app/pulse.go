package app

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/snort"
)

const (
	// HeartbeatSID is beyond all that rule sets are given: those of ours have it and
	// the 255 that follow.
	heartbeatSID = 4_026_531_840
	// alertsLate is how long heartbeats may pass the engine without the alert that each
	// of them raises. Alerts wait behind others, so any line that is read counts.
	alertsLate = 3 * time.Second
)

// heartbeats counts the alerts of heartbeats, where alerts are taken, for the pulse,
// which is felt where the engine is looked after.
type heartbeats struct {
	count atomic.Uint64
	last  atomic.Int64                        // when, Unix nanoseconds; 0: never
	macs  atomic.Pointer[[2]net.HardwareAddr] // of the canaries
}

// take says whether an alert is about a canary, and counts it if it is a heartbeat's.
// It is no evidence then.
func (h *heartbeats) take(a snort.Alert) bool {
	macs := h.macs.Load()
	if macs == nil {
		return false
	}
	bird := string(a.SrcMAC) == string(macs[0]) || string(a.SrcMAC) == string(macs[1])
	beat := a.GID == 1 && a.SID == heartbeatSID && a.Src.Addr() == heartbeatAddress
	if beat && (bird || len(a.SrcMAC) == 0) {
		h.last.Store(time.Now().UnixNano())
		h.count.Add(1)
		return true
	}
	return bird
}

var heartbeatAddress, _ = netip.AddrFromSlice(canaryAddress(heartbeatKind, 0).To4())

// pulse is the sign that alerts flow: one of the canaries matches a rule of our own,
// whose alert must come back. An engine whose alerts are lost inspects, and convicts
// nobody.
type pulse struct {
	beats    *heartbeats
	optional bool // others run the engine: it need not have our rule

	known  uint64 // beats, at the last look
	lines  uint64 // the engine's, at the last look
	alive  bool   // one has come from this process of the engine
	owed   bool   // a heartbeat has passed the engine since the last alert
	silent time.Duration
}

// passed takes a canary that came through the engine.
func (p *pulse) passed(kind, direction int) {
	p.owed = p.owed || kind == heartbeatKind && direction == inToOut
}

// tick takes how many lines the engine has written so far. A reason that is not empty
// says that its alerts are lost.
func (p *pulse) tick(waited time.Duration, lines uint64) (lost string) {
	beats := p.beats.count.Load()
	if beats != p.known {
		p.known, p.lines, p.alive, p.owed, p.silent = beats, lines, true, false, 0
		return ""
	}
	if lines != p.lines {
		p.lines, p.silent = lines, 0
	}
	if !p.owed || p.optional && !p.alive {
		return ""
	}
	p.silent += waited
	limit := alertsLate
	if !p.alive {
		limit = stuckAfter
	}
	if p.silent < limit {
		return ""
	}
	return fmt.Sprintf("the engine's alerts are lost: heartbeats pass, and for %v none has raised the alert of rule %d", p.silent, uint32(heartbeatSID))
}

// forget begins anew with another process of the engine.
func (p *pulse) forget() {
	*p = pulse{beats: p.beats, optional: p.optional, known: p.beats.count.Load()}
}

// felt says whether a heartbeat has come back, where one is to be expected.
func (p *pulse) felt() bool { return p.alive || p.optional }

// heartbeatRules is the path of the rule file that the engine reads beside the
// operator's.
func heartbeatRules(cfg *config.Config) string {
	return filepath.Join(cfg.Gateway.Run, "heartbeat.rules")
}

// writeHeartbeat writes that file: one rule, in the language of both engines.
func writeHeartbeat(cfg *config.Config) error {
	text := fmt.Sprintf(`alert udp %s any -> %s %d (msg:"vmgate heartbeat"; content:"%s"; sid:%d; rev:1;)`+"\n",
		canaryAddress(heartbeatKind, 0), canaryAddress(heartbeatKind, 1), heartbeatPort, heartbeatMagic, uint32(heartbeatSID))
	if err := os.MkdirAll(cfg.Gateway.Run, 0o755); err != nil {
		return fmt.Errorf("cannot make the run-time directory: %w", err)
	}
	if err := os.WriteFile(heartbeatRules(cfg), []byte(text), 0o644); err != nil {
		return fmt.Errorf("cannot write the heartbeat rule: %w", err)
	}
	return nil
}
