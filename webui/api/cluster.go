package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/member"
)

// ClusterInfo is the cluster as this node knows it.
type ClusterInfo struct {
	ID         catalog.UUID     `json:"id"`
	Name       string           `json:"name"`
	Node       catalog.NodeID   `json:"node" doc:"the one that answers"`
	Leader     string           `json:"leader" doc:"the node that leads; empty: none, and nothing can be changed"`
	Index      uint64           `json:"index" doc:"how many commands were carried out"`
	Version    int              `json:"version" doc:"of the commands that all nodes know"`
	Settings   catalog.Settings `json:"settings"`
	Recoveries uint64           `json:"recoveries,omitempty" doc:"how often a new group was made without a majority"`
	Stopped    string           `json:"stopped,omitempty" doc:"why this node does not follow the cluster any more"`
}

// NewCluster describes a cluster that is to be made.
type NewCluster struct {
	Cluster   string   `json:"cluster" doc:"its name, for people"`
	Node      string   `json:"node" doc:"name of this node"`
	Site      string   `json:"site" doc:"where it stands"`
	Addresses []string `json:"addresses" doc:"host:port at which other nodes will reach it"`
}

// NewMember describes this node to a cluster that it is to join.
type NewMember struct {
	Token     string   `json:"token" doc:"made by the cluster, good for one node"`
	Node      string   `json:"node"`
	Site      string   `json:"site"`
	Addresses []string `json:"addresses"`
	Witness   bool     `json:"witness,omitempty" doc:"it has a vote, and no replicas"`
}

// SettingsChange is what is to change of the settings.
type SettingsChange struct {
	Heartbeat      *catalog.Duration `json:"heartbeat,omitempty" doc:"how often a node asks its peers for a lease"`
	Lease          *catalog.Duration `json:"lease,omitempty" doc:"how long that lasts"`
	PreferredDelay *catalog.Duration `json:"preferred_delay,omitempty" doc:"how much later than the preferred node the other one wants to serve alone"`
	ColdAfter      *catalog.Duration `json:"cold_after,omitempty" doc:"when ownership of what is not written is given back"`
	HoldWait       *catalog.Duration `json:"hold_wait,omitempty" doc:"how long host commands wait for a lost site that has the newest data to come back, before they end with an error"`
	CopyRate       *int64            `json:"copy_rate,omitempty" doc:"limit of copying a LUN, bytes per second; 0: none"`
	Compress       *bool             `json:"compress,omitempty" doc:"compress copies on the way"`
}

func (a *api) cluster(h huma.API) {
	get(h, "/cluster", "get-cluster", "The cluster", func(context.Context, *none) (ClusterInfo, error) { return a.info() })
	change(h, http.MethodPost, "/cluster/init", "init-cluster", "Make a cluster with this node as its first one",
		func(ctx context.Context, in *struct{ Body NewCluster }) (ClusterInfo, error) {
			b := in.Body
			if err := a.Found(ctx, member.FoundOptions{Cluster: b.Cluster, Node: b.Node, Site: b.Site, Addresses: b.Addresses}); err != nil {
				return ClusterInfo{}, err
			}
			return a.info()
		})
	change(h, http.MethodPost, "/cluster/join", "join-cluster", "Have a cluster take this node in",
		func(ctx context.Context, in *struct{ Body NewMember }) (ClusterInfo, error) {
			b := in.Body
			n := identity.Newcomer{Node: b.Node, Site: b.Site, Addresses: b.Addresses, Witness: b.Witness}
			if err := a.Join(ctx, b.Token, n); err != nil {
				return ClusterInfo{}, err
			}
			return a.info()
		})
	get(h, "/settings", "get-settings", "The settings of the whole cluster", func(context.Context, *none) (catalog.Settings, error) {
		_, s, err := a.state()
		if err != nil {
			return catalog.Settings{}, err
		}
		return s.Settings(), nil
	})
	change(h, http.MethodPatch, "/settings", "change-settings", "Change settings of the whole cluster",
		func(ctx context.Context, in *struct{ Body SettingsChange }) (catalog.Settings, error) {
			change := catalog.ChangeSettings(in.Body)
			if err := a.do(ctx, &change); err != nil {
				return catalog.Settings{}, err
			}
			return a.Cluster().State().Settings(), nil
		})
	get(h, "/node", "get-node-status", "This node as it is now", func(context.Context, *none) (NodeStatus, error) { return a.Node(), nil })
}

func (a *api) info() (ClusterInfo, error) {
	c, s, err := a.state()
	if err != nil {
		return ClusterInfo{}, err
	}
	info := ClusterInfo{
		ID: s.Cluster().ID, Name: s.Cluster().Name, Node: c.Self(), Leader: c.Leader(), Index: s.Index(), Version: s.Version(), Settings: s.Settings(), Recoveries: s.Recoveries(),
	}
	if err := s.Stopped(); err != nil {
		info.Stopped = err.Error()
	}
	return info, nil
}

// state is the cluster and its catalog.
func (a *api) state() (Cluster, *catalog.State, error) {
	c := a.Cluster()
	if c == nil {
		return nil, nil, errNoCluster
	}
	return c, c.State(), nil
}

// do has the cluster carry out a command.
func (a *api) do(ctx context.Context, b catalog.Body) error {
	c := a.Cluster()
	if c == nil {
		return errNoCluster
	}
	_, err := c.Do(ctx, local, b)
	return err
}

// NewToken asks for a join token.
type NewToken struct {
	Life string `json:"life,omitempty" doc:"how long it is good, like 1h; at most 168h" default:"1h"`
}

// Token is a join token, when it is made.
type Token struct {
	Token   string    `json:"token" doc:"a secret, which nobody keeps"`
	Expires time.Time `json:"expires"`
}

func (a *api) tokens(h huma.API) {
	get(h, "/tokens", "list-tokens", "The join tokens that were made lately", func(context.Context, *none) ([]catalog.JoinToken, error) {
		_, s, err := a.state()
		if err != nil {
			return nil, err
		}
		return list(s.Tokens()), nil
	})
	change(h, http.MethodPost, "/tokens", "create-token", "Make a token with which one node can join",
		func(ctx context.Context, in *struct{ Body NewToken }) (t Token, err error) {
			c, _, err := a.state()
			if err != nil {
				return t, err
			}
			life, err := time.ParseDuration(in.Body.Life)
			if err != nil {
				return t, &catalog.Error{Code: catalog.Invalid, Field: "life", Message: err.Error()}
			}
			t.Token, t.Expires, err = c.NewToken(ctx, local, life)
			return t, err
		})
	remove(h, "/tokens/{hash}", "delete-token", "Make a join token worthless",
		func(ctx context.Context, in *struct {
			Hash string `path:"hash"`
		}) error {
			var hash catalog.Hash
			if err := hash.UnmarshalText([]byte(in.Hash)); err != nil {
				return &catalog.Error{Code: catalog.Invalid, Field: "hash", Message: err.Error()}
			}
			return a.do(ctx, &catalog.RemoveToken{Hash: hash})
		})
}
