package reservation

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	magic      = "TWLNPR01"
	headerSize = 32
	entrySize  = 12 // of a registration, without its name
	sumSize    = 4
	nobody     = 0xffff

	// MaxEncoded is the most that Encode returns, in bytes.
	MaxEncoded = headerSize + MaxRegistrations*(entrySize+MaxName) + sumSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode writes a state in the form that doc.go draws.
func (s *State) Encode(unit [16]byte) []byte {
	be := binary.BigEndian
	p := append(append([]byte(magic), unit[:]...), byte(s.Type), 0)
	holder := nobody
	if i, found := s.find(s.Holder); found && s.Reserved() && !s.Type.Shared() {
		holder = i
	}
	p = be.AppendUint16(p, uint16(holder))
	p = be.AppendUint32(p, uint32(len(s.Registrations)))
	for _, r := range s.Registrations {
		p = be.AppendUint64(p, uint64(r.Key))
		p = be.AppendUint16(p, r.Port)
		p = be.AppendUint16(p, uint16(len(r.Initiator)))
		p = append(p, r.Initiator...)
	}
	return be.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

// Decode reads what Encode has written for a logical unit, and nothing else.
func Decode(p []byte, unit [16]byte) (*State, error) {
	switch {
	case len(p) < headerSize+sumSize || len(p) > MaxEncoded:
		return nil, fmt.Errorf("%d bytes are too few or too many", len(p))
	case string(p[:8]) != magic:
		return nil, fmt.Errorf("it does not begin with %q", magic)
	}
	body := p[:len(p)-sumSize]
	if binary.BigEndian.Uint32(p[len(body):]) != crc32.Checksum(body, castagnoli) {
		return nil, errors.New("its checksum is wrong")
	}
	if !bytes.Equal(body[8:24], unit[:]) {
		return nil, fmt.Errorf("it belongs to the logical unit %x, not to %x", body[8:24], unit)
	}
	return decodeBody(body)
}

func decodeBody(p []byte) (*State, error) {
	s := &State{Persist: true, Type: Type(p[24])}
	holder, count := int(binary.BigEndian.Uint16(p[26:])), binary.BigEndian.Uint32(p[28:])
	if p[25] != 0 || count > MaxRegistrations {
		return nil, errors.New("its header is wrong")
	}
	rest := p[headerSize:]
	for range count {
		r, after, err := decodeRegistration(rest)
		if err != nil {
			return nil, err
		}
		if n := len(s.Registrations); n > 0 && s.Registrations[n-1].Compare(r.Nexus) >= 0 {
			return nil, errors.New("its registrations are not ascending")
		}
		s.Registrations, rest = append(s.Registrations, r), after
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes follow the last registration", len(rest))
	}
	return s, s.decodeHolder(holder)
}

func decodeRegistration(p []byte) (r Registration, rest []byte, err error) {
	if len(p) < entrySize {
		return r, nil, errors.New("a registration is cut off")
	}
	be := binary.BigEndian
	r.Key, r.Port = Key(be.Uint64(p)), be.Uint16(p[8:])
	size := int(be.Uint16(p[10:]))
	if r.Key == 0 || size == 0 || size > MaxName || size > len(p)-entrySize {
		return r, nil, errors.New("a registration is wrong")
	}
	r.Initiator = string(p[entrySize : entrySize+size])
	return r, p[entrySize+size:], nil
}

// decodeHolder checks who holds the reservation: one who is registered; or, if the
// type is shared, all who are.
func (s *State) decodeHolder(holder int) error {
	one := s.Type.Valid() && !s.Type.Shared()
	switch {
	case s.Type != None && !s.Type.Valid():
		return fmt.Errorf("type %d is not one of a reservation", s.Type)
	case one && holder >= len(s.Registrations), !one && holder != nobody, s.Type.Shared() && !s.Registered():
		return errors.New("nobody holds the reservation")
	case one:
		s.Holder = s.Registrations[holder].Nexus
	}
	return nil
}
