package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// maxRequest bounds what the control port reads of a request, in bytes.
const maxRequest = 4096

// Stats is what the line has done, and what is on it.
type Stats struct {
	Connections int          // at present
	Total       uint64       // since the start
	Lanes       [2]LaneStats // by Direction
}

// LaneStats is about one direction, in bytes.
type LaneStats struct {
	Bytes  uint64 `json:"bytes"`  // that have arrived
	Queued int64  `json:"queued"` // that are on their way
}

// Stats may be called at any time.
func (l *Line) Stats() Stats {
	s := Stats{Total: l.total.Load(), Connections: len(l.present())}
	for d, ln := range l.lanes {
		s.Lanes[d] = LaneStats{Bytes: ln.bytes.Load(), Queued: ln.queued.Load()}
	}
	return s
}

// report is what GET answers.
type report struct {
	Delay       string    `json:"delay"`
	Rate        int64     `json:"rate"`
	Cut         string    `json:"cut"`
	Listen      string    `json:"listen"`
	Target      string    `json:"target"`
	Connections int       `json:"connections"`
	Total       uint64    `json:"connections_total"`
	AToB        LaneStats `json:"a-to-b"`
	BToA        LaneStats `json:"b-to-a"`
}

// order is what PUT takes. What is left out stays as it is.
type order struct {
	Delay  *string `json:"delay"` // as time.ParseDuration takes it
	Rate   *int64  `json:"rate"`  // bits per second; 0: no limit
	Cut    *string `json:"cut"`   // none, both, a-to-b, b-to-a
	Reset  bool    `json:"reset"`
	Freeze bool    `json:"freeze"`
	Flip   *string `json:"flip"` // a-to-b or b-to-a: damages the next byte
}

// ServeControl opens the control port, until Close: HTTP with JSON, at "/".
//
//	GET  → {"delay":"25ms","rate":0,"cut":"none", and statistics}
//	PUT  {"delay":"25ms","rate":1000000,"cut":"both|a-to-b|b-to-a|none",
//	      "reset":true,"freeze":true,"flip":"a-to-b|b-to-a"}, each as wanted
//	     → as GET
//
// It has no authentication, and so takes a loopback address only. Web pages
// cannot use it: it answers only if it is addressed as a loopback address, and a
// browser asks before it sends PUT elsewhere.
func (l *Line) ServeControl(listen string) (address string, err error) {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return "", fmt.Errorf("link emulator: control port: %w", err)
	}
	if tcp, ok := ln.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		ln.Close()
		return "", fmt.Errorf("link emulator: control port on %s: it is open to everyone who can reach it; use 127.0.0.1", listen)
	}
	srv := &http.Server{Handler: http.HandlerFunc(l.control), ReadTimeout: 10 * time.Second, MaxHeaderBytes: 1 << 14}
	l.running.Go(func() { srv.Serve(ln) })
	l.running.Go(func() {
		<-l.ctx.Done()
		srv.Close()
	})
	return ln.Addr().String(), nil
}

func (l *Line) control(w http.ResponseWriter, r *http.Request) {
	switch {
	case !isLoopback(r.Host):
		http.Error(w, "use the address, not a name", http.StatusForbidden)
	case r.URL.Path != "/":
		http.NotFound(w, r)
	case r.Method == http.MethodGet:
		l.answer(w)
	case r.Method == http.MethodPut:
		if err := l.obey(http.MaxBytesReader(w, r.Body, maxRequest)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		l.answer(w)
	default:
		w.Header().Set("Allow", "GET, PUT")
		http.Error(w, "GET or PUT", http.StatusMethodNotAllowed)
	}
}

func isLoopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

func (l *Line) answer(w http.ResponseWriter) {
	now, s := l.State(), l.Stats()
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(report{
		Delay: now.Delay.String(), Rate: now.Rate, Cut: now.Cut.String(),
		Listen: l.Addr(), Target: l.cfg.Target,
		Connections: s.Connections, Total: s.Total, AToB: s.Lanes[AToB], BToA: s.Lanes[BToA],
	})
}

// obey does all of an order, or nothing.
func (l *Line) obey(body io.Reader) error {
	o, err := parseOrder(body)
	if err != nil {
		return err
	}
	next, err := o.apply(l.State())
	if err != nil {
		return err
	}
	flip, err := o.flip()
	if err != nil {
		return err
	}
	if flip >= 0 {
		l.Flip(flip, 0)
	}
	if o.Freeze {
		l.Freeze()
	}
	if o.Reset {
		l.Reset()
	}
	return l.Set(next)
}

func parseOrder(body io.Reader) (o order, err error) {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return o, fmt.Errorf("not a valid request: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return o, errors.New("not a valid request: more than one JSON value")
	}
	return o, nil
}

// apply is the state that an order asks for.
func (o order) apply(s State) (State, error) {
	var err error
	if o.Delay != nil {
		if s.Delay, err = time.ParseDuration(*o.Delay); err != nil {
			return s, err
		}
	}
	if o.Rate != nil {
		s.Rate = *o.Rate
	}
	if o.Cut != nil {
		if s.Cut, err = ParseCut(*o.Cut); err != nil {
			return s, err
		}
	}
	return s, s.Check()
}

// flip is the direction whose next byte is to be damaged; -1: none.
func (o order) flip() (Direction, error) {
	switch {
	case o.Flip == nil:
		return -1, nil
	case *o.Flip == CutAToB.String():
		return AToB, nil
	case *o.Flip == CutBToA.String():
		return BToA, nil
	}
	return -1, fmt.Errorf("flip %q: must be a-to-b or b-to-a", *o.Flip)
}
