package iscsi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves iSCSI targets. Its methods may be called concurrently.
type Server struct {
	cfg      Config
	log      *slog.Logger
	sessions *registry
	buffers  buffers
	notes    sync.Pool      // of *note, for R2Ts
	handlers sync.WaitGroup // of connections

	directory atomic.Pointer[directory] // the targets; SetTargets replaces it
	failures  quiet                     // failed logins in the log

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
	strangers strangers
	refused   strangers // they linger
}

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("iSCSI server was shut down")

// New makes a server. The error says what is wrong with the configuration.
func New(cfg Config) (*Server, error) {
	cfg.Limits.setDefaults()
	if err := cfg.Limits.check(); err != nil {
		return nil, fmt.Errorf("set up the iSCSI server: %w", err)
	}
	d, err := newDirectory(cfg.Targets, cfg.Discovery)
	if err != nil {
		return nil, fmt.Errorf("set up the iSCSI server: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, sessions: newRegistry(cfg.Limits.MaxSessions),
		listeners: map[net.Listener]struct{}{}, strangers: newStrangers(), refused: newStrangers(),
	}
	s.directory.Store(d)
	return s, nil
}

// Serve takes connections from a listener until Shutdown (then it returns
// ErrServerClosed) or until the listener fails. It closes the listener. Several
// listeners, all of the server's portal group, may be served at once.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.track(l) {
		return ErrServerClosed
	}
	defer s.untrack(l)
	var pause time.Duration
	for {
		conn, err := l.Accept()
		if err == nil {
			pause = 0
			s.start(conn, l)
			continue
		}
		if s.isClosing() {
			return ErrServerClosed
		}
		var ne net.Error
		if !errors.As(err, &ne) || errors.Is(err, net.ErrClosed) || pause > 10*time.Second {
			return fmt.Errorf("accept iSCSI connections on %s: %w", l.Addr(), err)
		}
		// Out of file descriptors, most likely: that may pass.
		pause = max(2*pause, 5*time.Millisecond)
		s.log.Warn("iscsi: cannot take connections now", "err", err, "again in", pause)
		time.Sleep(pause)
	}
}

func (s *Server) track(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) untrack(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// start handles a listener's connection in a goroutine of its own, if there may be one
// more that is not logged in.
func (s *Server) start(conn net.Conn, via net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		conn.Close()
		return
	}
	if why := s.strangers.add(conn, &s.cfg.Limits); why != "" {
		s.logFailure(conn, slog.LevelWarn, "iscsi: connection refused", "why", why)
		conn.Close()
		return
	}
	s.handlers.Go(func() { s.handle(conn, via) })
}

// handle is a connection's goroutine: the login, then the session's reader.
func (s *Server) handle(conn net.Conn, via net.Listener) {
	defer conn.Close()
	defer s.forget(conn)
	switch session, refused := s.login(newConnection(s, conn, via)); {
	case session != nil:
		session.run()
	case refused:
		s.linger(conn)
	}
}

// login logs a connection in, or says in the log why not; refused: the initiator was
// told why.
func (s *Server) login(c *connection) (ses *session, refused bool) {
	l := newLogin(&s.cfg, s.directory.Load(), func(p []byte) { rand.Read(p) }) // which never fails
	l.via = c.via
	session, err := c.login(l)
	if session != nil {
		return session, false
	}
	about := []any{"initiator", l.initiator, "target", l.targetName}
	var answer *loginError
	if errors.As(err, &answer) {
		s.logFailure(c.conn, slog.LevelWarn, "iscsi: login refused",
			append(about, "status", fmt.Sprintf("%#04x", uint16(answer.status)), "why", answer.why)...)
		return nil, true
	}
	s.logFailure(c.conn, loginLevel(l, err), "iscsi: no login", append(about, "err", err)...)
	return nil, false
}

// logFailure writes a line about a connection that comes to nothing, unless there
// are too many of them.
func (s *Server) logFailure(conn net.Conn, level slog.Level, msg string, args ...any) {
	if !s.log.Enabled(context.Background(), level) {
		return
	}
	skipped, ok := s.failures.allow(remoteAddress(conn), time.Now())
	if !ok {
		return
	}
	if skipped > 0 {
		args = append(args, "more like this", skipped)
	}
	s.log.Log(context.Background(), level, msg, append([]any{"peer", conn.RemoteAddr().String()}, args...)...)
}

