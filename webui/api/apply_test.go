package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/member"
	"github.com/twinlun/twinlun/test/solo"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

// whole is a document with everything.
const whole = `{
	"settings": {"lease": "3s", "copy_rate": 1048576},
	"discovery": {"user": "look", "secret": "only for looking"},
	"groups": [{"name": "db"}],
	"luns": [
		{"name": "one", "size": 1073741824, "replicas": [{"node": "a"}, {"node": "b", "path": "/dev/vg0/one"}], "loss": "serve-stale"},
		{"name": "two", "size": 2097152, "block_size": 4096, "replicas": [{"node": "b"}]}
	],
	"targets": [{"name": "iqn.2026-01.io.github.twinlun:disks", "alias": "disks", "portals": [{"node": "a", "address": ":3260"}, {"node": "b", "address": ":3260"}]}],
	"hosts": [
		{"name": "web", "initiators": ["iqn.x:web"], "site": "paris", "user": "web", "secret": "a secret of more", "target_user": "disks", "target_secret": "another secret"},
		{"name": "db1", "initiators": ["iqn.x:db1", "iqn.x:db1b"], "group": "db"}
	],
	"mappings": [{"host": "web", "number": 0, "lun": "one"}, {"group": "db", "number": 0, "lun": "two"}, {"group": "db", "number": 1, "lun": "one"}]
}`

// doc is a document. It is read as the API does not: without looking for what is unknown.
func doc(t *testing.T, text string) (d api.Document) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// lines are changes in short.
func lines(p api.Plan) (text string) {
	for _, c := range p.Changes {
		mark := ""
		if c.Takes {
			mark = "!"
		}
		text += mark + c.Kind + " " + c.Subject
		for _, f := range c.Fields {
			text += fmt.Sprintf(" %s=%s>%s", f.Name, f.From, f.To)
		}
		text += "\n"
	}
	return text
}

// applied applies a document, and checks what is said of it, that a dry run has said the
// same and done nothing, and that nothing is left to do.
func applied(t *testing.T, c *client.Client, n *solo.Node, text, want string) {
	t.Helper()
	ctx := t.Context()
	before := n.Group().State()
	dry := must[api.Plan](t)(c.Apply(ctx, api.Apply{Document: doc(t, text), DryRun: true}))
	if n.Group().State() != before || dry.Done {
		t.Error("a dry run has done something")
	}
	if got := lines(dry); got != want {
		t.Errorf("%s\nchanges\n%swant\n%s", text, got, want)
	}
	done := must[api.Plan](t)(c.Apply(ctx, api.Apply{Document: doc(t, text), Plan: dry.ID}))
	if !done.Done || lines(done) != lines(dry) {
		t.Errorf("done: %+v, shown: %+v", done, dry)
	}
	if got := n.Group().State().Index() - before.Index(); got != uint64(len(dry.Changes)) {
		t.Errorf("%d commands for %d changes", got, len(dry.Changes))
	}
	if again := must[api.Plan](t)(c.Apply(ctx, api.Apply{Document: doc(t, text)})); len(again.Changes) != 0 {
		t.Errorf("a second time it changes\n%s", lines(again))
	}
}

