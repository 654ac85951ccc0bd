package mesostest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	protobufType = "application/x-protobuf"
	jsonType     = "application/json"
	maxCall      = 1 << 20

	callGetState  = 9
	callGetAgents = 10
	callGetMaster = 17
	callSubscribe = 18
)

// Master is a simulated Mesos master: an http.Handler that serves its cluster by the Operator
// API v1, and refuses other requests as Mesos does. Several goroutines may use it.
type Master struct {
	mu        sync.Mutex
	info      MasterInfo
	heartbeat time.Duration
	refusal   *refusal
	tasks     *table[*Task]
	agents    *table[*Agent]
	recovered *table[*AgentInfo]
	fws       *table[*Framework]
	encoded   map[*Task][]byte // tasks in protobuf, after Prepare
	streams   map[*stream]bool
	stalled   bool
}

// refusal is an answer in place of the cluster.
type refusal struct {
	code     int
	location string
	body     string
}

// NewMaster returns a leading master of an empty cluster. It announces the heartbeat interval
// and keeps to it; 0 stands for none.
func NewMaster(heartbeat time.Duration) *Master {
	m := &Master{
		heartbeat: heartbeat,
		tasks:     newTable[*Task](),
		agents:    newTable[*Agent](),
		recovered: newTable[*AgentInfo](),
		fws:       newTable[*Framework](),
		streams:   make(map[*stream]bool),
	}
	m.info.ID = fmt.Sprintf("4dcf4d4e-8f2b-4a3e-9d0c-%012x", processes.Add(1))
	m.SetAddress(netip.MustParseAddrPort("127.0.0.1:5050"))
	return m
}

// processes counts masters, each of which has an id of its own.
var processes atomic.Uint64

// SetID sets the id that GET_MASTER tells.
func (m *Master) SetID(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.info.ID = id
}

// SetAddress sets the address that GET_MASTER tells.
func (m *Master) SetAddress(ap netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ip := ap.Addr().String()
	m.info = MasterInfo{
		ID: m.info.ID, Port: uint32(ap.Port()),
		PID: "master@" + ap.String(), Hostname: ip, Version: "1.11.0",
		Address: &Address{Hostname: ip, IP: ip, Port: uint32(ap.Port())},
	}
	if ap.Addr().Is4() {
		b := ap.Addr().As4()
		m.info.IP = binary.LittleEndian.Uint32(b[:])
	}
}

// Lead makes the master answer for its cluster.
func (m *Master) Lead() { m.refuse(nil) }

// Follow makes the master redirect to the leader at host:port, and ends its streams.
func (m *Master) Follow(leader string) {
	m.refuse(&refusal{code: http.StatusTemporaryRedirect, location: "//" + leader + "/master/api/v1"})
}

// Refuse makes the master answer with a status code and body, such as 503 "No leader
// elected", and ends its streams.
func (m *Master) Refuse(code int, body string) { m.refuse(&refusal{code: code, body: body}) }

func (m *Master) refuse(r *refusal) {
	m.mu.Lock()
	m.refusal = r
	m.mu.Unlock()
	if r != nil {
		m.Drop()
	}
}

// Drop breaks all streams, as a crash does.
func (m *Master) Drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.streams {
		s.abort()
	}
}

// Stall makes the streams silent, or lets them continue with what was held back.
func (m *Master) Stall(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stalled = on
	for s := range m.streams {
		s.signal()
	}
}

// Inject sends raw bytes to all streams.
func (m *Master) Inject(raw []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.streams {
		s.push(raw)
	}
}

// Subscribers returns how many streams are open.
func (m *Master) Subscribers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.streams)
}

// Load replaces the cluster by s, without an event.
func (m *Master) Load(s *GetState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.encoded = nil
	m.tasks, m.agents, m.recovered, m.fws = newTable[*Task](), newTable[*Agent](), newTable[*AgentInfo](), newTable[*Framework]()
	if s.Tasks != nil {
		for _, t := range s.Tasks.Tasks {
			m.tasks.put(taskKey(t), t)
		}
	}
	if s.Frameworks != nil {
		for _, f := range s.Frameworks.Frameworks {
			m.fws.put(f.FrameworkInfo.ID.Value, f)
		}
	}
	if s.Agents != nil {
		for _, a := range s.Agents.Agents {
			m.agents.put(a.AgentInfo.ID.Value, a)
		}
		for _, a := range s.Agents.Recovered {
			m.recovered.put(a.ID.Value, a)
		}
	}
}

