package member

import (
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// ErrNone: this node is in no cluster yet.
var ErrNone = errors.New("this node is in no cluster yet: make one with twinlun cluster init, or join one with twinlun cluster join")

// Config says where a member lives.
type Config struct {
	Dir string // of the daemon
	// Listen is for other nodes. The member closes them, also when it does not come about.
	Listen []net.Listener
	// Applied is called for each command, in order, before anything else of this node can
	// learn of the new state: State is still the one before, and whoever has proposed the
	// command waits. With a zero Result the state is to be taken as a whole: once at the
	// start, before Open, Found and Join return; when this node was away for so long that
	// it has got a snapshot; and when it cannot go on (catalog.State.Stopped). It does not
	// block, and calls no method of the Member that waits. nil: nobody wants to know.
	Applied func(*catalog.State, catalog.Result)
	// Routes are other addresses, host:port, at which this node reaches some others than
	// those in the catalog.
	Routes map[string][]string
	Log    *slog.Logger     // nil: slog.Default()
	Now    func() time.Time // nil: time.Now
}

func (c *Config) complete() {
	if c.Applied == nil {
		c.Applied = func(*catalog.State, catalog.Result) {}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

func (c *Config) identity() string { return filepath.Join(c.Dir, "identity") }
func (c *Config) raft() string     { return filepath.Join(c.Dir, "raft") }
func (c *Config) founding() string { return filepath.Join(c.Dir, "founding") }

// closeListeners is for a member that does not come about.
func (c *Config) closeListeners() {
	for _, ln := range c.Listen {
		ln.Close()
	}
}

// FoundOptions describe a new cluster.
type FoundOptions struct {
	Cluster   string   // its name, for people
	Node      string   // of this node
	Site      string   // where it stands
	Addresses []string // where other nodes will reach it, host:port
}
