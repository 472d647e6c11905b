package qmp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// message is what a monitor sends: a greeting, an event, or the answer to the
// command of that number.
type message struct {
	QMP    json.RawMessage `json:"QMP"`
	Event  string          `json:"event"`
	Return json.RawMessage `json:"return"`
	Error  *Error          `json:"error"`
	ID     *uint64         `json:"id"`
}

// reader takes a monitor's messages apart: one a line.
type reader struct{ from *bufio.Reader }

func (r *reader) message() (message, error) {
	var line []byte
	for {
		part, err := r.from.ReadSlice('\n')
		if len(line)+len(part) > maxMessage {
			return message{}, fmt.Errorf("a message of more than %d bytes", maxMessage)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			if line = bytes.TrimSpace(line); len(line) == 0 {
				continue
			}
			return decode(line)
		case errors.Is(err, io.EOF):
			return message{}, ErrGone
		case !errors.Is(err, bufio.ErrBufferFull):
			return message{}, err
		}
	}
}

func decode(line []byte) (m message, err error) {
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("not a message of a monitor: %w", err)
	}
	return m, nil
}

// answer waits for the answer to a command, and passes over events.
func (r *reader) answer(id uint64, into any) error {
	for range maxEvents {
		m, err := r.message()
		switch {
		case err != nil:
			return err
		case m.Event != "":
			continue
		case m.ID == nil || *m.ID != id:
			return errors.New("an answer to what was not asked")
		case m.Error != nil:
			return m.Error
		case m.Return == nil:
			return errors.New("an answer without a result")
		case into == nil:
			return nil
		}
		if err := json.Unmarshal(m.Return, into); err != nil {
			return fmt.Errorf("its result makes no sense: %w", err)
		}
		return nil
	}
	return fmt.Errorf("more than %d events and no answer", maxEvents)
}
