package failover

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// row is one fault in the table.
type row struct {
	fault               string
	failed              int // runs without a result
	longest, gap, first []time.Duration
}

func (r *row) add(s stall) {
	r.longest, r.gap, r.first = append(r.longest, s.longest), append(r.gap, s.gap), append(r.first, s.first)
}

// met tells whether the aim was.
func (r *row) met() bool {
	return r.failed == 0 && quantile(r.longest, 95) <= AimP95 && quantile(r.longest, 100) <= AimMax
}

// quantile is the smallest value that so many percent do not exceed; 0 of none.
func quantile(values []time.Duration, percent int) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max((len(sorted)*percent+99)/100, 1)-1]
}

// table prints the rows.
func table(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "fault\truns\tstall: median\t95th\tmax\tgap: 95th\tfirst answer: 95th\taim: %v, max %v\n", AimP95, AimMax)
	for _, r := range rows {
		verdict := "met"
		switch {
		case r.failed > 0:
			verdict = fmt.Sprintf("missed, %d without answer", r.failed)
		case !r.met():
			verdict = "missed"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.fault, len(r.longest)+r.failed, short(r.longest, 50), short(r.longest, 95), short(r.longest, 100), short(r.gap, 95), short(r.first, 95), verdict)
	}
	return t.Flush()
}

// short is a quantile in seconds, to the millisecond.
func short(values []time.Duration, percent int) string {
	if len(values) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.3f s", quantile(values, percent).Seconds())
}
