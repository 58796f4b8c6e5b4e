package scsi

import (
	"context"
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/sam"
)

// Reserver keeps the persistent reservations of one logical unit. Whoever does,
// all of a unit's ports that share them have to ask the same one.
type Reserver interface {
	// Load gives the present state; nil: it is not known yet, and hosts have to wait. It
	// is not to be changed, and must not block.
	Load() *reservation.State
	// Apply carries out a command, and returns when its outcome is as durable as the
	// state wants to be, and in force wherever the state is shared. With an error it may
	// be in force or not. Errors may be those that a Disk has.
	Apply(ctx context.Context, c reservation.Command) (reservation.Outcome, error)
	// Watch has a function called after every change, whoever made it, with what
	// nexuses must be told; before Apply returns if it made the change. It does not block.
	Watch(changed func([]reservation.Event))
	// Durable tells whether states can outlive a loss of power (PTPL_C).
	Durable() bool
}

// Shared is a Reserver that keeps one state for all sites that show the unit.
type Shared interface {
	Reserver
	// Settle returns when all sites that serve the unit follow what Load gave before the
	// call. Errors are those of Elsewhere.
	Settle(ctx context.Context) error
	// Elsewhere has ask called, again and again until it succeeds, as long as another
	// site serves the unit. It returns nil when ask has succeeded or none does. With an
	// error this site does not serve the unit, or ctx has ended.
	Elsewhere(ctx context.Context, ask func(ctx context.Context) error) error
}

// Leased is a Disk whose answers count only at times: another one may serve its data
// without this one.
type Leased interface {
	// Leased calls do, and returns when what it has found or done may be answered.
	Leased(ctx context.Context, do func() error) error
}

// Service actions of PERSISTENT RESERVE IN (SPC-4 6.15.1).
const (
	readKeys = iota
	readReservation
	reportCapabilities
	readFullStatus
)

// Form of PERSISTENT RESERVE OUT parameter lists (SPC-4 6.16.3, 6.16.4).
const (
	reserveOutSize = 24 // without TransportIDs
	bitListed      = 0x08
	bitAllPorts    = 0x04
	bitPersist     = 0x01
	bitLeave       = 0x02

	// maxReserveOut bounds the parameter list, in bytes: TransportIDs for all the
	// registrations that there can be.
	maxReserveOut = reserveOutSize + 4 + reservation.MaxRegistrations*(transportHeader+transportLeast+reservation.MaxName)
)

// reserveOperations are PERSISTENT RESERVE IN and OUT. Both see to reservations
// themselves.
func reserveOperations() (ops []operation) {
	for action, build := range []func(*view, *sam.Command) ([]byte, sense){
		readKeys: keysData, readReservation: reservationData, reportCapabilities: capabilitiesData, readFullStatus: fullStatusData,
	} {
		ops = append(ops, answers(operation{code: api.PERSISTENT_RESERVE_IN, action: action, access: accessFree, path: pathStandby, bare: true,
			usage: []byte{0, byte(action), 0, 0, 0, 0, 0, 0xff, 0xff, 0}}, field(7, 2), sure(build)))
	}
	for action := reservation.Register; action <= reservation.RegisterAndMove; action++ {
		ops = append(ops, operation{code: api.PERSISTENT_RESERVE_OUT, action: int(action), access: accessFree, path: pathStandby, bare: true,
			usage:   []byte{0, byte(action), 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0},
			prepare: prepareReserveOut, execute: reserveOut})
	}
	return ops
}

// persistent gives the state for a PERSISTENT RESERVE command, which conflicts with
// a RESERVE, whoever it is from (SPC-2 5.5.1).
func (v *view) persistent() (*reservation.State, sense) {
	if v.unit.holderOfOld() != nil {
		return nil, conflict
	}
	s := v.unit.reservations.Load()
	if s == nil {
		return nil, reservationsUnknown
	}
	return s, sense{}
}

// reservationsUnknown is what hosts hear until the reservations are known.
var reservationsUnknown = sense{key: gotgt.NOT_READY, code: codeBecomingReady}

// sure answers with what is in force at all sites when the answer can be given.
func sure(build func(*view, *sam.Command) ([]byte, sense)) func(*view, *sam.Command) ([]byte, sense) {
	return func(v *view, c *sam.Command) (data []byte, s sense) {
		err := v.unit.leased(c, func(ctx context.Context) error {
			data, s = build(v, c)
			if r, shared := v.unit.reservations.(Shared); shared {
				return r.Settle(ctx)
			}
			return nil
		})
		if err != nil {
			return nil, v.unit.reserveFailed(c, err)
		}
		return data, s
	}
}

