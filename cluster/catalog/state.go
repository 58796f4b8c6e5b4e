package catalog

import "iter"

// State is a catalog at one moment. It is made by New, Apply and Read, never changed, and
// safe for concurrent use.
type State struct {
	core

	nodes        table[Node]        // by name
	removed      table[RemovedNode] // by name
	tokens       table[JoinToken]   // by hash
	luns         table[LUN]         // by id
	reservations table[*reserved]   // by LUN; only those that are not empty
	targets      table[Target]      // by name
	hosts        table[Host]        // by name
	groups       table[Group]       // by name
	mappings     table[Mapping]     // by target, subject, number
	users        table[User]        // by name
	apiTokens    table[APIToken]    // by id
	requests     table[request]     // by the index that they were applied at
	events       table[Event]       // by number

	// What follows from the tables above, for finding things.
	keys       table[NodeID]   // nodes and removed nodes, by key
	lunNames   table[UUID]     // by name
	naas       table[UUID]     // LUNs, by NAA identifier
	files      table[UUID]     // LUNs, by node and path of a replica
	initiators table[string]   // hosts, by initiator; those with an asterisk are in patterns
	patterns   table[string]   // hosts, by the beginning of an initiator's name
	members    table[struct{}] // by group and host
	uses       table[struct{}] // by LUN and key of a mapping
	apiHashes  table[UUID]     // API tokens, by hash
	answered   table[string]   // keys of requests, by id

	// stopped is why nothing can be applied any more; nil: all is well. It is this
	// node's own trouble, and in no snapshot.
	stopped error
}

// core is what there is one of. It is the first line of a snapshot.
type core struct {
	Format       int      `json:"format"`
	Index        uint64   `json:"index"` // of the last command
	Cluster      Cluster  `json:"cluster"`
	Version      int      `json:"version"`       // of commands that may be used
	Settings     Settings `json:"settings"`      // as they are now
	LongestLease Duration `json:"longest_lease"` // that was ever in force
	Discovery    CHAP     `json:"discovery"`
	Decided      uint64   `json:"decided"`              // index of the last command that changed who serves a LUN
	Events       uint64   `json:"events"`               // how many there ever were
	Recoveries   uint64   `json:"recoveries,omitempty"` // how many RecoverCluster there were
}

// New is a catalog with nothing in it; its first command is InitCluster.
func New() *State {
	return &State{core: core{Format: snapshotFormat, Version: 1, Settings: DefaultSettings, LongestLease: DefaultSettings.Lease}}
}

// Index is that of the last command that was applied.
func (s *State) Index() uint64 { return s.core.Index }

// Decided is the index of the last command that changed who serves, for whichever LUN.
func (s *State) Decided() uint64 { return s.core.Decided }

// Stopped tells why this node cannot go on; nil: it can. See ErrCannotRead.
func (s *State) Stopped() error { return s.stopped }

// Version is that of the commands that may be used: all nodes know them.
func (s *State) Version() int { return s.core.Version }

// pair is the key of two names in a table.
func pair(a, b string) string { return a + "\x00" + b }

// count counts what an iterator yields.
func count[V any](seq iter.Seq[V]) (n int) {
	for range seq {
		n++
	}
	return n
}
