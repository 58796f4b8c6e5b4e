// Package sam holds the words that a SCSI transport and a SCSI device server
// share (SAM-5): a command with its data buffers and its outcome, an I_T nexus,
// a task management function. target/iscsi speaks them from below, target/scsi
// from above; neither imports the other.
package sam

import "context"

// Status is a SCSI status code (SAM-5 5.3.1).
type Status byte

// The status codes in use.
const (
	Good                Status = 0x00
	CheckCondition      Status = 0x02
	ConditionMet        Status = 0x04
	Busy                Status = 0x08
	ReservationConflict Status = 0x18
	TaskSetFull         Status = 0x28
	TaskAborted         Status = 0x40
)

// Command is one SCSI command on its way through. The transport fills in the
// first part, calls Nexus.Prepare, gets the buffers ready, calls Nexus.Execute,
// and sends what the second part says. Commands are reused: no field outlives
// the response.
type Command struct {
	LUN [8]byte // as on the wire (SAM-5 4.7)
	Tag uint32  // for log lines
	CDB []byte  // 16 bytes, or up to 260 with an extended CDB; read only

	// ExpectIn and ExpectOut are the initiator's expected data transfer lengths,
	// in bytes, for each direction. At most one of them is not 0.
	ExpectIn, ExpectOut uint32

	// Ctx ends when the command is aborted, or its session goes. Execute then
	// returns as soon as it can; its outcome is thrown away.
	Ctx context.Context

	// WantOut and WantIn are set by Prepare: how many bytes of Data-Out the
	// command takes, and how many bytes of Data-In it can give at most. The
	// transport then provides
	//	Out: the first min(WantOut, ExpectOut) bytes of the initiator's data;
	//	In:  a buffer of min(WantIn, ExpectIn) bytes.
	// Neither is ever more than MaxTransfer of the device.
	WantOut, WantIn uint32
	Out, In         []byte

	// Unit is the device server's, between Prepare and Execute: the logical unit
	// that the command was prepared for. The number may belong to another by then.
	Unit any

	// The outcome. InLen is how many bytes of In count. Needed is how many bytes
	// the command as its CDB stands transfers, whatever the initiator expects:
	// from it and ExpectIn or ExpectOut the transport reckons the residual
	// (RFC 7143 section 11.4.5).
	Status Status
	Sense  []byte // fixed format (SPC-4 4.5.3) with CheckCondition; at most 252 bytes
	InLen  uint32
	Needed uint32
}

// Lasting is a context that ends with the command's, and from which others can be made:
// those hold on to it for a moment after they have ended, when the command may be another
// one already, and its own Ctx with it. stop ends it.
func (c *Command) Lasting() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := c.Ctx.Done() // looked up now
	go func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// TaskFunction is a task management function (SAM-5 7.1).
type TaskFunction byte

// The functions, numbered as in RFC 7143 section 11.5.1.
const (
	AbortTask        TaskFunction = 1
	AbortTaskSet     TaskFunction = 2
	ClearACA         TaskFunction = 3
	ClearTaskSet     TaskFunction = 4
	LogicalUnitReset TaskFunction = 5
	TargetWarmReset  TaskFunction = 6
	TargetColdReset  TaskFunction = 7
)

// InitiatorPort names an initiator port (SAM-5 4.6.9, RFC 7143 section 4.4.1.5).
type InitiatorPort struct {
	Name string // iSCSI name
	ISID [6]byte
}

// Target is a SCSI target device with its logical units.
type Target interface {
	// NewNexus opens an I_T nexus between an initiator port and the target port of
	// the given portal group tag. The same initiator port may come again after its
	// nexus was closed, and finds its unit attentions as SAM-5 says.
	NewNexus(from InitiatorPort, portalGroup uint16) Nexus
}

// Nexus is an I_T nexus. Its methods may be called concurrently.
type Nexus interface {
	// Prepare looks at a command before any of its data is taken, checks its CDB,
	// and sets WantOut and WantIn. False: the command has ended already, with the
	// outcome set (no such LUN, illegal CDB, unit attention, LBA out of range …).
	Prepare(c *Command) bool
	// Execute carries a prepared command out and sets the outcome. It blocks for
	// as long as the medium needs; many commands of a nexus run at once.
	Execute(c *Command)
	// HasLUN tells whether the logical unit exists.
	HasLUN(lun [8]byte) bool
	// Reset is told of a LogicalUnitReset, TargetWarmReset or TargetColdReset when
	// the transport has aborted the commands that it ends; it sets up the unit
	// attentions. It returns false for a logical unit that does not exist.
	//
	// Of a ClearTaskSet it is told in the same way: the logical unit may have other
	// commands, which this transport does not know. What ctx ends is only the waiting
	// for those.
	Reset(ctx context.Context, f TaskFunction, lun [8]byte) bool
	// Cleared says that a ClearTaskSet of another nexus ended commands of this one
	// without an answer (COMMANDS CLEARED BY ANOTHER INITIATOR, SAM-5 5.14).
	Cleared(lun [8]byte)
	// Close ends the nexus.
	Close()
}

// Tasks are the commands of one I_T nexus, which the transport has in hand. A
// device server ends those of another nexus with it (PREEMPT AND ABORT, SPC-4
// 5.12.11).
type Tasks interface {
	// Abort ends the nexus's commands on a logical unit, all but by, on whose behalf
	// it happens: their contexts end, and their outcomes are thrown away. With tas
	// each is answered with TaskAborted, otherwise none is answered. It returns when
	// the last one is gone, or when the context of by ends, and says how many got no
	// answer. The caller must not hold a lock that a command may wait for.
	Abort(lun [8]byte, by *Command, tas bool) (silent int)
}

// Mapped is a Nexus whose LUNs may be other logical units than the same LUNs of
// another nexus.
type Mapped interface {
	// Unit names a logical unit, the same for all nexuses, also for those with other
	// targets; two can be compared. It is called while the transport holds a lock, and
	// must not block.
	Unit(lun [8]byte) any
	// Units names all logical units of the nexus's target, also those that this
	// initiator does not see: what a target reset is about.
	Units() []any
}

// Trier is a Nexus that can carry some commands out while its caller has no time
// to wait.
type Trier interface {
	// TryExecute is Execute, if that needs to wait for nothing: no other node, no
	// other command. A command that reads does not wait for the medium either; one
	// that writes may, since nothing tells beforehand. False: nothing has been done,
	// but for bytes of In, or of the medium that the command writes, and Execute has
	// to follow.
	TryExecute(c *Command) bool
}

// TaskUser is a Nexus that wants its Tasks.
type TaskUser interface {
	// UseTasks is called once, before the first command. The Tasks may be used, and
	// do nothing, after Close.
	UseTasks(t Tasks)
	// TAS tells whether commands on a logical unit that another nexus ends are
	// answered with TaskAborted (SPC-4 7.5.8, the TAS bit).
	TAS(lun [8]byte) bool
}
