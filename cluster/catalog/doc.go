// Package catalog is the replicated state of a cluster: its nodes, LUNs and who serves
// them, targets, hosts and what they see, persistent reservations, who may administer,
// settings, and what has happened lately.
//
// It is pure: a State and a Command go in, a new State and a Result come out. There is
// no clock, randomness or I/O; times and random ids arrive inside commands. So every
// node that applies the same commands in the same order has the same State, to the byte
// of its snapshot.
//
// A State is never changed once it is made: who reads it needs no lock, and may keep it
// as long as he likes. Slices in what it returns are shared, and not to be written to.
//
// Each command is looked at twice by the same code: Check before it is proposed, Apply
// when it is agreed upon. A command that Apply refuses changes nothing, at every node
// alike. A command with the id of one that was applied lately changes nothing either and
// has the same Outcome, so that it may be proposed again when no answer came.
//
// # Commands
//
// A command is one JSON object:
//
//	{"v":1,"kind":"rename-cluster","id":"UUID","time":1760000000000,"by":"user eve","body":{…}}
//
//	v     the version of the commands that its kind and fields came with
//	id    made by who proposes it; the same when it is proposed again
//	time  milliseconds since 1970, by the clock of who proposes it
//	by    who wants it, for the event log
//
// # Snapshots
//
// A snapshot is lines of JSON, so that a person can read it too. The first line says what
// it is, each further one is one entry, and the last one has the number of lines before
// it and the CRC-32C of all their bytes:
//
//	{"kind":"catalog","value":{"format":1,"index":…,"cluster":{…},"settings":{…}, …}}
//	{"kind":"node","value":{…}}
//	…
//	{"kind":"end","value":{"lines":…,"crc":"0f1e2d3c"}}
//
// DESIGN.md tells why it is so, and how commands and snapshots change between versions.
package catalog
