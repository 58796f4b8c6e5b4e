package commands

import (
	"testing"
	"time"

	"github.com/twinlun/twinlun/test/golden"
	"github.com/twinlun/twinlun/webui/api"
)

// TestVerify is an operator who compares replicas, and what a script gets to know.
func TestVerify(t *testing.T) {
	s, n := two(t)
	s.run("", "lun create disk --size 1GiB --replica a --replica b")
	s.run("", "lun create single --size 1GiB --replica a=/srv/single")
	start := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	end := start.Add(8 * time.Second)
	sound := api.Verification{State: api.VerifyComplete, Started: &start, Ended: &end, Size: 1 << 30, Done: 1 << 30, Compared: 1<<30 - 65536, Copying: 65536}
	differs := sound
	differs.Differing, differs.Differences = 8192, []api.Difference{{Offset: 4096, Length: 4096, Keeps: api.Here}, {Offset: 1 << 20, Length: 4096}}
	repaired, unread, stopped := differs, sound, sound
	repaired.Repaired = 8192
	unread.Unread, unread.Compared = 65536, 1<<30-131072
	stopped.State, stopped.Error, stopped.Done, stopped.Compared, stopped.Copying = api.VerifyStopped, "it was stopped", 1<<28, 1<<28, 0
	for _, x := range []struct {
		typed, line string
		shows       api.Verification
	}{
		{"", "lun verify disk --status", api.Verification{State: api.VerifyNone}},
		{"", "lun verify disk --wait", sound},
		{"", "lun verify disk --rate 1.5", sound},
		{"", "lun verify disk --wait --rate 200MiB", differs},
		{"", "lun verify disk --status", unread},
		{"", "lun verify disk --status -o json", differs},
		{"no\n", "lun verify disk --repair", differs},
		{"", "lun verify disk --repair --yes --wait", repaired},
		{"", "lun verify disk --repair --keep b --yes", repaired},
		{"", "lun verify disk --keep c", repaired},
		{"", "lun verify disk --stop", sound},
		{"", "lun verify disk --status", stopped},
		{"", "lun verify disk --stop --status", stopped},
		{"", "lun verify disk --stop --repair", stopped},
		{"", "lun verify single", sound},
		{"", "lun verify none", sound},
	} {
		n.SetVerification(x.shows)
		s.run(x.typed, x.line)
	}
	golden.Compare(t, "testdata/verify.txt", s.text.String())
}
