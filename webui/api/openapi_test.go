package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/test/golden"
	"github.com/twinlun/twinlun/test/solo"
	"github.com/twinlun/twinlun/webui/api"
)

// document is the part of an OpenAPI document that is looked at.
type document struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		OperationID string
		Summary     string
		Responses   map[string]struct {
			Content map[string]struct{ Schema map[string]any }
		}
	}
	Components struct{ Schemas map[string]json.RawMessage }
}

func openAPI(t *testing.T) (text string, d document) {
	t.Helper()
	r := httptest.NewRecorder()
	h := api.Handler(&solo.Node{Now: time.Now}, "test", slog.New(slog.DiscardHandler))
	h.ServeHTTP(r, httptest.NewRequest(http.MethodGet, api.Prefix+"/openapi.json", nil))
	raw, err := io.ReadAll(r.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatalf("%v: %.200s", err, raw)
	}
	return string(raw), d
}

// TestOpenAPI compares the operations of the document with those that clients were
// promised, and looks for what it refers to and does not have.
func TestOpenAPI(t *testing.T) {
	text, d := openAPI(t)
	if !strings.HasPrefix(d.OpenAPI, "3.1") {
		t.Errorf("version %q", d.OpenAPI)
	}
	var all []string
	for path, methods := range d.Paths {
		for method, op := range methods {
			all = append(all, fmt.Sprintf("%-6s %-40s %s\n", strings.ToUpper(method), path, op.OperationID))
			if !strings.HasPrefix(path, api.Prefix+"/") || op.OperationID == "" || op.Summary == "" {
				t.Errorf("%s %s is %q, %q", method, path, op.OperationID, op.Summary)
			}
			for status, r := range op.Responses {
				if _, isProblem := r.Content["application/problem+json"]; status[0] != '2' != isProblem {
					t.Errorf("%s: the answer %s has %v", op.OperationID, status, r.Content)
				}
			}
		}
	}
	golden.Compare(t, "testdata/operations.txt", strings.Join(slices.Sorted(slices.Values(all)), ""))
	for _, part := range strings.Split(text, `"$ref":"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if d.Components.Schemas[name] == nil {
			t.Errorf("there is no schema %s", name)
		}
	}
}

// TestSecretsAreNotShown looks for secrets in what is answered: a request may have them, and
// a join token when it is made.
func TestSecretsAreNotShown(t *testing.T) {
	_, d := openAPI(t)
	looked := 0
	for _, methods := range d.Paths {
		for _, op := range methods {
			for _, r := range op.Responses {
				for _, c := range r.Content {
					looked++
					seen := map[string]bool{}
					refers(t, d, c.Schema, seen)
					for name := range seen {
						if schema := string(d.Components.Schemas[name]); strings.Contains(schema, `ecret":{`) || strings.Contains(schema, `"sealed"`) {
							t.Errorf("%s answers with a secret in %s: %s", op.OperationID, name, schema)
						}
					}
				}
			}
		}
	}
	if looked < 30 || !strings.Contains(string(d.Components.Schemas["HostBody"]), `ecret":{`) {
		t.Errorf("%d answers were looked at; HostBody is %s", looked, d.Components.Schemas["HostBody"])
	}
}

// refers collects the names of the schemas that a schema refers to, however deep.
func refers(t *testing.T, d document, schema any, seen map[string]bool) {
	t.Helper()
	raw, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(raw), `"$ref":"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if !seen[name] {
			seen[name] = true
			refers(t, d, d.Components.Schemas[name], seen)
		}
	}
}
