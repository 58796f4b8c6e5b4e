package commands

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

func (t *tool) settings() *cobra.Command {
	show := &cobra.Command{
		Use: "show", Short: "the settings", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (catalog.Settings, error) { return c.Settings(ctx) }, settingsText)
		},
	}
	return family("settings", "settings of the whole cluster", show, t.setSettings())
}

func (t *tool) setSettings() *cobra.Command {
	var heartbeat, lease, delay, cold, hold time.Duration
	var rate string
	var compress bool
	c := &cobra.Command{
		Use: "set", Short: "change some settings; nodes take them over at once", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var n api.SettingsChange
			given := cmd.Flags().Changed
			for flag, to := range map[string]struct {
				field **catalog.Duration
				value time.Duration
			}{
				"heartbeat": {&n.Heartbeat, heartbeat}, "lease": {&n.Lease, lease},
				"preferred-delay": {&n.PreferredDelay, delay}, "cold-after": {&n.ColdAfter, cold}, "hold-wait": {&n.HoldWait, hold},
			} {
				if d := catalog.Duration(to.value); given(flag) {
					*to.field = &d
				}
			}
			if given("copy-rate") {
				bytes, err := config.ParseSize(rate)
				if err != nil {
					return fmt.Errorf("--copy-rate: %w", err)
				}
				n.CopyRate = &bytes
			}
			if given("compress") {
				n.Compress = &compress
			}
			return ask(t, cmd, func(ctx context.Context, c *client.Client) (catalog.Settings, error) { return c.ChangeSettings(ctx, n) }, settingsText)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.DurationVar(&heartbeat, "heartbeat", 0, "how often a node asks its peers for a lease")
	f.DurationVar(&lease, "lease", 0, "how long that lasts: a site that is lost is waited for so long")
	f.DurationVar(&delay, "preferred-delay", 0, "how much later than the preferred node the other one wants to serve alone")
	f.DurationVar(&cold, "cold-after", 0, "when a site gives back the ownership of what it does not write any more")
	f.DurationVar(&hold, "hold-wait", 0, "how long hosts wait for a lost site that has the newest data, until they get an error")
	f.StringVar(&rate, "copy-rate", "", "limit of copying a LUN, bytes per second like 100MiB; 0: none")
	f.BoolVar(&compress, "compress", true, "compress copies on the way")
	return c
}

func settingsText(w io.Writer, s catalog.Settings) {
	rate := "no limit"
	if s.CopyRate > 0 {
		rate = config.FormatSize(s.CopyRate) + "/s"
	}
	row(w, "heartbeat", s.Heartbeat)
	row(w, "lease", s.Lease)
	row(w, "preferred delay", s.PreferredDelay)
	row(w, "cold after", s.ColdAfter)
	row(w, "hold wait", s.HoldWait)
	row(w, "copy rate", rate)
	row(w, "compress", s.Compress)
}
