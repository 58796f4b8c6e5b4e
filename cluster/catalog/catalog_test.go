package catalog

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/target/reservation"
)

// refusal is a command that is refused.
type refusal struct {
	body Body
	code Code
	want string
}

func (r *replica) refuseAll(all []refusal) {
	r.t.Helper()
	for _, c := range all {
		r.refused(c.body, c.code, c.want)
	}
}

func TestInit(t *testing.T) {
	r := fresh(t)
	first := InitCluster{Cluster{id(1), "prod"}, newNode("a", "berlin", 1)}
	with := func(change func(*InitCluster)) *InitCluster { b := first; change(&b); return &b }
	r.refuseAll([]refusal{
		{&PutGroup{Name: "db"}, Conflict, "no cluster yet"},
		{with(func(b *InitCluster) { b.Cluster.ID = UUID{} }), Invalid, "cluster.id"},
		{with(func(b *InitCluster) { b.Cluster.Name = "" }), Invalid, "cluster.name: a name has 1 to 63"},
		{with(func(b *InitCluster) { b.Node.Witness = true }), Invalid, "node.witness"},
		{with(func(b *InitCluster) { b.Node.Name = "A" }), Invalid, "small letters"},
		{with(func(b *InitCluster) { b.Node.Name = "a-" }), Invalid, "hyphen"},
		{with(func(b *InitCluster) { b.Node.Name = "" }), Invalid, "1 to 63"},
		{with(func(b *InitCluster) { b.Node.Site = "b b" }), Invalid, "site"},
		{with(func(b *InitCluster) { b.Node.Addresses = nil }), Invalid, "1 to 8 addresses"},
		{with(func(b *InitCluster) { b.Node.Addresses = []string{":7480"} }), Invalid, "host:port"},
		{with(func(b *InitCluster) { b.Node.Addresses = []string{"x:0"} }), Invalid, "port must be"},
		{with(func(b *InitCluster) { b.Node.Addresses = []string{"x y:1"} }), Invalid, "no host name has"},
		{with(func(b *InitCluster) { b.Node.Key = Hash{} }), Invalid, "fingerprint"},
		{with(func(b *InitCluster) { b.Node.Version = 0 }), Unsupported, "upgrade it"},
	})
	r.must(&first)
	n, found := r.s.Node("a")
	if r.s.Cluster() != first.Cluster || !found || n.Site != "berlin" || r.s.Settings() != DefaultSettings || r.s.Version() != 1 {
		t.Errorf("cluster %+v, node %+v, settings %+v", r.s.Cluster(), n, r.s.Settings())
	}
	r.refused(&first, Conflict, "exists already")
	r.must(&RenameCluster{"test"})
	if r.s.Cluster().Name != "test" {
		t.Errorf("name %q", r.s.Cluster().Name)
	}
	r.refused(&RenameCluster{"a/b"}, Invalid, "name")
}

func TestAdmit(t *testing.T) {
	r := cluster(t)
	hour := Stamp(time.Hour / time.Millisecond)
	r.must(&AddToken{sha(50), r.now + hour}, &AddToken{sha(51), r.now + 2500})
	d := newNode("d", "rome", 5)
	r.refuseAll([]refusal{
		{&AdmitNode{sha(99), d}, NoToken, "does not know this join token"},
		{&AdmitNode{sha(11), d}, TokenUsed, "used already"},
		{&AdmitNode{sha(51), d}, TokenOld, "expired"},
		{&AdmitNode{sha(50), newNode("a", "rome", 5)}, NameTaken, "of the name a"},
		{&AdmitNode{sha(50), newNode("d", "rome", 1)}, NameTaken, "the key is that of node a"},
		{&AddToken{sha(50), r.now + hour}, Conflict, "known already"},
		{&AddToken{sha(52), r.now}, Invalid, "past"},
		{&AddToken{Hash{}, r.now + hour}, Invalid, "zeros"},
	})
	r.must(&AdmitNode{sha(50), d})
	before := r.s
	if res := r.do(&AdmitNode{sha(50), d}); res.Error != nil || len(res.Changes) > 0 {
		t.Errorf("the same node asks again: %+v", res)
	}
	r.sameBut(before, "asking again")
	r.refused(&AdmitNode{sha(50), newNode("e", "rome", 5)}, TokenUsed, "")
	if tok, _ := r.s.Token(sha(50)); tok.UsedBy != "d" || tok.UsedKey != sha(5) {
		t.Errorf("token %+v", tok)
	}
	r.must(&RemoveNode{"d"})
	r.refused(&AdmitNode{sha(50), d}, TokenUsed, "")
	r.must(&RemoveToken{sha(50)})
	r.refused(&RemoveToken{sha(50)}, NotFound, "no join token")
	r.now += 8 * 24 * hour
	r.must(&AddToken{sha(53), r.now + hour})
	if n := count(r.s.Tokens()); n != 1 {
		t.Errorf("%d tokens, those that expired long ago should be forgotten", n)
	}
}

