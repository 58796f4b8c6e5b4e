package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// Source is what a configuration is loaded from.
type Source struct {
	File    string         // "": none
	Environ []string       // as os.Environ
	Flags   *pflag.FlagSet // made by AddFlags; nil: none
}

// AddFlags gives a command one flag for each setting.
func AddFlags(flags *pflag.FlagSet) {
	for _, s := range Settings() {
		if !s.secret() {
			flags.String(s.Flag(), s.Default, s.Usage)
		}
	}
	flags.Lookup("witness").NoOptDefVal = "true"
}

// Load reads a configuration and checks it.
func (src Source) Load() (*Config, error) {
	env, err := src.environment()
	if err != nil {
		return nil, err
	}
	v := viper.New()
	if src.File != "" {
		v.SetConfigFile(src.File)
		v.SetConfigType("yaml")
		if err := v.ReadInConfig(); err != nil {
			return nil, fmt.Errorf("read the configuration %s: %w", src.File, err)
		}
		if err := checkKeys(v.AllSettings()); err != nil {
			return nil, fmt.Errorf("configuration %s: %w", src.File, err)
		}
	}
	c := new(Config)
	if err := c.lookAtFile(src.File, v); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", src.File, err)
	}
	for _, s := range Settings() {
		value, origin, err := src.lookup(v, env, &s)
		if err == nil && (value != "" || s.Default != "") {
			err = s.set(c, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", origin, s.Key, err)
		}
	}
	if err := c.lists(v); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", src.File, err)
	}
	return c, c.check()
}

// lookup finds a setting's value: flag, environment, file, default.
func (src Source) lookup(v *viper.Viper, env map[string]string, s *Setting) (value, origin string, err error) {
	if src.Flags != nil {
		if f := src.Flags.Lookup(s.Flag()); f != nil && f.Changed {
			return f.Value.String(), "flag --" + s.Flag(), nil
		}
	}
	if value, ok := env[s.Env()]; ok {
		return value, "environment " + s.Env(), nil
	}
	if v.InConfig(s.Key) || v.IsSet(s.Key) {
		value, err := text(s.Key, v.Get(s.Key))
		return value, "configuration " + src.File, err
	}
	return s.Default, "default", nil
}

// scalar is a value of the file as text; a list of values is joined.
func scalar(raw any) (string, error) {
	if list, ok := raw.([]any); ok {
		var parts []string
		for _, e := range list {
			text, err := scalar(e)
			if err != nil {
				return "", err
			}
			parts = append(parts, text)
		}
		return strings.Join(parts, ","), nil
	}
	switch raw.(type) {
	case nil:
		return "", nil
	case string, bool, int, int64, uint64, float64:
		return fmt.Sprint(raw), nil
	}
	return "", fmt.Errorf("one value is wanted here, not %v", raw)
}

// text is the value of a key as text. A secret has to be one already: YAML would
// read 000123456789 as a number, and we as another text.
func text(key string, raw any) (string, error) {
	if !isSecret(key[strings.LastIndexByte(key, '.')+1:]) || raw == nil {
		return scalar(raw)
	}
	s, ok := raw.(string)
	if !ok {
		return "", errors.New("a text is wanted here; put it in quotes")
	}
	return s, nil
}

// ConfigEnv is the environment variable with the configuration file's path.
const ConfigEnv = envPrefix + "CONFIG"

// environment picks the settings out of the environment.
func (src Source) environment() (map[string]string, error) {
	known := map[string]bool{ConfigEnv: true}
	for _, s := range Settings() {
		known[s.Env()] = true
	}
	env := map[string]string{}
	for _, e := range src.Environ {
		name, value, _ := strings.Cut(e, "=")
		switch {
		case !strings.HasPrefix(name, envPrefix):
		case !known[name]:
			return nil, fmt.Errorf("environment: unknown variable %s; allowed are %s", name, list(known))
		default:
			env[name] = value
		}
	}
	return env, nil
}

// list is a set's elements, for people.
func list(set map[string]bool) string {
	return strings.Join(slices.Sorted(maps.Keys(set)), ", ")
}

// Keys of the lists' elements.
var (
	portalKeys = map[string]bool{"address": true, "group": true}
	hostKeys   = map[string]bool{"initiator": true, "user": true, "secret": true, "secret-file": true,
		"target-user": true, "target-secret": true, "target-secret-file": true,
		"prefer": true, "luns": true}
	targetKeys = map[string]bool{"number": true, "iqn": true, "alias": true, "listen": true, "portals": true,
		"hosts": true, "luns": true}
	lunKeys = map[string]bool{"number": true, "name": true, "uuid": true, "size": true, "extent-size": true, "block-size": true,
		"backing": true, "map": true, "preferred": true, "cold-after": true,
		"serve-stale": true, "sanitize-rate": true, "read-only": true, "removable": true, "space-threshold": true}
)

// checkKeys finds the first key of the file that nobody knows.
func checkKeys(settings map[string]any) error {
	allowed := map[string]map[string]bool{"": {"luns": true, "hosts": true, "targets": true}, "iscsi": {"portals": true}}
	for _, s := range Settings() {
		section, key, nested := strings.Cut(s.Key, ".")
		if !nested {
			section, key = "", s.Key
		} else {
			allowed[""][section] = true
		}
		if allowed[section] == nil {
			allowed[section] = map[string]bool{}
		}
		allowed[section][key] = true
	}
	return checkSection("", settings, allowed)
}

func checkSection(section string, settings map[string]any, allowed map[string]map[string]bool) error {
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		path := strings.TrimPrefix(section+"."+key, ".")
		if !allowed[section][key] {
			return unknownKey(path, section, allowed[section])
		}
		if section != "" || allowed[key] == nil {
			continue
		}
		sub, ok := settings[key].(map[string]any)
		if !ok {
			return fmt.Errorf("%s: has keys below it, %s, and no value of its own", key, list(allowed[key]))
		}
		if err := checkSection(key, sub, allowed); err != nil {
			return err
		}
	}
	return nil
}

func unknownKey(path, section string, allowed map[string]bool) error {
	where := "at the top"
	if section != "" {
		where = "in " + section
	}
	return fmt.Errorf("unknown key %q; allowed %s are %s", path, where, list(allowed))
}
