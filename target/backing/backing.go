// Package backing keeps a replica's bytes: in a sparse file or on a block
// device (LVM, ZFS volume, Ceph RBD, NVMe …).
//
// It promises that nobody else has the replica open as one (flock on a file,
// exclusive open of a device), that no error of the medium is hidden, and that
// data is durable once Sync has said so. Reading and writing allocate nothing.
package backing

// Store is a replica's bytes. All methods may be called concurrently; reads and
// writes of the same byte at the same time are in no order, and may be torn (a
// file on ext4 does show a read a block half written).
// Offsets and lengths are in bytes and lie inside [0, Size); anything else is an
// error, and nothing is read or written.
type Store interface {
	// ReadAt fills p with the bytes at off. A short read is an error.
	ReadAt(p []byte, off int64) error
	// WriteAt stores p at off. It is durable only after a Sync that starts later.
	WriteAt(p []byte, off int64) error
	// Zero makes [off, off+n) read as zeros and gives its space back where the
	// medium can do that. It is durable only after a Sync that starts later.
	Zero(off, n int64) error
	// Sync makes every WriteAt and Zero that returned before it was called durable.
	// After a failed Sync the Store stays failed: what was written before it may
	// be lost, and no later Sync can tell.
	Sync() error
	// Size is fixed while the Store is open.
	Size() int64
	// Close syncs and gives the Store up.
	Close() error
}
