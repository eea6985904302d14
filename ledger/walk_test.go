package ledger_test

import (
	"strings"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// A walk is one walker's at a time: another has it only once its lease has run out, and then the first writes nothing.
func TestWalkLease(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := ledgertest.New(t, ledger.Options{Now: func() time.Time { return now }})
	lease := func(by string, want bool) (w ledger.Walk) {
		t.Helper()
		w, found, err := l.LeaseWalk(ctx, "night", by)
		if err != nil || found != want {
			t.Errorf("%s has it: %t, %v", by, found, err)
		}
		return w
	}
	if due, err := l.WalkDue(ctx, "night", now.Add(-time.Hour)); err != nil || due {
		t.Errorf("the first time: due %t, %v", due, err)
	}
	if due, err := l.WalkDue(ctx, "night", now); err != nil || !due {
		t.Errorf("the next: due %t, %v", due, err)
	}
	lease("a", true)
	lease("a", true)
	lease("b", false)
	if due, err := l.WalkDue(ctx, "night", now); err != nil || due {
		t.Errorf("while somebody walks: due %t, %v", due, err)
	}
	suspects, findings := `["x"]`, `["y"]`
	if kept, err := l.SaveWalk(ctx, "night", "a", "half", &suspects, &findings); err != nil || !kept {
		t.Error(kept, err)
	}
	if kept, err := l.SaveWalk(ctx, "night", "a", "more", nil, nil); err != nil || !kept {
		t.Error(kept, err)
	}
	now = now.Add(ledger.WalkLease - time.Second)
	if kept, err := l.RenewWalk(ctx, "night", "a"); err != nil || !kept {
		t.Error(kept, err)
	}
	now = now.Add(ledger.WalkLease - time.Second)
	lease("b", false)
	now = now.Add(2 * time.Second)
	if w := lease("b", true); w.State != "more" || w.Suspects != suspects || w.Findings != findings {
		t.Errorf("taken over: %+v", w)
	}
	if kept, err := l.SaveWalk(ctx, "night", "a", "lost", nil, nil); err != nil || kept {
		t.Error(kept, err)
	}
	if kept, err := l.RenewWalk(ctx, "night", "a"); err != nil || kept {
		t.Error(kept, err)
	}
	if kept, err := l.EndWalk(ctx, "night", "a", &now); err != nil || kept {
		t.Error(kept, err)
	}
	if kept, err := l.EndWalk(ctx, "night", "b", &now); err != nil || !kept {
		t.Error(kept, err)
	}
	if w := lease("a", true); w.State != "" || w.Suspects != "[]" || w.DoneFor == nil || w.DoneFor.Sub(now).Abs() > time.Millisecond {
		t.Errorf("at its end: %+v", w)
	}
	if err := l.LeaveWalk(ctx, "night", "a"); err != nil {
		t.Error(err)
	}
	if due, err := l.WalkDue(ctx, "night", now.Add(-time.Second)); err != nil || due {
		t.Errorf("done: due %t, %v", due, err)
	}
}

// A difference is told once, until it has been gone.
func TestTellDrift(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c := newCustomer(t, l, "acme", "")
	for i, step := range []struct {
		found string
		told  int
	}{{"a", 1}, {"a", 1}, {"a b", 2}, {"b", 2}, {"a b", 3}, {"", 3}, {"a a", 4}} {
		var drifts []ledger.Drift
		for _, f := range strings.Fields(step.found) {
			drifts = append(drifts, ledger.Drift{Fingerprint: f, Finding: map[string]string{"kind": f}})
		}
		if err := l.TellDrift(ctx, c.Ref, drifts); err != nil {
			t.Fatal(err)
		}
		var told int
		if err := l.DB().Get(&told, `select count(*) from events where type = 'lockstep.drift'`); err != nil || told != step.told {
			t.Errorf("step %d, found %q: told %d times, want %d: %v", i, step.found, told, step.told, err)
		}
		refs, err := l.ToldOfDrift(ctx)
		if err != nil || (len(refs) == 1) != (step.found != "") {
			t.Errorf("step %d: told of %v, %v", i, refs, err)
		}
	}
	if err := l.TellDrift(ctx, ledger.Ref{Bucket: 1, ID: "nobody"}, []ledger.Drift{{Fingerprint: "a"}}); err != nil {
		t.Error(err)
	}
}

// A flush that stands twice in Stripe is counted and gives nobody credit, also where its copy is of another amount, and
// where both are heard of at once.
func TestDoubledTransactions(t *testing.T) {
	t.Parallel()
	for name, copied := range map[string]int64{"the same amount": -1000, "another amount": -400, "the other way": 300} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := ledgertest.New(t, ledger.Options{})
			c := newCustomer(t, l, "acme", "")
			if err := l.LinkCustomer(ctx, c.Ref, "cus_acme", "usd", true); err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.Grant(ctx, ledger.GrantInput{Customer: "acme", Amount: dec(t, "10"), Kind: "purchased", Priority: 50}, ledger.Once{}); err != nil {
				t.Fatal(err)
			}
			v, _, err := l.MirrorOf(ctx, c.Ref)
			if err != nil {
				t.Fatal(err)
			}
			f, found, err := l.PlanFlush(ctx, v.Mirror)
			if err != nil || !found || f.Amount != -1000 {
				t.Fatal(f, found, err)
			}
			list := []ledger.StripeTransaction{{ID: "cbtxn_2", Amount: copied, EndingBalance: copied - 1000, Flush: f.ID, Created: time.Unix(2, 0)},
				{ID: "cbtxn_1", Amount: -1000, EndingBalance: -1000, Flush: f.ID, Created: time.Unix(1, 0)}}
			for range 2 {
				if n, err := l.Import(ctx, v.Mirror, list); err != nil || n != 0 {
					t.Fatal(n, err)
				}
			}
			if v, _, err = l.MirrorOf(ctx, c.Ref); err != nil || v.Credit != 1000-copied || v.Want != 1000 {
				t.Errorf("shown %d, wanted %d: %v", v.Credit, v.Want, err)
			}
			stale, err := l.StaleMirrors(ctx, ledger.Ref{Bucket: -1}, 10)
			if err != nil || len(stale) != 1 {
				t.Errorf("what a crash forgets is not found: %v, %v", stale, err)
			}
			back, found, err := l.PlanFlush(ctx, v.Mirror)
			if err != nil || !found || back.Amount != -copied {
				t.Errorf("the way back: %+v, %t, %v", back, found, err)
			}
			if got, err := l.Customer(ctx, "acme"); err != nil || got.Status != "active" {
				t.Error(got, err)
			}
			wallets, err := l.Wallets(ctx, c.Ref)
			if err != nil || wallets[0].Total != 10_000_000 {
				t.Errorf("%+v, %v", wallets, err)
			}
		})
	}
}

