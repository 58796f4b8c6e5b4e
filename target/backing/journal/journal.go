// Package journal keeps atomic writes durable while they are put in their place, so
// that a crash in the middle leaves all of each or nothing of it.
//
// Its owner does, for one or several writes together:
//
//	Put    the writes are durable here
//	       they are written to the replica, and that is synced
//	Clear  the journal forgets them, durably
//
// and lets nobody else write these bytes until Clear has returned. After a crash Open
// hands out what was put and not cleared, and the owner writes it once more. Invariant:
// a Put that has returned, and only such a one or the last one, is handed out until its
// Clear has returned. A Put that a crash interrupted is handed out as a whole or not at
// all.
//
// The file has a fixed size and consists of sectors of 512 bytes. Numbers are little
// endian, checksums CRC-32C:
//
//	sector 0 and 1  the head, twice
//	sector 2 …      the records of the writes; stamped
//
// A head; of two that are valid the one with the higher number counts:
//
//	  0   8  magic "TWLNATW1"
//	  8   4  version: 1
//	 12   4  number of writes; 0: nothing is pending
//	 16  16  LUN UUID
//	 32   8  sequence number: one more with each Put and each Clear
//	 40   4  length of the records, bytes
//	 44   4  checksum of LUN UUID and records
//	 48   …  zeros
//	508   4  checksum of all before
//
// A record is an offset u64, a length u32, and the bytes. Records follow each other
// without gaps in the first 504 bytes of each sector; the last 8 are the stamp, the
// sequence number of the head that they belong to.
//
// A crash leaves each sector as it was before or after. So the stamps tell a Put that
// did not get so far, when some of its sectors have an older stamp, from one that was
// damaged later, which Open refuses: nobody can tell what the replica holds then.
package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// Errors that callers tell apart; those that wrap them say what to do.
var (
	// ErrDamaged: what is there cannot be relied upon.
	ErrDamaged = errors.New("journal of atomic writes is damaged")
	// ErrForeign: the journal belongs to another LUN.
	ErrForeign = errors.New("journal of atomic writes belongs to another LUN")
	// ErrVersion: it was written by a newer twinlun.
	ErrVersion = errors.New("journal of atomic writes has a newer version")
	// ErrFailed: a write or sync failed before; nobody knows what the file holds.
	ErrFailed = errors.New("journal of atomic writes has failed")
)

// Bounds of one Put. A megabyte takes about as long to write as the two syncs that come
// with it, and is eight writes of the longest kind.
const (
	MaxWrites = 64
	MaxBytes  = 1 << 20 // of all writes together
)

const (
	magic   = "TWLNATW1"
	version = 1

	sector      = 512
	sectorData  = sector - 8
	headSize    = sector
	recordsAt   = 2 * headSize
	recordHead  = 12
	maxRecords  = MaxBytes + MaxWrites*recordHead
	fileSectors = recordsAt/sector + (maxRecords+sectorData-1)/sectorData

	// FileSize is the size of a journal's file, in bytes.
	FileSize = fileSectors * sector
)

// File is what a journal needs of the file below. What is written may arrive in any
// order, and sector by sector, until Sync returns.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Size() (int64, error)
	Close() error
}

// Write is an atomic write.
type Write struct {
	Off  int64 // in bytes
	Data []byte
}

// Journal is an open journal. One goroutine uses it at a time.
type Journal struct {
	f      File
	lun    [16]byte
	number uint64 // of the head that counts
	used   int    // bytes of the file that may be something else than zeros
	buf    []byte
	failed error
}

// Open opens a LUN's journal, and returns the writes that were put and not cleared, in
// order: they have to be written again before anybody reads the replica, and cleared. A
// file of zeros, or of no bytes, becomes a journal with nothing in it.
func Open(f File, lun [16]byte) (*Journal, []Write, error) {
	j := &Journal{f: f, lun: lun}
	made, err := isMade(f)
	if err != nil {
		return nil, nil, err
	}
	if !made {
		return j, nil, j.format()
	}
	h, writes, err := load(f, lun)
	if err != nil {
		return nil, nil, err
	}
	j.number = h.number
	if j.used, err = used(f); err != nil {
		return nil, nil, err
	}
	if len(writes) == 0 {
		// The next Put must not have the number of one that a crash has interrupted: what
		// that has left would look like sectors of it.
		j.number++
		err = j.Clear()
	}
	return j, writes, err
}

