package coherence

// mutation is a fault that tests put into the engine, to see that the exploration
// finds it.
type mutation uint8

const (
	_              mutation = iota
	keepForLater            // a keep answer is used for a read that came later
	noFloor                 // a COPY from before a fetch is stored after it
	noTurns                 // a grant does not change the turn
	noVolatile              // bytes that were not flushed are trusted after a crash
	noTieBreak              // two MARKs that cross are both granted
	aloneUnlogged           // a write alone does not wait until the map file knows of it
	aloneIgnored            // a join does not look at who wrote alone
	aloneForgotten          // a greeting does not say that the replica served alone
	olderTerm               // of two that served alone, the older term wins
	noSalvage               // what a join gives up is not kept
	aloneInBoth             // a replica goes on alone while the cluster says that both serve
	untied                  // a replica goes on alone after it was proposed that both serve
	staleUnderHold          // what is stale is served although it is to be held
	takenUnlogged           // stale data is served before it is durable that it is the truth
	takenQuietly            // and the turn does not tell
	settleOver              // settling a join undoes what was written alone since
	watchUnbroken           // a comparison goes on when the extent changes hands
	digestEarly             // fetched blocks that are not stored yet are compared
	verdictInWrite          // a comparison does not wait for writes that are inside
	compareDirty            // no fault: extents are compared even if all their blocks are dirty
	copiesUnseen            // nor does it look at what was copied meanwhile
	joinsForced             // a replica joins before it was agreed upon that it was forced to serve alone
	forkForgotten           // a greeting does not say that what was served alone is a fork
	forkUnkept              // what a fork has served is not kept where it wins, either
)