// leased calls do, and returns when what it has found or done may be answered.
func (u *unit) leased(c *sam.Command, do func(context.Context) error) error {
	ctx, stop := c.Lasting()
	defer stop()
	if d, able := u.disk.(Leased); able {
		return d.Leased(ctx, func() error { return do(ctx) })
	}
	return do(ctx)
}

// reserveFailed tells of reservations that could not be had or changed.
func (u *unit) reserveFailed(c *sam.Command, err error) sense {
	if c.Ctx.Err() == nil {
		u.target.log.Warn("scsi: a persistent reservation command failed", "lun", u.number, "err", err)
	}
	s := mediumSense(err, gotgt.ASC_INTERNAL_TGT_FAILURE)
	if s.key == gotgt.MEDIUM_ERROR {
		s.key = gotgt.HARDWARE_ERROR
	}
	return s
}

// stateData is the beginning of what PERSISTENT RESERVE IN returns: generation, and
// length of the rest.
func stateData(s *reservation.State, rest []byte) []byte {
	p := binary.BigEndian.AppendUint32(make([]byte, 0, 8+len(rest)), s.Generation)
	p = binary.BigEndian.AppendUint32(p, uint32(len(rest)))
	return append(p, rest...)
}

// keysData is READ KEYS (SPC-4 6.15.2).
func keysData(v *view, _ *sam.Command) ([]byte, sense) {
	s, wrong := v.persistent()
	if wrong.failed() {
		return nil, wrong
	}
	var keys []byte
	for _, r := range s.Registrations {
		keys = binary.BigEndian.AppendUint64(keys, uint64(r.Key))
	}
	return stateData(s, keys), sense{}
}

// reservationData is READ RESERVATION (SPC-4 6.15.3): the holder's key, 0 if all
// hold it, and the type. The scope is always the logical unit.
func reservationData(v *view, _ *sam.Command) ([]byte, sense) {
	s, wrong := v.persistent()
	if wrong.failed() {
		return nil, wrong
	}
	if !s.Reserved() {
		return stateData(s, nil), sense{}
	}
	p := binary.BigEndian.AppendUint64(nil, uint64(s.Key(s.Holder)))
	return stateData(s, append(p, 0, 0, 0, 0, 0, byte(s.Type), 0, 0)), sense{}
}

// capabilitiesData is REPORT CAPABILITIES (SPC-4 6.15.4): CRH and SIP_C; ATP_C if
// all target ports share the reservations; PTPL_C if they can be kept; all types.
func capabilitiesData(v *view, _ *sam.Command) ([]byte, sense) {
	s, wrong := v.persistent()
	if wrong.failed() {
		return nil, wrong
	}
	p := []byte{0, 8, 0x18, 0x80, 0xea, 0x01, 0, 0}
	if v.unit.sharedPorts(v.port) != nil {
		p[2] |= 0x04
	}
	if v.unit.reservations.Durable() {
		p[2] |= 0x01
	}
	if s.Persist {
		p[3] |= 0x01 // PTPL_A
	}
	return p, sense{}
}

