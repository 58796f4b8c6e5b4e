package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/test/initiator"
)

// slow makes sanitizing take some seconds: long enough to do things meanwhile.
func slow(cfg [2]*config.Config, rate int64) [2]*config.Config {
	for _, c := range cfg {
		c.LUNs[0].SanitizeRate = rate
	}
	return cfg
}

// overwrite is SANITIZE, OVERWRITE, with this pattern.
func overwrite(ctx context.Context, s *initiator.Session, flags, count byte, pattern ...byte) error {
	list := append(binary.BigEndian.AppendUint16([]byte{count, 0}, uint16(len(pattern))), pattern...)
	cdb := []byte{0x48, flags | 0x01, 0, 0, 0, 0, 0, byte(len(list) >> 8), byte(len(list)), 0}
	_, err := s.Command(ctx, cdb, list, nil)
	return err
}

const immediate = 0x80

// sense is what a command ended with: key, code and qualifier, in hexadecimal.
func sense(err error) string {
	var c *initiator.CheckCondition
	if errors.As(err, &c) {
		return fmt.Sprintf("%x%02x%02x", c.Key, c.ASC, c.ASCQ)
	}
	return fmt.Sprint(err)
}

// How a command ends that comes while the LUN is sanitized, and one that was there.
const (
	sanitizing = "2041b"
	aborted    = "SCSI status 40h TASK ABORTED"
)

// unitReady is TEST UNIT READY; unit attentions are passed over.
func unitReady(ctx context.Context, s *initiator.Session) string {
	for {
		if got := sense(s.TestUnitReady(ctx)); got[0] != '6' {
			return got
		}
	}
}

// progress is what REQUEST SENSE tells of a sanitize operation, of 65536; -1: there is
// none.
func progress(ctx context.Context, s *initiator.Session) (int, error) {
	for {
		text, err := in(ctx, s, "03 00 00 00 12 00", 18)
		if err != nil {
			return 0, err
		}
		p, _ := hex.DecodeString(text)
		switch {
		case p[2] == 2 && p[12] == 0x04 && p[13] == 0x1b && p[15] == 0x80:
			return int(binary.BigEndian.Uint16(p[16:])), nil
		case p[2] == 0:
			return -1, nil
		case p[2] != 6:
			return 0, fmt.Errorf("REQUEST SENSE tells %s", text)
		}
	}
}

