package catalog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// snapshotFormat is the newest form of a snapshot that this program knows, and the one it
// writes. A new field or kind of line makes a new one; older ones stay readable.
const snapshotFormat = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// line is a line of a snapshot.
type line struct {
	Kind  string          `json:"kind"`
	Value json.RawMessage `json:"value"`
}

// end is the value of the last line.
type end struct {
	Lines int    `json:"lines"` // before it
	CRC   string `json:"crc"`   // CRC-32C of all bytes before it, eight hexadecimal digits
}

// WriteTo writes a snapshot: the same bytes for the same state.
func (s *State) WriteTo(w io.Writer) (int64, error) {
	if s.stopped != nil {
		return 0, fmt.Errorf("write a snapshot: %w", s.stopped)
	}
	out := &lineWriter{w: bufio.NewWriter(w), sum: crc32.New(castagnoli)}
	out.write("catalog", s.core)
	writeAll(out, "node", s.nodes)
	writeAll(out, "removed-node", s.removed)
	writeAll(out, "token", s.tokens)
	writeAll(out, "lun", s.luns)
	for lun, r := range s.reservations.all("") {
		out.write("reservations", lineOfReserved(uuidOf(lun), r))
	}
	writeAll(out, "target", s.targets)
	writeAll(out, "group", s.groups)
	writeAll(out, "host", s.hosts)
	writeAll(out, "mapping", s.mappings)
	writeAll(out, "user", s.users)
	writeAll(out, "api-token", s.apiTokens)
	writeAll(out, "request", s.requests)
	writeAll(out, "event", s.events)
	out.write("end", end{out.lines, fmt.Sprintf("%08x", out.sum.Sum32())})
	if err := out.w.Flush(); out.err == nil {
		out.err = err
	}
	if out.err != nil {
		return out.n, fmt.Errorf("write a snapshot: %w", out.err)
	}
	return out.n, nil
}

func writeAll[V any](out *lineWriter, kind string, t table[V]) {
	for v := range t.values("") {
		out.write(kind, v)
	}
}

// lineWriter writes lines until something goes wrong.
type lineWriter struct {
	w     *bufio.Writer
	sum   hash.Hash32
	lines int
	n     int64
	err   error
}

func (o *lineWriter) write(kind string, value any) {
	if o.err != nil {
		return
	}
	raw, err := json.Marshal(value)
	if err == nil {
		raw, err = json.Marshal(line{kind, raw})
	}
	if err == nil && len(raw) >= maxLine {
		err = fmt.Errorf("a %s of %d bytes", kind, len(raw))
	}
	if err != nil {
		panic("catalog: something that cannot be in a snapshot: " + err.Error())
	}
	raw = append(raw, '\n')
	o.sum.Write(raw)
	o.lines++
	n, err := o.w.Write(raw)
	o.n, o.err = o.n+int64(n), err
}

// Read reads a snapshot, and checks all of it. It takes no more memory than what it has
// read so far needs. The error names ErrCannotRead if the snapshot is of a newer program.
func Read(r io.Reader) (*State, error) {
	in := &reader{r: bufio.NewReaderSize(r, maxLine), sum: crc32.New(castagnoli)}
	if err := in.read(); err != nil {
		return nil, fmt.Errorf("read a catalog's snapshot, line %d: %w", in.lines+1, err)
	}
	if err := in.state.check(); err != nil {
		return nil, fmt.Errorf("read a catalog's snapshot: %w", err)
	}
	s := in.state.State
	return &s, nil
}

// reader puts a state together from lines.
type reader struct {
	r     *bufio.Reader
	sum   hash.Hash32
	lines int // that are done
	state change
}

func (in *reader) read() error {
	for {
		raw, err := in.next()
		if err != nil {
			return err
		}
		var l line
		if err := json.Unmarshal(raw, &l); err != nil {
			return err
		}
		switch {
		case in.lines == 0:
			err = in.begin(l)
		case l.Kind == "end":
			return in.end(l.Value)
		default:
			err = in.entry(l)
		}
		if err != nil {
			return err
		}
		in.sum.Write(raw)
		in.lines++
	}
}

