package catalog

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// TestRecover: the nodes that are given up have no vote, and hold up nothing; their replicas
// go one by one, and then they do.
func TestRecover(t *testing.T) {
	r := whole(t)
	r.refuseAll([]refusal{
		{&RecoverCluster{"x", []NodeID{"a"}}, NotFound, "no node x"},
		{&RecoverCluster{"w", []NodeID{"a"}}, Conflict, "is a witness"},
		{&RecoverCluster{"b", nil}, Invalid, "nobody is given up"},
		{&RecoverCluster{"b", []NodeID{"a", "x"}}, NotFound, "no node x"},
		{&RecoverCluster{"b", []NodeID{"a", "b"}}, Invalid, "cannot give itself up"},
		{&RecoverCluster{"b", []NodeID{"a", "a"}}, Conflict, "was given up before"},
	})
	r.must(&ChangeNode{Name: "b", Voter: ptr(false)}) // it gets the vote that it needs
	res := r.do(&RecoverCluster{"b", []NodeID{"a", "w"}})
	if res.Error != nil || !slices.Contains(res.Changes, Change(NodeChanged{Node: "a"})) || !slices.Contains(res.Changes, Change(NodeChanged{Node: "b"})) {
		t.Fatalf("recovered: %v, %v", res.Error, res.Changes)
	}
	for name, want := range map[NodeID][2]bool{"a": {true, false}, "w": {true, false}, "b": {false, true}, "c": {false, true}} {
		if n, _ := r.s.Node(name); n.GivenUp != want[0] || n.Voter != want[1] {
			t.Errorf("node %+v", n)
		}
	}
	events := slices.Collect(r.s.Events(0))
	if e := events[len(events)-1]; e.Level != Alert || !strings.Contains(e.Text, "node b") || !strings.Contains(e.Text, "a, w") || r.s.Recoveries() != 1 {
		t.Errorf("recovery %d: %+v", r.s.Recoveries(), e)
	}
	r.refuseAll([]refusal{
		{&RecoverCluster{"a", []NodeID{"b"}}, Conflict, "was given up itself"},
		{&ChangeNode{Name: "a", Voter: ptr(true)}, Conflict, "was given up"},
		{&ChangeNode{Name: "a", Version: ptr(2)}, Conflict, "was given up"},
		{lun(22, "new", "a b"), Conflict, "node a was given up"},
		{&RemoveNode{"a"}, Conflict, "has 2 replicas"},
	})
	r.must(&ChangeNode{Name: "b", Version: ptr(2)}, &ChangeNode{Name: "c", Version: ptr(2)}, &RaiseVersion{2})
	r.must(&TakeAlone{Steps{"b", id(40), []Step{{id(20), 1, 0}}}}, &RemoveReplica{id(20), "a"})
	r.refused(&AddReplica{id(20), Replica{Node: "a", Kind: File, Path: "/srv/again"}}, Conflict, "node a was given up")
	r.must(&RecoverCluster{"c", []NodeID{"b"}})
	if r.s.Recoveries() != 2 {
		t.Errorf("recovered %d times", r.s.Recoveries())
	}
	r.must(&RemoveNode{"w"})
}

// TestRecoverForm: a cluster that was never recovered has the snapshots that it had before.
func TestRecoverForm(t *testing.T) {
	r := cluster(t)
	if s := string(r.bytes()); strings.Contains(s, "given_up") || strings.Contains(s, "recoveries") {
		t.Error("a snapshot says that nobody was given up")
	}
	r.must(&RecoverCluster{"b", []NodeID{"a", "w"}})
	again, err := Read(bytes.NewReader(r.bytes()))
	if err != nil || !again.Equal(r.s) || again.Recoveries() != 1 {
		t.Errorf("read again: %v", err)
	}
	body := string(r.bytes())
	body = body[:strings.LastIndex(strings.TrimSuffix(body, "\n"), "\n")+1]
	for old, wrong := range map[string]string{`,"recoveries":1`: "", `"voter":false,"version":1,"given_up"`: `"voter":true,"version":1,"given_up"`} {
		changed := strings.Replace(body, old, wrong, 1)
		if _, err := Read(strings.NewReader(sealed(changed))); changed == body || err == nil || !strings.Contains(err.Error(), "nobody has done that") {
			t.Errorf("%q instead of %q: %v", wrong, old, err)
		}
	}
}
