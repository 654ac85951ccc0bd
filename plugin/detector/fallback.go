package detector

import (
	"context"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/logstate"
)

// toldAgain is how often the list is used again while ZooKeeper does not tell, to be logged.
const toldAgain = time.Minute

// Fallback follows the election in ZooKeeper, and has a list of masters for the time without
// a session: any of them knows who leads. The list's masters come first in All.
type Fallback struct {
	ZooKeeper *ZooKeeper
	List      Static
}

// Run follows the election until ctx is done. It falls back to the list once a member of the
// ensemble has had the time to answer, and later when a session must have expired.
func (f Fallback) Run(ctx context.Context, found func(Masters)) { f.run(ctx, dialMember, found) }

func (f Fallback) run(ctx context.Context, dial dialFunc, found func(Masters)) {
	z := f.ZooKeeper
	z.first = f.List
	var election sync.WaitGroup
	defer election.Wait()
	elected := make(chan Masters)
	election.Go(func() {
		z.run(ctx, dial, func(m Masters) {
			select {
			case elected <- m:
			case <-ctx.Done():
			}
		})
	})
	all, alone := f.List, logstate.State{Log: log}
	timer := time.NewTimer(memberTimeout)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-elected:
			all = m.All
			if m.Live {
				alone.Recovered("ZooKeeper tells who leads again")
				timer.Stop()
			} else {
				timer.Reset(sessionTimeout)
			}
			found(m)
		case <-timer.C:
			alone.Failed("Asking the masters of the list who leads: ZooKeeper does not tell")
			timer.Reset(toldAgain)
			found(Masters{All: all})
		}
	}
}
