// Command twinlund is the daemon of one site: an iSCSI target whose LUNs are
// mirrored, in both directions, with the twinlund of the other site.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/cmd/twinlund/daemon"
)

var version = "unknown" // set when it is linked, from the file VERSION

// stopTime is how long hosts may take to leave when the daemon stops.
const stopTime = 10 * time.Second

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "twinlund:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var file string
	var check bool
	cmd := &cobra.Command{
		Use:   "twinlund --config FILE",
		Short: "serve mirrored LUNs to iSCSI initiators",
		Long: "twinlund serves mirrored LUNs to iSCSI initiators, together with the twinlund of the other site.\n\n" +
			"Every setting below can stand in the file (--iscsi-portal-group is portal-group in the section iscsi),\n" +
			"in the environment (TWINLUN_ISCSI_PORTAL_GROUP), or here; the last one counts. SIGTERM and SIGINT stop\n" +
			"the daemon in order, a second one at once. SIGHUP takes over targets, hosts, discovery and LUNs as\nthey are configured then.",
		Args: cobra.NoArgs, Version: version, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			src := config.Source{File: file, Environ: os.Environ(), Flags: cmd.Flags()}
			cfg, err := src.Load()
			if err != nil {
				return err
			}
			if check {
				for _, w := range cfg.Warnings {
					fmt.Fprintln(cmd.ErrOrStderr(), "twinlund: warning:", w)
				}
				return nil
			}
			if cfg.Witness != nil {
				return witness(cfg)
			}
			return serve(cfg, src)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", os.Getenv(config.ConfigEnv), "configuration file (YAML)")
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration, and do nothing")
	cmd.Flags().SortFlags = false
	config.AddFlags(cmd.Flags())
	return cmd
}

// serve runs the daemon until a signal, or until it cannot go on.
func serve(cfg *config.Config, src config.Source) error {
	log := cfg.Log.Logger(os.Stderr)
	warn(log, cfg)
	signals, hangup := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(hangup, syscall.SIGHUP)
	limitGarbage(cfg.LUNs)
	d, err := daemon.Start(cfg, version, log)
	if err != nil {
		return err
	}
	log.Info("started", "version", version, "iscsi", d.ISCSI(), "luns", len(cfg.LUNs))
	failure := wait(d, src, log, signals, hangup)
	go stopAtOnce(signals)
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		log.Error("did not stop in order", "err", err)
		failure = err
	}
	log.Info("stopped")
	return failure
}

func warn(log *slog.Logger, cfg *config.Config) {
	for _, w := range cfg.Warnings {
		log.Warn("configuration: " + w)
	}
}

// wait returns when the daemon shall stop, with why it cannot go on, and reads the
// configuration anew as often as it is asked to.
func wait(d *daemon.Daemon, src config.Source, log *slog.Logger, signals, hangup <-chan os.Signal) error {
	for {
		select {
		case s := <-signals:
			log.Info("stopping; once more stops at once", "signal", s)
			return nil
		case err := <-d.Failed():
			log.Error("stopping", "err", err)
			return err
		case <-hangup:
			reload(d, src, log)
		}
	}
}

// reload takes over what may change while the daemon runs from the configuration as it
// is now.
func reload(d *daemon.Daemon, src config.Source, log *slog.Logger) {
	cfg, err := src.Load()
	if err != nil {
		log.Warn("the configuration is not taken over", "err", err)
		return
	}
	warn(log, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	limitGarbage(cfg.LUNs)
	if err := d.Reload(ctx, cfg); err != nil {
		log.Warn("the configuration is not taken over as a whole", "err", err)
		return
	}
	log.Info("the configuration is taken over", "targets", len(cfg.Targets), "luns", len(cfg.LUNs))
}

// stopAtOnce ends the process at the next signal: it then starts as after a crash,
// which it is made for.
func stopAtOnce(signals <-chan os.Signal) {
	for first := time.Now(); time.Since(first) < echo; {
		<-signals
	}
	os.Exit(130)
}

// echo is how long a further signal counts as the same one: timeout(1), for one,
// signals the process and then its whole group.
const echo = time.Second
