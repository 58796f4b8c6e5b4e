package volume

import (
	"context"
	"time"

	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/coherence"
)

// Lease says whether this node may answer hosts, as far as the other one is concerned:
// for good while it serves alone, else as long as the other one has promised not to
// serve alone.
type Lease interface {
	// Holds is asked for every command, when its work is done and before it is answered.
	// It does not block and takes no memory: one look at a monotonic clock. A lease that
	// comes back after a time in which the other node served alone must not hold before
	// the replica has been told so (Replica.SetRole).
	Holds() bool
}

// leasePoll is how often a command that has done its work looks for the lease. There is
// none for about a second when the other node is lost.
const leasePoll = 10 * time.Millisecond

// ErrLapsed ends a command that could not wait, after it was done: hosts try again.
var ErrLapsed error = lapsed{}

type lapsed struct{}

func (lapsed) Error() string {
	return "this node may not answer hosts before it has heard from the other one"
}
func (lapsed) SCSINotReady() bool { return true }

// NewLeased makes the volume of a replica in a cluster.
func NewLeased(r *replication.Replica, lease Lease) *Volume {
	v := New(r)
	v.lease = lease
	return v
}

// holds tells whether hosts may be answered.
func (v *Volume) holds() bool { return v.lease == nil || v.lease.Holds() }

// era is the replica's, if it matters.
func (v *Volume) era() uint64 {
	if v.lease == nil {
		return 0
	}
	return v.r.Era()
}

// leased does a command, and waits until it may be answered.
func (v *Volume) leased(ctx context.Context, do func() error) error {
	era := v.era()
	if err := do(); err != nil {
		return err
	}
	return v.settle(ctx, era)
}

// settle waits until a command that began in an era, and whose work is done, may be
// answered. The work is not done again: a write might undo a newer one. If the other
// node may have served alone meanwhile, the command ends with an error; what became of
// it the host does not know, as with any command that fails.
//
// The lease comes first: in a later era it may hold again.
func (v *Volume) settle(ctx context.Context, era uint64) error {
	for !v.holds() && v.era() == era {
		if v.r.Closed() { // it hears of no new era
			return coherence.ErrUnavailable
		}
		if err := v.r.Runtime().Sleep(ctx, leasePoll); err != nil {
			return err
		}
	}
	if v.era() != era {
		return coherence.ErrUnavailable
	}
	return nil
}
