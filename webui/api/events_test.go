package api_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/test/solo"
	"github.com/twinlun/twinlun/webui/api"
)

// TestEvents lists events, and follows them while they happen.
func TestEvents(t *testing.T) {
	c, n, _ := solo.Serve(t)
	_, err := c.Events(t.Context(), 0)
	wants(t, err, api.CodeNoCluster)
	wants(t, c.Follow(t.Context(), 0, nil), api.CodeNoCluster)
	if err := n.Two(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := must[[]catalog.Event](t)(c.Events(t.Context(), 0))
	if len(before) < 2 || before[0].Number != 1 {
		t.Fatalf("%+v", before)
	}
	last := before[len(before)-1].Number
	if rest := must[[]catalog.Event](t)(c.Events(t.Context(), last-1)); len(rest) != 1 || rest[0].Number != last {
		t.Errorf("%+v", rest)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const more = 20
	var got []catalog.Event
	err = c.Follow(ctx, last-1, func(e catalog.Event) error {
		got = append(got, e)
		if len(got) > more {
			cancel()
			return nil
		}
		// The next one happens when this one was seen, so that none can be missed.
		_, err := n.Group().Do(ctx, "test", &catalog.LogEvent{Level: catalog.Alert, Subject: "disk", Text: "it smokes"})
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for i, e := range got {
		if e.Number != last+uint64(i) || i > 0 && e.Text != "it smokes" {
			t.Errorf("event %d is %+v", i, e)
		}
	}
	if len(got) != more+1 {
		t.Errorf("%d events", len(got))
	}
}

// TestStreams opens more streams than there may be; one that ends makes room.
func TestStreams(t *testing.T) {
	c, n, _ := solo.Serve(t)
	if err := n.Two(t.Context()); err != nil {
		t.Fatal(err)
	}
	const most = 64
	ctx, cancel := context.WithCancel(t.Context())
	begun, ended := make(chan struct{}, most), make(chan error, most)
	for range most {
		go func() {
			first := true
			ended <- c.Follow(ctx, 0, func(catalog.Event) error {
				if first {
					first = false
					begun <- struct{}{}
				}
				return nil
			})
		}()
	}
	for range most {
		<-begun
	}
	var p *api.Problem
	if err := c.Follow(ctx, 0, nil); !errors.As(err, &p) || p.Status != http.StatusServiceUnavailable || p.Hint == "" {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	for range most {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	enough := errors.New("enough")
	for {
		err := c.Follow(t.Context(), 0, func(catalog.Event) error { return enough })
		if errors.Is(err, enough) {
			return
		}
		if !errors.As(err, &p) || p.Status != http.StatusServiceUnavailable {
			t.Fatal(err)
		}
	}
}
