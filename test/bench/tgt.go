package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/twinlun/twinlun/test/initiator"
)

const tgtName = "iqn.2000-01.org.example:bench"

// tgtd is a running tgt, the target that Debian has, with one LUN.
type tgtd struct {
	cmd     *exec.Cmd
	address string
	control string // number of its control socket
}

// errNoTgt: there is nothing to compare with.
var errNoTgt = errors.New("tgt cannot be run")

// newTgtd starts tgtd with a LUN of this size in a new file. Its limits of what a
// session may negotiate are raised to those of twinlund; all else is as it comes.
func (b *bench) newTgtd(size int64) (t *tgtd, err error) {
	for _, program := range []string{"tgtd", "tgtadm"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: %s is not installed (Debian package tgt)", errNoTgt, program)
		}
	}
	if err := os.MkdirAll("/var/run/tgtd", 0o755); err != nil {
		return nil, fmt.Errorf("%w: it has no place for its socket: %w", errNoTgt, err)
	}
	dir, err := b.folder()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "disk.img")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		return nil, err
	}
	free, err := freeAddresses(1)
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(free[0])
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	t = &tgtd{address: free[0], control: strconv.Itoa(number % 32768)}
	t.cmd = exec.Command("tgtd", "-f", "-C", t.control, "--iscsi", "portal="+t.address)
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	if err := t.configure(b, path); err != nil {
		return nil, errors.Join(err, t.stop())
	}
	return t, nil
}

// configure makes the target and its LUN 1.
func (t *tgtd) configure(b *bench, path string) error {
	err := b.until("tgtd answers", func() bool { return t.admin("--op show --mode sys") == nil })
	if err != nil {
		return err
	}
	orders := []string{
		"--op new --mode target --tid 1 -T " + tgtName,
		"--op new --mode logicalunit --tid 1 --lun 1 --backing-store " + path,
		"--op bind --mode target --tid 1 -I ALL",
	}
	for key, value := range map[string]string{
		"MaxRecvDataSegmentLength": "262144", "MaxXmitDataSegmentLength": "262144",
		"MaxBurstLength": "1048576", "FirstBurstLength": "65536",
		"InitialR2T": "No", "ImmediateData": "Yes", "MaxOutstandingR2T": "4",
	} {
		orders = append(orders, "--op update --mode target --tid 1 --name "+key+" --value "+value)
	}
	for _, order := range orders {
		if err := t.admin(order); err != nil {
			return err
		}
	}
	return nil
}

func (t *tgtd) admin(order string) error {
	out, err := exec.Command("tgtadm", strings.Fields("-C "+t.control+" --lld iscsi "+order)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tgtadm %s: %w: %s", order, err, out)
	}
	return nil
}

func (t *tgtd) options() initiator.Options {
	return initiator.Options{Address: t.address, TargetIQN: tgtName, LUN: 1, Lenient: true}
}

// stop ends it, and removes what it leaves behind.
func (t *tgtd) stop() error {
	err := t.cmd.Process.Kill()
	t.cmd.Wait()
	socket := "/var/run/tgtd/socket." + t.control
	os.Remove(socket)
	os.Remove(socket + ".lock")
	return err
}
