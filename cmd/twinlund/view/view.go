// Package view turns the catalog of a cluster into what one of its nodes does: the same
// Config that a file would give, with the LUNs of which the node has a replica, the targets
// that it serves, and the hosts that may log in to them.
//
// It is pure. What cannot be done (a secret that this node cannot read, say) is left out
// and told, and never makes more visible than the catalog says.
package view

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"iter"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/secret"
	"github.com/twinlun/twinlun/target/iscsi"
)

// Defaults of what the catalog does not say of a LUN.
const (
	sanitizeRate = 200 << 20 // bytes per second
	deadAfter    = 4         // heartbeats; a link that is silent for so long is given up
)

// viewer makes a view.
type viewer struct {
	*config.Config
	state  *catalog.State
	self   catalog.Node
	unseal func(sealed []byte) ([]byte, error)
	proofs map[string]iscsi.Auth // of hosts, by name; those that are let in
	errs   []error
}

// Of is what node self does. base has what the node has to itself; it is not changed. A
// node that is not in the catalog does nothing.
func Of(base *config.Config, self catalog.NodeID, s *catalog.State, unseal func([]byte) ([]byte, error)) (*config.Config, []error) {
	c := *base
	v := viewer{Config: &c, state: s, unseal: unseal}
	found := false
	if v.self, found = s.Node(self); !found || v.self.Witness {
		return v.Config, nil
	}
	v.Node, v.PortalGroup, v.Groups = string(self), v.self.Group, map[string]uint16{}
	for n := range s.Nodes() {
		if !n.Witness {
			v.Groups[string(n.Name)] = n.Group
		}
	}
	v.settings()
	v.prove()
	v.luns()
	v.targets()
	return v.Config, v.errs
}

func (v *viewer) settings() {
	s := v.state.Settings()
	v.Peer.Heartbeat, v.Peer.DeadAfter = time.Duration(s.Heartbeat), time.Duration(s.Heartbeat)*deadAfter
	v.Peer.Compress, v.Peer.CopyRate = s.Compress, s.CopyRate
}

// luns are those of which this node has a replica.
func (v *viewer) luns() {
	v.LUNs = nil
	for l := range v.state.LUNs() {
		i := slices.IndexFunc(l.Replicas, func(r catalog.Replica) bool { return r.Node == v.self.Name })
		if i < 0 {
			continue
		}
		v.LUNs = append(v.LUNs, config.LUN{
			Number: l.Number, Name: l.Name, UUID: l.ID, NAA: l.NAA, Peer: string(l.Other(v.self.Name)),
			Size: l.Size, ExtentSize: l.ExtentSize, BlockSize: int64(l.BlockSize),
			Backing: l.Replicas[i].Path, Map: filepath.Join(v.DataDir, "luns", fmt.Sprintf("%s-%d.map", l.ID, l.Replicas[i].Since)),
			Preferred: string(v.preferred(&l)), ColdAfter: time.Duration(v.state.Settings().ColdAfter),
			ReadOnly: l.ReadOnly, Removable: l.Removable, SanitizeRate: sanitizeRate, Space: config.DefaultThreshold,
			ServeStale: l.Loss == catalog.ServeStale,
		})
	}
	slices.SortFunc(v.LUNs, func(a, b config.LUN) int { return cmp.Compare(a.Number, b.Number) })
}

// preferred is the node that hosts should use: not one that is drained.
func (v *viewer) preferred(l *catalog.LUN) catalog.NodeID {
	if v.state.Drained(l, l.Preferred) && l.Other(l.Preferred) != "" {
		return l.Other(l.Preferred)
	}
	return l.Preferred
}

// gone tells whether this node is drained, and serves nothing any more.
func (v *viewer) gone() bool {
	for l := range v.state.LUNs() {
		if l.Serves(v.self.Name) {
			return false
		}
	}
	return v.self.Drained
}

// targets are those with a portal at this node.
func (v *viewer) targets() {
	v.Targets = nil
	if v.gone() {
		return
	}
	for t := range v.state.Targets() {
		c := config.Target{Number: t.Number, IQN: t.Name, Alias: t.Alias, LUNs: map[uint16]uint16{}}
		for _, p := range t.Portals {
			if p.Node == v.self.Name {
				c.Listen = append(c.Listen, p.Address)
			}
			if address := v.reach(p); address != "" {
				c.Portals = append(c.Portals, config.Portal{Address: address, Group: v.Groups[string(p.Node)]})
			}
		}
		if len(c.Listen) == 0 {
			continue
		}
		v.hosts(&c, &t)
		v.Targets = append(v.Targets, c)
	}
}

