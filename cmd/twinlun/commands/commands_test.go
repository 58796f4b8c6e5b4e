package commands

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/member"
	"github.com/twinlun/twinlun/test/golden"
	"github.com/twinlun/twinlun/test/solo"
	"github.com/twinlun/twinlun/webui/api"
)

// naa are identifiers that are made of random ones.
var naa = regexp.MustCompile(`3[0-9a-f]{15}0{16}`)

// transcript is what is typed and printed in a terminal of node a.
type transcript struct {
	t      *testing.T
	socket string
	text   strings.Builder
}

// run runs a command; an answer to its question can be given. PATH of a file is FILE in the
// transcript.
func (s *transcript) run(typed, line string, files ...string) {
	s.t.Helper()
	args := strings.Fields(line)
	for i, f := range files {
		name := fmt.Sprintf("FILE%d", i+1)
		for j := range args {
			args[j] = strings.ReplaceAll(args[j], name, f)
		}
	}
	out, err := twinlun(s.t, typed, append(args, "--socket", s.socket)...)
	fmt.Fprintf(&s.text, "$ twinlun %s\n%s", line, naa.ReplaceAllString(out, strings.Repeat("N", 32)))
	if err != nil {
		fmt.Fprintf(&s.text, "twinlun: %v\n", err)
	}
}

// two is a terminal at a cluster of two nodes, in which it is always the same time.
func two(t *testing.T) (*transcript, *solo.Node) {
	t.Helper()
	_, n, socket := solo.Serve(t)
	n.Now = func() time.Time { return time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC) }
	if err := n.Two(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &transcript{t: t, socket: socket}, n
}

// write makes a file.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestTranscript is an operator's day.
func TestTranscript(t *testing.T) {
	s, _ := two(t)
	const iqn = "iqn.2026-01.org.example:disks"
	secret := write(t, "secret", "a secret of more\n")
	for _, x := range []struct{ typed, line string }{
		{"", "node list"},
		{"", "token list"},
		{"", "lun create disk --size 100GiB --replica a --replica b=/dev/vg0/disk"},
		{"", "lun create disk --size 1GiB --replica a"},
		{"", "lun create x --size 1.5GiB --replica a"},
		{"", "lun grow disk 200GiB"},
		{"", "lun set disk --loss serve-stale --preferred b"},
		{"", "lun list"},
		{"", "target put " + iqn + " --alias disks --portal a=192.0.2.1:3260 --portal b=192.0.2.2:3260"},
		{"", "target put " + iqn + " --portal 192.0.2.1:3260"},
		{"", "group put db"},
		{"", "host put db1 --initiator iqn.2026-01.org.example:db1 --group db --user db1 --secret-file FILE1"},
		{"", "host put web --initiator iqn.2026-01.org.example:web --site oslo"},
		{"", "host put web --initiator iqn.2026-01.org.example:web --site rome"},
		{"", "host list"},
		{"", "group list"},
		{"", "mapping add disk 0 --group db"},
		{"", "mapping add disk 5 --host web"},
		{"", "mapping add disk 20000 --host web"},
		{"", "mapping list"},
		{"", "discovery show"},
		{"", "discovery set"},
		{"", "discovery set --user look --secret-file FILE1"},
		{"no\n", "discovery open"},
		{"open\n", "discovery open"},
		{"", "settings show"},
		{"", "settings set --lease 3s --copy-rate 100MiB"},
		{"", "settings set --lease 1m"},
		{"", "event list --last 3"},
		{"", "event list --after 4 --last 1 -o json"},
		{"", "status -o xml"},
		{"", "status"},
		{"", "lun replica drain disk a --wait 1ms"},
		{"", "lun replica resume disk a"},
		{"", "lun replica move disk a nowhere --yes"},
		{"", "lun replica move disk a b --yes"},
		{"", "lun replica remove disk a --yes --wait 1ms"},
		{"", "lun replica resume disk a"},
		{"", "lun delete disk --yes"},
		{"", "mapping remove 5 --host web"},
		{"web\n", "host delete db1"},
		{"", "host delete db1 --yes"},
		{"db\n", "group delete db"},
		{"disk\n", "lun delete disk"},
		{"", "lun list"},
		{"", "lun list -o json"},
		{"", "target delete " + iqn},
		{"", "node remove b -y"},
	} {
		s.run(x.typed, x.line, secret)
	}
	golden.Compare(t, "testdata/transcript.txt", s.text.String())
}

