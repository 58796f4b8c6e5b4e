package reservation

import (
	"cmp"
	"slices"
)

// MaxRegistrations bounds the registrations of a logical unit, and so what READ
// FULL STATUS returns and a file keeps. Clusters have some dozens of paths.
const MaxRegistrations = 256

// MaxName is the longest name of an initiator port, in bytes: an iSCSI name of 223
// bytes, ",i,0x" and twelve digits (SPC-4 7.6.4.6).
const MaxName = 223 + 5 + 12

// Nexus names an I_T nexus.
type Nexus struct {
	Initiator string // the initiator port: "iqn.…,i,0x800000000001" (SPC-4 7.6.4.6)
	Port      uint16 // relative target port identifier
}

// Compare orders nexuses by port, then by initiator port.
func (n Nexus) Compare(m Nexus) int {
	return cmp.Or(cmp.Compare(n.Port, m.Port), cmp.Compare(n.Initiator, m.Initiator))
}

// Key is a reservation key. 0 stands for none.
type Key uint64

// Type is the type of a persistent reservation, as in a CDB (SPC-4 6.15.3.4).
type Type byte

// The types. None is no reservation.
const (
	None                       Type = 0
	WriteExclusive             Type = 1
	ExclusiveAccess            Type = 3
	WriteExclusiveRegistrants  Type = 5
	ExclusiveAccessRegistrants Type = 6
	WriteExclusiveAll          Type = 7
	ExclusiveAccessAll         Type = 8
)

// Valid tells whether it is the type of a reservation.
func (t Type) Valid() bool {
	return t == WriteExclusive || t == ExclusiveAccess || t >= WriteExclusiveRegistrants && t <= ExclusiveAccessAll
}

// Shared types are held by every registrant.
func (t Type) Shared() bool { return t == WriteExclusiveAll || t == ExclusiveAccessAll }

// registrants types let every registrant in.
func (t Type) registrants() bool { return t >= WriteExclusiveRegistrants }

// readable types let everybody read.
func (t Type) readable() bool {
	return t == WriteExclusive || t == WriteExclusiveRegistrants || t == WriteExclusiveAll
}

// Registration is a registered I_T nexus.
type Registration struct {
	Nexus
	Key Key
}

// State is what a logical unit knows of reservations. The zero value, and nil, is
// none.
type State struct {
	Generation    uint32         // PRGENERATION (SPC-4 6.15.2)
	Persist       bool           // keep all this through a loss of power (APTPL)
	Registrations []Registration // ascending by nexus, no two the same
	Type          Type           // of the reservation; None: there is none
	Holder        Nexus          // of a reservation whose type is not shared
}

// Key is the key that a nexus is registered with; 0: it is not.
func (s *State) Key(n Nexus) Key {
	if i, found := s.find(n); found {
		return s.Registrations[i].Key
	}
	return 0
}

func (s *State) find(n Nexus) (int, bool) {
	if s == nil {
		return 0, false
	}
	return slices.BinarySearchFunc(s.Registrations, n, func(r Registration, n Nexus) int { return r.Nexus.Compare(n) })
}

// Reserved tells whether there is a reservation.
func (s *State) Reserved() bool { return s != nil && s.Type != None }

// Registered tells whether any nexus is registered.
func (s *State) Registered() bool { return s != nil && len(s.Registrations) > 0 }

// Holds tells whether a nexus holds the reservation.
func (s *State) Holds(n Nexus) bool {
	switch {
	case !s.Reserved():
		return false
	case s.Type.Shared():
		return s.Key(n) != 0
	}
	return s.Holder == n
}

// Allows tells whether a command of a nexus may run that only reads, or one that
// does more (SPC-4 table 65, SBC-3 table 13). It allocates nothing.
func (s *State) Allows(n Nexus, reads bool) bool {
	switch {
	case !s.Reserved(), reads && s.Type.readable():
		return true
	case s.Type.registrants():
		return s.Key(n) != 0
	}
	return s.Holder == n
}

// Admits tells whether a nexus belongs to those that a reservation leaves their
// access: it holds it, or is registered and the type is one for registrants. Such a
// nexus may send RESERVE and RELEASE of old, to no effect (SPC-4 5.13.3).
func (s *State) Admits(n Nexus) bool { return s.Reserved() && s.Allows(n, false) }
