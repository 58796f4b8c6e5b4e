package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twinlun/twinlun/target/reservation"
)

// Outcome is what has become of a command, the same at every node and whenever the
// command is applied again.
type Outcome struct {
	Error *Error `json:"error,omitempty"` // nil: done

	// Of TakeAlone, JoinBoth, Leave and ForceAlone: how many LUNs were changed, how many
	// were not, and why, for the first of them. The state tells about all.
	Done      int    `json:"done,omitempty"`
	Left      int    `json:"left,omitempty"`
	LeftFirst []Left `json:"left_first,omitempty"`

	// Reservation is the outcome of a ReserveOut.
	Reservation reservation.Outcome `json:"reservation,omitempty"`
}

// Result is what has become of a command, and what it has changed here.
type Result struct {
	Outcome
	Command  Command
	Changes  []Change // in order; none if the command was refused or is a repetition
	Repeated bool     // the command was applied before, with this outcome
}

// request is a command that is remembered.
type request struct {
	Index   uint64  `json:"index"`
	ID      UUID    `json:"id"`
	Outcome Outcome `json:"outcome"`
}

// change is a state in the making.
type change struct {
	State
	command Command
	index   uint64 // of the command; the core still has that of the one before
	changes []Change
	outcome Outcome
}

// Apply carries out an agreed command, whose index is higher than that of any before. An
// error means that this node cannot go on (ErrCannotRead): the state that is returned
// refuses everything further, and the one before is what there is to be looked at.
// Whatever was wrong with the command itself is in the Outcome.
func (s *State) Apply(index uint64, raw []byte) (*State, Result, error) {
	if s.stopped != nil {
		return s, Result{}, s.stopped
	}
	if index <= s.core.Index {
		panic(fmt.Sprintf("catalog: command %d is applied after %d", index, s.core.Index))
	}
	command, version, err := decode(raw)
	if err != nil {
		next := *s
		next.stopped = fmt.Errorf("command at index %d: %w", index, err)
		return &next, Result{}, next.stopped
	}
	next, result := s.apply(index, command, version)
	return next, result, nil
}

// Check tells whether a command would be carried out now. It is asked before a command is
// proposed, so that what cannot succeed makes no work for the others.
func (s *State) Check(c Command) error {
	if s.stopped != nil {
		return s.stopped
	}
	raw, err := c.Encode()
	if err != nil {
		return &Error{Code: Invalid, Message: err.Error()}
	}
	c, version, err := decode(raw)
	if err != nil {
		return &Error{Code: Invalid, Message: err.Error()}
	}
	if _, result := s.apply(s.core.Index+1, c, version); result.Error != nil {
		return result.Error
	}
	return nil
}

func (s *State) apply(index uint64, command Command, version int) (*State, Result) {
	if r, again := s.Answer(command.ID); again {
		next := *s
		next.core.Index = index
		return &next, Result{Outcome: r, Command: command, Repeated: true}
	}
	c := &change{State: *s, command: command, index: index}
	if err := c.run(version); err != nil {
		refused := new(Error)
		if !errors.As(err, &refused) {
			panic("catalog: an error of a command that is no Error: " + err.Error())
		}
		c = &change{State: *s, index: index, outcome: Outcome{Error: refused}}
	}
	c.core.Index = index
	c.remember(command.ID)
	return &c.State, Result{Outcome: c.outcome, Command: command, Changes: c.changes}
}

// run checks what all commands have in common, and does it.
func (c *change) run(version int) error {
	_, first := c.command.Body.(*InitCluster)
	switch {
	case c.command.ID.zero():
		return invalid("id", "is all zeros; a command has a random id")
	case version > c.core.Version:
		return &Error{Code: Unsupported, Message: fmt.Sprintf("the cluster uses commands of version %d, and this is one of version %d", c.core.Version, version),
			Hint: "upgrade all nodes, then raise the cluster's version"}
	case !first && c.core.Cluster.ID.zero():
		return conflict("initialise one first", "there is no cluster yet")
	}
	if err := checkText("by", c.command.By, maxBy); err != nil {
		return err
	}
	return c.command.Body.apply(c)
}

// Answer is the outcome of a command that was applied lately.
func (s *State) Answer(id UUID) (Outcome, bool) {
	key, found := s.answered.get(id.key())
	if !found {
		return Outcome{}, false
	}
	r, _ := s.requests.get(key)
	return r.Outcome, true
}

// remember keeps the outcome of a command, and forgets the oldest.
func (c *change) remember(id UUID) {
	if id.zero() {
		return
	}
	c.putRequest(request{c.index, id, c.outcome})
	if c.requests.len() > MaxRequests {
		key, oldest := c.requests.first()
		c.requests.drop(key)
		c.answered.drop(oldest.ID.key())
	}
}

func (c *change) putRequest(r request) {
	key := number(r.Index)
	c.requests.set(key, r)
	c.answered.set(r.ID.key(), key)
}

// number is the key of a number, in order.
func number(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// note says what has changed.
func (c *change) note(what Change) { c.changes = append(c.changes, what) }
