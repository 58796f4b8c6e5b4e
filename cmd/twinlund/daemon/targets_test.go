package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/target/iscsi"
	"github.com/twinlun/twinlun/test/initiator"
)

const web = iqn + "-web"

// withWeb is a configuration with a second target, for another host, that shows the LUN
// under another number.
func withWeb(cfg *config.Config, changes ...func(*config.Target)) *config.Config {
	return with(cfg, func(c *config.Config) {
		second := c.Targets[0]
		second.Number, second.IQN = 1, web
		second.Hosts, second.LUNs = []iscsi.Access{{Initiator: web + "-host"}}, map[uint16]uint16{0: 3}
		for _, change := range changes {
			change(&second)
		}
		c.Targets = append(c.Targets, second)
	})
}

// dial opens a session with a target, as the host that has its name with -host.
func dial(t *testing.T, at net.Addr, target string, lun uint16) (*initiator.Session, error) {
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: at.String(), TargetIQN: target, InitiatorIQN: target + "-host", LUN: lun})
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

func login(t *testing.T, d *Daemon, target string, lun uint16) *initiator.Session {
	t.Helper()
	s, err := dial(t, d.ISCSI(), target, lun)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ready takes the unit attentions of a LUN; each has the form "29/00".
func ready(t *testing.T, s *initiator.Session) (told []string) {
	t.Helper()
	for range 8 {
		err := s.TestUnitReady(t.Context())
		var check *initiator.CheckCondition
		if !errors.As(err, &check) {
			if err != nil {
				t.Fatal(err)
			}
			return told
		}
		told = append(told, fmt.Sprintf("%02x/%02x", check.ASC, check.ASCQ))
	}
	t.Fatalf("the LUN does not become ready: %v", told)
	return nil
}

// found checks what a host discovers.
func found(t *testing.T, d *Daemon, host string, want ...string) {
	t.Helper()
	o := initiator.Options{Address: d.ISCSI().String(), InitiatorIQN: host}
	targets, err := o.Discover(t.Context())
	var names []string
	for _, target := range targets {
		names = append(names, target.Name)
	}
	slices.Sort(names)
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("%s finds %v, %v; want %v", host, names, err, want)
	}
}

// ended checks that a session ends as its target asked for.
func ended(t *testing.T, s *initiator.Session) {
	t.Helper()
	<-s.Done()
	if err := s.Err(); !errors.As(err, new(*initiator.AsyncError)) {
		t.Errorf("a session ends with %v, and not by the target's request", err)
	}
}

// TestTargetsComeAndGo: a second target shows the LUN of the first to another host, is
// changed, and goes; a host of the first writes and reads all the time.
func TestTargetsComeAndGo(t *testing.T) {
	cfg := nodes(t)
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	stop := make(chan struct{})
	var loaded sync.WaitGroup
	var failed error
	loaded.Go(func() { failed = load(a, stop) })
	first := login(t, a, iqn, 3)
	ready(t, first)
	text := []byte(strings.Repeat("by way of iqn...", 256))
	if err := first.WriteAt(t.Context(), text, 8*mib); err != nil {
		t.Fatal(err)
	}
	reload := func(next *config.Config) {
		t.Helper()
		if err := a.Reload(t.Context(), next); err != nil {
			t.Fatal(err)
		}
	}

	reload(withWeb(cfg[0]))
	found(t, a, iqn+"-host", iqn)
	found(t, a, web+"-host", iqn, web) // the first lets everybody in
	second := login(t, a, web, 0)
	if told := ready(t, second); !slices.Equal(told, []string{"29/00"}) {
		t.Errorf("a new session is told %v", told)
	}
	p := make([]byte, len(text))
	if err := second.ReadAt(t.Context(), p, 8*mib); err != nil || !bytes.Equal(p, text) {
		t.Errorf("the LUN has %.16q by way of the second target, %v", p, err)
	}

	reload(withWeb(cfg[0], func(t *config.Target) { t.LUNs, t.Alias = map[uint16]uint16{7: 3}, "changed" }))
	if luns, err := second.ReportLUNs(t.Context()); err != nil || !slices.Equal(luns, [][8]byte{{1: 7}}) {
		t.Errorf("LUNs %v, %v", luns, err)
	}
	if told := ready(t, login(t, a, web, 7)); !slices.Equal(told, []string{"29/00"}) {
		t.Errorf("a session that has begun after the change is told %v", told)
	}

	reload(cfg[0])
	ended(t, second)
	found(t, a, web+"-host", iqn)
	if _, err := dial(t, a.ISCSI(), web, 0); !refusedWith(err, 3) {
		t.Errorf("the target is gone, and a login ends with %v", err)
	}
	if told := ready(t, first); told != nil {
		t.Errorf("the host of the first target was told %v", told)
	}
	close(stop)
	loaded.Wait()
	if failed != nil {
		t.Error(failed)
	}
	stopNode(t, a)
	stopNode(t, b)
}

