package backing

import (
	"bytes"
	"fmt"
	"testing"
)

func TestZeroes(t *testing.T) {
	for n := range 300 {
		p := make([]byte, n)
		if !Zeroes(p) {
			t.Fatalf("%d zeros are none", n)
		}
		for i := range p {
			p[i] = 1
			if Zeroes(p) {
				t.Fatalf("byte %d of %d was not seen", i, n)
			}
			p[i] = 0
		}
	}
	if Zeroes(bytes.Repeat([]byte{7}, 100)) {
		t.Error("equal bytes are no zeros")
	}
}

func BenchmarkZeroes(b *testing.B) {
	for _, n := range []int{4096, 64 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				if !Zeroes(p) {
					b.Fatal("not zero")
				}
			}
		})
	}
}
