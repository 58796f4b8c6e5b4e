package identity

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Why a node is not admitted.
var (
	// ErrTokenUnknown: no token has this secret; or it was used up or has expired so long
	// ago that it is forgotten.
	ErrTokenUnknown = errors.New("the cluster does not know this token; make a new one with twinlun token create")
	// ErrTokenUsed: another node, or another attempt with another key, has used it.
	ErrTokenUsed = errors.New("this token was used already; make a new one with twinlun token create")
	// ErrTokenExpired: it has come too late.
	ErrTokenExpired = errors.New("this token has expired; make a new one with twinlun token create")
	// ErrNodeTaken: the name belongs to another node, or to one that was removed.
	ErrNodeTaken = errors.New("the cluster has, or had, another node of this name; choose another name")
	// ErrNodeTooOld: its program does not know all commands that the cluster uses.
	ErrNodeTooOld = errors.New("the program of this node is older than the cluster's; upgrade it")
)

// Admission is the cluster's list of tokens and nodes.
type Admission interface {
	// Admit uses up the token with this hash and adds the node that asks: both, or
	// neither, and durably in the whole cluster before it returns. A node that was
	// admitted is admitted again with the same token, name and key, and adds nothing:
	// it may not have got the answer. The token is looked at before anything else, so
	// that only who has one learns more than ErrTokenUnknown; and in this node's own
	// copy of the list first, so that who has none makes no work for the others.
	Admit(ctx context.Context, token TokenHash, r *JoinRequest) error
}

// Issuer answers requests to join, at a node that has the CA's key.
type Issuer struct {
	Node      *Node
	Admission Admission
	Now       func() time.Time // nil: time.Now
}

// Join decides about a stranger's request. The answer is sent; the error is for this
// node's log, and for nobody else.
func (i *Issuer) Join(ctx context.Context, request []byte) (answer []byte, err error) {
	a, err := i.join(ctx, request)
	if err != nil {
		a = &JoinAnswer{Refused: outside(err), Elsewhere: errors.Is(err, errNotHere)}
	}
	return a.encode(), err
}

// Refusal is the answer to a request to join that is not looked at.
func Refusal(reason string) []byte {
	return (&JoinAnswer{Refused: reason, Elsewhere: true}).encode()
}

func (a *JoinAnswer) encode() []byte {
	a.Version = joinVersion
	data, err := json.Marshal(a)
	if err != nil {
		panic("identity: an answer that is no JSON: " + err.Error())
	}
	return data
}

func (i *Issuer) join(ctx context.Context, request []byte) (*JoinAnswer, error) {
	if i.Node.ca == nil {
		return nil, errNotHere
	}
	r, err := ParseJoinRequest(request)
	if err != nil {
		return nil, &badRequest{err}
	}
	if err := i.Admission.Admit(ctx, Secret(r.Secret).Hash(i.Node.cluster), r); err != nil {
		return nil, fmt.Errorf("node %q asks to join: %w", r.Node, err)
	}
	cert, err := i.Node.ca.Issue(r.Node, r.parsed.PublicKey, i.now(), CertificateLife)
	if err != nil {
		return nil, err
	}
	return i.welcome(cert, r.Witness)
}

func (i *Issuer) now() time.Time {
	if i.Now == nil {
		return time.Now()
	}
	return i.Now()
}

func (i *Issuer) welcome(cert *x509.Certificate, witness bool) (*JoinAnswer, error) {
	a := &JoinAnswer{Certificate: cert.Raw}
	for _, authority := range i.Node.authorities {
		a.Authorities = append(a.Authorities, authority.Raw)
	}
	if witness {
		return a, nil
	}
	var err error
	a.AuthorityKey, err = x509.MarshalPKCS8PrivateKey(i.Node.ca.key)
	return a, err
}

// errNotHere: no secret, since who asks here has the token's address of another node.
var errNotHere = errors.New("this node does not issue certificates; ask one with replicas")

// badRequest is about nothing but what the stranger has sent himself.
type badRequest struct{ error }

// outside is what a stranger may know of an error. Whoever has the secret of a token
// may know what has become of it; everything else is for the cluster's own log.
func outside(err error) string {
	if bad := new(badRequest); errors.As(err, &bad) {
		return bad.Error()
	}
	for _, open := range []error{ErrTokenUnknown, ErrTokenUsed, ErrTokenExpired, ErrNodeTaken, ErrNodeTooOld, errNotHere} {
		if errors.Is(err, open) {
			return open.Error()
		}
	}
	return "it could not be done; the log of the node that was asked says why"
}

// Renew makes a new certificate for a node that has just proven, by the connection
// that it asks on, who it is: for the same name and key.
func (n *Node) Renew(peer *x509.Certificate, now time.Time) (der []byte, err error) {
	if n.ca == nil {
		return nil, errNotHere
	}
	p, err := n.PeerOf(peer)
	if err != nil {
		return nil, err
	}
	cert, err := n.ca.Issue(p.Node, peer.PublicKey, now, CertificateLife)
	if err != nil {
		return nil, err
	}
	return cert.Raw, nil
}
