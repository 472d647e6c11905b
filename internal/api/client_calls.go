package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// Status implements Backend.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return do[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// VMs implements Backend.
func (c *Client) VMs(ctx context.Context) ([]VM, error) {
	return do[[]VM](ctx, c, http.MethodGet, "/v1/vms", nil)
}

// Processes implements Backend.
func (c *Client) Processes(ctx context.Context, vm string) ([]Process, error) {
	return do[[]Process](ctx, c, http.MethodGet, "/v1/vms/"+url.PathEscape(vm)+"/processes", nil)
}

// Sockets implements Backend.
func (c *Client) Sockets(ctx context.Context, vm string) ([]vmi.Socket, error) {
	return do[[]vmi.Socket](ctx, c, http.MethodGet, "/v1/vms/"+url.PathEscape(vm)+"/sockets", nil)
}

// Owner implements Backend.
func (c *Client) Owner(ctx context.Context, q OwnerQuery) (vmi.Answer, error) {
	return do[vmi.Answer](ctx, c, http.MethodGet, "/v1/vms/"+url.PathEscape(q.VM)+"/owner/"+portPath(q.Port)+"?"+q.values().Encode(), nil)
}

// Fingerprint implements Backend.
func (c *Client) Fingerprint(ctx context.Context, vm string, pid uint32) (vmi.Fingerprint, error) {
	return do[vmi.Fingerprint](ctx, c, http.MethodGet, fmt.Sprintf("/v1/vms/%s/processes/%d/fingerprint", url.PathEscape(vm), pid), nil)
}

// Findings implements Backend.
func (c *Client) Findings(ctx context.Context, vm string) ([]vmi.Finding, error) {
	return do[[]vmi.Finding](ctx, c, http.MethodGet, "/v1/vms/"+url.PathEscape(vm)+"/findings", nil)
}

// Modules implements Backend.
func (c *Client) Modules(ctx context.Context, vm string) ([]vmi.Module, error) {
	return do[[]vmi.Module](ctx, c, http.MethodGet, "/v1/vms/"+url.PathEscape(vm)+"/modules", nil)
}

// Verdicts implements Backend.
func (c *Client) Verdicts(ctx context.Context) ([]PortVerdict, error) {
	return do[[]PortVerdict](ctx, c, http.MethodGet, "/v1/verdicts", nil)
}

// SetVerdict implements Backend.
func (c *Client) SetVerdict(ctx context.Context, change VerdictChange) error {
	return c.call(ctx, http.MethodPut, "/v1/verdicts", change)
}

// DeleteVerdict implements Backend.
func (c *Client) DeleteVerdict(ctx context.Context, port Port) error {
	return c.call(ctx, http.MethodDelete, fmt.Sprintf("/v1/verdicts/%s/%s", url.PathEscape(port.VM), portPath(port)), nil)
}

func portPath(port Port) string { return fmt.Sprintf("%s/%d", url.PathEscape(port.Proto), port.Port) }

// Flows implements Backend.
func (c *Client) Flows(ctx context.Context) ([]Flow, error) {
	return do[[]Flow](ctx, c, http.MethodGet, "/v1/flows", nil)
}

// Lists implements Backend.
func (c *Client) Lists(ctx context.Context) ([]ListEntry, error) {
	return do[[]ListEntry](ctx, c, http.MethodGet, "/v1/lists", nil)
}

// AddListEntry implements Backend.
func (c *Client) AddListEntry(ctx context.Context, entry ListEntry) error {
	return c.call(ctx, http.MethodPost, "/v1/lists", entry)
}

// ImportListEntries implements Backend.
func (c *Client) ImportListEntries(ctx context.Context, entries []ListEntry) error {
	return c.call(ctx, http.MethodPost, "/v1/lists/import", entries)
}

// RemoveListEntry implements Backend.
func (c *Client) RemoveListEntry(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v1/lists/"+url.PathEscape(id), nil)
}

// Policy implements Backend.
func (c *Client) Policy(ctx context.Context) (Policy, error) {
	return do[Policy](ctx, c, http.MethodGet, "/v1/policy", nil)
}

// CheckConfig implements Backend.
func (c *Client) CheckConfig(ctx context.Context, text []byte) (Changes, error) {
	return do[Changes](ctx, c, http.MethodPost, "/v1/config/check", text)
}

// ApplyConfig implements Backend.
func (c *Client) ApplyConfig(ctx context.Context, text []byte) (Changes, error) {
	return do[Changes](ctx, c, http.MethodPost, "/v1/config/apply", text)
}

// Reload implements Backend.
func (c *Client) Reload(ctx context.Context) (Changes, error) {
	return do[Changes](ctx, c, http.MethodPost, "/v1/reload", nil)
}

// IDS implements Backend.
func (c *Client) IDS(ctx context.Context) (IDS, error) {
	return do[IDS](ctx, c, http.MethodGet, "/v1/ids", nil)
}

// ReloadIDS implements Backend.
func (c *Client) ReloadIDS(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/ids/reload", nil)
}

// TestIDS implements Backend.
func (c *Client) TestIDS(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/ids/test", nil)
}

// Report implements Backend.
func (c *Client) Report(ctx context.Context, r Report) error {
	return c.call(ctx, http.MethodPost, "/v1/reports", r)
}

// Measure implements Backend.
func (c *Client) Measure(ctx context.Context, m Measure) error {
	return c.call(ctx, http.MethodPost, "/v1/measures", m)
}

// Explain implements Backend.
func (c *Client) Explain(ctx context.Context, t Tuple) (Explanation, error) {
	return do[Explanation](ctx, c, http.MethodPost, "/v1/explain", t)
}

// Monitor implements Backend. It returns when the daemon has taken the
// subscription; the channel is closed when ctx is done or the daemon has ended
// the stream.
func (c *Client) Monitor(ctx context.Context) (<-chan event.Event, error) {
	answer, err := c.send(ctx, http.MethodGet, "/v1/monitor", nil)
	if err != nil {
		return nil, err
	}
	events := make(chan event.Event)
	go func() {
		defer close(events)
		defer answer.Body.Close()
		lines := json.NewDecoder(answer.Body)
		for {
			var e event.Event
			if lines.Decode(&e) != nil {
				return
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events, nil
}
