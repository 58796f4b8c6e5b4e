package daemon

// cluster is a node's part in a cluster.
type cluster struct{}