// TestApply begins with an empty cluster, and goes on to change what is there.
func TestApply(t *testing.T) {
	c, n, _ := solo.Serve(t)
	_, err := c.Apply(t.Context(), api.Apply{Document: doc(t, whole)})
	wants(t, err, api.CodeNoCluster)
	if err := n.Two(t.Context()); err != nil {
		t.Fatal(err)
	}
	applied(t, c, n, whole, `change-settings settings lease=2s>3s copy_rate=0>1048576
set-discovery discovery user=>look secret=>
put-group group db
add-lun LUN one size=>1073741824 replicas=>a=/var/lib/twinlund/luns/one.img, b=/dev/vg0/one
add-lun LUN two size=>2097152 replicas=>b=/var/lib/twinlund/luns/two.img
put-target target `+iqn+` alias=>disks portals=>a=:3260, b=:3260
put-host host web initiators=>iqn.x:web user=>web secret=> target_user=>disks target_secret=> site=>paris
put-host host db1 initiators=>iqn.x:db1, iqn.x:db1b group=>db
map LUN 0 of host web at `+iqn+` lun=>one
map LUN 0 of group db at `+iqn+` lun=>two
map LUN 1 of group db at `+iqn+` lun=>one
`)
	if l := must[catalog.LUN](t)(c.LUN(t.Context(), "one")); l.Replicas[1].Kind != catalog.Block || l.BlockSize != 512 || l.ExtentSize != 65536 || l.Preferred != "a" || l.NAA != api.NAA(l.ID) {
		t.Errorf("%+v", l)
	}
	for _, x := range []struct{ doc, want string }{
		{`{}`, ""},
		{`{"luns": [{"name": "one", "size": 2147483648, "loss": "hold", "read_only": true}]}`,
			"!change-lun LUN one size=1073741824>2147483648 loss=serve-stale>hold read_only=false>true\n"},
		{`{"luns": [{"name": "one", "read_only": false}]}`, "change-lun LUN one read_only=true>false\n"},
		{`{"luns": [{"name": "two", "replicas": [{"node": "a", "path": "/srv/two"}, {"node": "b"}], "preferred": "a", "removable": true}]}`,
			"add-replica LUN two replicas=b=/var/lib/twinlund/luns/two.img>b=/var/lib/twinlund/luns/two.img, a=/srv/two\n" +
				"change-lun LUN two preferred=b>a removable=false>true\n"},
		// A secret that is another one shows as such, and is not told.
		{`{"hosts": [{"name": "web", "secret": "a secret of less"}]}`, "!put-host host web secret=>\n"},
		{`{"hosts": [{"name": "web", "target_user": "", "site": ""}]}`, "!put-host host web target_user=disks> site=paris>\n"},
		// An initiator goes to another host, which stands before the one that has it.
		{`{"hosts": [{"name": "web", "initiators": ["iqn.x:db1b"]}, {"name": "db1", "initiators": ["iqn.x:db1", "iqn.x:new"]}]}`,
			"!put-host host db1 initiators=iqn.x:db1, iqn.x:db1b>iqn.x:db1, iqn.x:new\n!put-host host web initiators=iqn.x:web>iqn.x:db1b\n"},
		// The numbers of two LUNs are exchanged, a third one goes where one was.
		{`{"mappings": [{"group": "db", "number": 1, "lun": "two"}, {"group": "db", "number": 0, "lun": "one"}]}`,
			"!unmap LUN 0 of group db at " + iqn + " lun=two>\n!unmap LUN 1 of group db at " + iqn + " lun=one>\n" +
				"map LUN 1 of group db at " + iqn + " lun=>two\nmap LUN 0 of group db at " + iqn + " lun=>one\n"},
		{`{"mappings": [{"host": "web", "number": 7, "lun": "one"}]}`,
			"!unmap LUN 0 of host web at " + iqn + " lun=one>\nmap LUN 7 of host web at " + iqn + " lun=>one\n"},
		{`{"targets": [{"name": "` + iqn + `", "portals": [{"node": "b", "address": ":3260"}, {"node": "a", "address": ":3260"}]}]}`, ""},
		{`{"targets": [{"name": "` + iqn + `", "portals": [{"node": "b", "address": ":3260"}]}]}`,
			"!put-target target " + iqn + " portals=a=:3260, b=:3260>b=:3260\n"},
		{`{"discovery": {"user": ""}}`, "set-discovery discovery user=look>\n"},
	} {
		applied(t, c, n, x.doc, x.want)
	}
}

