package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func newcomer(node string, witness bool) Newcomer {
	return Newcomer{Node: node, Site: "north", Addresses: []string{"192.0.2.2:7480"}, Witness: witness, Commands: 1}
}

func summed(b []byte) []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(b), crc32.Checksum(b, castagnoli))
}

// ledger is an Admission in memory, as its comment has it.
type ledger struct {
	now time.Time

	mu     sync.Mutex
	tokens map[TokenHash]*ledgerToken
	nodes  map[string]Fingerprint
	broken error // what happens to the next request
}

type ledgerToken struct {
	expires time.Time
	used    string // by which node
	key     Fingerprint
}

func newLedger(now time.Time) *ledger {
	return &ledger{now: now, tokens: map[TokenHash]*ledgerToken{}, nodes: map[string]Fingerprint{}}
}

func (l *ledger) add(t *Token) { l.tokens[t.Secret.Hash(t.Cluster)] = &ledgerToken{expires: t.Expires} }

func (l *ledger) Admit(_ context.Context, hash TokenHash, r *JoinRequest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tokens[hash]
	switch {
	case l.broken != nil:
		return l.broken
	case t == nil:
		return ErrTokenUnknown
	case t.used == r.Node && t.key == r.Key():
		return nil
	case t.used != "":
		return ErrTokenUsed
	case l.now.After(t.expires):
		return ErrTokenExpired
	case l.nodes[r.Node] != Fingerprint{}:
		return ErrNodeTaken
	}
	t.used, t.key, l.nodes[r.Node] = r.Node, r.Key(), r.Key()
	return nil
}

// joinTest is a cluster of one node, which issues.
type joinTest struct {
	t      *testing.T
	ledger *ledger
	issuer *Issuer
}

func newJoinTest(t *testing.T) *joinTest {
	t.Helper()
	first, err := Found(t.TempDir(), "a", now)
	if err != nil {
		t.Fatal(err)
	}
	l := newLedger(now)
	l.nodes["a"] = first.Self().Key
	return &joinTest{t, l, &Issuer{Node: first, Admission: l, Now: func() time.Time { return now }}}
}

func (j *joinTest) token() *Token {
	j.t.Helper()
	token, err := j.issuer.Node.Authority().NewToken([]string{"192.0.2.1:7480"}, now, time.Hour)
	if err != nil {
		j.t.Fatal(err)
	}
	j.ledger.add(token)
	return token
}

func (j *joinTest) apply(dir, node string, witness bool, token *Token) *Applicant {
	j.t.Helper()
	a, err := Apply(dir, newcomer(node, witness), token)
	if err != nil {
		j.t.Fatal(err)
	}
	return a
}

// ask takes a request to the issuer and the answer back.
func (j *joinTest) ask(a *Applicant) (*Node, error) {
	j.t.Helper()
	request, err := json.Marshal(a.Request)
	if err != nil {
		j.t.Fatal(err)
	}
	answer, _ := j.issuer.Join(context.Background(), request)
	return a.Accept(answer)
}

func TestJoin(t *testing.T) {
	j := newJoinTest(t)
	for name, witness := range map[string]bool{"b": false, "w": true} {
		dir := t.TempDir()
		joined, err := j.ask(j.apply(dir, name, witness, j.token()))
		if err != nil {
			t.Fatal(err)
		}
		n, err := Open(dir, now)
		if err != nil {
			t.Fatal(err)
		}
		if n.Self() != joined.Self() || n.Name() != name || n.Self().Key != j.ledger.nodes[name] || n.Cluster() != j.issuer.Node.Cluster() {
			t.Errorf("%v has joined as %v", joined.Self(), n.Self())
		}
		if (n.Authority() == nil) != witness {
			t.Errorf("%s: issues certificates: %v", name, n.Authority() != nil)
		}
	}
}

