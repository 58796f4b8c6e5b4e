package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// Apply asks that a cluster has what a document says.
type Apply struct {
	Document Document `json:"document"`
	DryRun   bool     `json:"dry_run,omitempty" doc:"only tell what would be done"`
	Plan     string   `json:"plan,omitempty" doc:"id of the plan that was shown: another one is not carried out; left out: whatever is needed is"`
}

// Plan is what is done, or was.
type Plan struct {
	ID      string   `json:"id" doc:"of the same changes the same"`
	Changes []Change `json:"changes" doc:"in their order; none: the cluster has what the document says"`
	Done    bool     `json:"done"`
}

// CodeOtherPlan: what would be done is not what was shown.
const CodeOtherPlan = "other-plan"

func (a *api) documents(h huma.API) {
	change(h, http.MethodPost, "/apply", "apply", "Make the changes that a cluster needs to have what a document says; nothing is removed that the document does not name",
		func(ctx context.Context, in *struct{ Body Apply }) (Plan, error) { return a.apply(ctx, &in.Body) })
}

func (a *api) apply(ctx context.Context, b *Apply) (Plan, error) {
	c, s, err := a.state()
	if err != nil {
		return Plan{}, err
	}
	steps, err := plan(s, c, &b.Document)
	if err != nil {
		return Plan{}, err
	}
	told, err := planOf(steps)
	if err != nil || b.DryRun {
		return told, err
	}
	if b.Plan != "" && b.Plan != told.ID {
		return told, problem(http.StatusPreconditionFailed, CodeOtherPlan, "what would be changed now is not what was shown", "somebody else has changed the cluster: look again, with a dry run")
	}
	for i, st := range steps {
		if err := a.do(ctx, st.body); err != nil {
			return told, about(fmt.Sprintf("%d of %d changes are made, and not that of %s", i, len(steps), st.Subject), err)
		}
	}
	told.Done = true
	return told, nil
}

func planOf(steps []step) (p Plan, err error) {
	p.Changes = []Change{}
	for _, st := range steps {
		p.Changes = append(p.Changes, st.Change)
	}
	text, err := json.Marshal(p.Changes)
	sum := sha256.Sum256(text)
	p.ID = hex.EncodeToString(sum[:16])
	return p, err
}
