package api

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
)

// Bounds of what a client can make a node spend.
const (
	maxBody   = 1 << 20          // of a request, bytes: a host with some hundred initiators
	maxHeader = 16 << 10         // bytes
	readTime  = 10 * time.Second // for a request to arrive
	doTime    = 30 * time.Second // for the cluster to agree
)

// Prefix is where the API is.
const Prefix = "/api/v1"

// api are the handlers.
type api struct {
	Backend
	log     *slog.Logger
	streams chan struct{} // has an element for each stream
}

// Handler answers requests.
func Handler(b Backend, version string, log *slog.Logger) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.Use(gin.CustomRecoveryWithWriter(nil, func(c *gin.Context, what any) {
		log.Error("a request has failed", "method", c.Request.Method, "path", c.Request.URL.Path, "panic", what)
		c.AbortWithStatus(http.StatusInternalServerError)
	}))
	cfg := huma.DefaultConfig("twinlun", version)
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath = Prefix+"/openapi", "", Prefix+"/schemas"
	cfg.CreateHooks = nil // no $schema in answers: a client may send back what it got
	cfg.RejectUnknownQueryParameters = true
	h := humagin.New(engine, cfg)
	a := &api{b, log, make(chan struct{}, maxStreams)}
	a.cluster(h)
	a.nodes(h)
	a.tokens(h)
	a.luns(h)
	a.verifications(h)
	a.force(h)
	a.recover(h)
	a.targets(h)
	a.hosts(h)
	a.groups(h)
	a.discovery(h)
	a.events(h)
	a.documents(h)
	return engine
}

// Server serves the API on a socket that only administrators of this machine can open.
type Server struct{ http *http.Server }

// NewServer makes a server.
func NewServer(h http.Handler) *Server {
	return &Server{&http.Server{
		Handler: h, ReadHeaderTimeout: readTime, ReadTimeout: readTime, WriteTimeout: 2 * doTime, IdleTimeout: time.Minute, MaxHeaderBytes: maxHeader,
	}}
}

// Serve takes requests until Close.
func (s *Server) Serve(l net.Listener) error { return s.http.Serve(l) }

// Close ends everything.
func (s *Server) Close() error { return s.http.Close() }

// local is who uses the socket, for the event log.
const local = "local administrator"

// body is an answer that has one.
type body[T any] struct{ Body T }

func answer[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, problemOf(err)
	}
	return &body[T]{v}, nil
}

// none is a request without anything in it, or an answer.
type none struct{}

// get registers a question.
func get[I, O any](h huma.API, path, id, summary string, f func(ctx context.Context, in *I) (O, error)) {
	huma.Register(h, operation(http.MethodGet, path, id, summary), func(ctx context.Context, in *I) (*body[O], error) {
		return answer(f(ctx, in))
	})
}

// change registers what changes something. It returns what has become of it.
func change[I, O any](h huma.API, method, path, id, summary string, f func(ctx context.Context, in *I) (O, error)) {
	huma.Register(h, operation(method, path, id, summary), func(ctx context.Context, in *I) (*body[O], error) {
		ctx, cancel := context.WithTimeout(ctx, doTime)
		defer cancel()
		return answer(f(ctx, in))
	})
}

// remove registers what takes something away.
func remove[I any](h huma.API, path, id, summary string, f func(ctx context.Context, in *I) error) {
	huma.Register(h, operation(http.MethodDelete, path, id, summary), func(ctx context.Context, in *I) (*none, error) {
		ctx, cancel := context.WithTimeout(ctx, doTime)
		defer cancel()
		if err := f(ctx, in); err != nil {
			return nil, problemOf(err)
		}
		return nil, nil
	})
}

func operation(method, path, id, summary string) huma.Operation {
	return huma.Operation{
		Method: method, Path: Prefix + path, OperationID: id, Summary: summary, MaxBodyBytes: maxBody, BodyReadTimeout: readTime,
		Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}
}
