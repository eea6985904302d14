package ledger_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// patient is how long a test waits for what is bounded; the bounds themselves are seconds.
const patient = 60 * time.Second

// inTime runs calls at once and fails the test when one does not come back.
func inTime(t *testing.T, calls ...func()) {
	t.Helper()
	var wg sync.WaitGroup
	done := make(chan struct{})
	for _, f := range calls {
		wg.Go(f)
	}
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patient):
		t.Fatalf("somebody waits for more than %v", patient)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patient, what)
		}
	}
}

// bookedOnce asks for each key again, and fails the test unless each is in the books once and the balance says so.
func bookedOnce(t *testing.T, l *ledger.Ledger, customer string, keys []string, acknowledged map[string]bool) {
	t.Helper()
	for _, key := range keys {
		_, replayed, err := debit(t, l, customer, "0.01", key)
		if err != nil || acknowledged[key] && !replayed {
			t.Fatalf("%s again: replayed %v (acknowledged before: %v), %v", key, replayed, acknowledged[key], err)
		}
	}
	var entries, different int
	if err := l.DB().QueryRow(`select count(*), count(distinct key) from entries where type = 'debit' and key like 'once-%'`).Scan(&entries, &different); err != nil {
		t.Fatal(err)
	}
	if entries != len(keys) || different != len(keys) {
		t.Errorf("%d debits of %d keys in the books, want %d", entries, different, len(keys))
	}
}

// A network that swallows packets ends no call later than the watch allows, whoever made it: debits, other calls,
// readiness. Nothing that was not booked is said to be, the same keys tell, and all works again by itself.
func TestSilentDatabase(t *testing.T) {
	t.Parallel()
	line, url := ledgertest.NewLine(t, ledgertest.URL(t))
	l := ledgertest.New(t, ledger.Options{URL: url})
	newCustomer(t, l, "acme", "100")
	var keys []string
	acknowledged := map[string]bool{}
	for n := range 20 {
		keys = append(keys, fmt.Sprint("once-", n))
	}
	if _, _, err := debit(t, l, "acme", "0.01", keys[0]); err != nil {
		t.Fatal(err)
	}
	acknowledged[keys[0]] = true
	if err := l.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	line.Die()
	var calls []func()
	for _, key := range keys[1:] {
		calls = append(calls, func() {
			if _, _, err := debit(t, l, "acme", "0.01", key); err == nil {
				t.Errorf("%s is said to be booked", key)
			}
		})
	}
	calls = append(calls, func() {
		if _, _, err := l.Grant(ctx, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1")}, ledger.Once{}); err == nil {
			t.Error("a grant is said to be booked")
		}
	}, func() {
		if _, err := l.Customer(ctx, "acme"); err == nil {
			t.Error("a customer was read")
		}
	}, func() {
		if err := l.Ready(ctx); err == nil {
			t.Error("it is said to be ready")
		}
	})
	begun := time.Now()
	inTime(t, calls...)
	took := time.Since(begun)
	// From now on nobody waits at all.
	inTime(t, func() {
		if _, _, err := debit(t, l, "acme", "0.01", keys[1]); err == nil || l.Ready(ctx) == nil {
			t.Errorf("while it is silent: %v", err)
		}
	})
	t.Logf("all calls were answered after %v", took)
	line.Live()
	eventually(t, "ready again", func() bool { return l.Ready(ctx) == nil })
	bookedOnce(t, l, "acme", keys, acknowledged)
}

// A database that is slow is waited for, but not for ever.
func TestSlowDatabase(t *testing.T) {
	t.Parallel()
	line, url := ledgertest.NewLine(t, ledgertest.URL(t))
	l := ledgertest.New(t, ledger.Options{URL: url, Lanes: 1})
	newCustomer(t, l, "acme", "100")
	line.Delay(300 * time.Millisecond)
	acknowledged := map[string]bool{}
	var keys []string
	var mu sync.Mutex
	var calls []func()
	for n := range 30 {
		key := fmt.Sprint("once-", n)
		keys = append(keys, key)
		calls = append(calls, func() {
			time.Sleep(time.Duration(n) * 100 * time.Millisecond) // many batches, each slow
			_, _, err := debit(t, l, "acme", "0.01", key)
			mu.Lock()
			defer mu.Unlock()
			acknowledged[key] = err == nil
			if err != nil && !ledger.IsCode(err, ledger.CodeUnavailable) {
				t.Logf("%s: %v", key, err)
			}
		})
	}
	inTime(t, calls...)
	line.Delay(0)
	bookedOnce(t, l, "acme", keys, acknowledged)
}

// waits counts the batches that a lane could not book.
type waits struct{ n atomic.Int64 }

func (w *waits) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("debits not booked")) {
		w.n.Add(1)
	}
	return len(p), nil
}

// A wallet that somebody keeps locked costs its own customer refusals, and the lane's other customers little more than
// the wait for it.
func TestLockedWalletSparesItsNeighbours(t *testing.T) {
	t.Parallel()
	var log waits
	l := ledgertest.New(t, ledger.Options{Lanes: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	newCustomer(t, l, "acme", "100")
	newCustomer(t, l, "bob", "100")
	tx, err := l.DB().Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.Exec(`select from wallets where customer_id = 'acme' for update`); err != nil {
		t.Fatal(err)
	}
	var calls []func()
	for n := range 8 {
		calls = append(calls, func() {
			if _, _, err := debit(t, l, "acme", "0.01", fmt.Sprint("once-", n)); !ledger.IsCode(err, ledger.CodeUnavailable) {
				t.Errorf("the locked one: %v", err)
			}
		})
	}
	inTime(t, calls...)
	if n := log.n.Load(); n == 0 || n > 3 { // one and, on a machine that stands still, one more
		t.Errorf("the lane waited %d times for the lock", n)
	}
	// While acme is not tried, bob is served at once.
	results := l.Debits(ctx, []ledger.DebitInput{
		{Customer: "bob", Amount: dec(t, "0.01")}, {Customer: "acme", Amount: dec(t, "0.01")}, {Customer: "bob", Amount: dec(t, "0.01")}})
	if results[0].Err != nil || !ledger.IsCode(results[1].Err, ledger.CodeUnavailable) || results[2].Err != nil {
		t.Errorf("a batch beside it: %v, %v, %v", results[0].Err, results[1].Err, results[2].Err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for n := range 8 {
		keys = append(keys, fmt.Sprint("once-", n))
	}
	eventually(t, "acme is tried again", func() bool {
		_, _, err := debit(t, l, "acme", "0.01", keys[0])
		return err == nil
	})
	bookedOnce(t, l, "acme", keys, map[string]bool{keys[0]: true})
}

// When all of the pool is taken, debits and readiness do not notice, and a call with an end to its patience comes back.
func TestExhaustedPool(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{Connections: 2})
	newCustomer(t, l, "acme", "100")
	hold := func() func() {
		c, err := l.DB().Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return func() { _ = c.Close() }
	}
	first, second := hold(), hold()
	inTime(t, func() {
		if _, _, err := debit(t, l, "acme", "0.01", ""); err != nil {
			t.Errorf("a debit: %v", err)
		}
		if err := l.Ready(ctx); err != nil {
			t.Errorf("readiness: %v", err)
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := l.Customer(short, "acme"); err == nil {
			t.Error("there was a connection after all")
		}
	})
	first()
	second()
	if _, err := l.Customer(ctx, "acme"); err != nil {
		t.Error(err)
	}
}
