package daemon

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/secret"
	"github.com/twinlun/twinlun/target/iscsi"
	"github.com/twinlun/twinlun/test/initiator"
	"github.com/twinlun/twinlun/test/logs"
)

// TestAccess: an initiator that shares no code with the target logs in with every
// algorithm, and is refused with wrong secrets; the log says why.
func TestAccess(t *testing.T) {
	cfg := nodes(t)[0]
	cfg.Targets[0].Listen = append(cfg.Targets[0].Listen, "[::1]:0")
	cfg.Targets[0].Portals = []config.Portal{{Address: ":3260", Group: 1}, {Address: "192.0.2.2:3260", Group: 2}}
	cfg.Targets[0].Hosts = []iscsi.Access{{Initiator: iqn + "-host", Auth: iscsi.Auth{
		Initiator: iscsi.Credentials{User: "web", Secret: secret.New("correct horse battery")},
		Target:    iscsi.Credentials{User: "disks", Secret: secret.New("the target proves it")},
	}}}
	cfg.Discovery.Initiator = iscsi.Credentials{User: "look", Secret: secret.New("only for looking")}
	log := new(logs.Text)
	d, err := Start(cfg, "test", log.Logger())
	if err != nil {
		t.Fatal(err)
	}
	defer stopNode(t, d)
	good := func(err error) bool { return err == nil }
	refused := func(detail byte) func(error) bool {
		return func(err error) bool {
			var e *initiator.LoginError
			return errors.As(err, &e) && e.Class == 2 && e.Detail == detail
		}
	}
	web := initiator.CHAP{User: "web", Secret: "correct horse battery"}
	both := initiator.CHAP{User: "web", Secret: "correct horse battery", TargetUser: "disks", Target: "the target proves it"}
	with := func(c initiator.CHAP, change func(*initiator.CHAP)) initiator.CHAP { change(&c); return c }
	for name, c := range map[string]struct {
		host string
		chap initiator.CHAP
		want func(error) bool
	}{
		"one way":         {"-host", web, good},
		"mutual":          {"-host", both, good},
		"SHA3-256":        {"-host", with(both, func(c *initiator.CHAP) { c.Algorithms = []int{8} }), good},
		"SHA-256":         {"-host", with(both, func(c *initiator.CHAP) { c.Algorithms = []int{7} }), good},
		"SHA-1":           {"-host", with(both, func(c *initiator.CHAP) { c.Algorithms = []int{6} }), good},
		"MD5":             {"-host", with(both, func(c *initiator.CHAP) { c.Algorithms = []int{5} }), good},
		"base64":          {"-host", with(both, func(c *initiator.CHAP) { c.Base64 = true }), good},
		"none":            {"-host", initiator.CHAP{}, refused(1)},
		"another secret":  {"-host", with(web, func(c *initiator.CHAP) { c.Secret = "incorrect horse battery" }), refused(1)},
		"another user":    {"-host", with(web, func(c *initiator.CHAP) { c.User = "root" }), refused(1)},
		"discovery's":     {"-host", initiator.CHAP{User: "look", Secret: "only for looking"}, refused(1)},
		"another host":    {"-hostile", web, refused(2)},
		"a false target":  {"-host", with(both, func(c *initiator.CHAP) { c.Target = "the target is a fake" }), func(err error) bool { return errors.Is(err, initiator.ErrTargetProof) }},
		"nothing offered": {"-host", with(web, func(c *initiator.CHAP) { c.Algorithms = []int{1} }), refused(1)},
	} {
		for _, l := range d.sockets.iscsi {
			s, err := initiator.Dial(t.Context(), initiator.Options{Address: l.Addr().String(), TargetIQN: iqn, InitiatorIQN: iqn + c.host, CHAP: c.chap})
			if !c.want(err) {
				t.Errorf("%s: %v", name, err)
			}
			if err == nil {
				s.Close()
			}
		}
	}
	checkDiscovery(t, d)
	for _, want := range []string{
		"initiator=" + iqn + "-hostile", "status=0x0202", "is not on the access list", "status=0x0201",
		`why="the secret of CHAP user \"web\" is wrong"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s:\n%s", want, log)
		}
	}
	for _, secret := range []string{"horse", "proves", "for looking"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has a secret:\n%s", log)
		}
	}
}

// checkDiscovery looks for the target, by way of every listener.
func checkDiscovery(t *testing.T, d *Daemon) {
	t.Helper()
	for k, l := range d.sockets.iscsi {
		want := []string{"[127.0.0.1:3260,1 192.0.2.2:3260,2]", "[[::1]:3260,1 192.0.2.2:3260,2]"}[k]
		o := initiator.Options{Address: l.Addr().String(), InitiatorIQN: iqn + "-host", CHAP: initiator.CHAP{User: "look", Secret: "only for looking"}}
		targets, err := o.Discover(t.Context())
		if err != nil || len(targets) != 1 || targets[0].Name != iqn || fmt.Sprint(targets[0].Portals) != want {
			t.Errorf("discovery at %s: %v, %v", o.Address, targets, err)
		}
		o.InitiatorIQN = iqn + "-hostile"
		if targets, err := o.Discover(t.Context()); err != nil || len(targets) != 0 {
			t.Errorf("discovery by somebody else: %v, %v", targets, err)
		}
		o.CHAP = initiator.CHAP{}
		if targets, err := o.Discover(t.Context()); err == nil {
			t.Errorf("discovery without a secret: %v", targets)
		}
	}
}

// TestAllAddresses: 0.0.0.0 and [::] can stand beside each other, on one port.
func TestAllAddresses(t *testing.T) {
	_, port, _ := net.SplitHostPort(freeAddress(t))
	cfg := nodes(t)[0]
	cfg.Targets[0].Listen = []string{"0.0.0.0:" + port, "[::]:" + port}
	s, err := listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.close()
}

// TestReloadHosts: who is let in no more has to go, and is not let in again.
func TestReloadHosts(t *testing.T) {
	cfg := nodes(t)[0]
	d := startNode(t, cfg)
	defer stopNode(t, d)
	dial := func(name string) (*initiator.Session, error) {
		return initiator.Dial(t.Context(), initiator.Options{Address: d.ISCSI().String(), TargetIQN: iqn, InitiatorIQN: iqn + name})
	}
	stays, err := dial("-stays")
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Close()
	goes, err := dial("-goes")
	if err != nil {
		t.Fatal(err)
	}
	hosts := func(name string) *config.Config {
		return with(cfg, func(c *config.Config) { c.Targets[0].Hosts = []iscsi.Access{{Initiator: name}} })
	}
	if err := d.Reload(t.Context(), hosts(iqn+"-stays")); err != nil {
		t.Fatal(err)
	}
	<-goes.Done()
	if _, err := dial("-goes"); err == nil {
		t.Error("it is let in again")
	}
	if _, err := stays.Ping(t.Context(), []byte("ping")); err != nil {
		t.Error(err)
	}
	if err := d.Reload(t.Context(), hosts("nonsense")); err == nil {
		t.Error("nonsense is taken over")
	}
	if _, err := stays.Ping(t.Context(), []byte("ping")); err != nil {
		t.Error(err)
	}
}
