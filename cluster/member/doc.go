// Package member is a daemon's membership in a cluster: who it is (package identity), its
// port for other nodes (transport), its part in the raft group (cluster), and the catalog
// that this group agrees on. A witness is a member, and nothing else.
//
// A daemon either founds a cluster, or joins one with a token; from then on it takes its
// membership up with Open. Its folder has
//
//	identity/  the node's key and certificate, and the CA's: package identity
//	raft/      the log and its snapshots: package cluster
//	founding   while a cluster is being made: what else is there counts for nothing
//
// While this node leads, it has the raft group follow the catalog: see keep.go. DESIGN.md
// tells in which order nodes come and go, and why.
package member
