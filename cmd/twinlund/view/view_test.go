package view

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/target/iscsi"
)

const iqn = "iqn.2026-01.io.github.twinlun:disks"

// cluster is a catalog of three nodes at two sites and a witness.
func cluster(t *testing.T, more ...catalog.Body) *catalog.State {
	t.Helper()
	node := func(name catalog.NodeID, site string) catalog.NewNode {
		n := catalog.NewNode{Name: name, Site: site, Addresses: []string{string(name) + ".example:7480"}, Voter: true, Version: 1, Witness: name == "w"}
		copy(n.Key[:], "key of "+name)
		return n
	}
	lun := func(name string, nodes ...catalog.NodeID) *catalog.AddLUN {
		l := &catalog.AddLUN{ID: id(name), Name: name, Size: 1 << 30, BlockSize: 4096, ExtentSize: 1 << 16, Preferred: nodes[0], Loss: catalog.ServeStale, Epoch: id("epoch")}
		l.NAA = catalog.NAA{0x60, name[0]}
		for _, n := range nodes {
			l.Replicas = append(l.Replicas, catalog.Replica{Node: n, Kind: catalog.File, Path: "/srv/" + name})
		}
		return l
	}
	s, index := catalog.New(), uint64(0)
	admit := func(name catalog.NodeID, site string) []catalog.Body {
		h := catalog.Hash{name[0]}
		return []catalog.Body{&catalog.AddToken{Hash: h, Expires: 1 << 50}, &catalog.AdmitNode{Token: h, Node: node(name, site)}}
	}
	all := []catalog.Body{&catalog.InitCluster{Cluster: catalog.Cluster{ID: id("cluster"), Name: "test"}, Node: node("a", "paris")}}
	all = append(append(append(all, admit("b", "rome")...), admit("w", "oslo")...), admit("c", "rome")...)
	all = append(all, lun("ab", "a", "b"), lun("bc", "a", "c"), lun("one", "b"))
	for _, body := range append(all, more...) {
		index++
		raw, err := catalog.Command{ID: id(fmt.Sprint("command ", index)), Time: catalog.Stamp(index), By: "test", Body: body}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		next, result, err := s.Apply(index, raw)
		if err != nil || result.Error != nil {
			t.Fatalf("%s: %v, %v", body.Kind(), err, result.Error)
		}
		s = next
	}
	return s
}

func id(text string) (u catalog.UUID) {
	copy(u[:], text)
	return u
}

func unseal(sealed []byte) ([]byte, error) {
	text, ok := strings.CutPrefix(string(sealed), "sealed:")
	if !ok {
		return nil, errors.New("it was sealed by somebody else")
	}
	return []byte(text), nil
}

func sealed(user, text string) *catalog.Credential {
	return &catalog.Credential{User: user, Sealed: []byte(text)}
}

// access is what hosts may do at both targets of these tests.
func access() []catalog.Body {
	return []catalog.Body{
		&catalog.PutTarget{Name: iqn, Alias: "Disks", Portals: []catalog.Portal{{Node: "a", Address: "192.0.2.1:3260"}, {Node: "b", Address: ":3260"}, {Node: "c", Address: "[::1]:3260"}}},
		&catalog.PutTarget{Name: iqn + "2", Portals: []catalog.Portal{{Node: "b", Address: ":3261"}}},
		&catalog.PutGroup{Name: "db"},
		&catalog.PutHost{Name: "web", Initiators: []string{"iqn.x:web"}, Site: "rome"},
		&catalog.PutHost{Name: "db1", Initiators: []string{"iqn.x:db1", "iqn.x:db1b"}, Group: "db", CHAP: catalog.CHAP{Initiator: sealed("db", "sealed:secret of twelve")}},
		&catalog.PutHost{Name: "lost", Initiators: []string{"iqn.x:lost"}, CHAP: catalog.CHAP{Initiator: sealed("lost", "by somebody")}},
		&catalog.PutHost{Name: "idle", Initiators: []string{"iqn.x:idle"}},
		&catalog.Map{Mapping: catalog.Mapping{Target: iqn, Subject: catalog.Subject{Host: "web"}, Number: 3, LUN: id("ab")}},
		&catalog.Map{Mapping: catalog.Mapping{Target: iqn, Subject: catalog.Subject{Host: "web"}, Number: 4, LUN: id("bc")}},
		&catalog.Map{Mapping: catalog.Mapping{Target: iqn, Subject: catalog.Subject{Group: "db"}, Number: 0, LUN: id("ab")}},
		&catalog.Map{Mapping: catalog.Mapping{Target: iqn, Subject: catalog.Subject{Host: "lost"}, Number: 0, LUN: id("ab")}},
		&catalog.Map{Mapping: catalog.Mapping{Target: iqn + "2", Subject: catalog.Subject{Host: "web"}, Number: 9, LUN: id("one")}},
	}
}

var base = config.Config{DataDir: "/var/lib/twinlund", Cluster: &config.Cluster{}}

