package config

import (
	"strings"
	"testing"
)

func TestThreshold(t *testing.T) {
	for text, want := range map[string]int64{
		"10%": 1 << 40 / 10, "1%": 1 << 40 / 100, "99 %": 1 << 40 / 100 * 99, "20GiB": 20 << 30, "0": 0, "4096": 4096,
	} {
		th, err := ParseThreshold(text)
		if got := th.Of(1 << 40); err != nil || got < want || got > want+99 {
			t.Errorf("%s of 1 TiB is %d, %v; want %d", text, got, err, want)
		}
	}
	if th, _ := ParseThreshold("99%"); th.Of(1<<62) < 1<<61 || th.Of(0) != 0 || th.Of(99) != 98 {
		t.Errorf("99%%: %d, %d, %d", th.Of(1<<62), th.Of(0), th.Of(99))
	}
	for _, text := range []string{"", "%", "0%", "100%", "-1%", "1.5%", "ten%", "ten", "10 GB"} {
		if th, err := ParseThreshold(text); err == nil {
			t.Errorf("%q is read as %+v", text, th)
		}
	}
	c, err := Source{File: write(t, good)}.Load()
	if err != nil || c.LUNs[0].Space != (Threshold{Percent: 10}) {
		t.Errorf("without the setting: %+v, %v", c.LUNs, err)
	}
	c, err = Source{File: write(t, good+"    space-threshold: 5GiB\n")}.Load()
	if err != nil || c.LUNs[0].Space != (Threshold{Bytes: 5 << 30}) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := (Source{File: write(t, good+"    space-threshold: much\n")}).Load(); err == nil || !strings.Contains(err.Error(), `luns, entry 1: space-threshold: "much"`) {
		t.Errorf("%v", err)
	}
}
