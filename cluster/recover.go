package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// Recovery is a new group that is made of what is left of one whose majority is gone for
// good.
type Recovery struct {
	// Stay are nodes of the old group that stay members, without a vote at first. All that
	// they have applied must have been applied here (AppliedAt).
	Stay []string
	// Command returns what is applied before anything else in the new group; or why there
	// is to be none. pending are commands, with their indexes, of which this node does not
	// know whether a majority had agreed on them; in the new group they stand, before this one.
	Command func(pending iter.Seq2[uint64, []byte]) ([]byte, error)
}

// errRecovering is what those get who wait for the old group.
var errRecovering = errors.New("this node is making a new group")

// Recover makes a new group of this node, which has the only vote, and returns the result
// of the first command in it. Nobody is asked: it is for an operator who knows that a majority of the
// old group is gone, and never comes back.
//
// The new list of members and the command are written in one transaction. So after a crash,
// and after an error that is not ErrHalfway, there is either the old group or the new one.
func (n *Node) Recover(r Recovery) (result any, err error) {
	n.engaging.Lock()
	defer n.engaging.Unlock()
	if n.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if err := guarded(n.store.check); err != nil {
		return nil, fmt.Errorf("the raft log in %s is damaged: %w; another node that is left may have a good one", n.cfg.Dir, err)
	}
	old := n.raft()
	if err := n.untaken(old); err != nil {
		return nil, err
	}
	if err := old.stop(errRecovering); err != nil {
		return nil, errors.Join(err, n.goOn())
	}
	id, err := n.rewrite(old, r)
	applied, forget := n.machine.expect(id)
	defer forget()
	if err := errors.Join(err, n.goOn()); err != nil {
		return nil, err
	}
	select {
	case result := <-applied:
		return result, nil
	default:
		return nil, fmt.Errorf("%w: the first command of the new group was not applied", ErrHalfway)
	}
}

// untaken checks that the FSM has taken the snapshot with which the log begins.
func (n *Node) untaken(e *engine) error {
	at, err := n.snapshotIndex()
	if err == nil && e.AppliedIndex() < at {
		err = fmt.Errorf("this node has a snapshot of entry %d, and could not take it over; its log says why", at)
	}
	return err
}

func (n *Node) snapshotIndex() (uint64, error) {
	list, err := n.snapshots.List()
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[0].Index, nil
}

// reached is the entry up to which all commands were applied here. Behind the last of them
// may be some of the library's own, which are in the snapshot, and not in the log any more.
func (n *Node) reached() (uint64, error) {
	at, err := n.snapshotIndex()
	return max(at, n.machine.appliedIndex()), err
}

// ErrHalfway: the group may be the new one already, and this process cannot go on with it.
var ErrHalfway = errors.New("start this node anew: it goes on with what its log has")

// goOn applies what is committed now, and sets the library to work again.
func (n *Node) goOn() error {
	at, err := n.reached()
	if err == nil {
		err = n.dies("written")
	}
	if err == nil {
		err = n.replay(at)
	}
	if err == nil {
		err = n.dies("applied")
	}
	if err == nil {
		err = n.engage()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHalfway, err)
	}
	return nil
}

// rewrite has the log go on with a new group.
func (n *Node) rewrite(old *engine, r Recovery) (id proposalID, err error) {
	last, term := old.LastIndex(), old.CurrentTerm()+1
	at, broken := n.reached()
	if broken != nil {
		return id, broken
	}
	cmd, err := r.Command(n.pending(at, last, &broken))
	if err := errors.Join(broken, err); err != nil {
		return id, err
	}
	if len(cmd) > MaxCommand {
		return id, ErrTooLong
	}
	rand.Read(id[:]) // never fails
	now := time.Now()
	return id, n.store.beginAnew(term, n.dies,
		&raft.Log{Index: last + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(n.members(r.Stay)), AppendedAt: now},
		&raft.Log{Index: last + 2, Term: term, Type: raft.LogCommand, Data: append(id[:], cmd...), AppendedAt: now})
}

// members are those of the new group.
func (n *Node) members(stay []string) (c raft.Configuration) {
	c.Servers = append(c.Servers, n.server(n.cfg.Identity.Name(), raft.Voter))
	for _, node := range stay {
		c.Servers = append(c.Servers, n.server(node, raft.Nonvoter))
	}
	return c
}

// pending are the commands in the log behind an entry.
func (n *Node) pending(at, last uint64, broken *error) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i := at + 1; i <= last; i++ {
			entry := new(raft.Log)
			if *broken = n.store.GetLog(i, entry); *broken != nil {
				return
			}
			if entry.Type == raft.LogCommand && len(entry.Data) >= len(proposalID{}) && !yield(i, entry.Data[len(proposalID{}):]) {
				return
			}
		}
	}
}

func (n *Node) dies(at string) error {
	if n.die == nil {
		return nil
	}
	return n.die(at)
}

// termKey is the library's, for the highest term that it knows.
var termKey = []byte("CurrentTerm")

// beginAnew appends entries that nobody has to agree on, in a term that there was not yet
// here: all that is in the log is committed with them. It does all of that, or nothing.
func (s *store) beginAnew(term uint64, dies func(at string) error, logs ...*raft.Log) error {
	if err := dies("stopped"); err != nil {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, l := range logs {
			if err := tx.Bucket(logBucket).Put(key(l.Index), encodeEntry(l)); err != nil {
				return err
			}
		}
		if err := tx.Bucket(valuesBucket).Put(termKey, key(term)); err != nil {
			return err
		}
		if err := noteIn(tx, logs[len(logs)-1].Index); err != nil {
			return err
		}
		return dies("writing")
	})
}

// AppliedAt is the last entry that another node has applied.
func (n *Node) AppliedAt(ctx context.Context, node string) (uint64, error) {
	answer, err := n.peers.ask(ctx, node, askApplied, key(0))
	if err != nil {
		return 0, err
	}
	if len(answer) != 8 {
		return 0, fmt.Errorf("node %s has answered with %d bytes", node, len(answer))
	}
	return binary.BigEndian.Uint64(answer), nil
}

// AppliedTime is when the last entry that was applied here was made, by the clock of who led
// then; zero: the log does not tell any more.
func (n *Node) AppliedTime() time.Time {
	entry := new(raft.Log)
	if n.store.GetLog(n.machine.appliedIndex(), entry) != nil {
		return time.Time{}
	}
	return entry.AppendedAt
}
