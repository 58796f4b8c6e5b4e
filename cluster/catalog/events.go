package catalog

import (
	"fmt"
	"iter"
	"strings"
)

// Level says how much an event matters.
type Level string

// The levels.
const (
	Info    Level = "info"
	Warning Level = "warning" // somebody should look at it
	Alert   Level = "alert"   // somebody has to act
)

// Event is an entry of the event log.
type Event struct {
	Number  uint64 `json:"number"` // from 1, without gaps
	Index   uint64 `json:"index"`  // of its command
	Time    Stamp  `json:"time"`
	Level   Level  `json:"level"`
	Subject string `json:"subject"` // "cluster", "node a", "LUN disk", …
	Text    string `json:"text"`
	By      string `json:"by,omitempty"`
}

// Events are the entries that are left after one with a number, oldest first; 0: all.
func (s *State) Events(after uint64) iter.Seq[Event] { return s.events.from(number(after + 1)) }

// log adds an entry to the event log.
func (c *change) log(level Level, subject, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	c.core.Events++
	e := Event{c.core.Events, c.index, c.command.Time, level, subject, text, c.command.By}
	c.events.set(number(e.Number), e)
	if c.events.len() > MaxEvents {
		key, _ := c.events.first()
		c.events.drop(key)
	}
	c.note(EventLogged{e})
}

// LogEvent logs what a node has found, and no command has brought about.
type LogEvent struct {
	Level   Level  `json:"level"`
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

// Kind is "log-event".
func (*LogEvent) Kind() string { return "log-event" }

func (b *LogEvent) apply(c *change) error {
	if b.Level != Info && b.Level != Warning && b.Level != Alert {
		return invalid("level", "%.20q is none of info, warning, alert", b.Level)
	}
	if b.Subject == "" || b.Text == "" {
		return invalid("text", "subject and text are missing")
	}
	if err := checkText("subject", b.Subject, maxBy); err != nil {
		return err
	}
	if err := checkText("text", b.Text, maxText); err != nil {
		return err
	}
	c.log(b.Level, b.Subject, "%s", b.Text)
	return nil
}