// TestForceAlone: it is asked what it costs, and nobody forces by mistake.
func TestForceAlone(t *testing.T) {
	s, n := two(t)
	for _, x := range []struct{ typed, line string }{
		{"", "lun create disk --size 100GiB --replica a --replica b"},
		{"", "lun force-alone disk"},
		{"", "lun force-alone disk --node b"},
		{"", "lun force-alone disc --node a"},
		{"yes\n", "lun force-alone disk --node a"},
		{"", "lun force-alone disk --node a --yes-i-know disc"},
		{"", "lun force-alone disk --node a --yes-i-know disk --loss lose"},
	} {
		s.run(x.typed, x.line)
	}
	n.Refusal = "a majority is there"
	s.run("disk\n", "lun force-alone disk --node a")
	if n.Refusal = ""; len(n.Forced) > 0 {
		t.Errorf("forced: %v", n.Forced)
	}
	s.run("disk\n", "lun force-alone disk --node a")
	s.run("", "lun force-alone disk --node a --yes-i-know disk --loss serve-stale")
	ago := regexp.MustCompile(`[-0-9]+ [0-9:]+, [0-9hms]+ ago`)
	golden.Compare(t, "testdata/force.txt", ago.ReplaceAllString(s.text.String(), "TIME"))
	if want := "[disk disk serve-stale]"; fmt.Sprint(n.Forced) != want {
		t.Errorf("forced: %v, want %s", n.Forced, want)
	}
}

// TestRecover: it is told what is lost, and nobody recovers by mistake.
func TestRecover(t *testing.T) {
	s, n := two(t)
	n.Left = member.Recovery{GiveUp: []member.Lost{{Name: "b", Heard: time.Now().Add(-time.Hour)}}, Applied: 57, AppliedAt: time.Now().Add(-90 * time.Second)}
	s.run("", "lun create disk --size 100GiB --replica a --replica b")
	s.run("", "lun create lost --size 1GiB --replica b")
	for _, x := range []struct{ typed, line string }{
		{"", "cluster recover --yes"},
		{"yes\n", "cluster recover"},
		{"", "cluster recover --yes-i-know disk"},
	} {
		s.run(x.typed, x.line)
	}
	n.Left.Refusal = errors.New("a majority is there")
	s.run("test\n", "cluster recover")
	if n.Left.Refusal = nil; n.Group().State().Recoveries() != 0 {
		t.Error("it was recovered")
	}
	s.run("test\n", "cluster recover")
	s.run("", "node list")
	n.Left.GiveUp = []member.Lost{{Name: "x", Witness: true}}
	s.run("", "cluster recover --yes-i-know test")
	ago := regexp.MustCompile(`[-0-9]+ [0-9:]+, [0-9hms]+ ago`)
	golden.Compare(t, "testdata/recover.txt", ago.ReplaceAllString(s.text.String(), "TIME"))
}

const document = `
luns:
  - name: disk
    size: 100GiB
    replicas: [{node: a}, {node: b, path: /dev/vg0/disk}]
targets:
  - name: iqn.2026-01.org.example:disks
    portals: [{node: a, address: "192.0.2.1:3260"}, {node: b, address: "192.0.2.2:3260"}]
hosts:
  - {name: web7, initiators: ["iqn.1993-08.org.debian:01:web7"], user: web7, secret_file: web7.secret}
mappings:
  - {host: web7, number: 0, lun: disk}
settings: {copy_rate: 100MiB}
`

