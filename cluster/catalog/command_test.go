package catalog

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

const header = `{"v":1,"kind":"put-group","id":"0000000c-0000-0000-0000-000000000001","time":5,"by":"eve","body":`

// TestEncode is the form of a command.
func TestEncode(t *testing.T) {
	c := Command{ID: id(12), Time: 5, By: "eve", Body: &PutGroup{Name: "db"}}
	raw, err := c.Encode()
	if want := header + `{"name":"db"}}`; err != nil || string(raw) != want {
		t.Errorf("got %s, %v; want %s", raw, err, want)
	}
	if _, err := (Command{Body: &LogEvent{Text: strings.Repeat("x", MaxCommand)}}).Encode(); err == nil || !strings.Contains(err.Error(), "several steps") {
		t.Errorf("a long command: %v", err)
	}
	many := &TakeAlone{Steps{Node: NodeID(strings.Repeat("n", maxNode)), Epoch: id(1), LUNs: make([]Step, MaxSteps)}}
	for i := range many.LUNs {
		many.LUNs[i].Term, many.LUNs[i].Join = 1<<64-1, 1<<64-1
	}
	if _, err := (Command{Body: many}).Encode(); err != nil {
		t.Errorf("all LUNs at once: %v", err)
	}
}

// unreadables are commands that stop a node: what it cannot read it must not skip.
var unreadables = []struct{ name, raw, want string }{
	{"newer", `{"v":2,"kind":"dance","how":"tango"}`, "older than the cluster's commands (version 2, this program knows 1); upgrade it"},
	{"unknown kind", `{"v":1,"kind":"dance","id":"0000000c-0000-0000-0000-000000000001","time":5,"body":{}}`, `the command "dance" of version 1 does not exist`},
	{"version 0", `{"v":0,"kind":"put-group","id":"0000000c-0000-0000-0000-000000000001","time":5,"body":{"name":"db"}}`, "of version 0 does not exist"},
	{"unknown field", header + `{"name":"db","colour":"red"}}`, `unknown field "colour"`},
	{"unknown field of all", strings.Replace(header, `"by"`, `"for"`, 1) + `{"name":"db"}}`, `unknown field "for"`},
	{"type", header + `{"name":5}}`, "cannot unmarshal number"},
	{"no body", header + `null}`, "no JSON object"},
	{"cut", header, "unexpected end"},
	{"empty", "", "unexpected end"},
	{"more", header + `{"name":"db"}}{}`, "after top-level value"},
	{"list", `[1]`, "cannot unmarshal array"},
	{"id", strings.Replace(header, "0000000c-", "0000000C-", 1) + `{"name":"db"}}`, "is no UUID"},
	{"long", strings.Repeat(" ", MaxCommand+1), "a command of 1048577 bytes"},
}

func TestUnreadable(t *testing.T) {
	for _, c := range unreadables {
		r := cluster(t)
		before := r.s
		next, _, err := r.s.Apply(r.index+1, []byte(c.raw))
		if !errors.Is(err, ErrCannotRead) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want …%s…", c.name, err, c.want)
		}
		good, _ := r.command(&PutGroup{Name: "db"}).Encode()
		after, _, errAgain := next.Apply(r.index+2, good)
		if after != next || errAgain == nil || next.Stopped() == nil || errAgain.Error() != next.Stopped().Error() {
			t.Errorf("%s: the node goes on: %v", c.name, errAgain)
		}
		if _, err := next.WriteTo(new(bytes.Buffer)); !errors.Is(err, ErrCannotRead) {
			t.Errorf("%s: a snapshot of it says that it is applied: %v", c.name, err)
		}
		if err := next.Check(r.command(&PutGroup{Name: "db"})); !errors.Is(err, ErrCannotRead) {
			t.Errorf("%s: Check says %v", c.name, err)
		}
		if before.Stopped() != nil || before.Check(r.command(&PutGroup{Name: "db"})) != nil {
			t.Errorf("%s: the state before it is not what it was", c.name)
		}
	}
}

// TestVersions: newer commands can be used when all nodes know them. The version of the
// program is 1, so that of a command is only pretended.
func TestVersions(t *testing.T) {
	r := cluster(t)
	r.refuseAll([]refusal{
		{&RaiseVersion{2}, Unsupported, "node a knows version 1, and not 2; upgrade it"},
		{&RaiseVersion{1}, Invalid, "no way back"},
	})
	for _, name := range []NodeID{"a", "b", "c"} {
		r.must(&ChangeNode{Name: name, Version: ptr(2)})
	}
	r.refused(&RaiseVersion{2}, Unsupported, "node w knows version 1")
	if _, res := r.s.apply(r.index+1, r.command(&PutGroup{Name: "db"}), 2); res.Error == nil || res.Error.Code != Unsupported {
		t.Errorf("a command that not all nodes know: %+v", res)
	}
	r.must(&RemoveNode{"w"}, &RaiseVersion{2})
	if _, res := r.s.apply(r.index+1, r.command(&PutGroup{Name: "db"}), 2); res.Error != nil {
		t.Errorf("one that all nodes know: %v", res.Error)
	}
	r.refused(&ChangeNode{Name: "a", Version: ptr(1)}, Conflict, "uses commands of version 2")
	r.must(&AddToken{sha(60), r.now + 100000})
	r.refused(&AdmitNode{sha(60), newNode("d", "rome", 9)}, Unsupported, "node d knows commands of version 1")
	if _, err := Read(bytes.NewReader(r.bytes())); !errors.Is(err, ErrCannotRead) || !strings.Contains(err.Error(), "upgrade it") {
		t.Errorf("a snapshot of a cluster that uses version 2: %v", err)
	}
}