// Amounts of money read as people write them.
func TestFormatMinor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		amount   int64
		currency string
		want     string
	}{{2000, "usd", "20.00 USD"}, {-5, "eur", "-0.05 EUR"}, {0, "usd", "0.00 USD"}, {50, "usd", "0.50 USD"}, {700, "jpy", "700 JPY"}, {1234, "kwd", "1.234 KWD"}, {1200, "kwd", "1.200 KWD"}} {
		if got := ledger.FormatMinor(tt.amount, tt.currency); got != tt.want {
			t.Errorf("%d %s is %q, want %q", tt.amount, tt.currency, got, tt.want)
		}
	}
}

// What was seen to be paid at Stripe is not asked about again, but where everything is; a top-up in flight is asked about
// once it has been that for long.
func TestVerified(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c, topup := topped(t, l)
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	want := func(what string, all bool, ref ledger.Ref, n int) {
		t.Helper()
		ids, _, err := l.Unverified(ctx, ref, from, to, all)
		if err != nil || len(ids) != n || n > 0 && ids[0] != topup {
			t.Errorf("%s: %v, %v, want %d", what, ids, err, n)
		}
	}
	want("in flight", true, ledger.Ref{}, 0)
	for before, n := range map[time.Time]int{from: 0, to: 1} {
		if ids, err := l.Stuck(ctx, ledger.Ref{}, before); err != nil || len(ids) != n {
			t.Errorf("in flight since before %s: %v, %v", before, ids, err)
		}
	}
	settle(t, l, ledger.Outcome{Topup: topup, Status: "succeeded", PaymentIntent: "pi_topped", Received: 2000})
	want("paid", false, ledger.Ref{}, 1)
	want("paid by acme", false, c.Ref, 1)
	want("paid by nobody", false, ledger.Ref{Bucket: c.Bucket, ID: "nobody"}, 0)
	for range 2 {
		if err := l.Verified(ctx, []string{topup, "top_nothing"}, []string{"in_nothing"}); err != nil {
			t.Fatal(err)
		}
	}
	want("verified", false, ledger.Ref{}, 0)
	want("verified, and everything asked for", true, ledger.Ref{}, 1)
	books, err := l.TopupsBooked(ctx, []string{topup, "top_nothing", "nothing"})
	if err != nil || len(books) != 1 || books[topup].GrantAmount != 20_000_000 || books[topup].Bought() != 2000 || books[topup].Buys(1000) != 10_000_000 || books[topup].Leased {
		t.Errorf("%+v, %v", books[topup], err)
	}
}
