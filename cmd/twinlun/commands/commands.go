// Package commands are the commands of twinlun that administer a cluster, over the API of
// the node on this machine. A family of commands is a file.
package commands

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/webui/client"
)

// DefaultSocket is that of a node whose configuration says nothing else.
const DefaultSocket = "/var/lib/twinlund/api.sock"

// SocketEnv is the environment variable with another path.
const SocketEnv = "TWINLUN_SOCKET"

// askTime bounds a command. Joining waits for the catalog to arrive.
const askTime = time.Minute

// tool is what all commands have in common.
type tool struct {
	socket string
	format string
	yes    bool
}

// Add gives root the commands.
func Add(root *cobra.Command) {
	t := &tool{}
	socket := DefaultSocket
	if s := os.Getenv(SocketEnv); s != "" {
		socket = s
	}
	for _, c := range []*cobra.Command{
		t.initCommand(), t.joinCommand(), t.statusCommand(), t.cluster(), t.tokens(), t.nodes(), t.sites(), t.luns(), t.targets(), t.hosts(), t.groups(), t.mappings(), t.discovery(),
		t.settings(), t.events(), t.applyCommand(), t.salvage(),
	} {
		f := c.PersistentFlags()
		f.StringVar(&t.socket, "socket", socket, "socket of the node's API")
		f.StringVarP(&t.format, "output", "o", "text", "text, or json for scripts")
		root.AddCommand(c)
	}
}

// client asks the node of this machine.
func (t *tool) client() *client.Client { return client.Local(t.socket) }

// ask is a command that asks, and prints the answer: as JSON, or as text does it.
func ask[T any](t *tool, cmd *cobra.Command, f func(ctx context.Context, c *client.Client) (T, error), text func(w io.Writer, v T)) error {
	if t.format != "text" && t.format != "json" {
		return fmt.Errorf("--output %q: it is text or json", t.format)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), askTime)
	defer cancel()
	v, err := f(ctx, t.client())
	if err != nil {
		return err
	}
	if t.format == "json" {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	text(w, v)
	return w.Flush()
}

// done is a command without an answer.
func (t *tool) done(cmd *cobra.Command, word string, f func(ctx context.Context, c *client.Client) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), askTime)
	defer cancel()
	if err := f(ctx, t.client()); err != nil {
		return err
	}
	if t.format == "text" {
		fmt.Fprintln(cmd.OutOrStdout(), word)
	}
	return nil
}

// row prints a line of a table.
func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		text := fmt.Sprint(c)
		if text == "" {
			text = "-"
		}
		fmt.Fprint(w, text)
	}
	fmt.Fprintln(w)
}

// family is a command that has others below it.
func family(use, short string, all ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(all...)
	return c
}

// sure has the operator type a name, unless --yes was given.
func (t *tool) sure(cmd *cobra.Command, what, name string) error {
	if t.yes {
		return nil
	}
	return t.sureBy(cmd, what, name, "--yes")
}

// sureBy has the operator type a name; flag does without.
func (t *tool) sureBy(cmd *cobra.Command, what, name, flag string) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s\nType %q to go on: ", what, name)
	line, _ := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 1024)).ReadString('\n')
	if strings.TrimSpace(line) != name {
		return fmt.Errorf("nothing was done: %q was not typed (%s does without)", name, flag)
	}
	return nil
}

// yesFlag gives a command --yes.
func (t *tool) yesFlag(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVarP(&t.yes, "yes", "y", false, "do not ask")
	return c
}
