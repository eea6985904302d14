package main

import (
	"slices"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

const day = 24 * time.Hour

// subscribed is a customer on a plan whose first invoice was paid and heard of.
func (w *world) subscribed(customer, plan string, quantity int64, t stripesim.Terms) (stripeID, sub string) {
	w.t.Helper()
	_, stripeID = w.customer(customer, "", "pm_card_visa")
	sub = w.did(w.sim.Operator().Subscribe(stripeID, plan, quantity, t))
	w.quietEvents()
	return stripeID, sub
}

// A plan's credit ends with its period, whether it is renewed or not; a canceled one lives to that end.
func TestPlanEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, sub := w.subscribed("acme", w.plan(1000, "credits", "10"), 1, stripesim.Terms{})
	w.has("acme", "usd", "10")
	s, _ := w.sim.Subscription(sub)
	if got := w.grants("acme")[0].str("expires_at"); got != s.PeriodEnd.UTC().Format("2006-01-02T15:04:05.000000Z") {
		t.Errorf("expires at %s, the period ends at %v", got, s.PeriodEnd)
	}
	w.did(w.sim.Operator().CancelSubscription(sub))
	w.advance(s.PeriodEnd.Sub(w.sim.Now()) - 5*time.Second)
	if got := w.credit("acme", "usd"); got != "10" {
		t.Errorf("%s right before the end", got)
	}
	w.advance(5 * time.Second)
	if got := w.credit("acme", "usd"); got != "0" {
		t.Errorf("%s in the instant of the end", got)
	}
	w.advance(2 * time.Second)
	w.quietEvents()
	if s, _ := w.sim.Subscription(sub); s.Status != "canceled" || len(w.grants("acme")) != 1 {
		t.Errorf("%+v %v", s, w.grants("acme"))
	}
}

// Paid late, a period's credit ends when it would have; paid only after that, it lives for as long as the period was.
func TestPlanPaidLate(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]time.Duration{"within the period": 10 * day, "after it": 40 * day} {
		for _, elsewhere := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t)
				stripeID, _ := "", ""
				_, stripeID = w.customer("acme", "", "pm_card_chargeCustomerFail")
				plan := w.plan(1000, "credits", "10")
				sub, err := w.sim.Operator().Subscribe(stripeID, plan, 1, stripesim.Terms{})
				if err == nil {
					t.Fatal("the card paid")
				}
				s, _ := w.sim.Subscription(sub)
				w.advance(late)
				w.card(stripeID, "pm_card_visa")
				paid := w.sim.Now()
				w.did(w.sim.Operator().PayInvoice(s.LatestInvoice, elsewhere))
				w.has("acme", "usd", "10")
				want := s.PeriodEnd
				if late > 31*day {
					want = paid.Add(s.PeriodEnd.Sub(s.PeriodStart))
				}
				gs := w.grants("acme")
				got, err := time.Parse(time.RFC3339, gs[len(gs)-1].str("expires_at"))
				if err != nil || got.Sub(want).Abs() > 2*time.Second {
					t.Errorf("expires %v, want %v", got, want)
				}
			})
		}
	}
}

// A trial gives nothing, a coupon of 100 % and a plan for nothing give all; what it cost is what was earned.
func TestPlanForLess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plan := w.plan(1000, "credits", "10")
	_, trial := w.subscribed("trial", plan, 1, stripesim.Terms{TrialDays: 7})
	w.subscribed("half", plan, 1, stripesim.Terms{PercentOff: 50})
	w.subscribed("all", plan, 1, stripesim.Terms{PercentOff: 100})
	w.subscribed("free", w.plan(0, "credits", "3"), 1, stripesim.Terms{})
	tiers := w.priced(stripesim.NewPrice{Unit: 500, Interval: "month", Tiered: true, Metadata: pairs([]string{"credits", "4"})})
	_, tiered := w.subscribed("tiers", tiers, 2, stripesim.Terms{})
	w.subscribed("tiers-trial", tiers, 2, stripesim.Terms{TrialDays: 7})
	for id, want := range map[string][2]string{"half": {"10", "500"}, "all": {"10", "0"}, "free": {"3", "0"}, "tiers": {"8", "1000"}} {
		if gs := w.grants(id); len(gs) != 1 || gs[0].str("amount") != want[0] || gs[0].str("cost.amount") != want[1] {
			t.Errorf("%s: %v", id, gs)
		}
	}
	for _, id := range []string{"trial", "tiers-trial"} {
		if gs := w.grants(id); len(gs) != 0 {
			t.Errorf("%s: %v", id, gs)
		}
	}
	// Tiers say nothing of a share: a change gives nothing and takes nothing.
	w.advance(day)
	w.did(w.sim.Operator().ChangePlan(tiered, tiers, 5))
	w.quietEvents()
	if gs := w.grants("tiers"); len(gs) != 1 || gs[0].str("remaining") != "8" {
		t.Errorf("tiers: %v", gs)
	}
	w.turn(trial)
	w.has("trial", "usd", "10")
}

