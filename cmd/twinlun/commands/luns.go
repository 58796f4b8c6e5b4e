package commands

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

func nodesOf(l catalog.LUN) string {
	var all []string
	for _, r := range l.Replicas {
		all = append(all, string(r.Node))
	}
	return strings.Join(all, ",")
}

func lunTable(w io.Writer, all []catalog.LUN) {
	row(w, "NAME", "SIZE", "BLOCK", "REPLICAS", "PREFERRED", "SERVED BY", "TERM", "LOSS", "NAA")
	for _, l := range all {
		row(w, l.Name, config.FormatSize(l.Size), l.BlockSize, nodesOf(l), l.Preferred, join(l.Serving), l.Term, l.Loss, l.NAA)
	}
}

// oneLUN prints what has become of a LUN.
func oneLUN(w io.Writer, l catalog.LUN) { lunTable(w, []catalog.LUN{l}) }

// replicaOf reads NODE or NODE=PATH; a path below /dev is a device.
func replicaOf(text string) api.NewReplica {
	node, path, _ := strings.Cut(text, "=")
	r := api.NewReplica{Node: catalog.NodeID(node), Path: path}
	if strings.HasPrefix(path, "/dev/") {
		r.Kind = catalog.Block
	}
	return r
}

func (t *tool) luns() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "the LUNs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) ([]catalog.LUN, error) { return c.LUNs(ctx) }, lunTable)
		},
	}
	show := &cobra.Command{
		Use: "show NAME", Short: "all there is to know of a LUN, as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t.format = "json"
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (catalog.LUN, error) { return c.LUN(ctx, args[0]) }, oneLUN)
		},
	}
	remove := t.yesFlag(&cobra.Command{
		Use: "delete NAME", Short: "remove a LUN; its replicas stay on the nodes' disks", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.sure(cmd, "LUN "+args[0]+" will be served no more; its replicas stay on disk.", args[0]); err != nil {
				return err
			}
			return t.done(cmd, "LUN "+args[0]+" is removed", func(ctx context.Context, c *client.Client) error { return c.RemoveLUN(ctx, args[0]) })
		},
	})
	return family("lun", "LUNs", list, show, t.createLUN(), t.setLUN(), t.growLUN(), t.verifyLUN(), t.replicas(), t.forceAlone(), remove)
}

func (t *tool) createLUN() *cobra.Command {
	var n api.NewLUN
	var size, block string
	var replicas []string
	var preferred, loss string
	c := &cobra.Command{
		Use: "create NAME --size SIZE --replica NODE[=PATH] --replica NODE[=PATH]", Short: "make a LUN", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			bytes, err := config.ParseSize(size)
			if err != nil {
				return fmt.Errorf("--size: %w", err)
			}
			blockSize, err := config.ParseBlockSize(block)
			if err != nil {
				return fmt.Errorf("--block-size: %w", err)
			}
			n.Name, n.Size, n.BlockSize = args[0], bytes, int(blockSize)
			n.Preferred, n.Loss = catalog.NodeID(preferred), catalog.LossPolicy(loss)
			for _, r := range replicas {
				n.Replicas = append(n.Replicas, replicaOf(r))
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (catalog.LUN, error) { return c.CreateLUN(ctx, n) }, oneLUN)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&size, "size", "", "its size, like 100GiB")
	f.StringArrayVar(&replicas, "replica", nil, "a node, and the file or device there; twice, at different sites")
	f.StringVar(&block, "block-size", "512", "of the blocks that hosts see: 512 or 4096")
	f.StringVar(&preferred, "preferred", "", "the node that goes on first when the two lose each other; default: the first one")
	f.StringVar(&loss, "loss", string(catalog.Hold), "what becomes of data that only a lost site has: hold, or serve-stale")
	f.BoolVar(&n.ReadOnly, "read-only", false, "hosts cannot write")
	f.BoolVar(&n.Removable, "removable", false, "hosts can eject it")
	return c
}

func (t *tool) setLUN() *cobra.Command {
	var preferred, loss, name string
	var readOnly, removable bool
	c := &cobra.Command{
		Use: "set NAME", Short: "change what is given of a LUN", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var n api.LUNChange
			p, l := catalog.NodeID(preferred), catalog.LossPolicy(loss)
			for flag, set := range map[string]func(){
				"preferred": func() { n.Preferred = &p }, "loss": func() { n.Loss = &l }, "name": func() { n.Name = &name },
				"read-only": func() { n.ReadOnly = &readOnly }, "removable": func() { n.Removable = &removable },
			} {
				if cmd.Flags().Changed(flag) {
					set()
				}
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (catalog.LUN, error) { return c.ChangeLUN(ctx, args[0], n) }, oneLUN)
		},
	}
	f := c.Flags()
	f.StringVar(&name, "name", "", "another name")
	f.StringVar(&preferred, "preferred", "", "the node that goes on first")
	f.StringVar(&loss, "loss", "", "hold or serve-stale")
	f.BoolVar(&readOnly, "read-only", false, "hosts cannot write")
	f.BoolVar(&removable, "removable", false, "hosts can eject it")
	return c
}

func (t *tool) growLUN() *cobra.Command {
	return &cobra.Command{
		Use: "grow NAME SIZE", Short: "make a LUN larger, while it is used", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			bytes, err := config.ParseSize(args[1])
			if err != nil {
				return err
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (catalog.LUN, error) {
				return c.ChangeLUN(ctx, args[0], api.LUNChange{Size: &bytes})
			}, oneLUN)
		},
	}
}
