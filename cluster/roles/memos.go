package roles

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
)

// memo is what is kept of a LUN. ID names the term.
type memo struct {
	Term uint64        `json:"term"`
	ID   catalog.UUID  `json:"id"`
	What failover.What `json:"what"`

	// Of failover.Forced.
	From uint64             `json:"from,omitempty"` // the term that lasted
	Loss catalog.LossPolicy `json:"loss,omitempty"` // in the place of the catalog's; empty: that counts
}

func (m memo) plain() failover.Memo {
	p := failover.Memo{Term: m.Term, What: m.What}
	if m.What == failover.Forced {
		p.From, p.Epoch = m.From, m.ID
	}
	return p
}

// check looks whether a memo can be one of a file of some version.
func (m memo) check(version int) error {
	forced := m.What == failover.Forced
	switch {
	case m.Term == 0, m.What > failover.Forced, forced && version < 2,
		forced != (m.From != 0), forced && m.Term != catalog.ForcedTerm(m.From),
		m.Loss != "" && !(forced && (m.Loss == catalog.Hold || m.Loss == catalog.ServeStale)):
		return fmt.Errorf("memo %v of term %d, from %d, loss policy %q", m.What, m.Term, m.From, m.Loss)
	}
	return nil
}

// A memo file is one line of JSON for all LUNs, and one with its CRC-32C:
//
//	{"version":2,"luns":{"UUID":{"term":3,"id":"UUID","what":1}, …}}
//	0f1e2d3c
//
// Version 1 did not know failover.Forced, with "from" and "loss".
type memoFile struct {
	Version int                   `json:"version"`
	LUNs    map[catalog.UUID]memo `json:"luns"`
}

// memosVersion is what is written.
const memosVersion = 2

// maxMemos bounds a memo file, in bytes: twice what all LUNs that a cluster may have take.
const maxMemos = 2 * catalog.MaxLUNs * 200

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readMemos reads the memo file at a path; without one there are no memos.
func readMemos(path string, read func() ([]byte, error)) (map[catalog.UUID]memo, error) {
	text, err := read()
	if errors.Is(err, fs.ErrNotExist) {
		return map[catalog.UUID]memo{}, nil
	}
	if err == nil {
		var all map[catalog.UUID]memo
		if all, err = parseMemos(text); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read how this node served its LUNs: %s: %w; without it the node cannot tell what it has promised. "+
		"If it is lost, remove this node from the cluster, and let it join anew under another name", path, err)
}

func parseMemos(text []byte) (map[catalog.UUID]memo, error) {
	line, sum, found := bytes.Cut(text, []byte("\n"))
	if len(text) > maxMemos || !found || string(sum) != checksum(line) {
		return nil, errors.New("the file is damaged")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var f memoFile
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if f.Version < 1 || f.Version > memosVersion {
		return nil, fmt.Errorf("it is of version %d, and this program knows version %d: it is older than the one before", f.Version, memosVersion)
	}
	for lun, m := range f.LUNs {
		if err := m.check(f.Version); err != nil {
			return nil, fmt.Errorf("LUN %v: %w", lun, err)
		}
	}
	if f.LUNs == nil {
		f.LUNs = map[catalog.UUID]memo{}
	}
	return f.LUNs, nil
}

func encodeMemos(all map[catalog.UUID]memo) []byte {
	line, err := json.Marshal(memoFile{memosVersion, all})
	if err != nil {
		panic(err) // there is nothing in it that could fail
	}
	return append(append(line, '\n'), checksum(line)...)
}

func checksum(line []byte) string { return fmt.Sprintf("%08x\n", crc32.Checksum(line, castagnoli)) }

// remember has a memo written, in the place of the one before; pair's Machine is told when
// it is durable.
func (k *Keeper) remember(p *pair, l *lun, m failover.Memo) {
	next := memo{Term: m.Term, ID: k.epoch(l, m.Term), What: m.What}
	if m.What == failover.Forced {
		next.ID, next.From, next.Loss = m.Epoch, m.From, l.loss
	}
	if p == nil && k.memos[l.id] == next {
		return
	}
	k.memos[l.id] = next
	k.queue = append(k.queue, written{l.id, next, p})
	k.dirty.Set()
}

// write is the task that writes memos: all that have come up meanwhile at once.
func (k *Keeper) write() {
	for {
		if k.dirty.Wait(k.ctx) != nil {
			return
		}
		all, batch := k.takeMemos()
		for err := k.cfg.Write(encodeMemos(all)); err != nil; err = k.cfg.Write(encodeMemos(all)) {
			k.cfg.Log.Error("cannot write down how this node serves its LUNs; what depends on it waits", "file", k.cfg.Path, "err", err)
			if k.cfg.Runtime.Sleep(k.ctx, rewrite) != nil {
				return
			}
		}
		k.wrote(all, batch)
	}
}

func (k *Keeper) takeMemos() (all map[catalog.UUID]memo, batch []written) {
	k.mu.Lock()
	defer k.mu.Unlock()
	batch, k.queue = k.queue, nil
	return maps.Clone(k.memos), batch
}

func (k *Keeper) wrote(all map[catalog.UUID]memo, batch []written) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.disk = all
	for _, w := range batch {
		if l := k.luns[w.lun]; l != nil && w.pair != nil && l.pair == w.pair {
			k.step(w.pair, failover.Remembered{LUN: w.lun, Memo: w.memo.plain()})
		}
	}
}
