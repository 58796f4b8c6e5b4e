package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

const (
	// verifyRate leaves most of a disk, and of a line of 1 Gbit/s, to the hosts.
	verifyRate = "50MiB"
	// verifyLook is how often a comparison that is waited for is looked at, and
	// verifyTell how often a line is printed about it.
	verifyLook = time.Second
	verifyTell = 10 * time.Second
)

// Results of a comparison that a script must not take for a good one.
var (
	errDiffer      = errors.New("the replicas differ")
	errNotThrough  = errors.New("the replicas were not compared to the end")
	errNoCompared  = errors.New("the replicas were not compared since this node was started; twinlun event list has earlier results")
	errVerifyFlags = errors.New("--status, --stop, and what begins a comparison exclude each other")
)

// verifyLUN is the command that compares replicas.
func (t *tool) verifyLUN() *cobra.Command {
	var n api.NewVerification
	var rate, keep string
	var status, stop, wait bool
	c := t.yesFlag(&cobra.Command{
		Use: "verify NAME", Short: "compare both replicas of a LUN, while it is used", Args: cobra.ExactArgs(1),
		Long: "Compare both replicas of a LUN, while it is used, in the background.\nRun it at a node that has one of them. With --wait, or --status at the end, it fails if they differ.",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			starts := n.Repair || wait || keep != "" || cmd.Flags().Changed("rate")
			n.Keep = catalog.NodeID(keep)
			if status && stop || (status || stop) && starts {
				return errVerifyFlags
			}
			if n.Rate, err = config.ParseSize(rate); err != nil {
				return fmt.Errorf("--rate: %w", err)
			}
			switch {
			case stop:
				return t.done(cmd, "comparing the replicas of LUN "+args[0]+" is stopped", func(ctx context.Context, c *client.Client) error { return c.StopVerify(ctx, args[0]) })
			case status:
				return t.verification(cmd, func(ctx context.Context, c *client.Client) (api.Verification, error) {
					return c.Verification(ctx, args[0])
				})
			case n.Repair:
				if err := t.sure(cmd, "What differs will be overwritten at one of the two sites, see twinlun lun verify --help.", args[0]); err != nil {
					return err
				}
			}
			start := func(ctx context.Context, c *client.Client) (api.Verification, error) {
				return c.Verify(ctx, args[0], n)
			}
			if wait {
				return t.verifyToTheEnd(cmd, args[0], start)
			}
			return t.verification(cmd, start)
		},
	})
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&rate, "rate", verifyRate, "limit per second of each replica; 0: none")
	f.BoolVar(&wait, "wait", false, "until it is through")
	f.BoolVar(&n.Repair, "repair", false, "where they differ, make both as the one that owns the piece has it; where none does, the preferred node's")
	f.StringVar(&keep, "keep", "", "with --repair: make both as they are at this node")
	f.BoolVar(&status, "status", false, "begin nothing, and tell how far the last one has come at this node")
	f.BoolVar(&stop, "stop", false, "end the one that is under way")
	return c
}

// verification prints how a comparison stands. It fails if that is bad.
func (t *tool) verification(cmd *cobra.Command, f func(ctx context.Context, c *client.Client) (api.Verification, error)) error {
	var v api.Verification
	err := ask(t, cmd, func(ctx context.Context, c *client.Client) (_ api.Verification, err error) {
		v, err = f(ctx, c)
		return v, err
	}, verificationText)
	if err != nil {
		return err
	}
	return judgeVerification(&v)
}

// verifyToTheEnd begins a comparison, and waits for its end. One that is interrupted goes
// on at the node.
func (t *tool) verifyToTheEnd(cmd *cobra.Command, name string, start func(ctx context.Context, c *client.Client) (api.Verification, error)) error {
	ctx := cmd.Context()
	v, err := start(ctx, t.client())
	told := time.Now()
	for err == nil && v.State == api.VerifyRunning {
		if err = pause(ctx, verifyLook); err != nil {
			break
		}
		v, err = t.client().Verification(ctx, name)
		if t.format == "text" && time.Since(told) > verifyTell {
			told = time.Now()
			fmt.Fprintln(cmd.ErrOrStderr(), progress(&v))
		}
	}
	if err != nil {
		return err
	}
	return t.verification(cmd, func(context.Context, *client.Client) (api.Verification, error) { return v, nil })
}

func judgeVerification(v *api.Verification) error {
	switch {
	case v.State == api.VerifyNone:
		return errNoCompared
	case v.Differing > v.Repaired:
		return fmt.Errorf("%w in %d bytes", errDiffer, v.Differing-v.Repaired)
	case v.State == api.VerifyStopped || v.Unread > 0:
		return errNotThrough
	}
	return nil
}

// progress is a line about a comparison.
func progress(v *api.Verification) string {
	text := fmt.Sprintf("%s: %d of %d bytes (%d%%)", v.State, v.Done, v.Size, v.Done*100/max(v.Size, 1))
	if s := speed(v); s > 0 {
		text += fmt.Sprintf(", %d MiB/s", s>>20)
	}
	if v.Waiting != "" {
		text += ", waiting: " + v.Waiting
	}
	return text
}

// speed is bytes per second since the beginning.
func speed(v *api.Verification) int64 {
	if v.Started == nil {
		return 0
	}
	end := time.Now()
	if v.Ended != nil {
		end = *v.Ended
	}
	return int64(float64(v.Done) / max(end.Sub(*v.Started).Seconds(), 0.001))
}

// verificationText prints a comparison for people.
func verificationText(w io.Writer, v api.Verification) {
	row(w, "LUN", v.LUN)
	if v.State == api.VerifyNone {
		row(w, "STATE", v.State)
		return
	}
	row(w, "STATE", progress(&v))
	for _, at := range []struct {
		name string
		time *time.Time
	}{{"STARTED", v.Started}, {"ENDED", v.Ended}} {
		if at.time != nil {
			row(w, at.name, at.time.Format(time.RFC3339))
		}
	}
	if v.Error != "" {
		row(w, "STOPPED", v.Error)
	}
	row(w, "COMPARED", v.Compared)
	row(w, "BEING COPIED", v.Copying)
	row(w, "CHANGED HANDS", v.Busy)
	row(w, "UNREADABLE", v.Unread)
	row(w, "DIFFERENT", v.Differing)
	if v.Repair {
		row(w, "REPAIRED", v.Repaired)
	}
	for _, d := range v.Differences {
		row(w, "DIFFERENCE", fmt.Sprintf("%d bytes at offset %d; a repair keeps what node %s has", d.Length, d.Offset, d.Keeps))
	}
}
