package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/twinlun/twinlun/target/backing"
	"github.com/twinlun/twinlun/test/initiator"
)

const (
	// iopsSize leaves room for others in memory, and is large against every cache
	// of a processor.
	iopsSize = 256 << 20
	iopsAim  = 0.95
	// iopsRound is short, so that both halves of a pair find the machine alike, and
	// long against a time slice of the scheduler.
	iopsRound = 100 * time.Millisecond
)

// iopsRow compares a volume with its bare backing file. Both are LUNs of one iSCSI
// server, in files of the same folder, and have the same initiator. The volume is
// one of a running pair; its extents are OWNED. Its copies wait, so that the peer
// takes no processor time, which it would not on a machine of its own; the last
// line is with copies going on.
func iopsRow(b *bench) ([]result, error) {
	reads, writes, err := iopsIdle(b)
	if err != nil {
		return nil, err
	}
	copying, err := iopsCopying(b)
	if err != nil {
		return nil, err
	}
	line := func(what string, r sideBySide, aim string) result {
		ratio, text := r.ratio()
		return result{
			what: what, figure: fmt.Sprintf("%.0f IOPS", median(r.a)), against: fmt.Sprintf("bare file %.0f", median(r.b)),
			ratio: text, aim: aim, met: ratio >= iopsAim,
		}
	}
	aim := fmt.Sprintf("≥ %.2f", iopsAim)
	return []result{
		line("4 KiB random reads, QD 32, iSCSI", reads, aim),
		line("4 KiB random writes, QD 32, iSCSI", writes, aim),
		line("… and copied to a peer on the same processors", copying, ""),
	}, nil
}

// iopsBed has both disks and a session with each.
type iopsBed struct {
	pair   *pair
	store  *backing.Disk
	server *server
	twin   *initiator.Session
	bare   *initiator.Session
}

func iopsIdle(b *bench) (reads, writes sideBySide, err error) {
	t, err := b.newIOPSBed(noCopies)
	if err != nil {
		return reads, writes, err
	}
	n := pick(b, 200, 20)
	writes, err = rounds(n, t.round(b, t.twin, true), t.round(b, t.bare, true))
	if err == nil {
		reads, err = rounds(n, t.round(b, t.twin, false), t.round(b, t.bare, false))
	}
	return reads, writes, errors.Join(err, t.close(), b.clean())
}

func iopsCopying(b *bench) (writes sideBySide, err error) {
	t, err := b.newIOPSBed(0)
	if err != nil {
		return writes, err
	}
	round := t.round(b, t.twin, true)
	copying := func() (float64, error) {
		rate, err := round()
		if err != nil {
			return 0, err
		}
		return rate, b.copied(t.pair) // nothing of it takes part in the next round
	}
	writes, err = rounds(pick(b, 20, 4), copying, t.round(b, t.bare, true))
	return writes, errors.Join(err, t.close(), b.clean())
}

func (b *bench) newIOPSBed(copyRate int64) (t *iopsBed, err error) {
	t = new(iopsBed)
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	if t.pair, err = b.newPair(pairOptions{size: iopsSize, copyRate: copyRate}); err != nil {
		return t, err
	}
	dir, err := b.folder()
	if err != nil {
		return t, err
	}
	if t.store, err = backing.CreateFile(filepath.Join(dir, "bare.img"), iopsSize); err != nil {
		return t, err
	}
	if t.server, err = b.serve(t.pair.a.volume, bare{t.store}); err != nil {
		return t, err
	}
	if t.twin, err = t.server.login(b.ctx, 0); err != nil {
		return t, err
	}
	if t.bare, err = t.server.login(b.ctx, 1); err != nil {
		return t, err
	}
	return t, t.warmUp(b)
}

// warmUp writes every block of both disks once: all extents are OWNED then, and
// both files have all their pages.
func (t *iopsBed) warmUp(b *bench) error {
	for i, d := range []disk{t.twin, t.bare} {
		l := load{disk: d, write: true, where: sequence(iopsSize / blockSize)}
		if _, _, err := l.run(b.ctx, uint64(i)); err != nil {
			return err
		}
	}
	return nil
}

// round is one round of load on one of the disks. It checks that it measures what it
// says: nothing in it has to wait for the peer.
func (t *iopsBed) round(b *bench, d disk, write bool) func() (float64, error) {
	seed := uint64(0)
	return func() (float64, error) {
		seed++
		before := t.pair.a.replica.Status()
		rate, _, err := load{disk: d, write: write, where: randomFor(iopsSize, iopsRound)}.run(b.ctx, seed)
		if now := t.pair.a.replica.Status(); err == nil && (now.Marks != before.Marks || now.Fetches != before.Fetches) {
			err = errors.New("the volume has asked its peer: not all extents were owned")
		}
		return rate, err
	}
}

func (t *iopsBed) close() error {
	var errs []error
	for _, s := range []*initiator.Session{t.twin, t.bare} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if t.server != nil {
		errs = append(errs, t.server.close())
	}
	if t.pair != nil {
		errs = append(errs, t.pair.close())
	}
	if t.store != nil {
		errs = append(errs, t.store.Close())
	}
	return errors.Join(errs...)
}
