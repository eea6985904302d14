package ledger

import (
	"context"
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
	// laneQueue bounds what waits; past it a caller is told to come back.
	laneQueue = 16384
)

// debitCall is one debit on its way through a lane.
type debitCall struct {
	in      DebitInput
	ref     Ref
	seen    bool      // its key was used lately
	amount  int64     // steps, once the wallet is known
	wallets []*Wallet // that may pay it, in the order in which they are asked
	result  DebitResult
	done    chan struct{}
}

type lane struct {
	l      *Ledger
	mu     sync.Mutex
	some   sync.Cond
	queue  []*debitCall
	closed bool
	ended  chan struct{}
	conn   *laneConn
	memory memory
}

func newLane(l *Ledger) *lane {
	ln := &lane{l: l, ended: make(chan struct{})}
	ln.some.L = &ln.mu
	go ln.run()
	return ln
}

func (l *Ledger) laneOf(bucket int16) *lane { return l.lanes[int(bucket)%len(l.lanes)] }

func (ln *lane) put(c *debitCall) error {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.closed || len(ln.queue) >= laneQueue {
		return refuse(CodeUnavailable, "", "too much is waiting to be written; nothing was booked, try again shortly")
	}
	ln.queue = append(ln.queue, c)
	ln.some.Signal()
	return nil
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
		rest, err := ln.fenced(batch)
		if err != nil {
			ln.l.log.Error("debits of unknown outcome", "calls", len(batch)-len(rest), "error", err)
		}
		if len(rest) > 0 {
			ln.serve(rest)
		}
		for _, c := range batch {
			c.done <- struct{}{}
		}
	}
}

// take waits for calls and takes what is there; nil once the lane is closed and empty.
func (ln *lane) take() []*debitCall {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	for len(ln.queue) == 0 {
		if ln.closed {
			return nil
		}
		ln.some.Wait()
	}
	n := min(len(ln.queue), laneBatch)
	batch := make([]*debitCall, n)
	copy(batch, ln.queue)
	rest := copy(ln.queue, ln.queue[n:])
	clear(ln.queue[rest:])
	ln.queue = ln.queue[:rest]
	return batch
}

// serve gives every call of the batch its result. One bad call never spoils its neighbours: when the
// transaction itself fails, its calls are run one by one. When the database is away they all fail at once.
func (ln *lane) serve(batch []*debitCall) {
	err := ln.commit(batch)
	if err == nil {
		return
	}
	if ln.alone(err) && len(batch) > 1 {
		for _, c := range batch {
			ln.serve([]*debitCall{c})
		}
		return
	}
	// A key that another process booked between our look and our write is found by the next look.
	for try := 1; (passing(err) || violates(err, "entries_key")) && try < transactionTries; try++ {
		err = ln.commit(batch)
	}
	if err != nil {
		ln.l.log.Error("debits not booked", "calls", len(batch), "error", err)
		for _, c := range batch {
			c.result = DebitResult{Err: fmt.Errorf("debit: %w", err)}
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
	conn, err := ln.connection()
	if err != nil {
		return err
	}
	b := newBatch(ln.l)
	b.conn, b.t.querier = conn, conn
	if err := conn.run("begin"); err != nil {
		ln.drop()
		return err
	}
	if err = b.book(batch); err == nil {
		err = b.t.flushEvents()
	}
	if err == nil {
		err = conn.run("commit")
	}
	if err != nil {
		var pe *pq.Error
		if !errors.As(err, &pe) || conn.run("rollback") != nil {
			ln.drop() // the connection is not to be trusted any more
		}
		return err
	}
	ln.remember(b)
	b.t.tell()
	for _, c := range batch {
		if c.result.Err == nil {
			ln.l.KeyUsed(c.in.Once)
		}
	}
	return nil
}

// laneConn is the lane's own connection with its prepared statements: a statement that is not prepared
// costs a round trip more, and a pool would prepare anew on every connection.
type laneConn struct {
	*sqlx.Conn
	replays, lock, grants, post *sqlx.Stmt
	types                       *rowTypes
}

// laneSettings make the planner walk indexes for a batch's few rows, whatever it thinks of an array's
// length, and bound how long a batch can wait.
const laneSettings = `set enable_hashjoin = off; set enable_mergejoin = off; set enable_seqscan = off;
	set plan_cache_mode = force_generic_plan; set statement_timeout = '20s'; set lock_timeout = '10s'`

func (ln *lane) connection() (*laneConn, error) {
	if ln.conn != nil {
		return ln.conn, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	raw, err := ln.l.db.Connx(ctx)
	if err != nil {
		return nil, err
	}
	c := &laneConn{Conn: raw}
	err = c.run(laneSettings)
	for _, s := range []struct {
		stmt  **sqlx.Stmt
		query string
	}{{&c.replays, replaysSQL}, {&c.lock, lockSQL}, {&c.grants, liveGrantsSQL}, {&c.post, postingSQL}} {
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
