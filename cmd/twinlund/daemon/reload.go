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
	grow  map[*lun]int64 // to bytes
	watch map[*lun]config.Threshold
	come  []config.LUN
}

// compare finds out what the LUNs of the next configuration ask for.
func (d *Daemon) compare(next *config.Config) (p plan, err error) {
	p.grow, p.watch = map[*lun]int64{}, map[*lun]config.Threshold{}
	p.come = slices.Clone(next.LUNs)
	for _, l := range d.all() {
		now := l.config()
		i := slices.IndexFunc(p.come, func(c config.LUN) bool { return c.Number == now.Number && c.UUID == now.UUID })
		if i < 0 {
			p.leave = append(p.leave, l)
			continue
		}
		want := p.come[i]
		p.come = slices.Delete(p.come, i, i+1)
		same := want
		same.Size, same.Space = now.Size, now.Space
		p.watch[l] = want.Space
		switch {
		case same != now:
			return p, fmt.Errorf("LUN %d (%s): only its size and its space-threshold can change while twinlund runs; restart it, or take that back", now.Number, now.Name)
		case want.Size < now.Size:
			return p, fmt.Errorf("LUN %d (%s): its size is %d bytes, and it is configured with %d: a LUN can grow, and does not shrink", now.Number, now.Name, now.Size, want.Size)
		case want.Size > now.Size:
			p.grow[l] = want.Size
		}
	}
	return p, nil
}

// apply does it. One LUN's failure does not keep the others from what they need.
func (d *Daemon) apply(ctx context.Context, next *config.Config, p plan) (errs []error) {
	before := d.config()
	d.mu.Lock()
	d.cfg = next
	d.mu.Unlock()
	errs = d.changeTargets(ctx, before, next)
	d.closeUnused(next)
	for _, l := range p.open {
		d.tasks.Go(func() { d.serve(l.Listener) })
	}
	for _, l := range p.leave {
		errs = append(errs, d.remove(l))
	}
	for l, t := range p.watch {
		l.watch(t)
		d.lookAtSpace(l)
	}
	for l, size := range p.grow {
		l.enlarge(size)
	}
	for _, c := range p.come {
		err := d.openLUN(next, c)
		if err == nil {
			all := d.all()
			err = all[len(all)-1].start()
		}
		errs = append(errs, err)
	}
	return errs
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
