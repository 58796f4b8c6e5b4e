package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/twinlun/twinlun/cluster/identity"
)

// Witness is what a node has to itself that only votes. It joins by these settings where
// nobody is there to do it by hand.
type Witness struct {
	// Token is a join token; "": it joins by hand, or has joined. Newcomer is who it is then.
	Token    string
	Newcomer identity.Newcomer

	on   bool
	file string // with the token
}

func witnessSettings() []Setting {
	return []Setting{
		{"witness", "false", "be the cluster's witness: vote, and serve nothing", setWitness},
		{"join.token-file", "", "of a witness that is in no cluster yet: file with a join token; it joins when it starts",
			func(c *Config, v string) error { c.witness.file = v; return nil }},
		{"join.node", "", "the name that it gets",
			func(c *Config, v string) error { c.witness.Newcomer.Node = v; return identity.CheckNode(v) }},
		{"join.site", "", "the site where it stands",
			func(c *Config, v string) error { c.witness.Newcomer.Site = v; return nil }},
		{"join.addresses", "", "host:port, or several, at which the others reach it", setJoinAddresses},
	}
}

func setWitness(c *Config, v string) error {
	if v != "true" && v != "false" {
		return fmt.Errorf("%q is neither true nor false", v)
	}
	c.witness.on = v == "true"
	return nil
}

func setJoinAddresses(c *Config, v string) error {
	c.witness.Newcomer.Addresses = nil
	for _, a := range strings.Split(v, ",") {
		a = strings.TrimSpace(a)
		if err := checkAddress(a); err != nil {
			return err
		}
		c.witness.Newcomer.Addresses = append(c.witness.Newcomer.Addresses, a)
	}
	return nil
}

// checkWitness completes the settings of a witness.
func (c *Config) checkWitness() error {
	w := &c.witness
	w.Newcomer.Witness = true
	switch {
	case !w.on && w.file != "":
		return errors.New("join.token-file: is for a witness; other nodes join with twinlun join")
	case !w.on:
		return nil
	case c.byHand() != "":
		return fmt.Errorf("witness: a witness serves nothing, and %s is for a node that does", c.byHand())
	}
	c.Witness = w
	if w.file == "" {
		return nil
	}
	if w.Newcomer.Node == "" || w.Newcomer.Site == "" || len(w.Newcomer.Addresses) == 0 {
		return errors.New("join.token-file: to join, the witness needs join.node, join.site and join.addresses, too")
	}
	return w.readToken()
}

// readToken reads the file with the token. One that is no longer there has done its work.
func (w *Witness) readToken() error {
	info, err := os.Stat(w.file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("join.token-file: %w", err)
	case info.Size() > identity.MaxTokenText:
		return fmt.Errorf("join.token-file: %s has %d bytes, and is no join token", w.file, info.Size())
	}
	text, err := os.ReadFile(w.file)
	if err != nil {
		return fmt.Errorf("join.token-file: %w", err)
	}
	w.Token = string(text)
	return nil
}
