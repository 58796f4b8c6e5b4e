package scsi

import (
	"bytes"
	"context"
	"encoding/hex"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
)

// TestModel drives gotgt's functions that are kept with every operation code,
// service action and hostile CDB: those that are kept neither panic nor fail,
// all others are refused before any code of gotgt runs.
func TestModel(t *testing.T) {
	u, err := newUnit(quietTarget().Device, 0, testLUN(newRAM(64*512)))
	if err != nil {
		t.Fatal(err)
	}
	kept := func(code, action int) bool {
		switch api.SCSICommandType(code) {
		case api.TEST_UNIT_READY, api.READ_CAPACITY:
			return true
		}
		return code == int(api.SERVICE_ACTION_IN) && action == int(api.SAI_READ_CAPACITY_16)
	}
	for code := range 256 {
		for action := range 256 {
			cdb := make([]byte, 16)
			cdb[0], cdb[1] = byte(code), byte(action)
			data, good := u.ask(cdb, capacity16Size)
			if want := kept(code, action&0x1f); good != want {
				t.Errorf("operation code %02x, byte 1 %02x: good %v, want %v", code, action, good, want)
			} else if !good && !bytes.Equal(data, make([]byte, capacity16Size)) {
				t.Errorf("operation code %02x, byte 1 %02x: refused, with data", code, action)
			}
		}
	}
}

// TestModelCapacity is the proof for the two functions that return data, at the
// edges of their fields.
func TestModelCapacity(t *testing.T) {
	for _, tt := range []struct {
		blocks            int64
		size              uint32
		ten, sixteenStart string
	}{
		{1, 512, "00000000 00000200", "0000000000000000 00000200 00 03 8000"},
		{1<<32 - 1, 512, "fffffffe 00000200", "00000000fffffffe 00000200 00 03 8000"},
		{1 << 32, 512, "ffffffff 00000200", "00000000ffffffff 00000200 00 03 8000"},
		{1<<32 + 1, 512, "ffffffff 00000200", "0000000100000000 00000200 00 03 8000"},
		{1 << 33, 1024, "ffffffff 00000400", "00000001ffffffff 00000400 00 02 8000"},
		{1 << 37, 4096, "ffffffff 00001000", "0000001fffffffff 00001000 00 00 8000"},
	} {
		l := testLUN(sized(tt.blocks * int64(tt.size)))
		l.BlockSize = tt.size
		u, err := newUnit(quietTarget().Device, 0, l)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := u.ask([]byte{0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 8)
		if want := unhex(t, tt.ten); !ok || !bytes.Equal(got, want) {
			t.Errorf("%d blocks: READ CAPACITY (10) %x, want %x", tt.blocks, got, want)
		}
		cdb := append([]byte{0x9e, 0x10}, make([]byte, 14)...)
		cdb[13] = capacity16Size
		got, ok = u.ask(cdb, capacity16Size)
		if want := unhex(t, tt.sixteenStart+zeros(16)); !ok || !bytes.Equal(got, want) {
			t.Errorf("%d blocks: READ CAPACITY (16) %s, want %x", tt.blocks, hex.EncodeToString(got), want)
		}
	}
}

// sized is a disk of zeros of any size.
type sized int64

func (sized) ReadAt(_ context.Context, p []byte, _ int64) error  { clear(p); return nil }
func (sized) WriteAt(context.Context, []byte, int64, bool) error { return nil }
func (sized) Zero(context.Context, int64, int64, bool) error     { return nil }
func (sized) Sync(context.Context) error                         { return nil }
func (s sized) Size() int64                                      { return int64(s) }
