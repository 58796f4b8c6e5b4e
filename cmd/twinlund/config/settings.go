package config

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/twinlun/twinlun/secret"
)

// Setting is something that has one value.
type Setting struct {
	Key     string // as in the file: "iscsi.portal-group"
	Default string
	Usage   string
	set     func(c *Config, value string) error
}

// secret tells whether the setting is a secret: it has no flag.
func (s *Setting) secret() bool { return isSecret(s.Key[strings.LastIndexByte(s.Key, '.')+1:]) }

// isSecret tells the keys whose values are not shown, and are quoted in the file.
func isSecret(key string) bool { return key == "secret" || key == "target-secret" || key == "token" }

// Flag is the setting's flag, without dashes.
func (s *Setting) Flag() string { return strings.ReplaceAll(s.Key, ".", "-") }

// Env is the setting's environment variable.
func (s *Setting) Env() string { return envPrefix + envName(s.Key) }

func envName(key string) string {
	return strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

const envPrefix = "TWINLUN_"

// Settings is the table of all settings, in the order in which they are shown.
func Settings() []Setting {
	return append([]Setting{
		{"node", "", "name of this node", func(c *Config, v string) error { c.Node = v; return checkName(v) }},
		{"data-dir", "/var/lib/twinlund", "folder of replicas and map files that have no path of their own",
			func(c *Config, v string) error { c.DataDir = v; return nil }},
		{"log.level", "info", "debug, info, warn or error", setLevel},
		{"log.format", "text", "text or json", setFormat},
		{"status.listen", "", "loopback host:port of the status page; empty: none",
			func(c *Config, v string) error { c.Status.Listen = v; return checkLoopback(v) }},

		{"cluster.listen", ":7480", "host:port for the other nodes of the cluster",
			func(c *Config, v string) error { c.cluster.Listen = v; return checkAddress(v) }},
		{"cluster.routes", "", "other addresses of some nodes, as this one reaches them: NAME=host:port, or several", setRoutes},
		{"cluster.socket", "", "socket of the API, for twinlun; empty: api.sock in data-dir",
			func(c *Config, v string) error { c.cluster.Socket = v; return nil }},

		{"iscsi.iqn", "", "iSCSI name of the only target, the same at both nodes; for several there is the list targets",
			func(c *Config, v string) error { c.common.IQN = v; return checkIQN(v) }},
		{"iscsi.alias", "", "a name for people, shown to initiators",
			func(c *Config, v string) error { c.common.Alias = v; return nil }},
		{"iscsi.listen", ":3260", "host:port, or several, on which initiators are served; 0.0.0.0 is all of IPv4, [::] of IPv6, no host both", setListen},
		{"iscsi.portal-group", "1", "portal group tag, different at the two nodes", setGroup},
		{"iscsi.ping-timeout", "10s", "silence of an initiator, after a ping, that ends its session", duration(func(c *Config) *time.Duration { return &c.PingTimeout })},

		{"discovery.user", "", "CHAP user that initiators are for discovery; empty: no proof is wanted for that",
			func(c *Config, v string) error { c.discovery.user = v; return nil }},
		{"discovery.secret", "", "secret of that user",
			func(c *Config, v string) error { c.discovery.secret = secret.New(v); return nil }},
		{"discovery.secret-file", "", "file with that secret",
			func(c *Config, v string) error { c.discovery.file = v; return nil }},
		{"discovery.target-user", "", "CHAP user that this target is for discovery, for initiators that ask for that",
			func(c *Config, v string) error { c.discovery.targetUser = v; return nil }},
		{"discovery.target-secret", "", "secret of that user",
			func(c *Config, v string) error { c.discovery.targetSecret = secret.New(v); return nil }},
		{"discovery.target-secret-file", "", "file with that secret",
			func(c *Config, v string) error { c.discovery.targetFile = v; return nil }},

		{"peer.name", "", "name of the other node", func(c *Config, v string) error { c.Peer.Name = v; return checkName(v) }},
		{"peer.listen", "", "host:port for the peer; needed at the node whose name sorts last",
			func(c *Config, v string) error { c.Peer.Listen = v; return checkAddress(v) }},
		{"peer.address", "", "host:port of the peer; needed at the node whose name sorts first",
			func(c *Config, v string) error { c.Peer.Address = v; return checkAddress(v) }},
		{"peer.token", "", "a secret text of the pair, the same at both nodes",
			func(c *Config, v string) error { c.Peer.Token = secret.New(v); return nil }},
		{"peer.streams", "2", "bulk streams, as the node that dials has it", integer(func(c *Config) *int { return &c.Peer.Streams }, 1, 8)},
		{"peer.heartbeat", "500ms", "time between two pings", duration(func(c *Config) *time.Duration { return &c.Peer.Heartbeat })},
		{"peer.dead-after", "2s", "silence after which the peer is given up", duration(func(c *Config) *time.Duration { return &c.Peer.DeadAfter })},
		{"peer.compress", "true", "compress what is sent", setCompress},
		{"peer.copy-rate", "0", "limit of copying for each LUN, bytes per second; 0: none", setCopyRate},
	}, witnessSettings()...)
}

func setLevel(c *Config, v string) error {
	if err := c.Log.Level.UnmarshalText([]byte(v)); err != nil {
		return fmt.Errorf("%q is none of debug, info, warn, error", v)
	}
	return nil
}

func setFormat(c *Config, v string) error {
	if v != "text" && v != "json" {
		return fmt.Errorf("%q is neither text nor json", v)
	}
	c.Log.JSON = v == "json"
	return nil
}

func setListen(c *Config, v string) (err error) {
	c.common.Listen, err = parseListen(v)
	return err
}

func setGroup(c *Config, v string) (err error) {
	c.PortalGroup, err = parseGroup(v)
	return err
}

func setCompress(c *Config, v string) error {
	if v != "true" && v != "false" {
		return fmt.Errorf("%q is neither true nor false", v)
	}
	c.Peer.Compress = v == "true"
	return nil
}

func setCopyRate(c *Config, v string) (err error) {
	c.Peer.CopyRate, err = ParseSize(v)
	return err
}

// Logger is the logger that the configuration asks for.
func (l Log) Logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: l.Level}
	if l.JSON {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// setRoutes reads "b=192.0.2.7:7480,c=192.0.2.8:7480"; a node may have several.
func setRoutes(c *Config, v string) error {
	c.cluster.Routes = map[string][]string{}
	for _, r := range strings.Split(v, ",") {
		node, address, _ := strings.Cut(strings.TrimSpace(r), "=")
		if err := checkName(node); err != nil {
			return fmt.Errorf("%q: NAME=host:port is wanted: %w", r, err)
		}
		if err := checkAddress(address); err != nil {
			return fmt.Errorf("%q: NAME=host:port is wanted: %w", r, err)
		}
		c.cluster.Routes[node] = append(c.cluster.Routes[node], address)
	}
	return nil
}
