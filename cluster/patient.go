package cluster

import (
	"context"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// askAgain is the pause before a node that could not be reached is tried again: a node
// that is back serves hosts only when it has the log, and one attempt costs little.
const askAgain = 100 * time.Millisecond

// patient is raft's transport, but for one thing. The library waits twice as long after
// each failure to bring a node its entries, up to 10 s, and goes on waiting when that node
// is back. So here a leader's entries do not fail, but are tried until they arrive, for as
// long as it leads and the node is a member. Heartbeats do fail: they are how a leader
// learns that it is alone.
type patient struct {
	*raft.NetworkTransport
	node *Node
	ctx  context.Context           // the engine's
	raft atomic.Pointer[raft.Raft] // nil: it has not started
}

// AppendEntries implements raft.Transport.
func (t *patient) AppendEntries(id raft.ServerID, at raft.ServerAddress, ask *raft.AppendEntriesRequest, answer *raft.AppendEntriesResponse) error {
	for {
		*answer = raft.AppendEntriesResponse{}
		err := t.NetworkTransport.AppendEntries(id, at, ask, answer)
		if err == nil {
			t.node.hears(string(id))
		}
		if err == nil || isHeartbeat(ask) || !t.again(id, ask.Term) {
			return err
		}
	}
}

// InstallSnapshot implements raft.Transport. A snapshot can be read once: it is sent when
// the node has answered a heartbeat.
func (t *patient) InstallSnapshot(id raft.ServerID, at raft.ServerAddress, ask *raft.InstallSnapshotRequest, answer *raft.InstallSnapshotResponse, state io.Reader) error {
	beat := &raft.AppendEntriesRequest{RPCHeader: ask.RPCHeader, Term: ask.Term}
	for {
		err := t.NetworkTransport.AppendEntries(id, at, beat, new(raft.AppendEntriesResponse))
		if err == nil {
			return t.NetworkTransport.InstallSnapshot(id, at, ask, answer, state)
		}
		if !t.again(id, ask.Term) {
			return err
		}
	}
}

// isHeartbeat tells heartbeats as the library does.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

// again waits, and tells whether to go on: this node leads in that term, and the other
// one is a member.
func (t *patient) again(id raft.ServerID, term uint64) bool {
	select {
	case <-time.After(askAgain):
	case <-t.ctx.Done():
		return false
	}
	r := t.raft.Load()
	if r == nil || r.State() != raft.Leader || r.CurrentTerm() != term {
		return false
	}
	members := r.GetConfiguration()
	return members.Error() == nil &&
		slices.ContainsFunc(members.Configuration().Servers, func(s raft.Server) bool { return s.ID == id })
}
