// Package ledgertest gives a test a migrated PostgreSQL database of its own, and looks at the books when
// the test ends. It starts the server itself; where there is no PostgreSQL the test fails.
package ledgertest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/localpg"
	"lockstep/migrations"
)

// template is the migrated database that each test's own is copied from.
const template = "lockstep_template"

var server struct {
	once sync.Once
	pg   *localpg.Server
	dir  string
	err  error
}

// Main runs a package's tests and stops the server that they started. Call it from TestMain.
func Main(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = flag.Set("test.parallel", "16") // these tests wait more than they compute
	}
	code := m.Run()
	if server.pg != nil {
		if err := server.pg.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop PostgreSQL:", err)
		}
	}
	if server.dir != "" {
		_ = os.RemoveAll(server.dir)
	}
	os.Exit(code)
}

func start() {
	server.once.Do(func() {
		if server.dir, server.err = folder(); server.err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		// Nothing here outlives the tests, so nothing needs to reach the disk.
		server.pg, server.err = localpg.Start(ctx, localpg.Options{DataDir: server.dir, Fetch: true, Logger: slog.New(slog.DiscardHandler),
			Settings: map[string]string{"fsync": "off", "full_page_writes": "off", "max_connections": "1000", "shared_buffers": "32MB"}})
		if server.err != nil {
			return
		}
		if server.err = server.pg.CreateDatabase(ctx, template, ""); server.err != nil {
			return
		}
		var db *sql.DB
		if db, server.err = sql.Open("postgres", server.pg.URL(template)); server.err != nil {
			return
		}
		defer db.Close()
		_, server.err = migrations.Up(ctx, db)
	})
}

// folder makes the server's folder: in memory where the system has such a place, and open enough for the
// unprivileged user that root's PostgreSQL runs as.
func folder() (string, error) {
	base := ""
	if f, err := os.Stat("/dev/shm"); err == nil && f.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "lockstep-test-")
	if err != nil && base != "" {
		dir, err = os.MkdirTemp("", "lockstep-test-")
	}
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// URL makes a migrated database for the test and answers where it is. It is dropped when the test ends.
func URL(t testing.TB) string {
	t.Helper()
	return database(t, template)
}

// Empty is URL with nothing in the database, not even a schema.
func Empty(t testing.TB) string {
	t.Helper()
	return database(t, "")
}

func database(t testing.TB, template string) string {
	t.Helper()
	start()
	if server.err != nil {
		t.Fatalf("no PostgreSQL for the test: %v", server.err)
	}
	var random [6]byte
	_, _ = rand.Read(random[:])
	name := "test_" + hex.EncodeToString(random[:])
	if err := server.pg.CreateDatabase(context.Background(), name, template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.pg.DropDatabase(context.Background(), name); err != nil {
			t.Errorf("drop %s: %v", name, err)
		}
	})
	return server.pg.URL(name)
}

// New opens a ledger on a database of its own. When the test ends every invariant of its books is checked.
func New(t testing.TB, o ledger.Options) *ledger.Ledger {
	t.Helper()
	if o.URL == "" {
		o.URL = URL(t)
	}
	l, err := ledger.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		Check(t, l)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Check fails the test for everything in the books that should be true and is not.
func Check(t testing.TB, l *ledger.Ledger) {
	t.Helper()
	findings, err := l.Check(context.Background())
	if err != nil {
		t.Errorf("check: %v", err)
	}
	if len(findings) > 0 {
		t.Errorf("the books are wrong:\n%s", ledger.Describe(findings))
	}
}
