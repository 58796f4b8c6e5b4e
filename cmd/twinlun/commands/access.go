package commands

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

func (t *tool) targets() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "the targets", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) ([]catalog.Target, error) { return c.Targets(ctx) }, targetTable)
		},
	}
	var b api.TargetBody
	var portals []string
	put := &cobra.Command{
		Use: "put IQN --portal NODE=HOST:PORT", Short: "make a target, or replace its portals", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, p := range portals {
				node, address, found := strings.Cut(p, "=")
				if !found {
					return fmt.Errorf("--portal %q: NODE=HOST:PORT is wanted, or NODE=:PORT for all addresses of the node", p)
				}
				b.Portals = append(b.Portals, catalog.Portal{Node: catalog.NodeID(node), Address: address})
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (catalog.Target, error) {
				return c.PutTarget(ctx, args[0], b)
			},
				func(w io.Writer, v catalog.Target) { targetTable(w, []catalog.Target{v}) })
		},
	}
	put.Flags().StringVar(&b.Alias, "alias", "", "a name for people, shown to initiators")
	put.Flags().StringArrayVar(&portals, "portal", nil, "where a node serves it; once for each")
	remove := &cobra.Command{
		Use: "delete IQN", Short: "remove a target at which nothing is mapped", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.done(cmd, "target "+args[0]+" is removed", func(ctx context.Context, c *client.Client) error { return c.RemoveTarget(ctx, args[0]) })
		},
	}
	return family("target", "iSCSI targets", list, put, remove)
}

func targetTable(w io.Writer, all []catalog.Target) {
	row(w, "TARGET", "ALIAS", "PORTALS")
	for _, v := range all {
		var portals []string
		for _, p := range v.Portals {
			portals = append(portals, string(p.Node)+"="+p.Address)
		}
		row(w, v.Name, v.Alias, strings.Join(portals, ","))
	}
}

// secretFrom reads a secret from a file; - is standard input.
func secretFrom(cmd *cobra.Command, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	if path != "-" {
		return readSecret(path)
	}
	return oneSecret(cmd.InOrStdin())
}

func (t *tool) hosts() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "the hosts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) ([]api.Host, error) { return c.Hosts(ctx) }, hostTable)
		},
	}
	var b api.HostBody
	var secretFile, targetFile string
	put := &cobra.Command{
		Use: "put NAME --initiator IQN", Short: "make a host, or replace what it was", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if b.Secret, err = secretFrom(cmd, secretFile); err != nil {
				return fmt.Errorf("--secret-file: %w", err)
			}
			if b.TargetSecret, err = secretFrom(cmd, targetFile); err != nil {
				return fmt.Errorf("--target-secret-file: %w", err)
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (api.Host, error) { return c.PutHost(ctx, args[0], b) },
				func(w io.Writer, v api.Host) { hostTable(w, []api.Host{v}) })
		},
	}
	f := put.Flags()
	f.SortFlags = false
	f.StringArrayVar(&b.Initiators, "initiator", nil, "an iSCSI name, or its beginning and an asterisk; once for each")
	f.StringVar(&b.Site, "site", "", "the site whose paths it should use")
	f.StringVar(&b.Group, "group", "", "the group whose LUNs it sees, too")
	f.StringVar(&b.User, "user", "", "CHAP user that the host proves to be")
	f.StringVar(&secretFile, "secret-file", "", "file with that user's secret; - is standard input; without it the secret stays")
	f.StringVar(&b.TargetUser, "target-user", "", "CHAP user that the target proves to be")
	f.StringVar(&targetFile, "target-secret-file", "", "file with that one's secret")
	remove := t.yesFlag(&cobra.Command{
		Use: "delete NAME", Short: "remove a host, with what is mapped to it alone", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.sure(cmd, "Host "+args[0]+" will not be let in any more.", args[0]); err != nil {
				return err
			}
			return t.done(cmd, "host "+args[0]+" is removed", func(ctx context.Context, c *client.Client) error { return c.RemoveHost(ctx, args[0]) })
		},
	})
	return family("host", "hosts, and how they log in", list, put, remove)
}

func hostTable(w io.Writer, all []api.Host) {
	row(w, "HOST", "INITIATORS", "SITE", "GROUP", "CHAP USER", "TARGET USER")
	for _, h := range all {
		row(w, h.Name, strings.Join(h.Initiators, ","), h.Site, h.Group, h.User, h.TargetUser)
	}
}

func (t *tool) mappings() *cobra.Command {
	var m api.Mapping
	subject := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&m.Target, "target", "", "the target; it can be left out if there is one only")
		c.Flags().StringVar(&m.Host, "host", "", "the host")
		c.Flags().StringVar(&m.Group, "group", "", "or the group of hosts")
		return c
	}
	list := &cobra.Command{
		Use: "list", Short: "who sees which LUNs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) ([]api.Mapping, error) { return c.Mappings(ctx) },
				func(w io.Writer, all []api.Mapping) {
					row(w, "TARGET", "HOST", "GROUP", "NUMBER", "LUN")
					for _, v := range all {
						row(w, v.Target, v.Host, v.Group, v.Number, v.LUN)
					}
				})
		},
	}
	add := subject(&cobra.Command{
		Use: "add LUN NUMBER", Short: "show a LUN to a host, or a group of hosts, under a number", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			m.LUN = args[0]
			if m.Number, err = number(args[1]); err != nil {
				return err
			}
			return t.done(cmd, "LUN "+m.LUN+" is mapped", func(ctx context.Context, c *client.Client) error { return onTarget(ctx, c, m, c.Map) })
		},
	})
	remove := subject(&cobra.Command{
		Use: "remove NUMBER", Short: "take a mapping back", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if m.Number, err = number(args[0]); err != nil {
				return err
			}
			return t.done(cmd, "it is not mapped any more", func(ctx context.Context, c *client.Client) error { return onTarget(ctx, c, m, c.Unmap) })
		},
	})
	return family("mapping", "who sees which LUNs", list, add, remove)
}

func number(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 14)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number from 0 to 16383", text)
	}
	return uint16(n), nil
}

// onTarget finds the only target, if none was named.
func onTarget(ctx context.Context, c *client.Client, m api.Mapping, do func(context.Context, api.Mapping) error) error {
	if m.Target == "" {
		all, err := c.Targets(ctx)
		if err != nil {
			return err
		}
		if len(all) != 1 {
			return fmt.Errorf("--target: there are %d targets; say which one", len(all))
		}
		m.Target = all[0].Name
	}
	return do(ctx, m)
}
