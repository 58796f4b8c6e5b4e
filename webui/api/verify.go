package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// Verifier compares the replicas of LUNs, this node's with the other one's. Errors are a
// *Problem where an operator can do something.
type Verifier interface {
	// StartVerify begins to compare, in the background.
	StartVerify(lun catalog.UUID, v NewVerification) error
	// StopVerify ends that.
	StopVerify(lun catalog.UUID) error
	// Verification is how far the last one has come; its State is VerifyNone if there was
	// none since the node was started.
	Verification(lun catalog.UUID) (Verification, error)
}

// NewVerification says how replicas are to be compared.
type NewVerification struct {
	Repair bool           `json:"repair,omitempty" doc:"make both replicas the same where they differ: as the one has it that owns the piece, or, where none does, the preferred node"`
	Keep   catalog.NodeID `json:"keep,omitempty" doc:"the node whose bytes count where they differ; left out: as above"`
	Rate   int64          `json:"rate,omitempty" doc:"limit, bytes per second of each replica; 0: none" minimum:"0"`
}

// Verification is a comparison of two replicas of a LUN, while hosts use it.
type Verification struct {
	NewVerification
	LUN         string       `json:"lun"`
	Node        string       `json:"node" doc:"that compares"`
	State       string       `json:"state" enum:"none,running,complete,stopped"`
	Started     *time.Time   `json:"started,omitempty"`
	Ended       *time.Time   `json:"ended,omitempty"`
	Waiting     string       `json:"waiting,omitempty" doc:"why it makes no progress now"`
	Error       string       `json:"error,omitempty" doc:"why it was stopped"`
	Size        int64        `json:"size" doc:"of the LUN, bytes; like all that follows"`
	Done        int64        `json:"done"`
	Compared    int64        `json:"compared"`
	Copying     int64        `json:"copying" doc:"not compared, as it was about to be copied"`
	Busy        int64        `json:"busy" doc:"not compared, as both sites wrote it all the time"`
	Unread      int64        `json:"unread" doc:"not compared, as one of the replicas cannot be read"`
	Differing   int64        `json:"differing" doc:"compared, and not the same at both"`
	Repaired    int64        `json:"repaired" doc:"of that: it is the same now"`
	Differences []Difference `json:"differences" doc:"the first ones"`
}

// States of a Verification.
const (
	VerifyNone     = "none"
	VerifyRunning  = "running"
	VerifyComplete = "complete"
	VerifyStopped  = "stopped"
)

// Difference is a piece of a LUN that is not the same in both replicas.
type Difference struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Keeps  string `json:"keeps" doc:"the node whose bytes count where it is repaired"`
}

func (a *api) verifications(h huma.API) {
	const path = "/luns/{name}/verify"
	get(h, path, "get-verification", "How far the comparison of a LUN's replicas has come at this node",
		func(_ context.Context, in *LUNPath) (Verification, error) { return a.verification(in.Name) })
	change(h, http.MethodPost, path, "verify-lun", "Compare both replicas of a LUN, while it is used",
		func(_ context.Context, in *struct {
			LUNPath
			Body NewVerification
		}) (Verification, error) {
			l, err := a.replicated(in.Name)
			if err == nil {
				err = in.Body.check(l)
			}
			if err == nil {
				err = a.StartVerify(l.ID, in.Body)
			}
			if err != nil {
				return Verification{}, err
			}
			return a.verification(in.Name)
		})
	remove(h, path, "stop-verification", "Stop comparing a LUN's replicas", func(_ context.Context, in *LUNPath) error {
		l, err := a.replicated(in.Name)
		if err != nil {
			return err
		}
		return a.StopVerify(l.ID)
	})
}

// check tells what cannot be meant.
func (n *NewVerification) check(l catalog.LUN) error {
	has := slices.ContainsFunc(l.Replicas, func(r catalog.Replica) bool { return r.Node == n.Keep })
	if n.Keep != "" && !has {
		return &catalog.Error{Code: catalog.Invalid, Field: "keep", Message: "node " + string(n.Keep) + " has no replica of LUN " + l.Name}
	}
	return nil
}

func (a *api) verification(name string) (Verification, error) {
	l, err := a.replicated(name)
	if err != nil {
		return Verification{}, err
	}
	v, err := a.Verification(l.ID)
	if err != nil {
		return v, err
	}
	v.LUN, v.Node = l.Name, string(a.Cluster().Self())
	if v.Keep != "" {
		v.Keep = catalog.NodeID(keeps(l, v.Keep == Here, v.Node))
	}
	for i := range v.Differences {
		v.Differences[i].Keeps = keeps(l, v.Differences[i].Keeps == Here, v.Node)
	}
	return v, nil
}

// Here stands for the node that compares in Keep and Difference.Keeps, as a Verifier returns
// them; whatever else for the other one.
const Here = "here"

// keeps is the name of the node whose bytes count.
func keeps(l catalog.LUN, here bool, self string) string {
	for _, r := range l.Replicas {
		if (string(r.Node) == self) == here {
			return string(r.Node)
		}
	}
	return ""
}

// replicated is a LUN that has two replicas, one of them here.
func (a *api) replicated(name string) (catalog.LUN, error) {
	l, err := a.lun(name)
	if err != nil {
		return l, err
	}
	var nodes []string
	for _, r := range l.Replicas {
		nodes = append(nodes, string(r.Node))
	}
	switch self := string(a.Cluster().Self()); {
	case len(nodes) < 2:
		return l, problem(http.StatusConflict, CodeNotFeasible, "LUN "+l.Name+" has one replica: there is nothing to compare it with", "")
	case !slices.Contains(nodes, self):
		return l, problem(http.StatusConflict, CodeNotFeasible, "node "+self+" has no replica of LUN "+l.Name, "ask at node "+strings.Join(nodes, " or "))
	}
	return l, nil
}
