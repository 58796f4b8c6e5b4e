package replication

import (
	"context"
	"sync"

	"github.com/twinlun/twinlun/task"
)

// crew counts tasks, so that their end can be waited for.
type crew struct {
	rt    task.Runtime
	ended task.Signal

	mu sync.Mutex
	n  int
}

func (c *crew) start(rt task.Runtime) { c.rt, c.ended = rt, rt.NewSignal() }

// run starts a task.
func (c *crew) run(name string, f func()) {
	c.enter()
	c.rt.Go(name, func() {
		f()
		c.leave()
	})
}

// enter counts another task's work as the crew's, until leave.
func (c *crew) enter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
}

func (c *crew) leave() {
	c.mu.Lock()
	c.n--
	c.mu.Unlock()
	c.ended.Set()
}

// wait returns when no task runs. One caller only.
func (c *crew) wait() {
	for !c.idle() {
		c.ended.Wait(context.Background())
	}
}

func (c *crew) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n == 0
}

// pool has a fixed number of tasks that do jobs, begun in the order of put. Its
// queue has no bound of its own: what may wait in it is bounded by the windows of
// the protocol, see DESIGN.md.
type pool struct {
	crew crew

	mu      sync.Mutex
	jobs    []func()
	idle    []task.Signal // of workers that wait
	closing bool
}

func (p *pool) start(rt task.Runtime, name string, workers int) {
	p.crew.start(rt)
	for range workers {
		p.crew.run(name, func() { p.work(rt.NewSignal()) })
	}
}

// put hands in a job. It never blocks.
func (p *pool) put(job func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jobs = append(p.jobs, job)
	if n := len(p.idle); n > 0 {
		p.idle[n-1].Set()
		p.idle = p.idle[:n-1]
	}
}

// work does jobs until the pool is closed and empty.
func (p *pool) work(wake task.Signal) {
	for {
		job, wait := p.next(wake)
		switch {
		case job != nil:
			job()
		case wait:
			wake.Wait(context.Background())
		default:
			return
		}
	}
}

func (p *pool) next(wake task.Signal) (job func(), wait bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.jobs) > 0 {
		job = p.jobs[0]
		p.jobs[0] = nil
		p.jobs = p.jobs[1:]
		return job, false
	}
	if !p.closing {
		p.idle = append(p.idle, wake)
	}
	return nil, !p.closing
}

// close returns when every job is done.
func (p *pool) close() {
	p.mu.Lock()
	p.closing = true
	for _, w := range p.idle {
		w.Set()
	}
	p.idle = nil
	p.mu.Unlock()
	p.crew.wait()
}
