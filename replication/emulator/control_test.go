package emulator

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// ask sends a request to the control port.
func ask(t *testing.T, method, address, host, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+address+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		r.Host = host
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestControl(t *testing.T) {
	l := newTestLine(t, State{Delay: time.Millisecond})
	address, err := l.ServeControl("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		method, host, body string
		status             int
		want               State // afterwards
	}{
		{"GET", "", "", 200, State{Delay: time.Millisecond}},
		{"PUT", "", `{"delay":"25ms"}`, 200, State{Delay: 25 * time.Millisecond}},
		{"PUT", "", `{"rate":1000000,"cut":"both"}`, 200, State{25 * time.Millisecond, 1000000, CutBoth}},
		{"PUT", "", `{"cut":"b-to-a"}`, 200, State{25 * time.Millisecond, 1000000, CutBToA}},
		{"PUT", "localhost:1", `{"cut":"none","rate":0}`, 200, State{Delay: 25 * time.Millisecond}},
		{"PUT", "", `{"cut":"all"}`, 400, State{Delay: 25 * time.Millisecond}},
		{"PUT", "", `{"delay":"25"}`, 400, State{Delay: 25 * time.Millisecond}},
		{"PUT", "", `{"rate":1}`, 400, State{Delay: 25 * time.Millisecond}},
		{"PUT", "", `{"flip":"both","rate":10000}`, 400, State{Delay: 25 * time.Millisecond}},
		{"PUT", "", `{"speed":1}`, 400, State{Delay: 25 * time.Millisecond}},
		{"PUT", "", `{}{}`, 400, State{Delay: 25 * time.Millisecond}},
		{"PUT", "", `{"cut":"` + strings.Repeat("x", maxRequest) + `"}`, 400, State{Delay: 25 * time.Millisecond}},
		{"PUT", "attacker.example", `{"cut":"both"}`, 403, State{Delay: 25 * time.Millisecond}},
		{"POST", "", `{"cut":"both"}`, 405, State{Delay: 25 * time.Millisecond}},
	} {
		status, answer := ask(t, test.method, address, test.host, test.body)
		if status != test.status || l.State() != test.want {
			t.Errorf("%s %s: %d %s, state is %+v", test.method, test.body, status, answer, l.State())
		}
	}
}

func TestControlReports(t *testing.T) {
	l := newTestLine(t, State{Rate: 1_000_000_000})
	address, err := l.ServeControl("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := l.connect()
	send(t, c.a, "hello")
	expect(t, c.b, "hello")
	_, answer := ask(t, "GET", address, "", "")
	var got report
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		t.Fatal(err)
	}
	want := report{Delay: "0s", Rate: 1_000_000_000, Cut: "none", Listen: l.Addr(), Target: l.target.Addr().String(),
		Connections: 1, Total: 1, AToB: LaneStats{Bytes: 5}}
	if got != want {
		t.Errorf("%s", answer)
	}
	if status, answer := ask(t, "PUT", address, "", `{"flip":"a-to-b"}`); status != 200 {
		t.Error(answer)
	}
	send(t, c.a, "c")
	expect(t, c.b, "s")
	if status, answer := ask(t, "PUT", address, "", `{"freeze":true}`); status != 200 {
		t.Error(answer)
	}
	send(t, c.a, "lost")
	expectSilence(t, c.b)
	if status, answer := ask(t, "PUT", address, "", `{"reset":true}`); status != 200 {
		t.Error(answer)
	}
	expectEnd(t, c.b, false)
}

func TestControlIsForThisMachineOnly(t *testing.T) {
	l := newTestLine(t, State{})
	if address, err := l.ServeControl("0.0.0.0:0"); err == nil {
		t.Errorf("control port is open at %s", address)
	}
}

// Whatever is asked for: the state stays a valid one.
func FuzzOrder(f *testing.F) {
	f.Add(`{"delay":"25ms","rate":0,"cut":"both","reset":true,"freeze":false,"flip":"a-to-b"}`)
	f.Add(`{"rate":-1}`)
	f.Add(`{"delay":"1e9h"} {}`)
	f.Add(`[null]`)
	f.Fuzz(func(t *testing.T, body string) {
		o, err := parseOrder(strings.NewReader(body))
		if err != nil {
			return
		}
		if s, err := o.apply(State{}); err == nil && s.Check() != nil {
			t.Errorf("%s: %+v", body, s)
		}
	})
}
