package commands

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

// self is what a node says of itself.
type self struct {
	node, site string
	addresses  []string
}

func (s *self) flags(c *cobra.Command) {
	host, _ := os.Hostname()
	name, _, _ := strings.Cut(strings.ToLower(host), ".")
	f := c.Flags()
	f.StringVar(&s.node, "node", name, "name of this node")
	f.StringVar(&s.site, "site", "", "the site where it stands")
	f.StringSliceVar(&s.addresses, "address", nil, "host:port, or several, at which the others reach it; default: the host name, port 7480")
}

func (s *self) complete() {
	if len(s.addresses) == 0 {
		if host, err := os.Hostname(); err == nil {
			s.addresses = []string{host + ":7480"}
		}
	}
	if s.site == "" {
		s.site = s.node
	}
}

func (t *tool) initCommand() *cobra.Command {
	var s self
	c := &cobra.Command{
		Use: "init CLUSTER", Short: "make a cluster, with this node as its first one", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s.complete()
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (api.ClusterInfo, error) {
				return c.Init(ctx, api.NewCluster{Cluster: args[0], Node: s.node, Site: s.site, Addresses: s.addresses})
			}, func(w io.Writer, i api.ClusterInfo) {
				fmt.Fprintf(w, "cluster %s is made, node %s is in it; other nodes join with a token: twinlun token create\n", i.Name, i.Node)
			})
		},
	}
	s.flags(c)
	return c
}

func (t *tool) joinCommand() *cobra.Command {
	var s self
	var witness bool
	c := &cobra.Command{
		Use: "join TOKEN", Short: "have a cluster take this node in", Args: cobra.ExactArgs(1),
		Long: "join has the cluster that made the token take this node in. A token of - is read from standard input.",
		RunE: func(cmd *cobra.Command, args []string) error {
			s.complete()
			if args[0] == "-" {
				text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 64<<10))
				if err != nil {
					return err
				}
				args[0] = string(text)
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (api.ClusterInfo, error) {
				return c.Join(ctx, api.NewMember{Token: args[0], Node: s.node, Site: s.site, Addresses: s.addresses, Witness: witness})
			}, func(w io.Writer, i api.ClusterInfo) {
				fmt.Fprintf(w, "node %s belongs to the cluster %s\n", i.Node, i.Name)
			})
		},
	}
	s.flags(c)
	c.Flags().BoolVar(&witness, "witness", false, "it has a vote, and no replicas")
	return c
}

func (t *tool) tokens() *cobra.Command {
	life := time.Hour
	create := &cobra.Command{
		Use: "create", Short: "make a token with which one node can join", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (api.Token, error) {
				return c.CreateToken(ctx, api.NewToken{Life: life.String()})
			}, func(w io.Writer, k api.Token) { fmt.Fprintln(w, k.Token) })
		},
	}
	create.Flags().DurationVar(&life, "life", life, "how long it is good, at most 168h")
	list := &cobra.Command{
		Use: "list", Short: "the tokens that were made lately", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) ([]catalog.JoinToken, error) { return c.Tokens(ctx) },
				func(w io.Writer, all []catalog.JoinToken) {
					row(w, "HASH", "EXPIRES", "USED BY")
					for _, k := range all {
						row(w, k.Hash, k.Expires.Time().Format(time.RFC3339), k.UsedBy)
					}
				})
		},
	}
	remove := &cobra.Command{
		Use: "delete HASH", Short: "make a token worthless", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.done(cmd, "the token is worthless now", func(ctx context.Context, c *client.Client) error { return c.DeleteToken(ctx, args[0]) })
		},
	}
	return family("token", "tokens with which nodes join", create, list, remove)
}

func (t *tool) nodes() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "the nodes of the cluster", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) ([]api.Node, error) { return c.Nodes(ctx) }, nodeTable)
		},
	}
	remove := t.yesFlag(&cobra.Command{
		Use: "remove NAME", Short: "remove a node for good: its name and its key stay refused", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.sure(cmd, "Node "+args[0]+" will be refused everywhere, for good.", args[0]); err != nil {
				return err
			}
			return t.done(cmd, "node "+args[0]+" is removed", func(ctx context.Context, c *client.Client) error { return c.RemoveNode(ctx, args[0]) })
		},
	})
	return family("node", "the nodes of the cluster", list, remove)
}

func nodeTable(w io.Writer, all []api.Node) {
	row(w, "NODE", "SITE", "GROUP", "ADDRESSES", "ROLE")
	for _, n := range all {
		var role []string
		if n.Witness {
			role = append(role, "witness")
		}
		if n.Leads {
			role = append(role, "leads")
		}
		if n.Drained {
			role = append(role, "drained")
		}
		switch {
		case n.GivenUp:
			role = append(role, "given up")
		case n.Voter && !n.Votes:
			role = append(role, "gets a vote")
		case !n.Voter:
			role = append(role, "no vote")
		}
		row(w, n.Name, n.Site, n.Group, strings.Join(n.Addresses, ","), strings.Join(role, ", "))
	}
}

// report is what status tells.
type report struct {
	Cluster api.ClusterInfo `json:"cluster"`
	Nodes   []api.Node      `json:"nodes"`
	LUNs    []catalog.LUN   `json:"luns"`
	Node    api.NodeStatus  `json:"node"`
}

func (t *tool) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "the cluster, and this node as it is now", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (r report, err error) {
				if r.Cluster, err = c.Cluster(ctx); err != nil {
					return r, err
				}
				if r.Nodes, err = c.Nodes(ctx); err != nil {
					return r, err
				}
				if r.LUNs, err = c.LUNs(ctx); err != nil {
					return r, err
				}
				r.Node, err = c.Node(ctx)
				return r, err
			}, statusText)
		},
	}
}

func statusText(w io.Writer, r report) {
	leader := r.Cluster.Leader
	if leader == "" {
		leader = "nobody: a majority of the nodes does not reach each other, and nothing can be changed"
	}
	fmt.Fprintf(w, "Cluster %s, led by %s\n", r.Cluster.Name, leader)
	if n := r.Cluster.Recoveries; n > 0 {
		fmt.Fprintf(w, "Recovery %d: a new group was made without a majority\n", n)
	}
	fmt.Fprintf(w, "\n")
	nodeTable(w, r.Nodes)
	fmt.Fprintf(w, "\n")
	row(w, "LUN", "SIZE", "REPLICAS", "SERVED BY", "TERM", "LOSS")
	for _, l := range r.LUNs {
		row(w, l.Name, config.FormatSize(l.Size), nodesOf(l), join(l.Serving), l.Term, l.Loss)
	}
	fmt.Fprintf(w, "\nNode %s\n\n", r.Node.Node)
	row(w, "LINK", "STATE", "ROUND TRIP", "LAST ERROR")
	for _, l := range r.Node.Links {
		state := "down"
		if l.Up {
			state = "up"
		}
		row(w, l.Peer, state, l.RTT.Round(10*time.Microsecond), l.LastError)
	}
	fmt.Fprintf(w, "\n")
	row(w, "REPLICA", "SERVES", "DIRTY", "WAITING", "HELD", "ALARMS", "WHY NOT")
	for _, l := range r.Node.LUNs {
		serves := l.Role
		if !l.Serving {
			serves = "no (" + l.Role + ")"
		}
		row(w, l.Name, serves, config.FormatSize(l.Dirty), l.Waiting, l.Held, l.Alarms, l.Why)
	}
}

func join[T ~string](all []T) string {
	var text []string
	for _, v := range all {
		text = append(text, string(v))
	}
	return strings.Join(text, ",")
}
