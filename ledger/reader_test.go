package ledger_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

func reader(t testing.TB, l *ledger.Ledger, customer string) ledger.Reader {
	t.Helper()
	ref, err := l.Resolve(ctx, customer)
	if err != nil {
		t.Fatal(err)
	}
	return l.ReaderOf(ref)
}

// A reader has nothing of another customer's, by whatever way it is asked.
func TestReaderKeepsToItsCustomer(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "10")
	other := neighbour("acme")
	newCustomer(t, l, other, "10")
	theirs, own := wallet(t, l, other), wallet(t, l, "acme")
	top, _, err := l.CreateTopup(ctx, ledger.TopupInput{Customer: other, Asset: "usd", Amount: dec(t, "20"), MinimumCharge: func(string) int64 { return 50 }}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	r := reader(t, l, "acme")
	forged := own // the id of one, the customer of the other
	forged.Customer = other
	for what, err := range map[string]error{
		"wallet": second(r.Wallet(ctx, theirs.ID)), "no wallet": second(r.Wallet(ctx, "wal_x")), "topup": second(r.Topup(ctx, top.ID)), "no topup": second(r.Topup(ctx, "top_x")),
		"topups": second(r.TopupsOf(ctx, &theirs, "", 5)), "forecast": second(r.Forecast(ctx, &theirs)), "left": second(r.Left(ctx, &theirs, "", 5)),
		"coming": second(r.Coming(ctx, &theirs, 5)), "activity": second(r.Activity(ctx, &theirs, ledger.ActivityFilter{}, 5)),
		"curve": second(r.Curve(ctx, &theirs, time.Now().Add(-time.Hour), 5)), "forged": second(r.Left(ctx, &forged, "", 5)),
	} {
		if !ledger.IsCode(err, ledger.CodeNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, found, err := r.Rule(ctx, &theirs); found || !ledger.IsCode(err, ledger.CodeNotFound) {
		t.Errorf("rule: %v %v", found, err)
	}
	wallets, err := r.Wallets(ctx)
	if err != nil || len(wallets) != 1 || wallets[0].ID != own.ID {
		t.Errorf("%+v %v", wallets, err)
	}
}

// neighbour is the id of another customer in the same bucket.
func neighbour(id string) string {
	for n := 0; ; n++ {
		if other := fmt.Sprint("other", n); ledger.BucketOfKey(other) == ledger.BucketOfKey(id) {
			return other
		}
	}
}

func second[T any](_ T, err error) error { return err }

// What is left comes in the order in which debits spend it, page by page, and what is not in force comes apart.
func TestReaderLeftIsBurnOrder(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "")
	soon, later := time.Now().Add(time.Hour), time.Now().Add(48*time.Hour)
	for _, in := range []ledger.GrantInput{
		{Kind: "purchased", Priority: 50}, {Kind: "plan", Priority: 50}, {Kind: "promotional", Priority: 50, ExpiresAt: &later}, {Kind: "promotional", Priority: 50, ExpiresAt: &soon},
		{Kind: "purchased", Priority: 10}, {Kind: "purchased", Priority: 50}, {Kind: "promotional", Priority: 90, ExpiresAt: &soon}, {Kind: "plan", Priority: 50, EffectiveAt: &soon},
	} {
		in.Customer, in.Amount = "acme", dec(t, "1")
		grant(t, l, in)
	}
	r, w := reader(t, l, "acme"), wallet(t, l, "acme")
	var ids []string
	for after := ""; ; {
		page, err := r.Left(ctx, &w, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range page {
			ids = append(ids, g.ID)
		}
		if len(page) < 2 {
			break
		}
		after = page[1].ID
	}
	coming, err := r.Coming(ctx, &w, 10)
	if err != nil || len(coming) != 1 || slices.Contains(ids, coming[0].ID) {
		t.Errorf("coming: %+v %v", coming, err)
	}
	var spent []string
	for range 7 {
		d := mustDebit(t, l, "acme", "1")
		spent = append(spent, d.Parts[0].Grant)
	}
	if !slices.Equal(ids, spent) {
		t.Errorf("told %q, spent %q", ids, spent)
	}
	if left, err := r.Left(ctx, &w, "", 5); err != nil || len(left) > 0 {
		t.Errorf("still left: %+v %v", left, err)
	}
}

// Activity is the entries that fit, page by page, archived ones too, each once; a search says how far it looked.
func TestReaderActivity(t *testing.T) {
	t.Parallel()
	b := newMonths(t)
	r, w := reader(t, b.l, "acme"), wallet(t, b.l, "acme")
	all := func(f ledger.ActivityFilter, limit int) (seqs []int64, gone bool) {
		t.Helper()
		for range 100 {
			a, err := r.Activity(ctx, &w, f, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range a.Entries {
				seqs = append(seqs, e.Seq)
			}
			gone = gone || a.Gone
			if f.Below = a.Next; a.Next == 0 {
				return seqs, gone
			}
		}
		t.Fatal("it has no end")
		return nil, false
	}
	for _, limit := range []int{1, 2, 3, 100} {
		if got, gone := all(ledger.ActivityFilter{}, limit); !slices.Equal(got, []int64{6, 5, 4, 3, 2, 1}) || gone {
			t.Errorf("all by %d: %v %v", limit, got, gone)
		}
		if got, gone := all(ledger.ActivityFilter{Type: "grant"}, limit); !slices.Equal(got, []int64{1}) || gone {
			t.Errorf("grants by %d: %v %v", limit, got, gone)
		}
		if got, _ := all(ledger.ActivityFilter{Text: "USAGE"}, limit); !slices.Equal(got, []int64{6, 5, 4, 3, 2}) {
			t.Errorf("by text, %d: %v", limit, got)
		}
	}
	if got, _ := all(ledger.ActivityFilter{Text: "%"}, 10); len(got) > 0 {
		t.Errorf("%%: %v", got)
	}
	detach(t, b.l, b.feb, func() {
		if got, gone := all(ledger.ActivityFilter{}, 2); !slices.Equal(got, []int64{6, 5, 2, 1}) || !gone {
			t.Errorf("without February: %v %v", got, gone)
		}
		if got, gone := all(ledger.ActivityFilter{Type: "debit"}, 100); !slices.Equal(got, []int64{6, 5, 2}) || !gone {
			t.Errorf("debits without February: %v %v", got, gone)
		}
	})
}

// The curve goes through the balance of each of its moments, as BalanceAt says it, and marks credit that came.
func TestReaderCurve(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "10")
	for i := range 40 {
		clock.step(11 * time.Hour)
		if i%9 == 3 {
			grant(t, l, ledger.GrantInput{Customer: "acme", Amount: dec(t, "2"), Kind: "promotional", Priority: 50})
		}
		mustDebit(t, l, "acme", "0.25")
	}
	clock.step(10 * 24 * time.Hour) // nothing for a while
	r, w := reader(t, l, "acme"), wallet(t, l, "acme")
	since := clock.now().Add(-30 * 24 * time.Hour)
	c, err := r.Curve(ctx, &w, since, 60)
	if err != nil || len(c.Points) < 61 || len(c.Marks) != 6 {
		t.Fatalf("%d points, %d marks, %v", len(c.Points), len(c.Marks), err)
	}
	for i, p := range c.Points {
		b, _, err := l.BalanceAt(ctx, &w, p.At)
		if err != nil || !p.Known || p.Available != b.Available {
			t.Errorf("at %s: %d %v, and the balance was %d, %v", p.At, p.Available, p.Known, b.Available, err)
		}
		if i > 0 && p.At.Before(c.Points[i-1].At) {
			t.Errorf("%s comes after %s", p.At, c.Points[i-1].At)
		}
	}
	for _, m := range c.Marks {
		if m.Bought || !slices.ContainsFunc(c.Points, func(p ledger.CurvePoint) bool { return p.At.Equal(m.At) }) {
			t.Errorf("%+v is not on the curve", m)
		}
	}
	last := c.Points[len(c.Points)-1]
	if !last.At.Equal(l.Now()) || last.Available != w.Available() {
		t.Errorf("it ends with %+v", last)
	}
	newCustomer(t, l, "young", "1")
	y := wallet(t, l, "young")
	if c, err := reader(t, l, "young").Curve(ctx, &y, since, 10); err != nil || c.Points[0].Available != 0 || c.Points[0].At.Before(clock.now().AddDate(0, 0, -8)) {
		t.Errorf("a young wallet's: %+v %v", c, err)
	}
}

// What the portal reads costs as many pages of a large wallet as of a small one, and what a search costs has an end.
func TestReaderCost(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l, err := ledger.Open(ctx, ledger.Options{URL: ledgertest.URL(t), Now: clock.now}) // not New: these books are made up
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	newCustomer(t, l, "acme", "")
	const entries = 100_000
	change(t, l, `insert into entries (bucket, wallet_id, seq, id, type, amount, balance_after, parts, reason, created_at)
		select w.bucket, w.id, n, 'ent_' || n, 'debit', 0, n, '', 'usage', w.created_at + n * interval '1 minute' from wallets w, generate_series(1, $1) n`, entries)
	change(t, l, `insert into grants (bucket, id, wallet_id, amount, remaining, kind, kind_rank, priority, covers, status, live, in_force, effective_at, reason, source_type, source_id, created_at)
		select w.bucket, 'grt_' || n, w.id, 1, 0, 'purchased', 3, 50, 'all', 'exhausted', false, false, now(), '', 'api', 'x' || n, now() from wallets w, generate_series(1, 5000) n`)
	change(t, l, `update wallets set seq = $1`, entries)
	clock.step(entries * time.Minute)
	change(t, l, `analyze entries, grants`)
	w := wallet(t, l, "acme")
	for what, c := range map[string]struct{ most, pages int }{
		"a page":   {60, pagesRead(t, l, ledger.ActivitySQL, w.Bucket, w.ID, entries-25, entries, "", "", 25)},
		"a search": {600, pagesRead(t, l, ledger.ActivitySQL, w.Bucket, w.ID, entries-ledger.ActivityLook, entries, "grant", "x", 25)},
		"far back": {600, pagesRead(t, l, ledger.ActivitySQL, w.Bucket, w.ID, 5000, 5000+ledger.ActivityLook, "", "nothing", 25)},
		"left":     {60, pagesRead(t, l, ledger.LeftSQL, w.Bucket, w.ID, "", 26)},
	} {
		if c.pages > c.most {
			t.Errorf("%s: %d pages were read", what, c.pages)
		}
	}
	r := reader(t, l, "acme")
	begun := time.Now()
	c, err := r.Curve(ctx, &w, clock.now().AddDate(0, 0, -30), 90)
	if err != nil || len(c.Points) < 90 {
		t.Errorf("%d points, %v", len(c.Points), err)
	}
	t.Logf("a curve of 90 points in %d entries took %v", entries, time.Since(begun))
	if a, err := r.Activity(ctx, &w, ledger.ActivityFilter{Text: "nothing such"}, 25); err != nil || a.Looked != ledger.ActivityLook || a.Next != entries+1-ledger.ActivityLook {
		t.Errorf("%+v %v", a, err)
	}
}
