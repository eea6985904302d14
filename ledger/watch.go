package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/lib/pq"
)

// The watch asks the database once a second, on a connection of its own, whether it is there. A refused or cut
// connection tells by itself, but a network that swallows packets, or a server that stands still, does not: then every
// caller would wait for the end of its own deadline, one after the other. So when the watch has had no answer for
// watchPatience, it closes all connections of the process, which ends every wait at once, and refuses to open new ones
// until the database has answered it again.

const (
	watchEvery    = time.Second
	watchAgain    = 250 * time.Millisecond // while something is wrong
	watchPatience = 5 * time.Second        // longer than a server under full load takes for nothing at all
	readyPatience = 2 * time.Second        // how long Ready waits for the watch
)

var errSilent = errors.New("the database does not answer")

type watch struct {
	log       *slog.Logger
	connector *pq.Connector // whose connections are the watch's own
	db        *sql.DB
	asked     chan struct{} // told when somebody wants to know now
	stop      chan struct{}
	ended     chan struct{}

	mu     sync.Mutex
	conns  map[*deadlineConn]struct{} // of the whole process, for this database
	looked chan struct{}              // closed at the end of the look that is under way, or is next
	err    error                      // what the last look found to be wrong
	silent bool                       // no connection is opened but the watch's own
	doubt  bool                       // something could not be written: the next look tries to write
}

func newWatch(log *slog.Logger) *watch {
	return &watch{log: log, asked: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
		conns: make(map[*deadlineConn]struct{}), looked: make(chan struct{})}
}

// dialer opens connections that the watch can cut.
func (w *watch) dialer(patience time.Duration) deadlineDialer {
	return deadlineDialer{patience: patience, watch: w}
}

// begin starts looking.
func (w *watch) begin(url string) error {
	connector, err := pq.NewConnector(url)
	if err != nil {
		return fmt.Errorf("database url: %w", err)
	}
	connector.Dialer(deadlineDialer{patience: 2 * watchPatience, watch: w, own: true})
	w.connector, w.db = connector, sql.OpenDB(connector)
	w.db.SetMaxOpenConns(1)
	go w.run()
	return nil
}

func (w *watch) close() {
	close(w.stop)
	<-w.ended
	_ = w.db.Close() // a connection that is dead already says so
}

func (w *watch) run() {
	defer close(w.ended)
	for {
		next := watchEvery
		if w.trouble() != nil {
			next = watchAgain
		}
		select {
		case <-w.stop:
			return
		case <-w.asked:
		case <-time.After(next):
		}
		w.look()
	}
}

// look asks the database, and cuts what hangs on it when no answer comes.
func (w *watch) look() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- w.ask(ctx) }()
	patience := time.NewTimer(watchPatience)
	defer patience.Stop()
	for {
		select {
		case err := <-answer:
			w.found(err)
			return
		case <-w.stop: // a look that hangs must not keep the process from ending
			cancel()
			w.cut(func(c *deadlineConn) bool { return c.own })
			<-answer
			return
		case <-patience.C:
		}
		select { // a process that stood still itself finds both at once
		case err := <-answer:
			w.found(err)
			return
		case <-time.After(100 * time.Millisecond):
		}
		w.mu.Lock()
		if !w.silent {
			w.log.Error("the database does not answer: its connections are cut", "after", watchPatience)
		}
		w.silent, w.err = true, errSilent
		w.mu.Unlock()
		w.cut(func(*deadlineConn) bool { return true })
		patience.Reset(watchPatience)
	}
}

// ask is one look: a word for a word, or, in doubt, whether a new connection can write.
func (w *watch) ask(ctx context.Context) error {
	w.mu.Lock()
	doubt := w.doubt
	w.mu.Unlock()
	if !doubt {
		return w.db.PingContext(ctx)
	}
	db := sql.OpenDB(w.connector)
	defer db.Close()
	_, err := db.ExecContext(ctx, tryToWrite)
	if pe := new(pq.Error); errors.As(err, &pe) && pe.Code == "42501" { // insufficient_privilege: to make such tables
		return nil
	}
	return err
}

