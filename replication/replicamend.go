package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// mendNext has one extent mended, if there is one to be; it waits for that.
func (r *Replica) mendNext(run *verifyRun) {
	r.mu.Lock()
	if len(run.mends) == 0 || r.conn == nil {
		r.mu.Unlock()
		return
	}
	item := run.mends[0]
	run.mends = run.mends[1:]
	conn, ctx := r.conn, r.telling.ctx
	r.mu.Unlock()
	var err error
	if item.here {
		err = r.resend(ctx, item.ext, item.mend)
	} else {
		err = r.askResend(ctx, conn, item.ext, item.mend)
	}
	if err != nil {
		r.log.Warn("blocks that differ are not mended yet", "extent", item.ext, "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if run.status.Running() {
		r.verifyLaterLocked(run, item)
	}
}

// resend has what this replica has of some blocks copied to the peer, as if a host had
// written them once more: by the means of every write, and at no time out of order.
func (r *Replica) resend(ctx context.Context, ext uint64, blocks dirtymap.Mask) error {
	q := r.NewRequest()
	defer q.Cancel()
	q.Want(dirtymap.Range{First: ext, Count: 1}, true)
	admits, err := q.Next(ctx)
	if err != nil {
		return err
	}
	a := admits[0] // one extent, one answer
	if a.Err == nil {
		for first, n := range blocks.Runs {
			r.m.Wrote(ext, first, n)
		}
		r.Leave(a)
	}
	return a.Err
}

// askResend has the peer do that.
func (r *Replica) askResend(ctx context.Context, c LinkConn, ext uint64, blocks dirtymap.Mask) error {
	r.mu.Lock()
	v := &r.verify
	v.resendID, v.resent = v.resendID+1, nil
	if r.conn == c {
		c.SendControl(r.cfg.Number, &wire.Resend{ID: v.resendID, Extent: ext, Blocks: blocks})
	}
	r.mu.Unlock()
	for {
		r.mu.Lock()
		resent, parted := v.resent, r.conn != c
		r.mu.Unlock()
		switch {
		case resent != nil && resent.OK:
			return nil
		case resent != nil:
			return errors.New("the peer cannot do it now; see its log")
		case parted:
			return errors.New("the link has parted")
		}
		if err := v.wake.Wait(ctx); err != nil {
			return err
		}
	}
}

// maxResends bounds the Resends of a connection that were not answered here: the peer
// sends one at a time.
const maxResends = 4

// mending takes what belongs to repairs. False: it is something else.
func (r *Replica) mending(c LinkConn, m wire.Message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m := m.(type) {
	case *wire.Resend:
		if r.conn == c {
			r.resendLocked(c, m)
		}
	case *wire.Resent:
		if r.conn == c && m.ID == r.verify.resendID {
			r.verify.resent = m
			r.verify.wake.Set()
		}
	default:
		return false
	}
	return true
}

func (r *Replica) resendLocked(c LinkConn, m *wire.Resend) {
	geo := r.cfg.Geometry
	if r.verify.heard == maxResends || m.Extent >= geo.Extents() || !m.Blocks.Minus(geo.Full(m.Extent)).Empty() {
		c.Close(fmt.Errorf("LUN %d: blocks to be sent again beyond its end, or too many at once", r.cfg.Number))
		return
	}
	r.verify.heard++
	ctx := r.telling.ctx
	r.telling.hearing.put(func() {
		r.log.Warn("blocks are sent to the peer again, where they differ", "extent", m.Extent, "blocks", fmt.Sprintf("%x", m.Blocks))
		err := r.resend(ctx, m.Extent, m.Blocks)
		if err != nil {
			r.log.Warn("blocks that differ cannot be sent to the peer now", "extent", m.Extent, "err", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.conn == c {
			r.verify.heard--
			c.SendControl(r.cfg.Number, &wire.Resent{ID: m.ID, OK: err == nil})
		}
	})
}
