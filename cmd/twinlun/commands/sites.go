package commands

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

func (t *tool) sites() *cobra.Command {
	wait := drainWait
	drain := &cobra.Command{
		Use: "drain NAME", Short: "have a site serve nothing, for planned work: no time and no data are lost", Args: cobra.ExactArgs(1),
		Long: "drain sends the hosts of a site to the other one, hands over what only the site has, and then has it serve\n" +
			"nothing, so that its nodes can be stopped. It returns when that is so. The site serves again after twinlun site resume.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, c := cmd.Context(), t.client()
			nodes, err := setDrained(ctx, c, args[0], true)
			if err != nil {
				return err
			}
			if err := drained(ctx, c, nodes, wait); err != nil {
				return fmt.Errorf("site %s is still being drained: %w (twinlun site resume has it serve again)", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "site %s serves nothing any more; its nodes can be stopped\n", args[0])
			return nil
		},
	}
	drain.Flags().DurationVar(&wait, "wait", wait, "how long to wait until it is done")
	resume := &cobra.Command{
		Use: "resume NAME", Short: "have a site that was drained serve again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.done(cmd, "site "+args[0]+" serves again, as soon as its replicas are joined", func(ctx context.Context, c *client.Client) error {
				_, err := setDrained(ctx, c, args[0], false)
				return err
			})
		},
	}
	return family("site", "planned work at a site", drain, resume)
}

// setDrained has all nodes of a site drained, or not, and returns them.
func setDrained(ctx context.Context, c *client.Client, site string, yes bool) (nodes []catalog.NodeID, err error) {
	all, err := c.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if n.Site != site || n.Witness {
			continue
		}
		if _, err := c.ChangeNode(ctx, string(n.Name), api.NodeChange{Drained: &yes}); err != nil {
			return nil, err
		}
		nodes = append(nodes, n.Name)
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("no node with replicas is at site %s", site)
	}
	return nodes, nil
}

// drained waits until nodes serve nothing that another one could.
func drained(ctx context.Context, c *client.Client, nodes []catalog.NodeID, wait time.Duration) error {
	var left []string
	done, err := poll(ctx, wait, func() (bool, error) {
		luns, err := c.LUNs(ctx)
		left = nil
		for _, l := range luns {
			if slices.ContainsFunc(nodes, l.Serves) {
				left = append(left, l.Name)
			}
		}
		return len(left) == 0, err
	})
	if err != nil || done {
		return err
	}
	return fmt.Errorf("it serves %s: is the other site there, and are both joined? (twinlun status)", strings.Join(left, ", "))
}
