package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Threshold is an amount of space: a part of all that there is, or a number of bytes.
type Threshold struct {
	Percent int64 // 1 to 99; 0: Bytes counts
	Bytes   int64 // 0: none
}

// DefaultThreshold is what a LUN has if nothing else is said.
var DefaultThreshold = Threshold{Percent: 10}

// Of gives the threshold in bytes, where there are size bytes.
func (t Threshold) Of(size int64) int64 {
	if t.Percent == 0 {
		return t.Bytes
	}
	return size/100*t.Percent + size%100*t.Percent/100
}

// ParseThreshold reads "10%", a number of bytes, or "0" for none.
func ParseThreshold(v string) (t Threshold, err error) {
	if digits, percent := strings.CutSuffix(v, "%"); percent {
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 1 || n > 99 {
			return t, fmt.Errorf("%q is no part; write it like 10%%, from 1%% to 99%%, or 0 for none", v)
		}
		return Threshold{Percent: n}, nil
	}
	t.Bytes, err = ParseSize(v)
	return t, err
}
