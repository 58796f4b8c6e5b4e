package catalog

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

// replica is a node's copy of a catalog, and what it is told.
type replica struct {
	t     testing.TB
	s     *State
	index uint64
	now   Stamp
	ids   uint64
}

const start = Stamp(1760000000000)

func fresh(t testing.TB) *replica { return &replica{t: t, s: New(), now: start} }

// id makes UUIDs that tell in a test what they are of: 0000000c-0000-… is the 12th.
func id(n int) (u UUID) {
	binary.BigEndian.PutUint32(u[:], uint32(n))
	u[15] = 1
	return u
}

func sha(n int) (h Hash) {
	binary.BigEndian.PutUint32(h[:], uint32(n))
	h[31] = 1
	return h
}

func (r *replica) command(b Body) Command {
	r.ids++
	r.now += 1000
	var u UUID
	binary.BigEndian.PutUint64(u[8:], r.ids)
	return Command{ID: u, Time: r.now, By: "user eve", Body: b}
}

// do checks, applies and checks again: what Check says is what Apply does, and the state
// is sound afterwards.
func (r *replica) do(b Body) Result {
	r.t.Helper()
	return r.run(r.command(b))
}

func (r *replica) run(c Command) Result {
	r.t.Helper()
	raw, err := c.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	checked := r.s.Check(c)
	r.index++
	next, result, err := r.s.Apply(r.index, raw)
	if err != nil {
		r.t.Fatal(err)
	}
	if !result.Repeated && (checked == nil) != (result.Error == nil) {
		r.t.Fatalf("%s: Check says %v, Apply %v", c.Body.Kind(), checked, result.Error)
	}
	r.s = next
	r.sound()
	return result
}

func (r *replica) sound() {
	r.t.Helper()
	if err := (&change{State: *r.s}).check(); err != nil {
		r.t.Fatalf("the state is not sound: %v", err)
	}
}

// must does what has to succeed.
func (r *replica) must(all ...Body) {
	r.t.Helper()
	for _, b := range all {
		if res := r.do(b); res.Error != nil {
			r.t.Fatalf("%s %+v: %v", b.Kind(), b, res.Error)
		}
	}
}

// refused does what has to be refused, with a text that has all of want in it, and must
// have changed nothing.
func (r *replica) refused(b Body, code Code, want string) {
	r.t.Helper()
	before := r.s
	res := r.do(b)
	if res.Error == nil || res.Error.Code != code || !strings.Contains(res.Error.Error(), want) {
		r.t.Errorf("%s %+v:\n got %v\nwant %s …%s…", b.Kind(), b, res.Error, code, want)
		return
	}
	if len(res.Changes) > 0 {
		r.t.Errorf("%s was refused, and changed %+v", b.Kind(), res.Changes)
	}
	r.sameBut(before, b.Kind())
}

// sameBut compares with a state from before a command that did nothing.
func (r *replica) sameBut(before *State, what string) {
	r.t.Helper()
	a, b := *before, *r.s
	for _, s := range []*State{&a, &b} {
		s.core.Index, s.requests, s.answered = 0, table[request]{}, table[string]{}
	}
	if !a.Equal(&b) {
		r.t.Errorf("%s did nothing, and the state is another one", what)
	}
}

func (r *replica) bytes() []byte { return bytesOf(r.t, r.s) }

func bytesOf(t testing.TB, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := s.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo: %d of %d bytes, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

func newNode(name NodeID, site string, n int) NewNode {
	return NewNode{Name: name, Site: site, Addresses: []string{string(name) + ".example.org:7480"}, Key: sha(n), Voter: true, Version: 1}
}

func witness(name NodeID, n int) NewNode {
	w := newNode(name, "third", n)
	w.Witness = true
	return w
}

// admit adds a node by a token of its own.
func (r *replica) admit(n NewNode, token int) {
	r.t.Helper()
	r.must(&AddToken{sha(token), r.now + Stamp(time.Hour/time.Millisecond)}, &AdmitNode{sha(token), n})
}

// lun is one with replicas at nodes "a b".
func lun(n int, name, nodes string) *AddLUN {
	l := &AddLUN{ID: id(n), Name: name, Size: 1 << 30, BlockSize: 512, ExtentSize: 64 << 10, Loss: Hold, Epoch: id(1000 + n)}
	l.NAA = NAA{0x60, 14: byte(n >> 8), 15: byte(n)}
	for _, node := range strings.Fields(nodes) {
		l.Replicas = append(l.Replicas, Replica{Node: NodeID(node), Kind: File, Path: "/srv/" + name + ".img"})
	}
	l.Preferred = l.Replicas[0].Node
	return l
}

// cluster has the nodes a and b at two sites, c at the site of b, and the witness w.
func cluster(t testing.TB) *replica {
	r := fresh(t)
	r.must(&InitCluster{Cluster{id(1), "prod"}, newNode("a", "berlin", 1)})
	r.admit(newNode("b", "paris", 2), 11)
	r.admit(newNode("c", "paris", 3), 12)
	r.admit(witness("w", 4), 13)
	return r
}

const iqn = "iqn.2026-01.org.example:disks"

// full has one of everything.
func whole(t testing.TB) *replica {
	r := cluster(t)
	r.must(
		lun(20, "disk", "a b"), lun(21, "other", "a"),
		&PutTarget{Name: iqn, Alias: "Disks", Portals: []Portal{{"a", "192.0.2.1:3260"}, {"b", ":3260"}}},
		&PutGroup{Name: "db"},
		&PutHost{Name: "web7", Initiators: []string{"iqn.1993-08.org.debian:01:web7"}, Site: "berlin", CHAP: chap("web7")},
		&PutHost{Name: "db1", Initiators: []string{"iqn.1993-08.org.debian:01:db1", "iqn.1993-08.org.debian:db1:*"}, Group: "db"},
		&Map{Mapping{iqn, Subject{Host: "web7"}, 0, id(20)}},
		&Map{Mapping{iqn, Subject{Group: "db"}, 5, id(21)}},
		&PutUser{Name: "eve", Password: "$argon2id$…", Role: Admin},
		&AddAPIToken{ID: id(30), Name: "backup", User: "eve", Hash: sha(30), Role: Viewer},
		&ReserveOut{LUN: id(20), Action: 0, From: Nexus{"iqn.1993-08.org.debian:01:web7,i,0x1", 1}, NewKey: 7, Persist: true},
	)
	return r
}

func chap(user string) CHAP {
	return CHAP{Initiator: &Credential{user, []byte{1, 2, 3}}, Target: &Credential{"disks", []byte{4}}}
}

func ptr[V any](v V) *V { return &v }
