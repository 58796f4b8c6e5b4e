package iscsi

import (
	"context"
	"fmt"
)

// SetTargets replaces the targets, who may log in to them, and how initiators prove
// themselves for discovery. From its return on, and for every login that is not
// complete before it, the new ones count; on an error nothing has changed but what
// ctx says.
//
// A session goes on undisturbed if a target of its name and with its Device is
// there, at the Listener through which it has come, and what its initiator has proved to
// be would still let it in: a secret may change under it. All other sessions are asked to log out, and ended when they have
// not after Limits.ShutdownGrace. SetTargets returns when they have ended: nothing
// uses a Device then that was taken away. If ctx ends before, its error is returned;
// the sessions then end later.
func (s *Server) SetTargets(ctx context.Context, targets []Target, discovery Auth) error {
	d, err := newDirectory(targets, discovery)
	if err != nil {
		return fmt.Errorf("set the targets: %w", err)
	}
	s.directory.Store(d)
	var leaving []*session
	for _, ses := range s.sessions.all() {
		// What counts is what is there now, if another call has come after.
		if why := s.directory.Load().objection(ses); why != nil {
			ses.log.Info("iscsi: session has to end", "tsih", ses.tsih, "why", why)
			leaving = append(leaving, ses)
		}
	}
	return s.dismiss(ctx, leaving, "its access or its target was taken away")
}

// objection is why a session may not go on; nil: it may.
func (d *directory) objection(s *session) error {
	if s.discovery() {
		if !permits([]Auth{d.discovery}, s.user) {
			return refuse(loginAuthFailure, "discovery wants another CHAP user")
		}
		return nil
	}
	t, auths, err := d.admit(s.target.Name, s.port.Name, s.via)
	switch {
	case err != nil:
		return err
	case t.Device != s.target.Device:
		return refuse(loginUnavailable, "target %s has another device", t.Name)
	case !permits(auths, s.user):
		return refuse(loginAuthFailure, "the initiator has to authenticate itself otherwise")
	}
	return nil
}

// readmit asks again for a session that has just been registered, as the targets may
// have been replaced since its login began: either SetTargets finds the session, or
// this finds the new targets.
func (s *Server) readmit(ses *session, l *login) error {
	d := s.directory.Load()
	if d == l.dir {
		return nil // which has let it in
	}
	return d.objection(ses)
}

// dismiss asks initiators to log out, ends the sessions that are left after
// ShutdownGrace, or when ctx ends, and waits until they have ended.
func (s *Server) dismiss(ctx context.Context, leaving []*session, why string) error {
	for _, ses := range leaving {
		if ses.discovery() {
			ses.kill(why)
		} else {
			ses.announce(s.cfg.Limits.ShutdownGrace)
		}
	}
	grace, cancel := context.WithTimeout(ctx, s.cfg.Limits.ShutdownGrace)
	defer cancel()
	for _, ses := range leaving {
		select {
		case <-ses.ended:
		case <-grace.Done():
			ses.kill(why)
		}
	}
	for _, ses := range leaving {
		select {
		case <-ses.ended:
		case <-ctx.Done():
			return fmt.Errorf("end a session of %s (%s): %w", ses.port.Name, why, ctx.Err())
		}
	}
	return nil
}
