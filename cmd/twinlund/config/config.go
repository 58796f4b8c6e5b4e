// Package config is the daemon's configuration: a YAML file, environment variables
// and flags, the later ones first. It promises that a key it does not know, or a
// value it cannot use, is an error that names it, says where it stands and what is
// allowed; nothing is ever ignored silently.
//
// Settings() is the table of everything that has one value; each can be given as
//
//	file         iscsi:
//	               portal-group: 1
//	environment  TWINLUN_ISCSI_PORTAL_GROUP=1
//	flag         --iscsi-portal-group 1
//
// The lists iscsi.portals, hosts, targets and luns stand in the file only. Secrets have no
// flags, which everybody on the machine could see; each can be in a file of its own.
package config

import (
	"log/slog"
	"time"

	"github.com/twinlun/twinlun/secret"
	"github.com/twinlun/twinlun/target/iscsi"
)

// Config is a daemon's configuration, complete and checked.
type Config struct {
	Node        string // this node's name
	DataDir     string
	Log         Log
	Status      Status
	PortalGroup uint16        // of this node; different at the two nodes
	PingTimeout time.Duration // an initiator that does not answer for so long is gone
	Peer        Peer
	LUNs        []LUN    // at least one
	Targets     []Target // at least one
	Discovery   iscsi.Auth

	// Of a node in a cluster. Its LUNs, targets and hosts come from the catalog.
	Cluster *Cluster          // nil: one of a pair that is configured by hand
	Groups  map[string]uint16 // portal groups of all nodes, by name; nil: as the portals have them
	Witness *Witness          // nil: it serves LUNs

	// Warnings are what is not wrong, and not good either.
	Warnings []string

	cluster   Cluster
	witness   Witness
	common    Target // what targets have in common, or the only one
	discovery proof
}

// Cluster is what a node that belongs to a cluster, or is to, has to itself.
type Cluster struct {
	Listen string // host:port for the other nodes
	Socket string // path of the API's socket
	// Routes are other addresses, host:port, at which this node reaches some others than
	// they have given: they are behind something that translates addresses, say.
	Routes map[string][]string
}

// Log says what is logged, and how.
type Log struct {
	Level slog.Level
	JSON  bool
}

// Status is the status page.
type Status struct {
	Listen string // host:port on loopback; "": none
}

// Target is where and as what initiators find LUNs.
type Target struct {
	Number  uint8  // the same at both nodes, and no other target's
	IQN     string // the same
	Alias   string
	Listen  []string          // host:port; at least one
	Portals []Portal          // of both nodes, as SendTargets reports them
	Hosts   []iscsi.Access    // who may log in; at least one
	Views   []View            // of hosts that see it otherwise than all do
	LUNs    map[uint16]uint16 // what it shows: LUNs, and the numbers of those; nil: all
}

// Portal is an address at which the target is served.
type Portal struct {
	Address string // host:port
	Group   uint16
}

// Peer is the other node, and the link to it.
type Peer struct {
	Name      string
	Listen    string // host:port; needed if the peer dials
	Address   string // host:port; needed if this node dials
	Streams   int    // bulk streams
	Heartbeat time.Duration
	DeadAfter time.Duration
	Compress  bool
	CopyRate  int64 // bytes per second and LUN; 0: no limit
	Token     secret.Text
}

// View is how some hosts see a target.
type View struct {
	Initiator string            // as in Hosts
	Prefer    string            // the node whose portals they should use; "": as the LUN says
	LUNs      map[uint16]uint16 // the LUNs that they see, and the numbers of those; nil: all of the target's
}

// LUN is a mirrored LUN.
type LUN struct {
	Number       uint16
	Name         string
	UUID         [16]byte
	NAA          [16]byte // zero: it is made from the UUID
	Peer         string   // in a cluster: the node with the other replica; "": there is none
	Size         int64    // bytes
	ExtentSize   int64    // bytes
	BlockSize    int64    // of the logical blocks that hosts see, bytes: 512 or 4096
	Backing      string
	Map          string
	Preferred    string        // name of the node that wins ties
	ColdAfter    time.Duration // ownership of what is not written is given back then
	ReadOnly     bool          // hosts cannot write
	SanitizeRate int64         // of SANITIZE with OVERWRITE, bytes per second; 0: no limit
	Removable    bool          // hosts can eject it
	Space        Threshold     // hosts are told when less is available to the backing
	ServeStale   bool          // if the peer lost newer data with its replica, serve what is here
}
