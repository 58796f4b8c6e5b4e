// Package coherence is the protocol that keeps two replicas of a LUN one LUN: a
// pure state machine for one of them. An Event goes in, Actions come out; there
// is no goroutine, clock, lock or I/O in it, so that tests explore it
// exhaustively and a seed replays it.
//
// It promises that every block behaves like one copy while both replicas serve
// (each read returns the last acknowledged write or a later one, at either site),
// and that no acknowledged write is lost, whichever process, operating system or
// link fails at whatever moment, apart from host writes that no host and no site
// has flushed.
//
// Its owner (package replication) serialises the calls of Step, carries out the
// actions in order, and alone calls the parts of dirtymap.Map that belong to the
// engine. Host commands use the rest of the map without asking the engine; they
// come to it only when Map.Enter refuses them.
package coherence
