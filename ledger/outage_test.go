package ledger_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
	"lockstep/ledger/localpg"
	"lockstep/migrations"
)

// outage is a PostgreSQL of a test's own, which may be stopped, filled, and run out of connections, with a ledger on it.
type outage struct {
	t    *testing.T
	dir  string
	disk bool // dir is a small disk of its own
	pg   *localpg.Server
	line *ledgertest.Line
	l    *ledger.Ledger

	mu           sync.Mutex
	keys         []string
	acknowledged map[string]bool
}

func newOutage(t *testing.T) *outage {
	t.Helper()
	o := &outage{t: t, acknowledged: make(map[string]bool)}
	var err error
	if o.dir, err = os.MkdirTemp("", "lockstep-outage-"); err == nil {
		err = os.Chmod(o.dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(o.dir) })
	if exec.Command("mount", "-t", "tmpfs", "-o", "size=192m,mode=755", "tmpfs", o.dir).Run() == nil { // root may
		o.disk = true
		t.Cleanup(func() {
			if err := exec.Command("umount", "-l", o.dir).Run(); err != nil {
				t.Errorf("umount %s: %v", o.dir, err)
			}
		})
	}
	o.start()
	t.Cleanup(func() { _ = o.pg.Stop() })
	if err := o.pg.CreateDatabase(ctx, "books", ""); err != nil {
		t.Fatal(err)
	}
	db := o.open("")
	if _, err := migrations.Up(ctx, db); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	var url string
	o.line, url = ledgertest.NewLine(t, o.pg.URL("books"))
	o.l = ledgertest.New(t, ledger.Options{URL: url + "&application_name=gateway", Connections: 2})
	newCustomer(t, o.l, "acme", "1000")
	return o
}

// start starts the server, or starts it again.
func (o *outage) start() {
	o.t.Helper()
	var err error
	o.pg, err = localpg.Start(ctx, localpg.Options{DataDir: filepath.Join(o.dir, "data"), Fetch: true, Logger: slog.New(slog.DiscardHandler),
		Settings: map[string]string{"fsync": "off", "full_page_writes": "off", "max_connections": "20", "shared_buffers": "16MB",
			"min_wal_size": "32MB", "max_wal_size": "48MB", "autovacuum": "off"}})
	if err != nil {
		o.t.Fatal(err)
	}
	if o.line != nil {
		o.line.To(o.t, o.pg.URL("books"))
	}
}

// open opens the database beside the ledger.
func (o *outage) open(settings string) *sql.DB {
	o.t.Helper()
	db, err := sql.Open("postgres", o.pg.URL("books")+settings)
	if err != nil {
		o.t.Fatal(err)
	}
	return db
}

// spend debits under a new key and answers whether that was acknowledged.
func (o *outage) spend() error {
	o.mu.Lock()
	key := fmt.Sprint("once-", len(o.keys))
	o.keys = append(o.keys, key)
	o.mu.Unlock()
	_, _, err := debit(o.t, o.l, "acme", "0.01", key)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acknowledged[key] = err == nil
	return err
}

// recovered waits until all works again, and looks at every key.
func (o *outage) recovered() {
	o.t.Helper()
	eventually(o.t, "ready again", func() bool { return o.l.Ready(ctx) == nil })
	bookedOnce(o.t, o.l, "acme", o.keys, o.acknowledged)
}

// A PostgreSQL that is restarted under load, has no connection left, or no room on its disk, is answered with errors as
// long as it lasts, and readiness says so. Every debit that was acknowledged is in the books, every other one is once it
// is sent again, and nothing has to be done to go on.
func TestOutages(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	o.restarted()
	o.outOfConnections()
	o.full()
}

func (o *outage) restarted() {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if o.spend() != nil {
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	if err := o.pg.Stop(); err != nil {
		o.t.Error(err)
	}
	eventually(o.t, "not ready without a server", func() bool { return o.l.Ready(ctx) != nil })
	if o.spend() == nil {
		o.t.Error("a debit is acknowledged without a server")
	}
	o.start()
	eventually(o.t, "a debit after the restart", func() bool { return o.spend() == nil })
	close(stop)
	wg.Wait()
	o.recovered()
}

func (o *outage) outOfConnections() {
	hogs := o.open("")
	var held []*sql.Conn
	more := func() bool {
		c, err := hogs.Conn(ctx)
		if err == nil {
			held = append(held, c)
		}
		return err == nil
	}
	more()
	gone := func() bool {
		var n int
		if err := held[0].QueryRowContext(ctx, `select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'gateway'`).Scan(&n); err != nil {
			o.t.Error(err)
		}
		for more() {
		}
		return n == 0
	}
	eventually(o.t, "others have all connections", gone)
	eventually(o.t, "not ready without a connection", func() bool { return gone() && o.l.Ready(ctx) != nil })
	if o.spend() == nil {
		o.t.Error("a debit is acknowledged without a connection")
	}
	for _, c := range held {
		_ = c.Close()
	}
	_ = hogs.Close()
	o.recovered()
}

// full fills the disk where it is a small one of its own. Elsewhere, where only root could make one, the server says what
// it would say on a full one.
func (o *outage) full() {
	free := o.fill()
	var err error
	for n := 0; n < 3000 && err == nil; n++ {
		err = o.spend()
	}
	if err == nil {
		o.t.Fatal("thousands of debits fit on a full disk")
	}
	o.t.Logf("a small disk of its own: %v; %v", o.disk, err)
	if _, _, err := o.l.Grant(ctx, ledger.GrantInput{Customer: "acme", Amount: dec(o.t, "1")}, ledger.Once{}); err == nil && !o.disk {
		o.t.Log("a grant still fits")
	}
	if o.disk {
		eventually(o.t, "not ready on a full disk", func() bool { return o.l.Ready(ctx) != nil })
	}
	free()
	select {
	case <-o.pg.Done(): // without room for its log the server itself may have ended
		_ = o.pg.Stop()
		o.start()
	default:
	}
	o.recovered()
}

func (o *outage) fill() (free func()) {
	if !o.disk {
		db := o.open("")
		defer db.Close()
		must := func(statement string) {
			if _, err := db.Exec(statement); err != nil {
				o.t.Error(err)
			}
		}
		must(`create function no_room() returns trigger language plpgsql as $$ begin raise exception sqlstate '53100'; end $$;
			create trigger no_room before insert on entries execute function no_room()`)
		return func() {
			again := o.open("")
			defer again.Close()
			if _, err := again.Exec(`drop function no_room cascade`); err != nil {
				o.t.Error(err)
			}
		}
	}
	name := filepath.Join(o.dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		o.t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096} { // to the last page
		for block := bytes.Repeat([]byte("x"), size); err == nil; {
			_, err = f.Write(block)
		}
		if !strings.Contains(err.Error(), "no space") {
			o.t.Fatal(err)
		}
		err = nil
	}
	return func() { _ = os.Remove(name) }
}