// TestApplyRefused tries documents that cannot be carried out; nothing of them is.
func TestApplyRefused(t *testing.T) {
	c, n, _ := solo.Serve(t)
	if err := n.Two(t.Context()); err != nil {
		t.Fatal(err)
	}
	must[api.Plan](t)(c.Apply(t.Context(), api.Apply{Document: doc(t, whole)}))
	before := n.Group().State()
	for text, want := range map[string][]string{
		`{"luns": [{"name": "one", "size": 1048576}]}`:                                                                            {"conflict", "cannot shrink"},
		`{"luns": [{"name": "one", "block_size": 4096}]}`:                                                                         {"conflict", "block_size: LUN one has 512"},
		`{"luns": [{"name": "one", "id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}]}`:                                               {"conflict", "it is for good"},
		`{"luns": [{"name": "one", "replicas": [{"node": "a"}]}]}`:                                                                {"conflict", "replica at node b", "twinlun lun replica remove one b"},
		`{"luns": [{"name": "one", "replicas": [{"node": "a", "path": "/x"}, {"node": "b"}]}]}`:                                   {"conflict", "replica at node a, file /var/lib"},
		`{"luns": [{"name": "one", "replicas": [{"node": "a"}, {"node": "b", "path": "/dev/vg0/one", "kind": "file"}]}]}`:         {"conflict", "replica at node b, block"},
		`{"luns": [{"name": "new"}]}`:                                                                                             {"invalid", "LUN new: "},
		`{"luns": [{"name": "new", "size": 1048576, "replicas": [{"node": "c"}]}]}`:                                               {"not-found", "LUN new: there is no node c"},
		`{"luns": [{"name": "x"}, {"name": "x"}]}`:                                                                                {"invalid", "x stands there twice"},
		`{"hosts": [{"name": "new", "initiators": ["iqn.x:new"], "user": "u"}]}`:                                                  {"invalid", "host new: secret: it is missing, for the user u"},
		`{"hosts": [{"name": "new", "initiators": ["iqn.x:web"]}]}`:                                                               {"conflict", "host new: initiator iqn.x:web is that of host web"},
		`{"hosts": [{"name": "web", "initiators": ["iqn.x:db1"]}, {"name": "db1", "initiators": ["iqn.x:web"]}]}`:                 {"conflict", "initiator"},
		`{"mappings": [{"host": "web", "number": 0, "lun": "none"}]}`:                                                             {"not-found", "LUN 0 of host web", "no LUN none"},
		`{"mappings": [{"host": "web", "number": 5, "lun": "two"}, {"host": "web", "number": 5, "lun": "one"}]}`:                  {"invalid", "stands there twice"},
		`{"mappings": [{"host": "web", "number": 5, "lun": "two"}, {"host": "web", "number": 6, "lun": "two"}]}`:                  {"conflict", "one number is enough"},
		`{"mappings": [{"number": 5, "lun": "two"}]}`:                                                                             {"invalid", "either a host or a group"},
		`{"mappings": [{"host": "x", "number": 5, "lun": "two"}]}`:                                                                {"not-found", "no host x"},
		`{"targets": [{"name": "iqn.2026-01.x:y"}], "mappings": [{"host": "web", "number": 5, "lun": "two"}]}`:                    {"invalid", "target is missing"},
		`{"settings": {"lease": "1m"}, "luns": [{"name": "late", "size": 1048576, "replicas": [{"node": "a"}]}]}`:                 {"invalid", "settings: "},
		`{"luns": [{"name": "early", "size": 1048576, "replicas": [{"node": "a"}]}], "groups": [{"name": "g"}, {"name": "b d"}]}`: {"invalid", "group b d"},
	} {
		_, err := c.Apply(t.Context(), api.Apply{Document: doc(t, text)})
		wants(t, err, want[0], want[1:]...)
		if n.Group().State() != before {
			t.Fatalf("%s has changed something", text)
		}
	}
	grow := `{"luns": [{"name": "one", "size": 2147483648}]}`
	shown := must[api.Plan](t)(c.Apply(t.Context(), api.Apply{Document: doc(t, grow), DryRun: true}))
	size := int64(2147483648)
	must[catalog.LUN](t)(c.ChangeLUN(t.Context(), "one", api.LUNChange{Size: &size}))
	_, err := c.Apply(t.Context(), api.Apply{Document: doc(t, grow), Plan: shown.ID})
	wants(t, err, api.CodeOtherPlan, "look again")
}

// breaking is a cluster that carries out some commands, and then has an error.
type breaking struct {
	*solo.Group
	left int
	err  error
}

func (b *breaking) Do(ctx context.Context, by string, body catalog.Body) (catalog.Result, error) {
	if b.left == 0 {
		return catalog.Result{}, b.err
	}
	b.left--
	return b.Group.Do(ctx, by, body)
}

// behind is a node of such a cluster.
type behind struct {
	api.Backend
	cluster *breaking
}

func (b behind) Cluster() api.Cluster { return b.cluster }

