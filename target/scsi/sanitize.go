package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
	"github.com/twinlun/twinlun/target/sanitize"
)

// SANITIZE (SBC-3 5.30).
const (
	opSanitize api.SCSICommandType = 0x48

	actionOverwrite   = 0x01
	actionBlockErase  = 0x02
	actionExitFailure = 0x1f

	bitSanitizeImmediate = 0x80 // byte 1
	bitAUSE              = 0x20
	bitInvert            = 0x80 // of the parameter list of OVERWRITE, byte 0
	bitsPasses           = 0x1f
	overwriteHeader      = 4
)

// presence says what runs while a unit is being sanitized, or could not be (SBC-3 4.11).
type presence byte

const (
	duringNothing presence = iota
	duringFailure          // in the failure mode
	duringAll
)

// sanitizeOperations are the service actions. There is no CRYPTOGRAPHIC ERASE: nothing
// is encrypted. ZNR is about zones, which there are none of: it must be 0.
func sanitizeOperations() []operation {
	action := func(action int, a access, execute func(*view, *sam.Command) sense) operation {
		return operation{code: opSanitize, action: action, during: duringFailure, access: a,
			usage:   []byte{0, byte(action) | bitSanitizeImmediate | bitAUSE, 0, 0, 0, 0, 0, 0xff, 0xff, 0},
			prepare: prepareSanitize, execute: execute}
	}
	return []operation{
		action(actionOverwrite, accessStores, sanitizeUnit),
		action(actionBlockErase, accessStores, sanitizeUnit),
		action(actionExitFailure, accessChanges, exitFailure),
	}
}

var sanitizeLength = field(7, 2)

// lacks tells whether a unit does not have an operation that others have.
func (u *unit) lacks(code api.SCSICommandType) bool { return code == opSanitize && u.sanitizer == nil }

func (v *view) lacks(cdb []byte) bool {
	return v.unit != nil && len(cdb) > 0 && v.unit.lacks(api.SCSICommandType(cdb[0]))
}

// prepareSanitize checks the length of the parameter list: OVERWRITE has a header and a
// pattern, the others have none.
func prepareSanitize(v *view, c *sam.Command) sense {
	n, least, most := sanitizeLength(c.CDB), uint64(0), uint64(0)
	if c.CDB[1]&0x1f == actionOverwrite {
		least, most = overwriteHeader+1, overwriteHeader+1<<v.unit.shift
	}
	if n < least || n > most {
		return invalidField(7)
	}
	c.WantOut = uint32(n)
	return sense{}
}

// sanitizeUnit is OVERWRITE and BLOCK ERASE.
func sanitizeUnit(v *view, c *sam.Command) sense {
	u := v.unit
	o, s := u.sanitizeOrder(c)
	if s.failed() {
		return s
	}
	ctx, stop := c.Lasting()
	defer stop()
	err := u.sanitizer.Start(ctx, o, func() error { return u.endOthers(c) })
	if err != nil {
		u.target.log.Warn("a LUN is not sanitized", "lun", u.number, "err", err)
		return u.sanitizeSense(err, bitAUSE)
	}
	if c.CDB[1]&bitSanitizeImmediate != 0 {
		return sense{}
	}
	return u.sanitizeSense(u.sanitizer.Wait(ctx), 0)
}

