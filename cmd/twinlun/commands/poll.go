package commands

import (
	"context"
	"time"
)

// pollLook is between two looks at whether something has come about.
const pollLook = 200 * time.Millisecond

// poll looks again and again whether something is done, for a time; false: it is not yet.
func poll(ctx context.Context, most time.Duration, look func() (done bool, err error)) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		if done, err := look(); done || err != nil {
			return done && err == nil, err
		}
		if pause(ctx, pollLook) != nil {
			return false, nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
