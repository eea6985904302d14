package handlers

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lockstep/ledger"
)

// A room bounds how many calls of one kind are at work, so that no kind takes what the others need, and nothing waits
// without bound. Who finds it full waits a moment, and is then told to come back: 429 before anything was done. What
// is at work keeps its speed, however many knock.
//
// Webhooks from Stripe have a room of their own, and the calls that only read and write the books leave some of the
// database's connections to them and to the workers. Health, metrics and the document have no room: they never wait.
type room struct {
	name     string
	slots    chan struct{}
	patience time.Duration // how long a call waits for a slot; 0: not at all
	limit    time.Duration // of the whole call's work in the database; 0: none here

	waiting atomic.Int64
	refused prometheus.Counter
	refusal error
}

// maxWaiting bounds how many wait at one door.
const maxWaiting = 1024

// rooms are all that there are.
type rooms struct {
	usage    *room // single debits, and looks at what may be spent: each is a moment in a lane
	batch    *room // up to 1,000 debits each, and a megabyte
	books    *room // one database connection each, most of the time
	stripe   *room // wait for Stripe, without a connection
	reports  *room // read much of the books
	keys     *room // API keys that have to be looked up
	pages    *room // people's, in a browser
	webhooks *room // from Stripe
}

// bookTime is how long a call may be at work on the books.
const bookTime = 10 * time.Second

func newRooms(m *Metrics, connections int) *rooms {
	m.ready()
	room := func(name string, slots int, patience, limit time.Duration) *room {
		return &room{name: name, slots: make(chan struct{}, slots), patience: patience, limit: limit, refused: m.shed.WithLabelValues(name),
			refusal: &fault{http.StatusTooManyRequests, "rate_limit_error", string(ledger.CodeRateLimited), "",
				"too many requests are at work; nothing was done, send it again after Retry-After"}}
	}
	r := &rooms{
		usage:    room("usage", 2048, time.Second, 0),
		batch:    room("batch", 32, 2*time.Second, 0),
		books:    room("books", max(2, connections*3/4), 3*time.Second, bookTime),
		stripe:   room("stripe", 64, 3*time.Second, 0),
		reports:  room("reports", 8, 3*time.Second, 0),
		keys:     room("keys", 2, time.Second, bookTime),
		pages:    room("pages", max(2, connections/4), 3*time.Second, 2*bookTime),
		webhooks: room("webhooks", 64, bookTime, bookTime),
	}
	r.webhooks.refusal = &fault{http.StatusServiceUnavailable, "api_error", string(ledger.CodeUnavailable), "", "the event was not stored; send it again"}
	return r
}

// of is the room of a route.
func (r *rooms) of(pattern string) *room {
	switch pattern {
	case "POST /v1/usage", "GET /v1/customers/{customer}/check":
		return r.usage
	case "POST /v1/usage/batch":
		return r.batch
	case "POST /v1/customers", "PATCH /v1/customers/{customer}", "GET /v1/customers/{customer}/lockstep",
		"POST /v1/customers/{customer}/setup_sessions", "POST /v1/customers/{customer}/billing_portal_sessions",
		"POST /v1/topups", "POST /v1/topups/{id}/cancel", "POST /v1/reconcile":
		return r.stripe
	case "GET /v1/reports/revenue", "POST /v1/wallets/{id}/auto_topup/simulate":
		return r.reports
	default:
		return r.books
	}
}

func (r *rooms) all() []*room {
	return []*room{r.usage, r.batch, r.books, r.stripe, r.reports, r.keys, r.pages, r.webhooks}
}

// enter takes a slot, or refuses. Whoever got one leaves.
func (r *room) enter(ctx context.Context) error {
	select {
	case r.slots <- struct{}{}:
		return nil
	default:
	}
	if r.patience == 0 || r.waiting.Load() >= maxWaiting {
		return r.full()
	}
	r.waiting.Add(1)
	defer r.waiting.Add(-1)
	patience := time.NewTimer(r.patience)
	defer patience.Stop()
	select {
	case r.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-patience.C:
		return r.full()
	}
}

func (r *room) leave() { <-r.slots }

func (r *room) full() error {
	r.refused.Inc()
	return r.refusal
}

// maxConnections bounds the open connections to the service, of which each costs up to a hundred kilobytes and a file;
// past it a new one is closed before anything was read from it.
const maxConnections = 5000

// ConnState is for the http.Server: it keeps the number of open connections within bounds.
func (s *Server) ConnState(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if s.connections.Add(1) > maxConnections {
			s.metrics.ready()
			s.metrics.shed.WithLabelValues("connections").Inc()
			_ = conn.Close()
		}
	case http.StateClosed, http.StateHijacked:
		s.connections.Add(-1)
	}
}

// Describe and Collect make the server's load one of its metrics.
func (s *Server) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, ch) }

var (
	atWorkDesc  = prometheus.NewDesc("lockstep_requests_at_work", "Requests that are at work, by room.", []string{"room"}, nil)
	waitingDesc = prometheus.NewDesc("lockstep_requests_waiting", "Requests that wait at the door of a room.", []string{"room"}, nil)
	queueDesc   = prometheus.NewDesc("lockstep_debits_waiting", "Debits that wait to be written.", nil, nil)
	ageDesc     = prometheus.NewDesc("lockstep_debits_waiting_seconds", "For how long the first of them has waited.", nil, nil)
	openDesc    = prometheus.NewDesc("lockstep_connections_open", "Open connections to the service.", nil, nil)
)

// Collect is part of prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, r := range s.rooms.all() {
		gauge(atWorkDesc, float64(len(r.slots)), r.name)
		gauge(waitingDesc, float64(r.waiting.Load()), r.name)
	}
	waiting, oldest := 0, time.Duration(0)
	if s.Ledger != nil {
		waiting, oldest = s.Ledger.Load()
	}
	gauge(queueDesc, float64(waiting))
	gauge(ageDesc, oldest.Seconds())
	gauge(openDesc, float64(s.connections.Load()))
}
