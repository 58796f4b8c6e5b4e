package catalog

// Bounds of what a catalog keeps. All of it is in memory at every node, and in every
// snapshot; a full catalog takes some hundred megabytes.
const (
	MaxNodes    = 64   // several pairs of sites with some nodes each, and witnesses
	MaxRemoved  = 1024 // nodes that stay refused
	MaxLUNs     = 4096
	MaxTargets  = 128 // as many as a device has port identifiers for
	MaxPortals  = 64  // of a target: each node on several networks
	MaxHosts    = 16384
	MaxNames    = 16 // initiators of one host: its adapters
	MaxGroups   = 4096
	MaxMembers  = 1024  // hosts of a group, which are all looked at when it is mapped
	MaxMappings = 65536 // each LUN for some 16 groups
	MaxTokens   = 256   // join tokens: nobody waits for more nodes at once
	MaxUsers    = 1024
	MaxKeys     = 4096 // API tokens
	MaxEvents   = 4096 // days of an ordinary cluster; what is to be kept goes to a log elsewhere
	MaxRequests = 1024 // remembered: minutes of a busy cluster, and proposers give up in seconds
	MaxChain    = 64   // changes of who serves a LUN, by which a replica that was away is known
	MaxForks    = 8    // forced take-overs of a LUN that came too late
	MaxSteps    = MaxLUNs
)

// Bounds of texts, in bytes.
const (
	maxNode      = 63  // a label of a DNS name (RFC 1035 section 2.3.4)
	maxName      = 63  // of LUNs, hosts, groups, users, sites, the cluster
	maxISCSIName = 223 // RFC 7143 section 4.2.7.1
	maxAlias     = 255 // RFC 7143 section 13.7: a text value
	maxAddress   = 255 // the longest DNS name, with a port
	maxAddresses = 8   // of a node
	maxPath      = 1024
	maxUser      = 255  // the name in CHAP (RFC 7143 section 12.1.3 has text values of 255)
	maxSealed    = 1024 // a secret of 256 bytes, sealed several times over
	maxPassword  = 512  // a hash, with its parameters
	maxText      = 512  // of an event
	maxBy        = 128

	// MaxCommand is the longest command: a take-over of all LUNs takes 400 KiB.
	MaxCommand = 1 << 20
	// maxLine is the longest line of a snapshot: the reservations of a LUN take 100 KiB.
	maxLine = 256 << 10
)
