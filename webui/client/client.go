// Package client is the typed client of the REST API (package api). A refusal is a
// *api.Problem.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/webui/api"
)

// maxAnswer bounds an answer, in bytes: all hosts that a cluster may have.
const maxAnswer = 64 << 20

// Client asks one node.
type Client struct {
	http *http.Client
	base string
	name string // for errors
}

// Local is a client of the node on this machine, by the path of its API's socket.
func Local(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{&http.Client{Transport: &http.Transport{DialContext: dial}}, "http://twinlund", socket}
}

// call asks, and fills out with the answer.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var text []byte
	if in != nil {
		var err error
		if text, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+api.Prefix+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return refusal(resp, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

func refusal(resp *http.Response, answer []byte) error {
	p := &api.Problem{}
	if json.Unmarshal(answer, p) != nil || p.Status == 0 {
		p = &api.Problem{Status: resp.StatusCode, Title: resp.Status, Detail: string(answer[:min(len(answer), 200)])}
	}
	return p
}

// unreachable tells the operator why the daemon does not answer.
func (c *Client) unreachable(err error) error {
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		hint = "does twinlund run here, and with this socket? (systemctl status twinlund; --socket)"
	case errors.Is(err, fs.ErrPermission):
		hint = "only root may use it: try sudo"
	default:
		return fmt.Errorf("ask the node at %s: %w", c.name, err)
	}
	return fmt.Errorf("ask the node at %s: %w; %s", c.name, errors.Unwrap(err), hint)
}

// ask is call for what has an answer.
func ask[T any](ctx context.Context, c *Client, method, path string, in any) (out T, err error) {
	err = c.call(ctx, method, path, in, &out)
	return out, err
}

func part(name string) string { return "/" + url.PathEscape(name) }

// Cluster is the cluster.
func (c *Client) Cluster(ctx context.Context) (api.ClusterInfo, error) {
	return ask[api.ClusterInfo](ctx, c, http.MethodGet, "/cluster", nil)
}

// Recovery tells what it would mean to make a new group at the node that is asked.
func (c *Client) Recovery(ctx context.Context) (api.Recovery, error) {
	return ask[api.Recovery](ctx, c, http.MethodGet, "/cluster/recover", nil)
}

// Recover has it do so.
func (c *Client) Recover(ctx context.Context, r api.Recover) (api.ClusterInfo, error) {
	return ask[api.ClusterInfo](ctx, c, http.MethodPost, "/cluster/recover", r)
}

// Init makes a cluster.
func (c *Client) Init(ctx context.Context, n api.NewCluster) (api.ClusterInfo, error) {
	return ask[api.ClusterInfo](ctx, c, http.MethodPost, "/cluster/init", n)
}

// Join joins one.
func (c *Client) Join(ctx context.Context, n api.NewMember) (api.ClusterInfo, error) {
	return ask[api.ClusterInfo](ctx, c, http.MethodPost, "/cluster/join", n)
}

// Settings are those of the whole cluster.
func (c *Client) Settings(ctx context.Context) (catalog.Settings, error) {
	return ask[catalog.Settings](ctx, c, http.MethodGet, "/settings", nil)
}

// ChangeSettings changes settings of the whole cluster.
func (c *Client) ChangeSettings(ctx context.Context, n api.SettingsChange) (catalog.Settings, error) {
	return ask[catalog.Settings](ctx, c, http.MethodPatch, "/settings", n)
}

// Apply has the cluster get what a document says, or tells what would be done.
func (c *Client) Apply(ctx context.Context, a api.Apply) (api.Plan, error) {
	return ask[api.Plan](ctx, c, http.MethodPost, "/apply", a)
}

// Node is the node that is asked, as it is now.
func (c *Client) Node(ctx context.Context) (api.NodeStatus, error) {
	return ask[api.NodeStatus](ctx, c, http.MethodGet, "/node", nil)
}

// Nodes are those of the cluster.
func (c *Client) Nodes(ctx context.Context) ([]api.Node, error) {
	return ask[[]api.Node](ctx, c, http.MethodGet, "/nodes", nil)
}

// ChangeNode changes what is given of a node.
func (c *Client) ChangeNode(ctx context.Context, name string, n api.NodeChange) (api.Node, error) {
	return ask[api.Node](ctx, c, http.MethodPatch, "/nodes"+part(name), n)
}

// RemoveNode removes a node for good.
func (c *Client) RemoveNode(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/nodes"+part(name), nil, nil)
}

// Tokens are the join tokens.
func (c *Client) Tokens(ctx context.Context) ([]catalog.JoinToken, error) {
	return ask[[]catalog.JoinToken](ctx, c, http.MethodGet, "/tokens", nil)
}

// CreateToken makes one.
func (c *Client) CreateToken(ctx context.Context, n api.NewToken) (api.Token, error) {
	return ask[api.Token](ctx, c, http.MethodPost, "/tokens", n)
}

// DeleteToken makes one worthless.
func (c *Client) DeleteToken(ctx context.Context, hash string) error {
	return c.call(ctx, http.MethodDelete, "/tokens"+part(hash), nil, nil)
}

// LUNs are those of the cluster.
func (c *Client) LUNs(ctx context.Context) ([]catalog.LUN, error) {
	return ask[[]catalog.LUN](ctx, c, http.MethodGet, "/luns", nil)
}

// LUN is one, by its name or id.
func (c *Client) LUN(ctx context.Context, name string) (catalog.LUN, error) {
	return ask[catalog.LUN](ctx, c, http.MethodGet, "/luns"+part(name), nil)
}

// CreateLUN makes one.
func (c *Client) CreateLUN(ctx context.Context, n api.NewLUN) (catalog.LUN, error) {
	return ask[catalog.LUN](ctx, c, http.MethodPost, "/luns", n)
}

// ChangeLUN changes what is given of one.
func (c *Client) ChangeLUN(ctx context.Context, name string, n api.LUNChange) (catalog.LUN, error) {
	return ask[catalog.LUN](ctx, c, http.MethodPatch, "/luns"+part(name), n)
}

// RemoveLUN removes one; its replicas stay on disk.
func (c *Client) RemoveLUN(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/luns"+part(name), nil, nil)
}

// AddReplica mirrors a LUN.
func (c *Client) AddReplica(ctx context.Context, name string, r api.NewReplica) (catalog.LUN, error) {
	return ask[catalog.LUN](ctx, c, http.MethodPost, "/luns"+part(name)+"/replicas", r)
}

// DrainReplica has a replica serve no host, or serve again.
func (c *Client) DrainReplica(ctx context.Context, name, node string, yes bool) (catalog.LUN, error) {
	return ask[catalog.LUN](ctx, c, http.MethodPatch, "/luns"+part(name)+"/replicas"+part(node), api.ReplicaChange{Drained: yes})
}

// Outlook tells what may be lost if a node, which must be the one that is asked, is forced to
// serve a LUN alone.
func (c *Client) Outlook(ctx context.Context, name, node string) (api.Outlook, error) {
	return ask[api.Outlook](ctx, c, http.MethodGet, "/luns"+part(name)+"/force?node="+url.QueryEscape(node), nil)
}

// ForceAlone has the node that is asked serve a LUN alone.
func (c *Client) ForceAlone(ctx context.Context, name string, f api.Force) (api.Outlook, error) {
	return ask[api.Outlook](ctx, c, http.MethodPost, "/luns"+part(name)+"/force", f)
}

// RemoveReplica ends the mirroring of a LUN.
func (c *Client) RemoveReplica(ctx context.Context, name, node string) error {
	return c.call(ctx, http.MethodDelete, "/luns"+part(name)+"/replicas"+part(node), nil, nil)
}

// Targets are those of the cluster.
func (c *Client) Targets(ctx context.Context) ([]catalog.Target, error) {
	return ask[[]catalog.Target](ctx, c, http.MethodGet, "/targets", nil)
}

// PutTarget makes or replaces one.
func (c *Client) PutTarget(ctx context.Context, name string, b api.TargetBody) (catalog.Target, error) {
	return ask[catalog.Target](ctx, c, http.MethodPut, "/targets"+part(name), b)
}

// RemoveTarget removes one.
func (c *Client) RemoveTarget(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/targets"+part(name), nil, nil)
}

// Hosts are those of the cluster.
func (c *Client) Hosts(ctx context.Context) ([]api.Host, error) {
	return ask[[]api.Host](ctx, c, http.MethodGet, "/hosts", nil)
}

// PutHost makes or replaces one.
func (c *Client) PutHost(ctx context.Context, name string, b api.HostBody) (api.Host, error) {
	return ask[api.Host](ctx, c, http.MethodPut, "/hosts"+part(name), b)
}

// RemoveHost removes one.
func (c *Client) RemoveHost(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/hosts"+part(name), nil, nil)
}

// Groups are those of the cluster.
func (c *Client) Groups(ctx context.Context) ([]api.Group, error) {
	return ask[[]api.Group](ctx, c, http.MethodGet, "/groups", nil)
}

// PutGroup makes one.
func (c *Client) PutGroup(ctx context.Context, name string) (api.Group, error) {
	return ask[api.Group](ctx, c, http.MethodPut, "/groups"+part(name), nil)
}

// RemoveGroup removes one that has no hosts, with its mappings.
func (c *Client) RemoveGroup(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/groups"+part(name), nil, nil)
}

// Discovery is how initiators prove themselves that only want to look.
func (c *Client) Discovery(ctx context.Context) (api.Discovery, error) {
	return ask[api.Discovery](ctx, c, http.MethodGet, "/discovery", nil)
}

// SetDiscovery says how they do.
func (c *Client) SetDiscovery(ctx context.Context, b api.DiscoveryBody) (api.Discovery, error) {
	return ask[api.Discovery](ctx, c, http.MethodPut, "/discovery", b)
}

// Mappings are those of the cluster.
func (c *Client) Mappings(ctx context.Context) ([]api.Mapping, error) {
	return ask[[]api.Mapping](ctx, c, http.MethodGet, "/mappings", nil)
}

// Map shows a LUN to a host or a group.
func (c *Client) Map(ctx context.Context, m api.Mapping) error {
	return c.call(ctx, http.MethodPost, "/mappings", m, nil)
}

// Unmap takes that back. The LUN of m does not matter.
func (c *Client) Unmap(ctx context.Context, m api.Mapping) error {
	q := url.Values{"target": {m.Target}, "number": {strconv.Itoa(int(m.Number))}}
	if m.Host != "" {
		q.Set("host", m.Host)
	}
	if m.Group != "" {
		q.Set("group", m.Group)
	}
	return c.call(ctx, http.MethodDelete, "/mappings?"+q.Encode(), nil, nil)
}

// Verify begins to compare the replicas of a LUN.
func (c *Client) Verify(ctx context.Context, name string, v api.NewVerification) (api.Verification, error) {
	return ask[api.Verification](ctx, c, http.MethodPost, "/luns"+part(name)+"/verify", v)
}

// Verification is how far that has come.
func (c *Client) Verification(ctx context.Context, name string) (api.Verification, error) {
	return ask[api.Verification](ctx, c, http.MethodGet, "/luns"+part(name)+"/verify", nil)
}

// StopVerify ends it.
func (c *Client) StopVerify(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/luns"+part(name)+"/verify", nil, nil)
}
