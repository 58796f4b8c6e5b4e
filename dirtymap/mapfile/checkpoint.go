package mapfile

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
)

// Checkpoint brings the pages up to date and begins a new, short log. Whatever
// step a crash comes after, the file replays to the same state:
//
//  1. full images of the changed pages into the log, sync
//  2. the pages in place (torn ones are repaired from the images); a prepared
//     join into a log of the next generation; sync
//  3. one header slot, sync: the new generation counts
//  4. the other slot, sync: until then the old log must stay, for should the
//     first slot be damaged the other one still needs it
//  5. cut off the old log, sync
func (l *Log) Checkpoint() error {
	if l.failed != nil || l.sequence == 0 && len(l.overlay.pages) == 0 {
		return l.failed
	}
	changed := slices.Sorted(maps.Keys(l.overlay.pages))
	l.logImages(changed)
	if !l.sync() {
		return l.failed
	}
	l.durable = l.sequence
	l.writePages(changed)
	l.beginLog()
	if l.sync() && l.writeSlots() {
		l.durable = l.sequence
		l.overlay = overlay{}
		l.cut()
	}
	return l.failed
}

// logImages appends the changed pages to the log.
func (l *Log) logImages(changed []uint64) {
	buf := make([]byte, pageSize)
	for _, page := range changed {
		if l.fail(l.page(page, buf)); l.failed != nil {
			return
		}
		l.put(func(b []byte) []byte { return appendImage(b, page, buf[8:], l.id.statesIn(page)) })
	}
	l.flush()
}

// appendImage encodes a page's states; the short form if they are all the same.
func appendImage(b []byte, page uint64, states []byte, n int) []byte {
	if uniform(states[:n]) {
		return appendFill(b, page, 1, dirtymap.State(states[0]))
	}
	return append(binary.AppendUvarint(append(b, kindImage), page), states...)
}

// writePages writes the changed pages in place, neighbours together.
func (l *Log) writePages(changed []uint64) {
	const batch = 256
	var buf []byte
	for i, page := range changed {
		at := len(buf)
		buf = append(buf, make([]byte, pageSize)...)
		if l.fail(l.page(page, buf[at:])); l.failed != nil {
			return
		}
		l.id.sealPage(page, buf[at:])
		if i+1 == len(changed) || changed[i+1] != page+1 || len(buf) == batch*pageSize {
			if !l.write(buf, pagesAt+int64(page+1)*pageSize-int64(len(buf))) {
				return
			}
			buf = buf[:0]
		}
	}
}

// beginLog turns to the log of the next generation. A prepared join goes on in
// it; the old log stays whole.
func (l *Log) beginLog() {
	oldStart, oldEnd := l.start, l.end
	l.generation++
	l.sequence, l.durable = 0, 0
	l.begun = l.meta
	l.start = l.id.logAt()
	if l.prepared != nil && l.preparedSize() > oldStart-l.start {
		l.start = oldEnd
	}
	l.end = l.start
	if l.prepared != nil {
		encodePrepare(l.prepared, l.put)
		l.flush()
	}
	l.carried = l.end
	if l.end < oldStart {
		// Blocks of this very generation may lie here, from a checkpoint that a
		// crash interrupted before its header: they must not continue the log.
		l.write(make([]byte, sectorSize), l.end)
	}
}

// preparedSize is more than the prepared join takes in the log.
func (l *Log) preparedSize() int64 {
	n := int64(0)
	encodePrepare(l.prepared, func(encode func([]byte) []byte) { n += int64(len(encode(nil))) })
	return (n/int64(l.payloadLimit-maxRecord)+1)*2*sectorSize + n + n/sectorData + sectorSize
}

// writeSlots makes both header slots say where the log is, one after the other.
func (l *Log) writeSlots() bool {
	for range 2 {
		l.number++
		h := header{version: l.version, id: l.id, number: l.number, generation: l.generation, logAt: l.start, meta: l.begun}
		if !l.write(h.encode(), int64(l.number%2)*slotSize) || !l.sync() {
			return false
		}
	}
	return true
}
