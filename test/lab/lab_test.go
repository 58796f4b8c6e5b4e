package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// reach is how long something may take that works, quiet how long nothing has to come
	// over a line that is cut: too short would let a fault pass, never fail a sound lab.
	reach = 20 * time.Second
	quiet = 300 * time.Millisecond
)

// echo answers each byte with the same, on a node.
func echo(t *testing.T, n *Node) string {
	t.Helper()
	l, err := n.Listen(7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

// dial connects, with patience.
func dial(t *testing.T, from *Node, address string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), reach)
	defer cancel()
	conn, err := from.DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// answers tells whether a byte comes back in time.
func answers(t *testing.T, conn net.Conn, limit time.Duration) bool {
	t.Helper()
	conn.SetDeadline(time.Now().Add(limit))
	if _, err := conn.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(make([]byte, 16))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return n > 0
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestCut cuts one line, under a connection that is open, and no other.
func TestCut(t *testing.T) {
	l := New(t, "a", "b", "witness")
	a, b, w := l.Node("a"), l.Node("b"), l.Node("witness")
	ab, aw := dial(t, a, echo(t, b)), dial(t, a, echo(t, w))
	for name, c := range map[string]struct{ cut, heal func() error }{
		"both ways":    {func() error { return l.Cut(a, b) }, func() error { return l.Heal(b, a) }},
		"the way to b": {func() error { return l.CutOneWay(a, b) }, func() error { return l.Heal(a, b) }},
		"the way back": {func() error { return l.CutOneWay(b, a) }, l.HealAll},
	} {
		if !answers(t, ab, reach) {
			t.Fatalf("%s: no answer before the cut", name)
		}
		must(t, c.cut())
		must(t, c.cut()) // again is no error
		if answers(t, ab, quiet) {
			t.Errorf("%s: an answer over a line that is cut", name)
		}
		if !answers(t, aw, reach) {
			t.Errorf("%s: no answer from the witness, whose line is sound", name)
		}
		must(t, c.heal())
		if !answers(t, ab, reach) {
			t.Errorf("%s: no answer after the line was mended", name)
		}
	}
}

// TestCutIsSilent: who connects over a line that is cut hears nothing, neither yes nor no.
func TestCutIsSilent(t *testing.T) {
	l := New(t, "a", "b", "c")
	address := echo(t, l.Node("b"))
	must(t, l.Isolate(l.Node("b")))
	for _, from := range []string{"a", "c"} {
		ctx, cancel := context.WithTimeout(t.Context(), quiet)
		conn, err := l.Node(from).DialContext(ctx, "tcp", address)
		if cancel(); err == nil {
			conn.Close()
			t.Errorf("%s reaches a node that is isolated", from)
		} else if !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
			t.Errorf("%s is told: %v", from, err)
		}
	}
	must(t, l.HealAll())
	dial(t, l.Node("a"), address)
}

// TestOneWayIsOneWay: what a sends to b is lost, what b sends to a arrives.
func TestOneWayIsOneWay(t *testing.T) {
	l := New(t, "a", "b")
	a, b := l.Node("a"), l.Node("b")
	listen := func(n *Node) (pc net.PacketConn) {
		must(t, n.Inside(func() (err error) {
			pc, err = net.ListenPacket("udp", n.At(9))
			return err
		}))
		t.Cleanup(func() { pc.Close() })
		return pc
	}
	at, bt := listen(a), listen(b)
	arrives := func(from, to net.PacketConn, limit time.Duration) bool {
		if _, err := from.WriteTo([]byte("x"), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		to.SetReadDeadline(time.Now().Add(limit))
		_, _, err := to.ReadFrom(make([]byte, 1))
		return err == nil
	}
	must(t, l.CutOneWay(a, b))
	if arrives(at, bt, quiet) {
		t.Error("from a to b: it arrives")
	}
	if !arrives(bt, at, reach) {
		t.Error("from b to a: it does not arrive")
	}
}

// TestProcess runs one in a node's network, halts it, and kills it.
func TestProcess(t *testing.T) {
	l := New(t, "a")
	log := filepath.Join(t.TempDir(), "log")
	p, err := l.Node("a").Start(log, "sh", "-c", "ip -o addr show; echo ready; exec sleep 1000")
	must(t, err)
	for end := time.Now().Add(reach); !strings.Contains(p.Tail(), "ready"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not say that it is ready, but: %s", p.Tail())
		}
	}
	if !strings.Contains(p.Tail(), "10.77.1.2") {
		t.Errorf("it is not in its node's network: %s", p.Tail())
	}
	must(t, p.Stop())
	for end := time.Now().Add(reach); state(t, p.PID()) != "T"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not halt")
		}
	}
	must(t, p.Kill())
	must(t, p.Kill()) // again is no error
	if err := syscall.Kill(p.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("it is not gone: %v", err)
	}
	p, err = l.Node("a").Start(log, "sleep", "1000")
	must(t, err)
	if err := p.End(); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("asked to end, it ended with %v", err)
	}
}

// state is the letter that the kernel gives a process's state.
func state(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}

// TestDisk fills one up and breaks it, with a file open that is written to.
func TestDisk(t *testing.T) {
	d := NewDisk(t, 16<<20)
	f, err := os.Create(filepath.Join(d.Dir, "data"))
	must(t, err)
	defer f.Close()
	block := make([]byte, 64<<10)
	put := func() error {
		if _, err := f.Write(block); err != nil {
			return err
		}
		return f.Sync()
	}
	must(t, put())
	must(t, d.Fill())
	if err := put(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the disk is full, and a write ends with %v", err)
	}
	must(t, d.Free())
	must(t, put())
	must(t, d.ReadOnly())
	if err := put(); !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EIO) {
		t.Errorf("the disk is read-only, and a write ends with %v", err)
	}
	must(t, f.Close())
	must(t, d.Repair())
	kept, err := os.ReadFile(filepath.Join(d.Dir, "data"))
	if err != nil || len(kept) < 2*len(block) {
		t.Errorf("repaired, it holds %d bytes, %v", len(kept), err)
	}
	must(t, os.WriteFile(filepath.Join(d.Dir, "more"), block, 0o600))
}

// TestLeftovers: what a dead process has left goes, with what runs there, and what
// belongs to a living one stays.
func TestLeftovers(t *testing.T) {
	l := New(t, "a")
	dead := exec.Command("true")
	must(t, dead.Run())
	name := fmt.Sprintf("%s%d-1-a", prefix, dead.Process.Pid)
	must(t, ip("netns", "add", name))
	old := &Node{Name: "a", lab: l, path: "/run/netns/" + name}
	p, err := old.Start(filepath.Join(t.TempDir(), "log"), "sleep", "1000")
	must(t, err)
	disk := filepath.Join(os.TempDir(), fmt.Sprintf("%s%d-disk1", prefix, dead.Process.Pid))
	must(t, os.MkdirAll(filepath.Join(disk, "mnt"), 0o700))
	must(t, run("mount", "-t", "tmpfs", "none", filepath.Join(disk, "mnt")))

	must(t, removeLeftovers())
	select {
	case <-p.Done():
	case <-time.After(reach):
		t.Error("the process goes on")
	}
	for _, path := range []string{old.path, disk} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if _, err := os.Lstat(l.Node("a").path); err != nil {
		t.Errorf("the lab of this process: %v", err)
	}
}