// isMade tells a journal from a file that is to become one.
func isMade(f File) (bool, error) {
	size, err := f.Size()
	if err != nil {
		return false, fmt.Errorf("open journal of atomic writes: %w", err)
	}
	b := make([]byte, min(size, recordsAt))
	if err := readFull(f, b, 0); err != nil {
		return false, err
	}
	if zero(b) && size <= FileSize { // a start was interrupted, or is the first one
		b = make([]byte, size)
		if err := readFull(f, b, 0); err != nil || zero(b) {
			return false, err
		}
	}
	if size != FileSize {
		return false, fmt.Errorf("%w: it has %d bytes, there should be %d: %s", ErrDamaged, size, FileSize, hint)
	}
	return true, nil
}

// used is how much of a file there is before nothing but zeros.
func used(f File) (int, error) {
	b := make([]byte, FileSize-recordsAt)
	if err := readFull(f, b, recordsAt); err != nil {
		return 0, err
	}
	if zero(b) { // as nearly always
		return recordsAt, nil
	}
	for zero(b[len(b)-sector:]) {
		b = b[:len(b)-sector]
	}
	return recordsAt + len(b), nil
}

func readFull(f File, p []byte, off int64) error {
	if n, err := f.ReadAt(p, off); n < len(p) {
		return fmt.Errorf("read %d bytes of the journal of atomic writes at offset %d: %w", len(p), off, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	return nil
}

const hint = "an atomic write may have been interrupted, and nobody can tell now what it left; " +
	"move the journal away to go on with that, or move the replica and its map away, too, to synchronise all from the other site"

// format makes a journal: first room for everything, then the heads.
func (j *Journal) format() error {
	if _, err := j.f.WriteAt(make([]byte, FileSize), 0); err != nil {
		return fmt.Errorf("make journal of atomic writes: %w", err)
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("make journal of atomic writes: %w", err)
	}
	return j.Clear()
}

// Put makes writes durable, which have to fit into one Put; the last one was cleared.
func (j *Journal) Put(writes []Write) error {
	h := head{count: len(writes), number: j.number + 1}
	h.length, j.buf = appendRecords(append(j.buf[:0], make([]byte, recordsAt)...), h.number, writes)
	h.sum = j.sum(writes)
	j.used = len(j.buf)
	return j.write("put atomic writes into their journal", h, j.buf)
}

// Fits tells whether writes fit into one Put.
func Fits(count, bytes int) bool { return count <= MaxWrites && bytes <= MaxBytes }

// Clear forgets the writes that were put, durably. It writes zeros over them: a journal
// that keeps data would keep it when the replica is erased.
func (j *Journal) Clear() error {
	n := max(recordsAt, j.used)
	j.buf = slices.Grow(j.buf[:0], n)[:n]
	clear(j.buf)
	return j.write("clear the journal of atomic writes", head{number: j.number + 1}, j.buf)
}

// write puts a head before what is in b, and makes all of it durable. After an error
// nobody knows what the file holds.
func (j *Journal) write(what string, h head, b []byte) error {
	if j.failed != nil {
		return j.failed
	}
	h.encode(b, j.lun)
	copy(b[headSize:], b[:headSize])
	_, err := j.f.WriteAt(b, 0)
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		j.failed = fmt.Errorf("%w: %s: %w", ErrFailed, what, err)
		return j.failed
	}
	j.number = h.number
	return nil
}

// Close gives the file up.
func (j *Journal) Close() error { return j.f.Close() }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the checksum of records, as they stand one behind the other.
func (j *Journal) sum(writes []Write) uint32 {
	sum := crc32.Checksum(j.lun[:], castagnoli)
	for _, w := range writes {
		sum = crc32.Update(sum, castagnoli, w.head())
		sum = crc32.Update(sum, castagnoli, w.Data)
	}
	return sum
}

func (w Write) head() []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, recordHead), uint64(w.Off))
	return binary.LittleEndian.AppendUint32(b, uint32(len(w.Data)))
}

func zero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[:len(p)-1], p[1:])
}
