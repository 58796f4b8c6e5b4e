package dirtymap

import (
	"runtime"
	"testing"

	"pgregory.net/rapid"
)

// testMap is an open map of 64 KiB extents.
func testMap(extents int64) *Map {
	m := New(Geometry{Size: extents * DefaultExtentSize, ExtentSize: DefaultExtentSize})
	m.Open()
	return m
}

// running is an OWNED extent whose tenure is logged.
const running = Held | Logged

func TestStateString(t *testing.T) {
	for s, want := range map[State]string{
		0:                          "S0",
		Held.WithTurn(1):           "O1",
		Stale.WithTurn(2):          "T2",
		(Stale | Held).WithTurn(3): "?3",
		Held | Volatile | Alone | Logged | Closing: "O0valc",
	} {
		if got := s.String(); got != want {
			t.Errorf("%#x: %q, want %q", uint8(s), got, want)
		}
	}
}

func TestTurnLeavesTheRestAlone(t *testing.T) {
	for s := range 256 {
		for turn := range uint8(8) {
			got := State(s).WithTurn(turn)
			if got.Turn() != turn%4 || got&^turnBits != State(s)&^turnBits {
				t.Fatalf("%v with turn %d: %v", State(s), turn, got)
			}
		}
	}
}

func TestWhoMayEnter(t *testing.T) {
	for s := range 256 {
		s := State(s)
		m := testMap(2)
		m.Set(1, s)
		read := s&(Stale|Closing) == 0
		write := s&(Stale|Held|Logged|Closing) == Held|Logged
		if m.Enter(1, false) != read || m.Enter(1, true) != write {
			t.Fatalf("%v: read %t, write %t", s, !read, !write)
		}
		inside := 0
		for _, in := range []bool{read, write} {
			if in {
				inside++
			}
		}
		if m.Users(1) != inside || m.Users(0) != 0 || m.State(0) != 0 || m.State(1) != s {
			t.Fatalf("%v: %d inside", s, m.Users(1))
		}
	}
}

func TestUsersAreBounded(t *testing.T) {
	for ext := range uint64(2) {
		m := testMap(2)
		entered := 0
		for m.Enter(ext, false) {
			entered++
		}
		pinned := 0
		for m.Pin(ext) {
			pinned++
		}
		if entered != maxUsers || entered+pinned != 255 || m.Users(ext) != 255 {
			t.Fatalf("%d entered, %d pinned", entered, pinned)
		}
		if m.Users(1-ext) != 0 || m.State(0) != 0 || m.State(1) != 0 {
			t.Fatal("the neighbour has changed")
		}
		m.Change(ext, 0, Closing)
		for i := range 255 {
			if m.Exit(ext) != (i == 254) {
				t.Fatalf("exit %d", i)
			}
		}
	}
}

func TestOnlyTheLastOutOfAClosingExtentIsTold(t *testing.T) {
	m := testMap(1)
	m.Set(0, running)
	m.Enter(0, true)
	m.Enter(0, false)
	if m.Exit(0) {
		t.Fatal("told, and not closing")
	}
	m.Change(0, 0, Closing)
	if m.Enter(0, false) || m.Enter(0, true) {
		t.Fatal("entered a closing extent")
	}
	if !m.Pin(0) || m.Exit(0) || !m.Exit(0) {
		t.Fatal("the last one out is not told")
	}
}

// TestMapAgainstModel does anything to neighbouring extents, and compares each
// with plain variables.
func TestMapAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := testMap(5)
		var states [5]State
		var users [5]int
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			ext := rapid.Uint64Range(0, 4).Draw(t, "ext")
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				states[ext] = State(rapid.Byte().Draw(t, "state"))
				m.Set(ext, states[ext])
			case 1:
				off, on := State(rapid.Byte().Draw(t, "off")), State(rapid.Byte().Draw(t, "on"))
				states[ext] = states[ext]&^off | on
				m.Change(ext, off, on)
			case 2, 3:
				if m.Enter(ext, rapid.Bool().Draw(t, "write")) {
					users[ext]++
				}
			case 4:
				if m.Pin(ext) {
					users[ext]++
				}
			case 5:
				if users[ext] > 0 {
					users[ext]--
					if m.Exit(ext) != (users[ext] == 0 && states[ext]&Closing != 0) {
						t.Fatalf("extent %d, state %v, %d left inside", ext, states[ext], users[ext])
					}
				}
			}
			for ext := range states {
				if m.State(uint64(ext)) != states[ext] || m.Users(uint64(ext)) != users[ext] {
					t.Fatalf("extent %d: %v with %d users, want %v with %d", ext,
						m.State(uint64(ext)), m.Users(uint64(ext)), states[ext], users[ext])
				}
			}
		}
	})
}

func TestGate(t *testing.T) {
	m := New(Geometry{Size: 1 << 20, ExtentSize: DefaultExtentSize})
	if m.Begin() || !m.Quiet() {
		t.Fatal("a new map lets commands in")
	}
	m.Open()
	if m.Quiet() || !m.Begin() || !m.Begin() {
		t.Fatal("an open gate keeps commands out")
	}
	if m.End() {
		t.Fatal("told, and the gate is open")
	}
	if m.Shut() || m.Quiet() || m.Begin() {
		t.Fatal("shut, one inside")
	}
	if !m.End() || !m.Quiet() || !m.Shut() {
		t.Fatal("the last one out is not told")
	}
	m.Open()
	if m.Quiet() || !m.Begin() || m.End() {
		t.Fatal("opened again")
	}
}

func TestMemoryOf1TiB(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m := New(Geometry{Size: 1 << 40, ExtentSize: 64 << 10})
	NewPredictor(m)
	for ext := uint64(0); ext < m.geo.Extents(); ext += 512 { // each page of memory
		m.Set(ext, Stale)
		m.Dirty(ext)
	}
	runtime.ReadMemStats(&after)
	took := after.TotalAlloc - before.TotalAlloc
	if t.Logf("%d bytes", took); took > 40<<20 || took < 16<<20 {
		t.Fatalf("%d bytes", took)
	}
}

func TestShortWaysAllocateNothing(t *testing.T) {
	m := testMap(1000)
	m.Set(7, running)
	m.Own(7)
	if n := testing.AllocsPerRun(1000, func() {
		if !m.Begin() || !m.Enter(7, true) || !m.Enter(3, false) {
			t.Fatal("kept out")
		}
		m.Wrote(7, 3, 5)
		m.Exit(7)
		m.Exit(3)
		m.End()
		m.TakeDirty(7)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
