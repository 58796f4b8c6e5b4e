package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlund/status"
	"github.com/twinlun/twinlun/replication/emulator"
	"github.com/twinlun/twinlun/test/initiator"
)

// wiped is a LUN that takes some twenty seconds to overwrite: for what happens meanwhile.
const wiped = "[{number: 0, name: disk, uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c8, size: 64MiB, preferred: a, sanitize-rate: 3MiB}]"

// TestSanitizeThroughFaults: daemons are killed and the link is cut while the LUN is
// overwritten. No site serves a host before it is done, and then both replicas are
// equal, with nothing left of what was there.
func TestSanitizeThroughFaults(t *testing.T) {
	t.Parallel()
	var line *emulator.Line
	p := startPairAs(t, wiped, everybody, func(p *pair) {
		var err error
		line, err = emulator.Start(emulator.Config{Listen: "127.0.0.1:0", Target: p.link, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { line.Close() })
		p.dials = line.Addr()
	})
	secret := bytes.Repeat([]byte("secret! "), 1<<17)
	for off := int64(0); off < 64<<20; off += int64(len(secret)) {
		p.use(int(off>>20)%2, func(ctx context.Context, s *initiator.Session) error { return s.WriteAt(ctx, secret, off) })
	}
	p.use(0, func(ctx context.Context, s *initiator.Session) error {
		_, err := s.Command(ctx, []byte{0x48, 0x81, 0, 0, 0, 0, 0, 0, 7, 0}, []byte{1, 0, 0, 3, 1, 2, 3}, nil)
		return err
	})
	p.wantSanitizing("at the start")
	for _, site := range []int{1, 0} {
		p.kill(site)
		p.start(site)
		p.wantSanitizing(fmt.Sprintf("after site %d was killed", site))
	}
	line.Set(emulator.State{Cut: emulator.CutBoth})
	for p.serves(0) || p.serves(1) {
		time.Sleep(50 * time.Millisecond)
	}
	p.wantSanitizing("while the link is cut")
	p.kill(0)
	p.start(0)
	p.wantSanitizing("without a link, after a restart")
	line.Set(emulator.State{})
	p.waitServing()
	p.wantSanitizing("with the link")

	want := bytes.Repeat([]byte{1, 2, 3}, 171)[:512]
	for site := range 2 {
		for end := time.Now().Add(patience); p.unit(site) != "<nil>"; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("site %d says %s, and does not end", site, p.unit(site))
			}
		}
		p.use(site, func(ctx context.Context, s *initiator.Session) error {
			got := make([]byte, 1<<20)
			for off := int64(0); off < 64<<20; off += int64(len(got)) {
				if err := s.ReadAt(ctx, got, off); err != nil {
					return err
				}
				for block := range slices.Chunk(got, 512) {
					if !bytes.Equal(block, want) {
						return fmt.Errorf("site %d has % x at %d", site, block[:8], off)
					}
				}
			}
			return nil
		})
	}
	err := p.waitFor("has nothing to copy", func(s *status.Status) bool { return s.LUNs[0].Serving && s.LUNs[0].Dirty == 0 })
	if err != nil {
		t.Fatal(err)
	}
	same(t, filepath.Join(p.dirs[0], "disk.img"), filepath.Join(p.dirs[1], "disk.img"))
}

// use logs in at a site, as soon as that can be, and runs f with the session.
func (p *pair) use(site int, f func(context.Context, *initiator.Session) error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := initiator.Dial(ctx, initiator.Options{Address: p.portals[site], TargetIQN: pairIQN})
	for err != nil && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
		s, err = initiator.Dial(ctx, initiator.Options{Address: p.portals[site], TargetIQN: pairIQN})
	}
	if err == nil {
		defer s.Close()
		s.TestUnitReady(ctx) // takes the unit attention
		err = f(ctx, s)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// unit is how TEST UNIT READY ends at a site: key, code and qualifier.
func (p *pair) unit(site int) (outcome string) {
	p.t.Helper()
	p.use(site, func(ctx context.Context, s *initiator.Session) error {
		for {
			err := s.TestUnitReady(ctx)
			var c *initiator.CheckCondition
			if !errors.As(err, &c) {
				outcome = fmt.Sprint(err)
				return nil
			}
			if c.Key != initiator.SenseUnitAttention {
				outcome = fmt.Sprintf("%x%02x%02x", c.Key, c.ASC, c.ASCQ)
				return nil
			}
		}
	})
	return outcome
}

// wantSanitizing wants both sites to refuse hosts.
func (p *pair) wantSanitizing(when string) {
	p.t.Helper()
	for site := range 2 {
		if got := p.unit(site); got != "2041b" {
			p.t.Fatalf("%s site %d says %s\n%s", when, site, got, p.log(site))
		}
	}
}

// kill ends a daemon at once.
func (p *pair) kill(site int) {
	p.t.Helper()
	if err := p.cmds[site].Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	p.cmds[site].Wait() // it was killed, and says so
}

// serves tells whether a site's replicas serve.
func (p *pair) serves(site int) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := status.Get(ctx, p.pages[site])
	return err == nil && len(s.LUNs) > 0 && s.LUNs[0].Serving
}
