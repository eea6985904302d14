package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// refill is a rule of 20.00 when below 5.00, at most capCents a month; 0 is no cap.
func refill(capCents int64) map[string]any {
	rule := map[string]any{"enabled": true, "threshold": "5", "amount": "20"}
	if capCents > 0 {
		rule["spend_cap"] = map[string]any{"amount": capCents, "currency": "usd", "interval": "month"}
	}
	return rule
}

// armed is a customer with 10.00, a card, and the rule.
func (w *world) armed(customer, card string, capCents int64) (wallet, stripeID string) {
	w.t.Helper()
	wallet, stripeID = w.customer(customer, "10", card)
	if a := w.rule(wallet, refill(capCents)); a.str("state") != "armed" {
		w.t.Fatalf("the rule is not armed: %v", a)
	}
	return wallet, stripeID
}

func (w *world) spend(customer, amount string) answer {
	w.t.Helper()
	return w.must("POST", "/v1/usage", map[string]any{"customer": customer, "amount": amount})
}

func (w *world) state(wallet string) (state, reason string) {
	w.t.Helper()
	a := w.call("GET", "/v1/wallets/"+wallet, nil)
	return a.str("auto_topup.state"), a.str("auto_topup.pause.reason")
}

// paid waits until the customer has that much, then makes sure that it came of exactly charges of 20.00.
func (w *world) paid(customer, stripeID, available string, charges int) {
	w.t.Helper()
	w.eventually(customer+" has "+available, func() bool { return w.available(customer) == available })
	succeeded := 0
	for _, ch := range w.sim.Charges(stripeID) {
		if ch.Status == "succeeded" {
			succeeded++
		}
	}
	if succeeded != charges {
		w.t.Errorf("%d charges succeeded, want %d", succeeded, charges)
	}
}

// The main job: usage drains the balance, the crossing charges the card, and both ledgers show the same.
func TestUsageToRefillToStripe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.armed("acme", "pm_card_visa", 10000)
	w.inStep("acme")
	if a := w.spend("acme", "6"); a.str("balance.available") != "4" {
		t.Errorf("the debit that crossed: %v", a)
	}
	w.paid("acme", stripeID, "24", 1)
	w.inStep("acme")
	a := w.call("GET", "/v1/topups?customer=acme", nil)
	if a.str("data.0.status") != "succeeded" || a.str("data.0.trigger") != "auto" || a.str("data.0.charge.amount") != "2000" {
		t.Errorf("top-up: %v", a)
	}
	pi := w.sim.PaymentIntents(stripeID)[0]
	if pi.Metadata["lockstep_topup"] != a.str("data.0.id") || pi.ID != a.str("data.0.stripe.payment_intent") {
		t.Errorf("the payment does not name its top-up: %+v", pi)
	}
	for _, bt := range w.sim.BalanceTransactions(stripeID) {
		if bt.Type != "adjustment" || bt.Metadata["lockstep_from"] == "" || bt.Metadata["lockstep_to"] == "" {
			t.Errorf("balance transaction %+v does not name its entries", bt)
		}
	}
	if s, _ := w.state(wallet); s != "armed" {
		t.Errorf("rule is %s", s)
	}
}

