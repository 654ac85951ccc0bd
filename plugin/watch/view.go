package watch

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// ErrStopped is returned once Run has returned.
var ErrStopped = errors.New("the cluster is not watched any more")

// View returns all that is known of the cluster at one moment. The loop takes it in steps of
// less than a millisecond.
func (w *Watcher) View(ctx context.Context) (*cluster.View, error) {
	var c *cluster.Collector
	done := false
	for !done {
		ran := false
		w.Do(func() {
			ran = true
			if c == nil {
				c = w.model.Collect()
			}
			if done = ctx.Err() != nil || c.Step(); done {
				c.End()
			}
		})
		if !ran {
			return nil, ErrStopped
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.View(), nil
}

// maxAway is the number of agents that a Report names.
const maxAway = 100

// Report says how a watcher stands with the masters.
type Report struct {
	Stats
	Masters   []string // host:port of the API of each known master
	Connected bool     // to the leader
	Polled    bool     // the leader is polled, not subscribed to
	Away      []*mesos.Agent
	AwayCount int // agents that the leader expects to re-register; Away has some of them
}

// Report describes the watcher as it is now.
func (w *Watcher) Report() Report {
	var r Report
	w.Do(func() {
		for _, u := range w.masters.All {
			r.Masters = append(r.Masters, u.Host)
		}
		r.Connected, r.Polled = w.connected, w.polled
		r.Away, r.AwayCount = w.model.Away(maxAway)
	})
	slices.SortFunc(r.Away, func(a, b *mesos.Agent) int { return strings.Compare(a.ID, b.ID) })
	r.Stats = w.Stats()
	return r
}
