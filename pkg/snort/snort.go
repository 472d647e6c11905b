// Package snort runs the inline intrusion detection engine, Snort 3 or Suricata,
// between two ports, watches over it, and turns the lines it writes into alerts.
//
// New checks, Engine.Run owns everything: the process, the directory, the
// goroutines; all are gone when it returns. One file set per engine: suricata*.go,
// eve*.go; snort3.go, alertjson.go, tail.go. The rest does not know which it is.
//
// External takes the alerts of an engine that others run: lines over TLS (tls.go), a
// unix socket (streams.go) or a file (filesource.go), Snort's alert_unixsock
// (unixsock.go) and unified2 (unified2.go, spool.go). All alerts of both pass the
// intake, which bounds them.
//
// IDS output is hostile input (it quotes packets): lines are bounded, what
// cannot be read is counted and skipped.
package snort

import (
	"net"
	"net/netip"
	"time"
)

// Action is what the engine did with the packet.
type Action string

// The actions. Only ActionDrop and ActionReject convict.
const (
	ActionAlert  Action = "alert"  // the packet went on
	ActionDrop   Action = "drop"   // drop, block, blocked
	ActionReject Action = "reject" // reject, reset: dropped, and the sender was told
)

// Alert is one alert of the engine. Texts are valid UTF-8 without control
// characters, Message of at most 1 KiB, Class of at most 256 bytes.
//
// Who sent the packet is said by SrcMAC together with Src: an address alone may
// be forged. Of tunnelled packets Suricata's alerts have the outer addresses;
// Snort's have the inner ones, which their sender has chosen freely.
type Alert struct {
	Time     time.Time        `json:"time"`
	Engine   string           `json:"engine"` // "suricata" or "snort"
	Action   Action           `json:"action"`
	GID      uint32           `json:"gid"`
	SID      uint32           `json:"sid"`
	Rev      uint32           `json:"rev"`
	Message  string           `json:"message"`
	Class    string           `json:"class,omitempty"`
	Priority int              `json:"priority"`
	Proto    uint8            `json:"proto"` // IP protocol number, 0 if unknown
	Src      netip.AddrPort   `json:"src"`   // port 0 where the protocol has none; invalid if the packet is not IP
	Dst      netip.AddrPort   `json:"dst"`
	SrcMAC   net.HardwareAddr `json:"src_mac,omitempty"` // nil if the engine did not say
	DstMAC   net.HardwareAddr `json:"dst_mac,omitempty"`
	VLAN     uint16           `json:"vlan,omitempty"`
	Raw      string           `json:"-"` // the engine's line as it came, cut after 4 KiB; may contain anything
}
