package ledger_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// rule is an armed rule: 20 when below 5, at most capCents a month.
func rule(t testing.TB, capCents int64) ledger.RuleInput {
	in := ledger.RuleInput{Enabled: true, Threshold: decp(t, "5"), Amount: decp(t, "20"), GrantPriority: 50}
	if capCents > 0 {
		in.Cap, in.CapInterval = &ledger.Money{Amount: capCents, Currency: "usd"}, "month"
	}
	return in
}

func putRule(t testing.TB, l *ledger.Ledger, customer string, in ledger.RuleInput) ledger.RuleView {
	t.Helper()
	w, err := l.PutRule(ctx, wallet(t, l, customer).ID, in)
	if err != nil {
		t.Fatal(err)
	}
	return view(t, l, &w)
}

func view(t testing.TB, l *ledger.Ledger, w *ledger.Wallet) ledger.RuleView {
	t.Helper()
	v, found, err := l.RuleOf(ctx, w)
	if err != nil || !found {
		t.Fatalf("rule of %s: %v %v", w.ID, found, err)
	}
	return v
}

func ruleOf(t testing.TB, l *ledger.Ledger, customer string) ledger.RuleView {
	w := wallet(t, l, customer)
	return view(t, l, &w)
}

func topups(t testing.TB, l *ledger.Ledger, customer string) []ledger.Topup {
	t.Helper()
	ref, err := l.Resolve(ctx, customer)
	if err != nil {
		t.Fatal(err)
	}
	tops, err := l.Topups(ctx, ref, "", 100)
	if err != nil {
		t.Fatal(err)
	}
	return tops
}

