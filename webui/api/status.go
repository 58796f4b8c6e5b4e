package api

import "time"

// NodeStatus is a node as it is now.
type NodeStatus struct {
	Node    string          `json:"node" doc:"its name; empty: it is in no cluster"`
	Version string          `json:"version" doc:"of its program"`
	PID     int             `json:"pid"`
	DataDir string          `json:"dataDir" doc:"the folder of everything that has no path of its own"`
	Link    Link            `json:"link" doc:"the first one of links"`
	Links   []Link          `json:"links" doc:"to the nodes with which it shares LUNs"`
	LUNs    []ReplicaStatus `json:"luns" doc:"of which it has a replica"`
	Memory  int64           `json:"memory" doc:"resident, bytes"`
}

// Link is the link to a peer. Counters run since the daemon's start.
type Link struct {
	Peer        string           `json:"peer"`
	Up          bool             `json:"up"`
	RTT         time.Duration    `json:"rtt" doc:"round trip, nanoseconds; 0: not measured yet"`
	Queued      int64            `json:"queued" doc:"bytes that wait to be sent"`
	Connections uint64           `json:"connections"`
	LastError   string           `json:"lastError,omitempty"`
	Sent        map[string]Count `json:"sent" doc:"by kind of message"`
	Received    map[string]Count `json:"received"`
}

// Count counts frames and their bytes.
type Count struct {
	Frames uint64 `json:"frames"`
	Bytes  uint64 `json:"bytes"`
}

// ReplicaStatus is one replica of a LUN, as it is now.
type ReplicaStatus struct {
	Number  uint16 `json:"number"`
	Name    string `json:"name"`
	NAA     string `json:"naa"`
	Serial  string `json:"serial"`
	Size    int64  `json:"size" doc:"bytes"`
	Backing string `json:"backing"`
	Map     string `json:"map"`

	Role    string `json:"role,omitempty" doc:"how the cluster has this node serve: together, alone, none" enum:"together,alone,none"`
	Term    uint64 `json:"term,omitempty" doc:"since when, in changes of who serves"`
	Lease   bool   `json:"lease" doc:"hosts may be answered now"`
	Serving bool   `json:"serving" doc:"host commands are carried out"`
	Alone   bool   `json:"alone" doc:"without the other replica"`
	Why     string `json:"why,omitempty" doc:"it does not serve"`

	Dirty    int64 `json:"dirty" doc:"bytes that the peer does not have yet"`
	Owned    int   `json:"owned" doc:"extents of which only this node may have the newest data; at most 4096 are counted"`
	InFlight int64 `json:"inFlight" doc:"bytes of them on their way"`
	Waiting  int   `json:"waiting" doc:"host commands that wait for the peer"`

	Marks        uint64 `json:"marks"`
	MarkExtents  uint64 `json:"markExtents"`
	Fetches      uint64 `json:"fetches"`
	FetchExtents uint64 `json:"fetchExtents"`
	Copies       uint64 `json:"copies"`
	CopiedBytes  uint64 `json:"copiedBytes"`
	Clears       uint64 `json:"clears"`
	Joins        uint64 `json:"joins"`
	Taken        uint64 `json:"taken" doc:"extents whose newer data at the peer was given up"`
	Held         uint64 `json:"held" doc:"host commands that failed, as the newest data is at the other site"`

	Verifying bool  `json:"verifying" doc:"it is being compared with the other replica"`
	Differing int64 `json:"differing" doc:"bytes that the last comparison has found not to be the same in the other replica, and has not repaired"`

	Space *Space `json:"space,omitempty" doc:"of its backing, if that can be told"`

	Alarms    uint64 `json:"alarms"`
	LastAlarm string `json:"lastAlarm,omitempty"`
}

// Space is the space of the file system in which a replica is, in bytes.
type Space struct {
	Used      int64 `json:"used" doc:"by the replica"`
	Available int64 `json:"available" doc:"for it to grow"`
	Size      int64 `json:"size" doc:"of the file system"`
	Threshold int64 `json:"threshold" doc:"hosts are told when less is available; 0: they are not"`
	Low       bool  `json:"low"`
}
