package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/webui/client"
)

func (t *tool) events() *cobra.Command {
	var after uint64
	last := uint(50)
	list := &cobra.Command{
		Use: "list", Short: "what has happened lately", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) ([]catalog.Event, error) {
				all, err := c.Events(ctx, after)
				return all[len(all)-int(min(uint(len(all)), last)):], err
			}, eventTable)
		},
	}
	list.Flags().UintVar(&last, "last", last, "how many, at most")
	follow := &cobra.Command{
		Use: "follow", Short: "what happens, until it is interrupted; with -o json one event a line", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := t.client().Follow(cmd.Context(), after, func(e catalog.Event) error { return t.event(cmd.OutOrStdout(), e) })
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	for _, c := range []*cobra.Command{list, follow} {
		c.Flags().Uint64Var(&after, "after", 0, "only those after the one with this number")
	}
	return family("event", "what has happened in the cluster", list, follow)
}

func eventTable(w io.Writer, all []catalog.Event) {
	row(w, "NUMBER", "TIME", "LEVEL", "SUBJECT", "WHAT", "BY")
	for _, e := range all {
		row(w, e.Number, e.Time.Time().Format(time.RFC3339), e.Level, e.Subject, e.Text, e.By)
	}
}

// event prints one, as it happens.
func (t *tool) event(w io.Writer, e catalog.Event) error {
	if t.format == "json" {
		return json.NewEncoder(w).Encode(e)
	}
	_, err := fmt.Fprintf(w, "%s %-7s %s %s\n", e.Time.Time().Format(time.RFC3339), e.Level, e.Subject, e.Text)
	return err
}