func settle(t testing.TB, l *ledger.Ledger, o ledger.Outcome) ledger.Topup {
	t.Helper()
	top, err := l.SettleTopup(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return top
}

// succeed settles the newest top-up as paid.
func succeed(t testing.TB, l *ledger.Ledger, customer string) ledger.Topup {
	top := topups(t, l, customer)[0]
	return settle(t, l, ledger.Outcome{Topup: top.ID, Status: "succeeded", PaymentIntent: "pi_" + top.ID, Received: top.Charge})
}

// A rule that could never act, or that says two things, is refused and leaves the old one.
func TestRuleRefusals(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "10")
	if _, err := l.PutAsset(ctx, ledger.AssetInput{Code: "gold", Scale: 0}); err != nil {
		t.Fatal(err)
	}
	unpriced, _, err := l.CreateWallet(ctx, ledger.WalletInput{Customer: "acme", Asset: "gold"}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	percent := int16(100)
	usd := wallet(t, l, "acme").ID
	for name, tt := range map[string]struct {
		wallet string
		change func(*ledger.RuleInput)
		param  string
		code   ledger.Code
	}{
		"no threshold":              {usd, func(r *ledger.RuleInput) { r.Threshold = nil }, "threshold", ledger.CodeMissing},
		"two thresholds":            {usd, func(r *ledger.RuleInput) { r.ThresholdPercent = &percent }, "threshold_percent", ledger.CodeInvalid},
		"all of it as percent":      {usd, func(r *ledger.RuleInput) { r.Threshold, r.ThresholdPercent = nil, &percent }, "threshold_percent", ledger.CodeInvalid},
		"a threshold below zero":    {usd, func(r *ledger.RuleInput) { r.Threshold = decp(t, "-1") }, "threshold", ledger.CodeInvalid},
		"no size":                   {usd, func(r *ledger.RuleInput) { r.Amount = nil }, "amount", ledger.CodeMissing},
		"two sizes":                 {usd, func(r *ledger.RuleInput) { r.Target = decp(t, "50") }, "target", ledger.CodeInvalid},
		"a target at the threshold": {usd, func(r *ledger.RuleInput) { r.Amount, r.Target = nil, decp(t, "5") }, "target", ledger.CodeInvalid},
		"a cap below one top-up":    {usd, func(r *ledger.RuleInput) { r.Cap.Amount = 1999 }, "spend_cap.amount", ledger.CodeInvalid},
		"a cap in another currency": {usd, func(r *ledger.RuleInput) { r.Cap.Currency = "eur" }, "spend_cap.currency", ledger.CodeCurrency},
		"a cap for no known time":   {usd, func(r *ledger.RuleInput) { r.CapInterval = "year" }, "spend_cap.interval", ledger.CodeInvalid},
		"an asset without a price":  {unpriced.ID, func(*ledger.RuleInput) {}, "auto_topup", ledger.CodeInvalid},
		"less than Stripe charges": {usd, func(r *ledger.RuleInput) {
			r.Amount, r.MinimumCharge = decp(t, "0.49"), func(string) int64 { return 50 }
		}, "amount", ledger.CodeInvalid},
		"more decimals than the usd": {usd, func(r *ledger.RuleInput) { r.Amount = decp(t, "1.0000001") }, "amount", ledger.CodeInvalid},
	} {
		in := rule(t, 10000)
		tt.change(&in)
		_, err := l.PutRule(ctx, tt.wallet, in)
		if !ledger.IsCode(err, tt.code) {
			t.Errorf("%s: %v, want %s", name, err, tt.code)
		} else if got := err.(*ledger.Refusal).Param; got != tt.param {
			t.Errorf("%s: refused for %q, want %q", name, got, tt.param)
		}
	}
	if w := wallet(t, l, "acme"); w.RefillBelow != nil {
		t.Error("a refused rule armed the wallet")
	}
}

// 200 debits that cross the threshold together, through two ledgers, intend one top-up.
func TestCrossingFiresOnce(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	replicas := []*ledger.Ledger{ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})}
	newCustomer(t, replicas[0], "acme", "10")
	putRule(t, replicas[0], "acme", rule(t, 10000))
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if _, _, err := debit(t, replicas[i%2], "acme", "0.04", fmt.Sprint("k", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(topups(t, replicas[0], "acme")); n != 1 {
		t.Errorf("%d top-ups, want 1", n)
	}
	w := wallet(t, replicas[0], "acme")
	if got := w.Balance(); got.Pending != 20_000_000 || got.Available != 2_000_000 {
		t.Errorf("balance %+v", got)
	}
	if s := ruleOf(t, replicas[0], "acme").State; s != "topping_up" {
		t.Errorf("rule is %s", s)
	}
	succeed(t, replicas[1], "acme")
	if got := available(t, replicas[0], "acme"); got != "22" {
		t.Errorf("available %s after the top-up, want 22", got)
	}
	if s := ruleOf(t, replicas[0], "acme").State; s != "armed" {
		t.Errorf("rule is %s after the top-up", s)
	}
}

// However often and from however many sides an outcome is heard, it is booked once; success is believed
// even after failure, since the money came.
func TestOutcomeIsBookedOnce(t *testing.T) {
	t.Parallel()
	for name, words := range map[string][]string{
		"once":                      {"succeeded"},
		"twice":                     {"succeeded", "succeeded"},
		"failed first":              {"failed", "succeeded"},
		"processing late":           {"succeeded", "processing"},
		"failed late":               {"succeeded", "failed"},
		"by way of authentication":  {"action_required", "processing", "succeeded"},
		"canceled and yet it came":  {"canceled", "succeeded", "canceled"},
		"failed, then processing":   {"failed", "processing", "succeeded"},
		"authentication heard late": {"succeeded", "action_required"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := ledgertest.New(t, ledger.Options{})
			newCustomer(t, l, "acme", "6")
			putRule(t, l, "acme", rule(t, 2000)) // room for one
			if _, _, err := debit(t, l, "acme", "2", ""); err != nil {
				t.Fatal(err)
			}
			top := topups(t, l, "acme")[0]
			var wg sync.WaitGroup
			for _, status := range words {
				o := ledger.Outcome{Topup: top.ID, PaymentIntent: "pi_1", Status: status, Code: "card_declined"}
				settle(t, l, o)
				for range 4 { // and again, from everywhere
					wg.Go(func() { settle(t, l, o) })
				}
				wg.Wait()
			}
			if got := available(t, l, "acme"); got != "24" {
				t.Errorf("available %s, want 24", got)
			}
			if g, err := l.GrantByID(ctx, top.GrantID); err != nil || g.Status != "confirmed" {
				t.Errorf("grant is %s, %v", g.Status, err)
			}
		})
	}
}

