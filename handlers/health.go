package handlers

import (
	"errors"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lockstep/ledger"
)

// healthz says that the process lives.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("ok\n"))
}

// readyz says that the database answers and takes writes; its schema was brought up to date before the service started.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if s.stopping.Load() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	if err := s.Ledger.Ready(r.Context()); err != nil {
		s.Log.Warn("not ready", "error", err)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "database unreachable", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

// Metrics are what the service counts for Prometheus. The zero value is ready.
type Metrics struct {
	once     sync.Once
	registry *prometheus.Registry
	debits   *prometheus.CounterVec
	events   *prometheus.CounterVec
	booked   prometheus.Counter
	short    prometheus.Counter

	deliveries *prometheus.CounterVec
	flushes    prometheus.Counter
	shed       *prometheus.CounterVec
}

func (m *Metrics) ready() {
	m.once.Do(func() {
		m.registry = prometheus.NewRegistry()
		m.debits = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lockstep_debits_total",
			Help: "Usage debits by outcome: booked, or why refused."}, []string{"outcome"})
		m.events = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lockstep_stripe_events_total",
			Help: "Events from Stripe by who brought them, and whether they were new."}, []string{"origin", "new"})
		m.deliveries = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lockstep_outbound_deliveries_total",
			Help: "Tries to deliver an event to an endpoint by outcome: delivered, retry, failed (given up), disabled (with its endpoint)."}, []string{"outcome"})
		m.flushes = prometheus.NewCounter(prometheus.CounterOpts{Name: "lockstep_mirror_flushes_total",
			Help: "Balance transactions posted to Stripe, by which the balance there follows the ledger."})
		m.shed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lockstep_shed_total",
			Help: "Requests refused because too many were at work, by room; connections closed because too many were open."}, []string{"room"})
		m.registry.MustRegister(m.debits, m.events, m.deliveries, m.flushes, m.shed, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		m.booked, m.short = m.debits.WithLabelValues("booked"), m.debits.WithLabelValues(string(ledger.CodeInsufficient))
	})
}

// handler serves them, and how the way to Stripe stands at that moment.
func (m *Metrics) handler(s *Server) http.Handler {
	m.ready()
	now := prometheus.NewRegistry()
	now.MustRegister(wayToStripe{s})
	return promhttp.HandlerFor(prometheus.Gatherers{m.registry, now}, promhttp.HandlerOpts{})
}

// wayToStripe are the figures of the pace and of the mirror, read when they are asked for.
type wayToStripe struct{ s *Server }

var (
	descWaiting  = prometheus.NewDesc("lockstep_mirror_waiting", "Customers whose balance in Stripe is behind the ledger, as far as this process knows.", nil, nil)
	descLag      = prometheus.NewDesc("lockstep_mirror_lag_seconds", "Age of the oldest drift that has not been flushed to Stripe.", nil, nil)
	descPace     = prometheus.NewDesc("lockstep_stripe_pace", "Calls to Stripe a second that are let through now: below the full pace after a 429.", nil, nil)
	descLater    = prometheus.NewDesc("lockstep_stripe_pace_later", "Of those, the most that are for what nobody waits for: the mirror, lists and the backfill.", nil, nil)
	descFull     = prometheus.NewDesc("lockstep_stripe_pace_full", "Calls to Stripe a second that are let through when Stripe refuses none.", nil, nil)
	descCalls    = prometheus.NewDesc("lockstep_stripe_calls_waiting", "Calls that wait for their turn: those that somebody waits for go first, the mirror's and lists later.", []string{"class"}, nil)
	descAttempts = prometheus.NewDesc("lockstep_stripe_attempts_total", "Calls sent to Stripe, retries included, by class.", []string{"class"}, nil)
	descLimited  = prometheus.NewDesc("lockstep_stripe_rate_limited_total", "Answers by which Stripe said that it is called too often.", nil, nil)
)

// Describe names the figures.
func (wayToStripe) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descWaiting, descLag, descPace, descLater, descFull, descCalls, descAttempts, descLimited} {
		out <- d
	}
}

// Collect reads the figures.
func (w wayToStripe) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	if w.s.Flushes != nil {
		q := w.s.Flushes.State()
		gauge(descWaiting, float64(q.Waiting))
		gauge(descLag, q.Lag.Seconds())
	}
	if w.s.Stripe != nil {
		p := w.s.Stripe.Pace()
		gauge(descPace, p.PerSecond)
		gauge(descLater, p.LaterPerSecond)
		gauge(descFull, p.Full)
		gauge(descCalls, float64(p.FirstWaiting), "first")
		gauge(descCalls, float64(p.LaterWaiting), "later")
		count(descAttempts, p.FirstAttempts, "first")
		count(descAttempts, p.LaterAttempts, "later")
		count(descLimited, p.Limited)
	}
}

// Flushed counts a balance transaction that was posted to Stripe.
func (s *Server) Flushed() {
	s.metrics.ready()
	s.metrics.flushes.Inc()
}

func (m *Metrics) debit(err error) {
	m.ready()
	var r *ledger.Refusal
	switch {
	case err == nil:
		m.booked.Inc()
	case ledger.IsCode(err, ledger.CodeInsufficient):
		m.short.Inc()
	case errors.As(err, &r):
		m.debits.WithLabelValues(string(r.Code)).Inc()
	default:
		m.debits.WithLabelValues("error").Inc()
	}
}

func (m *Metrics) event(origin string, fresh bool) {
	m.ready()
	label := "no"
	if fresh {
		label = "yes"
	}
	m.events.WithLabelValues(origin, label).Inc()
}

// Delivered counts a try to deliver an event.
func (s *Server) Delivered(outcome string) {
	s.metrics.ready()
	s.metrics.deliveries.WithLabelValues(outcome).Inc()
}
