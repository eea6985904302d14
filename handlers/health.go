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
		m.shed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lockstep_shed_total",
			Help: "Requests refused because too many were at work, by room; connections closed because too many were open."}, []string{"room"})
		m.registry.MustRegister(m.debits, m.events, m.deliveries, m.shed, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		m.booked, m.short = m.debits.WithLabelValues("booked"), m.debits.WithLabelValues(string(ledger.CodeInsufficient))
	})
}

func (m *Metrics) handler() http.Handler {
	m.ready()
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
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
