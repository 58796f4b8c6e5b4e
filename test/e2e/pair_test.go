package e2e

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlund/status"
)

const pairIQN = "iqn.2026-01.org.example:pair"

// pair is two daemons with a configuration of the test's own; site 1 may be
// forgotten, where one portal is enough.
type pair struct {
	t       *testing.T
	portals [2]string
	pages   [2]string
	link    string
	dirs    [2]string
	logs    [2]string
	cmds    [2]*exec.Cmd
	env     []string // of the daemons, beside the test's
	dials   string   // where site a finds site b, if that is not the link itself
}

// oneLUN is what most tests need.
const oneLUN = "[{number: 0, name: disk, uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c8, size: 64MiB, preferred: a}]"

// startPair starts the daemons with this in their configuration, beside what makes
// them a pair with a LUN 0 of 64 MiB, and returns when both serve.
func startPair(t *testing.T, more string) *pair {
	t.Helper()
	return startPairWith(t, oneLUN, more)
}

// startPairWith is startPair with LUNs of the test's own: the value of the key luns.
func startPairWith(t *testing.T, luns, more string) *pair {
	t.Helper()
	return startPairAs(t, luns, more, func(*pair) {})
}

// startPairAs is startPairWith for a pair that is changed before it starts.
func startPairAs(t *testing.T, luns, more string, change func(*pair)) *pair {
	t.Helper()
	base, _ := strconv.Atoi(freePorts(t))
	address := func(n int) string { return "127.0.0.1:" + strconv.Itoa(base+n) }
	p := &pair{t: t, portals: [2]string{address(0), address(1)}, pages: [2]string{address(2), address(3)}, link: address(4)}
	change(p)
	for site := range 2 {
		p.dirs[site] = t.TempDir()
		p.logs[site] = filepath.Join(p.dirs[site], "log")
		if err := p.configure(site, luns, more); err != nil {
			t.Fatal(err)
		}
		p.start(site)
	}
	t.Cleanup(p.stop)
	p.waitServing()
	return p
}

func (p *pair) config(site int) string { return filepath.Join(p.dirs[site], "twinlund.yaml") }

// configure writes a site's configuration.
func (p *pair) configure(site int, luns, more string) error {
	names := []string{"a", "b"}
	text := fmt.Sprintf(`
node: %s
data-dir: %q
status: {listen: %q}
iscsi:
  iqn: %s
  listen: %q
  portal-group: %d
  portals: [{address: %q, group: %d}]
peer: {name: %s, token: x, listen: %q, address: %q}
luns: %s
%s`, names[site], p.dirs[site], p.pages[site], pairIQN, p.listen(site), site+1, p.portals[1-site], 2-site, names[1-site], p.link, cmp.Or(p.dials, p.link), luns, more)
	return os.WriteFile(p.config(site), []byte(text), 0o600)
}

// reconfigure gives both sites other LUNs, while they run, and waits until both serve
// them in these sizes, in the order of their numbers.
func (p *pair) reconfigure(luns, more string, sizes ...int64) error {
	for site := range 2 {
		if err := p.configure(site, luns, more); err != nil {
			return err
		}
		if err := p.cmds[site].Process.Signal(syscall.SIGHUP); err != nil {
			return err
		}
	}
	return p.waitFor(fmt.Sprint("serves LUNs of the sizes ", sizes), func(s *status.Status) bool {
		return slices.EqualFunc(s.LUNs, sizes, func(l status.LUN, size int64) bool { return l.Serving && l.Size == size })
	})
}

// listen is where a site listens: on IPv4, and on IPv6 where the machine has it.
func (p *pair) listen(site int) string {
	if !hasIPv6() {
		return p.portals[site]
	}
	return p.portals[site] + "," + v6(p.portals[site])
}

// v6 is a portal's address of the other kind.
func v6(portal string) string { return strings.Replace(portal, "127.0.0.1", "[::1]", 1) }

func hasIPv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func (p *pair) start(site int) {
	p.t.Helper()
	log, err := os.Create(p.logs[site])
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "twinlund"), "--config", p.config(site))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.cmds[site] = cmd
}

// log is what a site's daemon has said.
func (p *pair) log(site int) string {
	p.t.Helper()
	text, err := os.ReadFile(p.logs[site])
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

func (p *pair) waitServing() {
	p.t.Helper()
	err := p.waitFor("serves", func(s *status.Status) bool {
		return !slices.ContainsFunc(s.LUNs, func(l status.LUN) bool { return !l.Serving })
	})
	if err != nil {
		p.t.Fatalf("%v; the logs:\n%s\n%s", err, p.log(0), p.log(1))
	}
}

// waitFor waits until something holds at both sites at once.
func (p *pair) waitFor(what string, holds func(*status.Status) bool) error {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		n := 0
		for _, page := range p.pages {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			s, err := status.Get(ctx, page)
			cancel()
			if err == nil && len(s.LUNs) > 0 && holds(s) {
				n++
			}
		}
		if n == 2 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %v it is not so that the pair %s", patience, what)
		}
	}
}

// stop ends the daemons in order, and looks into their logs.
func (p *pair) stop() {
	for _, cmd := range p.cmds {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			p.t.Error(err)
		}
	}
	for site, cmd := range p.cmds {
		if err := cmd.Wait(); err != nil {
			p.t.Errorf("site %d ended with %v", site, err)
		}
		text, _ := os.ReadFile(p.logs[site])
		for _, word := range []string{"panic:", "fatal error:", "DATA RACE", "level=ERROR"} {
			if bytes.Contains(text, []byte(word)) {
				p.t.Errorf("site %d has said %s", site, word)
			}
		}
		if p.t.Failed() {
			p.t.Logf("end of site %d's log:\n%s", site, text[max(0, len(text)-6000):])
		}
	}
}

// hangup changes a site's configuration, tells the daemon, and waits for its word.
func (p *pair) hangup(site int, old, new, word string) {
	p.t.Helper()
	file := filepath.Join(filepath.Dir(p.logs[site]), "twinlund.yaml")
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, bytes.Replace(text, []byte(old), []byte(new), 1), 0o600)
	}
	if err == nil {
		err = p.cmds[site].Process.Signal(syscall.SIGHUP)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	for end := time.Now().Add(patience); !strings.Contains(p.log(site), word); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("site %d does not say %q", site, word)
		}
	}
}

// url is the LUN at a site for a user.
func (p *pair) url(site int, user, secret string) string {
	return fmt.Sprintf("iscsi://%s%%%s@%s/%s/0", user, secret, p.portals[site], pairIQN)
}

// wantLog wants a line with all of these in a site's log.
func (p *pair) wantLog(site int, parts ...string) {
	p.t.Helper()
	for line := range strings.SplitSeq(p.log(site), "\n") {
		found := 0
		for _, part := range parts {
			if strings.Contains(line, part) {
				found++
			}
		}
		if found == len(parts) {
			return
		}
	}
	p.t.Errorf("site %d's log has no line with %q", site, parts)
}
