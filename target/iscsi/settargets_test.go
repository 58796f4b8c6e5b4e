package iscsi

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/secret"
	"github.com/twinlun/twinlun/target/sam"
)

// TestSetTargets takes a target away under load: its session is asked to log out and
// ends, that of the other target notices nothing.
func TestSetTargets(t *testing.T) {
	r := newRig(t, Limits{ShutdownGrace: 200e6})
	stays, goes := r.target(), r.target()
	goes.Name, goes.Device = testIQN+"2", newDisk(64)
	if err := r.srv.SetTargets(t.Context(), []Target{stays, goes}, Auth{}); err != nil {
		t.Fatal(err)
	}
	a := r.login()
	b := r.dial()
	b.send(b.loginHeader(stageOperational, stageFullFeature, true), keys(hostName, "TargetName="+goes.Name))
	if got := b.recv(opLoginResp); got.loginStatus() != loginSuccess {
		t.Fatalf("% x", got.header)
	}
	hang := a.scsi(bitFinal, 0, opHang, 0, 0)
	a.send(hang, nil) // a command of the one that stays, in flight all the time
	<-r.disk.hung
	if err := r.srv.SetTargets(t.Context(), []Target{stays}, Auth{}); err != nil {
		t.Fatal(err)
	}
	if n := goes.Device.(*disk).open(); n != 0 {
		t.Errorf("%d nexuses with the target that was taken away", n)
	}
	if got := b.recv(opAsync); got.header[36] != asyncLogout {
		t.Errorf("% x", got.header)
	}
	b.closed()
	a.echo()
	if len(r.disk.freed) != 0 || r.disk.open() != 1 {
		t.Errorf("the other target's session was disturbed")
	}
	c := r.dial()
	c.send(c.loginHeader(stageOperational, stageFullFeature, true), keys(hostName, "TargetName="+goes.Name))
	if got := c.recv(opLoginResp); got.loginStatus() != loginNotFound {
		t.Errorf("% x", got.header)
	}
}

// TestSetTargetsAtLogout: an initiator that logs out when it is asked is not killed.
func TestSetTargetsAtLogout(t *testing.T) {
	r := newRig(t, Limits{ShutdownGrace: 20e9})
	i := r.login()
	done := make(chan error, 1)
	go func() { done <- r.srv.SetTargets(context.Background(), nil, Auth{}) }()
	if got := i.recv(opAsync); got.header[36] != asyncLogout || got.u16(42) != 20 {
		t.Errorf("% x", got.header)
	}
	i.logout()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestSetAccess says of a session that logged in as user "host" which new access
// lists let it stay.
func TestSetAccess(t *testing.T) {
	const name = "iqn.2024-01.com.example:host"
	changed := Auth{Initiator: Credentials{"host", secret.New("another long secret")}}
	for _, c := range []struct {
		what string
		list []Access
		want string // "": it stays
	}{
		{"the same", []Access{{name, oneWay}}, ""},
		{"another secret", []Access{{name, changed}}, ""},
		{"by a pattern", []Access{{"iqn.*", changed}}, ""},
		{"no proof is needed any more", Anyone(), ""},
		{"one user of two", []Access{{name, user("else")}, {name, oneWay}}, ""},
		{"another user", []Access{{name, user("else")}}, "authenticate itself otherwise"},
		{"its user is further off", []Access{{name, user("else")}, {"iqn.*", oneWay}}, "authenticate itself otherwise"},
		{"another initiator", []Access{{name + "2", oneWay}}, "not on the access list"},
		{"nobody", nil, "not on the access list"},
	} {
		device := newDisk(1)
		d, err := newDirectory([]Target{{Name: testIQN, Device: device, Access: c.list}}, Auth{})
		if err != nil {
			t.Fatal(err)
		}
		s := &session{target: &Target{Name: testIQN, Device: device}, user: "host"}
		s.port.Name = name
		if err := d.objection(s); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want …%s…", c.what, err, c.want)
		}
		s.target.Device = newDisk(1)
		if err := d.objection(s); err == nil {
			t.Errorf("%s: it stays with another device", c.what)
		}
	}
}

// TestSetAccessEndsSessions that logged in without a proof when one is wanted.
func TestSetAccessEndsSessions(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	r.set(Auth{}, Access{"*", oneWay})
	i.closed()
	if r.disk.open() != 0 {
		t.Error("the nexus is open")
	}
	d := r.dial()
	d.send(d.loginHeader(stageOperational, stageFullFeature, true), keys(hostName, "SessionType=Discovery"))
	if got := d.recv(opLoginResp); got.loginStatus() != loginSuccess {
		t.Fatalf("% x", got.header)
	}
	r.set(oneWay, Anyone()...)
	d.closed()
}

// TestSetTargetsDuringLogin: a login that began before is judged by what counts when
// it ends.
func TestSetTargetsDuringLogin(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.dial()
	i.send(i.loginHeader(stageOperational, stageFullFeature, false), keys(hostName, "TargetName="+testIQN))
	i.recv(opLoginResp)
	r.set(Auth{}, Access{"*", oneWay})
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), nil)
	if got := i.recv(opLoginResp); got.loginStatus() != loginAuthFailure || got.u16(14) != 0 {
		t.Errorf("% x", got.header)
	}
	i.closed()
	if n := len(r.srv.sessions.all()); n != 0 || r.disk.open() != 0 {
		t.Errorf("%d sessions", n)
	}
}

// TestSetTargetsRefused changes nothing.
func TestSetTargetsRefused(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	target := r.target()
	if err := r.srv.SetTargets(t.Context(), []Target{target, target}, Auth{}); err == nil {
		t.Error("two targets of one name")
	}
	i.echo()
	r.login().echo()
}

// stuck is a disk whose nexuses do not close until they may.
type stuck struct {
	*disk
	may chan struct{}
}

type stuckNexus struct {
	sam.Nexus
	may chan struct{}
}

func (s *stuck) NewNexus(from sam.InitiatorPort, group uint16) sam.Nexus {
	return stuckNexus{s.disk.NewNexus(from, group), s.may}
}

func (n stuckNexus) Close() {
	<-n.may
	n.Nexus.Close()
}

// TestSetTargetsWaits for sessions to end, as long as its context does not.
func TestSetTargetsWaits(t *testing.T) {
	r := newRig(t, Limits{})
	target, may := r.target(), make(chan struct{})
	target.Device = &stuck{r.disk, may}
	if err := r.srv.SetTargets(t.Context(), []Target{target}, Auth{}); err != nil {
		t.Fatal(err)
	}
	i := r.login()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.srv.SetTargets(ctx, nil, Auth{}) }()
	i.closed()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "iqn.2024-01.com.example:host") {
		t.Errorf("with a session that does not end, and a context that does: %v", err)
	}
	close(may)
}
