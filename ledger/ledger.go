// Package ledger keeps prepaid credit: who has it, where it came from, and every movement of it.
//
// The words, as everywhere in this project:
//
//   - An asset is what a wallet counts: a currency, or tokens, minutes, messages with a price of their own.
//   - A customer has wallets, one for each asset and scope.
//   - A grant (a tranche) is credit with its own terms: kind, priority, when it begins and expires, what paid for it.
//   - A debit takes credit from grants in burn order. Its parts say which grants paid.
//   - An entry is one movement of a wallet; entries are never changed, and a wallet's balance is their sum.
//   - A top-up buys credit: its grant is pending until the payment has succeeded.
//   - A sale is an invoice or a checkout that Stripe was paid for; its lines give what their prices say.
//   - The mirror is the customer's balance in Stripe, kept equal to the credit that may pay invoices.
//   - A flush is the balance transaction that brings the mirror up to date.
//
// What is always true is stated in SQL by Check. Amounts are int64 in the asset's smallest step, charges in
// Stripe's smallest unit of the currency. Every method that writes opens one transaction of its own, and
// its error, unless it is a *Refusal, says that nothing can be said: the same call with the same
// idempotency key tells.
package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Options are what a Ledger may be told; only URL is needed.
type Options struct {
	URL          string           // postgres://…
	DefaultAsset string           // of the wallet that each customer has from the start; "" is usd
	Lanes        int              // writers that gather debits into one commit; 0 is 2, right for two cores
	Connections  int              // most connections beside the lanes' own and one to watch the database; 0 is 16
	Now          func() time.Time // nil is time.Now
	Logger       *slog.Logger     // nil discards
	Pages        bool             // a charge that needs the customer's authentication gets a page on which they pay

	// Render writes what an event is about (a *Grant, a *Topup, a *RuleView …) as JSON, as the API shows it. It is
	// called under row locks: it must ask nobody. nil writes the fields as they are named here.
	Render func(subject any) ([]byte, error)
}

// Ledger is the credit ledger on one PostgreSQL database. It is safe for concurrent use, and several may
// work on one database.
type Ledger struct {
	db           *sqlx.DB
	laneDB       *sqlx.DB // the lanes' own, so that no other work keeps a connection from them
	watch        *watch
	clock        func() time.Time
	log          *slog.Logger
	defaultAsset string
	pages        bool
	ids          idSource
	assets       sync.Map // code → Asset, for what never changes: its scale
	links        sync.Map // cus_… → Ref
	recent       recentKeys
	rates        rateCard
	lanes        []*lane
	dirty        dirtySet
	topupsDue    chan struct{}
	eventsDue    chan struct{}
	deliveries   chan struct{} // told when some fall due
	render       func(subject any) ([]byte, error)
	slow         chan struct{} // looks at much of the books that are on their way
	types        atomic.Pointer[rowTypes]
	looks        chan *look
	lookers      sync.WaitGroup
	closed       chan struct{}
}

// Ref names a customer and the bucket that the customer's rows are in.
type Ref struct {
	Bucket int16  `db:"bucket"`
	ID     string `db:"id"`
}

// Open connects to the database, whose schema must be up to date, and starts the lanes.
func Open(ctx context.Context, o Options) (*Ledger, error) {
	l := &Ledger{
		clock: o.Now, log: o.Logger, defaultAsset: o.DefaultAsset, pages: o.Pages,
		topupsDue: make(chan struct{}, 1), eventsDue: make(chan struct{}, 1), deliveries: make(chan struct{}, 1), render: o.Render,
		slow: make(chan struct{}, slowLooks), looks: make(chan *look, lookQueue), closed: make(chan struct{}),
	}
	if l.render == nil {
		l.render = renderBare
	}
	if l.clock == nil {
		l.clock = time.Now
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.defaultAsset == "" {
		l.defaultAsset = "usd"
	}
	lanes, connections := o.Lanes, o.Connections
	if lanes == 0 {
		lanes = 2
	}
	if connections == 0 {
		connections = 16
	}
	if err := l.connect(ctx, o.URL, connections, lanes); err != nil {
		return nil, err
	}
	for range lanes {
		l.lanes = append(l.lanes, newLane(l))
	}
	for range lookers {
		l.lookers.Go(l.look)
	}
	go l.clearLanes()
	return l, nil
}

// connect opens the pools, and has them watched.
func (l *Ledger) connect(ctx context.Context, url string, connections, lanes int) (err error) {
	l.watch = newWatch(l.log)
	if l.db, err = connect(ctx, url, l.watch.dialer(networkDeadline), true); err != nil {
		return err
	}
	l.db.SetMaxOpenConns(connections)
	l.db.SetMaxIdleConns(connections)
	if l.laneDB, err = connect(ctx, url, l.watch.dialer(laneDeadline), false); err == nil {
		l.laneDB.SetMaxOpenConns(lanes)
		l.laneDB.SetMaxIdleConns(lanes)
		if err = l.watch.begin(url); err == nil {
			return nil
		}
		_ = l.laneDB.Close()
	}
	_ = l.db.Close()
	return err
}

// Close waits for the debits that were accepted, then lets go of the database.
func (l *Ledger) Close() error {
	select {
	case <-l.closed:
		return nil
	default:
	}
	for _, lane := range l.lanes {
		lane.close()
	}
	close(l.closed)
	l.lookers.Wait()
	l.watch.close()
	_, _ = l.laneDB.Close(), l.db.Close() // a connection that is dead already says so
	return nil
}

// Ready reports whether the database answers and can be written to. It waits neither for a connection that others
// have nor for a database that has fallen silent.
func (l *Ledger) Ready(ctx context.Context) error { return l.watch.ready(ctx) }

// Connections is how many connections there are for all that the lanes do not do.
func (l *Ledger) Connections() int { return l.db.Stats().MaxOpenConnections }

// DB is the database itself, for reports and tools that only read.
func (l *Ledger) DB() *sqlx.DB { return l.db }

// Now is the ledger's clock, in UTC and no finer than the database keeps.
func (l *Ledger) Now() time.Time { return l.clock().UTC().Truncate(time.Microsecond) }

// networkDeadline bounds one read or write on a database connection. It is longer than any statement here takes; a
// database that has fallen silent is noticed sooner, by the watch.
const networkDeadline = 60 * time.Second

// laneDeadline is the same for the lanes' connections, whose statements are short.
const laneDeadline = 15 * time.Second

// dialTimeout bounds how long a connection to the database takes to be there.
const dialTimeout = 10 * time.Second

// Connect opens a pool on the database at url whose connections notice a dead network.
func Connect(ctx context.Context, url string) (*sqlx.DB, error) {
	return connect(ctx, url, deadlineDialer{patience: networkDeadline}, false)
}

func connect(ctx context.Context, url string, dialer deadlineDialer, prepares bool) (*sqlx.DB, error) {
	cfg, err := pq.NewConfig(url)
	if err != nil {
		return nil, fmt.Errorf("database url: %w", err)
	}
	cfg.BinaryParameters = true // []byte as it is, and no round trip to prepare what is sent once
	connector, err := pq.NewConnectorConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("database url: %w", err)
	}
	connector.Dialer(dialer)
	var opens driver.Connector = connector
	if prepares {
		opens = preparing{connector}
	}
	db := sql.OpenDB(opens)
	db.SetConnMaxIdleTime(5 * time.Minute)
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("database: %w", err)
	}
	return sqlx.NewDb(db, "postgres"), nil
}

