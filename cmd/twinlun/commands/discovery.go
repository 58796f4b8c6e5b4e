package commands

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

func (t *tool) discovery() *cobra.Command {
	show := &cobra.Command{
		Use: "show", Short: "as whom initiators have to prove themselves that only want to look", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (api.Discovery, error) { return c.Discovery(ctx) }, discoveryText)
		},
	}
	open := t.yesFlag(&cobra.Command{
		Use: "open", Short: "have initiators look without a proof", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.sure(cmd, "Initiators will be told of targets without a proof.", "open"); err != nil {
				return err
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (api.Discovery, error) {
				return c.SetDiscovery(ctx, api.DiscoveryBody{})
			}, discoveryText)
		},
	})
	return family("discovery", "how initiators find targets", show, t.setDiscovery(), open)
}

func (t *tool) setDiscovery() *cobra.Command {
	var b api.DiscoveryBody
	var secretFile, targetFile string
	c := &cobra.Command{
		Use: "set --user USER --secret-file FILE", Short: "have initiators prove themselves by CHAP", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if b.User == "" {
				return fmt.Errorf("--user: is missing; without any proof it is twinlun discovery open")
			}
			if b.Secret, err = secretFrom(cmd, secretFile); err != nil {
				return fmt.Errorf("--secret-file: %w", err)
			}
			if b.TargetSecret, err = secretFrom(cmd, targetFile); err != nil {
				return fmt.Errorf("--target-secret-file: %w", err)
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (api.Discovery, error) { return c.SetDiscovery(ctx, b) }, discoveryText)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&b.User, "user", "", "CHAP user that the initiator proves to be")
	f.StringVar(&secretFile, "secret-file", "", "file with that user's secret; - is standard input; without it the secret stays")
	f.StringVar(&b.TargetUser, "target-user", "", "CHAP user that the target proves to be")
	f.StringVar(&targetFile, "target-secret-file", "", "file with that one's secret")
	return c
}

func discoveryText(w io.Writer, d api.Discovery) {
	row(w, "USER", "TARGET USER")
	row(w, d.User, d.TargetUser)
}