// awaitReady asks until the unit is ready; whatever else it is meanwhile is SANITIZE IN
// PROGRESS.
func awaitReady(t *testing.T, d *Daemon) {
	t.Helper()
	use(t, d, func(ctx context.Context, s *initiator.Session) error {
		for {
			switch got := unitReady(ctx, s); {
			case got == "<nil>":
				return nil
			case got != sanitizing:
				return fmt.Errorf("TEST UNIT READY: %s", got)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// holds wants every byte of the LUN to be as the pattern says, in each logical block.
func holds(pattern ...byte) func(context.Context, *initiator.Session) error {
	want := bytes.Repeat(pattern, 512/len(pattern)+1)[:512]
	return func(ctx context.Context, s *initiator.Session) error {
		p := make([]byte, 1<<20)
		for off := int64(0); off < 16<<20; off += int64(len(p)) {
			if err := s.ReadAt(ctx, p, off); err != nil {
				return err
			}
			for at := 0; at < len(p); at += 512 {
				if !bytes.Equal(p[at:at+512], want) {
					return fmt.Errorf("at %d are % x…", off+int64(at), p[at:at+8])
				}
			}
		}
		return nil
	}
}

// fill writes something all over the LUN, by turns at both nodes.
func fill(t *testing.T, nodes ...*Daemon) {
	t.Helper()
	p := bytes.Repeat([]byte("secret! "), 1<<17)
	for off := int64(0); off < 16<<20; off += int64(len(p)) {
		use(t, nodes[int(off>>20)%len(nodes)], func(ctx context.Context, s *initiator.Session) error { return s.WriteAt(ctx, p, off) })
	}
}

// equalFiles wants both replicas to be the same, and to have nothing of the old.
func equalFiles(t *testing.T, cfg [2]*config.Config) {
	t.Helper()
	a, err := os.ReadFile(cfg[0].LUNs[0].Backing)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(cfg[1].LUNs[0].Backing)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the replicas differ")
	}
	for i, p := range [][]byte{a, b} {
		if at := bytes.Index(p, []byte("secret!")); at >= 0 {
			t.Errorf("replica %d still has something at %d", i, at)
		}
	}
}

// TestSanitize: while one node overwrites the LUN both refuse hosts and tell the
// progress; then both serve what was asked for.
func TestSanitize(t *testing.T) {
	cfg := slow(nodes(t), 2<<20)
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	fill(t, a, b)
	use(t, a, func(ctx context.Context, s *initiator.Session) error {
		return overwrite(ctx, s, immediate, 0x82, 1, 2, 3)
	})
	for _, d := range []*Daemon{a, b} {
		use(t, d, func(ctx context.Context, s *initiator.Session) error {
			if got := sense(s.ReadAt(ctx, make([]byte, 512), 0)); got != sanitizing {
				return fmt.Errorf("READ: %s", got)
			}
			if _, err := s.Inquiry(ctx); err != nil {
				return err
			}
			if got := sense(overwrite(ctx, s, immediate, 1, 9)); got != sanitizing {
				return fmt.Errorf("another SANITIZE: %s", got)
			}
			if err := s.LUNReset(ctx); err != nil {
				return err
			}
			if got := unitReady(ctx, s); got != sanitizing {
				return fmt.Errorf("TEST UNIT READY after a reset: %s", got)
			}
			before, err := progress(ctx, s)
			for now := before; err == nil && now <= before; {
				if now < 0 {
					return errors.New("there is no progress")
				}
				time.Sleep(20 * time.Millisecond)
				now, err = progress(ctx, s)
			}
			return err
		})
	}
	for _, d := range []*Daemon{b, a} {
		awaitReady(t, d)
		use(t, d, holds(1, 2, 3))
	}
	stopNode(t, a)
	stopNode(t, b)
	equalFiles(t, cfg)
}

// TestSanitizeWaits: without IMMED the answer comes when the other node serves the LUN,
// too. BLOCK ERASE leaves nothing but holes.
func TestSanitizeWaits(t *testing.T) {
	cfg := nodes(t)
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	fill(t, a, b)
	use(t, b, func(ctx context.Context, s *initiator.Session) error {
		_, err := s.Command(ctx, []byte{0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0}, nil, nil)
		return err
	})
	use(t, a, func(ctx context.Context, s *initiator.Session) error {
		if got := unitReady(ctx, s); got != "<nil>" {
			return fmt.Errorf("the other node answered, and this one says %s", got)
		}
		return holds(0)(ctx, s)
	})
	use(t, b, func(ctx context.Context, s *initiator.Session) error {
		got, err := in(ctx, s, "9e 12 0000000000000000 00000018 0000", 24)
		if want := "00000014" + "00000000" + "0000000000000000" + "00008000" + "01000000"; err != nil || got != want {
			return fmt.Errorf("GET LBA STATUS: %s, %v; want %s", got, err, want)
		}
		return nil
	})
	stopNode(t, a)
	stopNode(t, b)
	equalFiles(t, cfg)
	for _, c := range cfg {
		if got := allocated(t, c); got > 1<<20 {
			t.Errorf("the replica of %s still takes %d bytes", c.Node, got)
		}
	}
}

// allocated is how much space a replica takes, in bytes.
func allocated(t *testing.T, c *config.Config) int64 {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat(c.LUNs[0].Backing, &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks * 512
}

// TestSanitizeOutlivesRestarts: either node stops in the middle, and starts again.
func TestSanitizeOutlivesRestarts(t *testing.T) {
	cfg := slow(nodes(t), 2<<20)
	n := [2]*Daemon{startNode(t, cfg[0]), startNode(t, cfg[1])}
	fill(t, n[0], n[1])
	use(t, n[0], func(ctx context.Context, s *initiator.Session) error { return overwrite(ctx, s, immediate, 1, 0) })
	for _, i := range []int{1, 0} {
		stopNode(t, n[i])
		n[i] = startNode(t, cfg[i])
		for _, d := range n {
			use(t, d, func(ctx context.Context, s *initiator.Session) error {
				if got := unitReady(ctx, s); got != sanitizing {
					return fmt.Errorf("after a restart of node %d: %s", i, got)
				}
				return nil
			})
		}
	}
	for _, d := range n {
		awaitReady(t, d)
		use(t, d, holds(0))
	}
	stopNode(t, n[0])
	stopNode(t, n[1])
	equalFiles(t, cfg)
	for _, c := range cfg {
		if got := allocated(t, c); got < 16<<20 {
			t.Errorf("of the replica of %s only %d bytes were overwritten, the others given back", c.Node, got)
		}
	}
}

// TestSanitizeNeedsBoth: without the other node it is refused, and nothing is erased,
// also when the nodes have met.
func TestSanitizeNeedsBoth(t *testing.T) {
	cfg := nodes(t)
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	fill(t, a, b)
	stopNode(t, b)
	use(t, a, func(ctx context.Context, s *initiator.Session) error {
		if got := sense(overwrite(ctx, s, immediate, 1, 9)); got != "20401" {
			return fmt.Errorf("SANITIZE without the other node: %s", got)
		}
		return nil
	})
	b = startNode(t, cfg[1])
	for _, d := range []*Daemon{a, b} {
		awaitReady(t, d)
		use(t, d, holds([]byte("secret! ")...))
	}
	stopNode(t, b)
	stopNode(t, a)
}

// TestSanitizeTwice: of two hosts that ask at once, each at its node, exactly one is
// heard, or none.
func TestSanitizeTwice(t *testing.T) {
	cfg := nodes(t)
	n := [2]*Daemon{startNode(t, cfg[0]), startNode(t, cfg[1])}
	fill(t, n[0], n[1])
	once := 0
	for range 10 {
		var got [2]string
		var both sync.WaitGroup
		for i, d := range n {
			both.Go(func() {
				use(t, d, func(ctx context.Context, s *initiator.Session) error {
					got[i] = sense(overwrite(ctx, s, immediate, 1, byte(1+i)))
					return nil
				})
			})
		}
		both.Wait()
		for _, d := range n {
			awaitReady(t, d)
		}
		var heard []byte
		for i, g := range got {
			switch g {
			case "<nil>":
				heard = append(heard, byte(1+i))
			case sanitizing, aborted:
			default:
				t.Errorf("node %d answered %s", i, g)
			}
		}
		if len(heard) == 1 { // two: one came after the other; none: each heard too late of the other
			for _, d := range n {
				use(t, d, holds(heard[0]))
			}
			once++
		}
	}
	if once == 0 {
		t.Error("never was one of them heard, and the other one refused")
	}
	stopNode(t, n[0])
	stopNode(t, n[1])
	equalFiles(t, cfg)
}
