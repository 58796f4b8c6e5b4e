package initiator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Operation codes in use (SBC-3 5.1, SPC-4 6.1).
const (
	cdbTestUnitReady = 0x00
	cdbInquiry       = 0x12
	cdbUnmap         = 0x42
	cdbRead16        = 0x88
	cdbCompareWrite  = 0x89
	cdbWrite16       = 0x8a
	cdbSyncCache16   = 0x91
	cdbWriteSame16   = 0x93
	cdbWriteAtomic16 = 0x9c
	cdbServiceIn16   = 0x9e // with service action 10h: READ CAPACITY (16)
	cdbReportLUNs    = 0xa0

	flagFUA = 0x08
)

// ReadAt fills p with the bytes at off, by READ (16). Both have to be whole
// blocks. More than MaxTransfer goes in pieces, one after another.
//
// Like the other block methods it sends a command again once after a unit
// attention 29h (a reset or power on), and after BUSY and TASK SET FULL until
// ctx ends.
func (s *Session) ReadAt(ctx context.Context, p []byte, off int64) error {
	for done := 0; done < len(p); {
		n := min(len(p)-done, s.opts.MaxTransfer)
		if err := s.transfer(ctx, cdbRead16, 0, p[done:done+n], off+int64(done)); err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", n, off+int64(done), err)
		}
		done += n
	}
	return nil
}

// WriteAt stores p at off, by WRITE (16); see ReadAt.
func (s *Session) WriteAt(ctx context.Context, p []byte, off int64) error {
	return s.write(ctx, 0, p, off)
}

// WriteFUA is WriteAt to stable storage.
func (s *Session) WriteFUA(ctx context.Context, p []byte, off int64) error {
	return s.write(ctx, flagFUA, p, off)
}

func (s *Session) write(ctx context.Context, flags byte, p []byte, off int64) error {
	for done := 0; done < len(p); {
		n := min(len(p)-done, s.opts.MaxTransfer)
		if err := s.transfer(ctx, cdbWrite16, flags, p[done:done+n], off+int64(done)); err != nil {
			return fmt.Errorf("write %d bytes at %d: %w", n, off+int64(done), err)
		}
		done += n
	}
	return nil
}

// transfer moves one piece, as often as it takes.
func (s *Session) transfer(ctx context.Context, op, flags byte, p []byte, off int64) error {
	bs, err := s.knownBlockSize(ctx)
	if err != nil {
		return err
	}
	if off < 0 || off%bs != 0 || int64(len(p))%bs != 0 {
		return fmt.Errorf("not in whole blocks of %d bytes", bs)
	}
	var again patience
	for {
		err := s.transferOnce(ctx, op, flags, p, uint64(off/bs), uint32(int64(len(p))/bs))
		if err == nil || !again.wait(ctx, err) {
			return err
		}
	}
}

// transferOnce sends one READ (16) or WRITE (16). It allocates nothing.
func (s *Session) transferOnce(ctx context.Context, op, flags byte, p []byte, lba uint64, blocks uint32) error {
	t, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	t.ahs = t.ahs[:0]
	t.cdb = [16]byte{0: op, 1: flags}
	binary.BigEndian.PutUint64(t.cdb[2:], lba)
	binary.BigEndian.PutUint32(t.cdb[10:], blocks)
	var in, out []byte
	if op == cdbRead16 {
		in = p
	} else {
		out = p
	}
	t.prepare(s.lun, in, len(out))
	r, err := s.execute(ctx, t, out)
	if err == nil && r.Residual != 0 {
		return fmt.Errorf("status GOOD, but %d of %d bytes were not transferred", r.Residual, len(p))
	}
	return err
}

// knownBlockSize is asked of the target once.
func (s *Session) knownBlockSize(ctx context.Context) (int64, error) {
	if n := s.blockSize.Load(); n != 0 {
		return int64(n), nil
	}
	c, err := s.Capacity(ctx)
	if err != nil {
		return 0, err
	}
	s.blockSize.Store(int32(c.BlockSize))
	return int64(c.BlockSize), nil
}

// patience decides whether a command is worth another try.
type patience struct {
	attention bool
	delay     time.Duration
}

// wait tells whether to try again, after waiting for as long as it should take.
func (p *patience) wait(ctx context.Context, err error) bool {
	var check *CheckCondition
	if errors.As(err, &check) && check.Key == SenseUnitAttention && check.ASC == 0x29 && !p.attention {
		p.attention = true
		return true
	}
	var status *StatusError
	if !errors.As(err, &status) || status.Status != StatusBusy && status.Status != StatusTaskSetFull {
		return false
	}
	p.delay = min(max(2*p.delay, time.Millisecond), 100*time.Millisecond)
	return pause(ctx, p.delay)
}

