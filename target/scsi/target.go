package scsi

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gostor/gotgt/pkg/api"

	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/reservation/local"
	"github.com/twinlun/twinlun/target/sanitize"
)

const (
	// MaxTransfer bounds what one READ, WRITE or VERIFY moves, in bytes. It is told
	// in VPD page B0h. Initiators split at 1 MiB or less; 16 MiB leaves room and
	// keeps the transport's buffers bounded.
	MaxTransfer = 16 << 20

	// maxLUN is the last number of the flat space addressing method (SAM-5 4.7.7.3).
	maxLUN = 1<<14 - 1

	// maxPorts bounds how many I_T nexuses that are gone are remembered for their
	// unit attentions. One forgotten is told POWER ON again, which covers all.
	maxPorts = 1024

	// maxName is the longest iSCSI name (RFC 7143 section 4.2.7.1).
	maxName = 223

	// maxSerial keeps the T10 vendor ID designator below its 255 bytes.
	maxSerial = 128
)

// Disk is a LUN's medium. Its methods may be called concurrently. Offsets and
// lengths are in bytes and lie inside [0, Size). An error with a method
// SCSINotReady() bool that returns true is told to the host as NOT READY, and
// tried again by it; any other as a MEDIUM ERROR.
type Disk interface {
	// ReadAt fills p with the bytes at off.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// WriteAt stores p at off; with fua it is durable on return.
	WriteAt(ctx context.Context, p []byte, off int64, fua bool) error
	// Zero makes [off, off+n) read as zeros, and gives the space back where possible.
	Zero(ctx context.Context, off, n int64, fua bool) error
	// Update has change look at the n bytes at off (at most 128 KiB) and change them;
	// it stores them if change returns true, with fua durably. Nobody reads or writes
	// any of them in between.
	Update(ctx context.Context, off, n int64, fua bool, change func(p []byte) bool) error
	// WriteAtomic stores p (at most 128 KiB) at off, all of it or nothing: so Disk reads
	// show it, at all sites, and so it is after any crash.
	WriteAtomic(ctx context.Context, p []byte, off int64, fua bool) error
	// Sync makes everything durable that was written before it was called.
	Sync(ctx context.Context) error
	// Size is in bytes.
	Size() int64
}

// LUN describes a logical unit. Two targets that are given the same identity
// (NAA, EUI, Serial, Vendor, Product, Revision) show the same logical unit, with
// two paths to it.
type LUN struct {
	Disk      Disk
	NAA       [16]byte // SPC-4 7.8.6.6; type 6 (16 bytes), or 3 or 5 (8 bytes, then zeros)
	EUI       [8]byte  // EUI-64; zero: none
	Serial    string   // printable ASCII, 1 to 128 bytes
	Vendor    string   // up to 8 bytes; empty: TWINLUN
	Product   string   // up to 16 bytes; empty: twinlun
	Revision  string   // up to 4 bytes
	BlockSize uint32   // logical block, bytes: 512 to 4096, a power of two; 0: 512

	// Threshold is how little space there may be for a Disk that is Provisioned before
	// ThresholdReached, in bytes; 0: there is no such limit. SetThreshold changes it.
	Threshold int64

	ReadOnly  bool // nothing stores to it
	Removable bool // hosts can eject the medium, for all of them, and load it again

	// PreferredGroup is the target port group that is active/optimized for hosts that
	// are not assigned to one (SetPreference); 0: all are.
	PreferredGroup uint16

	// Twin reaches the same logical unit at the other site; nil: there is none.
	Twin Twin

	// Sanitizer erases the unit; nil: there is no SANITIZE. It outlives the unit.
	Sanitizer *sanitize.Sanitizer

	// Reservations keeps the persistent ones, for all sites if it is Shared; nil: in
	// memory, for this device alone.
	Reservations Reserver
}

// Config describes a device with one target, or what the targets of a device have in
// common.
type Config struct {
	Name string       // iSCSI name of the target, up to 223 bytes
	Log  *slog.Logger // nil: slog.Default()

	// Groups are all target port groups through which hosts reach the logical units,
	// the same at all sites; none: each port is a group of its own, and there are no
	// others.
	Groups []PortGroup

	// Masked targets show initiators only what SetMap gives them; others show all
	// logical units to those without a map.
	Masked bool
}

// PortGroup is a target port group: the target ports of one site.
type PortGroup struct {
	ID    uint16   // target port group (SPC-4 5.15.1)
	Ports []uint16 // portal group tags; each is a target port of every target
	// Remote ports belong to another Device, at another site. It shows the same
	// logical units; a Reserver that is Shared keeps their reservations for it, too.
	Remote bool
}

// Device is the logical units, with all that hosts do to them: reservations, resets and
// unit attentions are the same whatever Target they come by.
type Device struct {
	// Fixed by NewDevice.
	log *slog.Logger
	ops *operations

	scratch sync.Pool // of *[scratchSize]byte

	groups atomic.Pointer[[]PortGroup] // SetGroups replaces them

	adding sync.Mutex // by AddLUN, one at a time; taken before mu

	mu      sync.Mutex
	targets []*Target // ascending by number
	luns    map[uint16]*unit
	ports   map[portKey]*port
	named   map[reservation.Nexus]*port // the same ports
	clock   uint64                      // counts openings, for forgetting the oldest port
}

