package reservation

import "slices"

// Action is a service action of PERSISTENT RESERVE OUT (SPC-4 6.16.2).
type Action byte

// The service actions.
const (
	Register Action = iota
	Reserve
	Release
	Clear
	Preempt
	PreemptAndAbort
	RegisterAndIgnore
	RegisterAndMove
)

// Command is a PERSISTENT RESERVE OUT, its form checked.
type Command struct {
	Action Action
	From   Nexus
	Key    Key  // RESERVATION KEY
	NewKey Key  // SERVICE ACTION RESERVATION KEY
	Type   Type // of Reserve, Release, Preempt and PreemptAndAbort; checked here

	// Of Register and RegisterAndIgnore: all target ports if ALL_TG_PT is set, else
	// empty; and the initiator ports that SPEC_I_PT adds, if Listed.
	Ports  []uint16
	Listed bool
	Others []string

	Persist bool // APTPL, of Register, RegisterAndIgnore and RegisterAndMove

	// Of RegisterAndMove.
	To    Nexus
	Leave bool // UNREG
}

// Outcome is how a command ended.
type Outcome byte

// The outcomes. All but Done leave the state as it was.
const (
	Done         Outcome = iota
	Conflict             // RESERVATION CONFLICT
	WrongRelease         // INVALID RELEASE OF PERSISTENT RESERVATION
	Full                 // INSUFFICIENT REGISTRATION RESOURCES
	WrongKey             // INVALID FIELD IN PARAMETER LIST: SERVICE ACTION RESERVATION KEY
	WrongList            // the same: SPEC_I_PT, where it is not allowed
	WrongNexus           // the same: TransportID
	WrongType            // INVALID FIELD IN CDB: SCOPE, TYPE
)

// Notice is what a nexus is told with a unit attention.
type Notice byte

// The notices (SPC-4 5.13.11).
const (
	ReservationsPreempted  Notice = iota // 2A/03
	ReservationsReleased                 // 2A/04
	RegistrationsPreempted               // 2A/05
)

// Event tells one nexus something. With Abort its commands on the unit end, too.
type Event struct {
	Nexus
	Notice Notice
	Abort  bool
}

// Result is what came of a command.
type Result struct {
	Outcome Outcome
	Events  []Event
}

// Apply carries out a command. The state it returns is the old one if nothing has
// changed.
func (s *State) Apply(c Command) (*State, Result) {
	if s == nil {
		s = new(State)
	}
	next := change{State: *s}
	next.Registrations = slices.Clone(s.Registrations)
	outcome, changed := next.apply(c)
	if outcome != Done || !changed {
		return s, Result{Outcome: outcome}
	}
	return &next.State, Result{Events: next.events}
}

// change is a state in the making, and what has to be told about it.
type change struct {
	State
	events []Event
}

func (s *change) apply(c Command) (outcome Outcome, changed bool) {
	if c.Action == Register || c.Action == RegisterAndIgnore {
		return s.register(c)
	}
	if key := s.Key(c.From); key == 0 || key != c.Key {
		return Conflict, false
	}
	switch c.Action {
	case Reserve:
		return s.reserve(c)
	case Release:
		return s.release(c)
	case Clear:
		return s.clear(c)
	case Preempt, PreemptAndAbort:
		return s.preempt(c)
	case RegisterAndMove:
		return s.move(c)
	}
	panic("reservation: a service action that does not exist")
}

// register is REGISTER and REGISTER AND IGNORE EXISTING KEY (SPC-4 5.13.7). With
// ALL_TG_PT it is as if it had come through each port by itself, but all or
// nothing.
func (s *change) register(c Command) (Outcome, bool) {
	ports := c.Ports
	if len(ports) == 0 {
		ports = []uint16{c.From.Port}
	}
	var own, added []Nexus
	known := false
	for _, port := range ports {
		n := Nexus{c.From.Initiator, port}
		key := s.Key(n)
		if c.Action == Register && key != c.Key {
			return Conflict, false
		}
		known = known || key != 0
		own = append(own, n)
		for _, other := range c.Others {
			added = append(added, Nexus{other, port})
		}
	}
	if c.Listed && (known || c.Action == RegisterAndIgnore || c.NewKey == 0) {
		return WrongList, false
	}
	if c.NewKey == 0 && !known {
		return Done, false
	}
	for _, n := range added {
		if s.Key(n) != 0 || slices.Contains(own, n) {
			return WrongNexus, false
		}
	}
	if c.NewKey == 0 {
		for _, n := range own {
			s.unregister(n)
		}
	} else if !s.enter(append(own, added...), c.NewKey) {
		return Full, false
	}
	s.Persist = c.Persist
	s.Generation++
	return Done, true
}

