package main

import (
	"errors"
	"fmt"
)

// marksRow counts MARKs: how often hosts' writes have to wait for the peer. There
// are as many random writes in a pass as the LUN has extents, at any block of it, so
// that the first pass touches about 63 of 100 extents; the second pass writes other
// random blocks. With --quick the LUN is smaller.
func marksRow(b *bench) ([]result, error) {
	size := int64(pick(b, 4<<30, 1<<30))
	random, ordered := size/extentSize, int64(pick(b, 65536, 16384))
	counts, err := marks(b, size, randomTimes(size, random), randomTimes(size, random))
	if err != nil {
		return nil, err
	}
	straight, err := marks(b, size, sequence(ordered))
	if err != nil {
		return nil, err
	}
	line := func(what string, writes int64, m, most float64) result {
		return result{
			what: what, figure: fmt.Sprintf("%.2f MARKs", m), against: fmt.Sprintf("1,000 of %d writes", writes),
			aim: fmt.Sprintf("≤ %.0f", most), met: m <= most,
		}
	}
	return []result{
		line("4 KiB sequential writes, QD 32", ordered, straight[0], 1),
		line(fmt.Sprintf("4 KiB random writes in %d GiB, first pass", size>>30), random, counts[0], 50),
		line(fmt.Sprintf("4 KiB random writes in %d GiB, second pass", size>>30), random, counts[1], 1),
	}, nil
}

// marks is the number of MARKs for 1,000 writes, in each pass over a new LUN.
func marks(b *bench, size int64, passes ...where) (counts []float64, err error) {
	p, err := b.newPair(pairOptions{size: size})
	if err != nil {
		return nil, err
	}
	for i, w := range passes {
		m, e := marksOf(b, p, w, uint64(i))
		counts, err = append(counts, m), errors.Join(err, e)
	}
	return counts, errors.Join(err, p.close(), b.clean())
}

func marksOf(b *bench, p *pair, w where, seed uint64) (float64, error) {
	s, err := b.serve(p.a.volume)
	if err != nil {
		return 0, err
	}
	session, err := s.login(b.ctx, 0)
	if err != nil {
		return 0, errors.Join(err, s.close())
	}
	before := p.a.replica.Status().Marks
	_, n, err := load{disk: session, write: true, where: w}.run(b.ctx, seed)
	sent := p.a.replica.Status().Marks - before
	return float64(sent) * 1000 / float64(n), errors.Join(err, session.Close(), s.close())
}
