package ledger_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

func forecast(t testing.TB, l *ledger.Ledger, customer string) ledger.Forecast {
	t.Helper()
	f, err := l.Forecast(ctx, wallet(t, l, customer).ID)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustDebit(t testing.TB, l *ledger.Ledger, customer, amount string) ledger.Debit {
	t.Helper()
	d, _, err := debit(t, l, customer, amount, "")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wantBurn compares a window's used, rate and minutes left; -1 is null.
func wantBurn(t testing.TB, b ledger.Burn, window, used, perHour string, minutes int64) {
	t.Helper()
	left := int64(-1)
	if b.MinutesLeft != nil {
		left = *b.MinutesLeft
	}
	if (left == -1) != (b.EmptyAt == nil) {
		t.Errorf("%s: %d minutes left, and empty at %v", window, left, b.EmptyAt)
	}
	if got := ledger.FormatSteps(b.Used, 6); b.Window != window || got != used || b.PerHour != perHour || left != minutes {
		t.Errorf("%s: used %s, %s an hour, %d minutes left; want %s of %s, %s, %d", b.Window, got, b.PerHour, left, window, used, perHour, minutes)
	}
}

// A forecast of no wallet is refused; one of a wallet tells each window's own rate, to the step, and what expires next.
func TestForecast(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	if _, err := l.Forecast(ctx, "wal_nothing"); !ledger.IsCode(err, ledger.CodeNotFound) {
		t.Errorf("no such wallet: %v", err)
	}
	newCustomer(t, l, "acme", "100")
	for _, b := range forecast(t, l, "acme").Burn {
		wantBurn(t, b, b.Window, "0", "0", -1)
	}
	clock.step(10 * time.Second)
	mustDebit(t, l, "acme", "1")
	for _, b := range forecast(t, l, "acme").Burn { // ten seconds old: a minute is the least
		wantBurn(t, b, b.Window, "1", "60", 99)
	}
	clock.step(10 * 24 * time.Hour)
	mustDebit(t, l, "acme", "14") // three days before the look
	clock.step(70*time.Hour + 30*time.Minute)
	d := mustDebit(t, l, "acme", "6")
	clock.step(30*time.Minute + time.Hour)
	h := hold(t, l, "acme", "3", time.Hour)
	if _, err := l.CaptureHold(ctx, h.ID, ledger.CaptureInput{Amount: decp(t, "2"), Final: true}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Reverse(ctx, d.ID, decp(t, "1"), "", ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	expires := clock.now().Add(time.Hour)
	g := grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "4"), Kind: "promotional", Priority: 90, ExpiresAt: &expires})
	f := forecast(t, l, "acme") // 100 - 1 - 14 - 6 - 2 + 1 + 4
	if got := ledger.FormatSteps(f.Wallet.Available(), 6); got != "82" {
		t.Fatalf("available %s", got)
	}
	wantBurn(t, f.Burn[0], "hour", "1", "1", 82*60)
	wantBurn(t, f.Burn[1], "day", "7", "0.291666667", 82*24*60/7)
	wantBurn(t, f.Burn[2], "week", "21", "0.125", 82*7*24*60/21)
	if e := f.NextExpiry; e == nil || e.Grant != g.ID || e.Amount != 4_000_000 || !e.At.Equal(expires.UTC().Truncate(time.Microsecond)) {
		t.Errorf("next expiry %+v", e)
	}
	hold(t, l, "acme", "82", 24*time.Hour) // all of it: nothing is there to expire, and nothing to last
	f = forecast(t, l, "acme")
	if f.NextExpiry != nil {
		t.Errorf("held credit expires: %+v", f.NextExpiry)
	}
	wantBurn(t, f.Burn[0], "hour", "1", "1", 0)
}

// What is given back and not used makes no rate, and no overflow makes one up.
func TestForecastAtTheEdges(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "9000000000000")
	d := mustDebit(t, l, "acme", "8999999999999.999999")
	clock.step(2 * time.Hour)
	if _, _, err := l.Reverse(ctx, d.ID, nil, "", ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	f := forecast(t, l, "acme")
	wantBurn(t, f.Burn[0], "hour", "-8999999999999.999999", "-8999999999999.999999", -1)
	wantBurn(t, f.Burn[1], "day", "0", "0", -1)
	mustDebit(t, l, "acme", "9000000000000")
	clock.step(61 * time.Minute)
	grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "9000000000000")})
	mustDebit(t, l, "acme", "0.000001")
	f = forecast(t, l, "acme") // a step an hour: for longer than anybody foresees
	wantBurn(t, f.Burn[0], "hour", "0.000001", "0.000001", -1)
}

