package failover

// mutation is a fault that tests put into the machine, to see that they find it.
type mutation uint8

const (
	_             mutation = iota
	fromAnswer             // a lease counts from when its answer came
	grantsOn               // after its own proposal a node goes on answering, and does not count that
	grantsBlind            // answers do not say what was decided
	grantsAhead            // answers say that everything was applied
	grantsBehind           // a restarted node answers before it has applied what its memos tell
	vouchesAll             // answers tell of terms that are not on disk yet
	grantsUnread           // nobody looks at what the sender of an answer had applied
	forgets                // a restarted node does not wait for what it may have granted
	noWait                 // a node that takes over does not wait for the leases it granted
	offersFree             // a node that has proposed that both serve goes on without a lease
	offersEarly            // that it was proposed is on disk, and then something older again
	leavesBlind            // a node leaves before the other one has heard that it has everything
	losesDeaf              // a node that is not in the set any more goes on
	forcesEarly            // a node that is forced serves before that is on disk
	forgetsForce           // a restarted node does not know that it was forced
	forkServes             // a node that was forced too late goes on
	relievesEarly          // it follows the others before that is on disk
)