// TestApply is a document that changes.
func TestApply(t *testing.T) {
	s, n := two(t)
	path := write(t, "cluster.yaml", document)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "web7.secret"), []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("", "apply -f FILE1 --dry-run", path)
	if _, found := n.Group().State().LUNNamed("disk"); found {
		t.Error("a dry run has made a LUN")
	}
	s.run("", "apply -f FILE1", path)
	s.run("", "apply -f FILE1", path)
	changed := strings.NewReplacer("100GiB", "200GiB", "number: 0", "number: 7").Replace(document)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("no\n", "apply -f FILE1", path)
	s.run("apply\n", "apply -f FILE1", path)
	s.run("", "mapping list")
	s.run("", "apply")
	s.run("", "apply -f none.yaml")
	s.run("settings: {lease: 1m}", "apply -f -")
	golden.Compare(t, "testdata/apply.txt", s.text.String())

	out, err := twinlun(t, changed, "apply", "-f", path, "-o", "json", "--socket", s.socket)
	var p api.Plan
	if err != nil || json.Unmarshal([]byte(out), &p) != nil || p.ID == "" || p.Changes == nil || len(p.Changes) != 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestReadme applies the document of the README.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "## Commands\n")
	_, rest, _ = strings.Cut(rest, "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	d, err := parseDocument([]byte(example), func(string) (string, error) { return "correct horse battery", nil })
	if err != nil {
		t.Fatal(err)
	}
	c, n, _ := solo.Serve(t)
	if err := n.Two(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Apply(t.Context(), api.Apply{Document: *d}); err != nil || len(p.Changes) < 9 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestFollow follows events until the command is interrupted.
func TestFollow(t *testing.T) {
	s, n := two(t)
	g := n.Group()
	last := uint64(0)
	for e := range g.State().Events(0) {
		last = e.Number
	}
	ctx, r, w := interrupted(t)
	done := make(chan error, 1)
	go func() {
		root := command(w, "event", "follow", "--after", fmt.Sprint(last-1), "--socket", s.socket)
		done <- root.ExecuteContext(ctx)
	}()
	if line := r.line(t); !strings.Contains(line, "node b") {
		t.Errorf("the last event is %q", line)
	}
	for i := range 3 {
		logged(t, g, fmt.Sprint("fan ", i))
		if line := r.line(t); line != fmt.Sprintf("2026-02-03T04:05:06Z alert   node a fan %d\n", i) {
			t.Errorf("%q", line)
		}
	}
	r.interrupt()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestDocumentErrors tells people what is wrong with a document.
func TestDocumentErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "there is nothing in it",
		"luns":                             "cannot unmarshal",
		"a: [":                             "yaml: ",
		"lun: []":                          `unknown key "lun"; allowed at the top are discovery, groups, hosts, luns`,
		"luns: {name: x}":                  "luns: a list is wanted",
		"luns: [x]":                        "luns, entry 1: keys and values are wanted",
		"luns: [{name: x}, {nam: y}]":      `luns, entry 2: unknown field "nam"`,
		"luns: [{name: x, size: 1 piece}]": `luns, entry 1: size: "1 piece" is not a number of bytes`,
		"luns: [{name: x, size: 1.5}]":     "luns, entry 1: cannot unmarshal number 1.5",
		"luns: [{name: x, read_only: sometimes}]":                "cannot unmarshal string",
		"luns: [{name: x, 1: y}]":                                "luns, entry 1: keys and values are wanted here",
		"luns: [{name: x, name: y}]":                             "already defined",
		"hosts: [{name: x, secret: 000123456789}]":               "cannot unmarshal number",
		"hosts: [{name: x, secret: x, secret_file: y}]":          "both secret and secret_file",
		"hosts: [{name: x, secret_file: [y]}]":                   "the path of a file",
		"hosts: [{name: x, target_secret_file: z}]":              "hosts, entry 1: target_secret_file: no z",
		"discovery: [x]":                                         "discovery: keys and values are wanted",
		"settings: {copy_rate: fast}":                            "settings: copy_rate: ",
		"settings: {lease: fast}":                                "settings: ",
		"settings: {lease: 3s}\n---\nsettings: {}":               "a second document",
		"mappings: [{number: 70000, lun: x, host: y}]":           "mappings, entry 1: ",
		strings.Repeat("#", maxDocument+1):                       "more than 1048576 bytes",
		"a: &a [x,x,x,x,x,x,x,x,x]\nluns: [{name: *a}]":          "unknown key",
		"luns: " + strings.Repeat("[", 20000):                    "yaml: ",
		"settings: {lease: 2026-01-01}":                          "settings: ",
		"groups: [{name: .nan}]":                                 "what JSON can have",
		"groups: [{name: x, <<: {name: y, hosts: [a]}}]":         `unknown field "hosts"`,
		"groups:\n- name: x\n  name2: y\nhosts: []\ncolour: red": `unknown key "colour"`,
	} {
		_, err := parseDocument([]byte(text), func(path string) (string, error) { return "", fmt.Errorf("no %s", path) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

// FuzzDocument reads anything as a document. What it takes is the same when it is read
// again, as the JSON that is sent.
func FuzzDocument(f *testing.F) {
	for _, text := range []string{document, "luns: [{name: x, size: 1GiB}]", "a: &a {b: *a}", "x: !!binary aGk=", "{\"luns\": []}", "settings: {copy_rate: 0}", "<<: {}"} {
		f.Add([]byte(text))
	}
	secret := func(path string) (string, error) { return "secret of " + path, nil }
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := parseDocument(text, secret)
		if err != nil {
			return
		}
		sent, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if string(sent) == "{}" {
			return // lists with nothing in them
		}
		again, err := parseDocument(sent, secret)
		if err != nil {
			t.Fatalf("%s: %v", sent, err)
		}
		if got, err := json.Marshal(again); err != nil || string(got) != string(sent) {
			t.Errorf("%s is read as %s, %v", sent, got, err)
		}
	})
}
