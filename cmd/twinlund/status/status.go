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
	"time"
)

// Status is a node as it is now.
type Status struct {
	Node    string `json:"node"`
	Version string `json:"version"`
	PID     int    `json:"pid"`
	Link    Link   `json:"link"` // the first one
	Links   []Link `json:"links"`
	LUNs    []LUN  `json:"luns"`
	Memory  int64  `json:"memory"` // resident, bytes
}

// Link is the link to the peer. Counters run since the daemon's start.
type Link struct {
	Peer        string           `json:"peer"`
	Up          bool             `json:"up"`
	RTT         time.Duration    `json:"rtt"`    // nanoseconds; 0: not measured yet
	Queued      int64            `json:"queued"` // bytes that wait to be sent
	Connections uint64           `json:"connections"`
	LastError   string           `json:"lastError,omitempty"`
	Sent        map[string]Count `json:"sent"` // by kind of message
	Received    map[string]Count `json:"received"`
}

// Count counts frames and their bytes.
type Count struct {
	Frames uint64 `json:"frames"`
	Bytes  uint64 `json:"bytes"`
}

// LUN is one replica.
type LUN struct {
	Number   uint16 `json:"number"`
	Name     string `json:"name"`
	NAA      string `json:"naa"`
	Serial   string `json:"serial"`
	Size     int64  `json:"size"`
	Backing  string `json:"backing"`
	Map      string `json:"map"`
	Serving  bool   `json:"serving"`
	Why      string `json:"why,omitempty"` // it does not serve
	Dirty    int64  `json:"dirty"`         // bytes that the peer does not have yet
	InFlight int64  `json:"inFlight"`      // bytes of them on their way
	Waiting  int    `json:"waiting"`       // host commands that wait for the peer

	Marks        uint64 `json:"marks"`
	MarkExtents  uint64 `json:"markExtents"`
	Fetches      uint64 `json:"fetches"`
	FetchExtents uint64 `json:"fetchExtents"`
	Copies       uint64 `json:"copies"`
	CopiedBytes  uint64 `json:"copiedBytes"`
	Clears       uint64 `json:"clears"`
	Joins        uint64 `json:"joins"`

	Space *Space `json:"space,omitempty"` // of its backing, if that can be told

	Alarms    uint64 `json:"alarms"`
	LastAlarm string `json:"lastAlarm,omitempty"`
}

// Space is the space of the file system in which a replica is, in bytes.
type Space struct {
	Used      int64 `json:"used"`      // by the replica
	Available int64 `json:"available"` // to it, and to others
	Size      int64 `json:"size"`
	Threshold int64 `json:"threshold"` // less than this is low; 0: none
	Low       bool  `json:"low"`       // until there is clearly more
}

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
	if err == nil && s.Node == "" {
		err = errors.New("no node's name in the answer")
	}
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", address, err)
	}
	return s, nil
}
