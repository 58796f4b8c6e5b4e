// Package sanitize erases a logical unit that lives at two sites (SBC-3 4.11). While it
// does, no host is served at either one, whatever restarts; it ends when nothing of what
// was there before can be read at either.
//
// The site that a host has asked leads: it erases the LUN through both replicas. The
// other one follows. What a site is in is its State, which is in a file beside the LUN's
// map before it takes effect. The sites tell each other their States, and rules.go says
// what follows from what is told. The file, and what is told, big endian:
//
//	 0    8  magic "TWLNSAN1"
//	 8   16  UUID of the LUN
//	24    8  orders up to this number are over
//	32    1  phase
//	33    1  why the site does not follow; only told
//	34    8  number of the order; from here on zeros while the site is Idle
//	42   16  its random id
//	58    1  method
//	59    1  bit 0: AUSE, bit 1: invert, bits 2 and 3: what the LUN was in before
//	60    1  passes, 1 to 31; 0 unless it overwrites
//	61    8  bytes erased, of all passes together
//	69    2  length of the pattern, up to 4096
//	71    n  pattern; only in the file of the site that leads
//	 …    4  CRC-32C of all before
package sanitize

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	magic  = "TWLNSAN1"
	header = 71

	// MaxPattern bounds a pattern, in bytes: it is at most a logical block long.
	MaxPattern = 4096
	// MaxPasses is the highest OVERWRITE COUNT (SBC-3 5.30.2.2).
	MaxPasses = 31
	// MaxEncoded bounds a State's bytes.
	MaxEncoded = header + MaxPattern + 4
)

// Method is how blocks are erased.
type Method byte

// The methods.
const (
	Overwrite Method = iota // with a pattern
	Erase                   // they become holes, and read as zeros
)

// Order is what a host has asked for.
type Order struct {
	Number  uint64   // every order has a higher one than those before
	ID      [16]byte // random: tells orders apart that were given at both sites at once
	Method  Method
	AUSE    bool   // after a failure hosts may leave it at that (EXIT FAILURE MODE)
	Passes  int    // of Overwrite
	Invert  bool   // the pattern is inverted from pass to pass
	Before  Before // what happens if the order cannot be begun
	Pattern []byte // of Overwrite: repeated from the beginning of each logical block
}

// Before is what a LUN was in before an order.
type Before byte

// What it can have been in.
const (
	InUse            Before = iota
	FailedFree              // Failed, and hosts may leave it at that
	FailedRestricted        // Failed, and hosts may not
)

// same tells whether o and p are one order.
func (o *Order) same(p *Order) bool { return o.Number == p.Number && o.ID == p.ID }

// older orders orders.
func (o *Order) older(p *Order) bool {
	return cmp.Or(cmp.Compare(o.Number, p.Number), bytes.Compare(o.ID[:], p.ID[:])) < 0
}

// rounds is how often the whole LUN is gone through.
func (o *Order) rounds() int { return max(o.Passes, 1) }

// Phase is what a site is in.
type Phase byte

// The phases.
const (
	Idle      Phase = iota // hosts are served
	Starting               // this site asks the other one to follow
	Running                // this site leads, and erases
	Following              // the other one does
	Failed                 // nobody does any more, and hosts are not served
)

func (p Phase) String() string {
	return [...]string{"idle", "starting", "running", "following", "failed"}[p]
}

// Objection is why a site does not follow.
type Objection byte

// The objections.
const (
	None      Objection = iota
	Conflict            // a host has reserved the LUN there
	Protected           // it is write protected there
	Absent              // its medium is ejected there
)

// State is all that there is to know at a site.
type State struct {
	Phase Phase
	Order Order  // unless Idle
	Over  uint64 // orders up to this number have ended, done or given up
	Done  int64  // bytes erased at both sites, of all passes together

	objection Objection // only in answers
}

