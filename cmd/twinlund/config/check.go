package config

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication"
)

// check finds what is missing, and what does not go together.
func (c *Config) check() error {
	if err := c.checkWitness(); err != nil {
		return err
	}
	if c.byHand() == "" {
		return c.inCluster()
	}
	return c.checkPair()
}

// byHand names a setting that only a node of a pair has, which is configured by hand; "":
// the node belongs to a cluster, or is to.
func (c *Config) byHand() string {
	switch {
	case c.Peer.Name != "":
		return "peer.name"
	case len(c.LUNs) > 0:
		return "luns"
	case c.common.IQN != "" || len(c.Targets) > 1:
		return "iscsi.iqn, or targets"
	case len(c.common.Hosts) > 0:
		return "hosts"
	}
	return ""
}

// inCluster makes the configuration that of a node whose LUNs, targets and hosts come from
// the catalog of its cluster.
func (c *Config) inCluster() error {
	if c.Node != "" {
		return errors.New("node: a node of a cluster gets its name from twinlun init or twinlun join; a node of a pair, which is configured by hand, has a peer.name, too")
	}
	if c.cluster.Socket == "" {
		c.cluster.Socket = filepath.Join(c.DataDir, "api.sock")
	}
	c.Cluster, c.Targets, c.LUNs = &c.cluster, nil, nil
	return nil
}

// checkPair is check for a node of a pair.
func (c *Config) checkPair() error {
	for _, need := range []struct {
		key, value, hint string
	}{
		{"node", c.Node, "the name of this node"},
		{"iscsi.iqn", c.Targets[0].IQN, "the target's iSCSI name, the same at both nodes"},
		{"peer.name", c.Peer.Name, "the name of the other node"},
		{"peer.token", c.Peer.Token.Reveal(), "a secret text, the same at both nodes"},
	} {
		if need.value == "" {
			return fmt.Errorf("%s: is missing; it is %s", need.key, need.hint)
		}
	}
	if err := c.checkPeer(); err != nil {
		return err
	}
	if err := c.checkTargets(); err != nil {
		return err
	}
	return c.checkLUNs()
}

func (c *Config) checkPeer() error {
	p := &c.Peer
	switch dials := replication.LinkDials(c.Node, p.Name); {
	case c.Node == p.Name:
		return fmt.Errorf("peer.name: both nodes are called %q; give each a name of its own", p.Name)
	case dials && p.Address == "":
		return fmt.Errorf("peer.address: is missing; %s dials %s, as its name sorts first", c.Node, p.Name)
	case !dials && p.Listen == "":
		return fmt.Errorf("peer.listen: is missing; %s is dialed by %s, as its name sorts last", c.Node, p.Name)
	case p.DeadAfter < 2*p.Heartbeat:
		return fmt.Errorf("peer.dead-after: %v is less than two heartbeats of %v; one late ping would break the link", p.DeadAfter, p.Heartbeat)
	}
	return nil
}

func (c *Config) checkLUNs() error {
	if len(c.LUNs) == 0 {
		return errors.New("luns: is missing; there is nothing to serve")
	}
	taken := map[string]string{} // what only one LUN may have, and which has it
	for i := range c.LUNs {
		l := &c.LUNs[i]
		if err := c.checkLUN(l); err != nil {
			return fmt.Errorf("LUN %d (%s): %w", l.Number, l.Name, err)
		}
		for _, key := range []string{
			fmt.Sprintf("number %d", l.Number), "name " + l.Name, "uuid " + FormatUUID(l.UUID),
			"file " + l.Backing, "file " + l.Map,
		} {
			if other, ok := taken[key]; ok {
				return fmt.Errorf("LUN %d (%s): the %s is that of %s too", l.Number, l.Name, key, other)
			}
			taken[key] = l.Name
		}
	}
	return nil
}

func (c *Config) checkLUN(l *LUN) error {
	geo := dirtymap.Geometry{Size: l.Size, ExtentSize: l.ExtentSize}
	if err := geo.Check(); err != nil {
		return err
	}
	if l.UUID == [16]byte{} {
		return errors.New("uuid: is all zeros; make one with uuidgen")
	}
	if l.Preferred != c.Node && l.Preferred != c.Peer.Name {
		return fmt.Errorf("preferred: %q is neither %q nor %q", l.Preferred, c.Node, c.Peer.Name)
	}
	return nil
}
