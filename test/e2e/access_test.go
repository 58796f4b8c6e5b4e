package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// guarded is the part of a configuration that lets in one user, who proves itself
// and may want the same of the target.
const guarded = `
hosts:
  - initiator: "*"
    user: web
    secret: correct-horse-battery
    target-user: disks
    target-secret: the-target-proves-it
discovery: {user: look, secret: only-for-looking}
`

// TestCHAPTools: libiscsi and QEMU log in by CHAP, and with a wrong secret they do not.
func TestCHAPTools(t *testing.T) {
	t.Parallel()
	need(t, "iscsi-ls", "iscsi-inq", "qemu-io")
	p := startPair(t, guarded)
	for site := range 2 {
		if ls := tool(t, "iscsi-ls", "iscsi://look%only-for-looking@"+p.portals[site]); !strings.Contains(ls, "Target:"+pairIQN) {
			t.Errorf("iscsi-ls at site %d:\n%s", site, ls)
		}
		tool(t, "iscsi-inq", p.url(site, "web", "correct-horse-battery"))
		tool(t, "iscsi-inq", p.url(site, "web", "correct-horse-battery")+"?target_user=disks&target_password=the-target-proves-it")
		for _, url := range []string{
			p.url(site, "web", "correct-horse-battery") + "?target_user=disks&target_password=the-target-is-a-fake",
			p.url(site, "web", "incorrect-horse-battery"),
			p.url(site, "root", "correct-horse-battery"),
			"iscsi://" + p.portals[site] + "/" + pairIQN + "/0",
		} {
			if out, err := try("iscsi-inq", url); err == nil {
				t.Errorf("iscsi-inq %s is let in:\n%s", url, out)
			}
		}
		if out, err := try("iscsi-ls", "iscsi://"+p.portals[site]); err == nil && strings.Contains(out, pairIQN) {
			t.Errorf("discovery without a secret:\n%s", out)
		}
		p.wantLog(site, "login refused", "peer=127.0.0.1:", "initiator=iqn.", "status=0x0201", `the secret of CHAP user \"web\" is wrong`)
		p.wantLog(site, "login refused", `CHAP user \"root\" is not one`)
		p.wantLog(site, "login refused", "the initiator skips authentication")
	}
	qemuIO(t, p.url(0, "web", "correct-horse-battery"), "write -P 0x5a 0 1M")
	qemuIO(t, p.url(1, "web", "correct-horse-battery"), "read -P 0x5a 0 1M")
	if out, err := try("qemu-io", "-f", "raw", "-c", "read 0 512", p.url(0, "web", "incorrect-horse-battery")); err == nil {
		t.Errorf("qemu-io is let in with a wrong secret:\n%s", out)
	}
	p.noSecrets()
}

// TestIPv6: discovery and a LUN by way of both kinds of addresses.
func TestIPv6(t *testing.T) {
	t.Parallel()
	need(t, "iscsi-ls", "qemu-io")
	if !hasIPv6() {
		t.Skip("this machine has no IPv6")
	}
	p := startPair(t, "hosts: [{initiator: \"*\"}]\n")
	for _, portal := range []string{p.portals[0], v6(p.portals[0])} {
		ls := tool(t, "iscsi-ls", "iscsi://"+portal)
		for _, want := range []string{p.portals[0] + ",1", v6(p.portals[0]) + ",1", p.portals[1] + ",2"} {
			if !strings.Contains(ls, "Portal:"+want) {
				t.Errorf("by way of %s, nothing of %s:\n%s", portal, want, ls)
			}
		}
	}
	qemuIO(t, "iscsi://"+v6(p.portals[0])+"/"+pairIQN+"/0", "write -P 0x66 0 1M")
	qemuIO(t, "iscsi://"+p.portals[1]+"/"+pairIQN+"/0", "read -P 0x66 0 1M")
}

// noSecrets wants none of them in the logs.
func (p *pair) noSecrets() {
	p.t.Helper()
	for site := range 2 {
		for _, secret := range []string{"horse", "proves-it", "only-for-looking"} {
			if strings.Contains(p.log(site), secret) {
				p.t.Errorf("site %d's log shows a secret", site)
			}
		}
	}
}

