package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/cmd/twinlund/daemon"
)

// witness runs a witness until a signal.
func witness(cfg *config.Config) error {
	log := cfg.Log.Logger(os.Stderr)
	warn(log, cfg)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	limitGarbage(nil)
	w, err := daemon.StartWitness(cfg, version, log)
	if err != nil {
		return err
	}
	if err := w.JoinByFile(ctx); err != nil {
		return err
	}
	log.Info("started", "version", version, "witness", true)
	<-ctx.Done()
	stop() // the next signal ends the process at once
	if err := w.Stop(); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}
