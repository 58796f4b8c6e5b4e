package volume

import (
	"testing"

	"github.com/twinlun/twinlun/target/backing"
)

// Mapped implements backing.Provisioned: blocks of zeros are holes.
func (m *memory) Mapped(off, n int64) (mapped bool, run int64, err error) {
	err = m.do(func() {
		for run < n {
			at := (off + run) / 4096 * 4096
			end := min(at+4096, int64(len(m.data)))
			here := !backing.Zeroes(m.data[at:end])
			if run > 0 && here != mapped {
				break
			}
			mapped, run = here, min(end-off, n)
		}
	})
	return mapped, run, err
}

func (m *memory) Space() (backing.Space, bool) { return backing.Space{Used: 1, Available: 2}, true }

// mappedMap tells of every extent of the LUN whether it is mapped: all of it, a part.
func mappedMap(t *testing.T, v *Volume) string {
	t.Helper()
	blocks := ""
	for off := int64(0); off < v.Size(); {
		mapped, run, err := v.Mapped(off, v.Size()-off)
		if err != nil || run <= 0 || run > v.Size()-off || run%4096 != 0 {
			t.Fatalf("at %d: %v, %d bytes, %v", off, mapped, run, err)
		}
		for off += run; int64(len(blocks)) < off/4096; {
			blocks += map[bool]string{true: "#", false: "."}[mapped]
		}
	}
	s := ""
	for ext := 0; ext < len(blocks); ext += 16 {
		part := blocks[ext:min(ext+16, len(blocks))]
		c := part[:1]
		for i := range part {
			if part[i] != part[0] {
				c = "+"
			}
		}
		s += c
	}
	return s
}

func TestMapped(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a, b := p.sides[0], p.sides[1]
	want := func(what, atA, atB string) {
		t.Helper()
		if gotA, gotB := mappedMap(t, a.vol), mappedMap(t, b.vol); gotA != atA || gotB != atB {
			t.Errorf("%s: %s and %s, want %s and %s", what, gotA, gotB, atA, atB)
		}
	}
	// settle reads all until nothing is kept by the other site.
	settle := func(v *side) {
		t.Helper()
		until(ctx, t, "all is known", func() bool {
			must(t, v.vol.ReadAt(ctx, make([]byte, geometry.Size), 0))
			for ext := range v.rep.Map().Geometry().Extents() {
				if !v.rep.Map().State(ext).Allows(false) {
					return false
				}
			}
			return true
		})
	}
	settle(a)
	settle(b)
	want("new", "................", "................")
	// Marks go out ahead of writes: b knows nothing of what it granted.
	must(t, a.vol.WriteAt(ctx, pattern(4096, 1), 0, false))
	if got := mappedMap(t, a.vol); got != "+..............." {
		t.Error("where it was written:", got)
	}
	got := mappedMap(t, b.vol)
	for ext := range uint64(16) {
		if stale := !b.rep.Map().State(ext).Allows(false); stale && got[ext] != '#' {
			t.Errorf("extent %d is stale, and has a hole: %s", ext, got)
		}
	}
	if got[0] != '#' {
		t.Error("the peer's data is a hole:", got)
	}
	settle(b)
	want("read at the other site", "+...............", "+...............")
	must(t, b.vol.Zero(ctx, 0, geometry.Size, false))
	settle(a)
	want("unmapped", "................", "................")
	p.cut()
	want("without the peer nothing is sure", "################", "################")
	if used, available, ok := a.vol.Provisioning(); used != 1 || available != 2 || !ok {
		t.Error(used, available, ok)
	}
	for _, c := range [][2]int64{{-1, 1}, {0, 0}, {geometry.Size, 1}, {1, geometry.Size}} {
		if _, _, err := a.vol.Mapped(c[0], c[1]); err == nil {
			t.Errorf("%d bytes at %d", c[1], c[0])
		}
	}
}