// enter registers nexuses, or gives them another key.
func (s *change) enter(all []Nexus, key Key) bool {
	for _, n := range all {
		i, found := s.find(n)
		switch {
		case found:
			s.Registrations[i].Key = key
		case len(s.Registrations) >= MaxRegistrations:
			return false
		default:
			s.Registrations = slices.Insert(s.Registrations, i, Registration{n, key})
		}
	}
	return true
}

// unregister removes a nexus; a reservation that nobody holds any more is released
// with it (SPC-4 5.13.11.2.3).
func (s *change) unregister(n Nexus) {
	i, found := s.find(n)
	if !found {
		return
	}
	held := s.Holds(n)
	s.Registrations = slices.Delete(s.Registrations, i, i+1)
	if held && (!s.Type.Shared() || len(s.Registrations) == 0) {
		s.free(n)
	}
}

// free ends the reservation. Those registered that a reservation for registrants
// let in are told, but not the one who did it.
func (s *change) free(by Nexus) {
	if s.Type.registrants() {
		s.tell(ReservationsReleased, by)
	}
	s.Type, s.Holder = None, Nexus{}
}

// tell tells every registered nexus but one.
func (s *change) tell(what Notice, but Nexus) {
	for _, r := range s.Registrations {
		if r.Nexus != but {
			s.events = append(s.events, Event{Nexus: r.Nexus, Notice: what})
		}
	}
}

// reserve is RESERVE (SPC-4 5.13.9).
func (s *change) reserve(c Command) (Outcome, bool) {
	if !c.Type.Valid() {
		return WrongType, false
	}
	if s.Type == None {
		s.hold(c)
		return Done, true
	}
	if s.Type == c.Type && s.Holds(c.From) {
		return Done, false
	}
	return Conflict, false
}

func (s *change) hold(c Command) {
	s.Type, s.Holder = c.Type, Nexus{}
	if !c.Type.Shared() {
		s.Holder = c.From
	}
}

// release is RELEASE (SPC-4 5.13.11.2.2).
func (s *change) release(c Command) (Outcome, bool) {
	switch {
	case !c.Type.Valid():
		return WrongType, false
	case !s.Holds(c.From):
		return Done, false
	case s.Type != c.Type:
		return WrongRelease, false
	}
	s.free(c.From)
	return Done, true
}

// clear is CLEAR (SPC-4 5.13.11.2.6).
func (s *change) clear(c Command) (Outcome, bool) {
	s.tell(ReservationsPreempted, c.From)
	s.Registrations, s.Type, s.Holder = nil, None, Nexus{}
	s.Generation++
	return Done, true
}

// preempt is PREEMPT and PREEMPT AND ABORT (SPC-4 5.13.11.2.4, table 68): of the
// reservation, if the key is its holder's or, with a shared one, 0; else only of the
// registrations with that key, when the type means nothing.
func (s *change) preempt(c Command) (Outcome, bool) {
	held := s.Type.Shared() && c.NewKey == 0 ||
		s.Reserved() && !s.Type.Shared() && s.Key(s.Holder) == c.NewKey
	switch {
	case held && !c.Type.Valid():
		return WrongType, false
	case held:
		s.takeOver(c)
	case s.Reserved() && c.NewKey == 0:
		return WrongKey, false
	case !s.remove(c, func(r Registration) bool { return r.Key == c.NewKey }):
		return Conflict, false
	case s.Type.Shared() && len(s.Registrations) == 0:
		s.Type = None
	}
	s.Generation++
	return Done, true
}

// takeOver gives the reservation to the preempting nexus. Who stays registered is
// told if it is of another type now.
func (s *change) takeOver(c Command) {
	s.remove(c, func(r Registration) bool {
		return r.Nexus != c.From && (c.NewKey == 0 || r.Key == c.NewKey)
	})
	if s.Type != c.Type {
		s.tell(ReservationsReleased, c.From)
	}
	s.hold(c)
}

// remove takes registrations away, and tells those who lose them, but not the one
// who did it.
func (s *change) remove(c Command, which func(Registration) bool) (any bool) {
	s.Registrations = slices.DeleteFunc(s.Registrations, func(r Registration) bool {
		gone := which(r)
		if gone && r.Nexus != c.From {
			s.events = append(s.events, Event{r.Nexus, RegistrationsPreempted, c.Action == PreemptAndAbort})
		}
		any = any || gone
		return gone
	})
	return any
}

// move is REGISTER AND MOVE (SPC-4 5.13.8).
func (s *change) move(c Command) (Outcome, bool) {
	switch {
	case !s.Holds(c.From), s.Type.Shared():
		return Conflict, false
	case c.NewKey == 0:
		return WrongKey, false
	case c.To == c.From:
		return WrongNexus, false
	case !s.enter([]Nexus{c.To}, c.NewKey):
		return Full, false
	}
	s.Holder = c.To
	if c.Leave {
		s.unregister(c.From)
	}
	s.Persist = c.Persist
	s.Generation++
	return Done, true
}