// querier runs statements in a transaction: a *sqlx.Tx, or the connection of a lane that has begun one.
type querier interface {
	GetContext(ctx context.Context, dest any, query string, args ...any) error
	SelectContext(ctx context.Context, dest any, query string, args ...any) error
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// tx is one transaction with one moment, and what is to be told once it has been committed.
type tx struct {
	querier
	post  func(args ...any) (sql.Result, error) // runs postingSQL
	l     *Ledger
	ctx   context.Context
	now   time.Time
	dirty []Ref
	wake  bool // a top-up waits for a worker

	events []Event // emitted, to be written before the commit
	rules  []ruleChange
	sent   bool // a delivery waits for a worker
}

// transactionTries bounds how often a transaction that lost to another is run.
const transactionTries = 5

// inTx runs f in one transaction, again when the database says that it lost to another, and tells what
// changed after the commit.
func (l *Ledger) inTx(ctx context.Context, f func(*tx) error) error {
	var err error
	for try := range transactionTries {
		if err = l.oneTx(ctx, f); err == nil || !passing(err) {
			return err
		}
		l.log.Debug("transaction runs again", "try", try+1, "error", err)
		select { // not in step with the one that it lost to
		case <-ctx.Done():
			return err
		case <-time.After(rand.N(5 * time.Millisecond << try)):
		}
	}
	return err
}

func (l *Ledger) oneTx(ctx context.Context, f func(*tx) error) (err error) {
	defer func() { l.watch.heard(err) }()
	raw, err := l.db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Rollback() }() // does nothing after a commit
	t := &tx{querier: raw, l: l, ctx: ctx, now: l.Now()}
	t.post = func(args ...any) (sql.Result, error) { return raw.ExecContext(ctx, postingSQL, args...) }
	if r, ok := ctx.Value(rehearsalKey{}).(*rehearsal); ok {
		return t.rehearse(r, f)
	}
	if err := f(t); err != nil {
		return err
	}
	if err := t.flushEvents(); err != nil {
		return err
	}
	if err := raw.Commit(); err != nil {
		return err
	}
	t.tell()
	return nil
}

// tell passes on what a committed transaction changed.
func (t *tx) tell() {
	t.l.dirty.add(t.dirty...)
	if t.wake {
		t.l.wakeTopups()
	}
	if len(t.events) > 0 {
		wake(t.l.eventsDue)
	}
	if t.sent {
		wake(t.l.deliveries)
	}
}

// get reads one row; found is false when there is none.
func (t *tx) get(dest any, query string, args ...any) (found bool, err error) {
	err = t.GetContext(t.ctx, dest, query, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func (t *tx) exec(query string, args ...any) error {
	_, err := t.ExecContext(t.ctx, query, args...)
	return err
}

// TopupsDue is told, without a count, when a top-up was intended: a worker need not wait for its next look.
func (l *Ledger) TopupsDue() <-chan struct{} { return l.topupsDue }

func (l *Ledger) wakeTopups() { wake(l.topupsDue) }

func wake(due chan<- struct{}) {
	select {
	case due <- struct{}{}:
	default:
	}
}

// dirtySet remembers customers whose mirrored credit may have changed, each once.
type dirtySet struct {
	mu   sync.Mutex
	refs map[Ref]struct{}
}

func (d *dirtySet) add(refs ...Ref) {
	if len(refs) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refs == nil {
		d.refs = make(map[Ref]struct{})
	}
	for _, r := range refs {
		d.refs[r] = struct{}{}
	}
}

func (d *dirtySet) take() []Ref {
	d.mu.Lock()
	defer d.mu.Unlock()
	refs := make([]Ref, 0, len(d.refs))
	for r := range d.refs {
		refs = append(refs, r)
	}
	clear(d.refs)
	return refs
}
