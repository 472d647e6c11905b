package snort

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// eveTime is the time stamp of Suricata's EVE lines.
const eveTime = "2006-01-02T15:04:05.999999-0700"

// eveRecord is what is read of an EVE line. Format: Suricata user guide,
// "EVE JSON Format"; checked against 7.0.10.
type eveRecord struct {
	Timestamp string  `json:"timestamp"`
	EventType string  `json:"event_type"`
	VLAN      []int64 `json:"vlan"`
	eveEnds
	Ether struct {
		SrcMAC  string `json:"src_mac"`
		DestMAC string `json:"dest_mac"`
	} `json:"ether"`
	Tunnel *eveEnds `json:"tunnel"`
	Alert  *struct {
		Action    string `json:"action"`
		GID       uint32 `json:"gid"`
		SID       uint32 `json:"signature_id"`
		Rev       uint32 `json:"rev"`
		Signature string `json:"signature"`
		Category  string `json:"category"`
		Severity  int32  `json:"severity"`
	} `json:"alert"`
}

type eveEnds struct {
	SrcIP    string `json:"src_ip"`
	SrcPort  uint16 `json:"src_port"`
	DestIP   string `json:"dest_ip"`
	DestPort uint16 `json:"dest_port"`
	Proto    string `json:"proto"`
}

// parseEve reads one line of Suricata; false means that it is a good line
// about something else than an alert.
func parseEve(line []byte) (Alert, bool, error) {
	var r eveRecord
	if err := json.Unmarshal(line, &r); err != nil {
		return Alert{}, false, fmt.Errorf("no EVE record: %w", err)
	}
	if r.EventType != "alert" {
		return Alert{}, false, nil
	}
	if r.Alert == nil {
		return Alert{}, false, errors.New("an alert event without alert")
	}
	a, err := r.alert()
	a.Raw = raw(line)
	return a, err == nil, err
}

func (r *eveRecord) alert() (a Alert, err error) {
	a = Alert{
		Engine:   EngineSuricata,
		GID:      r.Alert.GID,
		SID:      r.Alert.SID,
		Rev:      r.Alert.Rev,
		Message:  clean(r.Alert.Signature, maxMessage),
		Class:    clean(r.Alert.Category, maxClass),
		Priority: int(r.Alert.Severity),
	}
	if a.Time, err = time.Parse(eveTime, r.Timestamp); err != nil {
		return a, fmt.Errorf("bad time stamp: %w", err)
	}
	if a.Action, err = parseAction(r.Alert.Action); err != nil {
		return a, err
	}
	// The alert may be about a packet inside a tunnel, whose addresses anyone
	// can choose; who sent it is said by the outer ones.
	ends := r.eveEnds
	if r.Tunnel != nil {
		ends = *r.Tunnel
	}
	if a.Src, err = parseEndpoint(ends.SrcIP, ends.SrcPort); err != nil {
		return a, err
	}
	if a.Dst, err = parseEndpoint(ends.DestIP, ends.DestPort); err != nil {
		return a, err
	}
	a.Proto = parseProto(ends.Proto, a.Src.Addr())
	if a.SrcMAC, err = parseMAC(r.Ether.SrcMAC); err != nil {
		return a, err
	}
	if a.DstMAC, err = parseMAC(r.Ether.DestMAC); err != nil {
		return a, err
	}
	if len(r.VLAN) > 0 { // the outermost comes first
		a.VLAN, err = parseVLAN(r.VLAN[0])
	}
	return a, err
}
