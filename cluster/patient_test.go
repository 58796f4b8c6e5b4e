package cluster

import (
	"testing"

	"github.com/hashicorp/raft"
)

// What a leader has for a node that is away is tried until it is back, and given up when
// it leads no more, or the node is no member.
func TestPatience(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	w.propose("a", "one")
	w.nodes["c"].stop()
	w.propose("a", "two") // the others go on
	leader := w.nodes[w.leader("a", "b")]
	send := func(term uint64, beat bool) chan error {
		ask := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.id.Name()), Addr: []byte(leader.id.Name())}, Term: term}
		if !beat {
			ask.PrevLogEntry, ask.PrevLogTerm = 1<<40, term // which c does not have, and says so
		}
		ended := make(chan error, 1)
		go func() {
			ended <- leader.raft().transport.AppendEntries("c", "c", ask, new(raft.AppendEntriesResponse))
		}()
		return ended
	}
	term := leader.Stats().Term
	if err := <-send(term-1, false); err == nil {
		t.Error("entries of a term that is over arrived at a node that is away")
	}
	if err := <-send(term, true); err == nil {
		t.Error("a heartbeat arrived at a node that is away")
	}
	waiting := send(term, false)
	if err := <-send(term, true); err == nil { // at least as long as one attempt
		t.Error("a heartbeat arrived at a node that is away")
	}
	select {
	case err := <-waiting:
		t.Errorf("entries for a node that is away: %v", err)
	default:
	}
	w.nodes["c"].start(false)
	if err := <-waiting; err != nil {
		t.Errorf("entries for a node that is back: %v", err)
	}
	w.check([]string{"one", "two"}, abc...)

	w.nodes["c"].stop()
	waiting = send(leader.Stats().Term, false)
	if err := leader.RemoveMember(w.ctx(), "c"); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err == nil {
		t.Error("entries arrived at a node that was removed, and is away")
	}
}
