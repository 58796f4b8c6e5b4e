package commands

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

const recoverLong = `recover makes a new group of nodes out of what is left of the cluster, with this node as the
only one that has a vote at first. It is for one day only: when so many nodes are gone for good
that there is no majority any more, and nothing can be agreed upon ever again. Run it on the
machine of a node with replicas that is left.

Nodes that do not answer are given up: they are refused from then on, as if they had been
removed. You must be certain that they are off for good. If they are not, and come back, they
may go on without this node, and there are two clusters of one name that know nothing of each
other. If a node is only away for a while, wait for it; twinlun lun force-alone has this one
serve meanwhile.

It is shown first what is lost. Then new nodes join, with new names, and get the replicas of
those that were given up (twinlun lun replica move).`

func (t *tool) cluster() *cobra.Command {
	return family("cluster", "the cluster as a whole", t.recoverCluster())
}

func (t *tool) recoverCluster() *cobra.Command {
	var confirm string
	c := &cobra.Command{
		Use: "recover", Short: "make a new group when the majority is gone for good", Args: cobra.NoArgs, Long: recoverLong,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := t.mayRecover(cmd, confirm)
			if err != nil {
				return err
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (api.ClusterInfo, error) { return c.Recover(ctx, r) }, recoveredText)
		},
	}
	c.Flags().StringVar(&confirm, "yes-i-know", "", "the name of the cluster: do not ask")
	return c
}

// mayRecover shows what is lost, and has the operator type the cluster's name, unless he has
// given it.
func (t *tool) mayRecover(cmd *cobra.Command, confirm string) (api.Recover, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), askTime)
	defer cancel()
	r, err := t.client().Recovery(ctx)
	if err != nil {
		return api.Recover{}, err
	}
	do := api.Recover{Confirm: r.Cluster}
	for _, n := range r.GiveUp {
		do.GiveUp = append(do.GiveUp, n.Name)
	}
	text := recoveryText(r, time.Now())
	switch {
	case r.Refusal != "":
		return do, fmt.Errorf("nothing was done: %s", r.Refusal)
	case confirm == "":
		return do, t.sureBy(cmd, text, r.Cluster, "--yes-i-know "+r.Cluster)
	case confirm != r.Cluster:
		return do, fmt.Errorf("nothing was done: --yes-i-know %s is not the name of the cluster, %s", confirm, r.Cluster)
	}
	fmt.Fprintln(cmd.ErrOrStderr(), text)
	return do, nil
}

// recoveryText is what an operator should read before.
func recoveryText(r api.Recovery, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "A new group of the cluster %s is to be made at node %s, without the agreement of a majority.\n", r.Cluster, r.Node)
	fmt.Fprintf(&b, "Given up, and refused from then on for good:\n")
	var names []catalog.NodeID
	for _, n := range r.GiveUp {
		names = append(names, n.Name)
		kind := ""
		if n.Witness {
			kind = " (witness)"
		}
		fmt.Fprintf(&b, "  %-29s  last heard of: %s\n", string(n.Name)+kind, since(n.Heard, notHeard, now))
	}
	if len(r.Stay) > 0 {
		fmt.Fprintf(&b, "Nodes that stay: %s\n", join(r.Stay))
	}
	fmt.Fprintf(&b, "What this node does not know is lost: hosts, LUNs, who serves, persistent reservations.\n")
	fmt.Fprintf(&b, "  the last that it knows         entry %d of the log, of %s\n", r.Entry, since(r.EntryTime, "a time that is not known", now))
	fmt.Fprintf(&b, "  last heard of any other node   %s\n", since(r.Heard, notHeard, now))
	lunsLeft(&b, r)
	fmt.Fprintf(&b, "You must be certain that %s will not come back: nothing keeps them from going on together.", join(names))
	return b.String()
}

// lunsLeft tells what becomes of the LUNs.
func lunsLeft(b *strings.Builder, r api.Recovery) {
	var on, older, lost []string
	for _, l := range r.LUNs {
		switch {
		case len(l.Left) == 0:
			lost = append(lost, l.LUN)
		case slices.ContainsFunc(l.Serving, func(n catalog.NodeID) bool { return slices.Contains(l.Left, n) }):
			on = append(on, l.LUN)
		default:
			older = append(older, l.LUN)
		}
	}
	for _, x := range []struct {
		text string
		luns []string
	}{
		{"LUNs that are served by the replica that is left", on},
		{"LUNs that were served by a lost node alone, of which an OLDER replica is left (twinlun lun force-alone serves it)", older},
		{"LUNs of which NO REPLICA IS LEFT", lost},
	} {
		if len(x.luns) > 0 {
			fmt.Fprintf(b, "%s: %s\n", x.text, strings.Join(x.luns, ", "))
		}
	}
}

const notHeard = "not since this node was started"

// since is a moment, and how long ago it was; or what is said if there is none.
func since(at *time.Time, none string, now time.Time) string {
	if at == nil {
		return none
	}
	return fmt.Sprintf("%s, %v ago", at.Local().Format(time.DateTime), now.Sub(*at).Round(time.Second))
}

func recoveredText(w io.Writer, i api.ClusterInfo) {
	fmt.Fprintf(w, "cluster %s has a new group, led by node %s; have other nodes join it (twinlun token create), a witness first\n", i.Name, i.Node)
}
