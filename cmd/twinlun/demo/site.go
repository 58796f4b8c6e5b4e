package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"text/template"
	"time"

	"github.com/twinlun/twinlun/webui/client"
)

const (
	restartAfter = 2 * time.Second
	// stopTime is how long a daemon may take to stop; it gives its hosts 10 s.
	stopTime = 15 * time.Second
	// quickDeath: a daemon that ends by itself so soon after its start, without
	// having served, will do so again.
	quickDeath = 2 * time.Second
)

// names are those of the nodes, and of where they stand.
var names = [3]string{"a", "b", "w"}

// site is a site, or the witness, and the daemon that runs for it.
type site struct {
	name, dir, daemon string
	portal, page      string // addresses; of the witness none
	peer              string // address of the nodes' port
	routes            string // NAME=address of the others; of the other site through the line
	restart           bool
	pid               atomic.Int64 // of the daemon; 0: none runs
	last              sample       // show's
}

func newSite(name, dir string, o Options) *site {
	s := &site{name: name, dir: filepath.Join(dir, name), daemon: o.Daemon, restart: !o.NoRestart}
	base := o.BasePort
	a, b, w := address(base+nodeOffset), address(base+peerOffset), address(base+witnessOffset)
	switch name {
	case "a":
		s.peer, s.routes = a, "b="+address(base+lineOffset)+",w="+w
	case "b":
		s.peer, s.routes = b, "a="+address(base+backOffset)+",w="+w
		base += siteOffset
	default:
		s.peer, s.routes = w, "a="+a+",b="+b
		return s
	}
	s.portal, s.page = address(base), address(base+statusOffset)
	return s
}

func (s *site) witness() bool { return s.portal == "" }

func (s *site) currentPID() int { return int(s.pid.Load()) }

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

// client asks the daemon.
func (s *site) client() *client.Client { return client.Local(s.file("api.sock")) }

var configuration = template.Must(template.New("").Parse(`# Made by twinlun demo.
data-dir: {{printf "%q" .Dir}}
cluster:
  listen: {{.Peer}}
  routes: "{{.Routes}}" # between the sites through the emulated line{{with .Page}}
status: {listen: "{{.}}"}{{else}}
witness: true{{end}}
`))

// configure writes the daemon's configuration. What it serves is in the catalog.
func (s *site) configure() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	var text bytes.Buffer
	err := configuration.Execute(&text, struct{ Dir, Peer, Routes, Page string }{s.dir, s.peer, s.routes, s.page})
	if err != nil {
		return err
	}
	return os.WriteFile(s.file("twinlund.yaml"), text.Bytes(), 0o600)
}

// supervise keeps the daemon running until ctx ends. It holds on to its thread: the
// kernel ends the daemon when the thread that started it is gone.
func (s *site) supervise(ctx context.Context, d *demo) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for ctx.Err() == nil {
		began := time.Now()
		err := s.runOnce(ctx, d)
		if ctx.Err() != nil {
			return err
		}
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && !exit.Exited()
		if !killed && time.Since(began) < quickDeath {
			return fmt.Errorf("site %s does not run: %w%s", s.name, err, s.lastWords())
		}
		d.out.print(fmt.Sprintf("site %s: its daemon has ended: %v", s.name, err))
		if !s.restart {
			<-ctx.Done()
			return nil
		}
		d.out.print(fmt.Sprintf("site %s: is started again in %v", s.name, restartAfter))
		select {
		case <-time.After(restartAfter):
		case <-ctx.Done():
		}
	}
	return nil
}

// runOnce runs the daemon once, and stops it when ctx ends. Without an error it was
// stopped, or has ended by itself with success.
func (s *site) runOnce(ctx context.Context, d *demo) error {
	log, err := os.OpenFile(s.file("twinlund.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, s.daemon, "--config", s.file("twinlund.yaml"))
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, cleanEnvironment()
	// A group of its own: Ctrl-C is for us, who stop the daemons in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
	if err := cmd.Start(); err != nil {
		return err
	}
	s.pid.Store(int64(cmd.Process.Pid))
	defer s.pid.Store(0)
	if err := d.updateJSON(false); err != nil {
		d.out.print(fmt.Sprintf("write %s: %v", d.o.JSON, err))
	}
	err = cmd.Wait()
	if ctx.Err() != nil && !(errors.As(err, new(*exec.ExitError)) || errors.Is(err, exec.ErrWaitDelay)) {
		return nil // it was stopped, and has stopped in order
	}
	if err == nil {
		err = errors.New("exit status 0")
	}
	return err
}

// cleanEnvironment is ours without settings of twinlund, which are not meant for
// both of these.
func cleanEnvironment() (env []string) {
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "TWINLUN_") {
			env = append(env, e)
		}
	}
	return env
}

// lastWords is the end of the daemon's log.
func (s *site) lastWords() string {
	text, err := os.ReadFile(s.file("twinlund.log"))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return "; its last words:\n  " + strings.Join(lines[max(0, len(lines)-5):], "\n  ")
}
