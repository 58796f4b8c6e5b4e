package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinlun/twinlun/replication/emulator"
)

const (
	// fetchAim is what a fetch may take beside the round trip.
	fetchAim = 200 * time.Microsecond
	// fetchSpare extents at the front of the LUN are what the copier may take before
	// its rate stops it.
	fetchSpare = 512
)

// fetchRow measures single commands of 4 KiB at b, one at a time, in extents that
// were written at a and are not copied: so each is a fetch. Before each of them a
// small message goes to and fro over an equal line.
func fetchRow(b *bench) (results []result, err error) {
	for _, c := range []struct {
		delay   time.Duration
		n       int
		encrypt bool
	}{
		{0, pick(b, 2000, 500), false},
		{0, pick(b, 2000, 500), true},
		{5 * time.Millisecond, pick(b, 400, 60), false},
		{5 * time.Millisecond, pick(b, 400, 60), true},
		{50 * time.Millisecond, pick(b, 60, 10), false},
	} {
		reads, owns, err := fetchesAt(b, emulator.State{Delay: c.delay}, c.n, c.encrypt)
		if err != nil {
			return nil, fmt.Errorf("delay %v: %w", c.delay, err)
		}
		line := fmt.Sprintf("%d ms one way", c.delay.Milliseconds())
		if c.encrypt {
			line = fmt.Sprintf("%d ms, TLS", c.delay.Milliseconds())
		}
		results = append(results,
			reads.result("4 KiB read, "+line, true),
			owns.result("4 KiB write (takes ownership), "+line, false))
	}
	return results, nil
}

// latencies are times of commands, and of the round trip before each.
type latencies struct{ command, trip, beyond []time.Duration }

func (l *latencies) add(command, trip time.Duration) {
	l.command, l.trip, l.beyond = append(l.command, command), append(l.trip, trip), append(l.beyond, command-trip)
}

func (l *latencies) result(what string, aimed bool) result {
	beyond := median(l.beyond)
	r := result{
		what: what, figure: micros(median(l.command)), against: "round trip " + micros(median(l.trip)),
		ratio: "RTT + " + micros(beyond), met: beyond <= fetchAim,
	}
	if aimed {
		r.aim = "≤ RTT + " + micros(fetchAim)
	}
	return r
}

func micros(d time.Duration) string { return fmt.Sprintf("%d µs", d.Microseconds()) }

// fetchBed is a pair with many extents OWNED and dirty at a, and the other line.
type fetchBed struct {
	b         *bench
	pair      *pair
	reference *reference
}

// fetchesAt reads n extents at b, and writes n others.
func fetchesAt(b *bench, line emulator.State, n int, encrypt bool) (reads, owns latencies, err error) {
	size := int64(fetchSpare+2*n) * extentSize
	p, err := b.newPair(pairOptions{size: size, copyRate: noCopies, line: &line, encrypt: encrypt})
	if err != nil {
		return reads, owns, err
	}
	r, err := newReference(line)
	if err != nil {
		return reads, owns, errors.Join(err, p.close())
	}
	t := &fetchBed{b, p, r}
	if err = t.fill(fetchSpare + 2*n); err == nil {
		reads, err = t.fetchAll(fetchSpare, n, t.read)
	}
	if err == nil {
		owns, err = t.fetchAll(fetchSpare+n, n, t.write)
	}
	return reads, owns, errors.Join(err, r.close(), p.close(), b.clean())
}

// pattern is what a writes into an extent.
func pattern(extent int) []byte {
	return bytes.Repeat([]byte{byte(extent), byte(extent >> 8), 0xa5, 1}, blockSize/4)
}

// fill writes one block of every extent at a, and lets so much time pass that a does
// not count as writing them still: it would answer with keep then.
func (t *fetchBed) fill(extents int) error {
	for i := range extents {
		if err := t.pair.a.volume.WriteAt(t.b.ctx, pattern(i), int64(i)*extentSize, false); err != nil {
			return err
		}
	}
	time.Sleep(time.Second)
	return context.Cause(t.b.ctx)
}

// fetchAll has each of n extents fetched by one command, and checks that it was so.
func (t *fetchBed) fetchAll(first, n int, command func(extent int) (time.Duration, error)) (l latencies, err error) {
	before := t.pair.b.replica.Status().Fetches
	for i := first; i < first+n; i++ {
		trip, err := t.reference.roundTrip()
		if err != nil {
			return l, err
		}
		took, err := command(i)
		if err != nil {
			return l, err
		}
		l.add(took, trip)
	}
	if sent := t.pair.b.replica.Status().Fetches - before; sent != uint64(n) {
		err = fmt.Errorf("%d commands made %d fetches", n, sent)
	}
	return l, err
}

func (t *fetchBed) read(extent int) (time.Duration, error) {
	got := make([]byte, blockSize)
	began := time.Now()
	err := t.pair.b.volume.ReadAt(t.b.ctx, got, int64(extent)*extentSize)
	took := time.Since(began)
	if err == nil && !bytes.Equal(got, pattern(extent)) {
		err = fmt.Errorf("extent %d: b does not read what was written at a", extent)
	}
	return took, err
}

func (t *fetchBed) write(extent int) (time.Duration, error) {
	p := pattern(extent)
	began := time.Now()
	err := t.pair.b.volume.WriteAt(t.b.ctx, p, int64(extent)*extentSize, false)
	return time.Since(began), err
}