func TestRemovedNodesStayRefused(t *testing.T) {
	r := cluster(t)
	r.must(&RemoveNode{"c"})
	if rn, found := r.s.RemovedNode("c"); !found || rn.Key != sha(3) || !r.s.KeyRefused(sha(3)) || r.s.KeyRefused(sha(1)) || r.s.KeyRefused(sha(9)) {
		t.Errorf("removed node %+v, %t", rn, found)
	}
	if _, found := r.s.Node("c"); found {
		t.Error("the node is still there")
	}
	r.must(&AddToken{sha(50), r.now + 100000})
	r.refuseAll([]refusal{
		{&AdmitNode{sha(50), newNode("c", "paris", 9)}, NameTaken, "has, or had"},
		{&AdmitNode{sha(50), newNode("d", "paris", 3)}, NameTaken, "the key is that of node c"},
		{&RemoveNode{"c"}, NotFound, "no node c"},
	})
}

func TestNodes(t *testing.T) {
	r := whole(t)
	r.refuseAll([]refusal{
		{&RemoveNode{"a"}, Conflict, "has 2 replicas"},
		{&ChangeNode{Name: "x"}, NotFound, "no node x"},
		{&ChangeNode{Name: "a", Site: ptr("rome")}, Conflict, "host web7 prefers site berlin"},
		{&ChangeNode{Name: "b", Site: ptr("rome")}, Conflict, "has replicas"},
		{&ChangeNode{Name: "a", Version: ptr(0)}, Conflict, "uses commands of version 1"},
		{&ChangeNode{Name: "a", Addresses: make([]string, 9)}, Invalid, "1 to 8"},
		{&ChangeNode{Expect: Expect{ptr(uint64(99))}, Name: "a"}, Changed, "changed meanwhile"},
	})
	r.must(&ChangeNode{Name: "c", Addresses: []string{"[2001:db8::3]:7480"}, Site: ptr("rome"), Voter: ptr(false)})
	if n, _ := r.s.Node("c"); n.Site != "rome" || n.Addresses[0] != "[2001:db8::3]:7480" || n.Voter || n.Revision != r.index {
		t.Errorf("node %+v", n)
	}
}

func TestLastVoter(t *testing.T) {
	r := fresh(t)
	r.must(&InitCluster{Cluster{id(1), "prod"}, newNode("a", "berlin", 1)})
	r.refused(&RemoveNode{"a"}, Conflict, "only one that has a vote")
	r.refused(&ChangeNode{Name: "a", Voter: ptr(false)}, Conflict, "only one that has a vote")
	r.admit(newNode("b", "paris", 2), 50)
	r.must(&RemoveNode{"a"})
}

