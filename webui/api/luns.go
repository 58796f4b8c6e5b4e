package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"path/filepath"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// NewLUN describes a LUN that is to be made.
type NewLUN struct {
	Name      string             `json:"name"`
	ID        *catalog.UUID      `json:"id,omitempty" doc:"left out: a random one"`
	NAA       *catalog.NAA       `json:"naa,omitempty" doc:"left out: made from the id"`
	Size      int64              `json:"size" doc:"bytes" minimum:"1"`
	BlockSize int                `json:"block_size,omitempty" doc:"of the blocks that hosts see, bytes" default:"512"`
	Extent    int64              `json:"extent_size,omitempty" doc:"bytes" default:"65536"`
	Replicas  []NewReplica       `json:"replicas" doc:"two at different sites, or one" minItems:"1" maxItems:"2"`
	Preferred catalog.NodeID     `json:"preferred,omitempty" doc:"the node that goes on first when the two lose each other; left out: the first one"`
	Loss      catalog.LossPolicy `json:"loss,omitempty" doc:"what becomes of data that only a lost site has: hold, or serve-stale" default:"hold"`
	ReadOnly  bool               `json:"read_only,omitempty"`
	Removable bool               `json:"removable,omitempty"`
}

// NewReplica says where a node keeps a LUN's bytes.
type NewReplica struct {
	Node catalog.NodeID      `json:"node"`
	Kind catalog.BackingKind `json:"kind,omitempty" doc:"file, or block for a device" default:"file"`
	Path string              `json:"path,omitempty" doc:"absolute; left out: a file in the default folder"`
}

// DefaultFolder is where replicas are that have no path of their own.
const DefaultFolder = "/var/lib/twinlund/luns"

func (r NewReplica) of(lun string) catalog.Replica {
	if r.Path == "" {
		r.Path = filepath.Join(DefaultFolder, lun+".img")
	}
	if r.Kind == "" {
		r.Kind = catalog.File
	}
	return catalog.Replica{Node: r.Node, Kind: r.Kind, Path: r.Path}
}

// LUNChange is what is to change of a LUN.
type LUNChange struct {
	Revision  *uint64             `json:"revision,omitempty" doc:"that the LUN must have"`
	Name      *string             `json:"name,omitempty"`
	Size      *int64              `json:"size,omitempty" doc:"bytes; a LUN can grow"`
	Preferred *catalog.NodeID     `json:"preferred,omitempty"`
	Loss      *catalog.LossPolicy `json:"loss,omitempty"`
	ReadOnly  *bool               `json:"read_only,omitempty"`
	Removable *bool               `json:"removable,omitempty"`
}

// LUNPath names a LUN in a path.
type LUNPath struct {
	Name string `path:"name" doc:"of the LUN, or its id"`
}

// ReplicaPath names a replica of a LUN in a path.
type ReplicaPath struct {
	LUNPath
	Node catalog.NodeID `path:"node"`
}

// ReplicaChange is what can change of a replica.
type ReplicaChange struct {
	Drained bool `json:"drained" doc:"it is to serve no host: the other one takes over without lost time or data"`
}

