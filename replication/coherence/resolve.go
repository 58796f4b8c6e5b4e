package coherence

import (
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// side is what matters of one replica as a whole when two of them join.
type side struct {
	fresh     bool   // no history: new, or its map file was lost
	blank     bool   // and every byte is zero
	crashed   bool   // came back from an operating system crash
	restarted bool   // forgot which blocks are dirty
	aloneTerm uint64 // in which it last served alone since the last join; 0: it did not
	fork      bool   // and what it served then is not what was agreed upon
}

// verdict is how one extent is resolved: in sync, or one replica wins.
type verdict struct {
	sync    bool
	first   bool  // the preferred node's replica wins
	turn    uint8 // the turn from then on, if it is not in sync
	tracked bool  // the winner still knows which blocks the loser lacks
	salvage bool  // the loser has acknowledged writes that the winner knows nothing of
}

// resolve applies the rules of joining to one extent: x is its state at the
// preferred node, y at the other. Both nodes come to the same verdict.
func resolve(x, y dirtymap.State, xs, ys side) (verdict, error) {
	v := verdict{}
	xLost, yLost := xs.crashed && x&dirtymap.Volatile != 0, ys.crashed && y&dirtymap.Volatile != 0
	xt, yt := x.Turn(), y.Turn()
	byAlone, alone := aloneWins(x, y, xs, ys, xLost, yLost)
	switch {
	case xs.fresh && ys.fresh:
		v.first = ys.blank || !xs.blank
	case xs.fresh || ys.fresh:
		v.first = ys.fresh
	case alone:
		v.first = byAlone
	case xLost && yLost:
		return v, fmt.Errorf("both volatile, %v and %v", x, y) // only an owner is
	case xLost || yLost:
		v.first = yLost
	case ahead(xt, yt):
		v.first = true
	case ahead(yt, xt):
		v.first = false
	case xt != yt:
		return v, fmt.Errorf("turns %d and %d", xt, yt)
	case x.Shared() && y.Shared():
		v.sync = true
	case x&y&(dirtymap.Held|dirtymap.Stale) != 0:
		return v, fmt.Errorf("states %v and %v", x, y)
	case x&dirtymap.Stale != 0:
		v.first = false
	case y&dirtymap.Stale != 0:
		v.first = true
	case x&dirtymap.Held != 0: // and y SHARED
		v.first = !xs.crashed
	default: // y OWNED, x SHARED
		v.first = ys.crashed
	}
	if v.sync {
		return v, nil
	}
	winner, loser, ws, loserLost := x, y, xs, yLost
	if !v.first {
		winner, loser, ws, loserLost = y, x, ys, xLost
	}
	v.turn = turnOf(newer(xt, yt, xs, ys), v.first)
	if xs.fresh || ys.fresh {
		return v, nil
	}
	v.tracked = tracked(winner, loser) && !ws.restarted && !xs.crashed && !ys.crashed
	v.salvage = !loserLost && (loser&dirtymap.Alone != 0 || gaveUp(winner, loser))
	return v, nil
}

// aloneWins is rule 1: which replica wins an extent since it served alone. When both
// did, hosts have seen what the newer term's replica made of the LUN: it wins wherever
// it had anything to show. A fork counts as older than anything else, whatever its term: what
// hosts saw at the other replica was agreed upon, even if nobody wrote it alone.
func aloneWins(x, y dirtymap.State, xs, ys side, xLost, yLost bool) (first, applies bool) {
	xa, ya := x&dirtymap.Alone != 0 && !xLost, y&dirtymap.Alone != 0 && !yLost
	if !xa && !ya {
		return false, false
	}
	if xs.aloneTerm != 0 && ys.aloneTerm != 0 || xs.fork != ys.fork {
		newer, lost := x, xLost
		if first = xs.aloneTerm >= ys.aloneTerm; xs.fork != ys.fork {
			first = ys.fork
		}
		if !first {
			newer, lost = y, yLost
		}
		if newer&dirtymap.Stale == 0 && !lost {
			return first, true
		}
	}
	return xa, true
}

// tracked tells whether a winner that remembers its dirty blocks knows all that the
// loser lacks: those of its tenure, or what it wrote alone since both were SHARED.
func tracked(winner, loser dirtymap.State) bool {
	switch {
	case winner&dirtymap.Held == 0 || winner.Turn() != loser.Turn():
		return false
	case winner&dirtymap.Alone != 0:
		return loser.Shared()
	}
	return loser&dirtymap.Stale != 0
}

// gaveUp tells whether the winner, alone, took its own data for the truth while the
// loser had newer. The winner's turn, before its jump, may have been one ahead of the
// loser's: then its data was the newest; the same, or one behind.
func gaveUp(winner, loser dirtymap.State) bool {
	ahead := (winner.Turn() - loser.Turn()) & 3
	return winner&dirtymap.Alone != 0 && (ahead == takenTurns || ahead == takenTurns-1)
}

// ahead tells whether turn a is one after turn b.
func ahead(a, b uint8) bool { return (a-b)&3 == 1 }

// newer is the newer turn; a fresh replica has none.
func newer(xt, yt uint8, xs, ys side) uint8 {
	if xs.fresh || !ys.fresh && ahead(yt, xt) {
		return yt
	}
	return xt
}
