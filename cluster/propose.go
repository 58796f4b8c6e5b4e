package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// ErrResultUnknown: the command was applied, but this node has got the state that
// follows from it as a whole, and not the result.
var ErrResultUnknown = errors.New("the command was applied; its result is not known here")

// ErrTooLong: the command is longer than MaxCommand.
var ErrTooLong = errors.New("the command is too long")

// retryPause is between two attempts while nobody leads: an election takes longer.
const retryPause = 20 * time.Millisecond

// Propose has a command applied at all nodes, and returns its result here. It goes on
// trying until ctx ends; when it does, the command may be applied nevertheless, or
// later, but once at most.
func (n *Node) Propose(ctx context.Context, cmd []byte) (result any, err error) {
	if len(cmd) > MaxCommand {
		return nil, fmt.Errorf("propose %d bytes, at most %d: %w", len(cmd), MaxCommand, ErrTooLong)
	}
	var id proposalID
	rand.Read(id[:]) // never fails
	entry := append(id[:], cmd...)
	applied, forget := n.machine.expect(id)
	defer forget()
	at, err := n.atLeader(ctx, askPropose, entry, func() (uint64, error) { return n.commit(entry) }, applied)
	if err == nil && at.result == nil {
		err = n.machine.wait(ctx, at.index)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("propose: %w", err)
	case at.result != nil:
		return at.result.value, nil
	}
	select {
	case result := <-applied:
		return result, nil
	default:
		return nil, fmt.Errorf("propose: entry %d: %w", at.index, ErrResultUnknown)
	}
}

// outcome is an index, or a result that has come before it.
type outcome struct {
	index  uint64
	result *struct{ value any }
}

// atLeader has something done by whoever leads, until it is done, ctx ends, or a
// result comes by itself.
func (n *Node) atLeader(ctx context.Context, kind byte, body []byte, here func() (uint64, error), early <-chan any) (o outcome, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(n.ctx, func() { cancel(ErrClosed) })()
	last := errors.New("nobody leads the cluster: is a majority of its nodes running, and do they reach each other?")
	for {
		if o.index, err = n.once(ctx, kind, body, here); err == nil {
			return o, nil
		}
		if !errors.Is(err, errNotHere) {
			last = err
		}
		pause := time.NewTimer(retryPause)
		select {
		case value := <-early:
			pause.Stop()
			return outcome{result: &struct{ value any }{value}}, nil
		case <-ctx.Done():
			pause.Stop()
			return o, errors.Join(context.Cause(ctx), last)
		case <-pause.C:
		}
	}
}

// once tries it once.
func (n *Node) once(ctx context.Context, kind byte, body []byte, here func() (uint64, error)) (uint64, error) {
	leader := n.Leader()
	switch leader {
	case "":
		return 0, errNotHere
	case n.cfg.Identity.Name():
		return here()
	}
	answer, err := n.peers.ask(ctx, leader, kind, body)
	if err != nil {
		n.peers.drop(leader)
		return 0, err
	}
	if len(answer) != 8 {
		return 0, fmt.Errorf("node %s has answered with %d bytes", leader, len(answer))
	}
	return binary.BigEndian.Uint64(answer), nil
}

// commit has an entry committed, if this node leads.
func (n *Node) commit(entry []byte) (uint64, error) {
	if len(entry) < len(proposalID{}) {
		return 0, errors.New("a proposal without an id")
	}
	e := n.raft()
	f := e.Apply(entry, requestTime)
	if err := leading(e.await(f)); err != nil {
		return 0, err
	}
	return f.Index(), nil
}

// leading tells the errors of a node that does not lead, or no longer.
func leading(err error) error {
	for _, not := range []error{raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrLeadershipTransferInProgress, raft.ErrAbortedByRestore} {
		if errors.Is(err, not) {
			return fmt.Errorf("%w (%w)", errNotHere, err)
		}
	}
	return err
}

// Sync returns when everything is applied here that was committed when it was called:
// what the FSM says then is not older than the call.
func (n *Node) Sync(ctx context.Context) error {
	at, err := n.atLeader(ctx, askSync, nil, n.leaderApplied, nil)
	if err == nil {
		err = n.machine.wait(ctx, at.index)
	}
	if err != nil {
		return fmt.Errorf("ask the cluster for its latest state: %w", err)
	}
	return nil
}

// leaderApplied is the last entry applied here, if this node leads: an entry of its own
// is committed first, so a majority has said just now that it does.
func (n *Node) leaderApplied() (uint64, error) {
	e := n.raft()
	if err := leading(e.await(e.Barrier(requestTime))); err != nil {
		return 0, err
	}
	return n.machine.progress()
}

const (
	// awaitTime is how long a node that is asked for PeerApplied waits before it says
	// that it is not there yet: less than what the one that asks has patience for.
	awaitTime = 5 * time.Second
	// awaitPause is between two such questions.
	awaitPause = 100 * time.Millisecond
)

// PeerApplied returns when a node has applied the log up to an index. It goes on asking
// until ctx ends.
func (n *Node) PeerApplied(ctx context.Context, node string, index uint64) error {
	if node == n.cfg.Identity.Name() {
		return n.WaitApplied(ctx, index)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(n.ctx, func() { cancel(ErrClosed) })()
	for {
		_, err := n.peers.ask(ctx, node, askApplied, binary.BigEndian.AppendUint64(nil, index))
		if err == nil {
			return nil
		}
		pause := time.NewTimer(awaitPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("wait until node %s has entry %d: %w", node, index, errors.Join(context.Cause(ctx), err))
		case <-pause.C:
		}
	}
}

// awaitApplied answers another node's PeerApplied: nothing is said before it is true.
func (n *Node) awaitApplied(ctx context.Context, body []byte) (uint64, error) {
	if len(body) != 8 {
		return 0, fmt.Errorf("an index of %d bytes", len(body))
	}
	ctx, cancel := context.WithTimeout(ctx, awaitTime)
	defer cancel()
	if err := n.machine.wait(ctx, binary.BigEndian.Uint64(body)); err != nil {
		return 0, err
	}
	return n.machine.appliedIndex(), nil
}

// AskCertificate asks the other members for a new certificate for this node: see
// identity.Renewer.
func (n *Node) AskCertificate(ctx context.Context) ([]byte, error) {
	members, err := n.Members()
	if err != nil {
		return nil, err
	}
	errs := []error{errors.New("no node has issued a certificate")}
	for _, m := range members {
		if m.Node == n.cfg.Identity.Name() {
			continue
		}
		der, err := n.peers.ask(ctx, m.Node, askRenew, nil)
		if err == nil {
			return der, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