func TestLUNs(t *testing.T) {
	r := cluster(t)
	good := lun(20, "disk", "b a")
	r.must(good)
	l, found := r.s.LUNNamed("disk")
	if !found || l.ID != id(20) || l.Term != 1 || fmt.Sprint(l.Serving) != "[a b]" || l.Replicas[0].Node != "a" || l.Preferred != "b" ||
		l.Decided != r.index || !reflect.DeepEqual(l.Chain, []Epoch{{1, id(1020)}}) {
		t.Errorf("LUN %+v", l)
	}
	with := func(nodes string, change func(*AddLUN)) *AddLUN { b := lun(21, "two", nodes); change(b); return b }
	r.refuseAll([]refusal{
		{with("a b", func(b *AddLUN) { b.ID = UUID{} }), Invalid, "id: is all zeros"},
		{with("a b", func(b *AddLUN) { b.ID = id(20) }), Conflict, "there is a LUN 00000014"},
		{with("a b", func(b *AddLUN) { b.Name = "disk" }), Conflict, "there is a LUN disk"},
		{with("a b", func(b *AddLUN) { b.Name = ".x" }), Invalid, "name"},
		{with("a b", func(b *AddLUN) { b.Size = 1000 }), Invalid, "multiple of 4096"},
		{with("a b", func(b *AddLUN) { b.ExtentSize = 5000 }), Invalid, "power of two"},
		{with("a b", func(b *AddLUN) { b.BlockSize = 1024 }), Invalid, "512 or 4096"},
		{with("a b", func(b *AddLUN) { b.NAA = good.NAA }), Conflict, "take them for one"},
		{with("a b", func(b *AddLUN) { b.NAA = NAA{0x20} }), Invalid, "begins with 6"},
		{with("a b", func(b *AddLUN) { b.NAA = NAA{0x30, 15: 1} }), Invalid, "eight zero bytes"},
		{with("a b", func(b *AddLUN) { b.Preferred = "c" }), Invalid, "preferred"},
		{with("a b", func(b *AddLUN) { b.Loss = Rollback }), Unsupported, "rollback is not possible yet"},
		{with("a b", func(b *AddLUN) { b.Loss = "pray" }), Invalid, "none of hold, serve-stale"},
		{with("a b", func(b *AddLUN) { b.Epoch = UUID{} }), Invalid, "epoch"},
		{with("a b", func(b *AddLUN) { b.Replicas = nil }), Invalid, "one or two, not 0"},
		{with("a b c", func(b *AddLUN) {}), Invalid, "one or two, not 3"},
		{with("b c", func(b *AddLUN) {}), Conflict, "both replicas would be at site paris"},
		{with("a a", func(b *AddLUN) {}), Conflict, "both replicas would be at site berlin"},
		{with("a w", func(b *AddLUN) {}), Conflict, "witness"},
		{with("a x", func(b *AddLUN) {}), NotFound, "no node x"},
		{with("a b", func(b *AddLUN) { b.Replicas[1].Path = "/srv/disk.img" }), Conflict, "is that of LUN 00000014"},
		{with("a b", func(b *AddLUN) { b.Replicas[1].Path = "srv" }), Invalid, "absolute"},
		{with("a b", func(b *AddLUN) { b.Replicas[1].Path = "/srv/" }), Invalid, "absolute"},
		{with("a b", func(b *AddLUN) { b.Replicas[1].Path = "/srv/\x01" }), Invalid, "no text"},
		{with("a b", func(b *AddLUN) { b.Replicas[1].Kind = "tape" }), Invalid, "neither file nor block"},
	})
}

func TestChangeLUN(t *testing.T) {
	r := cluster(t)
	r.must(lun(20, "disk", "a b"), lun(21, "two", "a b"))
	r.refuseAll([]refusal{
		{&ChangeLUN{ID: id(9)}, NotFound, "no LUN"},
		{&ChangeLUN{ID: id(20), Size: ptr[int64](4096)}, Conflict, "cannot shrink"},
		{&ChangeLUN{ID: id(20), Name: ptr("two")}, Conflict, "there is a LUN two"},
		{&ChangeLUN{ID: id(20), Loss: ptr(Rollback)}, Unsupported, "rollback"},
		{&ChangeLUN{ID: id(20), Preferred: ptr[NodeID]("c")}, Invalid, "preferred"},
		{&ChangeLUN{Expect: Expect{ptr(uint64(0))}, ID: id(20)}, Conflict, "already"},
	})
	old, _ := r.s.LUN(id(20))
	r.must(&ChangeLUN{Expect: Expect{&old.Revision}, ID: id(20), Name: ptr("big"), Size: ptr[int64](2 << 30), Preferred: ptr[NodeID]("b"), Loss: ptr(ServeStale), ReadOnly: ptr(true), Removable: ptr(true)})
	l, _ := r.s.LUNNamed("big")
	want := old
	want.Name, want.Size, want.Preferred, want.Loss, want.ReadOnly, want.Removable, want.Revision = "big", 2<<30, "b", ServeStale, true, true, r.index
	if !reflect.DeepEqual(l, want) {
		t.Errorf("LUN %+v\nwant %+v", l, want)
	}
	if _, found := r.s.LUNNamed("disk"); found {
		t.Error("the old name is still found")
	}
	next := lun(22, "disk", "a c")
	r.refused(next, Conflict, "/srv/disk.img at node a is that of LUN") // the old name is free, the file is not
	next.Replicas[0].Path = "/srv/disk2.img"
	r.must(next)
}

