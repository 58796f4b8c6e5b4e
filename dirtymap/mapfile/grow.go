package mapfile

import (
	"errors"
	"fmt"
	"os"

	"github.com/twinlun/twinlun/dirtymap"
)

// Grow writes the map of the same LUN with a larger size, in bytes, into an empty
// file, durably. What the map says goes with it, a prepared join too; the new extents
// are SHARED. The Log is only read.
func (l *Log) Grow(to File, size int64) error {
	id := l.id
	id.Size = size
	if size < l.id.Size {
		return fmt.Errorf("the map is of %d bytes, and cannot be made one of %d: a LUN does not shrink", l.id.Size, size)
	}
	if err := Create(to, id, 0, l.meta); err != nil {
		return err
	}
	next, _, err := Open(to, &id)
	if err != nil {
		return err
	}
	err = l.eachPage(func(first uint64, states []byte, wrong error) error {
		if wrong != nil {
			return damaged(wrong)
		}
		return next.takeOver(first, states)
	})
	if err == nil && l.prepared != nil {
		err = next.Append(*l.prepared)
	}
	return errors.Join(err, next.Checkpoint())
}

// takeOver sets the states of a page of another map; they are SHARED so far.
func (l *Log) takeOver(first uint64, states []byte) error {
	const company = 256 // pages that are synced together
	var recs []Record
	for i := 0; i < len(states); {
		n := alike(states[i:])
		if s := dirtymap.State(states[i]); s != 0 {
			recs = append(recs, Set{Range: dirtymap.Range{First: first + uint64(i), Count: uint64(n)}, State: s})
		}
		i += n
	}
	err := l.Append(recs...)
	if err == nil && first/pageStates%company == company-1 {
		err = l.Sync() // checkpoints when enough has come together
	}
	return err
}

// GrowOS does that with the map file at path, which nobody has open; another process
// finds it whole, before or after. The LUN's size, in bytes, is as large already or
// grows.
func GrowOS(path string, lun [16]byte, size int64) error {
	f, err := OpenOS(path)
	if err != nil {
		return err
	}
	l, _, err := Open(f, nil)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if l.id.LUN != lun {
		return errors.Join(fmt.Errorf("grow map file %s: %w: it is of LUN %x, not of %x", path, ErrForeign, l.id.LUN, lun), l.Close())
	}
	if l.id.Size != size {
		err = makeOS(path, func(to File) error { return l.Grow(to, size) })
	}
	if err := errors.Join(err, l.Close()); err != nil {
		return fmt.Errorf("grow map file %s to %d bytes: %w", path, size, err)
	}
	return nil
}

// IdentityOS reads which LUN the map file at path is of; os.ErrNotExist and ErrEmpty
// if there is none yet.
func IdentityOS(path string) (Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return Identity{}, fmt.Errorf("open map file: %w", err)
	}
	defer f.Close()
	c, err := load(osFile{f}, nil)
	if err != nil {
		return Identity{}, fmt.Errorf("read map file %s: %w", path, err)
	}
	return c.header.id, nil
}