// A token lets one node in, once; and that one again, when it has not got the answer.
func TestTokenIsUsedOnce(t *testing.T) {
	j := newJoinTest(t)
	token, dir := j.token(), t.TempDir()
	request, err := json.Marshal(j.apply(dir, "b", false, token).Request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.issuer.Join(t.Context(), request); err != nil { // the answer is lost, and b restarts
		t.Fatal(err)
	}
	if _, err := j.ask(j.apply(t.TempDir(), "c", false, token)); err == nil || !strings.Contains(err.Error(), ErrTokenUsed.Error()) {
		t.Errorf("another node with a used token: %v", err)
	}
	if _, err := j.ask(j.apply(t.TempDir(), "b", false, token)); err == nil || !strings.Contains(err.Error(), ErrTokenUsed.Error()) {
		t.Errorf("another key with a used token: %v", err)
	}
	if _, err := j.ask(j.apply(dir, "b", false, token)); err != nil {
		t.Error(err)
	}
	if _, err := Apply(dir, newcomer("b", false), token); !errors.Is(err, ErrExists) {
		t.Errorf("a node that has joined applies: %v", err)
	}
}

// What the outside learns: what concerns its own token and request, and no more.
func TestJoinRefusals(t *testing.T) {
	j := newJoinTest(t)
	unknown := *j.token()
	unknown.Secret[0]++
	check := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := j.ask(j.apply(t.TempDir(), "b", false, &unknown))
	check("unknown token", err, ErrTokenUnknown.Error())
	_, err = j.ask(j.apply(t.TempDir(), "a", false, j.token()))
	check("a name that is taken", err, ErrNodeTaken.Error())
	_, err = j.ask(j.apply(t.TempDir(), "a", false, &unknown))
	check("a name that is taken, asked by a stranger", err, ErrTokenUnknown.Error())
	a := j.apply(t.TempDir(), "b", false, j.token())
	a.Request.Version = 2
	_, err = j.ask(a)
	check("version", err, "version 2")

	j.ledger.broken = errors.New("the disk of node c is on fire")
	_, err = j.ask(j.apply(t.TempDir(), "b", false, j.token()))
	check("internal", err, "could not be done")
	if strings.Contains(err.Error(), "fire") {
		t.Errorf("the outside learns %v", err)
	}
	j.ledger.broken = nil
	late := j.token()
	j.ledger.now = now.Add(2 * time.Hour)
	_, err = j.ask(j.apply(t.TempDir(), "b", false, late))
	check("expired token", err, ErrTokenExpired.Error())

	witness, err := j.issuer.Node.Authority().NewNode("w", now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	j.issuer.Node = witness
	_, err = j.ask(j.apply(t.TempDir(), "b", false, late))
	check("a node that does not issue", err, "does not issue")
}

// request is a good one, with one thing changed.
func request(t testing.TB, change func(r *JoinRequest)) []byte {
	t.Helper()
	a, err := Apply(t.TempDir(), newcomer("b", false), testToken())
	if err != nil {
		t.Fatal(err)
	}
	change(a.Request)
	data, err := json.Marshal(a.Request)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseJoinRequestRefuses(t *testing.T) {
	large, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, large)
	if err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{
		"nothing":           nil,
		"no JSON":           []byte("GET / HTTP/1.1"),
		"long":              append(request(t, func(*JoinRequest) {}), make([]byte, MaxJoinMessage)...),
		"no name":           request(t, func(r *JoinRequest) { r.Node = "" }),
		"bad name":          request(t, func(r *JoinRequest) { r.Node = "a.b" }),
		"no site":           request(t, func(r *JoinRequest) { r.Site = "" }),
		"bad address":       request(t, func(r *JoinRequest) { r.Addresses[0] = "192.0.2.2" }),
		"no address":        request(t, func(r *JoinRequest) { r.Addresses = nil }),
		"short secret":      request(t, func(r *JoinRequest) { r.Secret = r.Secret[1:] }),
		"no key":            request(t, func(r *JoinRequest) { r.CSR = nil }),
		"long key":          request(t, func(r *JoinRequest) { r.CSR = make([]byte, maxRequest+1) }),
		"another curve":     request(t, func(r *JoinRequest) { r.CSR = csr }),
		"a key not its own": request(t, func(r *JoinRequest) { r.CSR[len(r.CSR)-1]++ }),
	} {
		if _, err := ParseJoinRequest(data); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if _, err := ParseJoinRequest(request(t, func(*JoinRequest) {})); err != nil {
		t.Error(err)
	}
}

// Nothing is kept of an answer that does not fit the token.
func TestAcceptRefuses(t *testing.T) {
	j, other := newJoinTest(t), newJoinTest(t)
	token := j.token()
	answers := func(j *joinTest, token *Token, node string, change func(a *JoinAnswer)) []byte {
		data, err := json.Marshal(j.apply(t.TempDir(), node, false, token).Request)
		if err != nil {
			t.Fatal(err)
		}
		data, err = j.issuer.Join(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		a := new(JoinAnswer)
		if err := json.Unmarshal(data, a); err != nil {
			t.Fatal(err)
		}
		change(a)
		data, err = json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	dir := t.TempDir()
	b := j.apply(dir, "b", false, token)
	request, err := json.Marshal(b.Request)
	if err != nil {
		t.Fatal(err)
	}
	good, err := j.issuer.Join(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{
		"nothing":           nil,
		"empty":             []byte("{}"),
		"long":              bytes.Repeat([]byte(" "), MaxJoinMessage+1),
		"refusal":           []byte(`{"refused":"no"}`),
		"another cluster":   answers(other, other.token(), "b", func(*JoinAnswer) {}),
		"another key":       answers(j, j.token(), "c", func(*JoinAnswer) {}),
		"no authority":      answers(j, j.token(), "d", func(a *JoinAnswer) { a.Authorities = nil }),
		"bad authority":     answers(j, j.token(), "e", func(a *JoinAnswer) { a.Authorities[0] = []byte{1} }),
		"bad authority key": answers(j, j.token(), "f", func(a *JoinAnswer) { a.AuthorityKey = []byte{1} }),
	} {
		if _, err := b.Accept(data); err == nil {
			t.Errorf("%s: taken", what)
		}
		if _, err := os.Stat(filepath.Join(dir, certificateFile)); err == nil {
			t.Fatalf("%s: a certificate was kept", what)
		}
	}
	if _, err := b.Accept(good); err != nil {
		t.Error(err)
	}
}

func FuzzParseJoinRequest(f *testing.F) {
	f.Add(request(f, func(*JoinRequest) {}))
	f.Add([]byte(`{"version":1,"node":"b"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseJoinRequest(data)
		if err == nil && (CheckNode(r.Node) != nil || r.Key() == Fingerprint{} || len(r.Secret) != secretSize) {
			t.Errorf("%+v", r)
		}
	})
}

func FuzzAccept(f *testing.F) {
	f.Add([]byte(`{"version":1,"refused":"no"}`))
	f.Add([]byte(`{"version":1,"certificate":"MAA=","authorities":["MAA="]}`))
	dir := f.TempDir()
	a, err := Apply(dir, newcomer("b", false), testToken())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, err := a.Accept(data); err == nil {
			t.Errorf("%v has joined a cluster that there is not", n.Self())
		}
	})
}

func FuzzFiles(f *testing.F) {
	dir := f.TempDir()
	if _, err := Found(dir, "a", now); err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"ca.crt", "node.key"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := parseKeyPEM(data); err == nil && checkKey(key.Public()) != nil {
			t.Error("a key of another kind")
		}
		if list, err := parseCertificatesPEM(data); err == nil {
			checkAuthorities(list)
		}
	})
}

// A Renewer asks at two thirds of a certificate's life, again after a failure, and
// forever.
func TestRenewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := NewCA(NewClusterID(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		issuer, err := ca.NewNode("a", time.Now(), CertificateLife)
		if err != nil {
			t.Fatal(err)
		}
		issuer.ca = ca
		n, err := ca.NewNode("w", time.Now(), CertificateLife)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		began, asks, fail := time.Now(), []time.Duration{}, 3
		ask := func(context.Context) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			asks = append(asks, time.Since(began))
			if fail--; fail >= 0 {
				return nil, errors.New("nobody is there")
			}
			return issuer.Renew(n.Certificate().Leaf, time.Now())
		}
		said := func() []time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(asks)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			(&Renewer{Node: n, Ask: ask, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}).Run(ctx)
			close(ended)
		}()
		day := 24 * time.Hour
		time.Sleep(59 * day)
		synctest.Wait()
		if asked := said(); len(asked) > 0 {
			t.Errorf("asked after %v", asked)
		}
		time.Sleep(2 * day)
		synctest.Wait()
		if asked := said(); len(asked) != 4 || asked[0] < 59*day || asked[3]-asked[0] < 20*time.Minute || asked[3] > 61*day {
			t.Errorf("asked after %v", asked)
		}
		for range 30 {
			time.Sleep(30 * day)
			if err := n.Check(time.Now()); err != nil {
				t.Error(err)
			}
		}
		if asked := len(said()); asked > 4+16 {
			t.Errorf("asked %d times in %v", asked, time.Since(began))
		}
		cancel()
		<-ended
	})
}

// Where certificates are issued nobody is asked.
func TestRenewerHelpsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := Found(t.TempDir(), "a", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go (&Renewer{Node: n, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}).Run(ctx)
		for range 10 {
			time.Sleep(CertificateLife * 4 / 5)
			if err := n.Check(time.Now()); err != nil {
				t.Error(err)
			}
		}
	})
}