// pause waits for about d; false: ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// command sends a small command as often as it takes.
func (s *Session) command(ctx context.Context, cdb, out, in []byte) (Result, error) {
	var again patience
	for {
		r, err := s.Command(ctx, cdb, out, in)
		if err == nil || !again.wait(ctx, err) {
			return r, err
		}
	}
}

// Sync is SYNCHRONIZE CACHE (16) of the whole unit.
func (s *Session) Sync(ctx context.Context) error {
	if _, err := s.command(ctx, []byte{cdbSyncCache16, 15: 0}, nil, nil); err != nil {
		return fmt.Errorf("synchronize cache: %w", err)
	}
	return nil
}

// Unmap gives n bytes at off back. Both have to be whole blocks, below 2^32 of
// them.
func (s *Session) Unmap(ctx context.Context, off, n int64) error {
	bs, err := s.knownBlockSize(ctx)
	if err != nil {
		return err
	}
	if off < 0 || n < 0 || off%bs != 0 || n%bs != 0 || n/bs >= 1<<32 {
		return fmt.Errorf("unmap %d bytes at %d: not in whole blocks of %d bytes, or too many", n, off, bs)
	}
	list := make([]byte, 24) // header and one descriptor (SBC-3 5.28.2)
	binary.BigEndian.PutUint16(list, 22)
	binary.BigEndian.PutUint16(list[2:], 16)
	binary.BigEndian.PutUint64(list[8:], uint64(off/bs))
	binary.BigEndian.PutUint32(list[16:], uint32(n/bs))
	if _, err := s.command(ctx, []byte{cdbUnmap, 8: 24, 9: 0}, list, nil); err != nil {
		return fmt.Errorf("unmap %d bytes at %d: %w", n, off, err)
	}
	return nil
}

// WriteSame writes one block all over [off, off+n), by WRITE SAME (16); unmap
// lets the target give the space back instead where that reads the same.
func (s *Session) WriteSame(ctx context.Context, block []byte, off, n int64, unmap bool) error {
	bs := int64(len(block))
	if bs == 0 || off < 0 || off%bs != 0 || n%bs != 0 || n/bs >= 1<<32 {
		return fmt.Errorf("write same: %d bytes at %d, with a block of %d bytes", n, off, bs)
	}
	cdb := []byte{cdbWriteSame16, 15: 0}
	if unmap {
		cdb[1] = 0x08
	}
	binary.BigEndian.PutUint64(cdb[2:], uint64(off/bs))
	binary.BigEndian.PutUint32(cdb[10:], uint32(n/bs))
	if _, err := s.command(ctx, cdb, block, nil); err != nil {
		return fmt.Errorf("write same, %d bytes at %d: %w", n, off, err)
	}
	return nil
}

// CompareAndWrite puts new in the place of old, of the same length, if that is there, and
// tells whether it was: COMPARE AND WRITE (SBC-3 5.2). It has to be whole blocks, as many
// as the target takes in one command.
func (s *Session) CompareAndWrite(ctx context.Context, old, new []byte, off int64) (done bool, err error) {
	lba, n, err := s.inBlocks(ctx, off, int64(len(old)))
	if err == nil && (n > 255 || len(new) != len(old)) {
		err = fmt.Errorf("%d blocks, for %d bytes", n, len(new))
	}
	if err != nil {
		return false, fmt.Errorf("compare and write %d bytes at %d: %w", len(old), off, err)
	}
	cdb := []byte{cdbCompareWrite, 13: byte(n), 15: 0}
	binary.BigEndian.PutUint64(cdb[2:], lba)
	_, err = s.command(ctx, cdb, slices.Concat(old, new), nil)
	var check *CheckCondition
	if errors.As(err, &check) && check.Key == SenseMiscompare {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("compare and write %d bytes at %d: %w", len(old), off, err)
	}
	return true, nil
}

