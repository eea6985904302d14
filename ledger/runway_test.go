package ledger_test

import (
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// ahead is rule with a runway.
func ahead(t testing.TB, minutes int32, capCents int64) ledger.RuleInput {
	in := rule(t, capCents)
	in.RunwayMinutes = &minutes
	return in
}

func lookAhead(t testing.TB, l *ledger.Ledger) {
	t.Helper()
	if err := l.LookAhead(ctx); err != nil {
		t.Fatal(err)
	}
}

// A runway that is none, or whose early refills Stripe would refuse, is refused.
func TestRunwayRefusals(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	newCustomer(t, l, "acme", "10")
	id := wallet(t, l, "acme").ID
	for name, tt := range map[string]struct {
		change func(*ledger.RuleInput)
		param  string
	}{
		"no minutes":            {func(r *ledger.RuleInput) { *r.RunwayMinutes = 0 }, "runway_minutes"},
		"minutes below zero":    {func(r *ledger.RuleInput) { *r.RunwayMinutes = -5 }, "runway_minutes"},
		"more than thirty days": {func(r *ledger.RuleInput) { *r.RunwayMinutes = 43201 }, "runway_minutes"},
		"a runway alone":        {func(r *ledger.RuleInput) { r.Threshold = nil }, "threshold"},
		"a quarter below Stripe's": {func(r *ledger.RuleInput) {
			r.Amount, r.Target, r.MinimumCharge = nil, decp(t, "6.95"), func(string) int64 { return 50 }
		}, "target"},
	} {
		in := ahead(t, 30, 0)
		tt.change(&in)
		_, err := l.PutRule(ctx, id, in)
		if r, ok := err.(*ledger.Refusal); !ok || r.Param != tt.param {
			t.Errorf("%s: %v, want a refusal of %s", name, err, tt.param)
		}
	}
	in := ahead(t, 30, 0)
	in.Amount, in.Target, in.MinimumCharge = nil, decp(t, "7"), func(string) int64 { return 50 }
	if v := putRule(t, l, "acme", in); v.RunwayMinutes == nil || *v.RunwayMinutes != 30 {
		t.Errorf("runway %v", v.RunwayMinutes)
	}
	if v := putRule(t, l, "acme", rule(t, 0)); v.RunwayMinutes != nil {
		t.Errorf("a rule without a runway kept %v", *v.RunwayMinutes)
	}
}

// A spike refills long before the threshold; use that the balance outlasts does not.
func TestRunway(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "100")
	putRule(t, l, "acme", ahead(t, 30, 0))
	inFlight := func(want int, what string) {
		t.Helper()
		lookAhead(t, l)
		if n := len(topups(t, l, "acme")); n != want {
			t.Fatalf("%s: %d top-ups, want %d", what, n, want)
		}
	}
	for range 40 { // 0.1 a minute: 30 minutes take 3
		mustDebit(t, l, "acme", "0.5")
		clock.step(5 * time.Minute)
		inFlight(0, "no spike")
	}
	mustDebit(t, l, "acme", "11.5") // 68.5 left; 11.5 in five minutes take 69 in thirty: not quite, and then it is
	inFlight(1, "a spike")
	mustDebit(t, l, "acme", "1")
	succeed(t, l, "acme") // 87.5; 12.5 in five minutes take 75
	inFlight(1, "the refill outlasts the spike")
	mustDebit(t, l, "acme", "2") // 85.5, and 14.5 take 87
	inFlight(2, "the spike goes on")
	succeed(t, l, "acme")
	clock.step(6 * time.Minute)
	if w := wallet(t, l, "acme"); *w.RefillBelow < 87_000_000 {
		t.Errorf("the mark is %d", *w.RefillBelow)
	}
	mustDebit(t, l, "acme", "0.1") // the mark is not reached, and the next look lowers it to the hour's average
	inFlight(2, "the spike is over")
	if w := wallet(t, l, "acme"); *w.RefillBelow < 7_500_000 || *w.RefillBelow > 10_000_000 { // 15.1 or so an hour
		t.Errorf("the mark is %d", *w.RefillBelow)
	}
}

