// Package api is the REST API of a node, below /api/v1: what twinlun, the web console and
// scripts administer a cluster with. Any node answers for the whole cluster; only /node is
// about the node itself.
//
// Bodies are JSON. An error is a problem document (RFC 9457) with the catalog's code, the
// field it is about, and a hint. What changes a cluster returns when this node has it. The
// document of the API (OpenAPI 3.1) is at /api/v1/openapi.json.
package api
