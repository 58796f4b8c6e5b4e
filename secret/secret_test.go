package secret

import (
	"bytes"
	"encoding"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const text = "correct horse battery"

var _ encoding.TextMarshaler = Text{} // YAML and others ask for it

// holder has secrets where fmt, and others, find them.
type holder struct {
	Seen   Text
	Deep   []map[string]*Text
	unseen struct{ t Text } // whose methods fmt cannot call
}

// TestHides prints and marshals a secret in every way, alone and inside of things.
func TestHides(t *testing.T) {
	s := New(text)
	h := holder{Seen: s, Deep: []map[string]*Text{{"a": &s}}}
	h.unseen.t = s
	var out bytes.Buffer
	loggers := []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))}
	for _, thing := range []any{s, &s, h, &h, []Text{s}, map[string]Text{"a": s}, [1]any{s}, fmt.Errorf("with %v", s)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%w"} {
			fmt.Fprintf(&out, verb+"\n", thing)
		}
		for _, marshal := range []func(any) ([]byte, error){json.Marshal, xml.Marshal} {
			b, _ := marshal(thing) // XML has no maps
			out.Write(b)
		}
		for _, l := range loggers {
			l.With("with", thing).WithGroup("group").Info("look", "thing", thing)
		}
	}
	fmt.Fprint(&out, s.String())
	if n := strings.Count(out.String(), hidden); n < 100 {
		t.Errorf("it is hidden only %d times: other things are printed than it is", n)
	}
	shown := strings.ToLower(out.String())
	for _, bad := range []string{text, "horse", fmt.Sprintf("%x", text), "99 111 114"} {
		if at := strings.Index(shown, bad); at >= 0 {
			t.Errorf("it shows: …%s…", shown[max(0, at-200):min(at+200, len(shown))])
		}
	}
}

func TestText(t *testing.T) {
	a, b, other := New(text), New(text), New(text+"!")
	if a.Reveal() != text || !a.Equal(b) || a.Equal(other) || a.Equal(Text{}) || a == (Text{}) {
		t.Error("a text is not what it was made of")
	}
	if New("") != (Text{}) || (Text{}).Reveal() != "" || !(Text{}).Equal(New("")) {
		t.Error("no text is something")
	}
}
