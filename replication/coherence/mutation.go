package coherence

// mutation is a fault that tests put into the engine, to see that the exploration
// finds it.
type mutation uint8

const (
	_            mutation = iota
	keepForLater          // a keep answer is used for a read that came later
	noFloor               // a COPY from before a fetch is stored after it
	noTurns               // a grant does not change the turn
	noVolatile            // bytes that were not flushed are trusted after a crash
	noTieBreak            // two MARKs that cross are both granted
)
