package snort

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
)

// maxReply bounds an answer on Suricata's command socket.
const maxReply = 1 << 20

// suricataReply is every answer on the command socket; protocol: Suricata user
// guide, "Interacting via Unix Socket".
type suricataReply struct {
	Return  string          `json:"return"` // OK or NOK
	Message json.RawMessage `json:"message"`
}

// reloadSuricata has the engine behind the command socket read its rules again
// and returns when the new ones are in force, or an error when the old ones are
// still.
func reloadSuricata(ctx context.Context, path string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("cannot reach Suricata's command socket: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	s := suricataSession{conn, bufio.NewReader(io.LimitReader(conn, maxReply))}
	if _, err := s.ask(map[string]string{"version": "0.2"}); err != nil {
		return fmt.Errorf("cannot greet Suricata: %w", err)
	}
	if _, err := s.ask(map[string]string{"command": "ruleset-reload-rules"}); err != nil {
		return fmt.Errorf("Suricata keeps its old rules: %w", errors.Join(err, ctx.Err()))
	}
	return nil
}

type suricataSession struct {
	conn net.Conn
	in   *bufio.Reader
}

func (s suricataSession) ask(request map[string]string) (json.RawMessage, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if _, err := s.conn.Write(append(text, '\n')); err != nil {
		return nil, err
	}
	line, err := s.in.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var reply suricataReply
	if err := json.Unmarshal(line, &reply); err != nil {
		return nil, fmt.Errorf("not an answer: %w", err)
	}
	if reply.Return != "OK" {
		return nil, fmt.Errorf("it says %s %.200s", reply.Return, reply.Message)
	}
	return reply.Message, nil
}
