package iscsi

import (
	"log/slog"
	"time"
)

// Everybody may open a discovery session where that wants no proof. So it is kept like
// a connection that is not logged in: it takes no session from those that are, does not
// last, and does not fill the log.

// discovery tells whether the session is for discovery only (RFC 7143 section 4.3).
func (s *session) discovery() bool { return s.target == nil }

// deadline is when the session ends at the latest; zero: never.
func (s *session) deadline(now time.Time) time.Time {
	if s.discovery() {
		return now.Add(s.srv.cfg.Limits.DiscoveryTime)
	}
	return time.Time{}
}

// level is that of the lines about the session's beginning and end.
func (s *session) level() slog.Level {
	if s.discovery() {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
