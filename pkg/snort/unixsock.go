package snort

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// The datagram of Snort's alert_unixsock, the same in 2.9 (struct _Alertpkt,
// spo_alert_unixsock.h) and 3 (struct Alertpkt, alert_unixsock.cc): in the byte
// order of the machine, with one byte of padding behind the packet.
const (
	unixsockLen   = 65864
	unixsockMsg   = 256         // the message, then
	unixsockTime  = unixsockMsg // seconds, microseconds, captured and whole length of the packet
	unixsockCap   = 264         //
	unixsockValid = 288         // bits: what is not there
	unixsockFrame = 292         // the packet
	unixsockEvent = 65828       // gid, sid, rev, class, priority, event id, reference, seconds, microseconds
	unixsockNone  = 1           // bit of unixsockValid: no packet
	maxUnixsock   = unixsockLen + 1
)

// parseUnixsock reads one datagram. It says nothing of what became of the packet,
// so the alert gets the action unstated.
func parseUnixsock(b []byte, unstated Action) (Alert, error) {
	if len(b) != unixsockLen {
		return Alert{}, fmt.Errorf("an alert_unixsock datagram of %d bytes, not %d", len(b), unixsockLen)
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	message, _, _ := bytes.Cut(b[:unixsockMsg], []byte{0})
	a := Alert{
		Engine: EngineSnort, Action: unstated,
		GID: u32(unixsockEvent), SID: u32(unixsockEvent + 4), Rev: u32(unixsockEvent + 8),
		Message:  clean(unquote(string(message)), maxMessage),
		Priority: int(int32(u32(unixsockEvent + 16))),
	}
	// The event's own time, or the packet's where an engine leaves that out.
	seconds, micros := u32(unixsockEvent+28), u32(unixsockEvent+32)
	if seconds == 0 {
		seconds, micros = u32(unixsockTime), u32(unixsockTime+4)
	}
	if seconds == 0 || micros >= 1e6 || a.GID == 0 && a.SID == 0 {
		return Alert{}, errors.New("an alert_unixsock datagram without time or rule")
	}
	a.Time = time.Unix(int64(seconds), int64(micros)*1000)
	if u32(unixsockValid)&unixsockNone == 0 {
		length := u32(unixsockCap)
		if length > unixsockEvent-unixsockFrame-1 {
			return Alert{}, fmt.Errorf("an alert_unixsock datagram with a packet of %d bytes", length)
		}
		a.fillFrame(b[unixsockFrame : unixsockFrame+int(length)])
	}
	return a, nil
}

// unquote takes off the quotes that Snort 3 leaves around a message.
func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// datagrams reads Snort's alert_unixsock. Snort's packet thread waits while the
// socket's queue is full, so the reader does nothing but read.
type datagrams struct {
	conn     *net.UnixConn
	unstated Action
	to       *intake
}

func listenDatagrams(path string, unstated Action, to *intake) (*datagrams, error) {
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen for alerts: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot listen for alerts: %w", err)
	}
	return &datagrams{conn: conn, unstated: unstated, to: to}, nil
}

func (d *datagrams) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { d.conn.Close() })
	defer stop()
	defer os.Remove(d.conn.LocalAddr().String()) // unlike a stream's listener it stays
	defer d.conn.Close()
	buf := make([]byte, maxUnixsock)
	for {
		n, err := d.conn.Read(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("cannot read alerts: %w", err)
		}
		a, err := parseUnixsock(buf[:n], d.unstated)
		if err != nil {
			d.to.bad(err)
			continue
		}
		d.to.alert(a)
	}
}
