package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/secret"
	"github.com/twinlun/twinlun/target/iscsi"
)

// Host is a computer that uses LUNs. Secrets are not shown.
type Host struct {
	Name       string   `json:"name"`
	Initiators []string `json:"initiators" doc:"iSCSI names, or beginnings of names with an asterisk"`
	Site       string   `json:"site,omitempty" doc:"whose paths it should use"`
	Group      string   `json:"group,omitempty" doc:"whose LUNs it sees, too"`
	User       string   `json:"user,omitempty" doc:"CHAP user that the host proves to be"`
	TargetUser string   `json:"target_user,omitempty" doc:"CHAP user that the target proves to be"`
	Revision   uint64   `json:"revision"`
}

// HostBody is what is given of a host. A secret that is left out stays as it was, if the
// user does.
type HostBody struct {
	Revision     *uint64  `json:"revision,omitempty" doc:"that the host must have; 0: it must not exist"`
	Initiators   []string `json:"initiators"`
	Site         string   `json:"site,omitempty"`
	Group        string   `json:"group,omitempty"`
	User         string   `json:"user,omitempty"`
	Secret       string   `json:"secret,omitempty" doc:"12 to 255 bytes"`
	TargetUser   string   `json:"target_user,omitempty"`
	TargetSecret string   `json:"target_secret,omitempty"`
}

// HostPath names a host in a path.
type HostPath struct {
	Name string `path:"name" doc:"of the host"`
}

func asHost(h catalog.Host) Host {
	v := Host{Name: h.Name, Initiators: h.Initiators, Site: h.Site, Group: h.Group, Revision: h.Revision}
	v.User, v.TargetUser = users(h.CHAP)
	return v
}

func (a *api) hosts(h huma.API) {
	get(h, "/hosts", "list-hosts", "The hosts", func(context.Context, *none) ([]Host, error) {
		_, s, err := a.state()
		if err != nil {
			return nil, err
		}
		all := []Host{}
		for h := range s.Hosts() {
			all = append(all, asHost(h))
		}
		return all, nil
	})
	change(h, http.MethodPut, "/hosts/{name}", "put-host", "Make a host, or replace what it was",
		func(ctx context.Context, in *struct {
			HostPath
			Body HostBody
		}) (Host, error) {
			put, err := a.putHost(in.Name, &in.Body)
			if err == nil {
				err = a.do(ctx, put)
			}
			if err != nil {
				return Host{}, err
			}
			h, _ := a.Cluster().State().Host(in.Name)
			return asHost(h), nil
		})
	remove(h, "/hosts/{name}", "remove-host", "Remove a host",
		func(ctx context.Context, in *HostPath) error { return a.do(ctx, &catalog.RemoveHost{Name: in.Name}) })
}

// putHost is the command, with secrets sealed.
func (a *api) putHost(name string, b *HostBody) (*catalog.PutHost, error) {
	c, s, err := a.state()
	if err != nil {
		return nil, err
	}
	old, _ := s.Host(name)
	put := &catalog.PutHost{Expect: catalog.Expect{IfRevision: b.Revision}, Name: name, Initiators: b.Initiators, Site: b.Site, Group: b.Group}
	put.CHAP, err = chap(c, old.CHAP, b.User, b.Secret, b.TargetUser, b.TargetSecret)
	return put, err
}

// chap is how two sides prove themselves, with secrets sealed; one that is not given stays
// as it was, if the user does.
func chap(c vault, old catalog.CHAP, user, text, targetUser, targetText string) (p catalog.CHAP, err error) {
	if p.Initiator, err = seal(c, "secret", old.Initiator, user, text); err != nil {
		return p, err
	}
	if p.Target, err = seal(c, "target_secret", old.Target, targetUser, targetText); err != nil {
		return p, err
	}
	if text != "" && text == targetText {
		return p, invalid("target_secret", "the two sides must not have the same secret (RFC 7143 section 12.1.3)")
	}
	return p, nil
}

// seal is a credential whose secret is sealed: the old one, if it is the same.
func seal(c vault, field string, old *catalog.Credential, user, text string) (*catalog.Credential, error) {
	switch {
	case user == "" && text == "":
		return nil, nil
	case user == "":
		return nil, invalid(field, "there is a secret, and no user that it is for")
	case text == "" && old != nil && old.User == user:
		return old, nil
	case text == "":
		return nil, invalid(field, "it is missing, for the user "+user)
	}
	if err := (iscsi.Credentials{User: user, Secret: secret.New(text)}).Check(); err != nil {
		return nil, invalid(field, err.Error())
	}
	if old != nil && old.User == user {
		if plain, err := c.Unseal(old.Sealed); err == nil && string(plain) == text { // one that cannot be opened is replaced
			return old, nil
		}
	}
	sealed, err := c.Seal([]byte(text))
	return &catalog.Credential{User: user, Sealed: sealed}, err
}

func invalid(field, message string) error {
	return &catalog.Error{Code: catalog.Invalid, Field: field, Message: message}
}
