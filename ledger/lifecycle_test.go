package ledger_test

import (
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// A currency is taken over while the mirror has shown nothing, once; from then on, and where something was shown, it
// stays what it is.
func TestCurrencyFixed(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	fixed := func(c ledger.Customer, currency string, want bool) {
		t.Helper()
		if changed, err := l.CurrencyFixed(ctx, c.Ref, currency); err != nil || changed != want {
			t.Errorf("%s in %s: %t, %v", c.ID, currency, changed, err)
		}
	}
	is := func(c ledger.Customer, currency string) {
		t.Helper()
		v, found, err := l.MirrorOf(ctx, c.Ref)
		if err != nil || !found || v.Currency != currency {
			t.Errorf("the mirror of %s is in %q: %v", c.ID, v.Currency, err)
		}
	}
	fresh := newCustomer(t, l, "fresh", "10")
	fixed(fresh, "usd", false)
	fixed(fresh, "gold", false)
	fixed(fresh, "", false)
	fixed(fresh, "eur", true)
	fixed(fresh, "eur", false)
	is(fresh, "eur")
	if v, _, err := l.MirrorOf(ctx, fresh.Ref); err != nil || v.Want != 0 || len(v.Unshown) != 1 || v.Unshown[0] != "usd" || !v.ImportDue {
		t.Errorf("%+v, %v", v, err)
	}
	shown := newCustomer(t, l, "shown", "")
	m, _, err := l.MirrorOf(ctx, shown.Ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Import(ctx, m.Mirror, []ledger.StripeTransaction{{ID: "cbtxn_1", Amount: -500, Type: "adjustment", Created: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	fixed(shown, "eur", false)
	is(shown, "usd")
	fixed(ledger.Customer{Ref: ledger.Ref{Bucket: 1, ID: "nobody"}}, "eur", false)
}

// A customer is deleted once, however often and from however many sides that is heard; nothing is bought after it, and
// the mirror stays stopped whatever its last writer says.
func TestCustomerDeletedOnce(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c := newCustomer(t, l, "acme", "10")
	putRule(t, l, "acme", rule(t, 0))
	if _, leased, err := l.LeaseMirror(ctx, c.Ref); err != nil || !leased {
		t.Fatal(leased, err)
	}
	if _, _, err := debit(t, l, "acme", "6", ""); err != nil { // which intends a top-up
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := l.CustomerDeleted(ctx, c.Ref); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := l.ReleaseMirror(ctx, c.Ref, true); err != nil {
		t.Fatal(err)
	}
	if v, _, err := l.MirrorOf(ctx, c.Ref); err != nil || !v.Stopped {
		t.Errorf("%+v, %v", v, err)
	}
	tops := topups(t, l, "acme")
	if v := ruleOf(t, l, "acme"); len(tops) != 1 || tops[0].Status != "canceled" || v.State != "disabled" || available(t, l, "acme") != "4" {
		t.Errorf("%+v %s", tops, v.State)
	}
	if _, err := l.PutRule(ctx, wallet(t, l, "acme").ID, rule(t, 0)); !ledger.IsCode(err, ledger.CodeState) {
		t.Errorf("a rule for it: %v", err)
	}
}

// A card that is gone pauses what would charge it and is not paused: a pause for another reason keeps its reason.
func TestCardGoneKeepsOtherPauses(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c := newCustomer(t, l, "acme", "10")
	in := rule(t, 0)
	in.PaymentMethod = "pm_1"
	putRule(t, l, "acme", in)
	gone := func(method string, none, want bool, reason string) {
		t.Helper()
		paused, err := l.CardGone(ctx, c.Ref, method, none)
		v := ruleOf(t, l, "acme")
		got := ""
		if v.PauseReason != nil {
			got = *v.PauseReason
		}
		if err != nil || paused != want || got != reason {
			t.Errorf("without %q: paused %t for %q: %v", method, paused, got, err)
		}
	}
	if refs, err := l.NamedBy(ctx, "pm_1"); err != nil || len(refs) != 1 || refs[0] != c.Ref {
		t.Errorf("%v, %v", refs, err)
	}
	gone("pm_2", true, false, "") // the rule names its card: there need be no default
	gone("pm_1", false, true, ledger.PauseNoPaymentMethod)
	gone("pm_1", false, false, ledger.PauseNoPaymentMethod)
	if _, err := l.PauseRule(ctx, wallet(t, l, "acme").ID); err != nil {
		t.Fatal(err)
	}
	gone("pm_1", true, false, ledger.PauseManual)
	if refs, err := l.NamedBy(ctx, "pm_none"); err != nil || len(refs) != 0 {
		t.Errorf("%v, %v", refs, err)
	}
}