func TestReplicas(t *testing.T) {
	r := cluster(t)
	r.must(lun(20, "disk", "a b"), lun(21, "single", "a"))
	at := func(node NodeID) Replica { return Replica{Node: node, Kind: Block, Path: "/dev/vg0/single"} }
	r.refuseAll([]refusal{
		{&AddReplica{id(20), at("c")}, Conflict, "has two replicas"},
		{&AddReplica{id(9), at("c")}, NotFound, "no LUN"},
		{&AddReplica{id(21), at("a")}, Conflict, "site berlin"},
		{&AddReplica{id(21), at("w")}, Conflict, "witness"},
		{&AddReplica{id(21), Replica{Node: "b", Kind: File, Path: "/srv/disk.img"}}, Conflict, "is that of LUN"},
		{&RemoveReplica{id(20), "a"}, Conflict, "node a serves LUN disk"},
		{&RemoveReplica{id(20), "c"}, NotFound, "no replica of LUN disk at node c"},
		{&RemoveReplica{id(21), "a"}, Conflict, "only replica"},
	})
	r.refuseAll([]refusal{
		{&DrainReplica{id(20), "c", true}, NotFound, "no replica of LUN disk at node c"},
		{&DrainReplica{id(9), "a", true}, NotFound, "no LUN"},
		{&DrainReplica{id(21), "a", true}, Conflict, "only replica"},
	})
	r.must(&DrainReplica{id(20), "a", true}, &DrainReplica{id(20), "a", true})
	r.refused(&DrainReplica{id(20), "b", true}, Conflict, "at node a, is drained")
	r.must(serving(t, "a leaves 1", 20))
	r.refused(serving(t, "b joins 2", 20), StaleTerm, "drained")
	r.must(&DrainReplica{id(20), "a", false}, serving(t, "b joins 2", 20), serving(t, "b takes 3", 20), &RemoveReplica{id(20), "a"})
	l, _ := r.s.LUN(id(20))
	if len(l.Replicas) != 1 || l.Preferred != "b" || showServing(r.s, 20) != "b @4" {
		t.Errorf("LUN %+v", l)
	}
	r.refused(serving(t, "b joins 4", 20), StaleTerm, "no other replica")
	r.must(&AddReplica{id(20), at("a")}, serving(t, "b joins 4", 20), &AddReplica{id(21), at("c")})
	again := at("a")
	again.Since = r.s.Index() - 2 // a new one, whatever is left of the old one at its node
	if l, _ = r.s.LUN(id(20)); l.Replicas[0] != again || again.Since <= l.Replicas[1].Since || showServing(r.s, 20) != "a b @5" {
		t.Errorf("LUN %+v", l)
	}
	if showServing(r.s, 21) != "a @1" {
		t.Errorf("a replica that was never joined serves: %s", showServing(r.s, 21))
	}
}

func TestRemoveLUN(t *testing.T) {
	r := whole(t)
	r.refused(&RemoveLUN{id(20)}, Conflict, "is mapped 1 times; unmap it first")
	r.must(&Unmap{iqn, Subject{Host: "web7"}, 0}, &RemoveLUN{id(20)})
	r.refused(&RemoveLUN{id(20)}, NotFound, "no LUN")
	if r.s.Reservations(id(20)).Registered() {
		t.Error("its reservations are still there")
	}
	r.must(lun(20, "disk", "a c")) // everything of it is free
}

func TestTargets(t *testing.T) {
	r := whole(t)
	put := func(portals ...Portal) *PutTarget { return &PutTarget{Name: iqn + "2", Portals: portals} }
	r.refuseAll([]refusal{
		{&PutTarget{Name: "disks"}, Invalid, "no iSCSI name"},
		{&PutTarget{Name: "iqn." + strings.Repeat("x", 220)}, Invalid, "no iSCSI name"},
		{&PutTarget{Name: iqn, Alias: strings.Repeat("x", 256)}, Invalid, "alias"},
		{put(Portal{"x", "h:1"}), Conflict, "none of those"},
		{put(Portal{"w", "h:1"}), Conflict, "none of those"},
		{put(Portal{"a", "h"}), Invalid, "host:port"},
		{put(Portal{"a", "h:1"}, Portal{"a", "h:1"}), Invalid, "twice"},
		{&RemoveTarget{iqn}, Conflict, "has 2 mappings"},
		{&RemoveTarget{iqn + "2"}, NotFound, "no target"},
	})
	r.must(put(Portal{"c", "h:1"}))
	r.refused(&RemoveNode{"c"}, Conflict, "has portals at node c")
	r.must(&RemoveTarget{iqn + "2"}, &RemoveNode{"c"})
}