// story is every kind of command, and all succeed.
func story(t testing.TB) (all [][]byte) {
	r := fresh(t)
	tell := func(bodies ...Body) {
		for _, b := range bodies {
			c := r.command(b)
			raw, err := c.Encode()
			if res := r.run(c); err != nil || res.Error != nil {
				t.Fatalf("%s: %v, %v", b.Kind(), err, res.Error)
			}
			all = append(all, raw)
		}
	}
	take := func(node NodeID, term uint64, join uint64) Steps {
		return Steps{node, id(int(900 + term)), []Step{{id(20), term, join}}}
	}
	expires := start + 100_000_000
	tell(&InitCluster{Cluster{id(1), "prod"}, newNode("a", "berlin", 1)},
		&AddToken{sha(11), expires}, &AdmitNode{sha(11), newNode("b", "paris", 2)},
		&AddToken{sha(12), expires}, &AdmitNode{sha(12), witness("w", 3)},
		&AddToken{sha(13), expires}, &AdmitNode{sha(13), newNode("c", "paris", 4)},
		&AddToken{sha(14), expires}, &AddToken{sha(15), expires}, &RemoveToken{sha(15)},
		&ChangeNode{Name: "b", Addresses: []string{"192.0.2.2:7480", "[2001:db8::2]:7480"}, Voter: ptr(true), Version: ptr(1), Site: ptr("rome")},
		&ChangeNode{Name: "b", Site: ptr("paris")}, &RemoveNode{"c"},
		&RenameCluster{"production"},
		&ChangeSettings{ptr(DefaultSettings.Heartbeat), ptr(3 * DefaultSettings.PreferredDelay), ptr(DefaultSettings.PreferredDelay), ptr(DefaultSettings.ColdAfter), ptr(DefaultSettings.HoldWait), ptr[int64](1 << 20), ptr(false)},
		lun(20, "disk", "a b"), lun(21, "scratch", "a"), lun(22, "gone", "b"),
		&ChangeLUN{ID: id(20), Name: ptr("data"), Size: ptr[int64](2 << 30), Preferred: ptr[NodeID]("b"), Loss: ptr(ServeStale), ReadOnly: ptr(false), Removable: ptr(true)},
		&TakeAlone{take("a", 1, 0)}, &JoinBoth{take("a", 2, 7)}, &Leave{take("b", 3, 0)}, &ForceAlone{take("b", 3, 0)}, &ForceAlone{take("b", 4, 0)},
		&JoinBoth{take("b", 1<<32, 8)}, &AddReplica{id(21), Replica{Node: "b", Kind: Block, Path: "/dev/vg0/scratch"}}, &DrainReplica{id(21), "b", true}, &DrainReplica{id(21), "b", false}, &RemoveReplica{id(21), "b"}, &RemoveLUN{id(22)},
		&PutTarget{Name: iqn, Alias: "Disks & more", Portals: []Portal{{"a", "192.0.2.1:3260"}, {"b", ":3260"}}},
		&PutTarget{Name: iqn + "2"}, &RemoveTarget{iqn + "2"},
		&PutGroup{Name: "db"}, &PutGroup{Name: "gone"}, &RemoveGroup{"gone"},
		&PutHost{Name: "web7", Initiators: []string{"iqn.1993-08.org.debian:01:web7"}, Site: "berlin", CHAP: chap("web7")},
		&PutHost{Expect: Expect{ptr(uint64(0))}, Name: "db1", Initiators: []string{"iqn.1993-08.org.debian:db1:*"}, Group: "db"},
		&PutHost{Name: "gone", Initiators: []string{"*"}}, &RemoveHost{"gone"}, &SetDiscovery{chap("look")},
		&Map{Mapping{iqn, Subject{Host: "web7"}, 0, id(20)}}, &Map{Mapping{iqn, Subject{Group: "db"}, 5, id(20)}},
		&Map{Mapping{iqn, Subject{Group: "db"}, 6, id(21)}}, &Unmap{iqn, Subject{Group: "db"}, 6},
		&ReserveOut{LUN: id(20), From: Nexus{"iqn.a,i,0x1", 1}, NewKey: 7, Ports: []uint16{1, 2}, Persist: true},
		&ReserveOut{LUN: id(20), Action: 1, From: Nexus{"iqn.a,i,0x1", 1}, Key: 7, Type: 5},
		&ReserveOut{LUN: id(20), Action: 7, From: Nexus{"iqn.a,i,0x1", 1}, Key: 7, NewKey: 1<<64 - 1, To: &Nexus{"iqn.b,i,0x1", 1}, Leave: true},
		&ReserveOut{LUN: id(21), From: Nexus{"iqn.a,i,0x1", 1}, NewKey: 7, Listed: true, Others: []string{"iqn.b,i,0x1"}},
		&PutUser{Name: "eve", Password: "$argon2id$x", Role: Admin}, &PutUser{Name: "bob", Role: Viewer, Disabled: true},
		&AddAPIToken{id(30), "backup", "eve", sha(30), Operator, expires}, &AddAPIToken{id(31), "gone", "eve", sha(31), Viewer, 0},
		&RemoveAPIToken{id(31)}, &RemoveUser{"bob"},
		&LogEvent{Warning, "LUN data", "3 extents are held"}, &RecoverCluster{"a", []NodeID{"w"}})
	// This one waits until there is a version 2; it is refused, and that too must stay.
	refused := r.command(&RaiseVersion{2})
	r.run(refused)
	raw, _ := refused.Encode()
	return append(all, raw)
}

