package iscsi

import "sync"

// job is something that may take long: a *command or a *taskManagement.
type job interface{ run() }

// workers run a session's jobs. They are started when there is nobody else to
// take a job, and stay until the session ends. There may be as many as there can
// be requests in flight, so that a job never waits for another: a command that
// waits for the medium, or for a peer, holds nobody up.
type workers struct {
	jobs    chan job // not buffered: a send succeeds at once if a worker is idle
	limit   int
	started int // owned by the session's reader
	wg      sync.WaitGroup
}

// submit gives a job to a worker. Only the session's reader calls it.
func (w *workers) submit(j job) {
	select {
	case w.jobs <- j:
		return
	default:
	}
	if w.started == w.limit {
		w.jobs <- j // all are about to be done with what was answered already
		return
	}
	w.started++
	w.wg.Go(func() { w.work(j) })
}

// work is a worker.
func (w *workers) work(first job) {
	first.run()
	for j := range w.jobs {
		j.run()
	}
}

// stop waits for all jobs to end. The caller has seen to it that they do.
func (w *workers) stop() {
	close(w.jobs)
	w.wg.Wait()
}
