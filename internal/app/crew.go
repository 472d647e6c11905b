package app

import (
	"context"
	"sync"
)

// crew runs tasks that come and go with the configuration, each under a name.
type crew struct {
	ctx   context.Context //nolint:containedctx // the lifetime of all tasks
	group sync.WaitGroup

	mu    sync.Mutex
	tasks map[string]*crewTask
}

type crewTask struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func newCrew(ctx context.Context) *crew { return &crew{ctx: ctx, tasks: map[string]*crewTask{}} }

// start runs fn under the name until stop or the end of the crew. A task of
// that name that runs already is left alone.
func (c *crew) start(name string, fn func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tasks[name] != nil {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	task := &crewTask{cancel: cancel, done: make(chan struct{})}
	c.tasks[name] = task
	c.group.Go(func() {
		defer close(task.done)
		fn(ctx)
	})
}

// stop ends the named task and waits for it.
func (c *crew) stop(name string) {
	c.mu.Lock()
	task := c.tasks[name]
	delete(c.tasks, name)
	c.mu.Unlock()
	if task != nil {
		task.cancel()
		<-task.done
	}
}

// wait returns when all tasks have ended.
func (c *crew) wait() { c.group.Wait() }
