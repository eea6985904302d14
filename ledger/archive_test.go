package ledger_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

const day = 24 * time.Hour

// archive moves what is older than a moment.
func archive(t testing.TB, l *ledger.Ledger, before time.Time) ledger.Archived {
	t.Helper()
	done, of := int64(0), int64(0)
	a, err := l.Archive(ctx, ledger.ArchiveInput{Before: before}, func(d, all int64) { done, of = d, all })
	if err != nil || done != of || done != a.Entries+a.Answers {
		t.Fatalf("%+v, progress %d of %d, %v", a, done, of, err)
	}
	return a
}

// change runs a statement on the books.
func change(t testing.TB, l *ledger.Ledger, query string, args ...any) {
	t.Helper()
	if _, err := l.DB().ExecContext(ctx, query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func count(t testing.TB, l *ledger.Ledger, table string) (n int) {
	t.Helper()
	if err := l.DB().Get(&n, `select count(*) from `+table); err != nil {
		t.Fatal(err)
	}
	return n
}

// said are answers that history gives, by what was asked, so that they can be compared.
type said map[string]string

func (s said) add(t testing.TB, asked string, answer any) {
	t.Helper()
	b, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	s[asked] += string(b) + "\n"
}

func (s said) differs(from said) string {
	for asked, was := range from {
		if is := s[asked]; is != was {
			at := 0
			for at < min(len(is), len(was)) && is[at] == was[at] {
				at++
			}
			at = max(at-60, 0)
			return fmt.Sprintf("%s: …%.200s…, was …%.200s…", asked, is[min(at, len(is)):], was[min(at, len(was)):])
		}
	}
	return ""
}

// ask asks for all that is said of some wallets and debits, at all of some times.
func ask(t testing.TB, l *ledger.Ledger, wallets []string, times []time.Time, debits []string) said {
	t.Helper()
	s := make(said)
	for _, id := range wallets {
		w, err := l.Wallet(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range times {
			b, seq, err := l.BalanceAt(ctx, &w, at)
			if err != nil {
				t.Fatal(err)
			}
			s.add(t, "balances of "+id, []any{at, seq, b})
		}
		for after := ""; ; {
			page, err := l.Entries(ctx, &w, after, 7)
			if err != nil {
				t.Fatal(err)
			}
			s.add(t, "entries of "+id, page)
			if len(page) < 7 {
				break
			}
			after = page[6].ID
		}
		f, err := l.Forecast(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		s.add(t, "forecast of "+id, f)
		in := rule(t, 100_000)
		sim, err := l.Simulate(ctx, id, ledger.SimulationInput{Days: 300, Rule: &in})
		if err != nil {
			t.Fatal(err)
		}
		s.add(t, "simulation of "+id, sim)
	}
	middle := times[len(times)/2]
	for what, in := range map[string]ledger.ExportInput{"export": {}, "export of some": {From: &times[len(times)/4], To: &middle}} {
		if err := l.Export(ctx, in, func(int64, int64) {}, func(e *ledger.ExportedEntry) error { s.add(t, what, e); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, from := range []time.Time{times[0], middle} {
		s["revenue"] += written(revenue(t, l, from, l.Now())) + "\n"
	}
	for _, id := range debits {
		d, err := l.DebitByID(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		s.add(t, "debits", d)
	}
	return s
}

// What the books say of any moment is the same before and after archiving, up to wherever: of wallets that are all in the
// archive, in part, and not at all.
func TestArchiveChangesNoAnswer(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	r := rand.New(rand.NewPCG(7, 8))
	newCustomer(t, l, "old", "100")
	newCustomer(t, l, "both", "100")
	var debits []string
	spend := func(customers ...string) {
		for range 20 {
			clock.step([]time.Duration{0, time.Microsecond, time.Duration(r.Int64N(int64(4 * day)))}[r.IntN(3)])
			d, _, err := debit(t, l, customers[r.IntN(len(customers))], "0.25", "")
			if err != nil {
				t.Fatal(err)
			}
			debits = append(debits, d.ID)
			if r.IntN(3) == 0 {
				if _, _, err := l.Reverse(ctx, debits[r.IntN(len(debits))], decp(t, "0.01"), "", ledger.Once{}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	spend("old", "both")
	spend("both")
	newCustomer(t, l, "new", "100")
	newCustomer(t, l, "still", "")
	spend("both", "new")
	clock.step(36 * day)
	spend("both", "new")

	var wallets []string
	for _, c := range []string{"old", "both", "new", "still"} {
		wallets = append(wallets, wallet(t, l, c).ID)
	}
	var booked, times []time.Time
	if err := l.DB().Select(&booked, `select distinct created_at from entries order by created_at`); err != nil {
		t.Fatal(err)
	}
	for _, at := range booked {
		month := time.Date(at.UTC().Year(), at.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
		times = append(times, at.Add(-time.Microsecond).UTC(), at.UTC(), month.Add(-time.Microsecond), month)
	}
	slices.SortFunc(times, time.Time.Compare)
	times = slices.Compact(times)
	want := ask(t, l, wallets, times, debits)
	all, moved := count(t, l, "entries"), 0
	for _, share := range []int{2, 5, 10} {
		cutoff := booked[0].Add(l.Now().Add(-35*day).Sub(booked[0]) * time.Duration(share) / 10)
		moved += int(archive(t, l, cutoff).Entries)
		if differs := ask(t, l, wallets, times, debits).differs(want); differs != "" {
			t.Fatalf("archived up to %v: %s", cutoff, differs)
		}
		if here, there := count(t, l, "entries"), count(t, l, "archived_entries"); there != moved || here+there != all {
			t.Fatalf("%d entries, %d archived, of %d; moved %d", here, there, all, moved)
		}
		ledgertest.Check(t, l)
	}
	if first := wallet(t, l, "old"); moved == 0 || moved == all || count(t, l, `entries where wallet_id = '`+first.ID+`'`) > 0 {
		t.Errorf("%d of %d entries are archived", moved, all)
	}
}

// A debit in the archive is reversed as any other, and no further than was left of it, wherever the first reversal is.
func TestArchivedDebitIsReversed(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "10")
	d, _, err := debit(t, l, "acme", "4", "")
	if err != nil {
		t.Fatal(err)
	}
	reverse := func(amount string) error {
		_, _, err := l.Reverse(ctx, d.ID, decp(t, amount), "", ledger.Once{})
		return err
	}
	clock.step(day)
	if err := reverse("1"); err != nil {
		t.Fatal(err)
	}
	clock.step(34*day + time.Hour)
	archive(t, l, clock.now().Add(-35*day)) // the grant and the debit
	if n := count(t, l, "entries"); n != 1 {
		t.Fatalf("%d entries are left", n)
	}
	if err := reverse("3.5"); !ledger.IsCode(err, ledger.CodeInvalid) {
		t.Errorf("more than is left: %v", err)
	}
	clock.step(day)
	archive(t, l, clock.now().Add(-35*day)) // the first reversal, too
	if n := count(t, l, "entries"); n != 0 {
		t.Fatalf("%d entries are left", n)
	}
	if err := reverse("3.5"); !ledger.IsCode(err, ledger.CodeInvalid) {
		t.Errorf("more than is left: %v", err)
	}
	if err := reverse("3"); err != nil {
		t.Error(err)
	}
	if err := reverse("0.1"); !ledger.IsCode(err, ledger.CodeState) {
		t.Errorf("reversed in full: %v", err)
	}
	if got := available(t, l, "acme"); got != "10" {
		t.Errorf("%s available", got)
	}
}

// No key is lost while it is promised: younger entries are refused to be moved, and their keys, and those of other calls,
// replay. What is moved gives its key back.
func TestArchiveKeepsKeys(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	url := ledgertest.URL(t)
	l := ledgertest.New(t, ledger.Options{URL: url, Now: clock.now})
	newCustomer(t, l, "acme", "10")
	use := func(key string, replays bool) {
		t.Helper()
		fresh := ledgertest.New(t, ledger.Options{URL: url, Now: clock.now}) // a process that has no memory of keys
		if _, replayed, err := debit(t, fresh, "acme", "1", key+"-debit"); err != nil || replayed != replays {
			t.Errorf("debit %s: replayed %t, %v", key, replayed, err)
		}
		_, replayed, err := fresh.Grant(ctx, ledger.GrantInput{Customer: "acme", Amount: dec(t, "1"), Kind: "adjustment"}, ledger.Once{Key: key + "-grant", Request: 7})
		if err != nil || replayed != replays {
			t.Errorf("grant %s: replayed %t, %v", key, replayed, err)
		}
	}
	use("first", false)
	clock.step(5 * day)
	use("second", false)
	clock.step(31 * day)
	for _, before := range []time.Time{clock.now(), clock.now().Add(-35*day + time.Second)} {
		if _, err := l.Archive(ctx, ledger.ArchiveInput{Before: before}, nil); !ledger.IsCode(err, ledger.CodeInvalid) || !strings.Contains(err.Error(), "35 days") {
			t.Errorf("before %v: %v", before, err)
		}
	}
	use("first", true)
	dry, err := l.Archive(ctx, ledger.ArchiveInput{Before: clock.now().Add(-35 * day), DryRun: true}, nil)
	if err != nil || dry.Entries != 3 || dry.Answers != 1 || count(t, l, "archived_entries") != 0 {
		t.Errorf("a dry run counts %+v, %v", dry, err)
	}
	if a := archive(t, l, clock.now().Add(-35*day)); a.Entries != 3 || a.Answers != 1 {
		t.Errorf("archived %+v", a)
	}
	use("second", true)
	use("first", false)
	use("first", true)
}

// Debits go on beside movers, of whom one is stopped wherever it is: nothing is lost, nothing is there twice, and the books are right in between.
func TestDebitsBesideTheMover(t *testing.T) {
	t.Parallel()
	const customers, old, fresh = 5, 12_000, 300
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	ids := make([]string, customers)
	for i := range ids {
		ids[i] = fmt.Sprint("c", i)
		newCustomer(t, l, ids[i], "1000")
	}
	spend := func(n int) {
		ins := make([]ledger.DebitInput, 0, 500)
		for i := range n {
			ins = append(ins, ledger.DebitInput{Customer: ids[i%customers], Amount: dec(t, "0.001")})
			if len(ins) == cap(ins) || i == n-1 {
				for _, r := range l.Debits(ctx, ins) {
					if r.Err != nil {
						t.Error(r.Err)
					}
				}
				ins = ins[:0]
				clock.step(time.Minute)
			}
		}
	}
	spend(old)
	clock.step(36 * day)
	before := clock.now().Add(-35 * day)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { spend(fresh) })
		wg.Go(func() {
			for stop := range int64(1_000_000) { // each run is stopped after one transaction
				ctx, cancel := context.WithCancel(ctx)
				_, err := l.Archive(ctx, ledger.ArchiveInput{Before: before, Pause: time.Hour}, func(int64, int64) { cancel() })
				cancel()
				if n := count(t, l, `(select bucket, wallet_id, max(seq) as last from archived_entries group by 1, 2) a
					join entries e on e.bucket = a.bucket and e.wallet_id = a.wallet_id and e.seq < a.last`); n > 0 {
					t.Errorf("%d entries are older than others of their wallet that are archived", n)
				}
				if err == nil {
					return
				}
				if !errors.Is(err, context.Canceled) || stop > 100 {
					t.Errorf("run %d: %v", stop, err)
					return
				}
			}
		})
	}
	wg.Go(func() { ledgertest.Check(t, l) })
	wg.Wait()
	if here, there := count(t, l, "entries"), count(t, l, "archived_entries"); here != 2*fresh || there != customers+old {
		t.Errorf("%d entries and %d archived, want %d and %d", here, there, 2*fresh, customers+old)
	}
}

// A look into a wallet's past reads few pages, however many months of it are archived: about as many as without, and one
// step down an index for each month.
func TestArchiveCost(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l, err := ledger.Open(ctx, ledger.Options{URL: ledgertest.URL(t), Now: clock.now}) // not New: these books are made up
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	newCustomer(t, l, "acme", "")
	const entries, every = 20_000, 20 * time.Minute // nine months
	change(t, l, `insert into entries (bucket, wallet_id, seq, id, type, amount, balance_after, parts, created_at)
		select w.bucket, w.id, n, 'ent_' || n, 'debit', 0, n, '', w.created_at + n * interval '20 minutes' from wallets w, generate_series(1, $1) n`, entries)
	change(t, l, `update wallets set seq = $1`, entries)
	clock.step(entries * every)
	a := archive(t, l, clock.now().Add(-35*day))
	if len(a.Months) < 8 {
		t.Fatalf("%+v", a)
	}
	change(t, l, `analyze entries, archived_entries`)
	w := wallet(t, l, "acme")
	for _, seq := range []int64{1, entries / 3, entries / 2, a.Entries - 1, a.Entries, a.Entries + 1, entries} {
		at := w.CreatedAt.Add(time.Duration(seq) * every)
		if _, got, err := l.BalanceAt(ctx, &w, at); err != nil || got != seq {
			t.Errorf("at seq %d: %d, %v", seq, got, err)
		}
		month := time.Date(at.UTC().Year(), at.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
		for what, pages := range map[string]int{
			"entryAt":        pagesRead(t, l, ledger.EntryAtSQL, w.Bucket, w.ID, at),
			"archivedAt":     pagesRead(t, l, ledger.ArchivedAtSQL, w.Bucket, w.ID, at, month, month.AddDate(0, 1, 0)),
			"archivedBefore": pagesRead(t, l, ledger.ArchivedBeforeSQL, w.Bucket, w.ID, month),
			"next":           pagesRead(t, l, ledger.NextSQL, w.Bucket, w.ID, at, month),
			"usedAt":         pagesRead(t, l, ledger.UsedAtSQL, w.Bucket, w.ID, at),
			"entries":        pagesRead(t, l, ledger.EntriesSQL, w.Bucket, w.ID, seq-20, seq),
		} {
			if pages > 150 {
				t.Errorf("%s at seq %d: %d pages were read", what, seq, pages)
			}
		}
	}
}
