package iscsi

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
)

// TestCRC32C has the digests of RFC 7143 appendix A.4 (as they go over the wire).
func TestCRC32C(t *testing.T) {
	up := make([]byte, 32)
	for i := range up {
		up[i] = byte(i)
	}
	for _, c := range []struct {
		data []byte
		want string
	}{
		{make([]byte, 32), "aa36918a"},
		{bytes.Repeat([]byte{0xff}, 32), "43aba862"},
		{up, "4e79dd46"},
	} {
		w := &writer{tail: -1}
		w.digest(digestOf(c.data))
		if !bytes.Equal(w.arena[:4], unhex(t, c.want)) {
			t.Errorf("digest % x, want %s", w.arena[:4], c.want)
		}
	}
}

func TestStream(t *testing.T) {
	i := &initiator{t: t, digest: true}
	h := header{0: opSCSI}
	whole := i.encode(h, []byte{0, 5, 2, 0, 1, 2, 3, 4}, []byte("abcde"))
	whole = append(whole, i.encode(header{0: opNopOut}, nil, nil)...)
	s := newStream(iotest.OneByteReader(bytes.NewReader(whole)), 8192, maxAHS)
	s.checkHdr, s.checkSeg = true, true
	if err := s.next(); err != nil || len(s.ahs) != 8 || s.left != 5 {
		t.Fatalf("%v, AHS % x, %d bytes of data", err, s.ahs, s.left)
	}
	part := make([]byte, 3)
	if err := s.read(part); err != nil || string(part) != "abc" {
		t.Fatalf("%v, read %q", err, part)
	}
	for range 2 {
		if err := s.finish(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.next(); err != nil || s.header.opcode() != opNopOut {
		t.Fatalf("%v, % x", err, s.header)
	}
	if err := s.finish(); err != nil {
		t.Fatal(err)
	}
	if err := s.next(); err != io.EOF {
		t.Fatalf("%v at the end", err)
	}
}

func TestStreamCorrupt(t *testing.T) {
	i := &initiator{t: t, digest: true}
	whole := i.encode(header{0: opSCSI}, []byte{0, 5, 2, 0, 1, 2, 3, 4}, []byte("abcde"))
	flip := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 1
		return b
	}
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"header", flip(20), errHeaderDigest},
		{"AHS", flip(50), errHeaderDigest},
		{"header digest", flip(57), errHeaderDigest},
		{"data", flip(60), errDataDigest},
		{"padding", flip(66), errDataDigest},
		{"data digest", flip(69), errDataDigest},
		{"cut in the header", whole[:40], io.ErrUnexpectedEOF},
		{"cut in the AHS", whole[:50], io.ErrUnexpectedEOF},
		{"cut after the AHS", whole[:56], io.ErrUnexpectedEOF},
		{"cut in the data", whole[:62], io.ErrUnexpectedEOF},
		{"cut in the data digest", whole[:70], io.ErrUnexpectedEOF},
	} {
		s := newStream(bytes.NewReader(c.in), 8192, maxAHS)
		s.checkHdr, s.checkSeg = true, true
		err := s.next()
		if err == nil {
			err = s.finish()
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", c.name, err, c.want)
		}
	}
	s := newStream(bytes.NewReader(whole), 4, maxAHS)
	if err := s.next(); !errors.Is(err, errHeaderDigest) && !errors.Is(err, errFormat) {
		t.Errorf("data over the limit: %v", err)
	}
}

// TestWriterBatches puts more into a writer than fits into a batch, and reads it
// back as an initiator does.
func TestWriterBatches(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	w := newWriter(ours, 1<<40, &sequenceNumbers{})
	w.addHdr, w.addSeg = true, true
	const n = 2000
	go func() {
		defer ours.Close()
		for k := range n {
			w.header = header{0: opDataIn}
			w.header.put32(16, uint32(k))
			w.put(pattern(k, k%7*100), k%2 == 0)
		}
		w.flush()
	}()
	i := &initiator{t: t, conn: theirs, digest: true}
	for k := range n {
		r := i.recv(opDataIn)
		if r.tag() != uint32(k) || !bytes.Equal(r.data, pattern(k, k%7*100)) {
			t.Fatalf("PDU %d: % x with %d bytes", k, r.header, len(r.data))
		}
		if r.u32(24) != uint32((k+1)/2) {
			t.Fatalf("PDU %d has StatSN %d", k, r.u32(24))
		}
	}
	if _, err := i.tryRecv(); err != io.EOF {
		t.Fatal(err)
	}
}