// TestNumbers are those that the catalog gives: they stay, and a free one is used again.
func TestNumbers(t *testing.T) {
	r := whole(t)
	second := &PutTarget{Name: iqn + "2"}
	r.must(second, &PutTarget{Name: iqn + "3"}, &RemoveTarget{iqn + "2"}, &PutTarget{Name: iqn + "3", Alias: "still"}, second)
	for name, want := range map[string]uint8{iqn: 0, iqn + "2": 1, iqn + "3": 2} {
		if got, _ := r.s.Target(name); got.Number != want {
			t.Errorf("target %s has the number %d, not %d", name, got.Number, want)
		}
	}
	r.must(lun(30, "third", "a c"), &RemoveLUN{id(30)}, lun(31, "fourth", "a c"), lun(32, "fifth", "a b"))
	for name, want := range map[string]uint16{"disk": 0, "other": 1, "fourth": 2, "fifth": 3} {
		if got, _ := r.s.LUNNamed(name); got.Number != want {
			t.Errorf("LUN %s has the number %d, not %d", name, got.Number, want)
		}
	}
	for name, want := range map[NodeID]uint16{"a": 1, "b": 2, "w": 0} {
		if got, _ := r.s.Node(name); got.Group != want {
			t.Errorf("node %s has the group %d, not %d", name, got.Group, want)
		}
	}
}

func TestHosts(t *testing.T) {
	r := whole(t)
	put := func(names ...string) *PutHost { return &PutHost{Name: "new", Initiators: names} }
	with := func(change func(*PutHost)) *PutHost { b := put("iqn.x:new"); change(b); return b }
	r.refuseAll([]refusal{
		{put(), Invalid, "a host has 1 to 16, not 0"},
		{put("new"), Invalid, "no iSCSI name"},
		{put("iqn.a*b*"), Invalid, "asterisk"},
		{put("iqn.x", "iqn.y", "iqn.x"), Invalid, "iqn.x stands there twice"},
		{put("iqn.1993-08.org.debian:01:web7"), Conflict, "is that of host web7"},
		{put("iqn.1993-08.org.debian:db1:*"), Conflict, "is that of host db1"},
		{with(func(b *PutHost) { b.Name = "" }), Invalid, "name"},
		{with(func(b *PutHost) { b.Site = "rome" }), Conflict, "no node is at site"},
		{with(func(b *PutHost) { b.Group = "x" }), NotFound, "no group x"},
		{with(func(b *PutHost) { b.CHAP = CHAP{Target: chap("x").Target} }), Invalid, "only to initiators that do so"},
		{with(func(b *PutHost) { b.CHAP = CHAP{Initiator: &Credential{"x", nil}} }), Invalid, "sealed secret"},
		{with(func(b *PutHost) { b.CHAP = CHAP{Initiator: &Credential{"x", make([]byte, 1025)}} }), Invalid, "sealed secret"},
		{with(func(b *PutHost) { b.CHAP = CHAP{Initiator: &Credential{"", []byte{1}}} }), Invalid, "a name"},
		{&RemoveHost{"new"}, NotFound, "no host new"},
		{&RemoveGroup{"db"}, Conflict, "has 1 hosts"},
		{&SetDiscovery{CHAP{Target: chap("x").Target}}, Invalid, "only to initiators"},
	})
	r.must(put("iqn.1993-08.org.debian:01:*", "*"), &SetDiscovery{chap("look")})
	for initiator, want := range map[string]string{
		"iqn.1993-08.org.debian:01:web7": "web7", "iqn.1993-08.org.debian:01:web8": "new",
		"iqn.1993-08.org.debian:db1:x": "db1", "iqn.else": "new",
	} {
		if h, found := r.s.HostOf(initiator); !found || h.Name != want {
			t.Errorf("%s belongs to %q, want %s", initiator, h.Name, want)
		}
	}
	if r.s.Discovery().Initiator.User != "look" {
		t.Errorf("discovery %+v", r.s.Discovery())
	}
	r.must(put("iqn.other"))
	if h, found := r.s.HostOf("iqn.else"); found {
		t.Errorf("an initiator that was taken from the host belongs to %s", h.Name)
	}
	r.must(&RemoveHost{"web7"}, &RemoveHost{"db1"}, &RemoveGroup{"db"})
	if n := count(r.s.Mappings()); n != 0 {
		t.Errorf("%d mappings are left", n)
	}
	r.must(put("iqn.1993-08.org.debian:01:web7"))
}

