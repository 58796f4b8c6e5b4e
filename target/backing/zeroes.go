package backing

import "bytes"

// zeros is written where a range is to be zeroed and the medium cannot do it. It
// is never changed. Of this size because larger writes are no faster.
var zeros [256 << 10]byte

// Zeroes tells whether p holds nothing but zeros; so does an empty p.
//
// Comparing p with itself, one byte further on, says that all bytes are equal to
// the first. It runs at the speed of memory and needs no second buffer; data that
// is not zero mostly ends it within the first bytes.
func Zeroes(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	return p[0] == 0 && bytes.Equal(p[:len(p)-1], p[1:])
}
