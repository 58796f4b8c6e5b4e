package daemon

import (
	"encoding/hex"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/cmd/twinlund/status"
	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/wire"
)

// Status is the node as it is now.
func (d *Daemon) Status() status.Status {
	cfg := d.config()
	s := status.Status{
		Node: cfg.Node, Version: d.version, PID: os.Getpid(), DataDir: cfg.DataDir,
		Memory: resident(),
	}
	d.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(d.peers)) {
		s.Links = append(s.Links, linkStatus(name, d.peers[name].link.Stats()))
	}
	d.mu.Unlock()
	if len(s.Links) > 0 {
		s.Link = s.Links[0]
	}
	for _, l := range d.all() {
		s.LUNs = append(s.LUNs, l.status())
	}
	return s
}

func linkStatus(peer string, s replication.LinkStats) status.Link {
	return status.Link{
		Peer: peer, Up: s.Up, RTT: s.RTT, Queued: s.Queued, Connections: s.Connections,
		LastError: s.LastError, Sent: counts(s.Sent), Received: counts(s.Received),
	}
}

func counts(of [wire.Kinds]replication.LinkCount) map[string]status.Count {
	m := map[string]status.Count{}
	for kind, c := range of {
		if c.Frames > 0 {
			m[wire.Kind(kind).String()] = status.Count{Frames: c.Frames, Bytes: c.Bytes}
		}
	}
	return m
}

func (l *lun) status() status.LUN {
	cfg := l.config()
	r, id := l.replica().Status(), naaOf(&cfg)
	s := status.LUN{
		Number: cfg.Number, Name: cfg.Name, NAA: hex.EncodeToString(id[:8]), Serial: config.FormatUUID(cfg.UUID),
		Size: l.vol.Size(), Backing: cfg.Backing, Map: cfg.Map,
		Serving: r.Serving, Why: r.Why, Dirty: r.Dirty, InFlight: r.InFlight, Waiting: r.Waiting,
		Marks: r.Marks, MarkExtents: r.MarkExtents, Fetches: r.Fetches, FetchExtents: r.FetchExtents,
		Copies: r.Copies, CopiedBytes: r.CopiedBlocks * dirtymap.BlockSize, Clears: r.Clears, Joins: r.Joins,
		Owned: l.replica().Owned(countOwned), Alone: r.Alone, Taken: r.Taken, Held: r.HeldCommands,
		Space:  l.space.status(),
		Alarms: r.Alarms, LastAlarm: r.LastAlarm,
	}
	if v, any := l.replica().VerifyStatus(); any {
		s.Verifying, s.Differing = v.Running(), v.Differing-v.Repaired
	}
	if l.cluster != nil {
		role, holds := l.cluster.keeper().Role(cfg.UUID)
		s.Role, s.Term, s.Lease = [...]string{"none", "together", "alone"}[role.Serve], role.Term, holds
		s.Serving = s.Serving && holds
	}
	return s
}

// countOwned is up to how many extents are counted for a status.
const countOwned = 4096

// resident is the process's memory, in bytes; 0: not known.
func resident() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
