package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// Bounds of streams of events.
const (
	maxStreams = 64               // at once: consoles, and what sends alerts
	sendTime   = 10 * time.Second // for a client to take what it is sent
	quietTime  = 15 * time.Second // then a comment is sent, so that a client that is gone is noticed
)

func (a *api) events(h huma.API) {
	get(h, "/events", "list-events", "What has happened lately, oldest first",
		func(_ context.Context, in *struct {
			After uint64 `query:"after" doc:"number of the last event that is known; 0: all"`
		}) ([]catalog.Event, error) {
			_, s, err := a.state()
			if err != nil {
				return nil, err
			}
			return list(s.Events(in.After)), nil
		})
	op := operation(http.MethodGet, "/events/stream", "stream-events", "What happens, as server-sent events: the number is the id, data is the event")
	op.Responses = map[string]*huma.Response{"200": {
		Description: "events, until one side ends it; an id that is not the next one means that events are gone",
		Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}}
	huma.Register(h, op, a.stream)
}

// streamStart says where a stream begins. A browser that connects again sends a header.
type streamStart struct {
	After uint64 `query:"after" doc:"number of the last event that is known; 0: all that are left"`
	Last  uint64 `header:"Last-Event-ID" doc:"instead of after"`
}

func (a *api) stream(_ context.Context, in *streamStart) (*huma.StreamResponse, error) {
	c, _, err := a.state()
	if err != nil {
		return nil, problemOf(err)
	}
	select {
	case a.streams <- struct{}{}:
	default:
		return nil, problem(http.StatusServiceUnavailable, CodeNotFeasible,
			fmt.Sprintf("%d clients follow the events of this node already", maxStreams), "end some, or ask another node")
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer func() { <-a.streams }()
		ctx.SetHeader("Content-Type", "text/event-stream")
		ctx.SetHeader("Cache-Control", "no-store")
		w, ok := ctx.BodyWriter().(http.ResponseWriter)
		if !ok {
			panic("the router's body writer is no http.ResponseWriter")
		}
		s := sender{w, http.NewResponseController(w)}
		s.follow(ctx.Context(), c, max(in.After, in.Last))
	}}, nil
}

// sender sends server-sent events.
type sender struct {
	io.Writer
	control *http.ResponseController
}

// follow sends events until the client is gone.
func (s sender) follow(ctx context.Context, c Cluster, after uint64) {
	for {
		changed := c.Changed()
		if s.begin() != nil {
			return
		}
		for e := range c.State().Events(after) {
			if s.event(e) != nil {
				return
			}
			after = e.Number
		}
		if s.control.Flush() != nil || !s.wait(ctx, changed) {
			return
		}
	}
}

// begin gives the client time for what is sent next.
func (s sender) begin() error { return s.control.SetWriteDeadline(time.Now().Add(sendTime)) }

func (s sender) event(e catalog.Event) error {
	text, err := json.Marshal(e)
	if err == nil {
		_, err = fmt.Fprintf(s, "id: %d\ndata: %s\n\n", e.Number, text)
	}
	return err
}

// wait returns when there may be something to send, or false: the client is gone.
func (s sender) wait(ctx context.Context, changed <-chan struct{}) bool {
	quiet := time.NewTimer(quietTime)
	defer quiet.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-changed:
		return true
	case <-quiet.C:
	}
	if s.begin() != nil {
		return false
	}
	_, err := io.WriteString(s, ": nothing new\n\n")
	return err == nil
}
