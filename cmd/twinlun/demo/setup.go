package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

const (
	// setUpTime bounds what an operator would do by hand within a minute.
	setUpTime = time.Minute
	tryAgain  = 50 * time.Millisecond
)

// setUp makes the cluster, with its LUN, as an operator does with twinlun. What is there
// from a demo before stays.
func (d *demo) setUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setUpTime)
	defer cancel()
	first := d.sites[0]
	if err := first.member(ctx, func(c *client.Client) error {
		_, err := c.Init(ctx, api.NewCluster{Cluster: "demo", Node: first.name, Site: first.name, Addresses: []string{first.peer}})
		return err
	}); err != nil {
		return fmt.Errorf("make the cluster: %w", err)
	}
	for _, s := range d.sites[1:] {
		if err := s.member(ctx, func(c *client.Client) error { return s.join(ctx, first.client(), c) }); err != nil {
			return fmt.Errorf("node %s joins the cluster: %w", s.name, err)
		}
	}
	if err := d.serveLUN(ctx, first.client()); err != nil {
		return fmt.Errorf("make the LUN: %w", err)
	}
	if err := d.move(ctx, first.client()); err != nil {
		return fmt.Errorf("tell where the nodes are now: %w", err)
	}
	return nil
}

// move tells the cluster of the ports of this demo, if the one before had others.
func (d *demo) move(ctx context.Context, c *client.Client) error {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, s := range d.sites {
		here := []string{s.peer}
		if slices.ContainsFunc(nodes, func(n api.Node) bool { return string(n.Name) == s.name && slices.Equal(n.Addresses, here) }) {
			continue
		}
		if _, err := c.ChangeNode(ctx, s.name, api.NodeChange{Addresses: here}); err != nil {
			return err
		}
	}
	targets, err := c.Targets(ctx)
	if err != nil {
		return err
	}
	target := d.target()
	if len(targets) == 1 && slices.Equal(targets[0].Portals, target.Portals) {
		return nil
	}
	_, err = c.PutTarget(ctx, IQN, target)
	return err
}

// target is served at both sites.
func (d *demo) target() api.TargetBody {
	t := api.TargetBody{Alias: "demo"}
	for _, s := range d.sites[:2] {
		t.Portals = append(t.Portals, catalog.Portal{Node: catalog.NodeID(s.name), Address: s.portal})
	}
	return t
}

// member gives a node its membership, if it has none, as soon as its daemon answers.
func (s *site) member(ctx context.Context, get func(c *client.Client) error) error {
	c := s.client()
	for {
		_, err := c.Cluster(ctx)
		var p *api.Problem
		switch {
		case err == nil:
			return nil
		case errors.As(err, &p) && p.Code == api.CodeNoCluster:
			return get(c)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; %w", context.Cause(ctx), err)
		case <-time.After(tryAgain):
		}
	}
}

func (s *site) join(ctx context.Context, first, c *client.Client) error {
	token, err := first.CreateToken(ctx, api.NewToken{Life: "1h"})
	if err == nil {
		_, err = c.Join(ctx, api.NewMember{Token: token.Token, Node: s.name, Site: s.name, Addresses: []string{s.peer}, Witness: s.witness()})
	}
	return err
}

// settings changes those that were given.
func (d *demo) settings(ctx context.Context, c *client.Client) error {
	var change api.SettingsChange
	if cold := catalog.Duration(d.o.ColdAfter); cold > 0 {
		change.ColdAfter = &cold
	}
	if hold := catalog.Duration(d.o.HoldWait); hold > 0 {
		change.HoldWait = &hold
	}
	if change == (api.SettingsChange{}) {
		return nil
	}
	_, err := c.ChangeSettings(ctx, change)
	return err
}

// serveLUN makes the LUN, a target, and everybody a host that sees it.
func (d *demo) serveLUN(ctx context.Context, c *client.Client) error {
	if all, err := c.LUNs(ctx); err != nil || len(all) > 0 {
		return err
	}
	id, err := catalog.ParseUUID(d.lun.UUID)
	if err != nil {
		return err
	}
	if err := d.settings(ctx, c); err != nil {
		return err
	}
	lun := api.NewLUN{Name: "disk", ID: &id, Size: d.lun.Size, BlockSize: int(d.lun.BlockSize)}
	for _, s := range d.sites[:2] {
		lun.Replicas = append(lun.Replicas, api.NewReplica{Node: catalog.NodeID(s.name), Path: s.file("disk.img")})
	}
	if _, err := c.CreateLUN(ctx, lun); err != nil {
		return err
	}
	if _, err := c.PutTarget(ctx, IQN, d.target()); err != nil {
		return err
	}
	if _, err := c.PutHost(ctx, "everybody", api.HostBody{Initiators: []string{"*"}}); err != nil {
		return err
	}
	return c.Map(ctx, api.Mapping{Target: IQN, Host: "everybody", Number: 0, LUN: "disk"})
}
