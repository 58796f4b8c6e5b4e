package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// qemuIO runs commands of qemu-io on an image, one after the other.
func qemuIO(t *testing.T, url string, commands ...string) {
	t.Helper()
	args := []string{"-f", "raw"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out := tool(t, "qemu-io", append(args, url)...)
	// It tells of a wrong pattern, and of a failed request, in words only.
	if strings.Contains(out, "verification failed") || strings.Contains(out, "failed") {
		t.Fatalf("qemu-io %q: %s", commands, out)
	}
}

// TestPatterns: what is written at one site is read at once at the other.
func TestPatterns(t *testing.T) {
	for _, delay := range []string{"0ms", "25ms"} {
		t.Run(delay, func(t *testing.T) {
			t.Parallel()
			need(t, "qemu-io")
			r := start(t, "--size", "64MiB", "--link-delay", delay)
			for i := range 6 {
				from, to := r.url(i%2), r.url(1-i%2)
				at := fmt.Sprintf("%dk", 100*i) // not on the borders of extents
				qemuIO(t, from, fmt.Sprintf("write -P %d %s 1M", 0x51+i, at))
				qemuIO(t, to, fmt.Sprintf("read -P %d %s 1M", 0x51+i, at))
				qemuIO(t, from, fmt.Sprintf("read -P %d %s 1M", 0x51+i, at))
			}
			qemuIO(t, r.url(1), "write -z -u 0 512k")
			qemuIO(t, r.url(0), "read -P 0 0 512k", fmt.Sprintf("read -P %d 512k 512k", 0x56))
			qemuIO(t, r.url(0), "discard 512k 512k", "flush")
			r.waitClean()
			sameBytes(t, r)
		})
	}
}

// TestImage: an image written at one site is read at the other while most of it is
// still being copied, again when nothing is dirty, and then byte for byte in the
// two replicas.
func TestImage(t *testing.T) {
	t.Parallel()
	need(t, "qemu-img")
	const size = 256 << 20
	image := filepath.Join(t.TempDir(), "random.img")
	f, err := os.Create(image)
	if err == nil {
		_, err = io.CopyN(f, rand.Reader, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	r := start(t, "--size", fmt.Sprint(size), "--link-rate", "400000000", "--link-delay", "2ms")
	tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, r.url(0))
	if s, err := r.status(0); err == nil {
		t.Logf("%d MiB of %d MiB are still to be copied", s.LUNs[0].Dirty>>20, size>>20)
	}
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, r.url(1))
	r.waitClean()
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, r.url(1))
	sameBytes(t, r)
	same(t, image, r.backing(0))
}

// sameBytes compares the two replicas.
func sameBytes(t *testing.T, r *running) {
	t.Helper()
	same(t, r.backing(0), r.backing(1))
}

// same compares two files byte by byte.
func same(t *testing.T, one, two string) {
	t.Helper()
	a, err := os.Open(one)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := os.Open(two)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p, q := make([]byte, 1<<20), make([]byte, 1<<20)
	different, first := 0, int64(-1)
	for off := int64(0); ; off += int64(len(p)) {
		n, err := io.ReadFull(a, p)
		m, _ := io.ReadFull(b, q)
		if n != m {
			t.Fatalf("%s and %s differ in length", one, two)
		}
		for i := 0; i < n; i += 4096 {
			end := min(i+4096, n)
			if !bytes.Equal(p[i:end], q[i:end]) {
				different++
				if first < 0 {
					first = off + int64(i)
				}
			}
		}
		if err != nil {
			break
		}
	}
	if different > 0 {
		t.Errorf("%s and %s: %d blocks differ, the first one at offset %d", one, two, different, first)
	}
}
