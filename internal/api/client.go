package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"

	"golang.org/x/sys/unix"
)

// ErrUnreachable is wrapped by every error that says that no daemon answered.
var ErrUnreachable = errors.New("daemon unreachable")

// Client calls a daemon; it is a Backend for other processes. It needs no
// closing and is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

var _ Backend = (*Client)(nil)

// NewClient returns a client of the daemon at socket; it connects with the
// first call.
func NewClient(socket string) *Client {
	var dialer net.Dialer
	return &Client{socket, &http.Client{Transport: &http.Transport{
		// A process that makes a few calls gains nothing from open connections,
		// and one that makes many leaves none behind.
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}
}

// do makes a call that is answered with a T.
func do[T any](ctx context.Context, c *Client, method, path string, in any) (out T, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.send(ctx, method, path, in)
	if err != nil {
		return out, err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&out); err != nil {
		return out, fmt.Errorf("cannot read the daemon's answer to %s %s: %w", method, path, err)
	}
	return out, nil
}

// call makes a call that has no answer but its success.
func (c *Client) call(ctx context.Context, method, path string, in any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// send sends in as JSON, or as it is if it is []byte, or nothing for nil. It
// returns an answer whose status is a success and whose body the caller closes.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	body, isText := in.([]byte)
	if in != nil && !isText {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("cannot express the call %s %s: %w", method, path, err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://gatewayd"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("cannot make the call %s %s: %w", method, path, err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(err)
	}
	if answer.StatusCode/100 == 2 {
		return answer, nil
	}
	defer answer.Body.Close()
	return nil, readError(answer)
}

// readError reads the daemon's error; one without a message (of net/http
// itself) is named by its status.
func readError(answer *http.Response) error {
	e := &Error{Status: answer.StatusCode}
	err := json.NewDecoder(io.LimitReader(answer.Body, maxBody)).Decode(e)
	if err != nil || e.Message == "" {
		e.Message = "the daemon answered " + answer.Status
	}
	return e
}

// explain says why no daemon answered, and what to do.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no socket %s: start it with \"systemctl start gatewayd\", or name the socket of a running one with --socket",
			ErrUnreachable, c.socket)
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w: nobody listens on %s any more: \"systemctl status gatewayd\" or its log says why it ended",
			ErrUnreachable, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: no permission to use %s: use sudo, or join the group that gateway.group names",
			ErrUnreachable, c.socket)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer over %s: %w", c.socket, err)
	}
	return fmt.Errorf("%w over %s: %w", ErrUnreachable, c.socket, err)
}
