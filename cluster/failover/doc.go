// Package failover decides who serves the LUNs that two nodes share: which node may
// answer hosts, until when, and what it proposes to the cluster when the other one is
// lost or back.
//
// A Machine is one node's side of one pair of nodes. It is pure: Step takes an Event and
// the time, and returns Actions, which the owner carries out in their order. It has no
// clock, goroutine or I/O, and draws nothing at random, so a seed replays it.
//
// What it promises, as long as the clocks of the two nodes differ in their rate by 2% at
// most: while one node serves a LUN alone, the other one answers no host. What it relies
// on is what the catalog says (package catalog: terms and serving sets) and that its own
// Memos are on disk when it is told so.
//
// DESIGN.md has the rules and why they are enough.
package failover
