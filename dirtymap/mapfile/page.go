package mapfile

import (
	"encoding/binary"
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// sealPage writes the head of a page whose states are in place.
func (id *Identity) sealPage(page uint64, b []byte) {
	numberPage(page, b)
	binary.LittleEndian.PutUint32(b[4:], id.sum(b[8:pageSize]))
}

// numberPage gives a page, its checksum being right, another place. The number
// is not under the checksum, so that equal pages are equal but for four bytes.
func numberPage(page uint64, b []byte) {
	binary.LittleEndian.PutUint32(b, uint32(page+1))
}

// checkPage tells what is wrong with the bytes found at a page's place.
func (id *Identity) checkPage(page uint64, b []byte) error {
	number := binary.LittleEndian.Uint32(b)
	switch {
	case uint64(number) != page+1:
		return fmt.Errorf("page %d: number %d stands there", page, int64(number)-1)
	case binary.LittleEndian.Uint32(b[4:]) != id.sum(b[8:pageSize]):
		return fmt.Errorf("page %d: wrong checksum", page)
	}
	return id.checkStates(page, b[8:pageSize])
}

// checkStates looks for states that cannot be, and for any behind the last extent.
func (id *Identity) checkStates(page uint64, states []byte) error {
	beyond := byte(0)
	for _, s := range states[id.statesIn(page):] {
		beyond |= s
	}
	if !validStates(states) || beyond != 0 {
		return fmt.Errorf("page %d: holds states that cannot be", page)
	}
	return nil
}

// validStates is validState for many: 8 extents at a time, as a map has hundreds of
// millions of them.
func validStates(states []byte) bool {
	const each = 0x0101010101010101
	var wrong uint64
	for ; len(states) >= 8; states = states[8:] {
		w := binary.LittleEndian.Uint64(states)
		wrong |= w&(each*uint64(^dirtymap.Durable)) | w&(w>>1)&(each*uint64(dirtymap.Stale))
	}
	for _, s := range states {
		if !validState(dirtymap.State(s)) {
			return false
		}
	}
	return wrong == 0
}

func validState(s dirtymap.State) bool {
	return s&^dirtymap.Durable == 0 && s&(dirtymap.Stale|dirtymap.Held) != dirtymap.Stale|dirtymap.Held
}

// fillStates puts one state into n bytes.
func fillStates(b []byte, s dirtymap.State) {
	for i := range b {
		b[i] = byte(s)
	}
}

// alike is how many states are the same as the first one, from there on: eight at a
// time, as most maps are of few runs.
func alike(b []byte) int {
	n, all := 1, uint64(b[0])*0x0101010101010101
	for n+8 <= len(b) && binary.LittleEndian.Uint64(b[n:]) == all {
		n += 8
	}
	for n < len(b) && b[n] == b[0] {
		n++
	}
	return n
}

// uniform tells whether all bytes are equal.
func uniform(b []byte) bool {
	return len(b) == 0 || string(b[1:]) == string(b[:len(b)-1])
}
