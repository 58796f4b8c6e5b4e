package failover

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// answerTime of a command without trouble.
const answerTime = 50 * time.Millisecond

// model is a cluster in virtual time: after a fault, commands that write wait for as long
// as the test says, before they are carried out.
type model struct {
	stall time.Duration
	dead  bool // hosts get an error instead

	mu    sync.Mutex
	until time.Time // writes wait until then
	mends int
}

func (m *model) strike() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.until = time.Now().Add(m.stall)
	return nil
}

func (m *model) Kill(Role) error            { return m.strike() }
func (m *model) Halt(Role) error            { return m.strike() }
func (m *model) Cut(Role, Role) error       { return m.strike() }
func (m *model) CutOneWay(_, _ Role) error  { return m.strike() }
func (m *model) Isolate(Role) error         { return m.strike() }
func (m *model) Mend(context.Context) error { m.mends++; m.until = time.Time{}; return nil }
func (m *model) Close() error               { return nil }

func (m *model) Host(context.Context, Role) (Host, error) { return m, nil }

func (m *model) ReadAt(context.Context, []byte, int64) error {
	time.Sleep(answerTime)
	return nil
}

func (m *model) WriteAt(ctx context.Context, _ []byte, _ int64) error {
	time.Sleep(answerTime)
	m.mu.Lock()
	wait, dead := time.Until(m.until), m.dead && !m.until.IsZero()
	m.mu.Unlock()
	if dead {
		return errors.New("broken on purpose")
	}
	select {
	case <-time.After(max(wait, 0)):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// run measures one fault at a model.
func run(t *testing.T, m *model) (text string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		err = Run(t.Context(), &b, m, Faults[:1], Options{Runs: 3, Depth: 4})
		text = b.String()
	})
	if m.mends != 3 {
		t.Errorf("mended %d times, of 3", m.mends)
	}
	return text, err
}

// TestStallIsSeen: what writes wait for is found, though reads go on.
func TestStallIsSeen(t *testing.T) {
	for _, c := range []struct {
		stall time.Duration
		want  []string
		ok    bool
	}{
		{0, []string{`0\.[01]\d\d s`, "met"}, true},
		{3 * time.Second, []string{`(2\.9|3\.0)\d\d s`, "met"}, true},
		{5 * time.Second, []string{`(4\.9|5\.0)\d\d s`, "missed"}, false},
		{2 * time.Minute, []string{"missed, 3 without answer"}, false},
	} {
		text, err := run(t, &model{stall: c.stall})
		if (err == nil) != c.ok {
			t.Errorf("%v: %v", c.stall, err)
		}
		for _, want := range append(c.want, Faults[0].Name) {
			if !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("%v: no %q in\n%s", c.stall, want, text)
			}
		}
	}
}

// TestErrorIsNoAnswer: a cluster whose hosts get errors has not survived.
func TestErrorIsNoAnswer(t *testing.T) {
	text, err := run(t, &model{dead: true})
	if err == nil || !strings.Contains(err.Error(), "broken on purpose") || !strings.Contains(text, "3 without answer") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestQuantile(t *testing.T) {
	var values []time.Duration
	for i := range 20 {
		values = append(values, time.Duration(20-i))
	}
	for percent, want := range map[int]time.Duration{50: 10, 95: 19, 100: 20} {
		if got := quantile(values, percent); got != want {
			t.Errorf("%d %%: %d, want %d", percent, got, want)
		}
	}
	r := row{longest: []time.Duration{AimP95, AimP95, AimMax + 1}}
	if r.met() || (&row{failed: 1}).met() || !(&row{longest: []time.Duration{AimP95}}).met() {
		t.Error("the aim")
	}
}
