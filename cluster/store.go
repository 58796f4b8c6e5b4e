package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// store is the log, and the few values that raft keeps beside it, in one bbolt file.
// In the bucket "log" each entry stands under its index, u64 big endian:
//
//	 0  4  CRC-32C of all that follows
//	 4  8  index
//	12  8  term
//	20  1  type
//	21  8  when the leader took it in, nanoseconds since 1970; 0: it did not say
//	29  4  length of the data, and the data
//	 …  …  extensions
//
// The bucket "values" has term and vote, and under "commit" the index up to which
// entries were applied when the last ones were stored, or when nothing more came.
type store struct {
	db *bbolt.DB
	// applied is what StoreLogs notes as committed: it comes without a flush of its own,
	// and some entries late. What it has missed in the end, Node.note adds.
	applied func() uint64
}

const (
	logFile = "raft.db"
	// lockTime is how long another process may hold the log: one that is just ending.
	lockTime = 5 * time.Second

	entryHead = 33
)

var (
	logBucket    = []byte("log")
	valuesBucket = []byte("values")
	commitKey    = []byte("commit")
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// damagedHint: a node that has lost its log has lost whom it voted for, and might vote
// twice.
const damagedHint = "remove this node from the cluster and join it anew, with an empty folder: a node must not go on with an older copy of its log, nor without it"

// openStore opens the log, and reads all of it: damage must show here, and not in the
// middle of an election.
func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the raft log: %w", err)
	}
	path := filepath.Join(dir, logFile)
	s := &store{applied: func() uint64 { return 0 }}
	err := guarded(func() error { return s.open(path) })
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("the raft log %s is in use: is another twinlund running in this folder?", path)
	}
	if err == nil {
		err = guarded(s.check)
	}
	if err != nil {
		return nil, fmt.Errorf("the raft log %s is damaged: %w; %s", path, errors.Join(err, s.Close()), damagedHint)
	}
	return s, nil
}

func (s *store) open(path string) (err error) {
	if s.db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTime}); err != nil {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		_, errLog := tx.CreateBucketIfNotExists(logBucket)
		_, errValues := tx.CreateBucketIfNotExists(valuesBucket)
		return errors.Join(errLog, errValues)
	})
}

// check reads every entry: there must be no gap.
func (s *store) check() error {
	return s.db.View(func(tx *bbolt.Tx) error {
		last := uint64(0)
		return tx.Bucket(logBucket).ForEach(func(k, v []byte) error {
			if len(k) != 8 {
				return fmt.Errorf("an entry behind %d has a key of %d bytes", last, len(k))
			}
			i, entry := binary.BigEndian.Uint64(k), new(raft.Log)
			if err := decodeEntry(v, i, entry); err != nil {
				return err
			}
			if last > 0 && i != last+1 {
				return fmt.Errorf("entry %d follows entry %d", i, last)
			}
			last = i
			return nil
		})
	})
}

// guarded turns a panic into an error: bbolt's, and that of reading beyond the end of
// a mapped file that was cut off.
func guarded(do func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		debug.SetPanicOnFault(before)
	}()
	return do()
}

func encodeEntry(l *raft.Log) []byte {
	b := make([]byte, 4, entryHead+len(l.Data)+len(l.Extensions))
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = append(b, byte(l.Type))
	at := int64(0)
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Data)))
	b = append(append(b, l.Data...), l.Extensions...)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