// However many debits from however many sides drain a wallet again and again, no more is ever charged than
// the cap, and at most one payment is in flight.
func TestCapUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	peer := w.peer()
	_, stripeID := w.armed("acme", "pm_card_visa", 9999) // four of 20.00, not five
	// Some answers are lost after the charge was made, some calls never arrive.
	for _, kind := range []stripesim.FaultKind{stripesim.DropAfter, stripesim.DropBefore, stripesim.LockTimeout} {
		w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/payment_intents", Kind: kind})
	}
	var wg sync.WaitGroup
	end := time.Now().Add(time.Minute)
	var mu sync.Mutex
	booked := 0
	for i := range 16 {
		side := []*world{w, peer}[i%2]
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				a := side.call("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "1", "idempotency_key": fmt.Sprint(i, "-", n)})
				mu.Lock()
				if a.status == http.StatusOK {
					booked++
				}
				total := booked
				mu.Unlock()
				if total >= 90 {
					return
				}
				if a.status != http.StatusOK {
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	w.eventually("the rule is at its cap", func() bool {
		a := w.call("GET", "/v1/customers/acme", nil)
		return a.str("wallets.0.auto_topup.pause.reason") == "spend_cap"
	})
	if booked != 90 {
		t.Errorf("%d debits of 1 on 10 and four refills of 20", booked)
	}
	charged := int64(0)
	for _, ch := range w.sim.Charges(stripeID) {
		charged += ch.Amount
	}
	if charged != 8000 {
		t.Errorf("%d was charged under a cap of 9999", charged)
	}
	a := w.call("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "1"})
	if a.status != http.StatusPaymentRequired || a.str("error.auto_topup.pause.reason") != "spend_cap" {
		t.Errorf("at the cap: %v", a)
	}
	w.inStep("acme")
}

// Whatever happens to the call, the card is charged once and the credit granted once.
func TestChargeUnderFaults(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string][]stripesim.Fault{
		"the answer is lost after the charge":    {{Kind: stripesim.DropAfter}},
		"and lost again":                         {{Kind: stripesim.DropAfter}, {Kind: stripesim.DropAfter}, {Kind: stripesim.DropAfter}},
		"the call never arrives":                 {{Kind: stripesim.DropBefore}},
		"half the answer":                        {{Kind: stripesim.TruncateBody}},
		"a saved 500 after the charge":           {{Kind: stripesim.Error500After}},
		"too many calls":                         {{Kind: stripesim.RateLimited}, {Kind: stripesim.RateLimited}},
		"the customer is locked":                 {{Kind: stripesim.LockTimeout}},
		"the key is in use":                      {{Kind: stripesim.Conflict}},
		"Stripe is away":                         {{Kind: stripesim.Unavailable}},
		"Stripe is away for longer":              {{Kind: stripesim.Unavailable, Times: 7}},
		"the key was wrong for a moment":         {{Kind: stripesim.Unauthorized}},
		"the webhook comes before the answer":    {{Kind: stripesim.Slow, Delay: time.Millisecond, EventFirst: true}},
		"the webhook comes, the answer does not": {{Kind: stripesim.DropAfter, EventFirst: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *worldOptions) { o.backfill = time.Second })
			_, stripeID := w.armed("acme", "pm_card_visa", 2000)
			for _, f := range faults {
				f.Method, f.Path = "POST", "/v1/payment_intents"
				w.sim.Inject(f)
			}
			w.spend("acme", "6")
			w.paid("acme", stripeID, "24", 1)
			w.inStep("acme")
			if n := len(w.sim.PaymentIntents(stripeID)); n != 1 {
				t.Errorf("%d payments", n)
			}
		})
	}
}

// A saved 500 without an effect tells nothing: the top-up stays in flight, and nothing is charged beside it.
func TestUnknownOutcomeIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.armed("acme", "pm_card_visa", 2000)
	w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/payment_intents", Kind: stripesim.Error500Before})
	w.spend("acme", "6")
	time.Sleep(3 * time.Second) // several tries
	if s, _ := w.state(wallet); s != "topping_up" || len(w.sim.Charges(stripeID)) != 0 {
		t.Fatalf("rule is %s with %d charges", s, len(w.sim.Charges(stripeID)))
	}
	if a := w.call("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "20"}); a.str("error.code") != "topup_in_flight" {
		t.Errorf("another beside it: %v", a)
	}
	// A day later no key of ours could make it any more, and Stripe has no such payment: it is over.
	w.advance(26 * time.Hour)
	w.eventually("the top-up is given up", func() bool {
		return w.call("GET", "/v1/topups?customer=acme", nil).str("data.0.status") == "failed"
	})
	if s, reason := w.state(wallet); s != "paused" || reason != "payment_failed" {
		t.Errorf("rule is %s for %s", s, reason)
	}
	w.must("POST", "/v1/wallets/"+wallet+"/auto_topup/resume", nil)
	w.paid("acme", stripeID, "24", 1)
}

