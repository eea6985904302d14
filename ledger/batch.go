package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// A lane writes debits: it takes all that wait, runs one transaction for them, and answers each with its
// own outcome. While one commit is on its way to disk the next batch gathers, so an idle service answers a
// lone debit at once and a busy one shares each commit among many. A lane has whole buckets; the row locks
// are the truth, the lane only a saving, so any number of processes may work on one database.

const (
	// laneBatch bounds one transaction.
	laneBatch = 2048
	// laneQueue bounds how many calls wait, about a second's work; past it a caller is told to come back.
	laneQueue = 16384
	// laneWait bounds for how long they wait. A lane that has been at one batch for longer takes no more calls.
	laneWait = 5 * time.Second
	// laneTime bounds how long a batch that failed as a whole is tried call by call.
	laneTime = 4 * time.Second
	// laneLocked is how long a customer whose wallet somebody kept locked is not tried again: each try holds up the
	// lane's other customers.
	laneLocked = time.Second
)

// debitCall is one debit on its way through a lane.
type debitCall struct {
	in      DebitInput
	ref     Ref
	seen    bool      // its key was used lately
	amount  int64     // steps, once the wallet is known
	wallets []*Wallet // that may pay it, in the order in which they are asked
	since   time.Time // when it was put into the lane
	result  DebitResult
	done    *sync.WaitGroup
}

type lane struct {
	l      *Ledger
	mu     sync.Mutex
	some   sync.Cond
	queue  []*debitCall
	busy   time.Time // since when it has been at its batch; zero while there is none
	closed bool
	ended  chan struct{}
	conn   *laneConn
	memory memory
	locked map[Ref]time.Time // customers that are not tried until then
}

func newLane(l *Ledger) *lane {
	ln := &lane{l: l, ended: make(chan struct{})}
	ln.some.L = &ln.mu
	go ln.run()
	return ln
}

func (l *Ledger) laneOf(bucket int16) *lane { return l.lanes[int(bucket)%len(l.lanes)] }

// put hands a call to the lane, or refuses it: better at once than after a wait.
func (ln *lane) put(c *debitCall) error {
	c.since = time.Now()
	ln.mu.Lock()
	defer ln.mu.Unlock()
	switch {
	case ln.closed:
		return refuse(CodeUnavailable, "", "the service is stopping; nothing was booked, send it again")
	case !ln.busy.IsZero() && c.since.Sub(ln.busy) > laneWait:
		return tooSlow()
	case len(ln.queue) >= laneQueue:
		return refuse(CodeRateLimited, "", "more debits are waiting than can be written soon; nothing was booked, send it again after Retry-After")
	}
	ln.queue = append(ln.queue, c)
	ln.some.Signal()
	return nil
}

func tooSlow() error {
	return refuse(CodeUnavailable, "", "the database is too slow at the moment; nothing was booked, send it again after Retry-After")
}

// clear refuses the calls that have waited for too long.
func (ln *lane) clear(now time.Time) {
	ln.mu.Lock()
	n := 0
	for n < len(ln.queue) && now.Sub(ln.queue[n].since) > laneWait {
		n++
	}
	late := ln.first(n)
	ln.mu.Unlock()
	for _, c := range late {
		c.result = DebitResult{Err: tooSlow()}
		c.done.Done()
	}
}

// clearLanes clears the lanes all the time: a lane that hangs on the database can't do it itself.
func (l *Ledger) clearLanes() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-l.closed:
			return
		case now := <-tick.C:
			for _, ln := range l.lanes {
				ln.clear(now)
			}
		}
	}
}

// Load says how much waits in the lanes: how many debits, and for how long the first of them.
func (l *Ledger) Load() (waiting int, oldest time.Duration) {
	now := time.Now()
	for _, ln := range l.lanes {
		ln.mu.Lock()
		waiting += len(ln.queue)
		if len(ln.queue) > 0 {
			oldest = max(oldest, now.Sub(ln.queue[0].since))
		}
		ln.mu.Unlock()
	}
	return waiting, oldest
}

func (ln *lane) close() {
	ln.mu.Lock()
	ln.closed = true
	ln.some.Signal()
	ln.mu.Unlock()
	<-ln.ended
}

func (ln *lane) run() {
	defer close(ln.ended)
	for {
		batch := ln.take()
		if batch == nil {
			ln.drop()
			return
		}
		open := ln.unlocked(batch)
		rest, err := ln.fenced(open)
		if err != nil {
			ln.l.log.Error("debits of unknown outcome", "calls", len(open)-len(rest), "error", err)
			ln.l.watch.heard(err)
		}
		if len(rest) > 0 {
			ln.serve(rest)
		}
		for _, c := range batch {
			c.done.Done()
		}
	}
}

// take waits for calls and takes what is there; nil once the lane is closed and empty.
func (ln *lane) take() []*debitCall {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.busy = time.Time{}
	for len(ln.queue) == 0 {
		if ln.closed {
			return nil
		}
		ln.some.Wait()
	}
	ln.busy = time.Now()
	return ln.first(min(len(ln.queue), laneBatch))
}

// first takes the first n calls out of the queue.
func (ln *lane) first(n int) []*debitCall {
	if n == 0 {
		return nil
	}
	batch := make([]*debitCall, n)
	copy(batch, ln.queue)
	rest := copy(ln.queue, ln.queue[n:])
	clear(ln.queue[rest:])
	ln.queue = ln.queue[:rest]
	return batch
}

// unlocked refuses the calls of customers who are not to be tried yet, and answers the others.
func (ln *lane) unlocked(batch []*debitCall) []*debitCall {
	if len(ln.locked) == 0 {
		return batch
	}
	now, open := time.Now(), make([]*debitCall, 0, len(batch))
	for _, c := range batch {
		until, locked := ln.locked[c.ref]
		if locked && now.Before(until) {
			c.result = DebitResult{Err: lockedOut()}
			continue
		}
		delete(ln.locked, c.ref)
		open = append(open, c)
	}
	return open
}