// TestTargetsShareLUN: there is one logical unit, whatever target shows it: reset by way
// of one, hosts of the other are told; and who sees other LUNs than before is told so.
func TestTargetsShareLUN(t *testing.T) {
	cfg := nodes(t)
	a, b := startNode(t, withWeb(cfg[0])), startNode(t, withWeb(cfg[1]))
	first, second := login(t, a, iqn, 3), login(t, a, web, 0)
	ready(t, first)
	ready(t, second)
	if err := second.LUNReset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if told := ready(t, first); !slices.Equal(told, []string{"29/03"}) {
		t.Errorf("the other target's host is told %v", told)
	}
	ready(t, second)
	twice := func(c *config.Config) {
		l := c.LUNs[0]
		l.Number, l.Name, l.UUID[0] = 5, "other", 0xee
		l.Backing, l.Map = l.Backing+".other", l.Map+".other"
		c.LUNs = append(c.LUNs, l)
		c.Targets[1].LUNs = map[uint16]uint16{0: 3, 1: 5}
	}
	for i, d := range []*Daemon{a, b} {
		if err := d.Reload(t.Context(), with(withWeb(cfg[i]), twice)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*initiator.Session{first, second} {
		if told := ready(t, s); !slices.Equal(told, []string{"3f/0e"}) {
			t.Errorf("a host of %s, which shows a LUN more, is told %v", s.Options().TargetIQN, told)
		}
	}
	ready(t, login(t, a, web, 1))
	stopNode(t, a)
	stopNode(t, b)
}

// TestTargetPortals: a target with portals of its own is served there alone; they come
// and go with it.
func TestTargetPortals(t *testing.T) {
	cfg := nodes(t)[0]
	d := startNode(t, cfg)
	defer stopNode(t, d)
	own := freeAddress(t)
	next := withWeb(cfg, func(t *config.Target) {
		t.Listen, t.Portals = []string{own}, []config.Portal{{Address: own, Group: 1}}
	})
	first := login(t, d, iqn, 3)
	for range 2 {
		if err := d.Reload(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		there := address(own)
		second, err := dial(t, there, web, 0)
		if err != nil {
			t.Fatal(err)
		}
		for at, target := range map[net.Addr]string{there: iqn, d.ISCSI(): web} {
			if _, err := dial(t, at, target, 0); !refusedWith(err, 3) {
				t.Errorf("%s at the portal of the other: %v", target, err)
			}
		}
		if err := d.Reload(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		ended(t, second)
		if c, err := net.Dial("tcp", own); err == nil {
			c.Close()
			t.Error("the portal of a target that is gone takes connections")
		}
	}
	taken, err := net.Listen("tcp", own)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := d.Reload(t.Context(), next); err == nil || !strings.Contains(err.Error(), "the port is taken") {
		t.Errorf("a portal that is taken: %v", err)
	}
	found(t, d, web+"-host", iqn)
	if _, err := first.Ping(t.Context(), []byte("ping")); err != nil {
		t.Error(err)
	}
}

// TestTargetsSwap: names and numbers may pass from one target to another.
func TestTargetsSwap(t *testing.T) {
	cfg := withWeb(nodes(t)[0])
	d := startNode(t, cfg)
	defer stopNode(t, d)
	first, second := login(t, d, iqn, 3), login(t, d, web, 0)
	swapped := with(cfg, func(c *config.Config) {
		c.Targets[0].Number, c.Targets[1].Number = c.Targets[1].Number, c.Targets[0].Number
	})
	if err := d.Reload(t.Context(), swapped); err != nil {
		t.Fatal(err)
	}
	ended(t, first)
	ended(t, second)
	login(t, d, iqn, 3)
	login(t, d, web, 0)
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

func refusedWith(err error, detail byte) bool {
	var e *initiator.LoginError
	return errors.As(err, &e) && e.Class == 2 && e.Detail == detail
}
