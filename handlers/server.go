// Package handlers is Lockstep over HTTP: it reads requests, asks the ledger, and writes answers. Every rule
// about credit is the ledger's; everything about Stripe's words is stripeutil's.
package handlers

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
	"lockstep/stripeutil"
)

// Server answers Lockstep's API and Stripe's webhooks.
type Server struct {
	Ledger         *ledger.Ledger
	Stripe         *stripeutil.Client
	WebhookSecrets []string
	Log            *slog.Logger

	// What joins the ledger and Stripe is done by the same code that the workers run.

	// Charge runs a top-up's charge now instead of waiting for a worker, and answers what is known after it.
	Charge func(ctx context.Context, topup string) (ledger.Topup, error)
	// Link makes a customer in Stripe for one that has none.
	Link func(ctx context.Context, c ledger.Customer) (ledger.Customer, error)
	// Sync brings a customer's balance in Stripe up to date now.
	Sync func(ctx context.Context, ref ledger.Ref) error
	// Backfill fetches the events that Stripe could not deliver.
	Backfill func(ctx context.Context) error
	// Flushes are the customers whose balance in Stripe is behind; nil where nothing is flushed.
	Flushes *ledger.FlushQueue
	// EventStored is told when an event waits to be worked off.
	EventStored func()

	// OutboundPrivate says that endpoints may have private addresses, and take http.
	OutboundPrivate bool
	// PublicURL is where browsers find this service; "" when that is not set.
	PublicURL string
	// PortalKey signs the links to the portal; every replica has the same.
	PortalKey []byte
	// MetricsElsewhere says that the metrics have an address of their own and are not served here.
	MetricsElsewhere bool

	// Site renders the pages that people see.
	Site *pages.Site
	// Dev says that nothing here is real money.
	Dev bool

	keys        keyCache
	charts      chartCache
	metrics     Metrics
	ready       sync.Once
	rooms       *rooms
	connections atomic.Int64 // open
	stopping    atomic.Bool
	called      atomic.Int64 // when the last call came since stopping, in Unix nanoseconds
	complaints  complaints
	tries       tries
	exporting   atomic.Bool // entries are on their way to somebody's browser
	reports     reportCache
	pulse       kept[ledger.Pulse]
	sums        kept[sums]
}

// Handler is the whole service.
func (s *Server) Handler() http.Handler {
	s.prepare()
	return s.routes()
}

// MetricsHandler serves what the service counts, for Prometheus.
func (s *Server) MetricsHandler() http.Handler {
	s.prepare()
	return s.metrics.handler(s)
}

// How long Drain waits: until no call has come for quietTime, and at most drainTime.
const (
	quietTime = 100 * time.Millisecond
	drainTime = 2 * time.Second
)

// Drain has each answer from now on close its connection, and returns when the busy ones are closed. Call it when no new
// connection is taken any more, before http.Server.Shutdown: that closes what is idle, and a call that comes in this very
// moment would be done and not answered.
func (s *Server) Drain() {
	begun := time.Now()
	s.called.Store(begun.UnixNano())
	s.stopping.Store(true)
	for now := begun; now.Sub(begun) < drainTime && now.Sub(time.Unix(0, s.called.Load())) < quietTime; now = time.Now() {
		time.Sleep(quietTime / 5)
	}
}

// prepare makes the rooms, by the connections that there are to the database.
func (s *Server) prepare() {
	s.ready.Do(func() {
		connections := 0
		if s.Ledger != nil {
			connections = s.Ledger.Connections()
		}
		s.rooms = newRooms(&s.metrics, connections)
		s.metrics.registry.MustRegister(s)
	})
}
