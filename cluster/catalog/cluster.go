package catalog

import (
	"fmt"
	"time"
)

// Cluster is the cluster itself.
type Cluster struct {
	ID   UUID   `json:"id"`
	Name string `json:"name"`
}

// Settings are those of the whole cluster.
type Settings struct {
	// Heartbeat is how often a node asks its peers for a lease.
	Heartbeat Duration `json:"heartbeat"`
	// Lease is how long a node may serve after it asked for a lease that was granted.
	Lease Duration `json:"lease"`
	// PreferredDelay is how much later than a LUN's preferred node the other one
	// proposes to serve it alone.
	PreferredDelay Duration `json:"preferred_delay"`
	// ColdAfter is when ownership of extents that are not written is given back.
	ColdAfter Duration `json:"cold_after"`
	// HoldWait is how long host commands wait for a lost site that has the newest data of
	// what they touch to come back, since the other one serves alone, until they end with
	// an error (loss policy hold); 0: they do not wait.
	HoldWait Duration `json:"hold_wait"`
	// CopyRate bounds the copying of a LUN, in bytes per second; 0: no bound.
	CopyRate int64 `json:"copy_rate"`
	// Compress compresses copies on the way.
	Compress bool `json:"compress"`
}

// DefaultSettings are those of a new cluster.
var DefaultSettings = Settings{
	Heartbeat:      Duration(500 * time.Millisecond),
	Lease:          Duration(2 * time.Second),
	PreferredDelay: Duration(time.Second),
	ColdAfter:      Duration(10 * time.Second),
	HoldWait:       Duration(15 * time.Second), // a process that has crashed is back by then
	Compress:       true,
}

const (
	// minHeartbeat: more often would be work without use.
	minHeartbeat = Duration(50 * time.Millisecond)
	// heartbeatsPerLease lets two heartbeats in a row be lost before hosts have to wait.
	heartbeatsPerLease = 3
	// maxAway bounds how long hosts may have to wait until one site serves alone: Linux
	// gives a SCSI command 30 s, and a proposal takes time too.
	maxAway = Duration(20 * time.Second)

	// maxHeld bounds that with HoldWait, in which a command may wait, too.
	maxHeld = Duration(28 * time.Second)

	minCold = Duration(100 * time.Millisecond)
	maxCold = Duration(time.Hour)
	minRate = 64 << 10 // a slower copier never ends
)

// Away is how long hosts may have to wait, after a site was lost, until the other one
// serves alone, if nothing else takes long: a heartbeat is missed, the proposal comes
// late as the preferred node is the one lost, and its lease is waited out.
func (s Settings) Away() Duration {
	return s.Heartbeat + s.PreferredDelay + s.Lease + s.Lease/50
}

// check tells what does not fit together.
func (s Settings) check() error {
	switch {
	case s.Heartbeat < minHeartbeat:
		return invalid("heartbeat", "%v is less than %v", s.Heartbeat, minHeartbeat)
	case s.Heartbeat > maxAway || s.Lease > maxAway || s.PreferredDelay > maxAway:
		return invalid("lease", "heartbeat, lease and preferred_delay are at most %v each", maxAway)
	case s.Lease < heartbeatsPerLease*s.Heartbeat:
		return invalid("lease", "%v is less than %d heartbeats of %v: hosts would wait when two are lost", s.Lease, heartbeatsPerLease, s.Heartbeat)
	case s.PreferredDelay < s.Heartbeat:
		return invalid("preferred_delay", "%v is less than a heartbeat of %v: the node that is not preferred could be first", s.PreferredDelay, s.Heartbeat)
	case s.Away() > maxAway:
		return invalid("lease", "heartbeat %v, preferred_delay %v and lease %v: hosts would wait for %v, and give up after 30 s; at most %v are possible",
			s.Heartbeat, s.PreferredDelay, s.Lease, s.Away(), maxAway)
	case s.HoldWait < 0 || s.Away()+s.HoldWait > maxHeld:
		return invalid("hold_wait", "%v after the %v until a site serves alone: hosts give up after 30 s; at most %v together are possible", s.HoldWait, s.Away(), maxHeld)
	case s.ColdAfter < minCold || s.ColdAfter > maxCold:
		return invalid("cold_after", "%v is not between %v and %v", s.ColdAfter, minCold, maxCold)
	case s.CopyRate != 0 && s.CopyRate < minRate:
		return invalid("copy_rate", "%d is less than %d bytes per second; 0 is no bound", s.CopyRate, minRate)
	}
	return nil
}

