package commands

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/replication/salvage"
)

// salvage files are this machine's; no daemon is needed to look at them.
func (t *tool) salvage() *cobra.Command {
	var folder string
	list := &cobra.Command{
		Use: "list", Short: "what was given up and kept at this node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return listSalvage(cmd.OutOrStdout(), folder) },
	}
	export := &cobra.Command{
		Use: "export NAME IMAGE", Short: "write what a file keeps to where it was in the LUN", Args: cobra.ExactArgs(2),
		Long: "export makes IMAGE, a sparse file of the size of the LUN, with the salvaged blocks at their places and\n" +
			"holes elsewhere. It can be looked at, or compared with the LUN. An image that is there is not touched.",
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := exportSalvage(filepath.Join(folder, filepath.Base(args[0])), args[1])
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s are in %s\n", config.FormatSize(n), args[1])
			}
			return err
		},
	}
	remove := t.yesFlag(&cobra.Command{
		Use: "delete NAME", Short: "give up for good what a file keeps", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := filepath.Base(args[0])
			path := filepath.Join(folder, name)
			if _, err := openSalvage(path, nil); err != nil && !errors.Is(err, salvage.ErrDamaged) {
				return err
			}
			if err := t.sure(cmd, "What "+name+" keeps is in no replica any more.", name); err != nil {
				return err
			}
			return os.Remove(path)
		},
	})
	c := family("salvage", "writes that were given up when a site came back, and kept", list, export, remove)
	c.PersistentFlags().StringVar(&folder, "dir", "/var/lib/twinlund/salvage", "the folder salvage in the node's data-dir")
	return c
}

// openSalvage looks at a file, and at all of it if read is not nil.
func openSalvage(path string, read func(r *salvage.Reader) error) (h salvage.Header, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, err
	}
	defer f.Close()
	r, err := salvage.NewReader(f)
	if err != nil {
		return h, fmt.Errorf("%s: %w", path, err)
	}
	if read != nil {
		err = read(r)
	}
	return r.Header(), err
}

func listSalvage(out io.Writer, folder string) error {
	names, err := filepath.Glob(filepath.Join(folder, "*.salvage"))
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row(w, "NAME", "LUN", "GIVEN UP", "NODE", "BLOCKS", "STATE")
	for _, path := range names {
		blocks, state := 0, "whole"
		h, err := openSalvage(path, func(r *salvage.Reader) error {
			for {
				b, err := r.Next()
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				blocks += b.Present.Count()
			}
		})
		if err != nil {
			state = err.Error()
		}
		row(w, filepath.Base(path), config.FormatUUID(h.LUN), h.Time.Local().Format(time.DateTime), h.Place, blocks, state)
	}
	return w.Flush()
}

func exportSalvage(path, image string) (bytes int64, err error) {
	out, err := os.OpenFile(image, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	_, err = openSalvage(path, func(r *salvage.Reader) (err error) {
		if err = out.Truncate(r.Header().Size); err == nil {
			bytes, err = salvage.Export(out, r)
		}
		return err
	})
	if errors.Is(err, salvage.ErrDamaged) {
		err = fmt.Errorf("%w; the %s before the damage are in the image", err, config.FormatSize(bytes))
	}
	return bytes, errors.Join(err, out.Sync(), out.Close())
}