// NewDevice returns a device without logical units and targets.
func NewDevice(cfg Config) *Device {
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	t := &Device{
		log:   log,
		ops:   newOperations(),
		luns:  make(map[uint16]*unit),
		ports: make(map[portKey]*port),
		named: make(map[reservation.Nexus]*port),
	}
	t.groups.Store(&cfg.Groups)
	return t
}

// unit is one logical unit.
type unit struct {
	target *Device
	number uint16
	disk   Disk
	lu     api.SCSILu // its model; read only
	naa    []byte
	eui    []byte
	shift  uint // log2 of the logical block size

	reservations Reserver
	aborting     aborting
	guard        atomic.Pointer[guard] // nil: open to all
	mu           sync.Mutex            // over changes of guard

	readOnly, removable bool

	writeThrough   atomic.Bool // WCE is 0: every write is durable when it is answered
	answersAborted atomic.Bool // TAS

	settings sync.Mutex           // over changes of settings; taken before mu, and never held across a wait
	version  [settingCount]uint64 // of the settings; under settings
	prevents map[*port]bool       // who wants the medium to stay in; under settings
	twin     twin

	threshold atomic.Int64 // bytes; 0: none

	failures   atomic.Int64 // not logged yet; see complain
	complained atomic.Int64 // when one was logged last, nanoseconds

	sanitizer *sanitize.Sanitizer // nil: none
	visits    visits

	preferred atomic.Uint32            // target port group
	places    atomic.Pointer[[]uint16] // see Place
	moved     sync.Map                 // the target port groups whose state was changed
}

// blocks is the capacity in logical blocks.
func (u *unit) blocks() uint64 { return uint64(u.disk.Size()) >> u.shift }

// bytes turns a number of blocks, checked before, into bytes.
func (u *unit) bytes(blocks uint64) int64 { return int64(blocks << u.shift) }

// newUnit checks a LUN's description.
func newUnit(t *Device, number uint16, l LUN) (*unit, error) {
	l.BlockSize = cmp.Or(l.BlockSize, 512)
	l.Vendor, l.Product = cmp.Or(l.Vendor, "TWINLUN"), cmp.Or(l.Product, "twinlun")
	if err := l.check(number); err != nil {
		return nil, err
	}
	u := &unit{target: t, number: number, disk: l.Disk, shift: uint(bits.TrailingZeros32(l.BlockSize))}
	u.naa = l.NAA[:naaSize(l.NAA)]
	if l.EUI != [8]byte{} {
		u.eui = l.EUI[:]
	}
	u.lu = newModel(l, u.shift)
	u.preferred.Store(uint32(l.PreferredGroup))
	u.reservations = l.Reservations
	u.readOnly, u.removable = l.ReadOnly, l.Removable
	u.twin.way = l.Twin
	u.threshold.Store(l.Threshold)
	u.sanitizer = l.Sanitizer
	if u.reservations == nil {
		u.reservations = local.Memory()
	}
	return u, nil
}

func (l *LUN) check(number uint16) error {
	switch {
	case number > maxLUN:
		return fmt.Errorf("LUN numbers go up to %d", maxLUN)
	case l.Disk == nil:
		return fmt.Errorf("it has no disk")
	case l.BlockSize < 512 || l.BlockSize > physicalBlock || l.BlockSize&(l.BlockSize-1) != 0:
		return fmt.Errorf("block size %d: must be 512, 1024, 2048 or 4096", l.BlockSize)
	case l.Disk.Size() < int64(l.BlockSize):
		return fmt.Errorf("disk of %d bytes: smaller than one block", l.Disk.Size())
	case naaSize(l.NAA) == 0:
		return fmt.Errorf("NAA identifier %x: must start with 6, or with 3 or 5 and end in eight zero bytes", l.NAA)
	case len(l.Serial) == 0 || !printable(l.Serial, maxSerial):
		return fmt.Errorf("serial number %q: must be 1 to %d printable ASCII characters", l.Serial, maxSerial)
	case !printable(l.Vendor, 8) || !printable(l.Product, 16) || !printable(l.Revision, 4):
		return fmt.Errorf("vendor %q, product %q, revision %q: must be printable ASCII, up to 8, 16 and 4 characters",
			l.Vendor, l.Product, l.Revision)
	}
	return nil
}

// naaSize is the length of an NAA identifier, or 0 if its type is not allowed.
func naaSize(naa [16]byte) int {
	switch kind := naa[0] >> 4; {
	case kind == 6:
		return 16
	case (kind == 3 || kind == 5) && [8]byte(naa[8:]) == [8]byte{}:
		return 8
	}
	return 0
}

func printable(s string, most int) bool {
	return len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
}
