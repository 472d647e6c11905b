package snort

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// snortRecord is what is read of a line of Snort 3's alert_json, with the
// fields that snort.lua asks for; checked against 3.11.1.0.
type snortRecord struct {
	Seconds   int64   `json:"seconds"`
	Timestamp string  `json:"timestamp"` // month/day-time.microseconds, without year
	Action    string  `json:"action"`
	GID       *uint32 `json:"gid"`
	SID       *uint32 `json:"sid"`
	Rev       uint32  `json:"rev"`
	Msg       string  `json:"msg"`
	Class     string  `json:"class"`
	Priority  int32   `json:"priority"`
	Proto     string  `json:"proto"`
	SrcAddr   string  `json:"src_addr"`
	SrcPort   uint16  `json:"src_port"`
	DstAddr   string  `json:"dst_addr"`
	DstPort   uint16  `json:"dst_port"`
	EthSrc    string  `json:"eth_src"`
	EthDst    string  `json:"eth_dst"`
	VLAN      int64   `json:"vlan"`
}

// parseAlertJSON reads one line of Snort 3.
func parseAlertJSON(line []byte) (Alert, bool, error) {
	var r snortRecord
	if err := json.Unmarshal(escapeMsg(line), &r); err != nil {
		return Alert{}, false, fmt.Errorf("no alert_json record: %w", err)
	}
	if r.GID == nil || r.SID == nil {
		return Alert{}, false, errors.New("an alert without gid or sid")
	}
	a, err := r.alert()
	a.Raw = raw(line)
	return a, err == nil, err
}

func (r *snortRecord) alert() (a Alert, err error) {
	a = Alert{
		Engine:   EngineSnort,
		GID:      *r.GID,
		SID:      *r.SID,
		Rev:      r.Rev,
		Message:  clean(r.Msg, maxMessage),
		Class:    clean(r.Class, maxClass),
		Priority: int(r.Priority),
	}
	if r.Class == "none" { // Snort's word for a rule without classtype
		a.Class = ""
	}
	if a.Time, err = snortTime(r.Seconds, r.Timestamp); err != nil {
		return a, err
	}
	if a.Action, err = parseAction(r.Action); err != nil {
		return a, err
	}
	if a.Src, err = parseEndpoint(r.SrcAddr, r.SrcPort); err != nil {
		return a, err
	}
	if a.Dst, err = parseEndpoint(r.DstAddr, r.DstPort); err != nil {
		return a, err
	}
	a.Proto = parseProto(r.Proto, a.Src.Addr())
	if a.SrcMAC, err = parseMAC(r.EthSrc); err != nil {
		return a, err
	}
	if a.DstMAC, err = parseMAC(r.EthDst); err != nil {
		return a, err
	}
	a.VLAN, err = parseVLAN(r.VLAN)
	return a, err
}

// escapeMsg makes a line valid JSON. Snort prints a rule's msg between quotes
// as it is, so that quotes and tabs in it break the record. The text ends where
// the field that we asked for next begins, for the last time: nothing that
// follows contains free text.
func escapeMsg(line []byte) []byte {
	const open = `"msg" : "`
	start := bytes.Index(line, []byte(open))
	if start < 0 {
		return line
	}
	start += len(open)
	end := bytes.LastIndex(line, []byte(`", "class" : `))
	if end < start {
		return line
	}
	msg, err := json.Marshal(string(line[start:end]))
	if err != nil { // a string always marshals
		return line
	}
	out := make([]byte, 0, len(line)+len(msg))
	out = append(out, line[:start-1]...)
	out = append(out, msg...)
	return append(out, line[end+1:]...)
}

// maxSeconds is the end of the year 9999, beyond which time.Time has no JSON.
const maxSeconds = 253402300799

// snortTime joins the seconds since 1970 with the fraction of the time stamp,
// which has no year of its own.
func snortTime(seconds int64, stamp string) (time.Time, error) {
	if seconds <= 0 || seconds > maxSeconds {
		return time.Time{}, fmt.Errorf("bad seconds %d", seconds)
	}
	_, fraction, ok := strings.Cut(stamp, ".")
	if !ok {
		return time.Unix(seconds, 0), nil
	}
	micros, err := strconv.ParseUint(fraction, 10, 32)
	if err != nil || len(fraction) != 6 {
		return time.Time{}, fmt.Errorf("bad time stamp %.64q", stamp)
	}
	return time.Unix(seconds, int64(micros)*1000), nil
}
