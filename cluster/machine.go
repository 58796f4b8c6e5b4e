package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// proposalID tells proposals apart. It is random.
type proposalID [16]byte

// remembered is how many proposals are known by their id: one that comes a second
// time does so within seconds.
const remembered = 4096

// machine is the FSM as raft sees it. An entry of the log is
//
//	0  16  proposal id
//	16  …  the FSM's command
//
// and a snapshot, big endian:
//
//	 0   8  magic "TWLRAFT1"
//	 8   8  index of the last entry applied
//	16   4  number of proposals known, at most remembered
//	20  16  each of them, oldest first
//	 …   …  the FSM's state
type machine struct {
	fsm FSM
	log *slog.Logger

	// Raft's FSM goroutine's.
	known map[proposalID]bool
	order []proposalID // of known, oldest first

	mu      sync.Mutex
	applied uint64
	stopped error         // the FSM's, at the entry behind applied; nil: none
	moved   chan struct{} // closed when applied grows, or stopped changes
	waiting map[proposalID]chan any
}

const (
	snapshotMagic = "TWLRAFT1"
	snapshotHead  = 8 + 8 + 4
)

func newMachine(fsm FSM, log *slog.Logger) *machine {
	return &machine{
		fsm: fsm, log: log, known: map[proposalID]bool{},
		moved: make(chan struct{}), waiting: map[proposalID]chan any{},
	}
}

// Apply implements raft.FSM. What it returns is of no use: see await.
func (m *machine) Apply(entry *raft.Log) any {
	if applied, err := m.progress(); entry.Index <= applied || err != nil {
		return nil // by replay; or never
	}
	if len(entry.Data) < len(proposalID{}) {
		m.log.Error("an entry of the raft log without a proposal id is passed over", "index", entry.Index)
		m.advance(entry.Index)
		return nil
	}
	id := proposalID(entry.Data)
	if !m.known[id] {
		result, err := m.fsm.Apply(entry.Data[len(id):], entry.Index)
		if err != nil {
			m.stop(err)
			return nil
		}
		m.remember(id)
		m.answer(id, result)
	}
	m.advance(entry.Index)
	return nil
}

// stop applies nothing further: what came next would find another state than elsewhere.
func (m *machine) stop(err error) {
	m.log.Error("this node cannot follow the cluster any further", "error", err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = err
	m.moveLocked()
}

func (m *machine) remember(id proposalID) {
	if len(m.order) == remembered {
		delete(m.known, m.order[0])
		m.order = slices.Delete(m.order, 0, 1)
	}
	m.known[id] = true
	m.order = append(m.order, id)
}

// answer gives the result to whoever has proposed it here.
func (m *machine) answer(id proposalID, result any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.waiting[id]; c != nil {
		c <- result // has room for one, and gets one
	}
}

func (m *machine) advance(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied, m.stopped = index, nil
	m.moveLocked()
}

func (m *machine) moveLocked() {
	close(m.moved)
	m.moved = make(chan struct{})
}

// progress is the last entry applied here, and why there will be none behind it.
func (m *machine) progress() (applied uint64, stopped error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied, m.stopped
}

// expect announces a proposal, before anybody is asked to commit it.
func (m *machine) expect(id proposalID) (result <-chan any, forget func()) {
	c := make(chan any, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting[id] = c
	return c, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiting, id)
	}
}

// appliedIndex is the last entry applied here.
func (m *machine) appliedIndex() uint64 {
	applied, _ := m.progress()
	return applied
}

// wait returns when an entry was applied here.
func (m *machine) wait(ctx context.Context, index uint64) error {
	for {
		m.mu.Lock()
		applied, stopped, moved := m.applied, m.stopped, m.moved
		m.mu.Unlock()
		if applied >= index {
			return nil
		}
		if stopped != nil {
			return fmt.Errorf("wait for entry %d, %d are applied: %w", index, applied, stopped)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for entry %d, %d are applied: %w", index, applied, context.Cause(ctx))
		}
	}
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if _, err := m.progress(); err != nil {
		return nil, err // raft would take it for one of a later entry
	}
	write, err := m.fsm.Snapshot()
	if err != nil {
		return nil, err
	}
	head := []byte(snapshotMagic)
	head = binary.BigEndian.AppendUint64(head, m.appliedIndex())
	head = binary.BigEndian.AppendUint32(head, uint32(len(m.order)))
	for _, id := range m.order {
		head = append(head, id[:]...)
	}
	return &snapshot{head, write}, nil
}

// snapshot implements raft.FSMSnapshot.
type snapshot struct {
	head  []byte
	write func(w io.Writer) error
}

func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	w := bufio.NewWriterSize(sink, 64<<10)
	_, err := w.Write(s.head)
	if err == nil {
		err = s.write(w)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s *snapshot) Release() {}

// Restore implements raft.FSM.
func (m *machine) Restore(from io.ReadCloser) error {
	defer from.Close()
	r := bufio.NewReaderSize(from, 64<<10)
	applied, order, err := readHead(r)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := m.fsm.Restore(r); err != nil {
		return fmt.Errorf("snapshot of entry %d: %w", applied, err)
	}
	m.known, m.order = map[proposalID]bool{}, order
	for _, id := range order {
		m.known[id] = true
	}
	m.advance(applied)
	return nil
}

func readHead(r io.Reader) (applied uint64, order []proposalID, err error) {
	var head [snapshotHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[16:])
	if !bytes.HasPrefix(head[:], []byte(snapshotMagic)) || n > remembered {
		return 0, nil, fmt.Errorf("it begins with %q and has %d proposals: it is no snapshot of this version", head[:8], n)
	}
	order = make([]proposalID, n)
	for i := range order {
		if _, err := io.ReadFull(r, order[i][:]); err != nil {
			return 0, nil, err
		}
	}
	return binary.BigEndian.Uint64(head[8:]), order, nil
}