// Encode makes the bytes of a State of the LUN with this UUID.
func (s *State) Encode(lun [16]byte) []byte {
	o, be := &s.Order, binary.BigEndian
	b := append(make([]byte, 0, header+len(o.Pattern)+4), magic...)
	b = append(b, lun[:]...)
	b = be.AppendUint64(b, s.Over)
	b = append(b, byte(s.Phase), byte(s.objection))
	b = be.AppendUint64(b, o.Number)
	b = append(b, o.ID[:]...)
	b = append(b, byte(o.Method), flags(o), byte(o.Passes))
	b = be.AppendUint64(b, uint64(s.Done))
	b = be.AppendUint16(b, uint16(len(o.Pattern)))
	b = append(b, o.Pattern...)
	return be.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

const (
	flagAUSE   = 0x01
	flagInvert = 0x02
)

func flags(o *Order) byte {
	f := byte(o.Before) << 2
	if o.AUSE {
		f |= flagAUSE
	}
	if o.Invert {
		f |= flagInvert
	}
	return f
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Decode reads a State of the LUN with this UUID, and checks it.
func Decode(b []byte, lun [16]byte) (*State, error) {
	if len(b) < header+4 || len(b) > MaxEncoded || string(b[:8]) != magic {
		return nil, fmt.Errorf("%d bytes, not the state of a sanitize operation", len(b))
	}
	be := binary.BigEndian
	body := b[:len(b)-4]
	switch {
	case crc32.Checksum(body, castagnoli) != be.Uint32(b[len(body):]):
		return nil, errors.New("its checksum is wrong")
	case [16]byte(b[8:24]) != lun:
		return nil, fmt.Errorf("it belongs to the LUN %x, not to %x", b[8:24], lun)
	case int(be.Uint16(b[69:])) != len(body)-header:
		return nil, fmt.Errorf("a pattern of %d bytes in %d", be.Uint16(b[69:]), len(body)-header)
	}
	s := &State{Over: be.Uint64(b[24:]), Phase: Phase(b[32]), objection: Objection(b[33]), Done: int64(be.Uint64(b[61:]))}
	s.Order = Order{
		Number: be.Uint64(b[34:]), ID: [16]byte(b[42:58]), Method: Method(b[58]), Passes: int(b[60]),
		AUSE: b[59]&flagAUSE != 0, Invert: b[59]&flagInvert != 0, Before: Before(b[59] >> 2),
	}
	if len(body) > header {
		s.Order.Pattern = bytes.Clone(body[header:])
	}
	return s, s.check()
}

func (s *State) check() error {
	o := &s.Order
	switch {
	case s.Phase > Failed, s.objection > Absent, s.Done < 0:
		return fmt.Errorf("phase %d, objection %d, %d bytes done", s.Phase, s.objection, s.Done)
	case s.Phase == Idle && (o.Number != 0 || o.ID != [16]byte{} || flags(o) != 0 || o.Method != 0 || o.Passes != 0 || o.Pattern != nil || s.Done != 0):
		return errors.New("an order without a phase")
	case s.Phase == Idle:
		return nil
	case o.Number <= s.Over:
		return fmt.Errorf("order %d, when all up to %d are over", o.Number, s.Over)
	case s.objection != None && s.Phase != Failed:
		return fmt.Errorf("objection %d in phase %d", s.objection, s.Phase)
	}
	return o.check()
}

// check tells what is wrong with an order. Who follows has no pattern.
func (o *Order) check() error {
	switch {
	case o.ID == [16]byte{}, o.Before > FailedRestricted:
		return errors.New("an order without an id, or after nothing that can be")
	case o.Method == Erase && o.Passes == 0 && !o.Invert && o.Pattern == nil:
		return nil
	case o.Method != Overwrite || o.Passes < 1 || o.Passes > MaxPasses || len(o.Pattern) > MaxPattern:
		return fmt.Errorf("method %d, %d passes, a pattern of %d bytes", o.Method, o.Passes, len(o.Pattern))
	}
	return nil
}
