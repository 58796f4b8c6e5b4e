package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCtrlC: nothing of a demo is left, neither processes nor files.
func TestCtrlC(t *testing.T) {
	t.Parallel()
	r := startAt(t, "--base-port", freePorts(t), "--size", "64MiB")
	info := r.info()
	for _, s := range info.Sites {
		if err := syscall.Kill(s.PID, 0); err != nil {
			t.Errorf("site %s: no process %d: %v", s.Name, s.PID, err)
		}
		if _, err := os.Stat(filepath.Join(s.Dir, "disk.img")); err != nil {
			t.Error(err)
		}
	}
	r.stop()
	for _, s := range info.Sites {
		if err := syscall.Kill(s.PID, 0); err == nil {
			t.Errorf("site %s: process %d is still there", s.Name, s.PID)
		}
	}
	if _, err := os.Stat(filepath.Dir(info.Sites[0].Dir)); !os.IsNotExist(err) {
		t.Errorf("the temporary folder is left behind: %v", err)
	}
}

// TestDirIsKept: what was written is there in the next demo with the same folder.
func TestDirIsKept(t *testing.T) {
	t.Parallel()
	need(t, "qemu-io")
	dir := filepath.Join(t.TempDir(), "demo")
	first := startAt(t, "--dir", dir, "--base-port", freePorts(t), "--size", "64MiB")
	qemuIO(t, first.url(0), "write -P 0x11 0 1M")
	qemuIO(t, first.url(1), "write -P 0x22 1M 1M")
	first.stop()

	second := startAt(t, "--dir", dir, "--base-port", freePorts(t))
	for site := range 2 {
		qemuIO(t, second.url(site), "read -P 0x11 0 1M", "read -P 0x22 1M 1M", "read -P 0 2M 1M")
	}
	second.stop()

	third := launch(t, "--dir", dir, "--base-port", freePorts(t), "--size", "128MiB")
	<-third.done
	if out := third.out.String(); third.err == nil || !strings.Contains(out, "has 64MiB") {
		t.Errorf("another size for the same folder: %v\n%s", third.err, out)
	}
}

// TestNoRestart: the demo goes on without a daemon that was killed, and so does the LUN.
func TestNoRestart(t *testing.T) {
	t.Parallel()
	r := start(t, "--no-restart", "--size", "64MiB")
	r.kill(1)
	r.eventually("site b is missed", func() error {
		if !strings.Contains(r.out.String(), "site b: its daemon has ended: signal: killed") {
			return fmt.Errorf("not told")
		}
		return nil
	})
	r.eventually("site a serves alone", func() error {
		s, err := r.status(0)
		if err == nil && !(s.LUNs[0].Serving && s.LUNs[0].Alone) {
			err = fmt.Errorf("it does not: role %s, %s", s.LUNs[0].Role, s.LUNs[0].Why)
		}
		return err
	})
}

// TestPortTaken: a clear word, and no process left.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	base := freePorts(t)
	l, err := net.Listen("tcp", "127.0.0.1:"+base)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := launch(t, "--base-port", base)
	<-r.done
	if out := r.out.String(); r.err == nil || !strings.Contains(out, "port "+base+" is not free") {
		t.Errorf("a demo whose port is taken: %v\n%s", r.err, out)
	}
	// The daemon, on its own.
	config := filepath.Join(t.TempDir(), "c.yaml")
	text := fmt.Sprintf(`
node: a
data-dir: %q
iscsi: {iqn: "iqn.2026-01.org.example:x", listen: "127.0.0.1:%s"}
hosts: [{initiator: "*"}]
peer: {name: b, token: x, address: "127.0.0.1:1"}
luns: [{number: 0, name: disk, uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c8, size: 64MiB, preferred: a}]
`, t.TempDir(), base)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := try(filepath.Join(bin, "twinlund"), "--config", config)
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || !strings.Contains(out, "the port is taken") {
		t.Errorf("a daemon whose port is taken: %v\n%s", err, out)
	}
	out, err = try(filepath.Join(bin, "twinlund"), "--config", config, "--check")
	if err != nil {
		t.Errorf("checking a good configuration: %v\n%s", err, out)
	}
	out, err = try(filepath.Join(bin, "twinlund"), "--config", config, "--peer-streams", "many")
	if err == nil || !strings.Contains(out, "flag --peer-streams: peer.streams: \"many\"") {
		t.Errorf("a bad flag: %v\n%s", err, out)
	}
}

// TestMapDump: a person can read the map of a running site.
func TestMapDump(t *testing.T) {
	t.Parallel()
	need(t, "qemu-io")
	r := start(t, "--size", "64MiB")
	qemuIO(t, r.url(0), "write -P 0x11 0 1M")
	s, err := r.status(1)
	if err != nil {
		t.Fatal(err)
	}
	out := tool(t, filepath.Join(bin, "twinlun"), "map", "dump", s.LUNs[0].Map)
	if !strings.Contains(out, "67108864") && !strings.Contains(out, "64 MiB") {
		t.Errorf("the dump does not tell the LUN's size:\n%s", out)
	}
}