// decodeEntry keeps nothing of b, which is bbolt's.
func decodeEntry(b []byte, index uint64, l *raft.Log) error {
	if len(b) < entryHead || crc32.Checksum(b[4:], castagnoli) != binary.BigEndian.Uint32(b) {
		return fmt.Errorf("entry %d: its %d bytes have another checksum", index, len(b))
	}
	n := uint64(binary.BigEndian.Uint32(b[29:]))
	if got := binary.BigEndian.Uint64(b[4:]); got != index || n > uint64(len(b)-entryHead) {
		return fmt.Errorf("entry %d: it says that it is %d, with %d of %d bytes", index, got, n, len(b))
	}
	*l = raft.Log{Index: index, Term: binary.BigEndian.Uint64(b[12:]), Type: raft.LogType(b[20])}
	if at := int64(binary.BigEndian.Uint64(b[21:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	rest := append([]byte(nil), b[entryHead:]...)
	l.Data = rest[:n:n]
	if rest = rest[n:]; len(rest) > 0 {
		l.Extensions = rest
	}
	return nil
}

func key(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }

// FirstIndex implements raft.LogStore.
func (s *store) FirstIndex() (uint64, error) {
	return s.end(func(c *bbolt.Cursor) []byte { k, _ := c.First(); return k })
}

// LastIndex implements raft.LogStore.
func (s *store) LastIndex() (uint64, error) {
	return s.end(func(c *bbolt.Cursor) []byte { k, _ := c.Last(); return k })
}

func (s *store) end(which func(c *bbolt.Cursor) []byte) (i uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if k := which(tx.Bucket(logBucket).Cursor()); k != nil {
			i = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return i, err
}

// GetLog implements raft.LogStore.
func (s *store) GetLog(index uint64, l *raft.Log) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(logBucket).Get(key(index))
		if v == nil {
			return raft.ErrLogNotFound
		}
		return decodeEntry(v, index, l)
	})
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore: all entries, and what is known to be committed,
// or nothing.
func (s *store) StoreLogs(logs []*raft.Log) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(logBucket)
		for _, l := range logs {
			if err := b.Put(key(l.Index), encodeEntry(l)); err != nil {
				return err
			}
		}
		return noteIn(tx, s.applied())
	})
}

// note notes up to where entries are applied.
func (s *store) note(applied uint64) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return noteIn(tx, applied) })
}

// noteIn takes nothing back: what was committed stays so.
func noteIn(tx *bbolt.Tx, applied uint64) error {
	b := tx.Bucket(valuesBucket)
	if v := b.Get(commitKey); len(v) == 8 && binary.BigEndian.Uint64(v) >= applied {
		return nil
	}
	return b.Put(commitKey, key(applied))
}

// DeleteRange implements raft.LogStore.
func (s *store) DeleteRange(first, last uint64) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		c := tx.Bucket(logBucket).Cursor()
		for k, _ := c.Seek(key(first)); k != nil && binary.BigEndian.Uint64(k) <= last; k, _ = c.Next() {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

// IsMonotonic implements raft.MonotonicLogStore: entries have no gaps. Behind a
// snapshot from a leader the log is emptied before it goes on.
func (s *store) IsMonotonic() bool { return true }

var _ raft.MonotonicLogStore = (*store)(nil)

// committed is up to where entries are known to be committed, and in the log.
func (s *store) committed() (uint64, error) {
	c, err := s.GetUint64(commitKey)
	if errors.Is(err, errNoValue) {
		return 0, nil
	}
	last, errLast := s.LastIndex()
	return min(c, last), errors.Join(err, errLast)
}

// errNoValue has the text that the library looks for.
var errNoValue = errors.New("not found")

// Set implements raft.StableStore.
func (s *store) Set(k, v []byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(valuesBucket).Put(k, v) })
}

// Get implements raft.StableStore.
func (s *store) Get(k []byte) (v []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if v = append([]byte(nil), tx.Bucket(valuesBucket).Get(k)...); v == nil {
			return errNoValue
		}
		return nil
	})
	return v, err
}

// SetUint64 implements raft.StableStore.
func (s *store) SetUint64(k []byte, v uint64) error { return s.Set(k, key(v)) }

// GetUint64 implements raft.StableStore.
func (s *store) GetUint64(k []byte) (uint64, error) {
	v, err := s.Get(k)
	if err == nil && len(v) != 8 {
		err = fmt.Errorf("the value %q has %d bytes instead of 8", k, len(v))
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

// Close lets go of the file.
func (s *store) Close() error {
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}
