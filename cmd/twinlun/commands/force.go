package commands

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

const forceLong = `force-alone has a node serve a LUN alone although nobody agrees to that. It is for one day only:
when so many nodes are gone for good that there is no majority any more. Run it on the machine
of the node that is to serve.

Nothing protects you then but your word that the other node is off, and stays off, or is fenced
by hand: switch its power off, or its ports at the storage network. If it serves at the same
time there are two versions of the LUN, and one of them will be given up.

It is shown first what may be lost. When the cluster has a majority again, it takes over what
was done here; or, if others have served meanwhile, this node stops, and what was written here
is kept in a salvage file (twinlun salvage).`

func (t *tool) forceAlone() *cobra.Command {
	var node, confirm, loss string
	c := &cobra.Command{
		Use: "force-alone LUN --node NODE", Short: "have a node serve alone when the majority is gone for good", Args: cobra.ExactArgs(1), Long: forceLong,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := t.mayForce(cmd, args[0], node, loss, confirm)
			if err != nil {
				return err
			}
			f := api.Force{Node: catalog.NodeID(node), Confirm: name}
			if p := catalog.LossPolicy(loss); cmd.Flags().Changed("loss") {
				f.Loss = &p
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (api.Outlook, error) { return c.ForceAlone(ctx, args[0], f) }, forcedText)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&node, "node", "", "the node that is to serve")
	f.StringVar(&loss, "loss", "", "what becomes of data that only the other site has, until the cluster has agreed: hold, or serve-stale; default: as the LUN's policy says")
	f.StringVar(&confirm, "yes-i-know", "", "the name of the LUN: do not ask")
	cobra.CheckErr(c.MarkFlagRequired("node"))
	return c
}

// mayForce shows what may be lost, and has the operator type the LUN's name, unless he has
// given it. It returns that name.
func (t *tool) mayForce(cmd *cobra.Command, lun, node, loss, confirm string) (name string, err error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), askTime)
	defer cancel()
	o, err := t.client().Outlook(ctx, lun, node)
	if err != nil {
		return "", err
	}
	if loss != "" {
		o.Loss = loss
	}
	text := outlookText(o, time.Now())
	switch {
	case o.Refusal != "":
		return "", fmt.Errorf("nothing was done: %s", o.Refusal)
	case confirm == "":
		return o.LUN, t.sureBy(cmd, text, o.LUN, "--yes-i-know "+o.LUN)
	case confirm != o.LUN:
		return "", fmt.Errorf("nothing was done: --yes-i-know %s is not the name of the LUN, %s", confirm, o.LUN)
	}
	fmt.Fprintln(cmd.ErrOrStderr(), text)
	return o.LUN, nil
}

// outlookText is what an operator should read before.
func outlookText(o api.Outlook, now time.Time) string {
	link := "down"
	if o.Linked {
		link = "UP: it is running"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "LUN %s is to be served by node %s alone, without the agreement of a majority.\n", o.LUN, o.Node)
	fmt.Fprintf(&b, "  served by, as this node knows  %s, term %d\n", join(o.Serving), o.Term)
	fmt.Fprintf(&b, "  last heard of node %-12s%s\n  link with it                   %s\n", o.Peer, since(o.Heard, notHeard, now), link)
	fmt.Fprintf(&b, "  may be out of date here        %d extents, %s at most; loss policy %s\n", o.Stale, config.FormatSize(o.Bytes), o.Loss)
	if o.Unknown {
		fmt.Fprintf(&b, "  AND all that node %s has written since it serves alone, which nobody here can count\n", o.Peer)
	}
	fmt.Fprintf(&b, "Node %s must be off for good, or fenced by hand: there is no lease that could keep it from serving.", o.Peer)
	return b.String()
}

func forcedText(w io.Writer, o api.Outlook) {
	fmt.Fprintf(w, "LUN %s is served by node %s alone; the cluster will hear of it as soon as it has a majority\n", o.LUN, o.Node)
}