// The balance of any moment is that of the last entry by then, whatever the entries' times look like.
func TestBalanceAtEveryMoment(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "1000")
	newCustomer(t, l, "other", "1000") // whose entries lie between
	r := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		mustDebit(t, l, []string{"acme", "acme", "other"}[r.IntN(3)], "0.5")
		clock.step(time.Duration(r.IntN(3)) * time.Millisecond) // often none at all
	}
	w := wallet(t, l, "acme")
	var times []time.Time
	if err := l.DB().Select(&times, `select distinct created_at from entries`); err != nil {
		t.Fatal(err)
	}
	for _, at := range times {
		for _, at := range []time.Time{at.Add(-time.Microsecond), at, at.Add(time.Microsecond)} {
			var want struct {
				Seq   int64 `db:"seq"`
				Total int64 `db:"balance_after"`
			}
			err := l.DB().Get(&want, `select seq, balance_after from entries where wallet_id = $1 and created_at <= $2 order by seq desc limit 1`, w.ID, at)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				t.Fatal(err)
			}
			got, seq, err := l.BalanceAt(ctx, &w, at)
			if err != nil || seq != want.Seq || got.Total != want.Total {
				t.Fatalf("at %v: seq %d, total %d, %v; want %+v", at, seq, got.Total, err, want)
			}
		}
	}
}

// Looking into the past costs the same in a wallet of many entries: it reads few of their pages.
func TestBalanceAtCost(t *testing.T) {
	t.Parallel()
	l, err := ledger.Open(ctx, ledger.Options{URL: ledgertest.URL(t)}) // not New: these books are made up
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	newCustomer(t, l, "acme", "")
	const entries = 300_000
	if _, err := l.DB().Exec(`
		insert into entries (bucket, wallet_id, seq, id, type, amount, balance_after, parts, created_at)
		select w.bucket, w.id, n, 'ent_' || n, 'debit', 0, n, '', w.created_at + n * interval '1 second' from wallets w, generate_series(1, $1) n`, entries); err != nil {
		t.Fatal(err)
	}
	if _, err := l.DB().Exec(`update wallets set seq = $1`, entries); err != nil {
		t.Fatal(err)
	}
	w := wallet(t, l, "acme")
	for _, seq := range []int64{1, 2, 1000, entries / 2, entries - 1, entries} {
		b, got, err := l.BalanceAt(ctx, &w, w.CreatedAt.Add(time.Duration(seq)*time.Second))
		if err != nil || got != seq || b.Total != seq {
			t.Errorf("at seq %d: %d, total %d, %v", seq, got, b.Total, err)
		}
		pages := pagesRead(t, l, ledger.EntryAtSQL, w.Bucket, w.ID, w.CreatedAt.Add(time.Duration(seq)*time.Second))
		// A step down the index and one to the row, for each of some twenty halves; the entries fill thousands of pages.
		if pages == 0 || pages > 300 {
			t.Errorf("at seq %d: %d pages were read", seq, pages)
		}
	}
}

// pagesRead is how many pages a query has to look at.
func pagesRead(t testing.TB, l *ledger.Ledger, query string, args ...any) int {
	t.Helper()
	var explained string
	if err := l.DB().Get(&explained, `explain (analyze, buffers, format json) `+query, args...); err != nil {
		t.Fatal(err)
	}
	var plan []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal([]byte(explained), &plan); err != nil {
		t.Fatal(err)
	}
	return plan[0].Plan.Hit + plan[0].Plan.Read
}
