package status

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	page := Handler(func() Status { return Status{Node: "a", PID: 1, LUNs: []LUN{{Number: 3, Dirty: 5}}} })
	for _, c := range []struct {
		method, host, path string
		code               int
	}{
		{"GET", "127.0.0.1:80", "/", 200},
		{"GET", "[::1]:80", "/", 200},
		{"GET", "localhost:80", "/", 200},
		{"GET", "evil.example:80", "/", 403},
		{"GET", "192.0.2.1:80", "/", 403},
		{"GET", "", "/", 403},
		{"GET", "127.0.0.1:80", "/x", 404},
		{"POST", "127.0.0.1:80", "/", 405},
	} {
		r := httptest.NewRequest(c.method, "http://h"+c.path, nil)
		r.Host = c.host
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		if w.Code != c.code {
			t.Errorf("%s %s as %q: %d, want %d", c.method, c.path, c.host, w.Code, c.code)
		}
	}
}

func TestGet(t *testing.T) {
	for body, want := range map[string]string{
		`{"node":"a","pid":7,"luns":[{"number":3,"dirty":5}]}`: "",
		`{}`:     "it is no status",
		`[1`:     "status of",
		"<html>": "status of",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(body)) }))
		s, err := Get(context.Background(), strings.TrimPrefix(srv.URL, "http://"))
		srv.Close()
		switch {
		case want == "" && (err != nil || s.LUNs[0].Dirty != 5):
			t.Errorf("%s: %+v, %v", body, s, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want …%s…", body, err, want)
		}
	}
}