// Prepare encodes all tasks once, so that subscribers of a large cluster do not wait for it.
func (m *Master) Prepare() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.encoded = make(map[*Task][]byte, len(m.tasks.index))
	for _, t := range m.tasks.list() {
		m.encoded[t] = Protobuf(t)
	}
}

// put adds or replaces a task.
func (m *Master) put(t *Task) {
	if old, ok := m.tasks.get(taskKey(t)); ok {
		delete(m.encoded, old)
	}
	m.tasks.put(taskKey(t), t)
	if m.encoded != nil {
		m.encoded[t] = Protobuf(t)
	}
}

func (m *Master) remove(key string) {
	if t, ok := m.tasks.get(key); ok {
		delete(m.encoded, t)
		m.tasks.remove(key)
	}
}

func taskKey(t *Task) string { return t.FrameworkID.Value + "/" + t.TaskID.Value }

// State returns the cluster. The caller must not change what it points to.
func (m *Master) State() *GetState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state()
}

func (m *Master) state() *GetState {
	return &GetState{
		Tasks:      &GetTasks{Tasks: m.tasks.list()},
		Executors:  &struct{}{},
		Frameworks: &GetFrameworks{Frameworks: m.fws.list()},
		Agents:     m.getAgents(),
	}
}

func (m *Master) getAgents() *GetAgents {
	return &GetAgents{Agents: m.agents.list(), Recovered: m.recovered.list()}
}

// AddTask adds or replaces a task (TASK_ADDED).
func (m *Master) AddTask(t *Task) {
	m.change(&Event{Type: 2, TaskAdded: &TaskAdded{t}}, func() { m.put(t) })
}

// UpdateTask gives a task a status and a state (TASK_UPDATED). A terminal state removes it.
func (m *Master) UpdateTask(framework string, status TaskStatus, state TaskState) {
	ev := &Event{Type: 3, TaskUpdated: &TaskUpdated{FrameworkID: ID{framework}, Status: status, State: state}}
	m.change(ev, func() {
		key := framework + "/" + status.TaskID.Value
		old, ok := m.tasks.get(key)
		if !ok {
			return
		}
		if state != TaskRunning && state != TaskStarting && state != TaskStaging {
			m.remove(key)
			return
		}
		t := *old
		t.State = state
		t.Statuses = append(slices.Clone(t.Statuses), status)
		m.put(&t)
	})
}

// AddAgent adds or replaces an agent (AGENT_ADDED), which is then no longer recovered.
func (m *Master) AddAgent(a *Agent) {
	m.change(&Event{Type: 4, AgentAdded: &AgentAdded{a}}, func() {
		m.recovered.remove(a.AgentInfo.ID.Value)
		m.agents.put(a.AgentInfo.ID.Value, a)
	})
}

// RemoveAgent removes an agent (AGENT_REMOVED).
func (m *Master) RemoveAgent(id string) {
	m.change(&Event{Type: 5, AgentRemoved: &AgentRemoved{ID{id}}}, func() {
		m.recovered.remove(id)
		m.agents.remove(id)
	})
}

// AddFramework adds a framework (FRAMEWORK_ADDED).
func (m *Master) AddFramework(f *Framework) {
	m.change(&Event{Type: 6, FrameworkAdded: &FrameworkAdded{f}}, func() { m.fws.put(f.FrameworkInfo.ID.Value, f) })
}

// UpdateFramework replaces a framework (FRAMEWORK_UPDATED).
func (m *Master) UpdateFramework(f *Framework) {
	m.change(&Event{Type: 7, FrameworkUpdated: &FrameworkAdded{f}}, func() { m.fws.put(f.FrameworkInfo.ID.Value, f) })
}

// RemoveFramework removes a framework (FRAMEWORK_REMOVED).
func (m *Master) RemoveFramework(id string) {
	m.mu.Lock()
	f, ok := m.fws.get(id)
	m.mu.Unlock()
	if ok {
		m.change(&Event{Type: 8, FrameworkRemoved: &FrameworkRemoved{f.FrameworkInfo}}, func() { m.fws.remove(id) })
	}
}

// change applies a change to the cluster and tells the streams.
func (m *Master) change(ev *Event, apply func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	apply()
	m.broadcast(ev)
}

func (m *Master) broadcast(ev *Event) {
	records := make(map[string][]byte)
	for s := range m.streams {
		if records[s.contentType] == nil {
			records[s.contentType] = Record(encode(ev, s.contentType))
		}
		s.push(records[s.contentType])
	}
}