func TestMappings(t *testing.T) {
	r := whole(t)
	m := func(who Subject, number uint16, lun int) *Map { return &Map{Mapping{iqn, who, number, id(lun)}} }
	web7, db1, db := Subject{Host: "web7"}, Subject{Host: "db1"}, Subject{Group: "db"}
	r.must(lun(22, "third", "a b"))
	r.refuseAll([]refusal{
		{m(Subject{}, 1, 20), Invalid, "either a host or a group"},
		{m(Subject{"web7", "db"}, 1, 20), Invalid, "either a host or a group"},
		{m(web7, 16384, 22), Invalid, "more than 16383"},
		{m(Subject{Host: "x"}, 1, 20), NotFound, "no host x"},
		{m(Subject{Group: "x"}, 1, 20), NotFound, "no group x"},
		{m(web7, 1, 9), NotFound, "no LUN"},
		{&Map{Mapping{"iqn.x", web7, 1, id(20)}}, NotFound, "no target iqn.x"},
		{m(web7, 0, 22), Conflict, "LUN 0 of host web7"},
		{m(web7, 1, 20), Conflict, "host web7 has LUN 00000014-0000-0000-0000-000000000001 at target " + iqn + " already"},
		{m(db1, 5, 22), Conflict, "LUN 5 of group db"},
		{m(db1, 6, 21), Conflict, "group db has LUN"},
		{&Unmap{iqn, web7, 7}, NotFound, "no such mapping"},
		{&Unmap{iqn, Subject{}, 0}, NotFound, "no such mapping"},
	})
	r.must(m(db1, 6, 22))
	r.refused(m(db, 6, 20), Conflict, "LUN 6 of host db1")
	r.refused(m(db, 7, 22), Conflict, "host db1 has LUN")
	// web7 sees LUN 20 as 0, so it does not fit into a group that does.
	r.must(m(db, 0, 20))
	web := &PutHost{Name: "web7", Initiators: []string{"iqn.1993-08.org.debian:01:web7"}, Group: "db"}
	r.refused(web, Conflict, "LUN 0 of group db")
	r.must(&Unmap{iqn, web7, 0}, web)
	h, _ := r.s.Host("db1")
	var view []string
	for m := range r.s.View(iqn, &h) {
		view = append(view, fmt.Sprintf("%d=%d", m.Number, m.LUN[3]))
	}
	if got := strings.Join(view, " "); got != "6=22 0=20 5=21" {
		t.Errorf("db1 sees %s", got)
	}
}

func TestReservations(t *testing.T) {
	r := whole(t)
	from := func(name string) Nexus { return Nexus{"iqn." + name + ",i,0x1", 1} }
	out := func(who string, a reservation.Action, key, newKey reservation.Key) *ReserveOut {
		return &ReserveOut{LUN: id(21), Action: a, From: from(who), Key: key, NewKey: newKey, Type: reservation.WriteExclusive}
	}
	move := out("x", reservation.RegisterAndMove, 1, 2)
	unknown := out("x", reservation.Register, 0, 1)
	unknown.LUN = id(9)
	r.refuseAll([]refusal{
		{unknown, NotFound, "no LUN"},
		{out("x", 8, 0, 1), Invalid, "no service action 8"},
		{move, Invalid, "REGISTER AND MOVE"},
		{&ReserveOut{LUN: id(21), From: Nexus{"", 1}}, Invalid, "initiator port"},
		{&ReserveOut{LUN: id(21), From: Nexus{"x", 0}}, Invalid, "target port"},
		{&ReserveOut{LUN: id(21), From: Nexus{strings.Repeat("x", 241), 1}}, Invalid, "241 bytes"},
		{&ReserveOut{LUN: id(21), From: from("x"), Others: []string{""}}, Invalid, "initiator port"},
		{&ReserveOut{LUN: id(21), From: from("x"), Ports: make([]uint16, 65)}, Invalid, "at most 64 ports"},
	})
	r.must(out("x", reservation.Register, 0, 1), out("y", reservation.Register, 0, 2), out("x", reservation.Reserve, 1, 0))
	if res := r.do(out("y", reservation.Reserve, 2, 0)); res.Error != nil || res.Reservation != reservation.Conflict || len(res.Changes) > 0 {
		t.Errorf("RESERVE by another: %+v", res)
	}
	preempt := r.command(out("y", reservation.PreemptAndAbort, 2, 1))
	res := r.run(preempt)
	want := ReservationChanged{id(21), reservation.PreemptAndAbort, reservation.Nexus(from("y")),
		[]reservation.Event{{Nexus: reservation.Nexus(from("x")), Notice: reservation.RegistrationsPreempted, Abort: true}}}
	if res.Reservation != reservation.Done || len(res.Changes) != 1 || !reflect.DeepEqual(res.Changes[0], want) {
		t.Errorf("PREEMPT AND ABORT: %+v", res)
	}
	if again := r.run(preempt); !again.Repeated || again.Reservation != reservation.Done || len(again.Changes) > 0 {
		t.Errorf("the same again: %+v", again)
	}
	if s := r.s.Reservations(id(21)); !s.Holds(reservation.Nexus(from("y"))) || s.Generation != 3 {
		t.Errorf("state %+v", s)
	}
	move = out("y", reservation.RegisterAndMove, 2, 5)
	move.To = ptr(from("z"))
	r.must(move)
	if s := r.s.Reservations(id(21)); !s.Holds(reservation.Nexus(from("z"))) {
		t.Errorf("state %+v", s)
	}
}

