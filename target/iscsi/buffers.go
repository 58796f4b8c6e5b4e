package iscsi

import (
	"math/bits"
	"sync"
)

// Size classes of data buffers: powers of two, from 4 KiB to 16 MiB.
const (
	minClass = 12
	maxClass = 24
)

// buffer is a data buffer that goes back to its pool.
type buffer struct {
	bytes []byte
	class int
}

// buffers keeps data buffers for reuse, by size class. They are not wiped.
type buffers struct {
	classes [maxClass + 1]sync.Pool
}

// get returns a buffer of at least n bytes.
func (b *buffers) get(n int) *buffer {
	class := max(minClass, bits.Len(uint(n-1)))
	if x, ok := b.classes[class].Get().(*buffer); ok {
		return x
	}
	return &buffer{make([]byte, 1<<class), class}
}

func (b *buffers) put(x *buffer) { b.classes[x.class].Put(x) }