func TestLUNs(t *testing.T) {
	s := cluster(t)
	for self, want := range map[catalog.NodeID][]string{"a": {"0 ab b", "1 bc c"}, "b": {"0 ab a", "2 one "}, "c": {"1 bc a"}, "w": nil, "x": nil} {
		c, errs := Of(&base, self, s, unseal)
		var got []string
		for _, l := range c.LUNs {
			got = append(got, fmt.Sprintf("%d %s %s", l.Number, l.Name, l.Peer))
		}
		if len(errs) > 0 || !slices.Equal(got, want) {
			t.Errorf("node %s has %q, %v; want %q", self, got, errs, want)
		}
	}
	c, _ := Of(&base, "a", s, unseal)
	ab, _ := s.LUN(id("ab"))
	if l := c.LUNs[0]; l.Backing != "/srv/ab" || l.Map != "/var/lib/twinlund/luns/"+fmt.Sprintf("%s-%d.map", id("ab"), ab.Replicas[0].Since) || !l.ServeStale || l.BlockSize != 4096 || l.NAA[1] != 'a' {
		t.Errorf("%+v", l)
	}
	if c.PortalGroup != 1 || c.Groups["b"] != 2 || c.Groups["c"] != 3 || len(c.Groups) != 3 {
		t.Errorf("portal group %d of %v", c.PortalGroup, c.Groups)
	}
}

// TestTargets tells who sees what through which node.
func TestTargets(t *testing.T) {
	s := cluster(t, access()...)
	for self, want := range map[catalog.NodeID]string{
		"a": iqn + " on [192.0.2.1:3260] is [{192.0.2.1:3260 1} {b.example:3260 2} {[::1]:3260 3}] " +
			"iqn.x:db1 as db sees map[0:0] iqn.x:db1b as db sees map[0:0] iqn.x:web sees map[3:0 4:1] by b; ",
		"b": iqn + " on [:3260] is [{192.0.2.1:3260 1} {:3260 2} {[::1]:3260 3}] " +
			"iqn.x:db1 as db sees map[0:0] iqn.x:db1b as db sees map[0:0] iqn.x:web sees map[3:0] by b; " +
			iqn + "2 on [:3261] is [{:3261 2}] iqn.x:web sees map[9:2] by b; ",
		"c": iqn + " on [[::1]:3260] is [{192.0.2.1:3260 1} {b.example:3260 2} {[::1]:3260 3}] " +
			"iqn.x:db1 as db sees map[] iqn.x:db1b as db sees map[] iqn.x:web sees map[4:1] by b; ",
	} {
		c, errs := Of(&base, self, s, unseal)
		got := ""
		for _, target := range c.Targets {
			got += fmt.Sprint(target.IQN, " on ", target.Listen, " is ", target.Portals, " ")
			for i, h := range target.Hosts {
				got += h.Initiator
				if h.Auth.Initiator.User != "" {
					got += " as " + h.Auth.Initiator.User
				}
				v := target.Views[i]
				got += fmt.Sprint(" sees ", v.LUNs)
				if v.Prefer != "" {
					got += " by " + v.Prefer
				}
				got += map[bool]string{true: "; ", false: " "}[i == len(target.Hosts)-1]
			}
		}
		if got != want {
			t.Errorf("node %s\n got %s\nwant %s", self, got, want)
		}
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), "host lost: its secret for CHAP cannot be read") {
			t.Errorf("node %s: %v", self, errs)
		}
	}
}

// TestDiscoveryClosed lets nobody discover anything if the secret cannot be read.
func TestDiscoveryClosed(t *testing.T) {
	c, errs := Of(&base, "a", cluster(t, &catalog.SetDiscovery{CHAP: catalog.CHAP{Initiator: sealed("eve", "?")}}), unseal)
	if c.Discovery.Initiator != Nobody.Initiator || len(errs) != 1 || c.Discovery.Check() != nil {
		t.Errorf("%+v, %v", c.Discovery, errs)
	}
	c, errs = Of(&base, "a", cluster(t), unseal)
	if (c.Discovery != iscsi.Auth{}) || errs != nil {
		t.Errorf("%+v, %v", c.Discovery, errs)
	}
}

// TestOneSecret: a host whose secret is another one's in the other direction is left out,
// and nobody else.
func TestOneSecret(t *testing.T) {
	more := append(access(),
		&catalog.PutHost{Name: "mirror", Initiators: []string{"iqn.x:mirror"}, CHAP: catalog.CHAP{Initiator: sealed("m", "sealed:another secret!"), Target: sealed("t", "sealed:secret of twelve")}},
		&catalog.Map{Mapping: catalog.Mapping{Target: iqn, Subject: catalog.Subject{Host: "mirror"}, Number: 1, LUN: id("ab")}})
	c, errs := Of(&base, "a", cluster(t, more...), unseal)
	if len(c.Targets[0].Hosts) != 3 || len(errs) != 2 || !strings.Contains(errs[1].Error(), "host mirror") {
		t.Errorf("%v, %v", c.Targets[0].Hosts, errs)
	}
}