func TestUsers(t *testing.T) {
	r := whole(t)
	token := func(change func(*AddAPIToken)) *AddAPIToken {
		b := &AddAPIToken{ID: id(31), Name: "ci", User: "bob", Hash: sha(31), Role: Operator}
		change(b)
		return b
	}
	r.must(&PutUser{Name: "bob", Role: Operator})
	r.refuseAll([]refusal{
		{&PutUser{Name: "eve", Role: Viewer}, Conflict, "only administrator"},
		{&PutUser{Name: "eve", Role: Admin, Disabled: true}, Conflict, "only administrator"},
		{&RemoveUser{"eve"}, Conflict, "only administrator"},
		{&RemoveUser{"x"}, NotFound, "no user x"},
		{&PutUser{Name: "x", Role: "king"}, Invalid, "none of admin, operator, viewer"},
		{&PutUser{Name: "x y", Role: Viewer}, Invalid, "name"},
		{&PutUser{Name: "x", Role: Viewer, Password: strings.Repeat("x", 513)}, Invalid, "password"},
		{&PutUser{Expect: Expect{ptr(uint64(3))}, Name: "x", Role: Viewer}, NotFound, "no user x"},
		{token(func(b *AddAPIToken) { b.User = "x" }), NotFound, "no user x"},
		{token(func(b *AddAPIToken) { b.Role = Admin }), Conflict, "his token cannot be admin"},
		{token(func(b *AddAPIToken) { b.Role = "" }), Invalid, "role"},
		{token(func(b *AddAPIToken) { b.Hash = sha(30) }), Conflict, "known already"},
		{token(func(b *AddAPIToken) { b.Hash = Hash{} }), Invalid, "hash"},
		{token(func(b *AddAPIToken) { b.ID = id(30) }), Conflict, "known already"},
		{token(func(b *AddAPIToken) { b.Expires = start }), Invalid, "past"},
		{&RemoveAPIToken{id(31)}, NotFound, "no API token"},
	})
	r.must(token(func(b *AddAPIToken) { b.Expires = r.now + 1000000 }))
	tok, found := r.s.APITokenOf(sha(31))
	role, ok := r.s.RoleOf(tok, r.now)
	if !found || tok.Made != r.now || role != Operator || !ok {
		t.Errorf("token %+v, %s, %t", tok, role, ok)
	}
	if _, ok := r.s.RoleOf(tok, tok.Expires); ok {
		t.Error("a token is good after it has expired")
	}
	r.must(&PutUser{Name: "bob", Role: Viewer})
	if role, _ := r.s.RoleOf(tok, r.now); role != Viewer {
		t.Errorf("a token of a viewer is %s", role)
	}
	r.must(&PutUser{Name: "bob", Role: Admin, Disabled: true})
	if _, ok := r.s.RoleOf(tok, r.now); ok {
		t.Error("a token of a disabled user is good")
	}
	r.must(&PutUser{Name: "bob", Role: Admin}, &PutUser{Name: "eve", Role: Viewer}, &PutUser{Name: "ann", Role: Admin}, &RemoveUser{"bob"})
	if _, found := r.s.APITokenOf(sha(31)); found || count(r.s.APITokens()) != 1 {
		t.Error("a user's tokens are left without him")
	}
	r.must(&RemoveAPIToken{id(30)})
}

