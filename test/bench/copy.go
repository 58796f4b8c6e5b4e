package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/twinlun/twinlun/replication/emulator"
)

const copyAim = 0.9

// copyLine is the line of copyRow.
var copyLine = emulator.State{Delay: 10 * time.Millisecond, Rate: 1_000_000_000}

// copyRow compares copying from a to b with a plain TCP stream over an equal line.
// A round is from the first write at a, through the volume and as fast as it goes,
// until nothing is dirty: all is flushed at b, and a knows. The stream's round is
// from its first byte until the answer to the last one is back. a owns the extents
// before, and no byte can be compressed.
func copyRow(b *bench) ([]result, error) {
	size := int64(pick(b, 256, 128)) << 20
	r, err := newReference(copyLine)
	if err != nil {
		return nil, err
	}
	plain, err := copyRounds(b, r, size, pairOptions{})
	var secret, packed sideBySide
	if err == nil {
		secret, err = copyRounds(b, r, size, pairOptions{encrypt: true})
	}
	if err == nil && !b.quick {
		packed, err = copyRounds(b, r, size, pairOptions{compress: true})
	}
	if err := errors.Join(err, r.close()); err != nil {
		return nil, err
	}
	line := func(what string, s sideBySide, aim string) result {
		ratio, text := s.ratio()
		return result{
			what: what, figure: fmt.Sprintf("%.1f MB/s", median(s.a)/1e6), against: fmt.Sprintf("TCP stream %.1f MB/s", median(s.b)/1e6),
			ratio: text, aim: aim, met: ratio >= copyAim,
		}
	}
	results := []result{
		line(fmt.Sprintf("copy %d MiB, 1 Gbit/s, 10 ms one way", size>>20), plain, fmt.Sprintf("≥ %.1f", copyAim)),
		line("… over TLS", secret, fmt.Sprintf("≥ %.1f", copyAim)),
	}
	if len(packed.ratios) > 0 {
		results = append(results, line("… with compression tried, in vain", packed, ""))
	}
	return results, nil
}

func copyRounds(b *bench, r *reference, size int64, o pairOptions) (s sideBySide, err error) {
	o.size, o.line = size, &copyLine
	p, err := b.newPair(o)
	if err != nil {
		return s, err
	}
	data := make([]byte, 16<<20)
	rand.Read(data) // never fails
	rate := func(took time.Duration) float64 { return float64(size) / took.Seconds() }
	copies := func() (float64, error) {
		began := time.Now()
		err := copyOnce(b, p, data, size)
		return rate(time.Since(began)), err
	}
	if _, err = copies(); err == nil { // now a owns them
		s, err = rounds(pick(b, 8, 3), copies, func() (float64, error) {
			took, err := r.send(data, size)
			return rate(took), err
		})
	}
	return s, errors.Join(err, p.close(), b.clean())
}

// copyOnce writes the whole LUN at a and waits until b has it.
func copyOnce(b *bench, p *pair, data []byte, size int64) error {
	for off := int64(0); off < size; off += int64(len(data)) {
		if err := p.a.volume.WriteAt(b.ctx, data, off, false); err != nil {
			return err
		}
	}
	return b.copied(p)
}
