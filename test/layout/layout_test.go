package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/twinlun/twinlun"

// floors says on which floor a package is. It imports only packages of lower
// floors, and asks for what it needs from above through an interface of its own.
var floors = map[string]int{
	"dirtymap": 0,
	"secret":   0,
	"socket":   0,
	"task":     0,

	"target/reservation": 0,
	"target/keep":        0,

	"dirtymap/mapfile":     1,
	"replication/wire":     1,
	"replication/emulator": 1,
	"cluster/catalog":      1,
	"cluster/identity":     1,
	"target/backing":       1,

	"target/backing/journal": 1,

	"target/sam": 1,

	"target/reservation/local": 1,

	"replication/coherence": 2,
	"replication/salvage":   2,
	"cluster/failover":      2,
	"cluster/transport":     2,

	"replication": 3,
	"cluster":     3,

	"cluster/member":    4,
	"cluster/roles":     4,
	"target/volume":     4,
	"target/sanitize":   4,
	"cluster/reserving": 4,

	"target/scsi":  5,
	"target/iscsi": 5,
	"target/fuse":  5,

	"webui/api":     6,
	"webui/console": 7,
	"webui/client":  7,
}

// top is what puts everything together and what tests it: these may import
// anything below them, and nothing below may import them.
var top = []string{"cmd", "test", "task/simtask"}

// outside says which packages may use which modules of others: a dependency that
// everybody may use is one that nobody can take out again. Tests may use all.
var outside = map[string][]string{
	"github.com/gostor/gotgt":           {"target/scsi"},
	"github.com/klauspost/compress":     {"dirtymap/mapfile", "replication/wire"},
	"github.com/hashicorp/go-hclog":     {"cluster"}, // raft's, for its log
	"github.com/hashicorp/raft":         {"cluster"}, // consensus between nodes and witness
	"go.etcd.io/bbolt":                  {"cluster"}, // the raft log's file
	"golang.org/x/sys":                  {"dirtymap/mapfile", "replication/emulator", "socket", "target/backing", "target/iscsi", "cluster/roles", "cmd"},
	"github.com/gin-gonic/gin":          {"webui/api"}, // the HTTP router
	"github.com/danielgtaylor/huma/v2":  {"webui/api"}, // requests and answers from types, and the OpenAPI document
	"github.com/spf13/cobra":            {"cmd"},
	"github.com/spf13/pflag":            {"cmd"},
	"github.com/spf13/viper":            {"cmd"},
	"go.yaml.in/yaml/v3":                {"cmd"}, // documents for twinlun apply; viper reads the configuration with it
	"github.com/anishathalye/porcupine": {"test"},
	"pgregory.net/rapid":                {"test"},

	// Ordered maps that share what does not change: a catalog is read without locks
	// while the next one is made, and none is copied as a whole.
	"github.com/hashicorp/go-immutable-radix/v2": {"cluster/catalog"},
}

// source is one Go file.
type source struct {
	dir, name string // relative to the repository, with slashes
	file      *ast.File
	fset      *token.FileSet
}

func (s *source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

// sources parses every Go file of the repository.
func sources(t *testing.T) []source {
	t.Helper()
	root := repository(t)
	fset := token.NewFileSet()
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "tmp") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		rel = filepath.ToSlash(rel)
		dir, name := filepath.ToSlash(filepath.Dir(rel)), filepath.Base(rel)
		all = append(all, source{dir, name, f, fset})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d Go files found below %s; the walk is wrong", len(all), root)
	}
	return all
}

// repository is the folder with go.mod.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
	}
}

// within tells whether pkg is one of the folders or below one.
func within(pkg string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		return pkg == f || strings.HasPrefix(pkg, f+"/")
	})
}

// mayImport tells why a package must not import another one of ours; "" if it may.
func mayImport(from, to string) string {
	if within(from, top) {
		return ""
	}
	if within(to, top) {
		return "only cmd and test may import it"
	}
	f, known := floors[from]
	if !known {
		return from + " has no floor: enter it in the table floors of test/layout"
	}
	g, known := floors[to]
	if !known {
		return to + " has no floor: enter it in the table floors of test/layout"
	}
	if g >= f {
		return "a package imports only packages of lower floors; ask for it through an interface of your own"
	}
	return ""
}

func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		for _, imp := range s.file.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			why := ""
			if to, ours := strings.CutPrefix(path, module+"/"); ours {
				why = mayImport(s.dir, to)
			} else if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
				why = mayUse(s.dir, path)
			}
			if why != "" {
				t.Errorf("%s imports %s: %s", s.fset.Position(imp.Pos()), path, why)
			}
		}
	}
}

// mayUse tells why a package must not import one of another module; "" if it may.
func mayUse(from, path string) string {
	for mod, users := range outside {
		if path == mod || strings.HasPrefix(path, mod+"/") {
			if within(from, users) || within(from, []string{"test"}) {
				return ""
			}
			return "only " + strings.Join(users, ", ") + " may use " + mod
		}
	}
	return "this dependency is not in the table outside of test/layout"
}

func TestEveryPackageHasAFloor(t *testing.T) {
	for _, s := range sources(t) {
		if _, known := floors[s.dir]; !known && !within(s.dir, top) {
			t.Errorf("%s/%s: %s has no floor: enter it in the table floors of test/layout", s.dir, s.name, s.dir)
		}
	}
}

func TestPackageComments(t *testing.T) {
	comments := map[string]string{} // by folder; "" : none so far
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		text := s.file.Doc.Text()
		if comments[s.dir] != "" && text != "" {
			t.Errorf("%s/%s: a second package comment", s.dir, s.name)
		}
		comments[s.dir] += text
		want := "Package " + s.file.Name.Name + " "
		if s.file.Name.Name == "main" {
			want = "Command " + filepath.Base(s.dir) + " "
		}
		if text != "" && !strings.HasPrefix(text, want) {
			t.Errorf("%s/%s: the package comment begins with %.40q, want %q", s.dir, s.name, text, want)
		}
	}
	for dir, text := range comments {
		if len(text) < 60 {
			t.Errorf("%s: a package comment of %d characters does not say what the package is for", dir, len(text))
		}
	}
}

// TestRules tries the rules themselves: a table that lets everything pass would
// pass every test.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"target/volume", "replication", true},
		{"replication", "target/volume", false},
		{"target/iscsi", "target/scsi", false},
		{"replication", "replication/emulator", true},
		{"dirtymap", "task", false},
		{"replication", "task/simtask", false},
		{"replication", "cmd/twinlund/daemon", false},
		{"cmd/twinlund/daemon", "target/iscsi", true},
		{"test/bench", "cmd/twinlund/daemon", true},
		{"target/nowhere", "dirtymap", false},
		{"target/iscsi", "target/nowhere", false},
	} {
		if why := mayImport(c.from, c.to); (why == "") != c.ok {
			t.Errorf("%s imports %s: %q, want allowed %v", c.from, c.to, why, c.ok)
		}
	}
	if mayUse("replication", "github.com/spf13/viper") == "" || mayUse("cmd/twinlund", "example.org/new") == "" {
		t.Error("a dependency is allowed everywhere")
	}
}