// The cap holds to the cent: what was charged and what may still charge count, what failed does not, and a
// new period begins at nothing.
func TestCap(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 23, 50, 0, 0, time.UTC)
	var mu sync.Mutex
	l := ledgertest.New(t, ledger.Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	newCustomer(t, l, "acme", "6")
	putRule(t, l, "acme", rule(t, 4000)) // two a month
	spend := func(amount string) {
		t.Helper()
		if _, _, err := debit(t, l, "acme", amount, ""); err != nil {
			t.Fatal(err)
		}
	}
	spend("2")
	succeed(t, l, "acme") // 24 there, 20.00 charged
	spend("20")
	settle(t, l, ledger.Outcome{Topup: topups(t, l, "acme")[0].ID, Status: "failed", Code: "card_declined", DeclineCode: "insufficient_funds"})
	if v := ruleOf(t, l, "acme"); v.State != "paused" || *v.PauseReason != ledger.PausePaymentFailed || v.Spent != 2000 {
		t.Fatalf("after a decline: %s, spent %d", v.State, v.Spent)
	}
	if _, err := l.ResumeRule(ctx, wallet(t, l, "acme").ID); err != nil {
		t.Fatal(err)
	}
	if v := ruleOf(t, l, "acme"); v.State != "topping_up" || v.Spent != 4000 {
		t.Fatalf("resumed below the threshold: %s, spent %d", v.State, v.Spent)
	}
	succeed(t, l, "acme")
	spend("20")
	v := ruleOf(t, l, "acme")
	if v.State != "paused" || *v.PauseReason != ledger.PauseSpendCap || v.Spent != 4000 {
		t.Fatalf("at the cap: %s, spent %d", v.State, v.Spent)
	}
	if n := len(topups(t, l, "acme")); n != 3 {
		t.Fatalf("%d top-ups, want 3", n)
	}
	mu.Lock()
	now = now.Add(10 * time.Minute) // February
	mu.Unlock()
	if _, err := l.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	// What settled in the last minutes of January has been charged in January.
	if v := ruleOf(t, l, "acme"); v.State != "topping_up" || v.Spent != 2000 {
		t.Fatalf("in the new period: %s, spent %d", v.State, v.Spent)
	}
}

// A raised cap ends its pause, and the refill that it held back happens at once.
func TestRaisedCapActsAtOnce(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "6")
	putRule(t, l, "acme", rule(t, 2000))
	for _, amount := range []string{"2", "20"} {
		if _, _, err := debit(t, l, "acme", amount, ""); err != nil {
			t.Fatal(err)
		}
		if len(topups(t, l, "acme")) == 1 {
			succeed(t, l, "acme")
		}
	}
	if v := ruleOf(t, l, "acme"); v.State != "paused" {
		t.Fatalf("at the cap: %s", v.State)
	}
	if v := putRule(t, l, "acme", rule(t, 4000)); v.State != "topping_up" || v.Spent != 4000 {
		t.Fatalf("more cap: %s, spent %d", v.State, v.Spent)
	}
}

// The card that failed clears nothing; another one does, and so does a payment that goes through.
func TestWhatClearsAFailedPayment(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c := newCustomer(t, l, "acme", "6")
	putRule(t, l, "acme", rule(t, 0))
	if _, _, err := debit(t, l, "acme", "2", ""); err != nil {
		t.Fatal(err)
	}
	fail := func() {
		t.Helper()
		settle(t, l, ledger.Outcome{Topup: topups(t, l, "acme")[0].ID, Status: "failed", Code: "card_declined", PaymentMethod: "pm_bad"})
	}
	fail()
	state := func() string { return ruleOf(t, l, "acme").State }
	for _, pm := range []string{"pm_bad", ""} {
		if err := l.CardChanged(ctx, c.Ref, pm); err != nil || state() != "paused" {
			t.Fatalf("card %q: %s, %v", pm, state(), err)
		}
	}
	if err := l.CardChanged(ctx, c.Ref, "pm_good"); err != nil || state() != "topping_up" {
		t.Fatalf("another card: %s, %v", state(), err)
	}
	fail()
	in := ledger.TopupInput{Customer: "acme", Amount: dec(t, "20"), MinimumCharge: func(string) int64 { return 50 }}
	if _, _, err := l.CreateTopup(ctx, in, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.CreateTopup(ctx, in, ledger.Once{}); !ledger.IsCode(err, ledger.CodeTopupInFlight) {
		t.Errorf("a second top-up: %v", err)
	}
	succeed(t, l, "acme")
	if state() != "armed" {
		t.Errorf("after a payment: %s", state())
	}
	if _, err := l.PauseRule(ctx, wallet(t, l, "acme").ID); err != nil {
		t.Fatal(err)
	}
	if err := l.CardChanged(ctx, c.Ref, "pm_third"); err != nil || state() != "paused" {
		t.Errorf("a pause by hand after a new card: %s, %v", state(), err)
	}
}

// A refill to a target buys what is missing, in whole cents, and never less.
func TestTargetAndPercent(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "50")
	percent := int16(20)
	putRule(t, l, "acme", ledger.RuleInput{Enabled: true, ThresholdPercent: &percent, Target: decp(t, "50"), GrantPriority: 50})
	if _, _, err := debit(t, l, "acme", "40", ""); err != nil { // 10 is 20 % of 50, and not below it
		t.Fatal(err)
	}
	if n := len(topups(t, l, "acme")); n != 0 {
		t.Fatalf("%d top-ups at the threshold", n)
	}
	if _, _, err := debit(t, l, "acme", "0.001", ""); err != nil {
		t.Fatal(err)
	}
	top := topups(t, l, "acme")
	if len(top) != 1 || top[0].Charge != 4001 || top[0].Amount != 40_010_000 {
		t.Fatalf("top-ups %+v", top)
	}
	succeed(t, l, "acme")
	if got := available(t, l, "acme"); got != "50.009" {
		t.Errorf("available %s", got)
	}
}

