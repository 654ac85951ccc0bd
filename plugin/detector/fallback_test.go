package detector

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
)

// TestFallback follows an ensemble that can be reached or not, with a list beside it.
func TestFallback(t *testing.T) {
	configured := Static{mesostest.API("m.example:5050"), mesostest.API("10.0.0.3:5050")}
	named := answer(`{"address":{"ip":"10.0.0.3","port":5050},"id":"m"}`, stat)
	for name, tc := range map[string]struct {
		frames [][]byte      // nil: nobody can be reached
		hangs  time.Duration // an attempt to connect then
		until  time.Duration
		want   []string
	}{
		"unreachable": {nil, 0, time.Minute, []string{
			"2s none of m.example:5050 10.0.0.3:5050",
		}},
		"reached, and lost for less than a session": {[][]byte{session(10_000), list, get, answer()}, 5 * time.Second, 9 * time.Second, []string{
			"0s 10.0.0.1:5050 live of m.example:5050 10.0.0.3:5050 10.0.0.1:5050",
			"0s 10.0.0.1:5050 of m.example:5050 10.0.0.3:5050 10.0.0.1:5050",
		}},
		"lost at rest, and slow to find that out": {[][]byte{session(10_000), list, get, list, get}, 5 * time.Second, 9 * time.Second, []string{
			"0s 10.0.0.1:5050 live of m.example:5050 10.0.0.3:5050 10.0.0.1:5050",
			"1s 10.0.0.1:5050 of m.example:5050 10.0.0.3:5050 10.0.0.1:5050",
		}},
		"reached, and lost": {[][]byte{session(10_000), list, named, answer()}, 0, time.Minute, []string{
			"0s 10.0.0.3:5050 live of m.example:5050 10.0.0.3:5050",
			"0s 10.0.0.3:5050 of m.example:5050 10.0.0.3:5050",
			"10s none of m.example:5050 10.0.0.3:5050",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tc.until)
				defer cancel()
				began, reached := time.Now(), tc.frames != nil
				var got []string
				f := Fallback{ZooKeeper: &ZooKeeper{Servers: []string{"zk:2181"}, Path: "/mesos"}, List: configured}
				f.run(ctx, func(context.Context, string, string) (net.Conn, error) {
					if !reached {
						time.Sleep(tc.hangs)
						return nil, errors.New("unreachable")
					}
					reached = false
					conn, member := net.Pipe()
					time.AfterFunc(time.Second, func() { member.Close() })
					go serve(member, tc.frames, func() { member.Close() })
					return conn, nil
				}, func(m Masters) {
					said := time.Since(began).Truncate(time.Second).String()
					switch {
					case m.Leader == nil:
						said += " none of"
					case m.Live:
						said += " " + m.Leader.Host + " live of"
					default:
						said += " " + m.Leader.Host + " of"
					}
					for _, u := range m.All {
						said += " " + u.Host
					}
					got = append(got, said)
				})
				if !slices.Equal(got, tc.want) {
					t.Errorf("found %q, want %q", got, tc.want)
				}
			})
		})
	}
}
