package roles

import (
	"strings"
	"testing"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/replication"
)

// TestAstray: what a node takes its own replica for, and what the other one's.
func TestAstray(t *testing.T) {
	fork := catalog.Epoch{Term: catalog.ForcedTerm(7), ID: catalog.UUID{0xf}}
	c := &catalog.LUN{Name: "disk", Term: 8, Join: 5, Forks: []catalog.Epoch{fork},
		Chain: []catalog.Epoch{{Term: 6, ID: catalog.UUID{6}}, {Term: 7, ID: catalog.UUID{7}}, {Term: 8, ID: catalog.UUID{8}}}}
	later := *c
	later.Term = catalog.ForcedTerm(7)
	later.Chain = append(later.Chain, catalog.Epoch{Term: later.Term, ID: catalog.UUID{9}})
	for _, tt := range []struct {
		name         string
		lun          *catalog.LUN
		s            replication.Standing
		fork         bool
		mine, theirs string // parts of the reasons; empty: it is taken
	}{
		{name: "current", s: replication.Standing{Term: 8, ID: catalog.UUID{8}, Join: 5, HasData: true}},
		{name: "away for a while", s: replication.Standing{Term: 6, ID: catalog.UUID{6}, Join: 5, HasData: true}},
		{name: "joined, and the catalog does not know", s: replication.Standing{Term: 8, ID: catalog.UUID{8}, Join: 6, HasData: true}},
		{name: "the catalog is behind", s: replication.Standing{Term: 9, ID: catalog.UUID{1}, Join: 5, HasData: true}},
		{name: "new", s: replication.Standing{}},
		{name: "of a pair without a cluster", s: replication.Standing{Join: 5, HasData: true}},
		{name: "an older copy", s: replication.Standing{Term: 8, ID: catalog.UUID{8}, Join: 4, HasData: true}, mine: "number 4, and number 5"},
		{name: "foreign", s: replication.Standing{Term: 7, ID: catalog.UUID{8}, Join: 5, HasData: true}, mine: "term 7 (08", theirs: "term 7 (08"},
		{name: "beyond the chain", s: replication.Standing{Term: 5, ID: catalog.UUID{5}, Join: 5, HasData: true}, mine: "last 64 terms", theirs: "does not have"},
		{name: "a fork", lun: &later, s: replication.Standing{Term: fork.Term, ID: fork.ID, Join: 5, HasData: true}, theirs: "too late"},
		{name: "a fork that knows it", lun: &later, s: replication.Standing{Term: fork.Term, ID: fork.ID, Join: 5, HasData: true}, fork: true},
	} {
		if tt.lun == nil {
			tt.lun = c
		}
		mine := ""
		if err := astray(tt.lun, tt.s); err != nil {
			mine = err.Error()
		}
		theirs := strange(tt.lun, catalog.Epoch{Term: tt.s.Term, ID: tt.s.ID}, tt.fork)
		if (mine == "") != (tt.mine == "") || !strings.Contains(mine, tt.mine) {
			t.Errorf("%s: its own: %q", tt.name, mine)
		}
		if (theirs == "") != (tt.theirs == "") || !strings.Contains(theirs, tt.theirs) {
			t.Errorf("%s: the peer's: %q", tt.name, theirs)
		}
	}
}