func TestSettings(t *testing.T) {
	r := cluster(t)
	d := func(text string) *Duration {
		v := new(Duration)
		if err := v.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return v
	}
	r.refuseAll([]refusal{
		{&ChangeSettings{Heartbeat: d("10ms")}, Invalid, "heartbeat: 10ms is less than 50ms"},
		{&ChangeSettings{Heartbeat: d("700ms")}, Invalid, "lease: 2s is less than 3 heartbeats of 700ms"},
		{&ChangeSettings{Lease: d("1s")}, Invalid, "lease: 1s is less than 3 heartbeats"},
		{&ChangeSettings{PreferredDelay: d("400ms")}, Invalid, "preferred_delay: 400ms is less than a heartbeat"},
		{&ChangeSettings{PreferredDelay: d("18s")}, Invalid, "hosts would wait for 20.54s"},
		{&ChangeSettings{Lease: d("2000000h")}, Invalid, "at most 20s each"},
		{&ChangeSettings{Lease: d("-1s")}, Invalid, "lease"},
		{&ChangeSettings{ColdAfter: d("0s")}, Invalid, "cold_after"},
		{&ChangeSettings{HoldWait: d("-1s")}, Invalid, "hold_wait"},
		{&ChangeSettings{HoldWait: d("25s")}, Invalid, "hold_wait: 25s after the 3.54s until a site serves alone"},
		{&ChangeSettings{CopyRate: ptr[int64](1000)}, Invalid, "copy_rate"},
		{&ChangeSettings{CopyRate: ptr[int64](-1)}, Invalid, "copy_rate"},
	})
	r.must(&ChangeSettings{Heartbeat: d("1s"), Lease: d("5s"), Compress: ptr(false), CopyRate: ptr[int64](1 << 20)})
	want := DefaultSettings
	want.Heartbeat, want.Lease, want.Compress, want.CopyRate = *d("1s"), *d("5s"), false, 1<<20
	if r.s.Settings() != want || r.s.LongestLease() != want.Lease {
		t.Errorf("settings %+v, longest lease %v", r.s.Settings(), r.s.LongestLease())
	}
	r.must(&ChangeSettings{Lease: d("3s")})
	if r.s.Settings().Lease != *d("3s") || r.s.LongestLease() != *d("5s") {
		t.Errorf("a shorter lease: %v, longest %v", r.s.Settings().Lease, r.s.LongestLease())
	}
}

func TestEvents(t *testing.T) {
	r := cluster(t)
	r.refuseAll([]refusal{
		{&LogEvent{"loud", "x", "y"}, Invalid, "level"},
		{&LogEvent{Info, "", "y"}, Invalid, "missing"},
		{&LogEvent{Info, "x", strings.Repeat("y", 513)}, Invalid, "text"},
		{&LogEvent{Info, "x\n", "y"}, Invalid, "subject"},
	})
	res := r.do(&LogEvent{Alert, "LUN disk", "5 extents are held"})
	want := Event{r.s.core.Events, r.index, r.now, Alert, "LUN disk", "5 extents are held", "user eve"}
	if len(res.Changes) != 1 || res.Changes[0] != (EventLogged{want}) {
		t.Errorf("changes %+v, want %+v", res.Changes, want)
	}
	var after []Event
	for e := range r.s.Events(want.Number - 1) {
		after = append(after, e)
	}
	if len(after) != 1 || after[0] != want || count(r.s.Events(want.Number)) != 0 {
		t.Errorf("events %+v", after)
	}
	before := r.s.core.Events
	s, index := r.s, r.index
	for i := range MaxEvents {
		raw, _ := r.command(&LogEvent{Info, "x", fmt.Sprint(i)}).Encode()
		index++
		s, _, _ = s.Apply(index, raw)
	}
	if n := count(s.Events(0)); n != MaxEvents || s.core.Events != before+MaxEvents {
		t.Errorf("%d events are kept of %d", n, s.core.Events)
	}
	r.s = s
	r.sound()
}

// TestRepeated: a command that is proposed again has the same outcome, and changes
// nothing, for as long as it is remembered.
func TestRepeated(t *testing.T) {
	r := cluster(t)
	made, refusedOnce := r.command(&PutGroup{Name: "db"}), r.command(&RemoveGroup{"x"})
	r.run(made)
	r.run(refusedOnce)
	r.must(&RemoveGroup{"db"})
	before := r.s
	for _, c := range []Command{made, refusedOnce} {
		res := r.run(c)
		if !res.Repeated || len(res.Changes) > 0 || (res.Error == nil) != (c.ID == made.ID) {
			t.Errorf("again: %+v", res)
		}
		if err := r.s.Check(c); (err == nil) != (c.ID == made.ID) {
			t.Errorf("Check of it says %v", err)
		}
	}
	r.sameBut(before, "a repetition")
	for i := range MaxRequests {
		raw, _ := r.command(&RemoveGroup{fmt.Sprint("g", i)}).Encode()
		r.index++
		r.s, _, _ = r.s.Apply(r.index, raw)
	}
	if r.s.requests.len() != MaxRequests || r.s.answered.len() != MaxRequests {
		t.Errorf("%d requests are remembered", r.s.requests.len())
	}
	if res := r.run(made); res.Repeated || res.Error != nil {
		t.Errorf("one that was forgotten: %+v", res)
	}
	if res := r.run(Command{Time: start, Body: &PutGroup{Name: "g"}}); res.Error == nil || res.Error.Field != "id" {
		t.Errorf("without an id: %+v", res)
	}
}
