package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newTestCA(t testing.TB) *CA {
	t.Helper()
	ca, err := NewCA(NewClusterID(), now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestNames(t *testing.T) {
	id := ClusterID{1, 2, 0xff}
	for name, good := range map[string]bool{
		"a": true, "site-a": true, "7": true, strings.Repeat("x", 63): true,
		"": false, "A": false, "a.b": false, "-a": false, "a-": false, "ä": false, "a b": false, "*": false, strings.Repeat("x", 64): false,
	} {
		if err := CheckNode(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
		if node, err := id.nodeOf(id.ServerName(name)); (err == nil) != good || good && node != name {
			t.Errorf("%q: comes back as %q, %v", name, node, err)
		}
	}
	if node, err := (ClusterID{}).nodeOf(id.ServerName("a")); err == nil {
		t.Errorf("a name of another cluster is taken, for %q", node)
	}
}

// A CA signs for its cluster's names and for nothing else, whatever somebody who has
// its key may sign.
func TestConstraints(t *testing.T) {
	ca, other := newTestCA(t), newTestCA(t)
	node, err := ca.NewNode("a", now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	foreign := *ca
	foreign.cluster = other.cluster
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := foreign.Issue("a", key.Public(), now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: node.Roots(), CurrentTime: now}); err == nil {
		t.Error("a certificate for a name of another cluster is good")
	}
	if _, err := node.PeerOf(cert); err == nil {
		t.Error("a node of another cluster is a peer")
	}
	for name, chain := range map[string]*CA{"its own": ca, "another": other} {
		cert, err := chain.Issue("a", key.Public(), now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: node.Roots(), CurrentTime: now}); (err == nil) != (chain == ca) {
			t.Errorf("%s authority: %v", name, err)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	ca := newTestCA(t)
	good, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	large, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Issue("A", good.Public(), now, time.Hour); err == nil {
		t.Error("a bad name is taken")
	}
	for _, key := range []any{large.Public(), edwards} {
		if _, err := ca.Issue("a", key, now, time.Hour); err == nil {
			t.Errorf("a %T is taken", key)
		}
	}
	cert, err := ca.Issue("a", good.Public(), now, 2*authorityLife)
	if err != nil || cert.NotAfter.After(ca.cert.NotAfter) {
		t.Errorf("a certificate outlives its authority, until %v (%v)", cert.NotAfter, err)
	}
}

// What Found writes, Open reads; and nobody else can read it.
func TestFoundAndOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "identity")
	made, err := Found(dir, "site-a", now)
	if err != nil {
		t.Fatal(err)
	}
	n, err := Open(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	if n.Self() != made.Self() || n.Name() != "site-a" || n.Cluster() != made.Cluster() || n.Authority() == nil {
		t.Errorf("%v became %v", made.Self(), n.Self())
	}
	if err := n.Check(now); err != nil {
		t.Error(err)
	}
	for path, mode := range map[string]fs.FileMode{".": 0o700, "ca.key": 0o600, "node.key": 0o600, "node.crt": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
	if _, err := Found(dir, "site-b", now); !errors.Is(err, ErrExists) {
		t.Errorf("a second cluster in the folder: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A founding that was interrupted at any file is done again from the beginning.
func TestFoundAgain(t *testing.T) {
	for _, lost := range [][]string{{"node.crt"}, {"node.crt", "ca.crt"}, {"node.crt", "ca.crt", "ca.key"}} {
		dir := t.TempDir()
		if _, err := Found(dir, "a", now); err != nil {
			t.Fatal(err)
		}
		for _, name := range lost {
			os.Remove(filepath.Join(dir, name))
		}
		os.WriteFile(filepath.Join(dir, "node.crt.new"), []byte("half"), 0o644)
		if _, err := Open(dir, now); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without %v: %v", lost, err)
		}
		if _, err := Found(dir, "a", now); err != nil {
			t.Errorf("without %v: %v", lost, err)
		}
		if _, err := Open(dir, now); err != nil {
			t.Errorf("without %v: %v", lost, err)
		}
	}
}

func TestOpenDamaged(t *testing.T) {
	stranger := t.TempDir()
	if _, err := Found(stranger, "a", now); err != nil {
		t.Fatal(err)
	}
	swap := func(dir, name string) {
		data, err := os.ReadFile(filepath.Join(stranger, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, name, data)
	}
	for what, test := range map[string]struct {
		damage func(dir string)
		says   string
	}{
		"key readable":      {func(dir string) { os.Chmod(filepath.Join(dir, "node.key"), 0o640) }, "chmod 600"},
		"CA key readable":   {func(dir string) { os.Chmod(filepath.Join(dir, "ca.key"), 0o604) }, "chmod 600"},
		"no key":            {func(dir string) { os.Remove(filepath.Join(dir, "node.key")) }, "join it anew"},
		"no CA":             {func(dir string) { os.Remove(filepath.Join(dir, "ca.crt")) }, "bring it back"},
		"empty key":         {func(dir string) { write(t, dir, "node.key", nil) }, "no private key"},
		"empty certificate": {func(dir string) { write(t, dir, "node.crt", nil) }, "no certificate"},
		"long file":         {func(dir string) { write(t, dir, "node.crt", make([]byte, maxFile+1)) }, "longer than"},
		"torn certificate": {func(dir string) {
			write(t, dir, "node.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0x30, 0x82, 1}}))
		}, "cannot be understood"},
		"torn key": {func(dir string) {
			write(t, dir, "node.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{0x30}}))
		}, "cannot be understood"},
		"many certificates": {func(dir string) {
			one, _ := os.ReadFile(filepath.Join(dir, "ca.crt"))
			write(t, dir, "ca.crt", bytes.Repeat(one, maxAuthorities+1))
		}, "more than"},
		"another node's key":         {func(dir string) { swap(dir, "node.key") }, "another key"},
		"another node's certificate": {func(dir string) { swap(dir, "node.crt") }, "another key"},
		"another cluster's CA":       {func(dir string) { swap(dir, "ca.crt"); swap(dir, "ca.key") }, "not from its cluster"},
		"another CA's key":           {func(dir string) { swap(dir, "ca.key") }, "do not belong together"},
		"a node's certificate as CA": {func(dir string) {
			one, _ := os.ReadFile(filepath.Join(dir, "node.crt"))
			write(t, dir, "ca.crt", one)
		}, "not that of a cluster"},
	} {
		dir := t.TempDir()
		if _, err := Found(dir, "a", now); err != nil {
			t.Fatal(err)
		}
		test.damage(dir)
		_, err := Open(dir, now)
		if err == nil || !strings.Contains(err.Error(), test.says) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Time passes: a node that issues certificates helps itself, another one says what
// is the matter.
func TestCheckTime(t *testing.T) {
	dir := t.TempDir()
	made, err := Found(dir, "a", now)
	if err != nil {
		t.Fatal(err)
	}
	late := now.Add(CertificateLife + time.Minute)
	if err := made.Check(late); err == nil || !strings.Contains(err.Error(), "joined anew") {
		t.Errorf("too late: %v", err)
	}
	if err := made.Check(now.Add(-48 * time.Hour)); err == nil || !strings.Contains(err.Error(), "set the clock") {
		t.Errorf("too early: %v", err)
	}
	n, err := Open(dir, late)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Check(late); err != nil || n.Self() != made.Self() {
		t.Errorf("%v became %v: %v", made.Self(), n.Self(), err)
	}
	os.Remove(filepath.Join(dir, "ca.key"))
	if n, err = Open(dir, late.Add(2*CertificateLife)); err != nil {
		t.Fatal(err)
	}
	if n.Check(late.Add(2*CertificateLife)) == nil || n.Authority() != nil {
		t.Error("a certificate that has ended is good")
	}
}

func TestReplaceRefuses(t *testing.T) {
	ca, other := newTestCA(t), newTestCA(t)
	n, err := ca.NewNode("a", now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	issue := func(ca *CA, node string, key *ecdsa.PrivateKey, at time.Time) []byte {
		cert, err := ca.Issue(node, key.Public(), at, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return cert.Raw
	}
	before := n.Certificate()
	for what, der := range map[string][]byte{
		"garbage":         []byte("0"),
		"another key":     issue(ca, "a", key, now),
		"another name":    issue(ca, "b", n.key, now),
		"another cluster": issue(other, "a", n.key, now),
		"over":            issue(ca, "a", n.key, now.Add(-2*time.Hour)),
	} {
		if n.Replace(der, now) == nil || n.Certificate() != before {
			t.Errorf("%s: taken", what)
		}
	}
	if err := n.Replace(issue(ca, "a", n.key, now), now); err != nil || n.Certificate() == before {
		t.Errorf("a good one: %v", err)
	}
}

// Renewing is for the same name and key, at a node that issues certificates.
func TestRenew(t *testing.T) {
	dir := t.TempDir()
	a, err := Found(dir, "a", now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Authority().NewNode("b", now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	der, err := a.Renew(b.Certificate().Leaf, now.Add(30*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	before := b.Self()
	if err := b.Replace(der, now.Add(30*time.Minute)); err != nil || b.Self() != before || b.Check(now.Add(CertificateLife)) != nil {
		t.Errorf("%v became %v: %v", before, b.Self(), err)
	}
	if _, err := b.Renew(a.Certificate().Leaf, now); err == nil {
		t.Error("a node without the CA's key renews")
	}
}