// TestGolden: commands and snapshots of version 1 are read for ever, mean what they meant,
// and a new program writes what it can write as an old one did.
func TestGolden(t *testing.T) {
	commands, snapshot := filepath.Join("testdata", "commands.v1"), filepath.Join("testdata", "snapshot.v1")
	if *update {
		all := story(t)
		s := applyAll(t, all)
		write(t, commands, append(bytes.Join(all, []byte("\n")), '\n'))
		write(t, snapshot, bytesOf(t, s))
	}
	seen := map[string]bool{}
	var all [][]byte
	for _, raw := range lines(t, commands) {
		c, err := Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		seen[c.Body.Kind()] = true
		if again, err := c.Encode(); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%s\nbecame %s, %v", raw, again, err)
		}
		all = append(all, raw)
	}
	for kind, k := range kinds {
		if got := k.body().Kind(); got != kind || k.since == 1 && !seen[kind] {
			t.Errorf("kind %s calls itself %s, in the golden file: %t", kind, got, seen[kind])
		}
	}
	want, err := os.ReadFile(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if got := bytesOf(t, applyAll(t, all)); !bytes.Equal(got, want) {
		t.Errorf("the golden commands lead to\n%s\nand not to the golden snapshot", got)
	}
	s, err := Read(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	if got := bytesOf(t, s); !bytes.Equal(got, want) {
		t.Errorf("the golden snapshot became\n%s", got)
	}
}

func applyAll(t testing.TB, all [][]byte) *State {
	t.Helper()
	s := New()
	for i, raw := range all {
		var err error
		if s, _, err = s.Apply(uint64(i+1), raw); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func lines(t testing.TB, path string) (all [][]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Buffer(nil, MaxCommand); scan.Scan(); {
		all = append(all, slices.Clone(scan.Bytes()))
	}
	if scan.Err() != nil || len(all) == 0 {
		t.Fatalf("%s: %d lines, %v", path, len(all), scan.Err())
	}
	return all
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// FuzzDecode reads any command: what it takes it writes as something that it takes for
// the same, and what it does to a catalog leaves it sound, and the same everywhere.
func FuzzDecode(f *testing.F) {
	for _, raw := range lines(f, filepath.Join("testdata", "commands.v1")) {
		f.Add(raw)
	}
	for _, c := range unreadables {
		if len(c.raw) < 1000 {
			f.Add([]byte(c.raw))
		}
	}
	r := whole(f)
	copied, err := Read(bytes.NewReader(r.bytes()))
	if err != nil {
		f.Fatal(err)
	}
	before := r.bytes()
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := Decode(raw)
		next, result, errApply := r.s.Apply(r.index+1, raw)
		if (err == nil) != (errApply == nil) {
			t.Fatalf("Decode says %v, Apply %v", err, errApply)
		}
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			return // longer than it was, as characters are written otherwise
		}
		back, err := Decode(again)
		if twice, _ := back.Encode(); err != nil || !bytes.Equal(twice, again) {
			t.Fatalf("%s became %s, %v", again, twice, err)
		}
		if err := (&change{State: *next}).check(); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		other, _, _ := copied.Apply(r.index+1, again)
		if !next.Equal(other) {
			t.Fatalf("%s leads to other states at two nodes", raw)
		}
		if !result.Repeated && (r.s.Check(c) == nil) != (result.Error == nil) {
			t.Fatalf("%s: Check says %v, Apply %v", raw, r.s.Check(c), result.Error)
		}
		if !bytes.Equal(bytesOf(t, r.s), before) {
			t.Fatalf("%s changed a state that was made", raw)
		}
	})
}