// TestApplyBreaksOff says how far it came, and goes on from there.
func TestApplyBreaksOff(t *testing.T) {
	for want, broken := range map[string]error{
		api.CodeUncertain: fmt.Errorf("propose: %w", context.DeadlineExceeded),
		"changed":         &catalog.Error{Code: catalog.Changed, Message: "somebody was faster"},
	} {
		n := &solo.Node{Now: time.Now}
		if err := n.Two(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := &breaking{n.Group(), 3, broken}
		h := api.Handler(behind{n, c}, "test", slog.New(slog.DiscardHandler))
		apply := func() (status int, answer string) {
			r := httptest.NewRecorder()
			req := httptest.NewRequest(http.MethodPost, api.Prefix+"/apply", strings.NewReader(`{"document": `+whole+`}`))
			req.Header.Set("Content-Type", "application/json")
			h.ServeHTTP(r, req)
			return r.Code, r.Body.String()
		}
		status, text := apply()
		if status == http.StatusOK || !strings.Contains(text, `"code":"`+want+`"`) || !strings.Contains(text, "3 of 11 changes are made, and not that of LUN one") {
			t.Errorf("%d: %s", status, text)
		}
		c.left = -1
		if status, text := apply(); status != http.StatusOK || strings.Count(text, `"kind":`) != 8 {
			t.Errorf("%d: %s", status, text)
		}
	}
}

// witness is a cluster as a node without the key has it.
type witness struct{ *solo.Group }

func (witness) Seal([]byte) ([]byte, error)   { return nil, member.ErrNoKey }
func (witness) Unseal([]byte) ([]byte, error) { return nil, member.ErrNoKey }

// third is such a node.
type third struct {
	api.Backend
	cluster witness
}

func (b third) Cluster() api.Cluster { return b.cluster }

// TestApplyAtWitness is refused if there are secrets in the document, and before anything
// is done.
func TestApplyAtWitness(t *testing.T) {
	n := &solo.Node{Now: time.Now}
	if err := n.Two(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := n.Group().State()
	h := api.Handler(third{n, witness{n.Group()}}, "test", slog.New(slog.DiscardHandler))
	apply := func(document string) string {
		r := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodPost, api.Prefix+"/apply", strings.NewReader(`{"document": `+document+`}`))
		req.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(r, req)
		return r.Body.String()
	}
	if text := apply(whole); !strings.Contains(text, "ask a node that has replicas") || n.Group().State() != before {
		t.Error(text)
	}
	if text := apply(`{"groups": [{"name": "db"}]}`); !strings.Contains(text, `"done":true`) {
		t.Error(text)
	}
}

// FuzzApply applies any documents to a cluster that has something. None makes the API fail,
// and what was carried out once has nothing left to do.
func FuzzApply(f *testing.F) {
	for _, text := range []string{
		whole, `{}`, `[]`, `{"luns": [{"name": "one", "size": 2147483648}]}`, `{"colour": "red"}`,
		`{"hosts": [{"name": "web", "initiators": ["iqn.x:db1b"]}, {"name": "db1", "initiators": ["iqn.x:db1"]}]}`,
		`{"mappings": [{"group": "db", "number": 1, "lun": "two"}, {"group": "db", "number": 0, "lun": "one"}]}`,
		`{"discovery": {"user": "", "target_user": "x", "target_secret": "0123456789ab"}}`,
	} {
		f.Add([]byte(text))
	}
	n := &solo.Node{Now: time.Now}
	h := api.Handler(n, "test", slog.New(slog.DiscardHandler))
	post := func(document string, dry bool) (int, api.Plan) {
		r := httptest.NewRecorder()
		body := fmt.Sprintf(`{"dry_run": %t, "document": %s}`, dry, document)
		req := httptest.NewRequest(http.MethodPost, api.Prefix+"/apply", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(r, req)
		var p api.Plan
		if r.Code == http.StatusOK {
			if err := json.Unmarshal(r.Body.Bytes(), &p); err != nil {
				f.Error(err)
			}
		}
		return r.Code, p
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := n.Two(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status, _ := post(whole, false); status != http.StatusOK {
			t.Fatalf("the whole document: %d", status)
		}
		if !json.Valid(text) {
			return // the body would be another one than was meant
		}
		before := n.Group().State()
		dry, shown := post(string(text), true)
		status, _ := post(string(text), false)
		if dry != status || status >= http.StatusInternalServerError || status != http.StatusOK && n.Group().State() != before {
			t.Fatalf("%d, and dry %d", status, dry)
		}
		if status != http.StatusOK {
			return
		}
		if got := n.Group().State().Index() - before.Index(); got != uint64(len(shown.Changes)) {
			t.Errorf("%d commands for %d changes", got, len(shown.Changes))
		}
		if _, again := post(string(text), true); len(again.Changes) != 0 {
			t.Errorf("a second time it changes\n%s", lines(again))
		}
	})
}
