package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Version is the newest version of commands that this program knows. A command of a new
// kind, a new field, and any change of what a command does or is refused for, gets the
// next version: all nodes must come to the same result.
const Version = 1

// Command is something to be done to the catalog.
type Command struct {
	ID   UUID   // random; the same when it is proposed again
	Time Stamp  // when it was first proposed
	By   string // who wants it: "user eve", "node a"
	Body Body
}

// Body is what is to be done: one of the pointer types of this package that have a Kind.
type Body interface {
	// Kind is its name in the encoding.
	Kind() string

	// apply does it, or returns an *Error and has changed nothing that is kept.
	apply(c *change) error
}

// kinds are all kinds of commands, with the version that they came with.
var kinds = map[string]struct {
	since int
	body  func() Body
}{
	"init-cluster":     {1, func() Body { return new(InitCluster) }},
	"rename-cluster":   {1, func() Body { return new(RenameCluster) }},
	"change-settings":  {1, func() Body { return new(ChangeSettings) }},
	"raise-version":    {1, func() Body { return new(RaiseVersion) }},
	"add-token":        {1, func() Body { return new(AddToken) }},
	"remove-token":     {1, func() Body { return new(RemoveToken) }},
	"admit-node":       {1, func() Body { return new(AdmitNode) }},
	"change-node":      {1, func() Body { return new(ChangeNode) }},
	"recover-cluster":  {1, func() Body { return new(RecoverCluster) }},
	"remove-node":      {1, func() Body { return new(RemoveNode) }},
	"add-lun":          {1, func() Body { return new(AddLUN) }},
	"change-lun":       {1, func() Body { return new(ChangeLUN) }},
	"remove-lun":       {1, func() Body { return new(RemoveLUN) }},
	"add-replica":      {1, func() Body { return new(AddReplica) }},
	"drain-replica":    {1, func() Body { return new(DrainReplica) }},
	"remove-replica":   {1, func() Body { return new(RemoveReplica) }},
	"take-alone":       {1, func() Body { return new(TakeAlone) }},
	"join-both":        {1, func() Body { return new(JoinBoth) }},
	"leave":            {1, func() Body { return new(Leave) }},
	"force-alone":      {1, func() Body { return new(ForceAlone) }},
	"put-target":       {1, func() Body { return new(PutTarget) }},
	"remove-target":    {1, func() Body { return new(RemoveTarget) }},
	"put-host":         {1, func() Body { return new(PutHost) }},
	"remove-host":      {1, func() Body { return new(RemoveHost) }},
	"put-group":        {1, func() Body { return new(PutGroup) }},
	"remove-group":     {1, func() Body { return new(RemoveGroup) }},
	"set-discovery":    {1, func() Body { return new(SetDiscovery) }},
	"map":              {1, func() Body { return new(Map) }},
	"unmap":            {1, func() Body { return new(Unmap) }},
	"reserve-out":      {1, func() Body { return new(ReserveOut) }},
	"put-user":         {1, func() Body { return new(PutUser) }},
	"remove-user":      {1, func() Body { return new(RemoveUser) }},
	"add-api-token":    {1, func() Body { return new(AddAPIToken) }},
	"remove-api-token": {1, func() Body { return new(RemoveAPIToken) }},
	"log-event":        {1, func() Body { return new(LogEvent) }},
}

// envelope is the encoding of a Command.
type envelope struct {
	Version int             `json:"v"`
	Kind    string          `json:"kind"`
	ID      UUID            `json:"id"`
	Time    Stamp           `json:"time"`
	By      string          `json:"by,omitempty"`
	Body    json.RawMessage `json:"body"`
}

// Encode writes a command. It fails if the command is longer than MaxCommand.
func (c Command) Encode() ([]byte, error) {
	body, err := json.Marshal(c.Body)
	if err != nil {
		return nil, fmt.Errorf("encode the command %s: %w", c.Body.Kind(), err)
	}
	kind := c.Body.Kind()
	raw, err := json.Marshal(envelope{kinds[kind].since, kind, c.ID, c.Time, c.By, body})
	if err == nil && len(raw) > MaxCommand {
		err = fmt.Errorf("it has %d bytes, and may have %d; do it in several steps", len(raw), MaxCommand)
	}
	if err != nil {
		return nil, fmt.Errorf("encode the command %s: %w", kind, err)
	}
	return raw, nil
}

// Decode reads a command. Its error names ErrCannotRead: what a node cannot read it must
// not skip.
func Decode(raw []byte) (Command, error) {
	c, _, err := decode(raw)
	return c, err
}

func decode(raw []byte) (c Command, version int, err error) {
	if len(raw) > MaxCommand {
		return c, 0, unreadable(fmt.Errorf("a command of %d bytes", len(raw)))
	}
	var v struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return c, 0, unreadable(err)
	}
	if v.Version > Version {
		return c, 0, tooNew("commands", v.Version, Version)
	}
	var e envelope
	if err := strict(raw, &e); err != nil {
		return c, 0, unreadable(err)
	}
	c = Command{ID: e.ID, Time: e.Time, By: e.By}
	kind, known := kinds[e.Kind]
	if !known || e.Version < kind.since {
		return c, 0, unreadable(fmt.Errorf("the command %.40q of version %d does not exist", e.Kind, e.Version))
	}
	c.Body = kind.body()
	if err := strict(e.Body, c.Body); err != nil {
		return c, 0, unreadable(fmt.Errorf("command %s: %w", e.Kind, err))
	}
	return c, e.Version, nil
}

// strict reads one JSON object with no field that to does not have, and nothing after it.
func strict(data []byte, to any) error {
	if data = bytes.TrimLeft(data, " \t\r\n"); len(data) == 0 || data[0] != '{' {
		return errors.New("it is no JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the JSON object")
	}
	return nil
}
