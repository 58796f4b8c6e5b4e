package iscsi

import (
	"net"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// listen gives the rig another listener, and returns it.
func (r *rig) listen() net.Listener {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.srv.Serve(l) }()
	r.t.Cleanup(func() { // before the server is shut down
		l.Close()
		<-served
	})
	return l
}

// at dials another address of the server.
func (r *rig) at(l net.Listener, isid byte) *initiator {
	r.t.Helper()
	there := *r
	there.addr = l.Addr().String()
	i := there.dial()
	i.isid[5] = isid
	return i
}

// TestListeners: a target is found through its listeners alone, and a session that came
// through another one has to end.
func TestListeners(t *testing.T) {
	r := newRig(t, Limits{})
	second := r.listen()
	everywhere := r.login()
	here := r.at(second, 1)
	here.login()

	only := r.target()
	only.Listeners = []net.Listener{second}
	if err := r.srv.SetTargets(t.Context(), []Target{only}, Auth{}); err != nil {
		t.Fatal(err)
	}
	everywhere.closed()
	here.echo()
	if got := r.dial().tryLogin(); got.loginStatus() != loginNotFound {
		t.Errorf("by way of another listener: % x", got.header)
	}
	d := r.dial()
	d.send(d.loginHeader(stageOperational, stageFullFeature, true), keys(hostName, "SessionType=Discovery"))
	d.recv(opLoginResp)
	if got, want := d.text(keys("SendTargets=All")), appendTarget(nil, &only, localAddress(d.conn)); string(got) != string(want) {
		t.Errorf("discovery by way of another listener: %q", got)
	}
	r.at(second, 2).login()
}

// face shows a disk, whose name is the same whatever face it has.
type face struct{ *disk }

type faceNexus struct{ *diskNexus }

func (f *face) NewNexus(from sam.InitiatorPort, group uint16) sam.Nexus {
	return faceNexus{f.disk.NewNexus(from, group).(*diskNexus)}
}

func (n faceNexus) Unit(lun [8]byte) any {
	if !n.HasLUN(lun) {
		return nil
	}
	return n.d
}

func (n faceNexus) Units() []any { return []any{n.d} }

// TestResetsReachOtherTargets: what ends commands of all initiators ends those that reach
// the logical unit by way of another target, and no others. A cold reset ends the
// sessions of its own target alone.
func TestResetsReachOtherTargets(t *testing.T) {
	for _, c := range []struct {
		f      sam.TaskFunction
		logout bool
	}{{sam.AbortTaskSet, false}, {sam.ClearTaskSet, false}, {sam.LogicalUnitReset, false}, {sam.TargetWarmReset, false}, {sam.TargetColdReset, true}} {
		r := newRig(t, Limits{})
		far := newDisk(8)
		first, second, other := r.target(), r.target(), r.target()
		first.Device, second.Device, other.Device = &face{r.disk}, &face{r.disk}, &face{far}
		second.Name, other.Name = testIQN+"-second", testIQN+"-other"
		if err := r.srv.SetTargets(t.Context(), []Target{first, second, other}, Auth{}); err != nil {
			t.Fatal(err)
		}
		login := func(name string) *initiator {
			i := r.dial()
			i.send(i.loginHeader(stageOperational, stageFullFeature, true), keys(hostName, "TargetName="+name))
			if got := i.recv(opLoginResp); got.loginStatus() != loginSuccess {
				t.Fatalf("%s: % x", name, got.header)
			}
			return i
		}
		a, b, x := login(first.Name), login(second.Name), login(other.Name)
		for _, i := range []*initiator{b, x} {
			i.send(i.scsi(bitFinal, 0, opHang, 0, 0), nil)
		}
		<-r.disk.hung
		<-far.hung
		a.manage(c.f, header{}, tmfComplete)
		ended := 1
		if c.f == sam.AbortTaskSet {
			ended = 0
		}
		if len(r.disk.freed) != ended || len(far.freed) != 0 {
			t.Errorf("function %d: %d commands of the second target ended, want %d; %d of another disk", c.f, len(r.disk.freed), ended, len(far.freed))
		}
		b.echo()
		x.echo()
		if c.logout {
			a.closed()
		}
	}
}
