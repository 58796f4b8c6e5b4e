package daemon

import (
	"slices"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/target/backing"
	"github.com/twinlun/twinlun/test/logs"
)

// TestSpaceCrossings: low once under the limit, and until there is clearly more.
func TestSpaceCrossings(t *testing.T) {
	for _, c := range []struct {
		name        string
		size, limit int64
		available   []int64
		want        string // a letter each: crossed, eased, - nothing
	}{
		{"falls and rises", 1000, 100, []int64{500, 100, 99, 50, 99, 100, 124, 125, 500, 99}, "--c----e-c"},
		{"hovers about the limit", 1000, 100, []int64{99, 101, 99, 101, 99}, "c----"},
		{"low from the beginning", 1000, 100, []int64{0, 0}, "c-"},
		{"a limit near all there is", 1000, 990, []int64{1000, 989, 994, 995}, "-c-e"},
		{"a limit beyond all there is", 1000, 5000, []int64{1000, 1000}, "c-"},
		{"no limit", 1000, 0, []int64{10, 0, 0}, "---"},
	} {
		var s space
		var got strings.Builder
		for _, a := range c.available {
			crossed, eased := s.take(backing.Space{Available: a, Size: c.size}, c.limit)
			switch {
			case crossed && eased:
				got.WriteByte('?')
			case crossed:
				got.WriteByte('c')
			case eased:
				got.WriteByte('e')
			default:
				got.WriteByte('-')
			}
		}
		if got.String() != c.want {
			t.Errorf("%s: %s, want %s", c.name, &got, c.want)
		}
	}
}

// TestSpaceThreshold: hosts and the log are told once that the space for a LUN runs low,
// and the status says so until it does not.
func TestSpaceThreshold(t *testing.T) {
	cfg := nodes(t)
	cfg[0].LUNs[0].Space = config.Threshold{} // however full this machine's disk is
	log := new(logs.Text)
	a, err := Start(cfg[0], "test", log.Logger())
	if err != nil {
		t.Fatal(err)
	}
	b := startNode(t, cfg[1])
	s := login(t, a, iqn, 3)
	ready(t, s)
	if st := a.Status().LUNs[0].Space; st == nil || st.Low || st.Size < st.Available || st.Available == 0 || st.Threshold != 0 {
		t.Fatalf("%+v", st)
	}
	const low, again = "the space for the LUN runs low", "there is space for the LUN again"
	for _, step := range []struct {
		threshold config.Threshold
		told      []string
		low       bool
		lines     [2]int
	}{
		{config.Threshold{Bytes: 1 << 60}, []string{"2a/01", "38/07"}, true, [2]int{1, 0}},
		{config.Threshold{Bytes: 1 << 60}, nil, true, [2]int{1, 0}},
		{config.Threshold{}, []string{"2a/01"}, false, [2]int{1, 1}},
		{config.Threshold{Percent: 1}, []string{"2a/01"}, false, [2]int{1, 1}},
		{config.Threshold{Bytes: 1 << 60}, []string{"2a/01", "38/07"}, true, [2]int{2, 1}},
	} {
		if err := a.Reload(t.Context(), with(cfg[0], func(c *config.Config) { c.LUNs[0].Space = step.threshold })); err != nil {
			t.Fatal(err)
		}
		a.lookAtSpace(a.all()[0])
		if told := ready(t, s); !slices.Equal(told, step.told) {
			t.Errorf("%+v: the host is told %v, want %v", step.threshold, told, step.told)
		}
		if st := a.Status().LUNs[0].Space; st.Low != step.low || st.Threshold != step.threshold.Of(st.Size) {
			t.Errorf("%+v: status %+v", step.threshold, st)
		}
		text := log.String()
		if got := [2]int{strings.Count(text, low), strings.Count(text, again)}; got != step.lines {
			t.Errorf("%+v: %d and %d lines in the log, want %d", step.threshold, got[0], got[1], step.lines)
		}
	}
	stopNode(t, a)
	stopNode(t, b)
}
