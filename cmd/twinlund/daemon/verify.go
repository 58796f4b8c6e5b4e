package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/webui/api"
)

// StartVerify implements api.Verifier.
func (b backend) StartVerify(lun catalog.UUID, v api.NewVerification) error {
	l, err := b.d.lunOf(lun)
	if err != nil {
		return err
	}
	o := replication.VerifyOptions{Repair: v.Repair, Rate: v.Rate}
	switch v.Keep {
	case "":
	case b.d.cluster.Member().Self():
		o.Keep = replication.KeepHere
	default:
		o.Keep = replication.KeepThere
	}
	err = l.replica().StartVerify(o)
	if errors.Is(err, replication.ErrVerifying) || errors.Is(err, replication.ErrNotVerified) || errors.Is(err, replication.ErrReplicaClosed) {
		return notFeasible(err.Error(), "")
	}
	return err
}

// StopVerify implements api.Verifier.
func (b backend) StopVerify(lun catalog.UUID) error {
	l, err := b.d.lunOf(lun)
	if err == nil {
		l.replica().StopVerify()
	}
	return err
}

// Verification implements api.Verifier.
func (b backend) Verification(lun catalog.UUID) (api.Verification, error) {
	l, err := b.d.lunOf(lun)
	if err != nil {
		return api.Verification{}, err
	}
	s, any := l.replica().VerifyStatus()
	if !any {
		return api.Verification{State: api.VerifyNone, Differences: []api.Difference{}}, nil
	}
	return verification(&s), nil
}

func verification(s *replication.VerifyStatus) api.Verification {
	v := api.Verification{
		NewVerification: api.NewVerification{Repair: s.Repair, Rate: s.Rate, Keep: [...]catalog.NodeID{"", api.Here, "there"}[s.Keep]},
		State:           api.VerifyRunning, Started: &s.Started, Waiting: s.Waiting, Error: s.Err,
		Size: s.Size, Done: s.Done, Compared: s.Compared, Copying: s.Copying, Busy: s.Busy, Unread: s.Unread,
		Differing: s.Differing, Repaired: s.Repaired, Differences: []api.Difference{},
	}
	if !s.Running() {
		v.State, v.Ended = api.VerifyComplete, &s.Ended
	}
	if s.Err != "" {
		v.State = api.VerifyStopped
	}
	for _, d := range s.Differences {
		keeps := ""
		if d.Here {
			keeps = api.Here
		}
		v.Differences = append(v.Differences, api.Difference{Offset: d.Off, Length: d.Length, Keeps: keeps})
	}
	return v
}

// lunOf is this node's part of a LUN.
func (d *Daemon) lunOf(id catalog.UUID) (*lun, error) {
	for _, l := range d.all() {
		if l.config().UUID == id {
			return l, nil
		}
	}
	return nil, notFeasible("the LUN is not open on this node", "look at the node's log")
}

func notFeasible(detail, hint string) error {
	return &api.Problem{Status: http.StatusConflict, Title: http.StatusText(http.StatusConflict), Code: api.CodeNotFeasible, Detail: detail, Hint: hint}
}

// verifyEventTime is how long the cluster may take to put an event into its log.
const verifyEventTime = time.Minute

// verified has people told of a comparison: in the daemon's log, and in the cluster's.
func (l *lun) verified(s replication.VerifyStatus) {
	level, text := verifyEvent(&s)
	switch log := l.log.With("comparison", text); level {
	case catalog.Alert:
		log.Error("the replicas are not the same")
	case catalog.Warning:
		log.Warn("the replicas were not compared to the end")
	default:
		log.Info("the replicas were compared")
	}
	if l.cluster == nil {
		return
	}
	m, event := l.cluster.Member(), &catalog.LogEvent{Level: level, Subject: "LUN " + l.config().Name, Text: text}
	l.spawn(func() {
		ctx, cancel := context.WithTimeout(l.ctx, verifyEventTime)
		defer cancel()
		if _, err := m.Do(ctx, "node "+string(m.Self()), event); err != nil {
			l.log.Warn("the cluster's log does not have what comparing the replicas has shown", "err", err)
		}
	})
}

// verifyEvent is a comparison in words.
func verifyEvent(s *replication.VerifyStatus) (catalog.Level, string) {
	var text string
	level := catalog.Info
	switch {
	case s.Running():
		text = "comparing the replicas: "
	case s.Err != "":
		level, text = catalog.Warning, "comparing the replicas ended early ("+s.Err+"): "
	default:
		text = "the replicas were compared: "
	}
	if s.Differing == 0 {
		text += "no difference"
	} else {
		level = catalog.Alert
		text += fmt.Sprintf("they DIFFER in %d bytes, first at offset %d", s.Differing, s.Differences[0].Off)
	}
	switch left := s.Differing - s.Repaired; {
	case s.Repaired > 0 && left == 0:
		text += "; all of it is repaired"
	case s.Repaired > 0:
		text += fmt.Sprintf("; %d bytes are repaired", s.Repaired)
	case left > 0 && !s.Repair:
		text += "; twinlun lun verify --repair makes them the same"
	}
	if s.Unread > 0 {
		if level == catalog.Info {
			level = catalog.Warning
		}
		text += fmt.Sprintf("; %d bytes cannot be read", s.Unread)
	}
	return level, text + fmt.Sprintf(" (%d of %d bytes compared, %d were being copied, %d changed hands)", s.Compared, s.Size, s.Copying, s.Busy)
}
