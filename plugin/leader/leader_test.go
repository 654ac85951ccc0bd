package leader

import (
	"context"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for endpoint, want := range map[string]string{
		"127.0.0.1:5050":                          "http://127.0.0.1:5050/api/v1",
		"master.example:5050":                     "http://master.example:5050/api/v1",
		"[::1]:5050":                              "http://[::1]:5050/api/v1",
		"http://127.0.0.1:5050":                   "http://127.0.0.1:5050/api/v1",
		"http://127.0.0.1:5050/":                  "http://127.0.0.1:5050/api/v1",
		"https://master.example:443/mesos/api/v1": "https://master.example:443/mesos/api/v1",
	} {
		u, err := Parse(endpoint)
		if err != nil || u.String() != want {
			t.Errorf("%s: %v, %v", endpoint, u, err)
		}
	}
	for endpoint, want := range map[string]string{
		"":                             "no host",
		"http://":                      "no host",
		"127.0.0.1":                    "no port",
		"http://:5050":                 "no host",
		"127.0.0.1:99999":              `port "99999" is not one`,
		"ftp://127.0.0.1:21":           `scheme "ftp"`,
		"zk://127.0.0.1:2181/mesos":    `scheme "zk"`,
		"http://u:hunter2@master:5050": "do not belong here",
		"http://master:5050?x=y":       "query",
		"http://master:50x":            "malformed URL",
		"http://u:hunter2/x@master:1":  "malformed URL",
	} {
		if u, err := Parse(endpoint); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, %v", endpoint, u, err)
		}
	}
}

func TestList(t *testing.T) {
	a, err := Parse("a:5050")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	views := 0
	List{a}.Run(ctx, func(v View) {
		views++
		if v.Leader != nil || len(v.Masters) != 1 || v.Masters[0] != a {
			t.Errorf("view is %+v", v)
		}
		cancel()
	})
	if views != 1 {
		t.Errorf("%d views", views)
	}
}
