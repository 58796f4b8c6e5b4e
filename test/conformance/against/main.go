// Command against runs libiscsi's cases against any target, for comparison, and
// expects nothing of it. Data on the LUN is lost.
//
//	go run ./test/conformance/against iscsi://127.0.0.1:3260/iqn.2000-01.org.example:disk/1
//
// With a second URL, another path to the same LUN, the cases about paths run, too.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/twinlun/twinlun/test/conformance"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "against:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, urls []string) error {
	if len(urls) < 1 || len(urls) > 2 {
		return fmt.Errorf("usage: against URL [URL]")
	}
	names, err := conformance.List(ctx)
	if err != nil {
		return err
	}
	ways := []conformance.Way{{Name: "one path", URLs: urls[:1],
		For: []conformance.Kind{conformance.Disk, conformance.Removable, conformance.ReadOnly}}}
	if len(urls) == 2 {
		ways = append(ways, conformance.Way{Name: "two paths", URLs: urls, For: []conformance.Kind{conformance.TwoPaths}})
	}
	results, err := conformance.Run(ctx, names, ways)
	conformance.Report(os.Stdout, results, nil)
	return err
}