// sanitizeOrder reads what is asked for. The parameter list of OVERWRITE (SBC-3
// 5.30.2.2), big endian:
//
//	offset size
//	     0    1  INVERT, TEST (vendor specific: must be 0), OVERWRITE COUNT
//	     2    2  length of the pattern, at most a logical block
//	     4    n  pattern
func (u *unit) sanitizeOrder(c *sam.Command) (o sanitize.Order, s sense) {
	o.AUSE = c.CDB[1]&bitAUSE != 0
	if c.CDB[1]&0x1f == actionBlockErase {
		o.Method = sanitize.Erase
		return o, s
	}
	n := int(sanitizeLength(c.CDB))
	if c.Needed = uint32(n); len(c.Out) < n {
		return o, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	list := c.Out[:n]
	size := int(binary.BigEndian.Uint16(list[2:]))
	o.Passes, o.Invert = int(list[0]&bitsPasses), list[0]&bitInvert != 0
	switch fault := list[0] &^ (bitInvert | bitsPasses); {
	case fault != 0:
		return o, invalidParameterBits(0, fault)
	case o.Passes == 0:
		return o, invalidParameterBits(0, bitsPasses)
	case list[1] != 0:
		return o, invalidParameter(1)
	case size == 0 || size > 1<<u.shift:
		return o, invalidParameter(2)
	case size != n-overwriteHeader:
		return o, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	o.Pattern = bytes.Clone(list[overwriteHeader:])
	return o, s
}

// exitFailure is EXIT FAILURE MODE.
func exitFailure(v *view, c *sam.Command) sense {
	ctx, stop := c.Lasting()
	defer stop()
	return v.unit.sanitizeSense(v.unit.sanitizer.Exit(ctx), 0x1f)
}

// sanitizeSense turns an error of the Sanitizer into sense data; fault is the field of
// byte 1 that the failure mode does not allow.
func (u *unit) sanitizeSense(err error, fault byte) sense {
	switch {
	case err == nil:
		return sense{}
	case errors.Is(err, sanitize.ErrBusy):
		return u.guard.Load().busy()
	case errors.Is(err, sanitize.ErrFailed):
		return sense{key: gotgt.MEDIUM_ERROR, code: codeSanitizeFailed}
	case errors.Is(err, sanitize.ErrRestricted):
		return invalidBits(1, fault)
	case errors.Is(err, sanitize.ErrNoPeer):
		return sense{key: gotgt.NOT_READY, code: codeBecomingReady}
	case errors.Is(err, sanitize.ErrConflict):
		return conflict
	case errors.Is(err, sanitize.ErrProtected):
		return sense{key: gotgt.DATA_PROTECT, code: gotgt.ASC_WRITE_PROTECT}
	case errors.Is(err, sanitize.ErrAbsent):
		return sense{key: gotgt.NOT_READY, code: gotgt.ASC_MEDIUM_NOT_PRESENT}
	}
	return sense{key: gotgt.HARDWARE_ERROR, code: gotgt.ASC_INTERNAL_TGT_FAILURE}
}

// endOthers ends all commands on the unit but one, on whose behalf it happens, and waits
// for them. Each is answered, also without TAS: SBC-3 4.11.2 has them terminated, and a
// host that hears nothing would wait. The error is the context's: some have not ended.
func (u *unit) endOthers(by *sam.Command) error {
	u.endCommands(by, true)
	if err := by.Ctx.Err(); err != nil {
		return context.Cause(by.Ctx)
	}
	return u.visits.gone(by.Ctx)
}

// sanitized is a unit as its Sanitizer sees it: a sanitize.Unit.
type sanitized struct{ *unit }

// Refuse implements sanitize.Unit.
func (u sanitized) Refuse(s sanitize.Status) {
	u.restrict(func(g *guard) {
		g.sanitize = nil
		if s.Phase != sanitize.Idle {
			g.sanitize = &s
		}
	})
}

// EndCommands implements sanitize.Unit.
func (u sanitized) EndCommands(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, hearLimit, errSlowCommands)
	defer cancel()
	return u.endOthers(&sam.Command{Ctx: ctx})
}

var errSlowCommands = errors.New("they take too long")

// Objection implements sanitize.Unit: what would keep a host here from it. Who has
// reserved the unit here is another host than the one that asks, as far as can be told.
func (u sanitized) Objection() sanitize.Objection {
	g := u.guard.Load()
	switch {
	case g == nil:
		return sanitize.None
	case g.persistent != nil, g.reserved != nil:
		return sanitize.Conflict
	case g.protected, g.readOnly:
		return sanitize.Protected
	case g.ejected:
		return sanitize.Absent
	}
	return sanitize.None
}

// Tell implements sanitize.Unit.
func (u sanitized) Tell(ctx context.Context, body []byte) ([]byte, error) {
	if u.twin.way == nil {
		return nil, fmt.Errorf("LUN %d has no other site", u.number)
	}
	return u.twin.way.Tell(ctx, topicSanitize, body)
}

// sanitizing is what a command ends with that does not run now.
func (g *guard) sanitizing(op *operation) sense {
	s := g.sanitize
	switch {
	case s == nil, op.during == duringAll:
		return sense{}
	case s.Phase != sanitize.Failed:
		return g.busy()
	case op.during == duringFailure:
		return sense{}
	}
	return sense{key: gotgt.MEDIUM_ERROR, code: codeSanitizeFailed}
}

// busy is SANITIZE IN PROGRESS, with the progress if it is known.
func (g *guard) busy() sense {
	s := sense{key: gotgt.NOT_READY, code: codeSanitizing}
	if g != nil && g.sanitize != nil {
		s.progress = uint32(g.sanitize.Progress) + 1
	}
	return s
}

// visits are the pieces of copies under way that commands of other units read or write
// here: they do not end with the commands of this unit.
type visits struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when n is 0 again; nil: nobody waits
}

func (v *visits) enter() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.n++
}

func (v *visits) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.n--; v.n == 0 && v.none != nil {
		close(v.none)
		v.none = nil
	}
}

// gone waits until nobody is here, or with the context.
func (v *visits) gone(ctx context.Context) error {
	v.mu.Lock()
	if v.n == 0 {
		v.mu.Unlock()
		return nil
	}
	if v.none == nil {
		v.none = make(chan struct{})
	}
	none := v.none
	v.mu.Unlock()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
