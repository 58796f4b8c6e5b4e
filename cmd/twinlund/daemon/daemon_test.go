package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/cmd/twinlund/status"
	"github.com/twinlun/twinlun/test/initiator"
)

const iqn = "iqn.2026-01.org.example:test"

// nodes are the configurations of a pair, in folders of the test.
func nodes(t *testing.T) [2]*config.Config {
	t.Helper()
	link := freeAddress(t)
	var all [2]*config.Config
	for i, name := range []string{"a", "b"} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		text := fmt.Sprintf(`
node: %s
data-dir: %q
status: {listen: "127.0.0.1:0"}
iscsi: {iqn: %q, listen: "127.0.0.1:0", portal-group: %d}
hosts: [{initiator: "*"}]
peer: {name: %s, token: t, listen: %q, address: %q}
luns: [{number: 3, name: disk, uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c8, size: 16MiB, preferred: a}]
`, name, t.TempDir(), iqn, i+1, []string{"b", "a"}[i], link, link)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Source{File: path}.Load()
		if err != nil {
			t.Fatal(err)
		}
		all[i] = cfg
	}
	return all
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func startNode(t *testing.T, cfg *config.Config) *Daemon {
	t.Helper()
	d, err := Start(cfg, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func stopNode(t *testing.T, d *Daemon) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// use logs in at a node, and runs f with the session.
func use(t *testing.T, d *Daemon, f func(context.Context, *initiator.Session) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := initiator.Dial(ctx, initiator.Options{Address: d.ISCSI().String(), TargetIQN: iqn, InitiatorIQN: iqn + "-host", LUN: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Command(ctx, make([]byte, 6), nil, nil) // TEST UNIT READY takes the unit attention
	if err := f(ctx, s); err != nil {
		t.Error(err)
	}
}

// TestPair writes at one node and reads at the other, and again after both were
// stopped and started.
func TestPair(t *testing.T) {
	cfg := nodes(t)
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	text := []byte(strings.Repeat("twinlun!", 512))
	use(t, a, func(ctx context.Context, s *initiator.Session) error { return s.WriteAt(ctx, text, 8192) })
	check := func(ctx context.Context, s *initiator.Session) error {
		p := make([]byte, len(text))
		if err := s.ReadAt(ctx, p, 8192); err != nil || string(p) != string(text) {
			return fmt.Errorf("read %.16q, %v", p, err)
		}
		return nil
	}
	use(t, b, check)
	checkStatus(t, a, b)
	stopNode(t, a)
	stopNode(t, b)
	a, b = startNode(t, cfg[0]), startNode(t, cfg[1])
	use(t, b, check)
	use(t, a, check)
	stopNode(t, b)
	stopNode(t, a)
}

// checkStatus asks both as the demo does.
func checkStatus(t *testing.T, a, b *Daemon) {
	t.Helper()
	var luns [2]status.LUN
	for i, d := range []*Daemon{a, b} {
		s, err := status.Get(context.Background(), d.sockets.status.Addr().String())
		if err != nil || len(s.LUNs) != 1 || !s.Link.Up || !s.LUNs[0].Serving || s.LUNs[0].Joins != 1 || s.Memory == 0 {
			t.Fatalf("status: %+v, %v", s, err)
		}
		luns[i] = s.LUNs[0]
	}
	if luns[0].NAA != luns[1].NAA || len(luns[0].NAA) != 16 || luns[0].NAA[0] != '3' || luns[0].Serial != luns[1].Serial {
		t.Errorf("two identities of one LUN: %+v, %+v", luns[0], luns[1])
	}
	if luns[0].Marks != 1 || luns[1].Fetches != 1 {
		t.Errorf("%d marks at a, %d fetches at b; want one of each", luns[0].Marks, luns[1].Fetches)
	}
}

// TestRefusals: what must not be served stops the start, with a word about what to
// do, and leaves nothing open: the next start finds all as it was.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, want string
		spoil      func(t *testing.T, cfg *config.Config)
	}{
		{"the replica is gone", "bring the replica back", func(t *testing.T, cfg *config.Config) {
			rename(t, cfg.LUNs[0].Backing, cfg.LUNs[0].Backing+".away")
		}},
		{"a smaller size", "does not shrink", func(_ *testing.T, cfg *config.Config) { cfg.LUNs[0].Size = 8 << 20 }},
		{"the replica is too short", "wrong size", func(t *testing.T, cfg *config.Config) {
			if err := os.Truncate(cfg.LUNs[0].Backing, 4096); err != nil {
				t.Fatal(err)
			}
		}},
		{"other blocks for hosts", "a LUN that shows hosts blocks of 512 bytes, wanted are 4096", func(_ *testing.T, cfg *config.Config) {
			cfg.LUNs[0].BlockSize = 4096
		}},
		{"another LUN", "map file belongs to something else", func(_ *testing.T, cfg *config.Config) { cfg.LUNs[0].UUID[0]++ }},
		{"a damaged map", "move this file away", func(t *testing.T, cfg *config.Config) {
			if err := os.WriteFile(cfg.LUNs[0].Map, make([]byte, 100_000), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"the port is taken", "the port is taken by another program", func(t *testing.T, cfg *config.Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			cfg.Targets[0].Listen = []string{l.Addr().String()}
		}},
		{"no such address", "this machine has no such address", func(_ *testing.T, cfg *config.Config) {
			cfg.Targets[0].Listen = []string{"192.0.2.1:3260"}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := nodes(t)[0]
			stopNode(t, startNode(t, cfg))
			c.spoil(t, cfg)
			for range 2 { // the first one must not hold a lock
				d, err := Start(cfg, "test", slog.New(slog.DiscardHandler))
				if err == nil {
					stopNode(t, d)
				}
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want …%s…", err, c.want)
				}
			}
		})
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestEmptyFile: a file of nothing but holes, which an interrupted first start left,
// is known to be blank, and one with data is not.
func TestEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	if !empty(path) {
		t.Error("a file of holes is not taken for empty")
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{1}, 500_000)
		f.Sync()
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if empty(path) {
		t.Error("a file with a byte in it is taken for empty")
	}
}

// TestBlockSizes: hosts see the blocks that are configured, the same at both nodes; with
// different ones the LUN is not joined, and each node says why.
func TestBlockSizes(t *testing.T) {
	cfg := nodes(t)
	for _, c := range cfg {
		c.LUNs[0].BlockSize = 4096
	}
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	for _, d := range []*Daemon{a, b} {
		use(t, d, func(ctx context.Context, s *initiator.Session) error {
			if c, err := s.Capacity(ctx); err != nil || c.BlockSize != 4096 || c.Size() != 16<<20 {
				return fmt.Errorf("capacity %+v, %v", c, err)
			}
			return s.WriteAt(ctx, make([]byte, 4096), 16<<20-4096)
		})
	}
	stopNode(t, b)
	for _, path := range []string{cfg[1].LUNs[0].Backing, cfg[1].LUNs[0].Map} {
		rename(t, path, path+".away")
	}
	cfg[1].LUNs[0].BlockSize = 512
	b = startNode(t, cfg[1])
	for _, d := range []*Daemon{a, b} {
		const want = "hosts are shown blocks of" // its own words, or the peer's
		for end := time.Now().Add(time.Minute); !strings.Contains(d.Status().LUNs[0].LastAlarm, want); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no alarm …%s…, but %q", want, d.Status().LUNs[0].LastAlarm)
			}
		}
		if d.Status().LUNs[0].Serving {
			t.Error("serves")
		}
	}
	stopNode(t, a)
	stopNode(t, b)
}