// WriteAtomic stores p at off, all of it or nothing, by WRITE ATOMIC (16), SBC-4 5.48. It
// has to be whole blocks, as many as the target takes in one command.
func (s *Session) WriteAtomic(ctx context.Context, p []byte, off int64) error {
	lba, n, err := s.inBlocks(ctx, off, int64(len(p)))
	if err == nil && n > 1<<16-1 {
		err = fmt.Errorf("%d blocks are too many", n)
	}
	if err == nil {
		cdb := []byte{cdbWriteAtomic16, 15: 0}
		binary.BigEndian.PutUint64(cdb[2:], lba)
		binary.BigEndian.PutUint16(cdb[12:], uint16(n))
		_, err = s.command(ctx, cdb, p, nil)
	}
	if err != nil {
		return fmt.Errorf("write atomically %d bytes at %d: %w", len(p), off, err)
	}
	return nil
}

// inBlocks is a range in logical blocks.
func (s *Session) inBlocks(ctx context.Context, off, n int64) (lba uint64, blocks int64, err error) {
	bs, err := s.knownBlockSize(ctx)
	if err == nil && (off < 0 || off%bs != 0 || n%bs != 0) {
		err = fmt.Errorf("not in whole blocks of %d bytes", bs)
	}
	if err != nil {
		return 0, 0, err
	}
	return uint64(off / bs), n / bs, nil
}

// Capacity is what READ CAPACITY (16) says (SBC-3 5.16).
type Capacity struct {
	Blocks    uint64
	BlockSize int64
	Thin      bool // LBPME
	ZeroThin  bool // LBPRZ: unmapped blocks read as zeros
}

// Size is the unit's size in bytes.
func (c Capacity) Size() int64 { return int64(c.Blocks) * c.BlockSize }

// Capacity asks for the unit's size.
func (s *Session) Capacity(ctx context.Context) (Capacity, error) {
	p := make([]byte, 32)
	r, err := s.command(ctx, []byte{cdbServiceIn16, 0x10, 13: 32, 15: 0}, nil, p)
	if err != nil {
		return Capacity{}, fmt.Errorf("read capacity: %w", err)
	}
	c := Capacity{
		Blocks:    binary.BigEndian.Uint64(p) + 1,
		BlockSize: int64(binary.BigEndian.Uint32(p[8:])),
		Thin:      p[14]&0x80 != 0,
		ZeroThin:  p[14]&0x40 != 0,
	}
	if r.Received < 12 || c.BlockSize < 512 || c.BlockSize > 1<<20 || c.BlockSize&(c.BlockSize-1) != 0 {
		return Capacity{}, fmt.Errorf("read capacity: blocks of %d bytes (in %d bytes)", c.BlockSize, r.Received)
	}
	return c, nil
}

// Inquiry is the standard inquiry data (SPC-4 6.4.2).
func (s *Session) Inquiry(ctx context.Context) ([]byte, error) {
	return s.inquiry(ctx, []byte{cdbInquiry, 0, 0, 0, 255, 0})
}

// VPD is a page of vital product data (SPC-4 7.8), with its header.
func (s *Session) VPD(ctx context.Context, page byte) ([]byte, error) {
	return s.inquiry(ctx, []byte{cdbInquiry, 1, page, 0x10, 0, 0})
}

func (s *Session) inquiry(ctx context.Context, cdb []byte) ([]byte, error) {
	p := make([]byte, binary.BigEndian.Uint16(cdb[3:]))
	r, err := s.command(ctx, cdb, nil, p)
	if err != nil {
		return nil, fmt.Errorf("inquiry, page %02x: %w", cdb[2], err)
	}
	return p[:r.Received], nil
}

// TestUnitReady asks whether the unit can be used; its errors are not retried.
func (s *Session) TestUnitReady(ctx context.Context) error {
	_, err := s.Command(ctx, make([]byte, 6), nil, nil)
	return err
}

// ReportLUNs lists the logical units of the target (SPC-4 6.33).
func (s *Session) ReportLUNs(ctx context.Context) ([][8]byte, error) {
	p := make([]byte, 8+8*1024)
	cdb := []byte{cdbReportLUNs, 11: 0}
	binary.BigEndian.PutUint32(cdb[6:], uint32(len(p)))
	var again patience
	r, err := s.Do(ctx, &Request{CDB: cdb, In: p})
	for err != nil && again.wait(ctx, err) {
		r, err = s.Do(ctx, &Request{CDB: cdb, In: p})
	}
	if err != nil {
		return nil, fmt.Errorf("report LUNs: %w", err)
	}
	var luns [][8]byte
	n := min(int(binary.BigEndian.Uint32(p)), r.Received-8)
	for at := 8; at+8 <= 8+n; at += 8 {
		luns = append(luns, [8]byte(p[at:]))
	}
	return luns, nil
}