// Record frames a payload as RecordIO.
func Record(payload []byte) []byte {
	return append(fmt.Appendf(make([]byte, 0, len(payload)+12), "%d\n", len(payload)), payload...)
}

func encode(message any, contentType string) []byte {
	if contentType == protobufType {
		return Protobuf(message)
	}
	b, err := json.Marshal(message)
	if err != nil {
		panic("mesostest: " + err.Error()) // an enumeration has no such value
	}
	return b
}

// encodeState encodes a message that holds the whole state, with the tasks that Prepare has
// encoded.
func (m *Master) encodeState(message any, contentType string) []byte {
	if contentType != protobufType {
		return encode(message, contentType)
	}
	size := 1 << 10
	for _, b := range m.encoded {
		size += len(b) + 8
	}
	return encoder{m.encoded}.message(make([]byte, 0, size), reflect.ValueOf(message).Elem())
}

// ServeHTTP serves the Operator API v1.
func (m *Master) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/v1" && r.URL.Path != "/master/api/v1" {
		http.NotFound(w, r)
		return
	}
	m.mu.Lock()
	refused := m.refusal
	m.mu.Unlock()
	if refused != nil {
		if refused.location != "" {
			w.Header().Set("Location", refused.location)
		}
		plain(w, refused.code, refused.body)
		return
	}
	call, accept, ok := readCall(w, r)
	if !ok {
		return
	}
	if call == callSubscribe {
		m.subscribe(w, r, accept)
		return
	}
	m.mu.Lock()
	var body []byte
	switch call {
	case callGetState:
		body = m.encodeState(&Response{Type: 8, GetState: m.state()}, accept)
	case callGetAgents:
		body = encode(&Response{Type: 9, GetAgents: m.getAgents()}, accept)
	case callGetMaster:
		body = encode(&Response{Type: 15, GetMaster: &GetMaster{m.info}}, accept)
	}
	m.mu.Unlock()
	w.Header().Set("Content-Type", accept)
	_, _ = w.Write(body) // the client may be gone
}

func plain(w http.ResponseWriter, code int, body string) {
	if body != "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body) // the client may be gone
}

// readCall reads a Call, or answers as Mesos does to an invalid one.
func readCall(w http.ResponseWriter, r *http.Request) (call uint64, accept string, ok bool) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		plain(w, http.StatusMethodNotAllowed, fmt.Sprintf("405 Method Not Allowed. Expecting one of { 'POST' }, but received '%s'.", r.Method))
		return 0, "", false
	}
	contentType := r.Header.Get("Content-Type")
	switch contentType {
	case protobufType, jsonType:
	case "":
		plain(w, http.StatusBadRequest, "Expecting 'Content-Type' to be present")
		return 0, "", false
	default:
		plain(w, http.StatusUnsupportedMediaType, "Expecting 'Content-Type' of application/json or application/x-protobuf")
		return 0, "", false
	}
	if accept = acceptable(r.Header.Get("Accept")); accept == "" {
		plain(w, http.StatusNotAcceptable, "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'")
		return 0, "", false
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxCall))
	if err == nil {
		call, err = parseCall(body, contentType)
	}
	if err != nil {
		plain(w, http.StatusBadRequest, err.Error())
		return 0, "", false
	}
	return call, accept, true
}

// acceptable returns the encoding of the answer: JSON if the client accepts it.
func acceptable(accept string) string {
	switch {
	case accept == "", strings.Contains(accept, jsonType), strings.Contains(accept, "*/*"):
		return jsonType
	case strings.Contains(accept, protobufType):
		return protobufType
	}
	return ""
}

func parseCall(body []byte, contentType string) (uint64, error) {
	if contentType == jsonType {
		var c struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(body, &c); err != nil {
			return 0, fmt.Errorf("Failed to parse body into JSON: %w", err) //nolint:staticcheck // Mesos's words
		}
		calls := map[string]uint64{"SUBSCRIBE": callSubscribe, "GET_STATE": callGetState, "GET_AGENTS": callGetAgents, "GET_MASTER": callGetMaster}
		if n, ok := calls[c.Type]; ok {
			return n, nil
		}
		return 0, errNoType
	}
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return 0, errNoCall
		}
		body = body[n:]
		if num == 1 && typ == protowire.VarintType {
			switch call, _ := protowire.ConsumeVarint(body); call {
			case callSubscribe, callGetState, callGetAgents, callGetMaster:
				return call, nil
			}
			return 0, errNoType
		}
		if n = protowire.ConsumeFieldValue(num, typ, body); n < 0 {
			return 0, errNoCall
		}
		body = body[n:]
	}
	return 0, errNoType
}

