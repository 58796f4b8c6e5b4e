package iscsi

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twinlun/twinlun/target/sam"
)

// Config says what a Server serves. Nothing of it may be changed once it is
// given to New.
type Config struct {
	// Targets are the targets, with different names. Server.SetTargets replaces them.
	Targets []Target
	// Discovery is how initiators prove themselves that ask for the targets, and log
	// in to none. They are told of those that their name may log in to.
	Discovery Auth
	// PortalGroup is the tag of the portal group that the server's own listeners
	// belong to.
	PortalGroup uint16
	// Log takes what happens to sessions; nil: slog.Default().
	Log    *slog.Logger
	Limits Limits // zero fields get their defaults
}

// Target is an iSCSI target node.
type Target struct {
	Name  string // iSCSI name: iqn.…, eui.… or naa.…
	Alias string // for people; may be empty
	// Portals are all that SendTargets reports: this server's and those at which
	// the same target is served elsewhere.
	Portals []Portal
	// Listeners are those through which initiators log in to the target, among the ones
	// that are served; none: all of them. Discovery goes through all in any case.
	Listeners []net.Listener
	// PortalGroup is the tag of the portal group that these belong to; 0: the server's.
	PortalGroup uint16
	Device      sam.Target // a pointer, or else comparable
	// Access is who may log in; an empty list: nobody.
	Access []Access
}

// groupOf is the portal group through which initiators reach a target.
func (c *Config) groupOf(t *Target) uint16 {
	if t.PortalGroup != 0 {
		return t.PortalGroup
	}
	return c.PortalGroup
}

// clone copies what the caller might change.
func (t Target) clone() *Target {
	t.Portals, t.Access, t.Listeners = slices.Clone(t.Portals), slices.Clone(t.Access), slices.Clone(t.Listeners)
	return &t
}

// through tells whether initiators log in to the target through a listener.
func (t *Target) through(l net.Listener) bool {
	return len(t.Listeners) == 0 || slices.Contains(t.Listeners, l)
}

// Portal is an address at which a target is served.
type Portal struct {
	// Address is host:port, an IPv6 host in brackets. With 0.0.0.0 or [::] as the
	// host, which listen on every address, an initiator is told the one that it has
	// reached, if that is of the kind. Loopback addresses are told to those only that have
	// reached one.
	Address string
	Group   uint16 // portal group tag
}

// Limits bound what initiators can take. A server's data buffers never exceed
// MaxSessions * (SessionMemory + (CommandWindow + 16) * FirstBurstLength) bytes.
type Limits struct {
	MaxSessions   int           // sessions; 32
	MaxLogins     int           // connections that are not logged in yet; 32
	LoginTimeout  time.Duration // for a whole login; 10 s
	CommandWindow int           // commands of a session in flight; 128
	SessionMemory int64         // bytes, of a session's transfers larger than FirstBurstLength; 32 MiB

	// MaxLoginsPerHost is how many of MaxLogins one host may have, that is one IPv4
	// address or one IPv6 network of 64 bits; half of them.
	MaxLoginsPerHost int

	// MaxRecvDataSegmentLength is ours, declared to initiators; 256 KiB. The
	// bursts are upper limits of what is negotiated; 64 KiB and 1 MiB.
	MaxRecvDataSegmentLength uint32
	FirstBurstLength         uint32
	MaxBurstLength           uint32

	// PingInterval is how long a connection may be idle before it gets a NOP-In,
	// PingTimeout how long the answer may take before the connection is given up;
	// 10 s each.
	PingInterval, PingTimeout time.Duration
	// DiscoveryTime is how long a discovery session may last; 30 s. Until it ends it
	// counts as a connection that is not logged in.
	DiscoveryTime time.Duration
	// WriteTimeout is how long an initiator may take to receive what is written at
	// once, 1 MiB or a little more; 30 s.
	WriteTimeout time.Duration
	// ShutdownGrace is how long Shutdown waits for initiators to log out; 2 s.
	ShutdownGrace time.Duration
}

