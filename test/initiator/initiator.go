// Package initiator is a small iSCSI initiator (RFC 7143) for tests and
// benchmarks: it looks a target closely on the fingers, and is cheap enough to
// drive it at full speed.
//
// It shares no code with the target, so that what one of them misreads in the
// RFC, the other notices. Every number that a target sends is checked (StatSN,
// DataSN, R2TSN, offsets, burst lengths, the command window); a breach ends the
// session with a *ProtocolError. What it leaves out: more than one connection per
// session, error recovery above level 0, bidirectional commands.
//
// The header of every PDU, big endian; the fields after byte 16 are those of a
// SCSI command:
//
//	offset size
//	     0    1  operation code; 40h: immediate
//	     1    1  flags; 80h: final
//	     4    1  length of additional header segments, in words
//	     5    3  length of the data segment, without padding
//	     8    8  LUN
//	    16    4  initiator task tag
//	    20    4  expected data transfer length
//	    24    4  CmdSN
//	    28    4  ExpStatSN
//	    32   16  CDB
//	    48    …  additional header segments, header digest, data, padding, data digest
//
// A task tag of ours is the number of a slot in its lower half and a generation
// in its upper half, so that a late answer to a task that was given up is not
// taken for one to its successor in the slot.
package initiator

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"time"
)

// Options say with whom to talk and how. The zero value of every field but
// Address and TargetIQN means a sensible default.
type Options struct {
	Address      string // of the portal, host:port
	TargetIQN    string
	InitiatorIQN string
	// ISID tells this session from others of the same initiator. A login with the
	// same ISID takes the place of the older session (RFC 7143 section 6.3.5).
	// Zero: a random one.
	ISID [6]byte
	// LUN is the logical unit that the block methods speak to: 0 to 16383.
	LUN uint16

	// What is proposed to the target, under the names of RFC 7143 section 13.
	InitialR2T               bool // Yes; default No
	NoImmediateData          bool // No; default Yes
	FirstBurstLength         int  // default 64 KiB
	MaxBurstLength           int  // default 1 MiB
	MaxRecvDataSegmentLength int  // default 256 KiB
	MaxOutstandingR2T        int  // default 4
	HeaderDigest, DataDigest bool // CRC32C, and nothing else will do; default None
	SkipSecurity             bool // begin the login with the operational stage
	CHAP                     CHAP // default: none

	// Lenient leaves out two checks that tgt, otherwise a good reference, does not
	// pass: it sends 0 as ExpDataSN, and sequences of Data-In beyond MaxBurstLength.
	Lenient bool

	FirstCmdSN   uint32        // default 1; to try what happens where it wraps around
	MaxCommands  int           // in flight at a time; default 128, at most 4096
	MaxTransfer  int           // bytes per READ or WRITE of the block methods; default 1 MiB
	PingInterval time.Duration // a connection silent for two of these is lost; default 5 s, negative: never

	// Dial connects to the portal, from elsewhere than this process's network; default:
	// net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// complete checks the options and fills in the defaults.
func (o *Options) complete() error {
	for _, d := range []struct {
		v           *int
		value       int
		least, most int
		name        string
	}{
		{v: &o.FirstBurstLength, value: 64 << 10, least: 512, most: 1<<24 - 1, name: "FirstBurstLength"},
		{v: &o.MaxBurstLength, value: 1 << 20, least: 512, most: 1<<24 - 1, name: "MaxBurstLength"},
		{v: &o.MaxRecvDataSegmentLength, value: 256 << 10, least: 512, most: 1<<24 - 1, name: "MaxRecvDataSegmentLength"},
		{v: &o.MaxOutstandingR2T, value: 4, least: 1, most: 65535, name: "MaxOutstandingR2T"},
		{v: &o.MaxCommands, value: 128, least: 1, most: 4096, name: "MaxCommands"},
		{v: &o.MaxTransfer, value: 1 << 20, least: 512, most: 1 << 30, name: "MaxTransfer"},
	} {
		if *d.v == 0 {
			*d.v = d.value
		}
		if *d.v < d.least || *d.v > d.most {
			return fmt.Errorf("initiator: %s is %d, it has to be from %d to %d", d.name, *d.v, d.least, d.most)
		}
	}
	o.FirstBurstLength = min(o.FirstBurstLength, o.MaxBurstLength)
	if o.InitiatorIQN == "" {
		o.InitiatorIQN = "iqn.2026-01.io.github.twinlun:test-initiator"
	}
	if o.FirstCmdSN == 0 {
		o.FirstCmdSN = 1
	}
	if o.PingInterval == 0 {
		o.PingInterval = 5 * time.Second
	}
	if o.LUN >= 1<<14 {
		return fmt.Errorf("initiator: LUN %d, it has to be below 16384", o.LUN)
	}
	if o.ISID == [6]byte{} {
		o.ISID = RandomISID()
	}
	return nil
}

// RandomISID makes an ISID of the random type (RFC 7143 section 11.12.5).
func RandomISID() [6]byte {
	isid := [6]byte{0: 0x80}
	rand.Read(isid[1:])
	return isid
}

// EncodeLUN gives a LUN its form on the wire (SAM-5 4.7): peripheral device
// addressing below 256, flat space addressing from there.
func EncodeLUN(n uint16) (lun [8]byte) {
	lun[0], lun[1] = byte(n>>8), byte(n)
	if n >= 256 {
		lun[0] |= 0x40
	}
	return lun
}

// Dial opens a session with one connection. The session ends by Logout or Close,
// or when the connection is lost; it does not come back (Resilient does).
func Dial(ctx context.Context, o Options) (*Session, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	l, err := connect(ctx, &o)
	if err != nil {
		return nil, err
	}
	return start(ctx, l, o)
}

// start logs in over a fresh link and sets the session's goroutines going.
func start(ctx context.Context, l *link, o Options) (*Session, error) {
	lg := &login{link: l, opts: &o, isid: o.ISID, cmdSN: o.FirstCmdSN}
	p, err := lg.run(ctx)
	if err != nil {
		l.conn.Close()
		return nil, fmt.Errorf("session with %s at %s: %w", o.TargetIQN, o.Address, err)
	}
	s := newSession(l, o, p, lg)
	s.background.Go(s.receive)
	s.background.Go(s.attend)
	s.background.Go(s.watch)
	return s, nil
}
