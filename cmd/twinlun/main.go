// Command twinlun is the command line for people and scripts.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cmd/twinlun/commands"
)

var version = "unknown" // set when it is linked, from the file VERSION

func main() {
	// The first signal asks for a clean end, the second one is the kernel's again.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "twinlun:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "twinlun",
		Short: "one LUN, two sites, both of them writable",
		Args:  cobra.NoArgs, SilenceUsage: true, SilenceErrors: true, Version: version,
	}
	commands.Add(root)
	root.AddCommand(demoCommand(), mapCommand(), &cobra.Command{
		Use: "version", Short: "tell the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "twinlun", version) },
	})
	return root
}
