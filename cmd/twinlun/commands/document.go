package commands

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/webui/api"
)

// maxDocument bounds a document, in bytes: as JSON it has to fit into a request, of 1 MiB.
const maxDocument = 1 << 20

// maxSecretFile bounds a file with a secret, in bytes. A secret has at most 255.
const maxSecretFile = 4096

// readDocument reads a document. Files with secrets are beside it, if their paths are not
// absolute.
func readDocument(stdin io.Reader, path string) (*api.Document, error) {
	in, dir := stdin, "."
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in, dir = f, filepath.Dir(path)
	}
	text, err := io.ReadAll(io.LimitReader(in, maxDocument+1))
	if err != nil {
		return nil, err
	}
	d, err := parseDocument(text, func(name string) (string, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return readSecret(name)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return oneSecret(f)
}

func oneSecret(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSecretFile))
	return strings.TrimRight(string(text), "\r\n"), err
}

// parseDocument reads a document in YAML, of which JSON is a part. It has the names that
// api.Document has as JSON; sizes may have units, and secrets may be in files.
func parseDocument(text []byte, secret func(path string) (string, error)) (*api.Document, error) {
	if len(text) > maxDocument {
		return nil, fmt.Errorf("it has more than %d bytes; make several documents of it", maxDocument)
	}
	top, err := parseYAML(text)
	if err != nil {
		return nil, err
	}
	d := new(api.Document)
	known := map[string]func(raw any) error{
		"settings":  func(raw any) error { return one(raw, &d.Settings, sizes("copy_rate")) },
		"discovery": func(raw any) error { return one(raw, &d.Discovery, secrets(secret)) },
		"groups":    func(raw any) error { return many(raw, &d.Groups) },
		"luns":      func(raw any) error { return many(raw, &d.LUNs, sizes("size", "block_size", "extent_size")) },
		"targets":   func(raw any) error { return many(raw, &d.Targets) },
		"hosts":     func(raw any) error { return many(raw, &d.Hosts, secrets(secret)) },
		"mappings":  func(raw any) error { return many(raw, &d.Mappings) },
	}
	for _, key := range slices.Sorted(maps.Keys(top)) {
		f := known[key]
		if f == nil {
			return nil, fmt.Errorf("unknown key %.40q; allowed at the top are %s", key, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if err := f(top[key]); err != nil {
			return nil, fmt.Errorf("%s%w", key, err)
		}
	}
	return d, nil
}

// parseYAML reads one document that is a map of texts.
func parseYAML(text []byte) (top map[string]any, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&top); err != nil && err != io.EOF {
		return nil, err
	}
	if err := dec.Decode(new(any)); err != io.EOF {
		return nil, errors.New("a second document, or something else, follows after ---")
	}
	if len(top) == 0 {
		return nil, errors.New("there is nothing in it")
	}
	return top, nil
}

// rewrite replaces what is friendlier in a document than in the API.
type rewrite func(entry map[string]any) error

// one reads a section that is one entry.
func one[E any](raw any, to **E, how ...rewrite) error {
	*to = new(E)
	if err := entry(raw, *to, how); err != nil {
		return fmt.Errorf(": %w", err)
	}
	return nil
}

// many reads a section that is a list of entries.
func many[E any](raw any, to *[]E, how ...rewrite) error {
	list, ok := raw.([]any)
	if !ok {
		return errors.New(": a list is wanted, each entry begun with '-'")
	}
	for i, r := range list {
		var e E
		if err := entry(r, &e, how); err != nil {
			return fmt.Errorf(", entry %d: %w", i+1, err)
		}
		*to = append(*to, e)
	}
	return nil
}

func entry(raw, to any, how []rewrite) error {
	m, ok := raw.(map[string]any)
	if !ok {
		return errors.New("keys and values are wanted here")
	}
	for _, f := range how {
		if err := f(m); err != nil {
			return err
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("keys are texts, and values what JSON can have: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(to); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// sizes have units.
func sizes(keys ...string) rewrite {
	return func(entry map[string]any) error {
		for _, key := range keys {
			text, ok := entry[key].(string)
			if !ok {
				continue
			}
			bytes, err := config.ParseSize(text)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			entry[key] = bytes
		}
		return nil
	}
}

// secrets are in files.
func secrets(read func(path string) (string, error)) rewrite {
	return func(entry map[string]any) error {
		for _, key := range []string{"secret", "target_secret"} {
			path, found := entry[key+"_file"]
			if !found {
				continue
			}
			if _, both := entry[key]; both {
				return fmt.Errorf("there are both %s and %s_file", key, key)
			}
			name, ok := path.(string)
			if !ok {
				return fmt.Errorf("%s_file: the path of a file is wanted", key)
			}
			text, err := read(name)
			if err != nil {
				return fmt.Errorf("%s_file: %w", key, err)
			}
			delete(entry, key+"_file")
			entry[key] = text
		}
		return nil
	}
}
