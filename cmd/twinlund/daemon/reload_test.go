package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/test/initiator"
)

const mib = 1 << 20

// with is a copy of a configuration, changed.
func with(cfg *config.Config, change func(*config.Config)) *config.Config {
	next := *cfg
	next.LUNs, next.Targets = slices.Clone(cfg.LUNs), slices.Clone(cfg.Targets)
	change(&next)
	return &next
}

func sized(size int64) func(*config.Config) {
	return func(c *config.Config) { c.LUNs[0].Size = size }
}

// awaitSize asks for the LUN's size until it is as wanted.
func awaitSize(t *testing.T, d *Daemon, want int64) {
	t.Helper()
	use(t, d, func(ctx context.Context, s *initiator.Session) error {
		for {
			got, err := s.Capacity(ctx)
			if err == nil && got.Size() == want {
				return nil
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("the LUN has %+v, wanted is %d: %w", got, want, errors.Join(err, ctx.Err()))
			}
		}
	})
}

// load writes and reads back until stop is closed.
func load(d *Daemon, stop chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := initiator.Dial(ctx, initiator.Options{Address: d.ISCSI().String(), TargetIQN: iqn, InitiatorIQN: iqn + "-load", LUN: 3})
	if err != nil {
		return err
	}
	defer s.Close()
	retry := func(f func() error) (err error) { // a unit attention comes between
		for range 4 {
			if err = f(); err == nil {
				break
			}
		}
		return err
	}
	for i := 0; ; i++ {
		p, got := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 8192), make([]byte, 16384)
		off := int64(i%100) * 16384
		if err := retry(func() error { return s.WriteAt(ctx, p, off) }); err != nil {
			return fmt.Errorf("write %d: %w", i, err)
		}
		if err := retry(func() error { return s.ReadAt(ctx, got, off) }); err != nil || !bytes.Equal(got, p) {
			return fmt.Errorf("read %d: %w, or other data", i, err)
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

// TestGrow: a LUN under load at one site grows when both sites have room for it, not
// before; nothing that was written is lost, and what is new works at both sites, also
// after they were started again.
func TestGrow(t *testing.T) {
	cfg := nodes(t)
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	text := []byte(strings.Repeat("as it was before", 256))
	use(t, b, func(ctx context.Context, s *initiator.Session) error { return s.WriteAt(ctx, text, 8*mib) })
	stop := make(chan struct{})
	var loaded sync.WaitGroup
	var failed error
	loaded.Go(func() { failed = load(a, stop) })

	larger := [2]*config.Config{with(cfg[0], sized(40*mib)), with(cfg[1], sized(40*mib))}
	for i, d := range []*Daemon{a, b} {
		if err := d.Reload(t.Context(), larger[i]); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			awaitSize(t, b, 16*mib)
		}
	}
	awaitSize(t, a, 40*mib)
	awaitSize(t, b, 40*mib)
	close(stop)
	loaded.Wait()
	if failed != nil {
		t.Error(failed)
	}
	use(t, a, func(ctx context.Context, s *initiator.Session) error { return s.WriteAt(ctx, text, 40*mib-4096) })
	check := func(ctx context.Context, s *initiator.Session) error {
		for off, want := range map[int64][]byte{8 * mib: text, 40*mib - 4096: text, 16 * mib: make([]byte, 4096), 39 * mib: make([]byte, 4096)} {
			p := make([]byte, len(want))
			if err := s.ReadAt(ctx, p, off); err != nil || !bytes.Equal(p, want) {
				return fmt.Errorf("at offset %d: %.16q, %v", off, p, err)
			}
		}
		return nil
	}
	use(t, b, check)
	stopNode(t, a)
	stopNode(t, b)
	a, b = startNode(t, larger[0]), startNode(t, larger[1])
	use(t, a, check)
	use(t, b, check)
	stopNode(t, a)
	stopNode(t, b)
}

// TestGrowsAtTheNextStart: the larger size may be configured while the nodes are down.
func TestGrowsAtTheNextStart(t *testing.T) {
	cfg := nodes(t)
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	awaitSize(t, b, 16*mib)
	stopNode(t, a)
	stopNode(t, b)
	a, b = startNode(t, with(cfg[0], sized(17*mib))), startNode(t, with(cfg[1], sized(17*mib)))
	awaitSize(t, a, 17*mib)
	awaitSize(t, b, 17*mib)
	stopNode(t, a)
	stopNode(t, b)
}

// TestReloadLUNs: LUNs come and go at both nodes, and those that stay notice nothing but
// a moment's wait.
func TestReloadLUNs(t *testing.T) {
	cfg := nodes(t)
	both := [2]*config.Config{}
	for i := range cfg {
		both[i] = with(cfg[i], func(c *config.Config) {
			l := c.LUNs[0]
			l.Number, l.Name, l.UUID[0] = 5, "other", 0xee
			l.Backing, l.Map = l.Backing+".other", l.Map+".other"
			c.LUNs = append(c.LUNs, l)
		})
	}
	nodes := [2]*Daemon{startNode(t, cfg[0]), startNode(t, cfg[1])}
	stop := make(chan struct{})
	var loaded sync.WaitGroup
	var failed error
	loaded.Go(func() { failed = load(nodes[0], stop) })
	other := func(d *Daemon, f func(context.Context, *initiator.Session) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s, err := initiator.Dial(ctx, initiator.Options{Address: d.ISCSI().String(), TargetIQN: iqn, InitiatorIQN: iqn + "-host", LUN: 5})
		if err == nil {
			s.TestUnitReady(ctx)
			err = errors.Join(f(ctx, s), s.Close())
		}
		if err != nil {
			t.Error(err)
		}
	}
	text := []byte(strings.Repeat("the other LUN...", 256))
	for round := range 2 {
		for i, d := range nodes {
			if err := d.Reload(t.Context(), both[i]); err != nil {
				t.Fatal(err)
			}
		}
		if round == 0 {
			other(nodes[0], func(ctx context.Context, s *initiator.Session) error { return s.WriteAt(ctx, text, 4096) })
		}
		other(nodes[1], func(ctx context.Context, s *initiator.Session) error {
			p := make([]byte, len(text))
			if err := s.ReadAt(ctx, p, 4096); err != nil || !bytes.Equal(p, text) {
				return fmt.Errorf("%.16q, %v", p, err)
			}
			return nil
		})
		for i, d := range nodes {
			if err := d.Reload(t.Context(), cfg[i]); err != nil {
				t.Fatal(err)
			}
		}
		other(nodes[0], func(ctx context.Context, s *initiator.Session) error {
			if err := s.ReadAt(ctx, make([]byte, 512), 0); err == nil {
				return errors.New("the LUN was taken away, and can be read")
			}
			return nil
		})
	}
	close(stop)
	loaded.Wait()
	if failed != nil {
		t.Error(failed)
	}
	stopNode(t, nodes[0])
	stopNode(t, nodes[1])
}

// TestReloadRefuses: what cannot change is refused by its name, and nothing changes.
func TestReloadRefuses(t *testing.T) {
	cfg := nodes(t)[0]
	d := startNode(t, cfg)
	defer stopNode(t, d)
	for _, c := range []struct {
		want   string
		change func(*config.Config)
	}{
		{"node, peer: cannot change", func(c *config.Config) { c.Node, c.Peer.Name = "c", "d" }},
		{"iscsi.portal-group, or the groups of portals: cannot change", func(c *config.Config) { c.PortalGroup = 9 }},
		{"does not shrink", sized(8 * mib)},
		{"only its size and its space-threshold can change", func(c *config.Config) { c.LUNs[0].Backing += "2" }},
	} {
		err := d.Reload(t.Context(), with(cfg, func(n *config.Config) {
			c.change(n)
			n.Targets[0].Hosts = nil
		}))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want …%s…", err, c.want)
		}
	}
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: d.ISCSI().String(), TargetIQN: iqn, InitiatorIQN: iqn + "-host"})
	if err != nil {
		t.Fatal("a refused configuration counts: ", err)
	}
	s.Close()
}

