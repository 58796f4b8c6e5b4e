package catalog

import (
	"github.com/twinlun/twinlun/target/reservation"
)

// reserved is what a LUN has of persistent reservations, with the fields that
// reservation.Encode leaves out.
type reserved = reservation.State

// Reservations are those of a LUN; never nil.
func (s *State) Reservations(lun UUID) *reservation.State {
	if r, found := s.reservations.get(lun.key()); found {
		return r
	}
	return new(reservation.State)
}

// ReserveOut is a PERSISTENT RESERVE OUT of a host (SPC-4 6.16). It is refused by an
// Error only if its form is wrong or the LUN is gone; what the host is told is in
// Outcome.Reservation.
type ReserveOut struct {
	LUN     UUID               `json:"lun"`
	Action  reservation.Action `json:"action"`
	From    Nexus              `json:"from"`
	Key     reservation.Key    `json:"key"`
	NewKey  reservation.Key    `json:"new_key"`
	Type    reservation.Type   `json:"type,omitempty"`
	Ports   []uint16           `json:"ports,omitempty"`
	Listed  bool               `json:"listed,omitempty"`
	Others  []string           `json:"others,omitempty"`
	Persist bool               `json:"persist,omitempty"`
	To      *Nexus             `json:"to,omitempty"` // of RegisterAndMove
	Leave   bool               `json:"leave,omitempty"`
}

// Nexus names an I_T nexus.
type Nexus struct {
	Initiator string `json:"initiator"`
	Port      uint16 `json:"port"`
}

// Kind is "reserve-out".
func (*ReserveOut) Kind() string { return "reserve-out" }

func (b *ReserveOut) apply(c *change) error {
	if err := b.check(); err != nil {
		return err
	}
	if !c.luns.has(b.LUN.key()) {
		return notFound("LUN", b.LUN.String())
	}
	before := c.Reservations(b.LUN)
	after, result := before.Apply(b.command())
	c.outcome.Reservation = result.Outcome
	if after == before {
		return nil
	}
	c.reservations.set(b.LUN.key(), after)
	c.note(ReservationChanged{b.LUN, b.Action, reservation.Nexus(b.From), result.Events})
	return nil
}

func (b *ReserveOut) check() error {
	switch {
	case b.Action > reservation.RegisterAndMove:
		return invalid("action", "there is no service action %d", b.Action)
	case (b.Action == reservation.RegisterAndMove) != (b.To != nil):
		return invalid("to", "is of REGISTER AND MOVE, and of nothing else")
	case len(b.Ports) > MaxPortals || len(b.Others) > reservation.MaxRegistrations:
		return invalid("ports", "at most %d ports and %d others are possible", MaxPortals, reservation.MaxRegistrations)
	}
	nexuses := []Nexus{b.From}
	if b.To != nil {
		nexuses = append(nexuses, *b.To)
	}
	for _, name := range b.Others {
		nexuses = append(nexuses, Nexus{name, 1})
	}
	for _, n := range nexuses {
		if n.Initiator == "" || n.Port == 0 {
			return invalid("from", "an initiator port and a target port are needed")
		}
		if err := checkText("from", n.Initiator, reservation.MaxName); err != nil {
			return err
		}
	}
	return nil
}

func (b *ReserveOut) command() reservation.Command {
	r := reservation.Command{
		Action: b.Action, From: reservation.Nexus(b.From), Key: b.Key, NewKey: b.NewKey, Type: b.Type,
		Ports: b.Ports, Listed: b.Listed, Others: b.Others, Persist: b.Persist, Leave: b.Leave,
	}
	if b.To != nil {
		r.To = reservation.Nexus(*b.To)
	}
	return r
}

// reservedLine is a line of a snapshot.
type reservedLine struct {
	LUN        UUID   `json:"lun"`
	Generation uint32 `json:"generation"`
	Persist    bool   `json:"persist"`
	State      []byte `json:"state"` // reservation.Encode
}

func lineOfReserved(lun UUID, r *reservation.State) reservedLine {
	return reservedLine{lun, r.Generation, r.Persist, r.Encode(lun)}
}

func (l *reservedLine) decode() (*reservation.State, error) {
	r, err := reservation.Decode(l.State, l.LUN)
	if err != nil {
		return nil, err
	}
	r.Generation, r.Persist = l.Generation, l.Persist
	return r, nil
}
