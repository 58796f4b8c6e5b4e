package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
)

// result is one line of the table.
type result struct {
	what    string
	figure  string // twinlun's
	against string // of what it is compared to
	ratio   string
	aim     string // "": for information
	met     bool
}

// table prints results as they come.
type table struct {
	w      io.Writer
	missed int
}

const tableLine = "%-48s %-16s %-24s %-18s %-15s %s\n"

func newTable(w io.Writer) *table {
	fmt.Fprintf(w, "%s, %d processors, %s\n\n", runtime.Version(), runtime.GOMAXPROCS(0), time.Now().UTC().Format("2006-01-02 15:04 MST"))
	fmt.Fprintf(w, tableLine, "", "twinlun", "against", "ratio", "aim", "met")
	return &table{w: w}
}

func (t *table) add(part string, results []result) {
	fmt.Fprintln(t.w, part)
	for _, r := range results {
		aim, met := "–", ""
		if r.aim != "" {
			aim, met = r.aim, "yes"
			if !r.met {
				met = "NO"
				t.missed++
			}
		}
		fmt.Fprintf(t.w, tableLine, "  "+r.what, r.figure, r.against, r.ratio, aim, met)
	}
}

func (t *table) end(took time.Duration) {
	fmt.Fprintf(t.w, "\naims missed: %d; %v in all\n", t.missed, took.Round(time.Second))
}

// median of a list that is not empty.
func median[T int64 | float64 | time.Duration](list []T) T {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// rounds measures two things in turns, n times each, in an order that changes from
// pair to pair (A B, B A, A B …): what the machine does besides hits both alike.
func rounds(n int, a, b func() (float64, error)) (r sideBySide, err error) {
	for i := range n {
		var x, y float64
		first, second, fx, fy := a, b, &x, &y
		if i%2 == 1 {
			first, second, fx, fy = b, a, &y, &x
		}
		if *fx, err = first(); err != nil {
			return r, err
		}
		if *fy, err = second(); err != nil {
			return r, err
		}
		r.a, r.b, r.ratios = append(r.a, x), append(r.b, y), append(r.ratios, x/y)
	}
	return r, nil
}

// sideBySide is what rounds found.
type sideBySide struct {
	a, b   []float64
	ratios []float64 // of each pair
}

// ratio is the median over the pairs; the text also has the middle half of them.
func (s *sideBySide) ratio() (float64, string) {
	sorted := slices.Sorted(slices.Values(s.ratios))
	n, m := len(sorted), median(s.ratios)
	return m, fmt.Sprintf("%.3f (%.2f–%.2f)", m, sorted[n/4], sorted[n-1-n/4])
}