func (a *api) luns(h huma.API) {
	get(h, "/luns", "list-luns", "The LUNs", func(context.Context, *none) ([]catalog.LUN, error) {
		_, s, err := a.state()
		if err != nil {
			return nil, err
		}
		return list(s.LUNs()), nil
	})
	get(h, "/luns/{name}", "get-lun", "A LUN", func(_ context.Context, in *LUNPath) (catalog.LUN, error) { return a.lun(in.Name) })
	change(h, http.MethodPost, "/luns", "create-lun", "Make a LUN", func(ctx context.Context, in *struct{ Body NewLUN }) (catalog.LUN, error) {
		add := in.Body.command()
		if err := a.do(ctx, add); err != nil {
			return catalog.LUN{}, err
		}
		return a.lun(add.ID.String())
	})
	change(h, http.MethodPatch, "/luns/{name}", "change-lun", "Change what is given of a LUN",
		func(ctx context.Context, in *struct {
			LUNPath
			Body LUNChange
		}) (catalog.LUN, error) {
			b := in.Body
			return a.onLUN(ctx, in.Name, func(l catalog.LUN) catalog.Body {
				return &catalog.ChangeLUN{Expect: catalog.Expect{IfRevision: b.Revision}, ID: l.ID, Name: b.Name, Size: b.Size,
					Preferred: b.Preferred, Loss: b.Loss, ReadOnly: b.ReadOnly, Removable: b.Removable}
			})
		})
	change(h, http.MethodPost, "/luns/{name}/replicas", "add-replica", "Mirror a LUN that has one replica",
		func(ctx context.Context, in *struct {
			LUNPath
			Body NewReplica
		}) (catalog.LUN, error) {
			return a.onLUN(ctx, in.Name, func(l catalog.LUN) catalog.Body {
				return &catalog.AddReplica{LUN: l.ID, Replica: in.Body.of(l.Name)}
			})
		})
	change(h, http.MethodPatch, "/luns/{name}/replicas/{node}", "change-replica", "Have a replica serve no host, so that it can be removed, or serve again",
		func(ctx context.Context, in *struct {
			ReplicaPath
			Body ReplicaChange
		}) (catalog.LUN, error) {
			return a.onLUN(ctx, in.Name, func(l catalog.LUN) catalog.Body {
				return &catalog.DrainReplica{LUN: l.ID, Node: in.Node, Drained: in.Body.Drained}
			})
		})
	remove(h, "/luns/{name}/replicas/{node}", "remove-replica", "End the mirroring of a LUN",
		func(ctx context.Context, in *ReplicaPath) error {
			_, err := a.onLUN(ctx, in.Name, func(l catalog.LUN) catalog.Body { return &catalog.RemoveReplica{LUN: l.ID, Node: in.Node} })
			return err
		})
	remove(h, "/luns/{name}", "remove-lun", "Remove a LUN; its replicas stay on the nodes' disks",
		func(ctx context.Context, in *LUNPath) error {
			l, err := a.lun(in.Name)
			if err != nil {
				return err
			}
			return a.do(ctx, &catalog.RemoveLUN{ID: l.ID})
		})
}

func (a *api) lun(name string) (catalog.LUN, error) {
	_, s, err := a.state()
	if err != nil {
		return catalog.LUN{}, err
	}
	l, found := lunOf(s, name)
	if !found {
		return l, notFound("LUN", name)
	}
	return l, nil
}

// lunOf is a LUN by its name or its id.
func lunOf(s *catalog.State, name string) (catalog.LUN, bool) {
	l, found := s.LUNNamed(name)
	if id, err := catalog.ParseUUID(name); !found && err == nil {
		return s.LUN(id)
	}
	return l, found
}

// onLUN carries out a command on a LUN, and returns what that is then.
func (a *api) onLUN(ctx context.Context, name string, command func(l catalog.LUN) catalog.Body) (catalog.LUN, error) {
	l, err := a.lun(name)
	if err != nil {
		return l, err
	}
	if err := a.do(ctx, command(l)); err != nil {
		return l, err
	}
	return a.lun(l.ID.String())
}

func (n *NewLUN) command() *catalog.AddLUN {
	add := &catalog.AddLUN{
		Name: n.Name, ID: newUUID(), Size: n.Size, BlockSize: n.BlockSize, ExtentSize: n.Extent, Preferred: n.Preferred, Loss: n.Loss,
		ReadOnly: n.ReadOnly, Removable: n.Removable, Epoch: newUUID(),
	}
	if n.ID != nil {
		add.ID = *n.ID
	}
	if add.NAA = NAA(add.ID); n.NAA != nil {
		add.NAA = *n.NAA
	}
	if add.Preferred == "" && len(n.Replicas) > 0 {
		add.Preferred = n.Replicas[0].Node
	}
	for _, r := range n.Replicas {
		add.Replicas = append(add.Replicas, r.of(n.Name))
	}
	return add
}

// newUUID makes a random UUID (RFC 9562 section 5.4).
func newUUID() (id catalog.UUID) {
	rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// NAA is the identifier that a LUN has if nothing else is said, from its UUID. Type 3,
// locally assigned (SPC-4 7.8.6.6.4): types 5 and 6 begin with the company identifier of a
// manufacturer, and we have none. 60 bits of a hash keep the LUNs of a site apart.
func NAA(uuid catalog.UUID) (id catalog.NAA) {
	sum := sha256.Sum256(append([]byte("twinlun NAA\x00"), uuid[:]...))
	copy(id[:8], sum[:8])
	id[0] = 3<<4 | id[0]&0xf
	return id
}
