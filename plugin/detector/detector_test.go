package detector

import (
	"context"
	"strings"
	"testing"
)

func TestParseMaster(t *testing.T) {
	for endpoint, want := range map[string]string{
		"127.0.0.1:5050":                          "http://127.0.0.1:5050/api/v1",
		"master.example:5050":                     "http://master.example:5050/api/v1",
		"[::1]:5050":                              "http://[::1]:5050/api/v1",
		"http://127.0.0.1:5050":                   "http://127.0.0.1:5050/api/v1",
		"http://127.0.0.1:5050/":                  "http://127.0.0.1:5050/api/v1",
		"https://master.example:443/mesos/api/v1": "https://master.example:443/mesos/api/v1",
	} {
		u, err := ParseMaster(endpoint, "http")
		if err != nil || u.String() != want {
			t.Errorf("%s: %v, %v", endpoint, u, err)
		}
	}
	for endpoint, want := range map[string]string{
		"":                             "must have a host",
		"http://":                      "must have a host",
		"127.0.0.1":                    "must have a port",
		"http://:5050":                 "must have a host",
		"127.0.0.1:99999":              `invalid port "99999"`,
		"ftp://127.0.0.1:21":           `scheme "ftp"`,
		"zk://127.0.0.1:2181/mesos":    `scheme "zk"`,
		"http://u:hunter2@master:5050": "must not hold a principal",
		"http://master:5050?x=y":       "query",
		"http://master:50x":            "malformed URL",
		"http://m:5050/master/state":   "by default /api/v1, not /master/state",
		"m:5050/state.json/":           "by default /api/v1, not /state.json",
		"http://u:hunter2/x@master:1":  "malformed URL",
	} {
		if u, err := ParseMaster(endpoint, "http"); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, %v", endpoint, u, err)
		}
	}
}

func TestStatic(t *testing.T) {
	a, err := ParseMaster("a:5050", "https")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	views := 0
	Static{a}.Run(ctx, func(v Masters) {
		views++
		if v.Leader != nil || len(v.All) != 1 || v.All[0] != a || a.Scheme != "https" {
			t.Errorf("view is %+v", v)
		}
		cancel()
	})
	if views != 1 {
		t.Errorf("%d views", views)
	}
}
