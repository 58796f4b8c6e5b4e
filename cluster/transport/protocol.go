package transport

import "slices"

// Protocol is what is spoken on a connection, as ALPN has it. A connection speaks one
// from its first byte to its last.
type Protocol string

// The protocols between nodes.
const (
	Raft    Protocol = "twinlun-raft/1"    // package cluster: the raft library's RPCs
	Cluster Protocol = "twinlun-cluster/1" // package cluster: requests to another node
	Control Protocol = "twinlun-control/1" // package replication: a link's control stream
	Bulk    Protocol = "twinlun-bulk/1"    // package replication: its bulk streams
)

// Join is for those that are no nodes yet: the only one without a certificate of the
// dialer.
const Join Protocol = "twinlun-join/1"

// between are the protocols that need a certificate at both ends.
var between = []string{string(Raft), string(Cluster), string(Control), string(Bulk)}

// isJoin tells whether a dialer offers what a stranger may speak, and that alone.
func isJoin(offered []string) bool { return slices.Equal(offered, []string{string(Join)}) }
