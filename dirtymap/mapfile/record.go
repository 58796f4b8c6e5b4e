package mapfile

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// Kinds of records.
const (
	kindSet      = 1
	kindMeta     = 2
	kindPrepare  = 3
	kindChanges  = 4
	kindPrepared = 5
	kindCommit   = 6
	kindAbort    = 7
	kindImage    = 8
	kindFill     = 9
)

const (
	// maxChanges keeps a Changes record below the size of an Image, the largest.
	maxChanges = 128
	// maxRecord is more than any record takes.
	maxRecord = 5000
)

func appendSet(b []byte, s Set) []byte {
	b = binary.AppendUvarint(b, s.Range.First)
	b = binary.AppendUvarint(b, s.Range.Count)
	return append(b, byte(s.State&dirtymap.Durable))
}

func appendMetaRecord(b []byte, m Meta) []byte {
	b = appendMeta(b, m)
	if m.version() > 1 {
		b = appendTerm(b, m.Term)
	}
	return b
}

func appendFill(b []byte, first, count uint64, s dirtymap.State) []byte {
	b = binary.AppendUvarint(append(b, kindFill), first)
	b = binary.AppendUvarint(b, count)
	return append(b, byte(s))
}

// encodeRecord hands a record's pieces to put, each shorter than maxRecord.
// put appends what its argument appends.
func encodeRecord(r Record, put func(func([]byte) []byte)) {
	switch r := r.(type) {
	case Set:
		put(func(b []byte) []byte { return appendSet(append(b, kindSet), r) })
	case Meta:
		put(func(b []byte) []byte { return appendMetaRecord(append(b, kindMeta), r) })
	case Prepare:
		encodePrepare(&r, put)
	case Commit:
		put(func(b []byte) []byte { return binary.LittleEndian.AppendUint64(append(b, kindCommit), r.Join) })
	case Abort:
		put(func(b []byte) []byte { return append(b, kindAbort) })
	default:
		panic(fmt.Sprintf("mapfile: %T is no record", r))
	}
}

func encodePrepare(p *Prepare, put func(func([]byte) []byte)) {
	put(func(b []byte) []byte {
		return appendMetaRecord(binary.LittleEndian.AppendUint64(append(b, kindPrepare), p.Join), p.Meta)
	})
	for rest := p.Changes; len(rest) > 0; {
		some := rest[:min(maxChanges, len(rest))]
		rest = rest[len(some):]
		put(func(b []byte) []byte {
			b = binary.AppendUvarint(append(b, kindChanges), uint64(len(some)))
			for _, s := range some {
				b = appendSet(b, s)
			}
			return b
		})
	}
	put(func(b []byte) []byte { return binary.AppendUvarint(append(b, kindPrepared), uint64(len(p.Changes))) })
}

// decoder takes records apart. After the first error it gives zeros.
type decoder struct {
	b   []byte
	err error
}

var errShort = errors.New("record is cut short")

func (d *decoder) take(n int) []byte {
	if d.err == nil && len(d.b) < n {
		d.err = errShort
	}
	if d.err != nil {
		return make([]byte, n)
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u8() byte    { return d.take(1)[0] }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.take(8)) }

func (d *decoder) uv() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 && d.err == nil {
		d.err = errShort
	}
	if d.err != nil {
		return 0
	}
	d.b = d.b[n:]
	return v
}

// run is a first number, a count, and a state; both numbers below limit.
func (d *decoder) run(limit uint64) Set {
	s := Set{Range: dirtymap.Range{First: d.uv(), Count: d.uv()}, State: dirtymap.State(d.u8())}
	if d.err == nil && !(inside(s.Range, limit) && validState(s.State)) {
		d.err = fmt.Errorf("%d+%d of %d, state %#x: cannot be", s.Range.First, s.Range.Count, limit, uint8(s.State))
	}
	return s
}

func (d *decoder) meta() Meta {
	m, term, err := decodeMeta(d.take(metaSize))
	if d.err == nil {
		d.err = err
	}
	if term {
		m.Term.decode(d.take(termSize))
	}
	if d.err == nil && term != (m.version() > 1) {
		d.err = fmt.Errorf("a term of zeros")
	}
	return m
}

func inside(r dirtymap.Range, limit uint64) bool {
	return r.Count > 0 && r.First < limit && r.Count <= limit-r.First
}
