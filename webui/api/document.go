package api

import (
	"strings"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// Document says what a cluster is to have. What it does not name, and what an entry leaves
// out, stays as it is; what is made gets defaults.
type Document struct {
	Settings  *SettingsChange `json:"settings,omitempty"`
	Discovery *ProofEntry     `json:"discovery,omitempty"`
	Groups    []GroupEntry    `json:"groups,omitempty"`
	LUNs      []LUNEntry      `json:"luns,omitempty"`
	Targets   []TargetEntry   `json:"targets,omitempty"`
	Hosts     []HostEntry     `json:"hosts,omitempty"`
	Mappings  []MappingEntry  `json:"mappings,omitempty"`
}

// ProofEntry is how the two sides of a login prove themselves. A secret that is left out
// stays as it was, if the user does.
type ProofEntry struct {
	User         *string `json:"user,omitempty" doc:"CHAP user of the initiator; empty: no proof is wanted"`
	Secret       string  `json:"secret,omitempty" doc:"12 to 255 bytes"`
	TargetUser   *string `json:"target_user,omitempty" doc:"CHAP user of the target; empty: it proves nothing"`
	TargetSecret string  `json:"target_secret,omitempty"`
}

// GroupEntry is a group of a document.
type GroupEntry struct {
	Name string `json:"name"`
}

// LUNEntry is a LUN of a document.
type LUNEntry struct {
	Name      string              `json:"name"`
	ID        *catalog.UUID       `json:"id,omitempty" doc:"of a new one; left out: random"`
	NAA       *catalog.NAA        `json:"naa,omitempty" doc:"of a new one; left out: made from the id"`
	Size      *int64              `json:"size,omitempty" doc:"bytes; a LUN can grow"`
	BlockSize *int                `json:"block_size,omitempty" doc:"of a new one, bytes; left out: 512"`
	Extent    *int64              `json:"extent_size,omitempty" doc:"of a new one, bytes; left out: 65536"`
	Replicas  []ReplicaEntry      `json:"replicas,omitempty" maxItems:"2"`
	Preferred *catalog.NodeID     `json:"preferred,omitempty"`
	Loss      *catalog.LossPolicy `json:"loss,omitempty"`
	ReadOnly  *bool               `json:"read_only,omitempty"`
	Removable *bool               `json:"removable,omitempty"`
}

// ReplicaEntry is a replica of a document.
type ReplicaEntry struct {
	Node catalog.NodeID      `json:"node"`
	Kind catalog.BackingKind `json:"kind,omitempty" doc:"left out: block below /dev, and file elsewhere"`
	Path string              `json:"path,omitempty" doc:"absolute; left out: a file in the default folder"`
}

func (r ReplicaEntry) new() NewReplica {
	if r.Kind == "" && strings.HasPrefix(r.Path, "/dev/") {
		r.Kind = catalog.Block
	}
	return NewReplica(r)
}

// TargetEntry is a target of a document.
type TargetEntry struct {
	Name    string           `json:"name" doc:"iSCSI name"`
	Alias   *string          `json:"alias,omitempty"`
	Portals []catalog.Portal `json:"portals,omitempty" doc:"all of them"`
}

// HostEntry is a host of a document.
type HostEntry struct {
	Name       string   `json:"name"`
	Initiators []string `json:"initiators,omitempty" doc:"all of them"`
	Site       *string  `json:"site,omitempty"`
	Group      *string  `json:"group,omitempty"`
	ProofEntry
}

// MappingEntry is a mapping of a document.
type MappingEntry struct {
	Target string `json:"target,omitempty" doc:"left out: the only one"`
	Host   string `json:"host,omitempty"`
	Group  string `json:"group,omitempty"`
	Number uint16 `json:"number" maximum:"16383"`
	LUN    string `json:"lun" doc:"its name, or its id"`
}

// Change is one thing that is done so that a cluster has what a document says.
type Change struct {
	Kind    string  `json:"kind" doc:"of the command, like change-lun"`
	Subject string  `json:"subject" doc:"what is changed, like LUN disk"`
	Fields  []Field `json:"fields,omitempty"`
	Takes   bool    `json:"takes,omitempty" doc:"hosts may lose something that they use"`
}

// Field is what becomes of a field. Secrets are not shown.
type Field struct {
	Name string `json:"name"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}
