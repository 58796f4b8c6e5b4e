package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/member"
)

// Problem is an error, as a problem document (RFC 9457).
type Problem struct {
	Status int      `json:"status" doc:"HTTP status"`
	Title  string   `json:"title" doc:"the status in words"`
	Detail string   `json:"detail,omitempty" doc:"what went wrong, for people"`
	Code   string   `json:"code,omitempty" doc:"what went wrong, for programs"`
	Field  string   `json:"field,omitempty" doc:"the field of the request that it is about"`
	Hint   string   `json:"hint,omitempty" doc:"what the operator can do"`
	Errors []string `json:"errors,omitempty" doc:"what is wrong with the request, one by one"`
}

// Error implements error: what a person should read.
func (p *Problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if p.Field != "" {
		text = p.Field + ": " + text
	}
	for _, e := range p.Errors {
		text += "; " + e
	}
	if p.Hint != "" {
		text += "; " + p.Hint
	}
	return text
}

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// Codes of problems that are not the catalog's.
const (
	CodeNoCluster   = "no-cluster"   // this node belongs to no cluster
	CodeMember      = "member"       // it belongs to one already
	CodeUncertain   = "uncertain"    // it is not known whether the change was, or will be, made
	CodeNotFeasible = "not-feasible" // it cannot be done, see the detail
)

// statuses are those of the catalog's codes.
var statuses = map[catalog.Code]int{
	catalog.Invalid: http.StatusUnprocessableEntity, catalog.NotFound: http.StatusNotFound, catalog.Conflict: http.StatusConflict,
	catalog.Changed: http.StatusPreconditionFailed, catalog.StaleTerm: http.StatusConflict, catalog.Full: http.StatusConflict,
	catalog.Unsupported: http.StatusConflict, catalog.NoToken: http.StatusNotFound, catalog.TokenUsed: http.StatusConflict,
	catalog.TokenOld: http.StatusConflict, catalog.NameTaken: http.StatusConflict,
}

func init() {
	// The library makes errors by itself, too, about requests of a wrong form.
	huma.NewError = func(status int, detail string, errs ...error) huma.StatusError {
		p := &Problem{Status: status, Title: http.StatusText(status), Detail: detail}
		for _, err := range errs {
			if err != nil {
				p.Errors = append(p.Errors, err.Error())
			}
		}
		return p
	}
}

func problem(status int, code, detail, hint string) *Problem {
	return &Problem{Status: status, Title: http.StatusText(status), Code: code, Detail: detail, Hint: hint}
}

// problemOf is an error as a client sees it.
func problemOf(err error) error {
	var known *Problem
	var refused *catalog.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.As(err, &refused):
		p := problem(statuses[refused.Code], string(refused.Code), refused.Message, refused.Hint)
		p.Field = refused.Field
		return p
	case errors.Is(err, member.ErrNoKey):
		return problem(http.StatusConflict, CodeNotFeasible, err.Error(), "ask a node that has replicas")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem(http.StatusServiceUnavailable, CodeUncertain, err.Error(),
			"the cluster did not agree in time: is a majority of its nodes running, and do they reach each other? Look again before you repeat it")
	}
	return problem(http.StatusInternalServerError, CodeNotFeasible, err.Error(), "")
}

var errNoCluster = problem(http.StatusConflict, CodeNoCluster, "this node is in no cluster yet", "make one with twinlun init, or join one with twinlun join")
