package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// noLUNs is the value of a host's luns that shows it none.
const noLUNs = "none"

// addView adds how a host sees the target, if its entry says anything of that.
func (e element) addView(views []View) (all []View, err error) {
	v := View{Initiator: e["initiator"], Prefer: e["prefer"]}
	if text := e["luns"]; text != "" {
		if v.LUNs, err = parseLUNs(text); err != nil {
			return nil, fmt.Errorf("luns: %w", err)
		}
	}
	if v.Prefer == "" && v.LUNs == nil {
		return views, nil
	}
	if slices.ContainsFunc(views, func(other View) bool { return other.Initiator == v.Initiator }) {
		return nil, fmt.Errorf("prefer and luns of %s stand in another entry, too; one is enough for all its users", v.Initiator)
	}
	return append(views, v), nil
}

// parseLUNs reads "0 5=1": the LUNs 0, which is LUN 0, and 5, which is LUN 1.
func parseLUNs(text string) (map[uint16]uint16, error) {
	luns, as := map[uint16]uint16{}, map[uint16]bool{}
	if text == noLUNs {
		return luns, nil
	}
	for _, f := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' }) {
		shown, number, differs := strings.Cut(f, "=")
		if !differs {
			number = shown
		}
		l, err := strconv.ParseUint(shown, 10, 14)
		n, err2 := strconv.ParseUint(number, 10, 14)
		if err != nil || err2 != nil {
			return nil, fmt.Errorf("%q is none of LUN, LUN=NUMBER, with numbers from 0 to 16383", f)
		}
		if _, twice := luns[uint16(l)]; twice || as[uint16(n)] {
			return nil, fmt.Errorf("%q: the LUN, or its number, stands twice", f)
		}
		luns[uint16(l)], as[uint16(n)] = uint16(n), true
	}
	if len(luns) == 0 {
		return nil, fmt.Errorf("is empty; leave it out to show all, or say %s", noLUNs)
	}
	return luns, nil
}

// checkViews looks for nodes and LUNs that do not exist.
func (c *Config) checkViews(t *Target) error {
	for _, v := range t.Views {
		if v.Prefer != "" && v.Prefer != c.Node && v.Prefer != c.Peer.Name {
			return fmt.Errorf("prefer of %s: %q is neither %q nor %q", v.Initiator, v.Prefer, c.Node, c.Peer.Name)
		}
		for _, n := range v.LUNs {
			if !c.hasLUN(n) {
				return fmt.Errorf("luns of %s: there is no LUN with the number %d", v.Initiator, n)
			}
		}
	}
	return nil
}