// tryToWrite fails where nothing can be written, and leaves nothing behind. It asks for room on the disk of the
// tables without any WAL: a server without room for its WAL stops.
const tryToWrite = `
do $$ begin
	if current_setting('transaction_read_only')::boolean then raise read_only_sql_transaction; end if;
end $$;
create temporary table lockstep_room (filler text) on commit drop;
insert into lockstep_room select repeat(md5(n::text), 30) from generate_series(1, 250) n`

// found notes what a look has found.
func (w *watch) found(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && w.err != nil {
		w.log.Info("the database is back")
	} else if err != nil && w.err == nil {
		w.log.Error("the database can't be worked with", "error", err)
	}
	var pe *pq.Error
	spoke := err == nil || errors.As(err, &pe) // who refuses is there
	w.err, w.silent = err, w.silent && !spoke
	w.doubt = w.doubt && err != nil
	close(w.looked)
	w.looked = make(chan struct{})
}

// heard takes note of an error that says of the database more than of the statement: it has no room, on its disk or
// for another connection, or takes no writes.
func (w *watch) heard(err error) {
	var pe *pq.Error
	if !errors.As(err, &pe) || pe.Code.Class() != "53" && pe.Code != "25006" && pe.Code != "58030" {
		return
	}
	w.mu.Lock()
	news := !w.doubt
	w.doubt = true
	w.mu.Unlock()
	if news {
		wake(w.asked)
	}
}

// trouble is what the last look found to be wrong.
func (w *watch) trouble() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// ready has the watch look now and answers what it finds. It never waits for long.
func (w *watch) ready(ctx context.Context) error {
	w.mu.Lock()
	looked, silent := w.looked, w.silent
	w.mu.Unlock()
	if silent {
		return errSilent
	}
	wake(w.asked)
	select {
	case <-looked:
		return w.trouble()
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(readyPatience):
		return errSilent
	}
}

// cut closes connections, so that whoever waits for an answer on one need not wait any longer.
func (w *watch) cut(which func(*deadlineConn) bool) {
	w.mu.Lock()
	conns := make([]*deadlineConn, 0, len(w.conns))
	for c := range w.conns {
		if which(c) {
			conns = append(conns, c)
		}
	}
	w.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

func (w *watch) refuses() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.silent
}

func (w *watch) add(c *deadlineConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = struct{}{}
}

func (w *watch) remove(c *deadlineConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// deadlineDialer opens connections that notice a dead network: lib/pq does not, whatever the context says.
type deadlineDialer struct {
	patience time.Duration // of one read or write
	watch    *watch        // nil: nobody watches
	own      bool          // the watch's own: also opened while it refuses
}

func (d deadlineDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d deadlineDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (d deadlineDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if d.watch != nil && !d.own && d.watch.refuses() {
		return nil, errSilent
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &deadlineConn{Conn: raw, patience: d.patience, watch: d.watch, own: d.own}
	if d.watch != nil {
		d.watch.add(c)
		if !d.own && d.watch.refuses() { // it fell silent meanwhile, and may have cut what it knew before
			_ = c.Close()
			return nil, errSilent
		}
	}
	return c, nil
}

// deadlineConn gives every read and write its deadline, renewing it only when a part of it has passed so that the
// hot path does not pay for it.
type deadlineConn struct {
	net.Conn
	patience    time.Duration
	read, write time.Time
	watch       *watch
	own         bool // the watch's own
}

func (c *deadlineConn) Close() error {
	if c.watch != nil {
		c.watch.remove(c)
	}
	return c.Conn.Close()
}

// due answers the deadline to set in place of one, if it has to be renewed.
func (c *deadlineConn) due(deadline time.Time) (time.Time, bool) {
	now := time.Now()
	return now.Add(c.patience), deadline.Sub(now) < c.patience*3/4
}

func (c *deadlineConn) Read(b []byte) (int, error) {
	if deadline, renew := c.due(c.read); renew {
		c.read = deadline
		if err := c.SetReadDeadline(deadline); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

func (c *deadlineConn) Write(b []byte) (int, error) {
	if deadline, renew := c.due(c.write); renew {
		c.write = deadline
		if err := c.SetWriteDeadline(deadline); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}
