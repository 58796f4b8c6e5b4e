package commands

import (
	"bufio"
	"context"
	"io"
	"testing"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/test/solo"
)

// terminal reads what a command prints, while it runs.
type terminal struct {
	lines     *bufio.Reader
	interrupt context.CancelFunc
}

func (r *terminal) line(t *testing.T) string {
	t.Helper()
	text, err := r.lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// interrupted is a terminal, and what a command in it has for its context and its output.
func interrupted(t *testing.T) (context.Context, *terminal, io.Writer) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	t.Cleanup(func() { r.Close(); cancel() })
	return ctx, &terminal{bufio.NewReader(r), cancel}, w
}

// command is twinlun with a command line.
func command(out io.Writer, args ...string) *cobra.Command {
	root := &cobra.Command{Use: "twinlun", SilenceErrors: true, SilenceUsage: true}
	Add(root)
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(out)
	return root
}

func logged(t *testing.T, g *solo.Group, text string) {
	t.Helper()
	if _, err := g.Do(t.Context(), "node a", &catalog.LogEvent{Level: catalog.Alert, Subject: "node a", Text: text}); err != nil {
		t.Fatal(err)
	}
}