// halfway moves time to the middle of a subscription's period.
func (w *world) halfway(sub string) {
	w.t.Helper()
	s, _ := w.sim.Subscription(sub)
	w.advance(s.PeriodStart.Add(s.PeriodEnd.Sub(s.PeriodStart) / 2).Sub(w.sim.Now()))
}

// An upgrade in the middle of a period takes back half of the old credit and gives half of the new.
func TestPlanUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0})
	terms := []string{"credits_asset", "tokens"}
	small, large := w.plan(1000, append(terms, "credits", "1000")...), w.plan(5000, append(terms, "credits", "6000")...)
	stripeID, sub := w.subscribed("acme", small, 1, stripesim.Terms{})
	w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "asset": "tokens", "amount": "200"})
	w.halfway(sub)
	in := w.did(w.sim.Operator().ChangePlan(sub, large, 1))
	w.eventually("the change is booked", func() bool { return len(w.grants("acme")) == 2 })
	gs := w.grants("acme")
	near(t, "what is left of the old", gs[1].str("remaining"), 300, 2)
	near(t, "what the new gives", gs[0].str("amount"), 3000, 6)
	if gs[0].str("reason") != "proration" || gs[1].str("status") != "confirmed" || gs[0].str("source.id") != in || gs[0].str("expires_at") != gs[1].str("expires_at") {
		t.Errorf("%v", gs)
	}
	entries := w.must("GET", "/v1/wallets/"+gs[0].str("wallet")+"/entries", nil).list()
	if e := entries[1]; e.str("type") != "void" || e.str("refers_to") != gs[1].str("id") || e.str("reason") != "proration of "+in {
		t.Errorf("%v", e.m)
	}
	// Down again at the next period: nothing moves until then.
	w.did(w.sim.Operator().ChangeNextPeriod(sub, small, 2))
	w.quietEvents()
	w.turn(sub)
	w.has("acme", "tokens", "2000")
	if n := len(w.sim.Invoices(stripeID)); n != 3 {
		t.Errorf("%d invoices", n)
	}
}

// near is for what depends on the second.
func near(t *testing.T, what, got string, want, within int) {
	t.Helper()
	n := 0
	for _, r := range got {
		if r < '0' || r > '9' {
			t.Errorf("%s is %q", what, got)
			return
		}
		n = n*10 + int(r-'0')
	}
	if n < want-within || n > want+within {
		t.Errorf("%s is %s, want about %d", what, got, want)
	}
}

// A downgrade takes back no more than what is left, and never makes debt; what is held is not touched.
func TestPlanDowngradeOfWhatWasSpent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0})
	large, small := w.plan(10000, "credits", "100", "credits_asset", "tokens"), w.plan(1000, "credits", "10", "credits_asset", "tokens")
	_, sub := w.subscribed("acme", large, 1, stripesim.Terms{})
	w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "asset": "tokens", "amount": "85"})
	w.must("POST", "/v1/holds", map[string]any{"customer": "acme", "asset": "tokens", "amount": "5", "expires_in": 900})
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "asset": "tokens", "amount": "2", "kind": "promotional"})
	w.did(w.sim.Operator().ChangePlan(sub, small, 1)) // at once: the share is all of it
	w.eventually("the change is booked", func() bool { return len(w.tokens("acme")) == 3 })
	w.has("acme", "tokens", "12")
	gs := w.tokens("acme")
	if gs[2].str("remaining") != "5" || gs[1].str("remaining") != "2" {
		t.Errorf("%v", gs)
	}
	wallet := w.must("GET", "/v1/wallets/"+gs[0].str("wallet"), nil)
	if wallet.str("balance.available") != "12" || wallet.str("balance.held") != "5" {
		t.Errorf("%v", wallet)
	}
}

