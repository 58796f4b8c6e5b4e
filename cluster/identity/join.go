package identity

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
)

// MaxJoinMessage bounds a JoinRequest and its answer, in bytes of JSON: several times
// what they take.
const MaxJoinMessage = 16 << 10

// maxRequest bounds the certificate request in a JoinRequest, in bytes: ours take 300.
const maxRequest = 2 << 10

// JoinRequest is what a new node asks, on a connection whose other end has proven to
// be of the token's cluster.
type JoinRequest struct {
	Version int `json:"version"` // 1
	Newcomer
	Secret []byte `json:"secret"` // the token's
	// CSR has the node's key, and is signed with it (RFC 2986). Its names do not count.
	CSR []byte `json:"csr"`

	parsed *x509.CertificateRequest // CSR, checked
}

// Newcomer is what a new node says of itself.
type Newcomer struct {
	Node      string   `json:"node"`      // the name that it wants to have
	Site      string   `json:"site"`      // where it stands
	Addresses []string `json:"addresses"` // where the others reach it, host:port
	// Witness: it has no replicas, and so need not issue certificates.
	Witness bool `json:"witness"`
	// Commands is the newest version of the catalog's commands that its program knows.
	Commands int `json:"commands"`
}

func (n *Newcomer) check() error {
	if err := CheckNode(n.Node); err != nil {
		return err
	}
	if n.Site == "" || len(n.Site) > MaxNode {
		return fmt.Errorf("the name of a site has 1 to %d characters, not %d", MaxNode, len(n.Site))
	}
	return checkAddresses(n.Addresses)
}

const joinVersion = 1

// ErrElsewhere: the node that was asked has decided nothing; ask another one.
var ErrElsewhere = errors.New("the node that was asked cannot decide")

// Key names the key that the node will have.
func (r *JoinRequest) Key() Fingerprint {
	f, _ := FingerprintOf(r.parsed.PublicKey) // of a kind that was checked
	return f
}

// ParseJoinRequest takes what a stranger has sent, and checks all of it but the secret.
func ParseJoinRequest(data []byte) (*JoinRequest, error) {
	if len(data) > MaxJoinMessage {
		return nil, fmt.Errorf("join request of %d bytes, at most %d are taken", len(data), MaxJoinMessage)
	}
	r := new(JoinRequest)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("join request: %w", err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("join request: %w", err)
	}
	return r, nil
}

func (r *JoinRequest) check() (err error) {
	switch {
	case r.Version != joinVersion:
		return fmt.Errorf("version %d, this program speaks version %d: install the same version at all nodes", r.Version, joinVersion)
	case len(r.Secret) != secretSize:
		return fmt.Errorf("secret of %d bytes", len(r.Secret))
	case len(r.CSR) > maxRequest:
		return fmt.Errorf("certificate request of %d bytes, at most %d are taken", len(r.CSR), maxRequest)
	}
	if err := r.Newcomer.check(); err != nil {
		return err
	}
	if r.parsed, err = x509.ParseCertificateRequest(r.CSR); err != nil {
		return fmt.Errorf("certificate request: %w", err)
	}
	if err := checkKey(r.parsed.PublicKey); err != nil {
		return err
	}
	return r.parsed.CheckSignature()
}

// JoinAnswer is what it is told.
type JoinAnswer struct {
	Version int    `json:"version"` // 1
	Refused string `json:"refused"` // why not; "": welcome
	// Elsewhere: nothing was decided, and another node may admit it.
	Elsewhere bool `json:"elsewhere,omitempty"`

	Certificate []byte   `json:"certificate,omitempty"` // the node's, DER
	Authorities [][]byte `json:"authorities,omitempty"` // of the CA, DER; the first one signs
	// AuthorityKey is the CA's, PKCS #8, for a node that will issue certificates.
	AuthorityKey []byte `json:"authorityKey,omitempty"`
}

// Applicant is a node that wants to join.
type Applicant struct {
	dir     string
	token   *Token
	Request *JoinRequest
}

// Apply prepares to join a cluster. The node's key is made, and kept in the folder,
// before the token is used: an applicant that is interrupted, or never gets its
// answer, may ask again with the same key, and only with that.
func Apply(dir string, self Newcomer, token *Token) (*Applicant, error) {
	a, err := apply(dir, self, token)
	if err != nil {
		return nil, fmt.Errorf("join the cluster %v: %w", token.Cluster, err)
	}
	return a, nil
}

func apply(dir string, self Newcomer, token *Token) (*Applicant, error) {
	if err := vacant(dir); err != nil {
		return nil, err
	}
	key, err := keepKey(dir)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: self.Node}}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	r := &JoinRequest{Version: joinVersion, Newcomer: self, Secret: token.Secret[:], CSR: csr}
	return &Applicant{dir, token, r}, r.check()
}

// Accept takes the answer, and makes the folder complete: the node has joined.
func (a *Applicant) Accept(data []byte) (*Node, error) {
	n, err := a.accept(data)
	if err != nil {
		return nil, fmt.Errorf("join the cluster %v: %w", a.token.Cluster, err)
	}
	return n, nil
}

func (a *Applicant) accept(data []byte) (*Node, error) {
	if len(data) > MaxJoinMessage {
		return nil, fmt.Errorf("answer of %d bytes, at most %d are taken", len(data), MaxJoinMessage)
	}
	answer := new(JoinAnswer)
	if err := json.Unmarshal(data, answer); err != nil {
		return nil, fmt.Errorf("the answer cannot be understood: %w", err)
	}
	if answer.Elsewhere {
		return nil, fmt.Errorf("%w: %.500q", ErrElsewhere, answer.Refused)
	}
	if answer.Refused != "" {
		return nil, fmt.Errorf("the cluster refuses: %.500q", answer.Refused)
	}
	cert, authorities, ca, err := answer.parse(a.token)
	if err != nil {
		return nil, fmt.Errorf("the answer is not what it should be: %w", err)
	}
	key, err := readKey(a.dir, keyFile)
	if err != nil {
		return nil, err
	}
	if want := a.token.Cluster.ServerName(a.Request.Node); len(cert.DNSNames) != 1 || cert.DNSNames[0] != want {
		return nil, fmt.Errorf("the certificate is for %.300q instead of %q", cert.DNSNames, want)
	}
	return settle(a.dir, key, cert, authorities, ca)
}

func (answer *JoinAnswer) parse(t *Token) (cert *x509.Certificate, authorities []*x509.Certificate, ca *CA, err error) {
	if cert, err = x509.ParseCertificate(answer.Certificate); err != nil {
		return nil, nil, nil, err
	}
	for _, der := range answer.Authorities {
		a, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, nil, err
		}
		authorities = append(authorities, a)
	}
	cluster, err := checkAuthorities(authorities)
	switch {
	case err != nil:
		return nil, nil, nil, err
	case cluster != t.Cluster || !pinned(authorities, t.Authority):
		return nil, nil, nil, errors.New("it is from another authority than the token's")
	}
	if len(answer.AuthorityKey) == 0 {
		return cert, authorities, nil, nil
	}
	key, err := parseKey(answer.AuthorityKey)
	if err == nil {
		ca, err = newAuthority(authorities[0], key)
	}
	return cert, authorities, ca, err
}

func pinned(list []*x509.Certificate, pin Fingerprint) bool {
	for _, cert := range list {
		if fingerprintOf(cert) == pin {
			return true
		}
	}
	return false
}
