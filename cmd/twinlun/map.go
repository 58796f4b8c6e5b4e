package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/dirtymap/mapfile"
)

func mapCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "map", Short: "look at map files", Args: cobra.NoArgs}
	cmd.AddCommand(&cobra.Command{
		Use: "dump FILE", Short: "tell what a map file says, also while a daemon uses it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			out := bufio.NewWriter(cmd.OutOrStdout())
			err = mapfile.Dump(out, reading{f})
			if err = errors.Join(err, out.Flush()); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return nil
		},
	})
	return cmd
}

// reading is a map file that is only read, without the lock of its daemon.
type reading struct{ *os.File }

func (r reading) Size() (int64, error) {
	info, err := r.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