// TestCHAPLinux: the Linux initiator, discovery and login, one way and mutual, right
// and wrong.
func TestCHAPLinux(t *testing.T) {
	t.Parallel()
	needVM(t)
	p := startPair(t, guarded)
	_, port, err := net.SplitHostPort(p.portals[0])
	if err != nil {
		t.Fatal(err)
	}
	inVM(t, "chap.sh", nil, port, pairIQN)
	p.wantLog(0, "login refused", "initiator=iqn.2000-01.org.example:initiator-vm", "status=0x0201", `the secret of CHAP user \"web\" is wrong`)
	p.wantLog(0, "login refused", "initiator=iqn.2000-01.org.example:initiator-vm", "target="+pairIQN, "the initiator skips authentication")
	p.wantLog(0, "no login", "initiator=iqn.2000-01.org.example:initiator-vm", "EOF") // after a wrong proof of ours
	p.wantLog(0, "session opened", "initiator=iqn.2000-01.org.example:initiator-vm", "user=web")
	p.noSecrets()
}

// TestStrangers: a host that is not on the list is told so.
func TestStrangers(t *testing.T) {
	t.Parallel()
	need(t, "iscsi-inq", "iscsi-ls")
	p := startPair(t, "hosts: [{initiator: \"iqn.1993-08.org.debian:*\"}]\n")
	url := "iscsi://" + p.portals[0] + "/" + pairIQN + "/0"
	tool(t, "iscsi-inq", "-i", "iqn.1993-08.org.debian:01:web", url)
	if out, err := try("iscsi-inq", "-i", "iqn.1993-08.org.devuan:01:web", url); err == nil {
		t.Errorf("another host is let in:\n%s", out)
	}
	if ls := tool(t, "iscsi-ls", "-i", "iqn.1993-08.org.debian:01:web", "iscsi://"+p.portals[0]); !strings.Contains(ls, pairIQN) {
		t.Errorf("iscsi-ls: %s", ls)
	}
	if ls, _ := try("iscsi-ls", "-i", "iqn.1993-08.org.devuan:01:web", "iscsi://"+p.portals[0]); strings.Contains(ls, pairIQN) {
		t.Errorf("another host is told of the target:\n%s", ls)
	}
	p.wantLog(0, "login refused", "initiator=iqn.1993-08.org.devuan:01:web", "status=0x0202", "not on the access list")
}

// TestSecretFile: a secret in a file that everybody can read is used, with a warning.
func TestSecretFile(t *testing.T) {
	t.Parallel()
	need(t, "iscsi-inq")
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("correct-horse-battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	p := startPair(t, "hosts: [{initiator: \"*\", user: web, secret-file: "+file+"}]\n")
	tool(t, "iscsi-inq", p.url(0, "web", "correct-horse-battery"))
	p.wantLog(0, "level=WARN", file+" has a secret, and everybody on this machine can read it")
}

// TestHangup: SIGHUP reads hosts anew, and keeps them if the file is wrong.
func TestHangup(t *testing.T) {
	t.Parallel()
	need(t, "iscsi-inq")
	const before, after = "hosts: [{initiator: \"*\"}]\n", "hosts: [{initiator: \"*\", user: web, secret: correct-horse-battery}]\n"
	p := startPair(t, before)
	open := "iscsi://" + p.portals[0] + "/" + pairIQN + "/0"
	tool(t, "iscsi-inq", open)
	p.hangup(0, before, after, "the configuration is taken over")
	if out, err := try("iscsi-inq", open); err == nil {
		t.Errorf("let in without a secret:\n%s", out)
	}
	tool(t, "iscsi-inq", p.url(0, "web", "correct-horse-battery"))
	p.hangup(0, "correct-horse-battery", "short", "the configuration is not taken over")
	tool(t, "iscsi-inq", p.url(0, "web", "correct-horse-battery"))
	p.noSecrets()
}