func (in *reader) next() ([]byte, error) {
	raw, err := in.r.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull:
		return nil, fmt.Errorf("it has more than %d bytes", maxLine)
	case err == io.EOF:
		return nil, errors.New("the end is missing; use another snapshot")
	}
	return raw, err
}

func (in *reader) begin(l line) error {
	if l.Kind != "catalog" {
		return fmt.Errorf("it is no snapshot of a catalog, but begins with %.40q", l.Kind)
	}
	var v struct{ Format, Version int }
	if err := json.Unmarshal(l.Value, &v); err != nil {
		return err
	}
	if v.Format > snapshotFormat {
		return tooNew("snapshots", v.Format, snapshotFormat)
	}
	if v.Version > Version {
		return tooNew("commands", v.Version, Version)
	}
	return strict(l.Value, &in.state.core)
}

func (in *reader) end(value []byte) error {
	var e end
	if err := strict(value, &e); err != nil {
		return err
	}
	if want := (end{in.lines, fmt.Sprintf("%08x", in.sum.Sum32())}); e != want {
		return fmt.Errorf("it is damaged: its %d lines have the checksum %s, and should be %d with %s; use another snapshot", want.Lines, want.CRC, e.Lines, e.CRC)
	}
	if _, err := in.r.ReadByte(); err != io.EOF {
		return errors.New("something follows the end")
	}
	in.state.core.Format = snapshotFormat
	return nil
}

func (in *reader) entry(l line) error {
	c := &in.state
	switch l.Kind {
	case "node":
		return take(l.Value, &c.nodes, MaxNodes, c.putNode)
	case "removed-node":
		return take(l.Value, &c.removed, MaxRemoved, c.putRemoved)
	case "token":
		return take(l.Value, &c.tokens, MaxTokens, func(t JoinToken) { c.tokens.set(t.Hash.key(), t) })
	case "lun":
		return take(l.Value, &c.luns, MaxLUNs, c.putLUN)
	case "reservations":
		return in.reservations(l.Value)
	case "target":
		return take(l.Value, &c.targets, MaxTargets, func(t Target) { c.targets.set(t.Name, t) })
	case "group":
		return take(l.Value, &c.groups, MaxGroups, func(g Group) { c.groups.set(g.Name, g) })
	case "host":
		return take(l.Value, &c.hosts, MaxHosts, c.putHost)
	case "mapping":
		return take(l.Value, &c.mappings, MaxMappings, c.putMapping)
	case "user":
		return take(l.Value, &c.users, MaxUsers, func(u User) { c.users.set(u.Name, u) })
	case "api-token":
		return take(l.Value, &c.apiTokens, MaxKeys, c.putAPIToken)
	case "request":
		return take(l.Value, &c.requests, MaxRequests, c.putRequest)
	case "event":
		return take(l.Value, &c.events, MaxEvents, func(e Event) { c.events.set(number(e.Number), e) })
	}
	return fmt.Errorf("there is no entry of the kind %.40q", l.Kind)
}

func (in *reader) reservations(value []byte) error {
	var broken error
	t := &in.state.reservations
	err := take(value, t, MaxLUNs, func(l reservedLine) {
		r, err := l.decode()
		if broken = err; err == nil {
			t.set(l.LUN.key(), r)
		}
	})
	if broken != nil {
		return broken
	}
	return err
}

// take reads an entry and puts it into its table, which must have room for it, and not
// have it yet.
func take[V, E any](value []byte, t *table[E], most int, put func(V)) error {
	before := t.len()
	if before >= most {
		return fmt.Errorf("there are more than %d of its kind", most)
	}
	var v V
	if err := strict(value, &v); err != nil {
		return err
	}
	if put(v); t.len() == before {
		return errors.New("the entry is there already")
	}
	return nil
}

// Equal tells whether two states are the same, to the byte of their snapshots.
func (s *State) Equal(t *State) bool {
	var a, b bytes.Buffer
	_, errA := s.WriteTo(&a)
	_, errB := t.WriteTo(&b)
	return errA == nil && errB == nil && bytes.Equal(a.Bytes(), b.Bytes())
}
