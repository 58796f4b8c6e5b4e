package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/twinlun/twinlun/replication/coherence"
)

const (
	// hostPause is between two commands of the host that watches a join: short against
	// what is to be found.
	hostPause = time.Millisecond
	// hostWatches is how long it goes on when the join is over, lest something that comes
	// of the join is not seen.
	hostWatches = time.Second
	// waitAim is for how long a host may wait. Initiators give a command up after 30 s,
	// and people notice long before.
	waitAim = time.Second
)

// newcomerRow has a new replica of a huge LUN join a site that serves hosts alone, as
// after a site was lost. One host there writes and reads a block every
// millisecond, all over the LUN.
func newcomerRow(b *bench) (results []result, err error) {
	sizes := []struct {
		size int64
		aim  time.Duration
	}{{tib, time.Second}, {16 * tib, 5 * time.Second}}
	for _, s := range pick(b, sizes, sizes[:1]) {
		joined, waited, err := b.newcomer(s.size)
		if err != nil {
			return nil, fmt.Errorf("LUN of %d TiB: %w", s.size/tib, err)
		}
		line := func(what string, took, aim time.Duration) result {
			return result{
				what: fmt.Sprintf("%d TiB, %s", s.size/tib, what), figure: fmt.Sprintf("%.3f s", took.Seconds()),
				aim: fmt.Sprintf("< %v", aim), met: took < aim,
			}
		}
		results = append(results,
			line("a new replica joins", joined, s.aim),
			line("a host at the other site waits at most", waited, waitAim))
	}
	return results, nil
}

// newcomer measures one join.
func (b *bench) newcomer(size int64) (joined, waited time.Duration, err error) {
	dir, err := b.folder()
	if err != nil {
		return 0, 0, err
	}
	p, o := new(pair), pairOptions{size: size, copyRate: noCopies}
	defer func() { err = errors.Join(err, p.close(), b.clean()) }()
	if p.a, err = newSite(filepath.Join(dir, "a"), true, o, b.log); err != nil {
		return 0, 0, err
	}
	if p.b, err = newSite(filepath.Join(dir, "b"), false, o, b.log); err != nil {
		return 0, 0, err
	}
	role := coherence.Role{Term: 1, ID: [16]byte{4}, Serve: coherence.ServeAlone, New: true}
	if _, err = p.a.replica.SetRole(role); err != nil {
		return 0, 0, err
	}
	role.Serve, role.New = coherence.ServeNone, false
	if _, err = p.b.replica.SetRole(role); err != nil {
		return 0, 0, err
	}
	return b.watchJoin(p, o, size)
}

// watchJoin connects the sites, and is the host until they are joined.
func (b *bench) watchJoin(p *pair, o pairOptions, size int64) (joined, waited time.Duration, err error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	block := make([]byte, blockSize)
	began := time.Now()
	for i := int64(0); ; i++ {
		if i == 100 { // what comes with the first commands is over
			began, waited = time.Now(), 0
			if err := p.connect(o, b.log); err != nil {
				return 0, 0, err
			}
		}
		off, from := i*7919*extentSize%size, time.Now()
		err := errors.Join(p.a.volume.WriteAt(ctx, block, off, false), p.a.volume.ReadAt(ctx, block, size-blockSize-off))
		if err != nil {
			return 0, 0, err
		}
		waited = max(waited, time.Since(from))
		if _, yes := p.b.replica.Joined(); yes && joined == 0 {
			joined = time.Since(began)
		}
		if joined != 0 && time.Since(began) > joined+hostWatches {
			return joined, waited, nil
		}
		time.Sleep(hostPause)
	}
}
