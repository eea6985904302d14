package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"

	"lockstep/ledger"
	"lockstep/ledger/localpg"
	"lockstep/migrations"
	"lockstep/stripeutil/stripesim"
)

// benchBed is all that the benchmark stands on: a folder, a database, a Stripe and a gateway. close takes
// it down again, whatever there is of it.
type benchBed struct {
	dir       string
	url       string // of the database, which is the benchmark's own
	embedded  bool
	ledger    *ledger.Ledger
	meter     *benchMeter
	yardstick *benchYardstick
	sim       *stripesim.Sim
	stripeURL string
	gateway   *benchGateway
	env       map[string]string // of gateways
	mix       *benchMix         // nil where no case is about it
	apiKey    string
	undo      []func() error
}

// close undoes in the reverse order what was done. The gateway has ended before its database goes.
func (b *benchBed) close() error {
	var errs []error
	for _, undo := range slices.Backward(b.undo) {
		errs = append(errs, undo())
	}
	b.undo = nil
	return errors.Join(errs...)
}

// makeBenchBed brings everything up. On an error nothing is left of it.
func makeBenchBed(ctx context.Context, o *benchOptions) (_ *benchBed, err error) {
	b := &benchBed{apiKey: "lsk_bench_" + rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if err := b.makeFolder(o.dir); err != nil {
		return nil, err
	}
	var binDirs []string
	if server := os.Getenv("DATABASE_URL"); server != "" {
		err = b.makeDatabase(ctx, server)
	} else {
		binDirs, err = b.startDatabase(ctx)
	}
	if err != nil {
		return nil, err
	}
	if b.ledger, err = ledger.Open(ctx, ledger.Options{URL: b.url}); err != nil {
		return nil, err
	}
	b.undo = append(b.undo, b.ledger.Close)
	if _, err := migrations.Up(ctx, b.ledger.DB().DB); err != nil {
		return nil, err
	}
	if b.meter, err = newBenchMeter(ctx, b.ledger.DB(), "/proc"); err != nil {
		return nil, err
	}
	if b.yardstick, err = newBenchYardstick(ctx, b.meter, b.url, b.dir, binDirs...); err != nil {
		return nil, err
	}
	if err := loadBench(ctx, b.ledger, o.customers); err != nil {
		return nil, err
	}
	return b, b.startGateway(ctx)
}

// makeFolder makes a temporary folder. Root's PostgreSQL runs as another user, so others may pass through.
func (b *benchBed) makeFolder(parent string) error {
	dir, err := os.MkdirTemp(parent, "lockstep-bench-*")
	if err != nil {
		return err
	}
	b.dir = dir
	b.undo = append(b.undo, func() error { return os.RemoveAll(dir) })
	return os.Chmod(dir, 0o711)
}

// startDatabase starts a PostgreSQL of our own, with the settings that `serve` gives it: everything that is
// acknowledged reaches the disk.
func (b *benchBed) startDatabase(ctx context.Context) (binDirs []string, err error) {
	pg, err := localpg.Start(ctx, localpg.Options{DataDir: b.dataDir(), Fetch: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	b.undo = append(b.undo, pg.Stop)
	b.embedded = true
	if err := pg.CreateDatabase(ctx, "bench", ""); err != nil {
		return nil, err
	}
	b.url = pg.URL("bench")
	return []string{pg.BinDir()}, nil
}

func (b *benchBed) dataDir() string { return filepath.Join(b.dir, "data") }

// makeDatabase makes a database on a server that is there, to be dropped again.
func (b *benchBed) makeDatabase(ctx context.Context, server string) error {
	name := "lockstep_bench_" + strings.ToLower(rand.Text()[:12])
	own, err := benchDatabaseURL(server, name)
	if err != nil {
		return err
	}
	db, err := ledger.Connect(ctx, server)
	if err != nil {
		return err
	}
	b.undo = append(b.undo, db.Close)
	if _, err := db.ExecContext(ctx, "create database "+pq.QuoteIdentifier(name)); err != nil {
		return fmt.Errorf("the benchmark makes a database of its own: %w", err)
	}
	b.undo = append(b.undo, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the caller's may have ended
		defer cancel()
		if _, err := db.ExecContext(ctx, "drop database "+pq.QuoteIdentifier(name)+" with (force)"); err != nil {
			return fmt.Errorf("drop database %s yourself: %w", name, err)
		}
		return nil
	})
	b.url = own
	return nil
}

// benchDatabaseURL is server with another database.
func benchDatabaseURL(server, name string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", errors.New("DATABASE_URL must start with postgres://") // its text may hold a password
	}
	u.Path = "/" + name
	q := u.Query()
	q.Del("dbname")
	u.RawQuery = q.Encode()
	return u.String(), nil
}

const (
	benchStripeKey     = "sk_test_bench"
	benchWebhookSecret = "whsec_bench"
)

// startGateway starts a simulated Stripe in this process and the gateway in its own. Stripe's limit is that of live mode.
func (b *benchBed) startGateway(ctx context.Context) (err error) {
	if b.sim, err = stripesim.New(stripesim.Options{SecretKey: benchStripeKey}); err != nil {
		return err
	}
	server := httptest.NewServer(b.sim)
	b.undo = append(b.undo, func() error {
		server.Close()
		b.sim.Close()
		return nil
	})
	b.stripeURL = server.URL
	b.env = map[string]string{
		"DATABASE_URL":               b.url,
		"STRIPE_SECRET_KEY":          benchStripeKey,
		"STRIPE_API_BASE":            server.URL,
		"STRIPE_REQUESTS_PER_SECOND": "90",
		"STRIPE_WEBHOOK_SECRET":      benchWebhookSecret,
		"LOCKSTEP_API_KEY":           b.apiKey,
		"LOG_LEVEL":                  "error",
	}
	if b.gateway, err = b.oneMoreGateway(ctx, b.env); err != nil {
		return err
	}
	b.undo = append(b.undo, b.gateway.stop)
	b.meter.gateways = []int{b.gateway.cmd.Process.Pid}
	b.sim.SetEndpoint(stripesim.Endpoint{URL: "http://" + b.gateway.addr + "/webhooks/stripe", Secrets: []string{benchWebhookSecret}})
	return nil
}

func (b *benchBed) oneMoreGateway(ctx context.Context, env map[string]string) (*benchGateway, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startBenchGateway(ctx, exe, b.dir, env)
}

// withReplicas runs something while n more gateways work on the same database, and tells it where.
func (b *benchBed) withReplicas(ctx context.Context, n int, run func(addrs []string) error) (err error) {
	only := b.meter.gateways
	defer func() { b.meter.gateways = only }()
	addrs, pids := []string{b.gateway.addr}, []int{only[0]}
	env := maps.Clone(b.env)
	env["METRICS_ADDR"] = "" // the caller's is the first gateway's
	for range n {
		g, err := b.oneMoreGateway(ctx, env)
		if err != nil {
			return fmt.Errorf("a replica: %w", err)
		}
		defer func() { err = errors.Join(err, g.stop()) }()
		addrs, pids = append(addrs, g.addr), append(pids, g.cmd.Process.Pid)
	}
	b.meter.gateways = pids
	return run(addrs)
}

// benchFolder is where the benchmark's own PostgreSQL keeps its data: /tmp is in memory on many systems,
// where a commit costs nothing, /var/tmp is on disk by convention.
func benchFolder() string {
	if info, err := os.Stat("/var/tmp"); err == nil && info.IsDir() {
		return "/var/tmp"
	}
	return os.TempDir()
}
