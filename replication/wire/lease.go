package wire

// FeatureLease: the sender belongs to a cluster, asks for leases and answers.
const FeatureLease = 1 << 2

// LeaseRequest asks the other node for a lease: it is the heartbeat of two nodes of a
// cluster (package cluster/failover). Control stream; it belongs to no LUN, whose number
// is 0.
//
//	0  8  life of the sender: random for each run of its process
//	8  8  sequence number, from 1
type LeaseRequest struct{ Life, Seq uint64 }

// Kind implements Message.
func (*LeaseRequest) Kind() Kind   { return KindLeaseRequest }
func (*LeaseRequest) check() error { return nil }
func (*LeaseRequest) size() int    { return 16 }

func (m *LeaseRequest) appendBody(b *Batch) {
	b.u64(m.Life)
	b.u64(m.Seq)
}

func (m *LeaseRequest) parseBody(p *parser) { m.Life, m.Seq = p.u64(), p.u64() }

// LeaseGrant is the answer. Control stream.
//
//	 0  8  life, of the request
//	 8  8  sequence number, of the request
//	16  8  up to where the sender has applied the cluster's log
//	24  8  where in it the last decision is about who serves, that the sender knows
//	32  8  how long the lease lasts, nanoseconds
type LeaseGrant struct{ Life, Seq, Applied, Decided, Lease uint64 }

// Kind implements Message.
func (*LeaseGrant) Kind() Kind   { return KindLeaseGrant }
func (*LeaseGrant) check() error { return nil }
func (*LeaseGrant) size() int    { return 40 }

func (m *LeaseGrant) appendBody(b *Batch) {
	for _, v := range []uint64{m.Life, m.Seq, m.Applied, m.Decided, m.Lease} {
		b.u64(v)
	}
}

func (m *LeaseGrant) parseBody(p *parser) {
	for _, v := range []*uint64{&m.Life, &m.Seq, &m.Applied, &m.Decided, &m.Lease} {
		*v = p.u64()
	}
}
