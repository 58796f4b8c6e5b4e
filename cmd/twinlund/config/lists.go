package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/viper"
)

// Bounds of the lists: a file is written by a person.
const (
	maxLUNs    = 256
	maxPortals = 64
	maxHosts   = 4096
)

// lists reads iscsi.portals, hosts, targets and luns.
func (c *Config) lists(v *viper.Viper) (err error) {
	if c.common.Portals, err = portals(v.Get("iscsi.portals"), "iscsi.portals"); err != nil {
		return err
	}
	if c.common.Hosts, c.common.Views, err = c.hosts(v.Get("hosts")); err != nil {
		return err
	}
	if err := c.addTargets(v); err != nil {
		return err
	}
	luns, err := elements(v.Get("luns"), "luns", lunKeys, maxLUNs)
	if err != nil {
		return err
	}
	for i, e := range luns {
		l, err := e.lun(c)
		if err != nil {
			return fmt.Errorf("luns, entry %d: %w", i+1, err)
		}
		c.LUNs = append(c.LUNs, l)
	}
	return nil
}

// element is an entry of a list: its keys and values.
type element map[string]string

// elements reads a list whose entries have nothing but values.
func elements(raw any, path string, allowed map[string]bool, most int) (all []element, err error) {
	list, err := entries(raw, path, allowed, most)
	if err != nil {
		return nil, err
	}
	for i, m := range list {
		e, err := texts(m)
		if err != nil {
			return nil, fmt.Errorf("%s, entry %d: %w", path, i+1, err)
		}
		all = append(all, e)
	}
	return all, nil
}

// entries checks the form of a list. A list that is not there is nil.
func entries(raw any, path string, allowed map[string]bool, most int) ([]map[string]any, error) {
	if raw == nil {
		return nil, nil
	}
	found, ok := raw.([]any)
	if !ok || len(found) > most {
		return nil, fmt.Errorf("%s: a list of at most %d entries is wanted, each begun with '-'", path, most)
	}
	all := make([]map[string]any, 0, len(found))
	for i, r := range found {
		m, ok := r.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s, entry %d: has no keys; allowed are %s", path, i+1, list(allowed))
		}
		for key := range m {
			if !allowed[key] {
				return nil, unknownKey(key, fmt.Sprintf("%s, entry %d,", path, i+1), allowed)
			}
		}
		all = append(all, m)
	}
	return all, nil
}

// texts are an entry's values, but for the lists in it.
func texts(m map[string]any, lists ...string) (element, error) {
	e := element{}
	for key, value := range m {
		if slices.Contains(lists, key) {
			continue
		}
		text, err := text(key, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		e[key] = text
	}
	return e, nil
}

func (e element) portal() (p Portal, err error) {
	p.Address = e["address"]
	if p.Address == "" {
		return p, errors.New("address: is missing")
	}
	if err := checkAddress(p.Address); err != nil {
		return p, fmt.Errorf("address: %w", err)
	}
	if p.Group, err = parseGroup(e["group"]); err != nil {
		return p, fmt.Errorf("group: %w", err)
	}
	return p, nil
}

// lun reads one LUN; what is left out gets its default.
func (e element) lun(c *Config) (l LUN, err error) {
	e.defaults(c)
	l = LUN{Peer: c.Peer.Name, Name: e["name"], Backing: e["backing"], Map: e["map"], Preferred: e["preferred"]}
	number, err := strconv.ParseUint(e["number"], 10, 14)
	if err != nil {
		return l, fmt.Errorf("number: %q is not a number from 0 to 16383", e["number"])
	}
	l.Number = uint16(number)
	for _, f := range []struct {
		key   string
		parse func(string) error
	}{
		{"name", checkName},
		{"uuid", func(v string) (err error) { l.UUID, err = ParseUUID(v); return }},
		{"size", func(v string) (err error) { l.Size, err = ParseSize(v); return }},
		{"extent-size", func(v string) (err error) { l.ExtentSize, err = ParseSize(v); return }},
		{"block-size", func(v string) (err error) { l.BlockSize, err = ParseBlockSize(v); return }},
		{"preferred", checkName},
		{"cold-after", func(v string) (err error) { l.ColdAfter, err = parseDuration(v); return }},
		{"space-threshold", func(v string) (err error) { l.Space, err = ParseThreshold(v); return }},
		{"sanitize-rate", func(v string) (err error) { l.SanitizeRate, err = ParseSize(v); return }},
		{"serve-stale", func(v string) (err error) { l.ServeStale, err = strconv.ParseBool(v); return }},
		{"read-only", func(v string) (err error) { l.ReadOnly, err = strconv.ParseBool(v); return }},
		{"removable", func(v string) (err error) { l.Removable, err = strconv.ParseBool(v); return }},
	} {
		if err := f.parse(e[f.key]); err != nil {
			return l, fmt.Errorf("%s: %w", f.key, err)
		}
	}
	return l, nil
}

func (e element) defaults(c *Config) {
	name := e["name"]
	for key, value := range map[string]string{
		"extent-size": "64KiB",
		"block-size":  "512",
		"backing":     filepath.Join(c.DataDir, name+".img"),
		"map":         filepath.Join(c.DataDir, name+".map"),
		"cold-after":  (30 * time.Second).String(),
		"serve-stale": "false",

		"space-threshold": "10%",
		"sanitize-rate":   "200MiB",
		"read-only":       "false",
		"removable":       "false",
	} {
		if e[key] == "" {
			e[key] = value
		}
	}
}
