package iscsi

import (
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// slowWrite sends a write that lasts until the function is called that it returns.
func (r *rig) slowWrite(i *initiator) (h header, end func()) {
	r.t.Helper()
	end = r.disk.slowDown()
	h = i.scsi(isWrite, 512, write10, 2, 1)
	i.send(h, pattern(1, 512))
	if tag := <-r.disk.hung; tag != h.tag() {
		r.t.Fatalf("command %d was executed, not %d", tag, h.tag())
	}
	return h, end
}

// TestSlowWrite: a write that the reader executes, and that the medium is slow with,
// keeps nothing else from being done; and the next ones go side by side.
func TestSlowWrite(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	i.writeThrough(0, pattern(3, 512), 512, 0, 512)
	h, end := r.slowWrite(i)
	i.echo()
	i.readBack(0, pattern(3, 512), 8192, 1<<20)
	i.writeThrough(4, pattern(4, 512), 0, 0, 512)
	end()
	i.status(h.tag(), 0)
	i.readBack(2, pattern(1, 512), 8192, 1<<20)
}

// TestAbortSlowWrite: the response comes after the write's end, and no other answer.
func TestAbortSlowWrite(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	h, end := r.slowWrite(i)
	i.sendManage(sam.AbortTask, h)
	tag := i.tag
	i.echo()
	end()
	if p := i.recv(opTaskResp); p.tag() != tag || p.header[2] != tmfComplete {
		t.Fatalf("task management response % x", p.header)
	}
	i.echo()
}

// TestEndDuringSlowWrite: a session ends when its last command has.
func TestEndDuringSlowWrite(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	_, end := r.slowWrite(i)
	s := r.srv.sessions.all()[0]
	i.conn.Close()
	within(t, "another reader has noticed that", func() bool { return s.ctx.Err() != nil })
	if r.disk.open() != 1 {
		t.Fatal("the nexus was closed during a command")
	}
	end()
	within(t, "the nexus is closed", func() bool { return r.disk.open() == 0 })
}

// TestLoan goes through what the timer meets.
func TestLoan(t *testing.T) {
	s := &session{workers: workers{jobs: make(chan job, 1)}}
	s.loan.start(s)
	l := &s.loan
	look := func(armed bool, readers int) {
		t.Helper()
		l.timer.Stop()
		if l.look(s); l.armed.Load() != armed || len(s.workers.jobs) != readers {
			t.Fatalf("armed %v, %d new readers; want %v, %d", l.armed.Load(), len(s.workers.jobs), armed, readers)
		}
		l.timer.Stop()
	}
	for range 2 { // it sees the end of one, and the next one
		n := l.begin()
		look(true, 0)
		if !l.end(n) {
			t.Fatal("taken away")
		}
	}
	look(true, 0)
	look(false, 0)
	n := l.begin()
	look(true, 0)
	look(true, 1)
	if l.end(n) {
		t.Error("two readers")
	}
	if l.pause != loanPause {
		t.Error("slow writes are not seen as such")
	}
}
