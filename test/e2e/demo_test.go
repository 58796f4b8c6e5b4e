package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlun/demo"
	"github.com/twinlun/twinlun/cmd/twinlund/status"
	"github.com/twinlun/twinlun/test/logs"
)

// patience is how long anything may take that should happen soon. It only bounds a
// failure: nothing here waits for time to pass.
const patience = 2 * time.Minute

// running is a demo under test.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	json string
	out  *logs.Text
	done chan struct{} // closed when it has ended
	err  error         // of its end
}

// launch starts a demo with these flags, and does not wait.
func launch(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{t: t, json: filepath.Join(t.TempDir(), "demo.json"), out: new(logs.Text), done: make(chan struct{})}
	args = append([]string{"demo", "--json", r.json}, args...)
	r.cmd = exec.Command(filepath.Join(bin, "twinlun"), args...)
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.done)
	}()
	return r
}

// start starts a demo and returns when it serves. It ends with the test, and must
// then end well.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "demo")
	return startAt(t, append([]string{"--dir", dir, "--base-port", freePorts(t)}, args...)...)
}

func startAt(t *testing.T, args ...string) *running {
	t.Helper()
	r := launch(t, args...)
	t.Cleanup(func() {
		r.stop()
		r.checkLogs()
		if t.Failed() {
			r.tell()
		}
	})
	r.eventually("the demo serves", func() error {
		_, err := os.Stat(r.json)
		return err
	})
	return r
}

// tell shows what the demo and its daemons have said.
func (r *running) tell() {
	r.t.Logf("the demo printed:\n%s", r.out)
	for _, log := range r.logs() {
		text, _ := os.ReadFile(log)
		r.t.Logf("end of %s:\n%s", log, text[max(0, len(text)-6000):])
	}
}

// checkLogs looks for what must never happen: the daemons are started again, so that
// a crash of their own would go unnoticed.
func (r *running) checkLogs() {
	for _, log := range r.logs() {
		text, err := os.ReadFile(log)
		if err != nil {
			r.t.Error(err)
		}
		for _, word := range []string{"panic:", "fatal error:", "DATA RACE", "level=ERROR"} {
			if i := bytes.Index(text, []byte(word)); i >= 0 {
				r.t.Errorf("%s: %s", log, text[i:min(len(text), i+3000)])
			}
		}
	}
}

func (r *running) logs() []string {
	for i, a := range r.cmd.Args {
		if a == "--dir" {
			logs, _ := filepath.Glob(filepath.Join(r.cmd.Args[i+1], "*", "twinlund.log"))
			return logs
		}
	}
	return nil
}

// stop ends the demo as Ctrl-C does.
func (r *running) stop() {
	r.t.Helper()
	select {
	case <-r.done:
	default:
		r.cmd.Process.Signal(syscall.SIGINT)
	}
	select {
	case <-r.done:
	case <-time.After(patience):
		r.cmd.Process.Kill()
		r.t.Errorf("the demo did not end %v after SIGINT", patience)
		<-r.done
	}
	if r.err != nil {
		r.t.Errorf("the demo ended with %v:\n%s", r.err, r.out)
	}
}

// eventually waits until f returns nil, or the demo is gone, or patience is over.
func (r *running) eventually(what string, f func() error) {
	r.t.Helper()
	for end := time.Now().Add(patience); ; {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-r.done:
			r.t.Fatalf("until %s: the demo has ended: %v\n%s", what, r.err, r.out)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(end) {
			r.t.Fatalf("not in %v: %s: %v", patience, what, err)
		}
	}
}

// info reads the file for scripts.
func (r *running) info() demo.Info {
	r.t.Helper()
	var info demo.Info
	text, err := os.ReadFile(r.json)
	if err == nil {
		err = json.Unmarshal(text, &info)
	}
	if err != nil || len(info.Sites) != 2 {
		r.t.Fatalf("the demo's file for scripts: %v: %s", err, text)
	}
	return info
}

// url is the LUN at a site, 0 or 1, as libiscsi and QEMU take it.
func (r *running) url(site int) string {
	info := r.info()
	return fmt.Sprintf("iscsi://%s/%s/%d", info.Sites[site].Portal, info.IQN, info.LUN)
}

// backing is a site's replica.
func (r *running) backing(site int) string {
	return filepath.Join(r.info().Sites[site].Dir, "disk.img")
}

// status asks a site's daemon.
func (r *running) status(site int) (*status.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := status.Get(ctx, r.info().Sites[site].Status)
	if err == nil && len(s.LUNs) != 1 {
		err = fmt.Errorf("%d LUNs", len(s.LUNs))
	}
	return s, err
}

// waitClean waits until both sites serve and nothing is dirty.
func (r *running) waitClean() {
	r.t.Helper()
	r.eventually("nothing is dirty", func() error {
		for site := range 2 {
			s, err := r.status(site)
			if err != nil {
				return err
			}
			if l := s.LUNs[0]; !l.Serving || l.Dirty != 0 {
				return fmt.Errorf("site %d: serving %v (%s), %d bytes dirty", site, l.Serving, l.Why, l.Dirty)
			}
		}
		return nil
	})
}

// kill ends a site's daemon with SIGKILL, and returns when it is gone: its ports are free
// then.
func (r *running) kill(site int) {
	r.t.Helper()
	s, err := r.status(site) // its own word: the file may still tell of the one before
	if err != nil {
		return // it is down already
	}
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		r.t.Errorf("kill site %d: %v", site, err)
	}
	for end := time.Now().Add(patience); syscall.Kill(s.PID, 0) == nil && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// link gives the line between the sites an order.
func (r *running) link(order string) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPut, "http://"+r.info().Link.Control+"/", strings.NewReader(order))
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Errorf("order %s for the link: %v", order, err)
		return
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		r.t.Errorf("order %s for the link: %s: %s", order, resp.Status, text)
	}
}

// freePorts finds a base port with all that a demo needs free, below the range from
// which the system takes ports for outgoing connections.
func freePorts(t *testing.T) string {
	t.Helper()
	for range 100 {
		base := 15000 + 20*rand.IntN(800)
		if free(base, base+14) {
			return strconv.Itoa(base)
		}
	}
	t.Fatal("no free ports")
	return ""
}

func free(from, to int) bool {
	for port := from; port < to; port++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