var (
	errNoCall = fmt.Errorf("Failed to parse body into Call protobuf")                         //nolint:staticcheck // Mesos's words
	errNoType = fmt.Errorf("Failed to validate master::Call: Expecting 'type' to be present") //nolint:staticcheck // Mesos's words
)

// subscribe serves an event stream.
func (m *Master) subscribe(w http.ResponseWriter, r *http.Request, accept string) {
	s := newStream(accept)
	m.mu.Lock()
	first := Record(m.encodeState(&Event{Type: 1, Subscribed: &Subscribed{GetState: m.state(), Heartbeat: m.heartbeat.Seconds()}}, accept))
	s.push(first)
	beat := Record(encode(&Event{Type: 9}, accept))
	s.push(beat)
	m.streams[s] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.streams, s)
		m.mu.Unlock()
	}()

	w.Header().Set("Content-Type", accept)
	var tick <-chan time.Time
	if m.heartbeat > 0 {
		ticker := time.NewTicker(m.heartbeat)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		m.mu.Lock()
		stalled := m.stalled
		m.mu.Unlock()
		if !stalled && !s.flush(w) {
			panic(http.ErrAbortHandler) // the connection breaks, as in a crash
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.wake:
		case <-tick:
			s.push(beat)
		}
	}
}

// stream queues what a subscriber is sent.
type stream struct {
	contentType string
	wake        chan struct{}

	mu      sync.Mutex
	queue   [][]byte
	aborted bool
}

func newStream(contentType string) *stream {
	return &stream{contentType: contentType, wake: make(chan struct{}, 1)}
}

func (s *stream) push(b []byte) {
	s.mu.Lock()
	s.queue = append(s.queue, b)
	s.mu.Unlock()
	s.signal()
}

func (s *stream) abort() {
	s.mu.Lock()
	s.aborted = true
	s.mu.Unlock()
	s.signal()
}

func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// flush writes what is queued. It returns false if the stream must end.
func (s *stream) flush(w http.ResponseWriter) bool {
	s.mu.Lock()
	queue, aborted := s.queue, s.aborted
	s.queue = nil
	s.mu.Unlock()
	if aborted {
		return false
	}
	for _, b := range queue {
		if _, err := w.Write(b); err != nil {
			return false
		}
	}
	return len(queue) == 0 || http.NewResponseController(w).Flush() == nil
}

// Start serves h on a loopback port until the server is closed.
func Start(h http.Handler) *Server {
	srv := httptest.NewServer(h)
	return &Server{URL: srv.URL, Host: strings.TrimPrefix(srv.URL, "http://"), srv: srv}
}

// Server is a running master.
type Server struct {
	URL  string // http://host:port
	Host string // host:port
	srv  *httptest.Server
}

// API returns the URL of the Operator API v1 of a master at host:port.
func API(host string) *url.URL { return &url.URL{Scheme: "http", Host: host, Path: "/api/v1"} }

// Drop breaks all connections, as a crash does.
func (s *Server) Drop() { s.srv.CloseClientConnections() }

// Close breaks all connections and stops serving.
func (s *Server) Close() {
	s.srv.CloseClientConnections()
	s.srv.Close()
}

// table is a map that keeps the order in which keys came.
type table[T any] struct {
	index map[string]int
	items []item[T]
	holes int
}

type item[T any] struct {
	key   string
	value T
	gone  bool
}

func newTable[T any]() *table[T] { return &table[T]{index: make(map[string]int)} }

func (t *table[T]) get(key string) (T, bool) {
	i, ok := t.index[key]
	if !ok {
		var none T
		return none, false
	}
	return t.items[i].value, true
}

func (t *table[T]) put(key string, v T) {
	if i, ok := t.index[key]; ok {
		t.items[i].value = v
		return
	}
	t.index[key] = len(t.items)
	t.items = append(t.items, item[T]{key: key, value: v})
}

func (t *table[T]) remove(key string) {
	i, ok := t.index[key]
	if !ok {
		return
	}
	delete(t.index, key)
	t.items[i] = item[T]{gone: true}
	if t.holes++; t.holes < 64 || t.holes < len(t.items)/2 {
		return
	}
	t.items = slices.DeleteFunc(t.items, func(i item[T]) bool { return i.gone })
	t.holes = 0
	for i := range t.items {
		t.index[t.items[i].key] = i
	}
}

func (t *table[T]) list() []T {
	all := make([]T, 0, len(t.index))
	for _, i := range t.items {
		if !i.gone {
			all = append(all, i.value)
		}
	}
	return all
}
