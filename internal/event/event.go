// Package event defines the gateway's event log: one JSON object a line, with
// the field names of Suricata's EVE, so that existing pipelines read it.
package event

import (
	"time"

	"github.com/vmgate/vmgate/pkg/verdict"
)

// Event is one line of the event log and one message of "gatewayd monitor".
type Event struct {
	Timestamp   time.Time          `json:"timestamp"`
	Type        string             `json:"event_type"` // decision, verdict, alert, drop, spoof, vm, ids, config, operator
	SrcIP       string             `json:"src_ip,omitempty"`
	SrcPort     uint16             `json:"src_port,omitempty"`
	DestIP      string             `json:"dest_ip,omitempty"`
	DestPort    uint16             `json:"dest_port,omitempty"`
	Proto       string             `json:"proto,omitempty"` // TCP, UDP, ICMP, …, or the number
	VLAN        []uint16           `json:"vlan,omitempty"`
	FlowID      uint64             `json:"flow_id,omitempty"`
	CommunityID string             `json:"community_id,omitempty"`
	SrcVM       string             `json:"src_vm,omitempty"`
	DestVM      string             `json:"dest_vm,omitempty"`
	SrcProcess  *verdict.Process   `json:"src_process,omitempty"`
	DestProcess *verdict.Process   `json:"dest_process,omitempty"`
	Verdict     string             `json:"verdict,omitempty"`
	Cause       string             `json:"cause,omitempty"`
	Rule        string             `json:"rule,omitempty"`
	Reason      string             `json:"reason,omitempty"`      // of a drop: the counter's name
	Micros      int64              `json:"decision_us,omitempty"` // from the punt to the release
	Evidence    []verdict.Evidence `json:"evidence,omitempty"`
	Alert       *Alert             `json:"alert,omitempty"`
	Message     string             `json:"message,omitempty"`
}

// Alert is the alert object of EVE.
type Alert struct {
	Action    string `json:"action"`
	GID       uint32 `json:"gid"`
	SID       uint32 `json:"signature_id"`
	Rev       uint32 `json:"rev"`
	Signature string `json:"signature"`
	Category  string `json:"category,omitempty"`
	Severity  int    `json:"severity"`
}