// A change of plan that takes and gives at once does not look poor in between: no card is charged.
func TestPlanUpgradeRefillsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	small, large := w.plan(1000, "credits", "10"), w.plan(2000, "credits", "20")
	_, sub := w.subscribed("acme", small, 1, stripesim.Terms{})
	wallet := w.must("GET", "/v1/customers/acme", nil).str("wallets.0.id")
	if a := w.rule(wallet, map[string]any{"threshold": "8", "amount": "50"}); a.str("state") != "armed" {
		t.Fatal(a)
	}
	w.did(w.sim.Operator().ChangePlan(sub, large, 1))
	w.eventually("the change is booked", func() bool { return len(w.grants("acme")) == 2 })
	if g := w.grants("acme")[1]; g.str("status") != "voided" {
		t.Errorf("what was taken back whole is %s", g.str("status"))
	}
	if a := w.must("GET", "/v1/topups?customer=acme", nil); a.str("data") != "[]" {
		t.Errorf("%v", a)
	}
	if a := w.must("GET", "/v1/wallets/"+wallet, nil); a.str("auto_topup.state") != "armed" {
		t.Errorf("%v", a)
	}
}

// What was left of a period comes back with the renewal's payment: none, all of it and again, or at most so much.
func TestPlanRollsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wants := map[string][]string{ // available after each renewal; 4 of 10 are spent in the first period
		"none": {"10", "10", "10"}, "all": {"16", "26", "36"}, "3": {"13", "13", "13"}, "12.5": {"16", "22.5", "22.5"},
	}
	subs := make(map[string]string)
	for rollover := range wants {
		_, subs[rollover] = w.subscribed(rollover, w.plan(1000, "credits", "10", "credits_rollover", rollover, "credits_priority", "30"), 1, stripesim.Terms{})
		w.spend(rollover, "4")
	}
	for period := range 3 {
		w.toPeriodEnd(subs["all"])
		w.advance(time.Minute) // the last one's period too
		for rollover, want := range wants {
			if got := w.credit(rollover, "usd"); got != "0" {
				t.Errorf("%s: %s between the end and the payment", rollover, got)
			}
			in := w.did(w.sim.Operator().CollectNow(subs[rollover]))
			w.has(rollover, "usd", want[period])
			for _, g := range w.grants(rollover) {
				if g.str("reason") == "rollover" && (g.str("kind") != "plan" || g.str("priority") != "30" || g.str("source.type") != "stripe_invoice") {
					t.Errorf("%v", g.m)
				}
			}
			if g := w.grants(rollover)[0]; rollover != "none" && (g.str("reason") != "rollover" || g.str("source.id") != in) {
				t.Errorf("%s: %v", rollover, g.m)
			}
		}
	}
	gs := w.grants("all") // 6 of the first period's 10, which cost 10.00
	if g := gs[len(gs)-3]; g.str("cost.amount") != "600" {
		t.Errorf("%v", g.m)
	}
}

// Without the renewal's payment nothing is carried over; paid late, it is.
func TestPlanRollsOverWhenPaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stripeID, sub := w.subscribed("acme", w.plan(1000, "credits", "10", "credits_rollover", "all"), 2, stripesim.Terms{})
	w.spend("acme", "5")
	w.card(stripeID, "pm_card_chargeCustomerFail")
	w.toPeriodEnd(sub)
	if _, err := w.sim.Operator().CollectNow(sub); err == nil {
		t.Fatal("the card paid")
	}
	w.advance(3 * day)
	w.quietEvents()
	if got := w.credit("acme", "usd"); got != "0" {
		t.Errorf("%s without a payment", got)
	}
	w.card(stripeID, "pm_card_visa")
	s, _ := w.sim.Subscription(sub)
	w.did(w.sim.Operator().PayInvoice(s.LatestInvoice, false))
	w.has("acme", "usd", "35")
	if gs := w.grants("acme"); len(gs) != 3 || gs[0].str("amount") != "15" || gs[0].str("cost.amount") != "1500" || gs[0].str("expires_at") != gs[1].str("expires_at") {
		t.Errorf("%v", gs)
	}
}

