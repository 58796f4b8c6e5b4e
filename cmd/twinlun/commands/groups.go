package commands

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

func (t *tool) groups() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "the groups", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) ([]api.Group, error) { return c.Groups(ctx) }, groupTable)
		},
	}
	put := &cobra.Command{
		Use: "put NAME", Short: "make a group; hosts are put into it with twinlun host put --group", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (api.Group, error) { return c.PutGroup(ctx, args[0]) },
				func(w io.Writer, g api.Group) { groupTable(w, []api.Group{g}) })
		},
	}
	remove := t.yesFlag(&cobra.Command{
		Use: "delete NAME", Short: "remove a group that has no hosts, with its mappings", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.sure(cmd, "Group "+args[0]+" and what is mapped to it will be gone.", args[0]); err != nil {
				return err
			}
			return t.done(cmd, "group "+args[0]+" is removed", func(ctx context.Context, c *client.Client) error { return c.RemoveGroup(ctx, args[0]) })
		},
	})
	return family("group", "hosts that see the same LUNs", list, put, remove)
}

func groupTable(w io.Writer, all []api.Group) {
	row(w, "GROUP", "HOSTS")
	for _, g := range all {
		row(w, g.Name, strings.Join(g.Hosts, ","))
	}
}
