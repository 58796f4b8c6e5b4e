// Package cluster runs this node's part of the raft group in which all nodes of a
// cluster, the witness among them, agree on one list of commands. What the commands
// mean is the FSM's business.
//
// A command is given to Propose at any node; it goes to the leader, is committed by a
// majority, and is applied at every node, in the same order, once: a proposal has an
// id, and one that comes a second time, because an answer was lost on its way, is not
// applied again. Propose returns when its command was applied at this very node, with
// the result of that.
//
// Beside the raft library's own connections (transport.Raft), nodes ask each other
// over transport.Cluster: see request.go. A node's folder has
//
//	raft.db       the log, and whom this node has voted for (bbolt)
//	snapshots/    states of the FSM, at most two
//
// What a node knows right after its start is what it knew to be committed some time
// before it stopped. What was committed since it learns from a leader; Sync waits for
// that.
// DESIGN.md tells the rest.
package cluster
