package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/target/iscsi"
	"github.com/twinlun/twinlun/target/scsi"
)

// The configuration allows as many targets as the device server has room for.
const _ = uint(scsi.MaxNumber - config.MaxNumber)

// targetName is what makes two configured targets the same one.
type targetName struct {
	iqn    string
	number uint8
}

func nameOf(t *config.Target) targetName { return targetName{t.IQN, t.Number} }

// find returns a configuration's target; nil: it has none of that name.
func find(cfg *config.Config, name targetName) *config.Target {
	i := slices.IndexFunc(cfg.Targets, func(t config.Target) bool { return nameOf(&t) == name })
	if i < 0 {
		return nil
	}
	return &cfg.Targets[i]
}

// addTarget gives the device a target, and says what it shows.
func (d *Daemon) addTarget(cfg *config.Config, t *config.Target) error {
	made, err := d.device.NewTarget(t.IQN, t.Number)
	if err != nil {
		return err
	}
	d.targets[nameOf(t)] = made
	return show(made, new(config.Target), t, cfg)
}

// initiators is what initiators can log in to, and who may: the configured targets that
// there are.
func (d *Daemon) initiators(cfg *config.Config) (all []iscsi.Target) {
	for i := range cfg.Targets {
		t := &cfg.Targets[i]
		device, doors := d.targets[nameOf(t)], d.doors(t.Listen)
		if device != nil && len(doors) > 0 { // without any, it would be served through all
			all = append(all, asTarget(t, device, doors, cfg.PortalGroup))
		}
	}
	return all
}

func asTarget(t *config.Target, device *scsi.Target, through []net.Listener, group uint16) iscsi.Target {
	target := iscsi.Target{Name: t.IQN, Alias: t.Alias, Device: device, Listeners: through, PortalGroup: group, Access: t.Hosts}
	for _, p := range t.Portals {
		target.Portals = append(target.Portals, iscsi.Portal{Address: p.Address, Group: p.Group})
	}
	return target
}

// checkTargets tells what is wrong with a configuration's targets, before any of them is
// there.
func checkTargets(cfg *config.Config) error {
	var all []iscsi.Target
	for i := range cfg.Targets {
		t := &cfg.Targets[i]
		all = append(all, asTarget(t, scsi.NewTarget(scsi.Config{Name: t.IQN}), nil, cfg.PortalGroup))
	}
	return iscsi.CheckTargets(all, cfg.Discovery)
}

// changeTargets makes the targets those of the next configuration. Those that go are gone
// before others come, which may have their names or numbers. What hosts see is set before
// they are let in to see it.
func (d *Daemon) changeTargets(ctx context.Context, before, next *config.Config) (errs []error) {
	for name, device := range d.targets {
		if was, is := find(before, name), find(next, name); was != nil && is != nil {
			errs = append(errs, show(device, was, is, next))
		}
	}
	errs = append(errs, d.server.SetTargets(ctx, d.initiators(next), next.Discovery))
	for name, device := range d.targets {
		if find(next, name) == nil {
			device.Close()
			delete(d.targets, name)
			d.log.Info("a target was taken away", "target", name.iqn)
		}
	}
	came := false
	for i := range next.Targets {
		if t := &next.Targets[i]; d.targets[nameOf(t)] == nil {
			errs = append(errs, d.addTarget(next, t))
			came = true
		}
	}
	if came {
		errs = append(errs, d.server.SetTargets(ctx, d.initiators(next), next.Discovery))
	}
	return errs
}

// show says which LUNs a target shows, and what some hosts see otherwise, and takes back
// what was said before.
func show(target *scsi.Target, before, now *config.Target, cfg *config.Config) error {
	if err := target.Show(now.LUNs); err != nil {
		return err
	}
	for _, v := range before.Views {
		if !slices.ContainsFunc(now.Views, func(w config.View) bool { return w.Initiator == v.Initiator }) {
			target.SetPreference(v.Initiator, 0)
			target.ClearMap(v.Initiator)
		}
	}
	for _, v := range now.Views {
		prefer := uint16(0)
		if v.Prefer != "" {
			prefer = groupOf(cfg, v.Prefer)
		}
		target.SetPreference(v.Initiator, prefer)
		if v.LUNs == nil {
			target.ClearMap(v.Initiator)
		} else if err := target.SetMap(v.Initiator, v.LUNs); err != nil {
			return err
		}
	}
	return nil
}

// doors are the listeners on addresses.
func (d *Daemon) doors(addresses []string) (all []net.Listener) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, door := range d.sockets.iscsi {
		if slices.Contains(addresses, door.address) {
			all = append(all, door.Listener)
		}
	}
	return all
}

// addresses are those on which a configuration's targets are served, each once.
func addresses(cfg *config.Config) (all []string) {
	for _, t := range cfg.Targets {
		for _, a := range t.Listen {
			if !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}

// openDoors listens on what the next configuration has more. On an error one of a pair
// listens on nothing more, and one of a cluster on what it can.
func (d *Daemon) openDoors(next *config.Config) (opened []door, err error) {
	for _, a := range addresses(next) {
		if len(d.doors([]string{a})) > 0 {
			continue
		}
		l, e := listenOn(a, "initiators", "iscsi.listen")
		if e != nil && d.cluster == nil {
			closeDoors(opened)
			return nil, e
		}
		if err = errors.Join(err, e); e == nil {
			opened = append(opened, door{a, l})
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sockets.iscsi = append(slices.Clone(d.sockets.iscsi), opened...)
	return opened, err
}

// closeUnused closes what the configuration does not listen on any more.
func (d *Daemon) closeUnused(cfg *config.Config) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var stay, leave []door
	for _, door := range d.sockets.iscsi {
		if slices.Contains(addresses(cfg), door.address) {
			stay = append(stay, door)
		} else {
			leave = append(leave, door)
		}
	}
	d.sockets.iscsi = stay
	closeDoors(leave)
}

func closeDoors(doors []door) {
	for _, d := range doors {
		d.Close()
	}
}

// serve is the task of a listener for initiators.
func (d *Daemon) serve(l net.Listener) {
	err := d.server.Serve(l)
	if errors.Is(err, iscsi.ErrServerClosed) || errors.Is(err, net.ErrClosed) { // by closeUnused
		return
	}
	d.fail(fmt.Errorf("serve initiators on %v: %w", l.Addr(), err))
}
