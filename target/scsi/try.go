package scsi

import (
	"errors"

	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// NowReader is a Disk that can read without waiting.
type NowReader interface {
	// ReadNow is ReadAt, if that needs to wait for nothing. Not ok: p is to be read
	// again by ReadAt; its bytes mean nothing.
	ReadNow(p []byte, off int64) (ok bool, err error)
}

// NowWriter is a Disk that can write without waiting for other commands.
type NowWriter interface {
	// WriteNow is WriteAt without fua, if that needs to wait for nothing but the
	// medium. Not ok: p is to be written by WriteAt, whether any of it was or not. Ok, and
	// an error that is SCSINotReady: p is written, and must not be written again, but the
	// host cannot be told so.
	WriteNow(p []byte, off int64) (ok bool, err error)
}

// TryExecute implements sam.Trier. It carries out reads and writes.
func (n *nexus) TryExecute(c *sam.Command) bool {
	v, prepared := c.Unit.(*view)
	if !prepared || v.unit == nil || n.port.view(c.LUN) != v {
		return false // Execute will say what is wrong
	}
	op, _ := n.port.target.ops.find(c.CDB)
	if op == nil || op.try == nil || v.admit(op, c.CDB).failed() {
		return false
	}
	return op.try(v, c)
}

// tryRead is a READ's try.
func (f form) tryRead(v *view, c *sam.Command) bool {
	d, able := v.unit.disk.(NowReader)
	if !able || f.size != 6 && c.CDB[1]&bitFUA != 0 {
		return false
	}
	e, s := f.extent(v.unit, c.CDB, MaxTransfer)
	if s.failed() {
		return false
	}
	p := c.In[:min(e.size, int64(len(c.In)))]
	if len(p) > 0 {
		if ok, err := d.ReadNow(p, e.off); !ok || err != nil {
			return false // an error is told by Execute, which meets it again
		}
	}
	c.Needed, c.InLen = uint32(e.size), uint32(len(p))
	sense{}.finish(c)
	c.Unit = nil
	return true
}

// tryWrite is a WRITE's try.
func (f form) tryWrite(v *view, c *sam.Command) bool {
	d, able := v.unit.disk.(NowWriter)
	if !able || f.size != 6 && c.CDB[1]&bitFUA != 0 || v.unit.writeThrough.Load() {
		return false
	}
	e, s := f.extent(v.unit, c.CDB, MaxTransfer)
	if s.failed() {
		return false
	}
	e = e.came(v.unit, c)
	if e.size > 0 {
		if ok, err := d.WriteNow(c.Out[:e.size], e.off); !ok || err != nil {
			return ok && tellNow(c, err) // else an error is told by Execute, which meets it again
		}
	}
	sense{}.finish(c)
	c.Unit = nil
	return true
}

// tellNow tells the host of an error after which a write must not be done again. False:
// it is not one.
func tellNow(c *sam.Command, err error) bool {
	var wait notReady
	if !errors.As(err, &wait) || !wait.SCSINotReady() {
		return false
	}
	mediumSense(err, gotgt.ASC_WRITE_ERROR).finish(c)
	c.Unit = nil
	return true
}
