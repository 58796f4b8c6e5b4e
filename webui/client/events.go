package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/webui/api"
)

// maxLine bounds a line of a stream, in bytes: an event has some hundred.
const maxLine = 64 << 10

func after(number uint64) string { return "?after=" + strconv.FormatUint(number, 10) }

// Events are what has happened after an event with a number; 0: all that is left.
func (c *Client) Events(ctx context.Context, number uint64) ([]catalog.Event, error) {
	return ask[[]catalog.Event](ctx, c, http.MethodGet, "/events"+after(number), nil)
}

// Follow calls f with what has happened after an event with a number, and with what
// happens then, until f has an error, ctx ends, or the connection does. It never returns
// nil.
func (c *Client) Follow(ctx context.Context, number uint64, f func(catalog.Event) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+api.Prefix+"/events/stream"+after(number), nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxLine))
		if err != nil {
			return err
		}
		return refusal(resp, text)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		// Ids stand in the events, too, and comments only show that somebody is there.
		data, found := strings.CutPrefix(lines.Text(), "data: ")
		if !found {
			continue
		}
		var e catalog.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("read an event of the node at %s: %w", c.name, err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("follow the events of the node at %s: %w", c.name, err)
	}
	return fmt.Errorf("follow the events of the node at %s: %w", c.name, io.ErrUnexpectedEOF)
}
