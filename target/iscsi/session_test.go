package iscsi

import (
	"bytes"
	"testing"
)

func TestReadAndWrite(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	data := pattern(1, 3*blockSize)
	h := i.scsi(isWrite, uint32(len(data)), write10, 5, 3)
	i.send(h, data)
	i.status(h.tag(), 0)
	h = i.scsi(isRead, uint32(len(data)), read10, 5, 3)
	i.send(h, nil)
	got := i.recv(opDataIn)
	if !got.flag(bitStatus) || !got.flag(bitFinal) || !bytes.Equal(got.data, data) {
		t.Fatalf("Data-In % x with %d bytes", got.header, len(got.data))
	}
}