// Cluster is the cluster itself; its id is zero before there is one.
func (s *State) Cluster() Cluster { return s.core.Cluster }

// Settings are those in force.
func (s *State) Settings() Settings { return s.core.Settings }

// LongestLease is the longest lease that was ever in force: what a node may have granted
// before it was restarted.
func (s *State) LongestLease() Duration { return s.core.LongestLease }

// InitCluster makes the cluster, with its first node.
type InitCluster struct {
	Cluster Cluster `json:"cluster"`
	Node    NewNode `json:"node"`
}

// Kind is "init-cluster".
func (*InitCluster) Kind() string { return "init-cluster" }

func (b *InitCluster) apply(c *change) error {
	switch {
	case !c.core.Cluster.ID.zero():
		return conflict("", "the cluster %s exists already", c.core.Cluster.Name)
	case b.Cluster.ID.zero():
		return invalid("cluster.id", "is all zeros")
	case b.Node.Witness:
		return invalid("node.witness", "a witness has no replicas; the first node of a cluster has to be another")
	}
	if err := checkName("cluster.name", b.Cluster.Name); err != nil {
		return err
	}
	c.core.Cluster = b.Cluster
	c.note(ClusterChanged{})
	return c.admit(&b.Node)
}

// RenameCluster gives the cluster another name for people.
type RenameCluster struct {
	Name string `json:"name"`
}

// Kind is "rename-cluster".
func (*RenameCluster) Kind() string { return "rename-cluster" }

func (b *RenameCluster) apply(c *change) error {
	if err := checkName("name", b.Name); err != nil {
		return err
	}
	c.log(Info, "cluster", "is called %s now, and was %s", b.Name, c.core.Cluster.Name)
	c.core.Cluster.Name = b.Name
	c.note(ClusterChanged{})
	return nil
}

// ChangeSettings changes those that are given.
type ChangeSettings struct {
	Heartbeat      *Duration `json:"heartbeat,omitempty"`
	Lease          *Duration `json:"lease,omitempty"`
	PreferredDelay *Duration `json:"preferred_delay,omitempty"`
	ColdAfter      *Duration `json:"cold_after,omitempty"`
	HoldWait       *Duration `json:"hold_wait,omitempty"`
	CopyRate       *int64    `json:"copy_rate,omitempty"`
	Compress       *bool     `json:"compress,omitempty"`
}

// Kind is "change-settings".
func (*ChangeSettings) Kind() string { return "change-settings" }

func (b *ChangeSettings) apply(c *change) error {
	s := c.core.Settings
	replace(&s.Heartbeat, b.Heartbeat)
	replace(&s.Lease, b.Lease)
	replace(&s.PreferredDelay, b.PreferredDelay)
	replace(&s.ColdAfter, b.ColdAfter)
	replace(&s.HoldWait, b.HoldWait)
	replace(&s.CopyRate, b.CopyRate)
	replace(&s.Compress, b.Compress)
	if err := s.check(); err != nil {
		return err
	}
	c.core.Settings = s
	c.core.LongestLease = max(c.core.LongestLease, s.Lease)
	c.note(ClusterChanged{})
	c.log(Info, "cluster", "settings changed: heartbeat %v, lease %v, preferred delay %v, cold after %v, hold wait %v, copy rate %d, compress %t",
		s.Heartbeat, s.Lease, s.PreferredDelay, s.ColdAfter, s.HoldWait, s.CopyRate, s.Compress)
	return nil
}

// replace changes a value if there is another.
func replace[V any](old *V, new *V) {
	if new != nil {
		*old = *new
	}
}

// RaiseVersion lets newer commands be used, once every node knows them. There is no way
// back.
type RaiseVersion struct {
	Version int `json:"version"`
}

// Kind is "raise-version".
func (*RaiseVersion) Kind() string { return "raise-version" }

func (b *RaiseVersion) apply(c *change) error {
	if b.Version <= c.core.Version {
		return invalid("version", "%d: the cluster is at version %d, and there is no way back", b.Version, c.core.Version)
	}
	for n := range c.Nodes() {
		if n.Version < b.Version && !n.GivenUp {
			return &Error{Code: Unsupported, Message: fmt.Sprintf("node %s knows version %d, and not %d", n.Name, n.Version, b.Version),
				Hint: "upgrade it, or remove it from the cluster"}
		}
	}
	c.core.Version = b.Version
	c.note(ClusterChanged{})
	c.log(Info, "cluster", "uses commands of version %d now", b.Version)
	return nil
}
