package daemon

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
)

// Reload takes another configuration, while the node runs: targets that come, go and
// change, who may log in and what they see, LUNs that come and go, and LUNs that grow.
// Anything else that differs needs a restart; then, and if one of the targets or LUNs
// cannot be as it is configured, nothing is changed. ctx bounds how long hosts that may no
// longer be here have to leave.
func (d *Daemon) Reload(ctx context.Context, next *config.Config) error {
	d.changing.Lock()
	defer d.changing.Unlock()
	if names := restartNeeded(d.config(), next); len(names) > 0 {
		return fmt.Errorf("%s: cannot change while twinlund runs; restart it, or take that back", strings.Join(names, ", "))
	}
	p, err := d.compare(next)
	if err == nil {
		err = checkTargets(next)
	}
	if err == nil {
		p.open, err = d.openDoors(next)
	}
	if err != nil {
		return err
	}
	return errors.Join(d.apply(ctx, next, p)...)
}

// restartNeeded names the sections that differ and must not.
func restartNeeded(now, next *config.Config) (names []string) {
	for _, s := range []struct {
		name      string
		now, next any
	}{
		{"node", now.Node, next.Node},
		{"data-dir", now.DataDir, next.DataDir},
		{"log", now.Log, next.Log},
		{"status", now.Status, next.Status},
		{"iscsi.portal-group, or the groups of portals", portGroups(now), portGroups(next)},
		{"iscsi.ping-timeout", now.PingTimeout, next.PingTimeout},
		{"peer", now.Peer, next.Peer},
		{"cluster", now.Cluster, next.Cluster},
	} {
		if !reflect.DeepEqual(s.now, s.next) {
			names = append(names, s.name)
		}
	}
	return names
}

// plan is what is to be done to listeners and LUNs.
type plan struct {
	open  []door // which listen, and are not served yet
	leave []*lun
	stay  map[*lun]config.LUN // what they are to be; they grow if that is larger
	come  []config.LUN
}

// compare finds out what the LUNs of the next configuration ask for. At a node of a
// cluster, a LUN of which something differs that cannot change while it is open leaves and
// comes again.
func (d *Daemon) compare(next *config.Config) (p plan, err error) {
	p.stay = map[*lun]config.LUN{}
	p.come = slices.Clone(next.LUNs)
	for _, l := range d.all() {
		now := l.config()
		i := slices.IndexFunc(p.come, func(c config.LUN) bool { return c.Number == now.Number && c.UUID == now.UUID })
		if i < 0 {
			p.leave = append(p.leave, l)
			continue
		}
		want := p.come[i]
		if d.cluster != nil && !same(now, want, true) {
			p.leave = append(p.leave, l)
			continue
		}
		p.come = slices.Delete(p.come, i, i+1)
		p.stay[l] = want
		switch {
		case !same(now, want, d.cluster != nil):
			return p, fmt.Errorf("LUN %d (%s): only its size and its space-threshold can change while twinlund runs; restart it, or take that back", now.Number, now.Name)
		case want.Size < now.Size:
			return p, fmt.Errorf("LUN %d (%s): its size is %d bytes, and it is configured with %d: a LUN can grow, and does not shrink", now.Number, now.Name, now.Size, want.Size)
		}
	}
	return p, nil
}

// same tells whether a LUN can become another one while it is open. In a cluster more of
// it may change.
func same(now, want config.LUN, inCluster bool) bool {
	want.Size, want.Space = now.Size, now.Space
	if inCluster {
		want.Name, want.Preferred, want.Peer = now.Name, now.Preferred, now.Peer
		want.ServeStale, want.ColdAfter = now.ServeStale, now.ColdAfter
	}
	return now == want
}

// apply does it. One LUN's failure does not keep the others from what they need.
func (d *Daemon) apply(ctx context.Context, next *config.Config, p plan) (errs []error) {
	before := d.config()
	d.mu.Lock()
	d.cfg = next
	d.mu.Unlock()
	errs = d.changeTargets(ctx, before, next)
	d.closeUnused(next)
	for _, l := range p.leave {
		errs = append(errs, d.remove(l))
	}
	for l, c := range p.stay {
		errs = append(errs, d.change(l, c, next))
	}
	for _, c := range p.come {
		err := d.openLUN(next, c)
		if err == nil {
			all := d.all()
			err = all[len(all)-1].start()
		}
		errs = append(errs, err)
	}
	// Hosts find everything there.
	for _, l := range p.open {
		d.tasks.Go(func() { d.serve(l.Listener) })
	}
	return errs
}

// change makes an open LUN what it is to be.
func (d *Daemon) change(l *lun, want config.LUN, cfg *config.Config) error {
	now := l.config()
	l.become(want)
	if want.Peer != now.Peer {
		l.move(d.nodeOf(&want), firstOf(cfg, &want))
	}
	if want.Size > now.Size {
		l.spawn(l.grow)
	}
	d.lookAtSpace(l)
	return d.device.Prefer(want.Number, groupOf(cfg, want.Preferred))
}

// remove takes a LUN away from initiators, and stops it. Its files stay.
func (d *Daemon) remove(l *lun) error {
	c := l.config()
	d.mu.Lock()
	d.luns = slices.DeleteFunc(d.luns, func(o *lun) bool { return o == l })
	d.mu.Unlock()
	if err := errors.Join(d.device.RemoveLUN(c.Number), l.close()); err != nil {
		return fmt.Errorf("take away LUN %d (%s): %w", c.Number, c.Name, err)
	}
	d.log.Info("a LUN was taken away; its files stay", "lun", c.Number, "name", c.Name, "backing", c.Backing, "map", c.Map)
	return nil
}
