package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// endLimit is how long a process may take to end by itself. A daemon that has to flush
// its disks gets by with a fraction of it.
const endLimit = 30 * time.Second

// Process is a program that runs on a node.
type Process struct {
	Log  string // the file with what it prints; appended to
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; before done is closed
}

// Start runs a program on the node, until the test ends at the latest. What it prints is
// appended to the file.
func (n *Node) Start(log, program string, args ...string) (*Process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of %s on %s: %w", program, n.Name, err)
	}
	defer f.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = f, f
	// A group of its own: a Ctrl-C at the terminal is the test's to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.Inside(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", program, n.Name, err)
	}
	p := &Process{Log: log, cmd: cmd, done: make(chan struct{})}
	go p.await()
	n.lab.t.Cleanup(func() { p.Kill() })
	return p, nil
}

// await collects the process when it ends; it owns err until then.
func (p *Process) await() {
	p.err = p.cmd.Wait()
	close(p.done)
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends one; to a process that has ended it is os.ErrProcessDone.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill is SIGKILL, also for one that is stopped, and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// Stop halts the process as it is, as a machine that hangs; Continue lets it go on.
func (p *Process) Stop() error { return p.Signal(syscall.SIGSTOP) }

// Continue undoes Stop.
func (p *Process) Continue() error { return p.Signal(syscall.SIGCONT) }

// End asks it to end, by SIGTERM, and tells how it did.
func (p *Process) End() error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(endLimit):
		return fmt.Errorf("process %d did not end %v after SIGTERM", p.PID(), endLimit)
	}
}

// Tail is the end of its log, for the report of a failure.
func (p *Process) Tail() string {
	const most = 6000 // bytes: a screen or two
	f, err := os.Open(p.Log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if size, _ := f.Seek(0, io.SeekEnd); size > most {
		f.Seek(-most, io.SeekEnd)
	} else {
		f.Seek(0, io.SeekStart)
	}
	text, _ := io.ReadAll(io.LimitReader(f, most))
	return string(text)
}
