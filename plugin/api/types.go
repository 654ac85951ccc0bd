package api

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/miekg/dns"
)

// Stanza is what the API tells of: the zones of a stanza and the cluster that they are made of.
// Its methods are safe for concurrent use. Names are fully qualified and in lower case.
type Stanza interface {
	// Lookup returns what DNS answers for a name, and ErrNotReady where that is SERVFAIL.
	Lookup(name string, qtype uint16) (Answer, error)
	// Zone returns a zone of Mesos-DNS's scheme, the first of the stanza. It returns ErrNotReady
	// unless the zone can be transferred, and false if there is none.
	Zone() (Zone, bool, error)
	// Enumerate yields the published tasks of each framework, with their records in that zone.
	Enumerate(ctx context.Context) (iter.Seq2[Framework, iter.Seq[EnumeratedTask]], error)
	// Config returns the stanza in Mesos-DNS's keys, without secrets.
	Config() map[string]any
	// Status describes the watcher and the zones.
	Status() Status
	// Explain tells why a name answers what it answers.
	Explain(ctx context.Context, name string) (*Explanation, error)
	// Tasks returns the tasks that a query finds.
	Tasks(ctx context.Context, q Query) (*Tasks, error)
}

// ErrNotReady says that the name, or the zone, may exist: DNS answers SERVFAIL.
var ErrNotReady = errors.New("the state of the cluster is not known completely")

// Answer is what DNS answers for a name.
type Answer struct {
	Exists  bool     // false: NXDOMAIN, or in none of the zones
	Stale   bool     // from a snapshot that no master has confirmed
	Records []dns.RR // of the type that was asked for
}

// Zone is a zone as it was published at one moment.
type Zone struct {
	Origin  string
	SOA     *dns.SOA
	Stale   bool
	Records func(qtype uint16) iter.Seq2[string, []dns.RR] // of a type, by their owners
}

// Framework is a framework in /v1/enumerate.
type Framework struct{ Name string }

// EnumeratedTask is a task in /v1/enumerate, in the form of Mesos-DNS.
type EnumeratedTask struct {
	Name    string             `json:"name"`
	ID      string             `json:"id"`
	Records []EnumeratedRecord `json:"records"`
}

// EnumeratedRecord is a record of a task. Host is an address, or for SRV `target.:port`. A PTR
// record has the name that it points to as its name, and the address as its host.
type EnumeratedRecord struct {
	Name string `json:"name"`
	Host string `json:"host"`
	Type string `json:"rtype"`
}

// Status is the answer to /v1/status. Times are in RFC 3339.
type Status struct {
	Version string    `json:"version"` // of the plugin
	CoreDNS string    `json:"coredns"` // its version
	Started time.Time `json:"started"`

	Cluster    string   `json:"cluster"` // the masters as configured, without secrets
	Masters    []string `json:"masters"` // host:port of the known ones
	Leader     string   `json:"leader"`  // host:port as last known, or ""
	Mode       string   `json:"mode"`    // "stream" or "poll"
	Connected  bool     `json:"connected"`
	Synced     bool     `json:"synced"` // connected, and the state is complete
	Ready      bool     `json:"ready"`  // a first state is published
	Stale      bool     `json:"stale"`  // all that is known is from a snapshot
	Heard      string   `json:"heard"`  // when a master last spoke
	AgeSeconds float64  `json:"age_seconds"`

	Tasks      int          `json:"tasks"` // known, in any state
	Agents     int          `json:"agents"`
	Frameworks int          `json:"frameworks"`
	Retained   int          `json:"retained_tasks"` // from before a failover
	Away       []Agent      `json:"away"`           // agents that have not re-registered, some of them
	AwayCount  int          `json:"away_count"`
	Zones      []ZoneStatus `json:"zones"`
}

// Agent is an agent.
type Agent struct {
	ID       string `json:"id"`
	Hostname string `json:"hostname"`
}

// ZoneStatus describes a zone.
type ZoneStatus struct {
	Name     string         `json:"name"`
	Scheme   string         `json:"scheme"` // "mesos-dns", "dcos", "reverse" or "vhosts"
	Serial   uint32         `json:"serial"` // 0 before anything is published
	Records  int            `json:"records"`
	Complete bool           `json:"complete"` // a name that it lacks does not exist
	Stale    bool           `json:"stale"`
	Skipped  map[string]int `json:"skipped"` // names, addresses and ports that are not published, by reason
}

// Explanation is the answer to /v1/explain/NAME.
type Explanation struct {
	Name    string       `json:"name"`
	Zone    *ZoneStatus  `json:"zone"`   // null: in none
	Rcode   string       `json:"rcode"`  // as DNS answers: NOERROR, NXDOMAIN, SERVFAIL; "" outside of the zones
	Answer  []string     `json:"answer"` // its address, SRV and PTR records
	Reasons []string     `json:"reasons"`
	Tasks   []TaskDetail `json:"tasks"` // that the name is or could be of, some of them
	Total   int          `json:"total"` // of them all
}

// Query selects tasks.
type Query struct {
	Text    string // found in names, ids, agents and addresses; "" in all
	Skipped bool   // only tasks of which something is not published
	Limit   int
	Offset  int
}

// Tasks is the answer to /v1/tasks: tasks in the order of their frameworks, names and ids.
type Tasks struct {
	Total int    `json:"total"` // that match
	Known int    `json:"known"` // in all
	Tasks []Task `json:"tasks"`
}

// Task is a task as it is known.
type Task struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"` // its own, not the DNS name
	Framework string   `json:"framework"`
	Agent     string   `json:"agent"`  // hostname
	State     string   `json:"state"`  // of Mesos, such as TASK_RUNNING
	Health    string   `json:"health"` // "healthy", "unhealthy" or ""
	Published bool     `json:"published"`
	Retained  bool     `json:"retained"`  // from before a failover
	DNSName   string   `json:"dns_name"`  // shared with the app's other instances, or ""
	Addresses []string `json:"addresses"` // at that name
	Skipped   []string `json:"skipped"`   // why something is not published
}

// TaskDetail is a task in an Explanation.
type TaskDetail struct {
	Task
	AgentID     string              `json:"agent_id"`
	FrameworkID string              `json:"framework_id"`
	Names       []string            `json:"names"`   // that answer with its records
	Sources     map[string][]string `json:"sources"` // the addresses that each source of "ipsources" knows
	Source      string              `json:"source"`  // the one that was taken, or ""
	Ports       []Port              `json:"ports"`
}

// Port is a port of a task, and where it leads.
type Port struct {
	Service string `json:"service"` // name of the SRV record
	Target  string `json:"target"`
	Port    uint16 `json:"port"`
}
