package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// Client is a connection to an inspector, made when it is needed.
type Client struct {
	address string
	http    *http.Client
}

// NewClient makes a client of the inspector at address, host:port, whose host the
// inspector's certificate must be for. config says how to prove to it who one is,
// and by whom the inspector's certificate must be signed; TLSConfig makes one.
func NewClient(address string, config *tls.Config) *Client {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	return &Client{address: address, http: &http.Client{
		// Nobody is asked but the one whose name was given.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig:     config.Clone(),
			TLSHandshakeTimeout: 5 * time.Second,
			Protocols:           &protocols,
			// A connection whose other end is gone without a word is given up.
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: time.Second, PingTimeout: 2 * time.Second},
			MaxResponseHeaderBytes: maxRequest,
			IdleConnTimeout:        time.Minute,
			DisableCompression:     true,
		},
	}}
}

// Close gives up the connection. Calls under way end with an error.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Guest is a guest behind an inspector. It implements vmi.Guest.
type Guest struct {
	client *Client
	vm     string
	opening
}

// Open opens a VM by the name that the inspector knows it by. The errors are those
// of vmi.Open, ErrUnknownVM, or that of the connection.
func (c *Client) Open(ctx context.Context, vm string) (*Guest, error) {
	g := &Guest{client: c, vm: vm}
	if err := g.call(ctx, methodOpen, struct{}{}, &g.opening, maxOneThing); err != nil {
		return nil, err
	}
	if g.Session == "" {
		return nil, fmt.Errorf("cannot ask inspector %s for %s of %s: it gives no session", c.address, methodOpen, vm)
	}
	return g, nil
}

// Check says whether the guest is what it was when it was opened: vmi.ErrChanged
// if not, or why that cannot be told.
func (g *Guest) Check(ctx context.Context) error {
	now, err := g.client.Open(ctx, g.vm)
	if err == nil && now.Session != g.Session {
		return vmi.ErrChanged
	}
	return err
}

// call asks one thing.
func (g *Guest) call(ctx context.Context, method string, arguments, into any, limit int64) error {
	if err := g.ask(ctx, method, arguments, into, limit); err != nil {
		if urlErr := (*url.Error)(nil); errors.As(err, &urlErr) {
			err = urlErr.Err // its text repeats the address, with %-signs
		}
		return fmt.Errorf("cannot ask inspector %s for %s of %s: %w", g.client.address, method, g.vm, err)
	}
	return nil
}

func (g *Guest) ask(ctx context.Context, method string, arguments, into any, limit int64) error {
	ctx, cancel := context.WithTimeout(ctx, maxTimeout)
	defer cancel()
	body, err := json.Marshal(arguments)
	if err != nil {
		return err
	}
	target := url.URL{Scheme: "https", Host: g.client.address, Path: "/v1/" + g.vm + "/" + method}
	target.RawPath = "/v1/" + url.PathEscape(g.vm) + "/" + method
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set(sessionHeader, g.Session)
	if deadline, ok := ctx.Deadline(); ok {
		request.Header.Set(timeoutHeader, strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10))
	}
	answer, err := g.client.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return decodeError(answer.StatusCode, answer.Body)
	}
	return decode(answer.Body, limit, into)
}

// OS implements vmi.Guest.
func (g *Guest) OS() string { return g.opening.OS }

// Owners implements vmi.Guest. Its times are by this machine's clock, and rather
// too early than too late: it counts as read when it was asked for.
func (g *Guest) Owners(ctx context.Context, query vmi.Query) (vmi.Answer, error) {
	begin := time.Now()
	var answer vmi.Answer
	if err := g.call(ctx, methodOwners, query, &answer, maxOneThing); err != nil {
		return vmi.Answer{}, err
	}
	for i := range answer.Past {
		p := &answer.Past[i]
		p.Seen = begin.Add(-max(answer.ReadAt.Sub(p.Seen), 0))
	}
	answer.ReadAt, answer.Took = begin, time.Since(begin)
	return answer, nil
}

// Processes implements vmi.Guest.
func (g *Guest) Processes(ctx context.Context) (list []vmi.Process, err error) {
	return list, g.call(ctx, methodProcesses, struct{}{}, &list, maxList)
}

// Sockets implements vmi.Guest.
func (g *Guest) Sockets(ctx context.Context) (list []vmi.Socket, err error) {
	return list, g.call(ctx, methodSockets, struct{}{}, &list, maxList)
}

// Alive implements vmi.Guest.
func (g *Guest) Alive(ctx context.Context, pid uint32, start uint64) (alive bool, err error) {
	return alive, g.call(ctx, methodAlive, instance{pid, start}, &alive, maxOneThing)
}

// Findings implements vmi.Guest.
func (g *Guest) Findings(ctx context.Context) (list []vmi.Finding, err error) {
	return list, g.call(ctx, methodFindings, struct{}{}, &list, maxList)
}

// Modules implements vmi.Guest.
func (g *Guest) Modules(ctx context.Context) (list []vmi.Module, err error) {
	return list, g.call(ctx, methodModules, struct{}{}, &list, maxList)
}

// Sweep implements vmi.Guest.
func (g *Guest) Sweep(ctx context.Context) error {
	return g.call(ctx, methodSweep, struct{}{}, new(struct{}), maxOneThing)
}

// Fingerprint implements vmi.Guest.
func (g *Guest) Fingerprint(ctx context.Context, pid uint32, start uint64) (f vmi.Fingerprint, err error) {
	return f, g.call(ctx, methodFingerprint, instance{pid, start}, &f, maxOneThing)
}
