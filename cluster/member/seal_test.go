package member

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
)

// What one node seals another one opens, and no witness.
func TestSealAtMembers(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	b, witness := w.join("b", a.token()), w.join("w", a.token())
	sealed, err := a.Seal([]byte("abc"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.Unseal(sealed); err != nil || string(got) != "abc" {
		t.Errorf("b: %q, %v", got, err)
	}
	if got, err := witness.Unseal(sealed); !errors.Is(err, ErrNoKey) || got != nil {
		t.Errorf("the witness: %q, %v", got, err)
	}
	if _, err := witness.Seal(nil); !errors.Is(err, ErrNoKey) {
		t.Errorf("the witness seals: %v", err)
	}
	if _, _, err := witness.NewToken(w.ctx(), "test", time.Hour); err == nil {
		t.Error("the witness makes a token")
	}
}

func newCA(t testing.TB) *identity.CA {
	t.Helper()
	ca, err := identity.NewCA(identity.NewClusterID(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// Every byte counts.
func TestSeal(t *testing.T) {
	ca := newCA(t)
	for _, secret := range [][]byte{{}, []byte("x"), []byte("twelve and more of them"), bytes.Repeat([]byte{7}, MaxSecret)} {
		sealed, err := seal(ca, secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unseal(ca, sealed); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%q became %q, %v", secret, got, err)
		}
		if again, _ := seal(ca, secret); bytes.Equal(again, sealed) {
			t.Error("the same secret looks the same")
		}
		if len(secret) >= 16 && bytes.Contains(sealed, secret) {
			t.Error("it can be seen")
		}
		for i := range sealed {
			bad := slices.Clone(sealed)
			bad[i] ^= 1
			if got, err := unseal(ca, bad); err == nil {
				t.Errorf("byte %d is changed: %q", i, got)
			}
			if got, err := unseal(ca, sealed[:i]); err == nil {
				t.Errorf("cut off at %d: %q", i, got)
			}
		}
		if _, err := unseal(ca, append(slices.Clone(sealed), 0)); err == nil {
			t.Error("something follows")
		}
		if _, err := unseal(newCA(t), sealed); err == nil || !strings.Contains(err.Error(), "another CA") {
			t.Errorf("another CA: %v", err)
		}
	}
	if _, err := seal(ca, make([]byte, MaxSecret+1)); err == nil {
		t.Error("a longer secret is taken")
	}
}

func FuzzUnseal(f *testing.F) {
	ca := newCA(f)
	sealed, err := seal(ca, []byte("abc"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:sealHead])
	f.Fuzz(func(t *testing.T, b []byte) {
		if secret, err := unseal(ca, b); err == nil && !bytes.Equal(b, sealed) {
			t.Errorf("%x is opened: %q", b, secret)
		}
	})
}

// script makes a catalog.
func script(t *testing.T, bodies ...catalog.Body) *catalog.State {
	t.Helper()
	s := catalog.New()
	for i, body := range bodies {
		raw, err := catalog.Command{ID: newUUID(), Time: 1, Body: body}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		next, result, err := s.Apply(uint64(i+1), raw)
		if err != nil || result.Error != nil {
			t.Fatal(err, result.Error)
		}
		s = next
	}
	return s
}

func newNode(name catalog.NodeID, n byte, voter bool, version int) catalog.NewNode {
	return catalog.NewNode{Name: name, Site: "s", Addresses: []string{"192.0.2.1:7480"}, Key: catalog.Hash{n}, Voter: voter, Version: version}
}

// The raft group becomes what the catalog has, step by step.
func TestSteps(t *testing.T) {
	vote, none := func(n string) cluster.Member { return cluster.Member{Node: n, Voter: true} }, func(n string) cluster.Member { return cluster.Member{Node: n} }
	no := false
	hash := catalog.Hash{9}
	said := []catalog.Body{&catalog.InitCluster{Cluster: catalog.Cluster{ID: newUUID(), Name: "p"}, Node: newNode("a", 1, true, 2)},
		&catalog.AddToken{Hash: hash, Expires: 1000}, &catalog.AdmitNode{Token: hash, Node: newNode("b", 2, true, 3)},
		&catalog.AddToken{Hash: catalog.Hash{8}, Expires: 1000}, &catalog.AdmitNode{Token: catalog.Hash{8}, Node: newNode("c", 3, false, 2)},
		&catalog.AddToken{Hash: catalog.Hash{7}, Expires: 1000}, &catalog.AdmitNode{Token: catalog.Hash{7}, Node: newNode("d", 4, true, 1)},
		&catalog.ChangeNode{Name: "d", Voter: &no}, &catalog.RemoveNode{Name: "d"}}
	s := script(t, said...)
	without := script(t, append(said, &catalog.RecoverCluster{Node: "a", GiveUp: []catalog.NodeID{"c"}})...)
	for _, c := range []struct {
		has  []cluster.Member
		want []step
	}{
		{[]cluster.Member{vote("a"), vote("b"), none("c")}, nil},
		{[]cluster.Member{vote("a")}, []step{{member: none("b"), first: true}, {member: vote("b")}, {member: none("c"), first: true}}},
		{[]cluster.Member{vote("a"), none("b"), vote("c")}, []step{{member: vote("b")}, {member: none("c")}}},
		{[]cluster.Member{vote("a"), vote("b"), none("c"), none("d"), vote("x")}, []step{{member: none("d"), remove: true}}},
	} {
		if got := steps(s, c.has); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, not %v", c.has, got, c.want)
		}
	}
	if got := steps(without, []cluster.Member{vote("a"), none("b"), vote("c")}); !slices.Equal(got, []step{{member: vote("b")}, {member: vote("c"), remove: true}}) {
		t.Errorf("without c: %v", got)
	}
	if got := steps(catalog.New(), []cluster.Member{vote("a")}); got != nil {
		t.Errorf("before the first command: %v", got)
	}
	if v := commonVersion(s); v != 2 {
		t.Errorf("all know version %d", v)
	}
}