// reach is where hosts reach a portal. That of another node without a host is reached at
// that node's own address.
func (v *viewer) reach(p catalog.Portal) string {
	host, port, err := net.SplitHostPort(p.Address)
	if err != nil || host != "" || p.Node == v.self.Name {
		return p.Address
	}
	n, _ := v.state.Node(p.Node)
	for _, a := range n.Addresses {
		if host, _, err := net.SplitHostPort(a); err == nil {
			return net.JoinHostPort(host, port)
		}
	}
	return ""
}

// hosts lets in those to whom something is mapped at a target, and says what they see.
func (v *viewer) hosts(c *config.Target, t *catalog.Target) {
	for h := range v.state.Hosts() {
		luns := map[uint16]uint16{}
		for m := range v.state.View(t.Name, &h) {
			if l, found := v.state.LUN(m.LUN); found && l.Has(v.self.Name) {
				luns[m.Number] = l.Number
				c.LUNs[l.Number] = l.Number
			}
		}
		if !some(v.state.View(t.Name, &h)) {
			continue
		}
		auth, ok := v.proofs[h.Name]
		if !ok {
			continue
		}
		for _, name := range h.Initiators {
			c.Hosts = append(c.Hosts, iscsi.Access{Initiator: name, Auth: auth})
			c.Views = append(c.Views, config.View{Initiator: name, Prefer: v.near(h.Site, t), LUNs: luns})
		}
	}
}

// some tells whether there is anything in a sequence.
func some[V any](all iter.Seq[V]) bool {
	for range all {
		return true
	}
	return false
}

// near is the node at a site through which a target is reached there; "": none.
func (v *viewer) near(site string, t *catalog.Target) string {
	if site == "" {
		return ""
	}
	for _, p := range t.Portals {
		if n, _ := v.state.Node(p.Node); n.Site == site {
			return string(n.Name)
		}
	}
	return ""
}

// prove finds out how hosts prove themselves, and discovery. If this node cannot read how
// discovery is proven, nobody can prove anything there. No secret may serve both
// directions, among all that there are (iscsi.CheckSecrets); who has such a one is left
// out.
func (v *viewer) prove() {
	v.proofs = map[string]iscsi.Auth{}
	auth, ok := v.proof("discovery", v.state.Discovery())
	if v.Discovery = auth; !ok {
		v.Discovery = Nobody
	}
	all := []iscsi.Auth{v.Discovery}
	for h := range v.state.Hosts() {
		if auth, ok := v.proof("host "+h.Name, h.CHAP); ok {
			v.proofs[h.Name] = auth
			all = append(all, auth)
		}
	}
	if iscsi.CheckSecrets(all) == nil {
		return
	}
	all = all[:1]
	for h := range v.state.Hosts() {
		auth, ok := v.proofs[h.Name]
		if !ok {
			continue
		}
		if err := iscsi.CheckSecrets(append(all, auth)); err != nil {
			delete(v.proofs, h.Name)
			v.errs = append(v.errs, fmt.Errorf("host %s: nobody is let in as it: %w", h.Name, err))
			continue
		}
		all = append(all, auth)
	}
}

// Nobody is a proof that nobody can give: its secret is known to no one.
var Nobody = iscsi.Auth{Initiator: iscsi.Credentials{User: "nobody", Secret: secret.New(rand.Text())}}

func (v *viewer) proof(who string, c catalog.CHAP) (a iscsi.Auth, ok bool) {
	for _, side := range []struct {
		in  *catalog.Credential
		out *iscsi.Credentials
	}{{c.Initiator, &a.Initiator}, {c.Target, &a.Target}} {
		if side.in == nil {
			continue
		}
		text, err := v.unseal(side.in.Sealed)
		if err != nil {
			v.errs = append(v.errs, fmt.Errorf("%s: its secret for CHAP cannot be read, so nobody is let in as it: %w; set it anew", who, err))
			return a, false
		}
		*side.out = iscsi.Credentials{User: side.in.User, Secret: secret.New(string(text))}
	}
	if err := a.Check(); err != nil {
		v.errs = append(v.errs, fmt.Errorf("%s: nobody is let in as it: %w", who, err))
		return a, false
	}
	return a, true
}
