package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/transport"
)

// FSM is the state that is the same at all nodes. Apply, Snapshot and Restore are
// called one at a time; what reads the state beside them must be kept apart by the FSM
// itself.
type FSM interface {
	// Apply carries out a command, which must do the same at every node. index is its
	// place in the list; result is for whoever has proposed it here. An error means that
	// this node cannot go on: nothing further is applied here, and the node says so to
	// whoever asks what is. It still keeps the log and votes, and begins again with this
	// very command when it is started anew.
	Apply(cmd []byte, index uint64) (result any, err error)
	// Snapshot holds on to the present state, at once. write is called later, while
	// commands go on, or never.
	Snapshot() (write func(w io.Writer) error, err error)
	// Restore replaces the state by one that Snapshot has written. With an error the
	// state is as before.
	Restore(r io.Reader) error
}

// Config says what a node is made of.
type Config struct {
	Dir      string // belongs to the node alone
	Identity *identity.Node
	Port     *transport.Port // the caller closes it, after the node
	FSM      FSM
	// Witness: a voter that stands for election only when the others do not, as it may be
	// far away. Package member lets it lead when all is quiet.
	Witness bool
	// Voter tells whether a node may have a vote. It is asked at the leader, right before
	// that gives it one, and when all that is committed is applied there. nil: all may.
	Voter func(node string) bool
	// Found makes a new group with this node as its only member, if the folder is empty.
	Found bool
	// Leader is called, from one goroutine, whenever another node leads; "": none that
	// this node knows of.
	Leader func(node string)
	// Heartbeat is how long a follower hears nothing from its leader before it stands
	// for election, at least; at most twice that. 0: 500 ms.
	Heartbeat time.Duration
	Log       *slog.Logger // nil: slog.Default()

	// Compaction; 0: the defaults.
	SnapshotEvery uint64 // entries; 0: 1024
	TrailingLogs  uint64 // entries kept behind a snapshot, for followers that lag; 0: 1024
}

// DefaultHeartbeat has a dead leader replaced within 1.5 s, and leaves a line of 50 ms
// one way several round trips before anybody gets impatient.
const DefaultHeartbeat = 500 * time.Millisecond

func (c *Config) complete() error {
	setDefault(&c.Heartbeat, DefaultHeartbeat)
	setDefault(&c.SnapshotEvery, 1024)
	setDefault(&c.TrailingLogs, 1024)
	setDefault(&c.Log, slog.Default())
	switch {
	case c.Dir == "" || c.Identity == nil || c.Port == nil || c.FSM == nil:
		return errors.New("cluster: Dir, Identity, Port and FSM are needed")
	case c.Heartbeat < 20*time.Millisecond:
		return fmt.Errorf("cluster: a heartbeat of %v is too short", c.Heartbeat)
	}
	return nil
}

func setDefault[T comparable](v *T, def T) {
	if *v == *new(T) {
		*v = def
	}
}

// raft is the library's configuration.
func (c *Config) raft() *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = raft.ServerID(c.Identity.Name())
	r.HeartbeatTimeout, r.ElectionTimeout = c.Heartbeat, c.Heartbeat
	r.LeaderLeaseTimeout = c.Heartbeat * 4 / 5
	if c.Witness {
		r.HeartbeatTimeout, r.ElectionTimeout = 2*c.Heartbeat, 2*c.Heartbeat
	}
	r.SnapshotThreshold, r.TrailingLogs = c.SnapshotEvery, c.TrailingLogs
	r.SnapshotInterval = snapshotLook
	r.NoSnapshotRestoreOnStart = true // see resume
	r.NoLegacyTelemetry = true
	r.ShutdownOnRemove = false // it would also end a leader that only loses its vote
	r.Logger = newLogger(c.Log)
	return r
}

// snapshotLook is how often the number of entries since the last snapshot is looked at.
const snapshotLook = 30 * time.Second