// immediateLimit is how many immediate requests of a session may be in flight:
// they come beside the command window.
const immediateLimit = 16

// maxR2T is the most R2Ts that a command may have outstanding.
const maxR2T = 8

func (l *Limits) setDefaults() {
	orInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	orTime := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	orLength := func(v *uint32, d uint32) {
		if *v == 0 {
			*v = d
		}
	}
	orInt(&l.MaxSessions, 32)
	orInt(&l.MaxLogins, 32)
	orInt(&l.MaxLoginsPerHost, max(1, l.MaxLogins/2))
	orTime(&l.LoginTimeout, 10*time.Second)
	orInt(&l.CommandWindow, 128)
	orLength(&l.MaxRecvDataSegmentLength, 256<<10)
	orLength(&l.FirstBurstLength, 64<<10)
	orLength(&l.MaxBurstLength, 1<<20)
	orTime(&l.PingInterval, 10*time.Second)
	orTime(&l.PingTimeout, 10*time.Second)
	orTime(&l.DiscoveryTime, 30*time.Second)
	orTime(&l.WriteTimeout, 30*time.Second)
	orTime(&l.ShutdownGrace, 2*time.Second)
	if l.SessionMemory == 0 {
		l.SessionMemory = 32 << 20
	}
}

// check refuses limits that the protocol, or the bounds drawn from them, cannot
// keep. The lower limits of the lengths are the defaults of RFC 7143 section 13.
func (l *Limits) check() error {
	in := func(what string, v, low, high int64) error {
		if v < low || v > high {
			return fmt.Errorf("limit %s is %d; it must be from %d to %d", what, v, low, high)
		}
		return nil
	}
	for what, d := range map[string]time.Duration{
		"LoginTimeout": l.LoginTimeout, "PingInterval": l.PingInterval, "PingTimeout": l.PingTimeout,
		"DiscoveryTime": l.DiscoveryTime, "WriteTimeout": l.WriteTimeout, "ShutdownGrace": l.ShutdownGrace,
	} {
		if d < 0 {
			return fmt.Errorf("limit %s is %v; it must be positive", what, d)
		}
	}
	return errors.Join(
		in("MaxSessions", int64(l.MaxSessions), 1, 60000), // with the next one as many TSIHs
		in("MaxLogins", int64(l.MaxLogins), 1, 5000),
		in("MaxLoginsPerHost", int64(l.MaxLoginsPerHost), 1, int64(l.MaxLogins)),
		in("CommandWindow", int64(l.CommandWindow), 1, 4096),
		in("MaxRecvDataSegmentLength", int64(l.MaxRecvDataSegmentLength), 8192, max24),
		in("FirstBurstLength", int64(l.FirstBurstLength), 65536, int64(l.MaxBurstLength)),
		in("MaxBurstLength", int64(l.MaxBurstLength), 262144, max24),
		in("SessionMemory", l.SessionMemory, maxTransfer, 1<<40),
	)
}

func (t *Target) check() error {
	switch {
	case !isName(t.Name):
		return fmt.Errorf("target name %q is no iSCSI name; use one like iqn.2024-01.com.example:disk1, in lower case", t.Name)
	case t.Device == nil:
		return fmt.Errorf("target %s has no device", t.Name)
	case len(t.Alias) > maxValue || strings.ContainsRune(t.Alias, 0):
		return fmt.Errorf("alias of target %s is longer than %d bytes, or has a zero byte", t.Name, maxValue)
	}
	for _, p := range t.Portals {
		if err := p.check(); err != nil {
			return fmt.Errorf("target %s: %w", t.Name, err)
		}
	}
	if err := CheckAccess(t.Access); err != nil {
		return fmt.Errorf("target %s: %w", t.Name, err)
	}
	return nil
}

// isName tells whether s can be an iSCSI name (RFC 7143 section 4.2.7).
func isName(s string) bool {
	if len(s) < 5 || len(s) > 223 {
		return false
	}
	switch s[:4] {
	case "iqn.", "eui.", "naa.":
	default:
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == ',' || r == '/' || r == 0x7f
	})
}
