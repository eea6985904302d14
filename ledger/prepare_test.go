package ledger_test

import (
	"fmt"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// holdOnce holds, extends, captures and releases, and grants: writes and reads inside of transactions and outside.
func holdOnce(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1")})
	h := hold(t, l, "acme", "5", time.Hour)
	if _, err := l.ExtendHold(ctx, h.ID, time.Hour, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{Amount: decp(t, "1")}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ReleaseHold(ctx, h.ID, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
}

// A statement that a connection has run twice is not parsed by PostgreSQL again, so the wire shows no Parse any more.
func TestStatementsAreParsedOnce(t *testing.T) {
	t.Parallel()
	w := tap(t, ledgertest.URL(t))
	l := ledgertest.New(t, ledger.Options{URL: w.url, Connections: 1})
	newCustomer(t, l, "acme", "100")
	for range 3 {
		holdOnce(t, l)
	}
	before := w.parses()
	for range 3 {
		holdOnce(t, l)
	}
	if before == 0 || w.parses() > before {
		t.Errorf("%d statements were parsed at first, and %d more after that", before, w.parses()-before)
	}
	wantBalance(t, l, "acme", "100/0/100")
}

// While a process runs, a migration may change what its prepared statements answer, and the server may forget them: each
// call still gets its answer. Both are done to statements of transactions, which run again, to single ones, and to those
// of a lane.
func TestPreparedStatementsThatAreNoMore(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"changed":   `alter table holds alter column metadata type varchar(9999); alter table grants alter column reason type varchar(9999); alter table wallets alter column scope type varchar(9999)`,
		"forgotten": `deallocate all`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := ledgertest.New(t, ledger.Options{Connections: 1})
			newCustomer(t, l, "acme", "100")
			for range 3 {
				holdOnce(t, l)
			}
			mustDebit(t, l, "acme", "1")
			if _, err := l.DB().Exec(sql); err != nil {
				t.Fatal(err)
			}
			holdOnce(t, l)
			mustDebit(t, l, "acme", "1")
			holdOnce(t, l)
			wantBalance(t, l, "acme", "98/0/98")
		})
	}
}

// However many statements there are, a connection keeps only so many, and those that had to go are prepared again.
func TestPreparedStatementsAreBounded(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{Connections: 1})
	for range 3 {
		for n := range 300 {
			for range 2 {
				var got int
				if err := l.DB().Get(&got, fmt.Sprintf(`select $1::int + %d`, n), 1); err != nil || got != n+1 {
					t.Fatal(got, err)
				}
			}
		}
	}
	var kept int
	if err := l.DB().Get(&kept, `select count(*) from pg_prepared_statements`); err != nil || kept < 200 || kept > 256 {
		t.Errorf("%d statements are kept: %v", kept, err)
	}
}