func lockedOut() error {
	return refuse(CodeUnavailable, "", "the customer's wallets are locked by something else; nothing was booked, send it again after Retry-After")
}

// serve gives every call of the batch its result. One bad call never spoils its neighbours: when the
// transaction itself fails, its calls are run one by one. When the database is away they all fail at once.
func (ln *lane) serve(batch []*debitCall) {
	err := ln.commit(batch)
	if err == nil {
		return
	}
	if ln.alone(err) && len(batch) > 1 {
		ln.serveAlone(batch)
		return
	}
	// A key that another process used between our look and our write is found by the next look.
	for try := 1; (passing(err) || violates(err, "entries_key") || undone(err)) && try < transactionTries; try++ {
		err = ln.commit(batch)
	}
	var pe *pq.Error
	if errors.As(err, &pe) && pe.Code == "55P03" && len(batch) == 1 { // lock_not_available
		if ln.locked == nil || len(ln.locked) >= memoryLimit {
			ln.locked = make(map[Ref]time.Time)
		}
		ln.locked[batch[0].ref] = time.Now().Add(laneLocked)
		err = lockedOut()
	}
	if err != nil {
		ln.l.log.Error("debits not booked", "calls", len(batch), "error", err)
		ln.l.watch.heard(err)
		for _, c := range batch {
			c.result = DebitResult{Err: fmt.Errorf("debit: %w", err)}
		}
	}
}

// serveAlone runs the calls of a batch one by one, as long as there is time. Whose wallets are locked is found only by
// waiting for them, and not tried twice.
func (ln *lane) serveAlone(batch []*debitCall) {
	until := time.Now().Add(laneTime)
	for i := range batch {
		if time.Now().After(until) {
			for _, late := range batch[i:] {
				late.result = DebitResult{Err: tooSlow()}
			}
			return
		}
		if one := ln.unlocked(batch[i : i+1]); len(one) > 0 {
			ln.serve(one)
		}
	}
}

// alone reports whether err came from one statement, so that calls run alone may fare better.
func (ln *lane) alone(err error) bool {
	var pe *pq.Error
	return errors.As(err, &pe) && pe.Code.Class() != "57" && pe.Code.Class() != "53" // not: server going away, out of room
}

// commit runs one transaction for the batch.
func (ln *lane) commit(batch []*debitCall) (err error) {
	for _, c := range batch {
		c.result, c.wallets = DebitResult{}, nil
	}
	conn, err := ln.begin()
	if err != nil {
		return err
	}
	b := newBatch(ln.l)
	b.conn, b.t.querier = conn, conn
	b.t.post = func(args ...any) (sql.Result, error) { return conn.post.ExecContext(b.t.ctx, args...) }
	if err = b.book(batch); err == nil {
		err = b.t.flushEvents()
	}
	if err == nil {
		err = conn.run("commit")
	}
	if err != nil {
		var pe *pq.Error
		if !errors.As(err, &pe) || outlived(err) || conn.run("rollback") != nil {
			ln.drop() // the connection, or what is prepared on it, is not to be trusted any more
		}
		return err
	}
	ln.remember(b)
	b.t.tell()
	ln.l.recent.booked(batch)
	return nil
}

// begin begins a transaction: where the connection was cut since it was used last, on another.
func (ln *lane) begin() (conn *laneConn, err error) {
	for range 2 {
		if conn, err = ln.connection(); err != nil {
			return nil, err
		}
		if err = conn.run("begin"); err == nil {
			return conn, nil
		}
		ln.drop()
	}
	return nil, err
}

// laneConn is the lane's own connection with its prepared statements: a statement that is not prepared
// costs a round trip more, and a pool would prepare anew on every connection.
type laneConn struct {
	*sqlx.Conn
	replays, learn, lock, grants, post *sqlx.Stmt
	types                              *rowTypes
}

// laneSettings make the planner walk indexes for a batch's few rows, whatever it thinks of an array's
// length, and bound how long a batch can wait.
const laneSettings = `set enable_hashjoin = off; set enable_mergejoin = off; set enable_seqscan = off;
	set plan_cache_mode = force_generic_plan; set statement_timeout = '8s'; set lock_timeout = '3s'`

func (ln *lane) connection() (*laneConn, error) {
	if ln.conn != nil {
		return ln.conn, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	raw, err := ln.l.laneDB.Connx(ctx)
	if err != nil {
		return nil, err
	}
	c := &laneConn{Conn: raw}
	err = c.run(laneSettings)
	for _, s := range []struct {
		stmt  **sqlx.Stmt
		query string
	}{{&c.replays, replaysSQL}, {&c.learn, learnSQL}, {&c.lock, lockSQL}, {&c.grants, liveGrantsSQL}, {&c.post, debitsSQL}} {
		if err == nil {
			*s.stmt, err = raw.PreparexContext(context.Background(), s.query)
		}
	}
	if err == nil {
		c.types, err = readRowTypes(ctx, raw)
	}
	if err != nil {
		c.discard()
		return nil, err
	}
	ln.conn = c
	return c, nil
}

func (ln *lane) drop() {
	if ln.conn != nil {
		ln.conn.discard()
		ln.conn = nil
	}
}

// discard closes the connection for good: its settings must not go back to the pool.
func (c *laneConn) discard() {
	_ = c.Raw(func(any) error { return errDiscard })
	_ = c.Close()
}

func (c *laneConn) run(statement string) error {
	_, err := c.ExecContext(context.Background(), statement)
	return err
}
