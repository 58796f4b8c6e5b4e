package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cmd/twinlun/demo"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
)

func demoCommand() *cobra.Command {
	o := demo.Options{Out: os.Stdout}
	var size, blockSize string
	cmd := &cobra.Command{
		Use: "demo", Short: "run both sites on this machine, with one mirrored LUN", Args: cobra.NoArgs,
		Long: "demo runs the daemons of two sites on 127.0.0.1, with an emulated line between them,\n" +
			"makes one mirrored LUN, tells what can be done with it, and shows how it is. Ctrl-C ends it.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cmd.Flags().Changed("size") {
				if o.Size, err = config.ParseSize(size); err != nil {
					return fmt.Errorf("--size: %w", err)
				}
			}
			if cmd.Flags().Changed("block-size") {
				if o.BlockSize, err = config.ParseBlockSize(blockSize); err != nil {
					return fmt.Errorf("--block-size: %w", err)
				}
			}
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			o.Daemon = filepath.Join(filepath.Dir(exe), "twinlund")
			o.Live = demo.IsTerminal(os.Stdout)
			return demo.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.Dir, "dir", "", "keep everything in this folder, and use it again; default: a temporary one")
	f.StringVar(&o.JSON, "json", "", "write a file that tells scripts what runs where, when everything serves")
	f.IntVar(&o.BasePort, "base-port", 13260, "iSCSI port of site a; site b has the tenth after it, others lie between and behind")
	f.StringVar(&size, "size", config.FormatSize(demo.DefaultSize), "size of the LUN")
	f.StringVar(&blockSize, "block-size", "512", "size of its logical blocks: 512 or 4096")
	f.DurationVar(&o.Line.Delay, "link-delay", 0, "one-way delay of the link")
	f.Int64Var(&o.Line.Rate, "link-rate", 0, "rate of the link, bits per second in each direction; 0: no limit")
	f.DurationVar(&o.ColdAfter, "cold-after", 0, "how long a site keeps the ownership of what it does not write; default: 10s")
	f.DurationVar(&o.HoldWait, "hold-wait", 0, "how long hosts wait for a lost site that has the newest data; default: 15s")
	f.BoolVar(&o.NoRestart, "no-restart", false, "do not start a killed daemon again")
	return cmd
}
