package reservation

import (
	"slices"
	"testing"
)

// TestBetween compares states, with nothing known of what led from one to the other.
func TestBetween(t *testing.T) {
	state := func(kind Type, holder string, names ...string) *State {
		s := &State{Type: kind}
		if holder != "" {
			s.Holder = nexus(holder)
		}
		for i, n := range names {
			s.Registrations = append(s.Registrations, Registration{nexus(n), Key(i + 1)})
		}
		return s
	}
	for _, tt := range []struct {
		name          string
		before, after *State
		want          string
	}{
		{"unknown before", nil, state(None, "", "a"), ""},
		{"nothing", state(None, ""), state(None, ""), ""},
		{"the same", state(5, "a", "a", "b"), state(5, "a", "a", "b"), ""},
		{"one more", state(5, "a", "a"), state(5, "a", "a", "b"), ""},
		{"one less", state(5, "a", "a", "b"), state(5, "a", "a"), "b unregistered aborted"},
		{"all gone", state(7, "", "a", "b"), state(None, ""), "a unregistered aborted b unregistered aborted"},
		{"released", state(5, "a", "a", "b"), state(None, "", "a", "b"), "a released b released"},
		{"another type", state(7, "", "a", "b"), state(8, "", "a", "b"), "a released b released"},
		{"another holder", state(1, "a", "a", "b"), state(1, "b", "b"), "a unregistered aborted b released"},
		{"reserved", state(None, "", "a", "b"), state(1, "a", "a", "b"), ""},
	} {
		if got := showResult(Result{Events: Between(tt.before, tt.after)}); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// FuzzBetween: whoever a command tells anything, its states tell, too.
func FuzzBetween(f *testing.F) {
	f.Add([]byte("\x00\x00\x10\x00\x01\x01\x10\x01\x07\x10\x11\x00"))
	f.Fuzz(func(t *testing.T, script []byte) {
		s := new(State)
		for ; len(script) >= 4; script = script[4:] {
			next, result := s.Apply(fuzzed(script))
			told := Between(s, next)
			for _, e := range result.Events {
				if !slices.ContainsFunc(told, func(f Event) bool { return f.Nexus == e.Nexus && (f.Abort || !e.Abort) }) {
					t.Fatalf("%+v on %s: %v is not among %v", fuzzed(script), show(s), e, told)
				}
			}
			s = next
		}
	})
}
