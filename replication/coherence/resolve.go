package coherence

import (
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// side is what matters of one replica as a whole when two of them join.
type side struct {
	fresh     bool // no history: new, or its map file was lost
	blank     bool // and every byte is zero
	crashed   bool // came back from an operating system crash
	restarted bool // forgot which blocks are dirty
}

// verdict is how one extent is resolved: in sync, or one replica wins.
type verdict struct {
	sync    bool
	first   bool  // the preferred node's replica wins
	turn    uint8 // the turn from then on, if it is not in sync
	tracked bool  // the winner still knows which blocks the loser lacks
}

// resolve applies the rules of joining to one extent: x is its state at the
// preferred node, y at the other. Both nodes come to the same verdict.
func resolve(x, y dirtymap.State, xs, ys side) (verdict, error) {
	v := verdict{}
	xLost, yLost := xs.crashed && x&dirtymap.Volatile != 0, ys.crashed && y&dirtymap.Volatile != 0
	xt, yt := x.Turn(), y.Turn()
	switch {
	case xs.fresh && ys.fresh:
		v.first = ys.blank || !xs.blank
	case xs.fresh || ys.fresh:
		v.first = ys.fresh
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
	winner, loser, ws := x, y, xs
	if !v.first {
		winner, loser, ws = y, x, ys
	}
	v.turn = turnOf(newer(xt, yt, xs, ys), v.first)
	v.tracked = winner&dirtymap.Held != 0 && loser&dirtymap.Stale != 0 && xt == yt &&
		!ws.restarted && !xs.crashed && !ys.crashed && !xs.fresh && !ys.fresh
	return v, nil
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
