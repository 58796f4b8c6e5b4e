package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlund/status"
)

const daemonIQN = "iqn.2026-01.io.github.twinlun:bench"

// daemons are two twinlund processes, a and b.
type daemons struct {
	dir    string
	daemon string
	size   int64 // of the LUN
	sites  [2]daemonSite
}

// daemonSite is one of them; addresses are host:port.
type daemonSite struct {
	Name, Peer, ISCSI, Page string
	Listen, Dial            string // of the link
	cmd                     *exec.Cmd
	log                     *os.File
}

var daemonConfig = template.Must(template.New("").Parse(`
node: {{.Site.Name}}
data-dir: {{printf "%q" .Dir}}
status: {listen: "{{.Site.Page}}"}
iscsi: {iqn: "{{.IQN}}", listen: "{{.Site.ISCSI}}"}
hosts: [{initiator: "*"}]
peer:
  name: {{.Site.Peer}}
  token: bench
  copy-rate: {{.CopyRate}}
{{- with .Site.Listen}}
  listen: "{{.}}"{{end}}{{with .Site.Dial}}
  address: "{{.}}"{{end}}
luns:
  - {number: 0, name: disk, uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c8, size: {{.Size}}, preferred: a, cold-after: 1h}
`))

// newDaemons configures a pair, and starts nothing.
func (b *bench) newDaemons(size int64) (*daemons, error) {
	if _, err := os.Stat(b.daemon); err != nil {
		return nil, fmt.Errorf("the daemon is not there: %w (make build makes it, --twinlund names another one)", err)
	}
	dir, err := b.folder()
	if err != nil {
		return nil, err
	}
	free, err := freeAddresses(5)
	if err != nil {
		return nil, err
	}
	d := &daemons{dir: dir, daemon: b.daemon, size: size}
	d.sites[0] = daemonSite{Name: "a", Peer: "b", ISCSI: free[0], Page: free[1], Dial: free[4]}
	d.sites[1] = daemonSite{Name: "b", Peer: "a", ISCSI: free[2], Page: free[3], Listen: free[4]}
	return d, d.configure(0)
}

// configure says how fast copies may be, in bytes per second, from the next start on.
func (d *daemons) configure(copyRate int64) error {
	return errors.Join(d.configureOne(&d.sites[0], copyRate), d.configureOne(&d.sites[1], copyRate))
}

func (d *daemons) configureOne(s *daemonSite, copyRate int64) error {
	data := filepath.Join(d.dir, s.Name)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	var text strings.Builder
	err := daemonConfig.Execute(&text, map[string]any{
		"Site": s, "Dir": data, "IQN": daemonIQN, "Size": d.size, "CopyRate": copyRate,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(data+".yaml", []byte(text.String()), 0o600)
}

// freeAddresses are addresses on loopback where nobody listens now.
func freeAddresses(n int) (all []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all, nil
}

// start starts some of the daemons, and returns when both serve.
func (d *daemons) start(b *bench, which ...int) (time.Duration, error) {
	began := time.Now()
	for _, i := range which {
		if err := d.startOne(&d.sites[i]); err != nil {
			return 0, err
		}
	}
	for i := range d.sites {
		s := &d.sites[i]
		err := b.until("twinlund "+s.Name+" serves", func() bool { return s.serves(b.ctx) })
		if err != nil {
			return 0, fmt.Errorf("%w%s", err, d.lastWords(s))
		}
	}
	return time.Since(began), nil
}

func (d *daemons) startOne(s *daemonSite) (err error) {
	path := filepath.Join(d.dir, s.Name)
	if s.log, err = os.Create(path + ".log"); err != nil {
		return err
	}
	s.cmd = exec.Command(d.daemon, "--config", path+".yaml")
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return s.cmd.Start()
}

func (s *daemonSite) serves(ctx context.Context) bool {
	return s.lun(ctx, func(l *status.LUN) bool { return l.Serving })
}

func (s *daemonSite) clean(ctx context.Context) bool {
	return s.lun(ctx, func(l *status.LUN) bool { return l.Serving && l.Dirty == 0 })
}

// lun tells whether something holds for the LUN.
func (s *daemonSite) lun(ctx context.Context, holds func(*status.LUN) bool) bool {
	time.Sleep(5 * time.Millisecond) // asking costs it something
	st, err := status.Get(ctx, s.Page)
	return err == nil && len(st.LUNs) == 1 && holds(&st.LUNs[0])
}

// renew ends a daemon and takes its replica away.
func (d *daemons) renew(i int) error {
	s := &d.sites[i]
	data := filepath.Join(d.dir, s.Name)
	return errors.Join(s.stop(), os.Remove(filepath.Join(data, "disk.img")), os.Remove(filepath.Join(data, "disk.map")))
}

// stop kills the daemon: how it stops is not measured.
func (s *daemonSite) stop() error {
	if s.cmd == nil {
		return nil
	}
	err := s.cmd.Process.Kill()
	s.cmd.Wait()
	s.cmd = nil
	return errors.Join(err, s.log.Close())
}

func (d *daemons) stop() error { return errors.Join(d.sites[0].stop(), d.sites[1].stop()) }

// lastWords is the end of a daemon's log.
func (d *daemons) lastWords(s *daemonSite) string {
	text, err := os.ReadFile(filepath.Join(d.dir, s.Name+".log"))
	if err != nil || len(text) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return "; its last words:\n  " + strings.Join(lines[max(0, len(lines)-5):], "\n  ")
}