// r2t returns a note for an R2T, which goes back when it is sent.
func (s *Server) r2t() *note {
	if n, ok := s.notes.Get().(*note); ok {
		return n
	}
	return &note{home: &s.notes}
}

// loginLevel is the level to log a failed login at. Connections that are closed
// without a word are those of monitoring; in the middle of a login it may be that the
// initiator does not believe our proof.
func loginLevel(l *login, err error) slog.Level {
	if !l.started && errors.Is(err, io.EOF) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// forget makes room for another connection that is not logged in.
func (s *Server) forget(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strangers.remove(conn)
}

// open makes a session of a login that is complete. A session of the same
// initiator port is ended first.
func (s *Server) open(c *connection, l *login) (*session, error) {
	ses := newSession(s, c, l)
	ses.params.settle()
	if err := s.register(ses, l.first.tsih); err != nil {
		return nil, err
	}
	if err := s.readmit(ses, l); err != nil {
		s.withdraw(ses)
		return nil, err
	}
	if !ses.discovery() {
		ses.openNexus(s.cfg.groupOf(ses.target))
	}
	if !ses.discovery() { // which is for strangers, too
		s.forget(c.conn) // before the initiator learns of it
	}
	ses.log.Log(context.Background(), ses.level(), "iscsi: session opened", "tsih", ses.tsih, "discovery", ses.discovery(), "user", ses.user)
	return ses, nil
}

// register enters a session. One of the same initiator port is ended first: that is
// how a session is reinstated, and with its TSIH, its connection (RFC 7143 sections
// 6.3.4 and 6.3.5). Error recovery level 0 knows nothing that outlives a connection
// but what a session has agreed upon.
func (s *Server) register(ses *session, tsih uint16) error {
	for keep := uint16(0); ; {
		old, err := s.sessions.add(ses, keep)
		switch {
		case err != nil:
			return err
		case old == nil && keep == tsih:
			return nil
		case old == nil, tsih != 0 && old.tsih != tsih:
			if old == nil {
				s.withdraw(ses)
			}
			return refuse(loginNoSession, "the initiator's session with TSIH %d has ended", tsih)
		case old.user != ses.user:
			return refuse(loginForbidden, "the initiator's session is that of CHAP user %q, and user %q may not end it", old.user, ses.user)
		}
		if err := s.reinstate(old); err != nil {
			return err
		}
		if keep = tsih; tsih != 0 {
			ses.params.inherit(&old.params)
		}
	}
}

// withdraw takes a session back that was registered and is not going to run.
func (s *Server) withdraw(ses *session) {
	s.sessions.remove(ses)
	close(ses.ended)
}

// reinstate ends the old session, for as long as a login may take.
func (s *Server) reinstate(old *session) error {
	old.kill("the initiator logged in again")
	t := time.NewTimer(s.cfg.Limits.LoginTimeout)
	defer t.Stop()
	select {
	case <-old.ended:
		return nil
	case <-t.C:
		return refuse(loginUnavailable, "the initiator's old session still has commands that do not end")
	}
}

// Shutdown takes no further connections, asks initiators to log out, and ends
// the sessions that are left after Limits.ShutdownGrace, or when ctx ends. It
// returns when nothing is left, or when ctx has ended, with its error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopListening()
	s.sessions.close()
	for _, ses := range s.sessions.all() {
		if ses.discovery() {
			ses.kill("shutdown")
		} else {
			ses.announce(s.cfg.Limits.ShutdownGrace)
		}
	}
	done := make(chan struct{})
	go func() {
		s.handlers.Wait()
		close(done)
	}()
	grace, cancel := context.WithTimeout(ctx, s.cfg.Limits.ShutdownGrace)
	defer cancel()
	select {
	case <-done:
		return nil
	case <-grace.Done():
	}
	for _, ses := range s.sessions.all() {
		ses.kill("shutdown")
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shut the iSCSI server down: commands did not end: %w", ctx.Err())
	}
}

// stopListening closes the listeners and the connections that are not logged in.
func (s *Server) stopListening() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	for _, some := range []strangers{s.strangers, s.refused} {
		for c := range some.conns {
			c.Close()
		}
	}
}
