package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// Discovery is how initiators prove themselves that only want to look. Secrets are not
// shown.
type Discovery struct {
	User       string `json:"user,omitempty" doc:"CHAP user that the initiator proves to be; none: no proof is wanted"`
	TargetUser string `json:"target_user,omitempty" doc:"CHAP user that the target proves to be"`
}

// DiscoveryBody is what is given of it. A secret that is left out stays as it was, if the
// user does.
type DiscoveryBody struct {
	User         string `json:"user,omitempty" doc:"none: no proof is wanted"`
	Secret       string `json:"secret,omitempty" doc:"12 to 255 bytes"`
	TargetUser   string `json:"target_user,omitempty"`
	TargetSecret string `json:"target_secret,omitempty"`
}

func (a *api) discovery(h huma.API) {
	get(h, "/discovery", "get-discovery", "How initiators prove themselves that only want to look",
		func(context.Context, *none) (Discovery, error) { return a.showDiscovery() })
	change(h, http.MethodPut, "/discovery", "set-discovery", "Say how initiators prove themselves that only want to look",
		func(ctx context.Context, in *struct{ Body DiscoveryBody }) (d Discovery, err error) {
			c, s, err := a.state()
			if err != nil {
				return d, err
			}
			b := in.Body
			p, err := chap(c, s.Discovery(), b.User, b.Secret, b.TargetUser, b.TargetSecret)
			if err == nil {
				err = a.do(ctx, &catalog.SetDiscovery{CHAP: p})
			}
			if err != nil {
				return d, err
			}
			return a.showDiscovery()
		})
}

func (a *api) showDiscovery() (d Discovery, err error) {
	_, s, err := a.state()
	if err != nil {
		return d, err
	}
	d.User, d.TargetUser = users(s.Discovery())
	return d, nil
}

// users are the names of the two sides of a login.
func users(p catalog.CHAP) (initiator, target string) {
	if p.Initiator != nil {
		initiator = p.Initiator.User
	}
	if p.Target != nil {
		target = p.Target.User
	}
	return initiator, target
}
