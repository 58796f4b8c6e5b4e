package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/webui/api"
)

func (t *tool) applyCommand() *cobra.Command {
	var path string
	var dry bool
	c := t.yesFlag(&cobra.Command{
		Use: "apply -f FILE", Short: "make the cluster have what a document says", Args: cobra.NoArgs,
		Long: "apply shows what has to be changed so that the cluster has what a YAML document says, and then changes it, in\n" +
			"an order that is safe. Running it again changes nothing. What the document does not name stays as it is, and\n" +
			"what an entry leaves out, too: nothing is removed, but for mappings that stand in the way of those that it has.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return errors.New("-f: is missing; it is the file with the document, or - for standard input")
			}
			d, err := readDocument(cmd.InOrStdin(), path)
			if err != nil {
				return err
			}
			return t.apply(cmd, d, dry)
		},
	})
	c.Flags().StringVarP(&path, "file", "f", "", "the document; - is standard input, and needs --yes if hosts may lose something")
	c.Flags().BoolVar(&dry, "dry-run", false, "only show what would be changed")
	return c
}

func (t *tool) apply(cmd *cobra.Command, d *api.Document, dry bool) error {
	shown, err := t.plan(cmd, api.Apply{Document: *d, DryRun: true})
	if err != nil {
		return err
	}
	if dry || len(shown.Changes) == 0 {
		return t.showPlan(cmd, shown)
	}
	if t.format == "text" {
		if err := t.showPlan(cmd, shown); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(shown.Changes, func(c api.Change) bool { return c.Takes }) {
		if err := t.sure(cmd, "Hosts may lose what they use, by the changes with an exclamation mark.", "apply"); err != nil {
			return err
		}
	}
	done, err := t.plan(cmd, api.Apply{Document: *d, Plan: shown.ID})
	if err != nil {
		return err
	}
	if t.format == "json" {
		return t.showPlan(cmd, done)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%d changes are made\n", len(done.Changes))
	return nil
}

// plan asks the node, without the time that the operator takes.
func (t *tool) plan(cmd *cobra.Command, a api.Apply) (api.Plan, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), askTime)
	defer cancel()
	return t.client().Apply(ctx, a)
}

func (t *tool) showPlan(cmd *cobra.Command, p api.Plan) error {
	out := cmd.OutOrStdout()
	if t.format == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(p)
	}
	if len(p.Changes) == 0 {
		_, err := fmt.Fprintln(out, "nothing has to be changed")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	planTable(w, p.Changes)
	return w.Flush()
}

func planTable(w io.Writer, all []api.Change) {
	row(w, " ", "CHANGE", "OF", "WHAT")
	for _, c := range all {
		mark := " "
		if c.Takes {
			mark = "!"
		}
		row(w, mark, c.Kind, c.Subject, fieldsOf(c))
	}
}

func fieldsOf(c api.Change) string {
	var all []string
	for _, f := range c.Fields {
		from, to := friendly(f.Name, f.From), friendly(f.Name, f.To)
		switch {
		case from == "" && to == "":
			all = append(all, f.Name)
		case from == "":
			all = append(all, f.Name+" "+to)
		case to == "":
			all = append(all, f.Name+" "+from+" -> none")
		default:
			all = append(all, f.Name+" "+from+" -> "+to)
		}
	}
	return strings.Join(all, "; ")
}

// friendly is a value of a field with units.
func friendly(field, value string) string {
	if field != "size" && field != "copy_rate" {
		return value
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return value
	}
	return config.FormatSize(n)
}
