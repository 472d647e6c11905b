package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
)

// connection is a line of the workload's connect and transfer.
type connection struct {
	OK      bool    `json:"ok"`
	Done    bool    `json:"done"`
	Port    int     `json:"port"`
	Bytes   int64   `json:"bytes"`
	Retrans uint32  `json:"retrans"`
	SegsIn  uint64  `json:"segs_in"`
	SegsOut uint64  `json:"segs_out"`
	Connect float64 `json:"connect_ms"`
	MS      float64 `json:"ms"`
	SHA256  string  `json:"sha256"`
	Error   string  `json:"error"`
}

// held is the one packet of a connection that passes the daemon and so is not
// among those that XDP counts.
const held = 1

// firstRetry is when Linux sends an unanswered SYN again, in milliseconds
// (TCP_TIMEOUT_INIT).
const firstRetry = 1000

// unharmed says whether the gateway held the first packet without its being sent
// again, and lost none. An emulated guest that is short of time sends some again
// although they have arrived; the gateway has seen those twice.
func (c connection) unharmed(flow api.Flow) bool {
	return c.Connect < firstRetry && c.lost(flow) == 0
}

// lost is how many packets the guest sent that the gateway did not send on.
func (c connection) lost(flow api.Flow) uint64 {
	if passed := flow.Src.Packets + held; passed < c.SegsOut {
		return c.SegsOut - passed
	}
	return 0
}

// losses tells them for people.
func (c connection) losses(flow api.Flow) string {
	return fmt.Sprintf("%d lost, %d sent again", c.lost(flow), c.Retrans)
}

// connect runs one short-lived client process in a guest and returns what it
// saw of its connection.
func (st *stage) connect(ctx context.Context, from *lab.Host, name, target string, args ...string) (*lab.Process, connection, error) {
	p, err := from.Guest.Start(ctx, name, append([]string{"connect", target}, args...)...)
	if err != nil {
		return nil, connection{}, fmt.Errorf("cannot start %s in %s: %w", name, from.Name, err)
	}
	line, err := p.WaitLine(ctx, contains(`"ok":`))
	if err != nil {
		return p, connection{}, fmt.Errorf("%s in %s said nothing: %w", name, from.Name, err)
	}
	c, err := parse(line)
	return p, c, err
}

func parse(line string) (connection, error) {
	var c connection
	if err := json.Unmarshal([]byte(line), &c); err != nil {
		return c, fmt.Errorf("cannot understand %q: %w", line, err)
	}
	return c, nil
}

func contains(part string) func(string) bool {
	return func(line string) bool { return strings.Contains(line, part) }
}

// decisionOn matches the decision on a connection to a port.
func decisionOn(srcVM, dstVM string, port uint16) func(event.Event) bool {
	return func(e event.Event) bool {
		return e.Type == "decision" && e.SrcVM == srcVM && e.DestVM == dstVM && e.DestPort == port
	}
}

// counts are the data plane's counters by place and reason.
type counts map[[2]string]uint64

func (st *stage) counts(ctx context.Context) (counts, error) {
	status, err := st.client.Status(ctx)
	if err != nil {
		return nil, err
	}
	c := counts{}
	for _, n := range status.Counters {
		c[[2]string{n.Segment, n.Reason}] = n.Packets
	}
	return c, nil
}

// settled reads the counters once no packet of what went before is under way:
// when nothing passes for a moment.
func (st *stage) settled(ctx context.Context) (c counts, err error) {
	var last uint64
	err = poll(ctx, "traffic does not settle", func() (bool, error) {
		if c, err = st.counts(ctx); err != nil {
			return false, err
		}
		var sum uint64
		for key, n := range c {
			if key[1] == "forward" || key[1] == "check" {
				sum += n
			}
		}
		quiet := sum == last
		last = sum
		return quiet, nil
	})
	return c, err
}

// since is what has been counted after an earlier reading.
func (c counts) since(before counts, place, reason string) uint64 {
	key := [2]string{place, reason}
	return c[key] - before[key]
}

// flowOf finds the decided flow from a port of app1 to a port: a local port may
// serve several connections.
func (st *stage) flowOf(ctx context.Context, from int, to uint16) (api.Flow, error) {
	flows, err := st.client.Flows(ctx)
	if err != nil {
		return api.Flow{}, err
	}
	for _, f := range flows {
		if f.Src.VM == "app1" && int(f.Src.Port) == from && f.Dst.Port == to {
			return f, nil
		}
	}
	return api.Flow{}, fmt.Errorf("the gateway has no flow from port %d of app1 to port %d", from, to)
}
