package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"lockstep/handlers"
	"lockstep/handlers/pages"
	"lockstep/ledger"
	"lockstep/ledger/localpg"
	"lockstep/migrations"
	"lockstep/stripeutil"
)

// gateway is the running service: the ledger, Stripe, and what joins them.
type gateway struct {
	ledger *ledger.Ledger
	stripe *stripeutil.Client
	server *handlers.Server
	log    *slog.Logger
	cfg    config
	events chan struct{} // told when an event waits

	flushes  *ledger.FlushQueue
	outbound *outbound
}

func serve(ctx context.Context, args []string, _, stderr io.Writer) error {
	f := flags("serve", stderr)
	if err := parse(f, args); err != nil {
		return err
	}
	c, err := loadConfig()
	if err != nil {
		return err
	}
	if err := c.checkServe(); err != nil {
		return err
	}
	return runGateway(ctx, c, c.logger(stderr), nil)
}

// runGateway runs the service until ctx ends, then stops it in order: no new requests, the ones under way
// finished, workers, ledger, database. started is told where it listens.
func runGateway(ctx context.Context, c config, log *slog.Logger, started func(*gateway, net.Addr) error) (err error) {
	url, stopDB, err := openDatabase(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopDB()) }()
	g, err := newGateway(ctx, c, log, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.ledger.Close()) }()
	return g.run(ctx, started)
}

// openDatabase answers the URL of a database with the newest schema: the configured one, or the embedded
// server's, which it starts.
func openDatabase(ctx context.Context, c config, log *slog.Logger) (url string, stop func() error, err error) {
	url, stop = c.DatabaseURL, func() error { return nil }
	if url == "" {
		pg, err := localpg.Start(ctx, localpg.Options{DataDir: c.DataDir, Fetch: true, Logger: log})
		if err != nil {
			return "", nil, err
		}
		stop = pg.Stop
		if err := pg.CreateDatabase(ctx, "lockstep", ""); err != nil && !errors.Is(err, localpg.ErrDatabaseExists) {
			return "", nil, errors.Join(err, stop())
		}
		url = pg.URL("lockstep")
	}
	db, err := ledger.Connect(ctx, url)
	if err != nil {
		return "", nil, errors.Join(err, stop())
	}
	defer db.Close()
	n, err := migrations.Up(ctx, db.DB)
	if err != nil {
		return "", nil, errors.Join(err, stop())
	}
	if n > 0 {
		log.Info("schema migrated", "migrations", n)
	}
	return url, stop, nil
}

func newGateway(ctx context.Context, c config, log *slog.Logger, url string) (*gateway, error) {
	client, err := stripeutil.New(stripeutil.Config{SecretKey: c.StripeSecretKey, APIBase: c.StripeAPIBase, RequestsPerSecond: c.StripeRate, Logger: log})
	if err != nil {
		return nil, err
	}
	l, err := ledger.Open(ctx, ledger.Options{URL: url, DefaultAsset: c.DefaultAsset, Now: c.now, Logger: log, Render: handlers.Render,
		Pages: pageReturn(c, client.Livemode()) != ""})
	if err != nil {
		return nil, err
	}
	site, err := pages.NewSite(pages.Brand{Name: c.MerchantName, Color: c.MerchantColor, Logo: c.MerchantLogo})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("MERCHANT_COLOR, MERCHANT_LOGO: %w", err), l.Close())
	}
	g := &gateway{ledger: l, stripe: client, log: log, cfg: c, events: make(chan struct{}, 1),
		flushes: ledger.NewFlushQueue(l.Now), outbound: newOutbound(c.OutboundPrivate)}
	g.server = &handlers.Server{Ledger: l, Stripe: client, WebhookSecrets: c.StripeWebhookSecret, Log: log,
		Charge: g.chargeTopup, Link: g.linkCustomer, Sync: g.syncNow, Backfill: g.catchUp,
		EventStored: func() { wake(g.events) }, Flushes: g.flushes, OutboundPrivate: c.OutboundPrivate, MetricsElsewhere: c.MetricsAddr != "", PublicURL: c.PublicURL,
		Site: site, Dev: c.dev, PortalKey: c.portalKey()}
	if err := g.prepare(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return g, nil
}

// prepare refuses to start without what the service can't do without.
func (g *gateway) prepare(ctx context.Context) error {
	if _, err := g.ledger.Asset(ctx, g.cfg.DefaultAsset); err != nil {
		return fmt.Errorf("DEFAULT_ASSET: %w", err)
	}
	if g.cfg.APIKey != "" {
		return g.ledger.SetFirstKey(ctx, g.cfg.APIKey)
	}
	keys, err := g.ledger.Keys(ctx)
	if err == nil && len(keys) == 0 {
		err = errors.New("there is no API key: set LOCKSTEP_API_KEY, or make one with lockstep keys create")
	}
	return err
}

// stopTime is how long requests under way may take once the service is told to stop.
const stopTime = 30 * time.Second

func (g *gateway) run(ctx context.Context, started func(*gateway, net.Addr) error) error {
	listener, err := net.Listen("tcp", g.cfg.ListenAddr)
	if err != nil {
		return fmt.Errorf("LISTEN_ADDR: %w", err)
	}
	workCtx, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	workDone := g.startWorkers(workCtx)
	defer func() { stopWork(); <-workDone }()

	srv := newHTTPServer(g.server.Handler(), g.log)
	srv.ConnState = g.server.ConnState
	failed := make(chan error, 2)
	go func() { failed <- srv.Serve(listener) }()
	stopMetrics, err := g.serveMetrics(failed)
	if err != nil {
		_ = srv.Close()
		return err
	}
	defer stopMetrics()
	g.log.Info("listening", "address", listener.Addr().String(), "live", g.stripe.Livemode())
	if started != nil {
		if err := started(g, listener.Addr()); err != nil {
			_ = srv.Close()
			return err
		}
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	g.log.Info("stopping")
	_ = listener.Close()
	g.server.Drain()
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return srv.Shutdown(stopCtx)
}

// newHTTPServer bounds what a slow or greedy caller can hold.
func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 90 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
}

// serveMetrics gives the metrics an address of their own where one is set.
func (g *gateway) serveMetrics(failed chan<- error) (stop func(), err error) {
	if g.cfg.MetricsAddr == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", g.cfg.MetricsAddr)
	if err != nil {
		return nil, fmt.Errorf("METRICS_ADDR: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", g.server.MetricsHandler())
	// Profiles are the operator's: they are on this address alone.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	srv := newHTTPServer(mux, g.log)
	go func() { failed <- srv.Serve(listener) }()
	return func() { _ = srv.Close() }, nil
}