// A rule that is set or resumed while a top-up is in flight waits for it, however low the balance; then it acts.
func TestRuleSetWhileInFlight(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "6")
	in := rule(t, 0)
	in.Amount = decp(t, "1")
	putRule(t, l, "acme", in)
	for _, amount := range []string{"1.5", "2"} { // 4.5 and 1 on its way; then 2.5 and 1
		if _, _, err := debit(t, l, "acme", amount, ""); err != nil {
			t.Fatal(err)
		}
	}
	if v := putRule(t, l, "acme", in); v.State != "topping_up" {
		t.Errorf("set again: %s", v.State)
	}
	if _, err := l.ResumeRule(ctx, wallet(t, l, "acme").ID); err != nil {
		t.Fatal(err)
	}
	if n := len(topups(t, l, "acme")); n != 1 {
		t.Fatalf("%d top-ups", n)
	}
	succeed(t, l, "acme") // 3.5: still below, so another at once
	if tops := topups(t, l, "acme"); len(tops) != 2 || tops[0].Status != "pending" {
		t.Errorf("top-ups %+v", tops)
	}
}

// Another card has come, and the payment that waits for the old one is to be canceled: hearing once more that it
// waits, late, neither pauses the rule again nor saves the payment.
func TestLateWordBesideACancel(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	c := newCustomer(t, l, "acme", "6")
	putRule(t, l, "acme", rule(t, 0))
	if _, _, err := debit(t, l, "acme", "2", ""); err != nil {
		t.Fatal(err)
	}
	top := topups(t, l, "acme")[0]
	waits := ledger.Outcome{Topup: top.ID, Status: "action_required", PaymentIntent: "pi_1", PaymentMethod: "pm_old", Code: "authentication_required"}
	settle(t, l, waits)
	if err := l.CardChanged(ctx, c.Ref, "pm_new"); err != nil {
		t.Fatal(err)
	}
	top = settle(t, l, waits)
	if v := ruleOf(t, l, "acme"); v.State != "topping_up" || !top.Cancel {
		t.Errorf("the rule is %s for %v, its payment to be canceled: %t", v.State, v.PauseReason, top.Cancel)
	}
	settle(t, l, ledger.Outcome{Topup: top.ID, Status: "canceled", PaymentIntent: "pi_1"})
	if tops := topups(t, l, "acme"); len(tops) != 2 || tops[0].Status != "pending" {
		t.Errorf("after the cancel: %v", tops)
	}
}

// A payment that a bank works on for a fortnight is looked at now and then, and less often as time goes by.
func TestProcessingIsLookedAtRarely(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	_, id := topped(t, l)
	if _, leased, err := l.LeaseTopup(ctx, id); err != nil || !leased {
		t.Fatalf("%t, %v", leased, err)
	}
	settle(t, l, ledger.Outcome{Topup: id, Status: "processing", PaymentIntent: "pi_slow"})
	looks, last := 0, time.Duration(0)
	for at := time.Duration(0); at < 14*24*time.Hour; at += 5 * time.Minute {
		clock.step(5 * time.Minute)
		if _, leased, err := l.LeaseTopup(ctx, ""); err != nil {
			t.Fatal(err)
		} else if leased {
			looks, last = looks+1, at
			settle(t, l, ledger.Outcome{Topup: id, Status: "processing", PaymentIntent: "pi_slow"})
		}
	}
	if looks < 20 || looks > 45 || last < 13*24*time.Hour {
		t.Errorf("%d looks, the last after %v", looks, last)
	}
	settle(t, l, ledger.Outcome{Topup: id, Status: "succeeded", PaymentIntent: "pi_slow", Received: 2000})
	if got := available(t, l, "acme"); got != "20" {
		t.Errorf("%s available", got)
	}
}