// fullStatusData is READ FULL STATUS (SPC-4 6.15.5). A descriptor:
//
//	offset size
//	     0    8  reservation key
//	    12    1  R_HOLDER
//	    13    1  type, of a holder
//	    18    2  relative target port identifier
//	    20    4  length of the TransportID
//	    24    …  TransportID
func fullStatusData(v *view, _ *sam.Command) ([]byte, sense) {
	s, wrong := v.persistent()
	if wrong.failed() {
		return nil, wrong
	}
	var all []byte
	for _, r := range s.Registrations {
		id := appendTransportID(nil, r.Initiator)
		p := binary.BigEndian.AppendUint64(nil, uint64(r.Key))
		p = append(p, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		if s.Holds(r.Nexus) {
			p[12], p[13] = 0x01, byte(s.Type)
		}
		p = binary.BigEndian.AppendUint16(p, r.Port)
		p = binary.BigEndian.AppendUint32(p, uint32(len(id)))
		all = append(append(all, p...), id...)
	}
	return stateData(s, all), sense{}
}

func prepareReserveOut(_ *view, c *sam.Command) sense {
	size := field(5, 4)(c.CDB)
	if size < reserveOutSize || size > maxReserveOut {
		return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	c.WantOut = uint32(size)
	return sense{}
}

// reserveOut is PERSISTENT RESERVE OUT (SPC-4 6.16).
func reserveOut(v *view, c *sam.Command) sense {
	c.Needed = uint32(field(5, 4)(c.CDB))
	if len(c.Out) < int(c.Needed) {
		return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	if _, s := v.persistent(); s.failed() {
		return s
	}
	r, s := v.readReserveOut(c.CDB, c.Out[:c.Needed])
	if s.failed() {
		return s
	}
	var outcome reservation.Outcome
	err := v.unit.leased(c, func(ctx context.Context) (err error) {
		outcome, err = v.unit.reservations.Apply(ctx, r)
		if err == nil && r.Action == reservation.PreemptAndAbort {
			err = v.unit.awaitAborts(ctx)
		}
		return err
	})
	if err != nil {
		return v.unit.reserveFailed(c, err)
	}
	return reserveSense(outcome, r.Action)
}

// readReserveOut reads a parameter list.
func (v *view) readReserveOut(cdb, list []byte) (reservation.Command, sense) {
	be := binary.BigEndian
	r := reservation.Command{
		Action: reservation.Action(cdb[1] & 0x1f), From: v.port.name, Type: reservation.Type(cdb[2]),
		Key: reservation.Key(be.Uint64(list)), NewKey: reservation.Key(be.Uint64(list[8:])),
	}
	if r.Action == reservation.RegisterAndMove {
		return v.readMove(r, list)
	}
	flags := list[20]
	registers := r.Action == reservation.Register || r.Action == reservation.RegisterAndIgnore
	switch {
	case flags&^(bitListed|bitAllPorts|bitPersist) != 0:
		return r, invalidParameterBits(20, flags&^(bitListed|bitAllPorts|bitPersist))
	case flags&bitListed != 0 && r.Action != reservation.Register:
		return r, invalidParameterBits(20, bitListed)
	case flags&bitListed == 0 && len(list) != reserveOutSize:
		return r, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	case !registers:
		return r, sense{}
	}
	if flags&bitPersist != 0 && !v.unit.reservations.Durable() {
		return r, invalidParameterBits(20, bitPersist)
	}
	r.Persist = flags&bitPersist != 0
	if flags&bitAllPorts != 0 {
		if r.Ports = v.unit.sharedPorts(v.port); r.Ports == nil {
			return r, invalidParameterBits(20, bitAllPorts)
		}
	}
	if flags&bitListed == 0 {
		return r, sense{}
	}
	return v.readListed(r, list)
}

// readListed reads the TransportIDs of SPEC_I_PT. One of a device stands for all of
// its ports that are known.
func (v *view) readListed(r reservation.Command, list []byte) (reservation.Command, sense) {
	const at = reserveOutSize + 4
	if len(list) < at || uint64(binary.BigEndian.Uint32(list[reserveOutSize:])) != uint64(len(list)-at) {
		return r, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	r.Listed = true
	for rest := list[at:]; len(rest) > 0; {
		name, after, ok := cutTransportID(rest)
		ports := v.port.target.portsOf(name)
		if !ok || len(ports) == 0 {
			return r, invalidParameter(len(list) - len(rest))
		}
		if r.Others = append(r.Others, ports...); len(r.Others) > reservation.MaxRegistrations {
			return r, reserveSense(reservation.Full, r.Action)
		}
		rest = after
	}
	return r, sense{}
}

// readMove reads the parameter list of REGISTER AND MOVE (SPC-4 6.16.4).
func (v *view) readMove(r reservation.Command, list []byte) (reservation.Command, sense) {
	be := binary.BigEndian
	flags, port := list[17], be.Uint16(list[18:])
	switch {
	case uint64(be.Uint32(list[20:])) != uint64(len(list)-reserveOutSize):
		return r, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	case flags&^(bitLeave|bitPersist) != 0:
		return r, invalidParameterBits(17, flags&^(bitLeave|bitPersist))
	case flags&bitPersist != 0 && !v.unit.reservations.Durable():
		return r, invalidParameterBits(17, bitPersist)
	case !v.unit.hasPort(v.port, port):
		return r, invalidParameter(18)
	}
	name, rest, ok := cutTransportID(list[reserveOutSize:])
	if !ok || len(rest) > 0 || isDevice(name) {
		return r, invalidParameter(reserveOutSize)
	}
	r.To = reservation.Nexus{Initiator: name, Port: port}
	r.Leave, r.Persist = flags&bitLeave != 0, flags&bitPersist != 0
	return r, sense{}
}

// reserveSense turns an outcome into status and sense data.
func reserveSense(o reservation.Outcome, a reservation.Action) sense {
	switch o {
	case reservation.Done:
		return sense{}
	case reservation.Conflict:
		return conflict
	case reservation.WrongRelease:
		return illegal(gotgt.ASC_INVALID_RELEASE_OF_PERSISTENT_RESERVATION)
	case reservation.Full:
		return illegal(gotgt.ASC_INSUFFICIENT_REGISTRATION_RESOURCES)
	case reservation.WrongKey:
		return invalidParameter(8)
	case reservation.WrongList:
		return invalidParameterBits(20, bitListed)
	case reservation.WrongType:
		return invalidField(2)
	}
	if a == reservation.RegisterAndMove {
		return invalidParameter(reserveOutSize)
	}
	return invalidParameter(reserveOutSize + 4)
}