// A debit that comes to the mark acts by the rate as it is then, without a look between.
func TestRunwayByDebit(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "100")
	putRule(t, l, "acme", ahead(t, 30, 0))
	mustDebit(t, l, "acme", "10")
	lookAhead(t, l) // the mark is at 60 or little more
	for range 30 {
		mustDebit(t, l, "acme", "1")
	}
	if n := len(topups(t, l, "acme")); n != 1 {
		t.Errorf("%d top-ups with 60 left and 240 needed", n)
	}
	// Where the rate has fallen by the time that the mark is reached, nothing is bought.
	newCustomer(t, l, "calm", "100")
	putRule(t, l, "calm", ahead(t, 30, 0))
	mustDebit(t, l, "calm", "10")
	lookAhead(t, l)
	clock.step(2 * time.Hour)
	mustDebit(t, l, "calm", "2.5")
	clock.step(2 * time.Hour)
	for range 8 {
		mustDebit(t, l, "calm", "4")
		clock.step(61 * time.Minute)
	}
	if n := len(topups(t, l, "calm")); n != 0 {
		t.Errorf("%d top-ups of a calm wallet", n)
	}
}

// A target is not overshot, and an early refill to it waits until it is worth a charge.
func TestRunwayToTarget(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	in := ahead(t, 43200, 0)
	in.Amount, in.Target = nil, decp(t, "45")
	for customer, tt := range map[string]struct {
		credit, spent, buys string
	}{
		"above":  {"100", "54", ""},
		"at":     {"100", "55", ""},
		"near":   {"100", "65", ""}, // 35 left: a quarter of 40 is 10
		"beyond": {"100", "66", "11"},
		"below":  {"100", "96", "41"},
	} {
		newCustomer(t, l, customer, tt.credit)
		putRule(t, l, customer, in)
		mustDebit(t, l, customer, tt.spent)
		lookAhead(t, l)
		got := ""
		if tops := topups(t, l, customer); len(tops) > 0 {
			got = ledger.FormatSteps(tops[0].Amount, 6)
		}
		if got != tt.buys {
			t.Errorf("%s: buys %q, want %q", customer, got, tt.buys)
		}
	}
}

// However long the spike, the cap holds, and the rule pauses at it once.
func TestRunwayKeepsTheCap(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "100")
	putRule(t, l, "acme", ahead(t, 1000, 5000))
	for range 10 {
		mustDebit(t, l, "acme", "5")
		lookAhead(t, l)
		if top := topups(t, l, "acme"); len(top) > 0 && top[0].InFlight() {
			succeed(t, l, "acme")
		}
		clock.step(time.Second)
	}
	if n := len(topups(t, l, "acme")); n != 2 {
		t.Errorf("%d top-ups within a cap of two and a half", n)
	}
	v := ruleOf(t, l, "acme")
	if v.State != "paused" || *v.PauseReason != ledger.PauseSpendCap || v.Spent != 4000 {
		t.Errorf("rule is %s with %d spent", v.State, v.Spent)
	}
	clock.step(5 * time.Hour) // the spike is over: the cap is in nobody's way
	mustDebit(t, l, "acme", "0.01")
	lookAhead(t, l)
	if v := ruleOf(t, l, "acme"); v.State != "armed" || v.Spent != 4000 {
		t.Errorf("after the spike the rule is %s with %d spent", v.State, v.Spent)
	}
}

// Two processes that look and debit at once, and remember the wallet, intend one top-up.
func TestRunwayFiresOnce(t *testing.T) {
	t.Parallel()
	url := ledgertest.URL(t)
	replicas := []*ledger.Ledger{ledgertest.New(t, ledger.Options{URL: url}), ledgertest.New(t, ledger.Options{URL: url})}
	newCustomer(t, replicas[0], "acme", "1000")
	putRule(t, replicas[0], "acme", ahead(t, 30, 0))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 25 {
				if _, _, err := debit(t, replicas[i%2], "acme", "1", ""); err != nil {
					t.Error(err)
				}
				if err := replicas[(i+1)%2].LookAhead(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(topups(t, replicas[0], "acme")); n != 1 {
		t.Errorf("%d top-ups, want 1", n)
	}
}