// A webhook that is lost, doubled, twinned, reordered or kept for long changes nothing.
func TestWebhooksUnderFaults(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]stripesim.DeliveryFaultKind{
		"lost":                  stripesim.Lose,
		"lost once":             stripesim.LoseOnce,
		"doubled":               stripesim.Duplicate,
		"two events for one":    stripesim.Twin,
		"held and reordered":    stripesim.Hold,
		"of another API":        stripesim.WrongAPIVersion,
		"signed by a stranger":  stripesim.WrongSecret,
		"stale":                 stripesim.StaleTimestamp,
		"larger than any event": stripesim.HugeBody,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *worldOptions) { o.backfill = time.Second })
			_, stripeID := w.armed("acme", "pm_card_visa", 0)
			w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: kind, Times: -1})
			// The answer to the call is lost for good: the event alone tells.
			w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/payment_intents", Kind: stripesim.DropAfter, Times: 5})
			w.spend("acme", "6")
			w.paid("acme", stripeID, "24", 1)
			w.sim.Release()
			if _, err := w.sim.Operator().AdjustBalance(stripeID, -300, "usd", "goodwill"); err != nil {
				t.Fatal(err)
			}
			w.eventually("the goodwill is booked", func() bool { return w.available("acme") == "27" })
			w.inStep("acme")
			w.paid("acme", stripeID, "27", 1)
		})
	}
}

// Events of the payment that come late, early and in any order leave what the payment has come to.
func TestEventsOutOfOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.armed("acme", "pm_card_authenticationRequired", 0)
	w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Hold, Times: -1})
	w.spend("acme", "6")
	top := w.paged("")
	w.pay(top, "pm_card_visa")
	w.sim.ClearFaults()
	w.sim.Release() // newest first: succeeded before canceled, before payment_failed
	w.paid("acme", stripeID, "24", 1)
	if err := w.sim.Settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // whatever still comes is worked off
	w.paid("acme", stripeID, "24", 1)
	w.inStep("acme")
}

// A decline pauses the rule with its reason; the same card again clears nothing, another card does.
func TestDeclineAndAnotherCard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.armed("acme", "pm_card_chargeCustomerFail", 4000)
	w.spend("acme", "6")
	paused := func() bool { s, reason := w.state(wallet); return s == "paused" && reason == "payment_failed" }
	w.eventually("the rule is paused", paused)
	tries := len(w.sim.PaymentIntents(stripeID))
	bad := w.sim.Customers()[0].DefaultPaymentMethod
	if _, err := w.sim.Operator().SetDefaultPaymentMethod(stripeID, bad); err != nil {
		t.Fatal(err)
	}
	if _, err := w.sim.Operator().AdjustBalance(stripeID, -100, "usd", "so that an event comes"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the event was worked off", func() bool { return w.available("acme") == "5" })
	if !paused() || len(w.sim.PaymentIntents(stripeID)) != tries {
		t.Error("the same card again cleared the pause")
	}
	if a := w.call("GET", "/v1/wallets/"+wallet, nil); a.str("auto_topup.spent.amount") != "0" || a.str("balance.pending") != "0" {
		t.Errorf("a declined charge holds on to the cap or the balance: %v", a)
	}
	w.spend("acme", "1")
	w.card(stripeID, "pm_card_visa")
	w.paid("acme", stripeID, "24", 1)
	w.inStep("acme")
}

// A payment that needs the customer is canceled at Stripe before another is made in its place.
func TestAuthenticationRequired(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.armed("acme", "pm_card_authenticationRequired", 2000)
	w.spend("acme", "6")
	w.eventually("the rule is paused", func() bool { _, reason := w.state(wallet); return reason == "action_required" })
	if a := w.call("GET", "/v1/wallets/"+wallet, nil); a.str("auto_topup.spent.amount") != "2000" {
		t.Errorf("the payment may still be made, and is not in the cap: %v", a)
	}
	w.paged("")
	w.card(stripeID, "pm_card_visa")
	w.paid("acme", stripeID, "24", 1)
	canceled := 0
	for _, pi := range w.sim.PaymentIntents(stripeID) {
		if pi.Status == "canceled" {
			canceled++
		}
	}
	if canceled != 1 {
		t.Errorf("%d payments canceled, want 1", canceled)
	}
	w.inStep("acme")
}

