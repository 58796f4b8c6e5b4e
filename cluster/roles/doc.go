// Package roles lets a node serve its LUNs as the cluster decides. It drives the decisions
// of package failover: one Machine for each other node with which this one shares LUNs,
// fed with what the catalog says, with heartbeats over the link, with the state of the
// replicas, and with time; and it carries out what they say: roles for replicas, leases for
// volumes, proposals to the cluster, memos on disk.
//
// A Keeper has all of it, under one lock that is never held across anything that blocks.
// What has to be in force before something else happens (failover.Action) is in force when
// the lock is released.
package roles