// TestReloadViews: what a host sees is changed and taken back while it is logged in.
func TestReloadViews(t *testing.T) {
	cfg := nodes(t)[0]
	d := startNode(t, cfg)
	defer stopNode(t, d)
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: d.ISCSI().String(), TargetIQN: iqn, InitiatorIQN: iqn + "-host"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	view := func(luns map[uint16]uint16) func(*config.Config) {
		return func(c *config.Config) { c.Targets[0].Views = []config.View{{Initiator: iqn + "-host", LUNs: luns}} }
	}
	for _, c := range []struct {
		change func(*config.Config)
		want   [][8]byte
	}{
		{func(*config.Config) {}, [][8]byte{{1: 3}}},
		{view(map[uint16]uint16{0: 3}), [][8]byte{{1: 0}}},
		{view(map[uint16]uint16{}), nil},
		{view(nil), [][8]byte{{1: 3}}},
		{view(map[uint16]uint16{9: 3}), [][8]byte{{1: 9}}},
		{func(*config.Config) {}, [][8]byte{{1: 3}}},
	} {
		if err := d.Reload(t.Context(), with(cfg, c.change)); err != nil {
			t.Fatal(err)
		}
		if luns, err := s.ReportLUNs(t.Context()); err != nil || !slices.Equal(luns, c.want) {
			t.Errorf("LUNs %v, %v; want %v", luns, err, c.want)
		}
	}
}

// TestGrowsInSteps: a site that has more room than its peer tells so again when it has
// grown to what both had.
func TestGrowsInSteps(t *testing.T) {
	cfg := nodes(t)
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	for _, step := range []struct {
		d          *Daemon
		cfg        *config.Config
		size, want int64
	}{{a, cfg[0], 40 * mib, 16 * mib}, {b, cfg[1], 24 * mib, 24 * mib}, {b, cfg[1], 40 * mib, 40 * mib}} {
		if err := step.d.Reload(t.Context(), with(step.cfg, sized(step.size))); err != nil {
			t.Fatal(err)
		}
		awaitSize(t, a, step.want)
		awaitSize(t, b, step.want)
	}
	stopNode(t, a)
	stopNode(t, b)
}