// No card: the rule says so, and acts when there is one.
func TestNoCard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.armed("acme", "", 0)
	w.spend("acme", "6")
	w.eventually("the rule is paused", func() bool { _, reason := w.state(wallet); return reason == "no_payment_method" })
	w.card(stripeID, "pm_card_visa")
	w.paid("acme", stripeID, "24", 1)
}

// What strangers do to the balance in Stripe is booked once: credit as a grant, debits from credit that may
// pay invoices, and beyond it as debt that the next credit pays down.
func TestStrangersTransactions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	peer := w.peer()
	_, stripeID := w.customer("acme", "10", "")
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "3", "kind": "promotional"})
	w.inStep("acme")
	w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Twin, Times: -1})
	for i, step := range []struct {
		amount int64
		want   string
	}{{-500, "18"}, {1200, "6"}, {600, "0"}, {-100, "1"}} {
		if _, err := w.sim.Operator().AdjustBalance(stripeID, step.amount, "usd", "step "+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		w.eventually(fmt.Sprintf("step %d leaves %s", i, step.want), func() bool { return peer.available("acme") == step.want })
		w.inStep("acme")
	}
	entries := w.call("GET", "/v1/wallets/"+w.call("GET", "/v1/customers/acme", nil).str("wallets.0.id")+"/entries", nil)
	booked := 0
	for _, e := range entries.list() {
		if e.str("type") == "stripe_balance" {
			booked++
		}
	}
	if booked != 4 {
		t.Errorf("%d of 4 transactions booked", booked)
	}
}

// A balance transaction whose answer is lost, or that Stripe answers with an error, is made once.
func TestMirrorUnderFaults(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]stripesim.FaultKind{
		"the answer is lost":            stripesim.DropAfter,
		"the call is lost":              stripesim.DropBefore,
		"half the answer":               stripesim.TruncateBody,
		"a saved 500 after the effect":  stripesim.Error500After,
		"a saved 500 without an effect": stripesim.Error500Before,
		"locked":                        stripesim.LockTimeout,
		"too many calls":                stripesim.RateLimited,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			_, stripeID := w.customer("acme", "", "")
			times := 2
			if kind == stripesim.Error500Before {
				times = 1 // each is looked for a while before another is made in its place
			}
			w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/customers/*", Kind: kind, Times: times})
			w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "10", "kind": "purchased"})
			w.eventually("the grant is in Stripe", func() bool { c, _ := w.sim.Customer(stripeID); return c.Balance == -1000 })
			w.spend("acme", "1.239")
			w.eventually("the debit is in Stripe", func() bool { c, _ := w.sim.Customer(stripeID); return c.Balance == -876 })
			w.inStep("acme")
		})
	}
}

// Many debits make few balance transactions, and promotional credit makes none.
func TestMirrorCoalesces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *worldOptions) { o.mirror = 500 * time.Millisecond })
	_, stripeID := w.customer("acme", "10", "")
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "5", "kind": "promotional"})
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() { w.spend("acme", "0.05") })
	}
	wg.Wait()
	w.inStep("acme")
	if c, _ := w.sim.Customer(stripeID); c.Balance != 0 {
		t.Errorf("balance %d after all was spent", c.Balance)
	}
	if n := len(w.sim.BalanceTransactions(stripeID)); n > 12 {
		t.Errorf("%d balance transactions for 300 debits", n)
	}
}

// However much there is to tell Stripe, it is told no faster than its test mode allows.
func TestRateLimitIsRespected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *worldOptions) {
		o.rateLimit = 25
		o.config = func(c *config) { c.StripeRate = 0 } // the default for a test key
	})
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			id := fmt.Sprint("c", i)
			w.must("POST", "/v1/customers", map[string]any{"id": id})
			w.must("POST", "/v1/grants", map[string]any{"customer": id, "amount": "10", "kind": "purchased"})
		})
	}
	wg.Wait()
	w.eventually("every balance is in Stripe", func() bool {
		for _, c := range w.sim.Customers() {
			if c.Balance != -1000 {
				return false
			}
		}
		return true
	})
	for _, r := range w.sim.Requests() {
		if r.Status == http.StatusTooManyRequests {
			t.Fatalf("%s %s was too much", r.Method, r.Path)
		}
	}
}
