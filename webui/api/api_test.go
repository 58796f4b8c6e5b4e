package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/test/solo"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wants checks what a refusal says.
func wants(t *testing.T, err error, code string, parts ...string) {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != code {
		t.Errorf("%v, want a problem with the code %s", err, code)
		return
	}
	for _, part := range parts {
		if !strings.Contains(p.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}

// TestCluster goes through everything in the order in which an operator does.
func TestCluster(t *testing.T) {
	c, n, _ := solo.Serve(t)
	ctx := t.Context()
	_, err := c.Cluster(ctx)
	wants(t, err, api.CodeNoCluster, "twinlun init")
	_, err = c.CreateLUN(ctx, api.NewLUN{Name: "disk", Size: 1 << 30, Replicas: []api.NewReplica{{Node: "a"}}})
	wants(t, err, api.CodeNoCluster)
	_, err = c.Init(ctx, api.NewCluster{Cluster: "test", Node: "A!", Site: "paris", Addresses: []string{"a:7480"}})
	wants(t, err, string(catalog.Invalid), "name: ")
	info := must[api.ClusterInfo](t)(c.Init(ctx, api.NewCluster{Cluster: "test", Node: "a", Site: "paris", Addresses: []string{"a:7480"}}))
	if info.Name != "test" || info.Node != "a" || info.Leader != "a" || info.Index != 1 {
		t.Errorf("%+v", info)
	}
	token := must[api.Token](t)(c.CreateToken(ctx, api.NewToken{Life: "2h"}))
	if token.Token != solo.Secret || time.Until(token.Expires) < time.Hour {
		t.Errorf("%+v", token)
	}
	if _, err := n.Group().Do(ctx, "test", &catalog.AdmitNode{Token: solo.TokenHash, Node: catalog.NewNode{Name: "b", Site: "rome", Addresses: []string{"b:7480"}, Key: catalog.Hash{8}, Voter: true, Version: 1}}); err != nil {
		t.Fatal(err)
	}
	nodes := must[[]api.Node](t)(c.Nodes(ctx))
	if len(nodes) != 2 || !nodes[0].Leads || !nodes[0].Votes || nodes[1].Votes || nodes[1].Site != "rome" {
		t.Errorf("%+v", nodes)
	}
	site := "milan"
	if b := must[api.Node](t)(c.ChangeNode(ctx, "b", api.NodeChange{Site: &site})); b.Site != site {
		t.Errorf("%+v", b)
	}
	testLUNs(t, c)
	testAccess(t, c, n)
	testGroups(t, c)
	testDiscovery(t, c, n)
	testSettings(t, c)
	for _, err := range []error{
		c.Unmap(ctx, api.Mapping{Target: iqn, Host: "web", Number: 3}), c.RemoveLUN(ctx, "big"), c.RemoveTarget(ctx, iqn), c.RemoveHost(ctx, "web"),
		c.RemoveNode(ctx, "b"), c.DeleteToken(ctx, solo.TokenHash.String()),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	wants(t, c.RemoveNode(ctx, "x"), string(catalog.NotFound), "no node x")
	if s := must[api.NodeStatus](t)(c.Node(ctx)); s.PID != 7 {
		t.Errorf("%+v", s)
	}
}

const iqn = "iqn.2026-01.io.github.twinlun:disks"

func testLUNs(t *testing.T, c *client.Client) {
	t.Helper()
	ctx := t.Context()
	l := must[catalog.LUN](t)(c.CreateLUN(ctx, api.NewLUN{Name: "disk", Size: 1 << 30, Replicas: []api.NewReplica{{Node: "a"}, {Node: "b", Path: "/srv/disk"}}}))
	if l.Preferred != "a" || l.Loss != catalog.Hold || l.BlockSize != 512 || l.ExtentSize != 65536 || l.NAA != api.NAA(l.ID) ||
		l.Replicas[0].Path != api.DefaultFolder+"/disk.img" || l.Replicas[1].Path != "/srv/disk" || l.Term != 1 {
		t.Errorf("%+v", l)
	}
	_, err := c.CreateLUN(ctx, api.NewLUN{Name: "disk", Size: 1 << 30, Replicas: []api.NewReplica{{Node: "a", Path: "/x"}}})
	wants(t, err, string(catalog.Conflict), "choose another name")
	_, err = c.CreateLUN(ctx, api.NewLUN{Name: "none", Size: 1 << 30})
	wants(t, err, string(catalog.Invalid), "replicas")
	stale, old, big, name := catalog.ServeStale, uint64(1), int64(2<<30), "big"
	_, err = c.ChangeLUN(ctx, "disk", api.LUNChange{Revision: &old, Size: &big})
	wants(t, err, string(catalog.Changed))
	l = must[catalog.LUN](t)(c.ChangeLUN(ctx, l.ID.String(), api.LUNChange{Revision: &l.Revision, Size: &big, Loss: &stale, Name: &name}))
	if l.Size != big || l.Loss != stale || l.Name != name {
		t.Errorf("%+v", l)
	}
	wants(t, c.RemoveReplica(ctx, "big", "b"), string(catalog.Conflict), "drain")
	for _, yes := range []bool{true, false} {
		if l = must[catalog.LUN](t)(c.DrainReplica(ctx, "big", "b", yes)); l.Replicas[1].Drained != yes || l.Replicas[0].Drained {
			t.Errorf("drained %t: %+v", yes, l.Replicas)
		}
	}
	_, err = c.DrainReplica(ctx, "big", "x", true)
	wants(t, err, string(catalog.NotFound))
	_, err = c.AddReplica(ctx, "big", api.NewReplica{Node: "a"})
	wants(t, err, string(catalog.Conflict))
	if all := must[[]catalog.LUN](t)(c.LUNs(ctx)); len(all) != 1 || all[0].Name != "big" {
		t.Errorf("%+v", all)
	}
	_, err = c.LUN(ctx, "disk")
	wants(t, err, string(catalog.NotFound))
}

func testAccess(t *testing.T, c *client.Client, n *solo.Node) {
	t.Helper()
	ctx := t.Context()
	must[catalog.Target](t)(c.PutTarget(ctx, iqn, api.TargetBody{Portals: []catalog.Portal{{Node: "a", Address: ":3260"}, {Node: "b", Address: "192.0.2.1:3260"}}}))
	h := must[api.Host](t)(c.PutHost(ctx, "web", api.HostBody{Initiators: []string{"iqn.x:web"}, User: "web", Secret: "a secret of more", TargetUser: "disks", TargetSecret: "another secret"}))
	if h.User != "web" || h.TargetUser != "disks" {
		t.Errorf("%+v", h)
	}
	// Without a secret the old one stays.
	must[api.Host](t)(c.PutHost(ctx, "web", api.HostBody{Initiators: []string{"iqn.x:web2"}, User: "web"}))
	if kept, _ := n.Group().State().Host("web"); string(kept.CHAP.Initiator.Sealed[8:]) != "a secret of more" || kept.CHAP.Target != nil {
		t.Errorf("%+v", kept)
	}
	for code, b := range map[string]api.HostBody{
		"missing":         {User: "new"},
		"no user":         {Secret: "a secret of more"},
		"the same secret": {User: "web", Secret: "a secret of more", TargetUser: "t", TargetSecret: "a secret of more"},
		"12":              {User: "web", Secret: "short"},
	} {
		b.Initiators = []string{"iqn.x:web"}
		_, err := c.PutHost(ctx, "web", b)
		wants(t, err, string(catalog.Invalid))
		if code != "no user" && !strings.Contains(err.Error(), code) {
			t.Errorf("%v does not say %s", err, code)
		}
	}
	if err := c.Map(ctx, api.Mapping{Target: iqn, Host: "web", Number: 3, LUN: "big"}); err != nil {
		t.Error(err)
	}
	wants(t, c.Map(ctx, api.Mapping{Target: iqn, Host: "web", Number: 4, LUN: "big"}), string(catalog.Conflict), "one number is enough")
	wants(t, c.Map(ctx, api.Mapping{Target: iqn, Host: "web", Number: 4, LUN: "x"}), string(catalog.NotFound), "no LUN x")
	if all := must[[]api.Mapping](t)(c.Mappings(ctx)); len(all) != 1 || all[0] != (api.Mapping{Target: iqn, Host: "web", Number: 3, LUN: "big"}) {
		t.Errorf("%+v", all)
	}
	for _, h := range must[[]api.Host](t)(c.Hosts(ctx)) {
		if h.Name != "web" || h.Initiators[0] != "iqn.x:web2" {
			t.Errorf("%+v", h)
		}
	}
}

func testGroups(t *testing.T, c *client.Client) {
	t.Helper()
	ctx := t.Context()
	must[api.Group](t)(c.PutGroup(ctx, "db"))
	must[api.Host](t)(c.PutHost(ctx, "db1", api.HostBody{Initiators: []string{"iqn.x:db1"}, Group: "db"}))
	if all := must[[]api.Group](t)(c.Groups(ctx)); len(all) != 1 || all[0].Name != "db" || len(all[0].Hosts) != 1 || all[0].Hosts[0] != "db1" {
		t.Errorf("%+v", all)
	}
	if err := c.Map(ctx, api.Mapping{Target: iqn, Group: "db", Number: 0, LUN: "big"}); err != nil {
		t.Error(err)
	}
	wants(t, c.RemoveGroup(ctx, "db"), string(catalog.Conflict), "take them out first")
	if err := c.RemoveHost(ctx, "db1"); err != nil {
		t.Error(err)
	}
	if err := c.RemoveGroup(ctx, "db"); err != nil {
		t.Error(err)
	}
	wants(t, c.RemoveGroup(ctx, "db"), string(catalog.NotFound), "no group db")
	_, err := c.PutGroup(ctx, "a b")
	wants(t, err, string(catalog.Invalid))
}

func testDiscovery(t *testing.T, c *client.Client, n *solo.Node) {
	t.Helper()
	ctx := t.Context()
	d := must[api.Discovery](t)(c.SetDiscovery(ctx, api.DiscoveryBody{User: "look", Secret: "only for looking"}))
	if d != (api.Discovery{User: "look"}) {
		t.Errorf("%+v", d)
	}
	// Without a secret the old one stays.
	d = must[api.Discovery](t)(c.SetDiscovery(ctx, api.DiscoveryBody{User: "look", TargetUser: "me", TargetSecret: "another secret"}))
	if p := n.Group().State().Discovery(); d.TargetUser != "me" || string(p.Initiator.Sealed[8:]) != "only for looking" {
		t.Errorf("%+v, %+v", d, p)
	}
	_, err := c.SetDiscovery(ctx, api.DiscoveryBody{User: "other"})
	wants(t, err, string(catalog.Invalid), "missing")
	must[api.Discovery](t)(c.SetDiscovery(ctx, api.DiscoveryBody{}))
	if d := must[api.Discovery](t)(c.Discovery(ctx)); d != (api.Discovery{}) {
		t.Errorf("%+v", d)
	}
}

func testSettings(t *testing.T, c *client.Client) {
	t.Helper()
	lease, long := catalog.Duration(3*time.Second), catalog.Duration(time.Minute)
	must[catalog.Settings](t)(c.ChangeSettings(t.Context(), api.SettingsChange{Lease: &lease}))
	if s := must[catalog.Settings](t)(c.Settings(t.Context())); s.Lease != lease || s.Heartbeat != catalog.DefaultSettings.Heartbeat {
		t.Errorf("%+v", s)
	}
	_, err := c.ChangeSettings(t.Context(), api.SettingsChange{Lease: &long})
	wants(t, err, string(catalog.Invalid), "lease")
}

// TestHostile sends what no client of ours does.
func TestHostile(t *testing.T) {
	c, _, socket := solo.Serve(t)
	must[api.ClusterInfo](t)(c.Init(t.Context(), api.NewCluster{Cluster: "test", Node: "a", Site: "paris", Addresses: []string{"a:7480"}}))
	raw := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for what, r := range map[string]struct {
		method, path, body string
		status             int
	}{
		"no JSON":        {http.MethodPost, "/luns", "hello", http.StatusBadRequest},
		"unknown field":  {http.MethodPost, "/luns", `{"name":"x","size":1,"replicas":[{"node":"a"}],"colour":"red"}`, http.StatusUnprocessableEntity},
		"deep":           {http.MethodPost, "/luns", strings.Repeat("[", 100000), http.StatusBadRequest},
		"long":           {http.MethodPost, "/luns", `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, http.StatusRequestEntityTooLarge},
		"negative":       {http.MethodPost, "/luns", `{"name":"x","size":-1,"replicas":[{"node":"a"}]}`, http.StatusUnprocessableEntity},
		"unknown path":   {http.MethodGet, "/lunes", "", http.StatusNotFound},
		"unknown query":  {http.MethodGet, "/luns?colour=red", "", http.StatusUnprocessableEntity},
		"another method": {http.MethodPut, "/luns", "{}", http.StatusNotFound},
		"life":           {http.MethodPost, "/tokens", `{"life":"long"}`, http.StatusUnprocessableEntity},
		"after":          {http.MethodGet, "/events?after=-1", "", http.StatusUnprocessableEntity},
		"hash":           {http.MethodDelete, "/tokens/12", "", http.StatusUnprocessableEntity},
		"join":           {http.MethodPost, "/cluster/join", `{"token":"x","node":"b","site":"s","addresses":[]}`, http.StatusInternalServerError},
		"document":       {http.MethodGet, "/openapi.json", "", http.StatusOK},
	} {
		req, err := http.NewRequestWithContext(t.Context(), r.method, "http://x"+api.Prefix+r.path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := raw.Do(req)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != r.status {
			t.Errorf("%s: %s, want %d: %.300s", what, resp.Status, r.status, text)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	_, err := client.Local(filepath.Join(t.TempDir(), "none.sock")).Cluster(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does twinlund run here") {
		t.Error(err)
	}
}
