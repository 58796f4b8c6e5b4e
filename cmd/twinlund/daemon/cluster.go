package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/member"
	"github.com/twinlun/twinlun/cluster/reserving"
	"github.com/twinlun/twinlun/cluster/roles"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/cmd/twinlund/view"
	"github.com/twinlun/twinlun/webui/api"
)

// cluster is a node's part in a cluster: its membership, once it has one; what decides how
// its LUNs are served; and the task that makes the daemon what the catalog says.
type cluster struct {
	d    *Daemon
	base *config.Config // what the node has to itself
	log  *slog.Logger
	wake chan struct{} // of follow
	last string        // follow's: what it could not do, as it was told last
	access

	sure atomic.Bool // the catalog is not older than the start of this node; or nobody can tell

	taking sync.Mutex // held while the node gets its membership

	mu     sync.Mutex
	member *member.Member // nil: the node is in no cluster
	roles  *roles.Keeper  // nil: neither; or it is a witness
	hub    *reserving.Hub // likewise
	latest *catalog.State // nil: nothing is known of the catalog
}

// followAgain is the pause before what could not be done is tried again: an operator has
// made room, say.
const followAgain = 5 * time.Second

func newCluster(d *Daemon) *cluster {
	return &cluster{d: d, base: d.cfg, log: d.log, wake: make(chan struct{}, 1), access: newAccess()}
}

// open takes up the membership that the folder has, if any.
func (c *cluster) open() error {
	err := c.take(func(cfg member.Config) (*member.Member, error) { return member.Open(cfg) })
	if errors.Is(err, member.ErrNone) {
		c.log.Info("this node is in no cluster yet: twinlun init makes one, twinlun join joins one", "socket", c.base.Cluster.Socket)
		return nil
	}
	return err
}

// ErrMember: the node has a membership, and cannot get another one.
var ErrMember error = &api.Problem{Status: http.StatusConflict, Title: http.StatusText(http.StatusConflict), Code: api.CodeMember, Detail: "this node belongs to a cluster already"}

// Found makes a new cluster with this node as its first one.
func (c *cluster) Found(o member.FoundOptions) error {
	return c.take(func(cfg member.Config) (*member.Member, error) { return member.Found(cfg, o) })
}

// Join has a cluster take this node in.
func (c *cluster) Join(ctx context.Context, token string, n identity.Newcomer) error {
	return c.take(func(cfg member.Config) (*member.Member, error) { return member.Join(ctx, cfg, token, n) })
}

// take gets a membership in some way, and listens to the other nodes from then on.
func (c *cluster) take(get func(member.Config) (*member.Member, error)) error {
	c.taking.Lock()
	defer c.taking.Unlock()
	if c.Member() != nil {
		return ErrMember
	}
	listen, err := listenOn(c.base.Cluster.Listen, "the other nodes", "cluster.listen")
	if err != nil {
		return err
	}
	m, err := get(member.Config{Dir: c.base.DataDir, Listen: []net.Listener{listen}, Applied: c.applied, Routes: c.base.Cluster.Routes, Log: c.log})
	if err != nil {
		return err
	}
	if err := c.begin(m); err != nil {
		return errors.Join(err, m.Close())
	}
	return nil
}

// begin serves as the catalog says, from now on.
func (c *cluster) begin(m *member.Member) error {
	var keeper *roles.Keeper
	if !m.Witness() {
		var err error
		keeper, err = roles.New(roles.Config{
			Self: m.Self(), Path: filepath.Join(c.base.DataDir, "serving.json"),
			Propose: func(ctx context.Context, body catalog.Body) error {
				_, err := m.Do(ctx, "node "+string(m.Self()), body)
				return err
			},
			Changed: c.roleChanged, Log: c.log,
		})
		if err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.member, c.roles = m, keeper
	if keeper != nil {
		c.d.tasks.Go(func() { c.learn(c.d.ctx, m) })
		c.hub = reserving.New(m.Self(), m, c.log)
	}
	if keeper != nil && c.latest != nil {
		c.tell(c.latest, catalog.Result{})
	}
	c.Wake()
	return nil
}

// applied is called for each command of the cluster, in order.
func (c *cluster) applied(s *catalog.State, r catalog.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latest = s
	if c.roles != nil {
		c.tell(s, r)
	}
	c.Wake()
}

// tell tells of a new state. Reservations come first: this node may serve with the roles
// that follow.
func (c *cluster) tell(s *catalog.State, r catalog.Result) {
	c.hub.Apply(s, r)
	c.roles.Apply(s, r)
}

// reservations are those of a LUN.
func (c *cluster) reservations(lun catalog.UUID) *reserving.Reservations {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hub.LUN(lun)
}

// Member is the node's membership; nil: it is in no cluster.
func (c *cluster) Member() *member.Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.member
}

func (c *cluster) keeper() *roles.Keeper {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roles
}

// Wake has follow look at the catalog. It does not block.
func (c *cluster) Wake() {
	select {
	case c.wake <- struct{}{}:
	default: // it has been woken, and not looked yet
	}
}

// follow is the task that makes the daemon what the catalog says, as well as it can: one
// LUN's trouble does not keep others from being served.
func (c *cluster) follow(ctx context.Context) {
	again := time.NewTimer(followAgain)
	defer again.Stop()
	for {
		select {
		case <-c.wake:
		case <-again.C:
		case <-ctx.Done():
			return
		}
		if m := c.Member(); m != nil && !m.Witness() {
			next, errs := view.Of(c.base, m.Self(), m.State(), m.Unseal)
			if !c.sure.Load() {
				next.Targets = nil // a host that is refused by mistake may never come again
			}
			errs = append(errs, c.d.become(ctx, next)...)
			c.tellAccess(next)
			c.report(ctx, errors.Join(errs...))
		}
		again.Reset(followAgain)
	}
}

// sureTime is how long hosts are not let in after a start if no majority tells whether what
// this node knows of them is all.
const sureTime = 10 * time.Second

// learn is the task that finds out whether the catalog is what the cluster has: what was
// agreed upon last is not known to a node that was just started.
func (c *cluster) learn(ctx context.Context, m *member.Member) {
	ctx, cancel := context.WithTimeout(ctx, sureTime)
	defer cancel()
	if err := m.Sync(ctx); err != nil && !errors.Is(err, context.Canceled) {
		c.log.Warn("hosts are let in as this node knows them: no majority of the nodes tells whether that is all", "err", err)
	}
	c.sure.Store(true)
	c.Wake()
}

// report tells what could not be done, once.
func (c *cluster) report(ctx context.Context, err error) {
	text := fmt.Sprint(err)
	if ctx.Err() == nil && text != c.last {
		if err != nil {
			c.log.Error("not everything is as the catalog says; what is not is tried again", "err", err, "every", followAgain)
		} else if c.last != "" {
			c.log.Info("everything is as the catalog says again")
		}
		c.last = text
	}
}

// close ends the membership, after everything that needs it.
func (c *cluster) close() error {
	c.taking.Lock()
	defer c.taking.Unlock()
	if k := c.keeper(); k != nil {
		k.Close()
		c.hub.Close()
	}
	if m := c.Member(); m != nil {
		return m.Close()
	}
	return nil
}
