package commands

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/webui/client"
)

func (t *tool) replicas() *cobra.Command {
	add := &cobra.Command{
		Use: "add LUN NODE[=PATH]", Short: "mirror a LUN that has one replica", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (catalog.LUN, error) {
				return c.AddReplica(ctx, args[0], replicaOf(args[1]))
			}, oneLUN)
		},
	}
	resume := &cobra.Command{
		Use: "resume LUN NODE", Short: "have a replica that was drained serve again", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.done(cmd, "the replica at node "+args[1]+" serves again, as soon as both are joined", func(ctx context.Context, c *client.Client) error {
				_, err := c.DrainReplica(ctx, args[0], args[1], false)
				return err
			})
		},
	}
	return family("replica", "the replicas of a LUN", add, t.drainReplica(), resume, t.removeReplica(), t.moveReplica())
}

// drainWait is how long commands wait for a replica to be drained, if nothing else is said:
// most of it is for hosts to find the other paths.
const drainWait = 5 * time.Minute

func (t *tool) drainReplica() *cobra.Command {
	wait := drainWait
	c := &cobra.Command{
		Use: "drain LUN NODE", Short: "have a replica serve no host: no time and no data are lost", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.done(cmd, "the replica at node "+args[1]+" serves no host any more", func(ctx context.Context, c *client.Client) error {
				return drainReplica(ctx, c, args[0], args[1], wait)
			})
		},
	}
	waitFlag(c, &wait)
	return c
}

func waitFlag(c *cobra.Command, wait *time.Duration) {
	c.Flags().DurationVar(wait, "wait", *wait, "how long to wait until the other replica alone serves hosts")
}

func (t *tool) removeReplica() *cobra.Command {
	wait := drainWait
	c := t.yesFlag(&cobra.Command{
		Use: "remove LUN NODE", Short: "end the mirroring of a LUN; the replica's file stays", Args: cobra.ExactArgs(2),
		Long: "remove has the other replica alone serve hosts, as drain does, and then ends the mirroring.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.sure(cmd, "LUN "+args[0]+" will have no second replica.", args[0]); err != nil {
				return err
			}
			return t.done(cmd, "the replica at node "+args[1]+" is not one of LUN "+args[0]+" any more",
				func(ctx context.Context, c *client.Client) error {
					return removeReplica(ctx, c, args[0], args[1], wait)
				})
		},
	})
	waitFlag(c, &wait)
	return c
}

func (t *tool) moveReplica() *cobra.Command {
	wait := drainWait
	c := t.yesFlag(&cobra.Command{
		Use: "move LUN FROM-NODE TO-NODE[=PATH]", Short: "have another node hold a replica of a LUN", Args: cobra.ExactArgs(3),
		Long: "move removes the replica at the first node, as remove does, and mirrors the LUN to the second one. Until all\n" +
			"is copied there is one replica alone. What is interrupted is gone on with by the same command.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.sure(cmd, "LUN "+args[0]+" will have one replica alone until all is copied.", args[0]); err != nil {
				return err
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (catalog.LUN, error) {
				return moveReplica(ctx, c, args[0], args[1], args[2], wait)
			}, oneLUN)
		},
	})
	waitFlag(c, &wait)
	return c
}

// drainReplica returns when a node does not serve a LUN any more.
func drainReplica(ctx context.Context, c *client.Client, lun, node string, wait time.Duration) error {
	if _, err := c.DrainReplica(ctx, lun, node, true); err != nil {
		return err
	}
	done, err := poll(ctx, wait, func() (bool, error) {
		l, err := c.LUN(ctx, lun)
		return !l.Serves(catalog.NodeID(node)), err
	})
	if err != nil || done {
		return err
	}
	return fmt.Errorf("node %s still serves LUN %s: is the other node there, and are both joined (twinlun status)? twinlun lun replica resume %s %s takes it back", node, lun, lun, node)
}

func removeReplica(ctx context.Context, c *client.Client, lun, node string, wait time.Duration) error {
	l, err := c.LUN(ctx, lun)
	if err != nil {
		return err
	}
	if l.Serves(catalog.NodeID(node)) && len(l.Replicas) > 1 {
		if err := drainReplica(ctx, c, lun, node, wait); err != nil {
			return err
		}
	}
	return c.RemoveReplica(ctx, lun, node)
}

// moveReplica goes on where an earlier one has stopped. That the new node can have a
// replica is found out before the old one is removed.
func moveReplica(ctx context.Context, c *client.Client, lun, from, to string, wait time.Duration) (catalog.LUN, error) {
	add := replicaOf(to)
	l, err := c.LUN(ctx, lun)
	if err != nil || l.Has(add.Node) && !l.Has(catalog.NodeID(from)) {
		return l, err
	}
	if err := mayMove(ctx, c, &l, catalog.NodeID(from), add.Node); err != nil {
		return l, err
	}
	if l.Has(catalog.NodeID(from)) {
		if err := removeReplica(ctx, c, lun, from, wait); err != nil {
			return l, err
		}
	}
	return c.AddReplica(ctx, lun, add)
}

func mayMove(ctx context.Context, c *client.Client, l *catalog.LUN, from, to catalog.NodeID) error {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	site := map[catalog.NodeID]string{}
	for _, n := range nodes {
		if !n.Witness {
			site[n.Name] = n.Site
		}
	}
	stays := l.Other(from)
	switch {
	case site[to] == "":
		return fmt.Errorf("there is no node %s that could hold a replica: see twinlun node list", to)
	case l.Has(to):
		return fmt.Errorf("node %s has a replica of LUN %s already", to, l.Name)
	case stays == "":
		return fmt.Errorf("the replica at node %s is the only one of LUN %s: mirror the LUN first (twinlun lun replica add), then remove that one", from, l.Name)
	case site[stays] == site[to]:
		return fmt.Errorf("node %s is at site %s, where node %s has the replica that stays: name a node at another site", to, site[to], stays)
	}
	return nil
}