// Where our clock is behind Stripe's, a renewal that is paid finds the old period's credit still there: it ends now,
// and is there once.
func TestPlanRollsOverAheadOfOurClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, sub := w.subscribed("acme", w.plan(1000, "credits", "10", "credits_rollover", "7"), 1, stripesim.Terms{})
	s, _ := w.sim.Subscription(sub)
	w.advance(s.PeriodEnd.Sub(w.sim.Now()) - time.Minute)
	w.sim.Advance(61 * time.Second) // Stripe's alone
	w.did(w.sim.Operator().CollectNow(sub))
	w.has("acme", "usd", "17")
	if gs := w.grants("acme"); len(gs) != 3 || gs[2].str("status") != "expired" || gs[2].str("remaining") != "0" {
		t.Errorf("%v", gs)
	}
	w.clock.add(s.PeriodEnd.Sub(w.clock.now()) + 2*time.Second)
	if got := w.credit("acme", "usd"); got != "17" {
		t.Errorf("%s when our clock has come there", got)
	}
}

// A renewal or a change of plan that is heard of before what it builds on is booked after it: the end is the same in
// whatever order the events come, or when they have to be fetched.
func TestPlanEventsInAnyOrder(t *testing.T) {
	t.Parallel()
	story := func(w *world, sub, small, large string) {
		w.quietEvents()
		w.turn(sub)
		w.quietEvents()
		w.halfway(sub)
		w.did(w.sim.Operator().ChangePlan(sub, large, 1))
		w.quietEvents()
		w.advance(6 * time.Hour)
		w.did(w.sim.Operator().ChangePlan(sub, small, 1))
		w.quietEvents()
		w.turn(sub)
	}
	for name, fault := range map[string]stripesim.DeliveryFault{
		"as they happen": {Kind: stripesim.LoseOnce, Type: "customer.created"},
		"all held back":  {Kind: stripesim.Hold, Type: "invoice.paid", Times: -1}, // released the newest first
		"only fetched":   {Kind: stripesim.Lose, Type: "invoice.paid", Times: -1},
		"the first late": {Kind: stripesim.Hold, Type: "invoice.paid"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0})
			_, stripeID := w.customer("acme", "", "pm_card_visa")
			weekly := func(unit int64, credits string) string { // Stripe forgets events after a month
				return w.priced(stripesim.NewPrice{Unit: unit, Interval: "week",
					Metadata: pairs([]string{"credits", credits, "credits_rollover", "all", "credits_asset", "tokens"})})
			}
			small, large := weekly(10000, "100"), weekly(40000, "500")
			w.backfilled()
			w.sim.InjectDelivery(fault)
			sub := w.did(w.sim.Operator().Subscribe(stripeID, small, 1, stripesim.Terms{}))
			story(w, sub, small, large)
			w.quietEvents()
			w.sim.Release()
			if fault.Kind == stripesim.Lose {
				w.clock.add(time.Second)
				if err := w.g.backfill(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			w.quietEvents()
			// 100 carried over; half of 100 taken back and half of 500 given; the same back but for a day; then all of it carried over.
			var total, n int
			for _, in := range w.sim.Invoices(stripeID) {
				if in.Status == "paid" {
					n++
				}
			}
			if err := w.g.ledger.DB().Get(&total, `select count(*) from sales`); err != nil || total != n {
				t.Errorf("%d of %d invoices booked: %v", total, n, err)
			}
			if gs := w.tokens("acme"); len(gs) != 7 {
				t.Errorf("%d grants: %s", len(gs), w.told("acme"))
			}
			near(t, "available", w.credit("acme", "tokens"), 308, 8)
			if t.Failed() {
				t.Log(w.told("acme"))
			}
		})
	}
}

// tokens are a customer's grants of tokens; in money there may be more, from Stripe.
func (w *world) tokens(customer string) []answer {
	w.t.Helper()
	return slices.DeleteFunc(w.grants(customer), func(g answer) bool { return g.str("source.type") == "stripe_balance" })
}

// told are the types of a customer's entries and amounts in order.
func (w *world) told(customer string) (story string) {
	w.t.Helper()
	if err := w.g.ledger.DB().Get(&story, `select string_agg(e.type || ':' || e.amount, ' ' order by e.seq)
		from entries e join wallets w on w.bucket = e.bucket and w.id = e.wallet_id where w.customer_id = $1`, customer); err != nil {
		w.t.Fatal(err)
	}
	return story
}
