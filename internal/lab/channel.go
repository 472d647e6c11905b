package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"github.com/vmgate/vmgate/internal/lab/control"
)

// channel is the host end of a guest's control port: many requests at once,
// answered in any order.
type channel struct {
	conn  net.Conn
	log   *slog.Logger
	hello chan struct{} // closed when the agent has greeted
	ended chan struct{} // closed when the port is gone and the reader has ended

	mu        sync.Mutex
	greeted   *control.Reply
	next      uint64
	processes map[uint64]*Process
}

func newChannel(conn net.Conn, log *slog.Logger) *channel {
	c := &channel{
		conn: conn, log: log, hello: make(chan struct{}), ended: make(chan struct{}),
		processes: map[uint64]*Process{},
	}
	go c.read()
	return c
}

func (c *channel) close() {
	c.conn.Close()
	<-c.ended
}

func (c *channel) greeting() (control.Reply, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.greeted == nil {
		return control.Reply{}, false
	}
	return *c.greeted, true
}

// request sends a request and returns the process that will be its answer.
func (c *channel) request(request control.Request) (*Process, error) {
	process := &Process{channel: c, changed: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	process.id = c.next
	request.ID = c.next
	if err := control.Write(c.conn, request); err != nil {
		return nil, err
	}
	c.processes[process.id] = process
	return process, nil
}

func (c *channel) signal(id uint64, signal int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return control.Write(c.conn, control.Request{ID: id, Op: control.Kill, Signal: signal})
}

// read hands replies to their processes until the port is closed, and then
// ends the processes that still wait.
func (c *channel) read() {
	defer close(c.ended)
	lines := control.Reader(c.conn)
	for lines.Scan() {
		var reply control.Reply
		if err := json.Unmarshal(lines.Bytes(), &reply); err != nil {
			c.log.Warn("unreadable message from a guest", "error", err)
			continue
		}
		c.deliver(reply)
	}
	err := errors.New("the guest is gone")
	if lines.Err() != nil && !errors.Is(lines.Err(), net.ErrClosed) {
		err = fmt.Errorf("%w: %w", err, lines.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, process := range c.processes {
		process.fail(err)
	}
	clear(c.processes)
}

func (c *channel) deliver(reply control.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reply.Kind == control.Hello {
		if c.greeted == nil {
			c.greeted = &reply
			close(c.hello)
		}
		return
	}
	process, ok := c.processes[reply.ID]
	if !ok {
		c.log.Warn("a guest answers what was not asked", "kind", reply.Kind, "error", reply.Error)
		return
	}
	process.take(reply)
	if reply.Kind == control.Done {
		delete(c.processes, reply.ID)
	}
}
