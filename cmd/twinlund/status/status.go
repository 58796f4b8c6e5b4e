// Package status is the daemon's status page: JSON over HTTP on a loopback
// address, for the demo's status lines and for tests. It is internal, and will go
// when there is an API; scripts should not rely on it.
//
//	GET / → Status
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"

	"github.com/twinlun/twinlun/webui/api"
)

// What the page tells is what the API tells of the node.
type (
	Status = api.NodeStatus
	Link   = api.Link
	Count  = api.Count
	LUN    = api.ReplicaStatus
	Space  = api.Space
)

// maxBytes bounds an answer: some hundred LUNs at a few hundred bytes each.
const maxBytes = 4 << 20

// Handler answers with what now returns.
func Handler(now func() Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !loopback(r.Host):
			// A web page that has had its own name resolved to this address.
			http.Error(w, "only by a loopback address", http.StatusForbidden)
		case r.URL.Path != "/":
			http.NotFound(w, r)
		case r.Method != http.MethodGet:
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
		default:
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(now())
		}
	})
}

func loopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(name)
	return err == nil && a.IsLoopback() || name == "localhost"
}

// Get asks a daemon for its status.
func Get(ctx context.Context, address string) (*Status, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status of %s: %s", address, resp.Status)
	}
	s := new(Status)
	err = json.NewDecoder(io.LimitReader(resp.Body, maxBytes)).Decode(s)
	if err == nil && s.PID == 0 {
		err = errors.New("it is no status")
	}
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", address, err)
	}
	return s, nil
}
