package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"lockstep/handlers"
	"lockstep/stripeutil/stripesim"
)

// boughtBy tops the customer up by hand and answers the payment, and the charge, that paid for it.
func (w *world) boughtBy(customer, stripeID, amount string) (paymentIntent, charge string) {
	w.t.Helper()
	a := w.must("POST", "/v1/topups", map[string]any{"customer": customer, "amount": amount})
	if a.str("status") != "succeeded" {
		w.t.Fatalf("top-up: %v", a)
	}
	paymentIntent = a.str("stripe.payment_intent")
	for _, ch := range w.sim.Charges(stripeID) {
		if string(ch.PaymentIntent) == paymentIntent {
			return paymentIntent, ch.ID
		}
	}
	w.t.Fatalf("payment %s has no charge", paymentIntent)
	return "", ""
}

// left waits until the customer's first wallet has so much available.
func (w *world) left(customer, available string) {
	w.t.Helper()
	w.eventually(customer+" has "+available, func() bool { return w.available(customer) == available })
}

// operate does something at Stripe's dashboard.
func operate(t *testing.T) func(id string, err error) string {
	return func(id string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
}

// A refund takes back what it bought: from the bought grant, then from what else there is, then as debt that the next
// grant pays down. Several refunds take what one of their sum would; one that fails gives back what it took.
func TestRefunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	do := operate(t)
	wallet, stripeID := w.customer("acme", "", "pm_card_visa")
	pi, _ := w.boughtBy("acme", stripeID, "20")
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "3", "kind": "purchased", "priority": 90})
	op := w.sim.Operator()
	first := do(op.Refund(pi, 701))
	w.left("acme", "15.99")
	w.inStep("acme")
	do(op.Refund(pi, 99))
	w.left("acme", "15")
	w.spend("acme", "12") // of the bought grant
	do(op.Refund(pi, 0))  // 12.00: nothing of it left, 3 elsewhere, and 9 is owed
	w.left("acme", "-9")
	entries := w.must("GET", "/v1/wallets/"+wallet+"/entries", nil)
	if entries.str("data.0.type") != "refund" || entries.str("data.0.amount") != "-12" || entries.str("data.0.parts.1.grant") != "" {
		t.Errorf("the refund's entry: %v", entries)
	}
	w.inStep("acme")
	if a := w.usage("acme", "0.01"); a.status != 402 {
		t.Errorf("usage in debt: %v", a)
	}
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "10", "kind": "purchased"})
	w.left("acme", "1")
	do(op.FailRefund(first))
	w.left("acme", "8.01")
	w.inStep("acme")
	if a := w.must("GET", "/v1/wallets/"+wallet+"/entries", nil); a.str("data.0.type") != "refund" || a.str("data.0.amount") != "7.01" {
		t.Errorf("the refund that failed: %v", a)
	}
}

// A dispute takes back and pauses; won, the same amounts go back to the same grants, and the rule is armed again; lost,
// it stays. An inquiry moves nothing.
func TestDisputes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	do := operate(t)
	wallet, stripeID := w.customer("acme", "", "pm_card_visa")
	_, charge := w.boughtBy("acme", stripeID, "20")
	_, other := w.boughtBy("acme", stripeID, "30")
	if a := w.rule(wallet, refill(0)); a.str("state") != "armed" {
		t.Fatal(a)
	}
	op := w.sim.Operator()
	w.spend("acme", "5")
	dispute := do(op.OpenDispute(charge, "fraudulent"))
	w.left("acme", "25")
	w.eventually("the rule is paused", func() bool { state, reason := w.state(wallet); return state == "paused" && reason == "dispute" })
	w.spend("acme", "21") // below the threshold, and nothing is charged
	w.must("POST", "/v1/wallets/"+wallet+"/auto_topup/resume", nil)
	if state, reason := w.state(wallet); state != "paused" || reason != "dispute" {
		t.Errorf("resumed while the dispute is open: %s %s", state, reason)
	}
	do(op.CloseDispute(dispute, true))
	w.left("acme", "24") // 4 + 20, which is no longer below 5
	w.eventually("the rule is armed", func() bool { state, _ := w.state(wallet); return state == "armed" })
	w.inStep("acme")

	inquiry := do(op.OpenInquiry(other, "general"))
	do(op.CloseDispute(inquiry, false))
	_, last := w.boughtBy("acme", stripeID, "10")
	lost := do(op.OpenDispute(last, "fraudulent"))
	w.left("acme", "24")
	do(op.CloseDispute(lost, false))
	w.eventually("the rule is armed after a lost dispute", func() bool { state, _ := w.state(wallet); return state == "armed" })
	if w.available("acme") != "24" {
		t.Errorf("after a lost dispute: %s", w.available("acme"))
	}
	w.inStep("acme")
	var told string
	if err := w.g.ledger.DB().Get(&told, `select string_agg(type, ' ' order by id) from events where type like 'dispute.%'`); err != nil {
		t.Fatal(err)
	}
	if told != "dispute.opened dispute.closed dispute.opened dispute.closed" {
		t.Errorf("told: %s", told)
	}
}

// Whatever becomes of the events, twice, in another order, delayed, or lost but for the backfill, and before whatever
// else, the books end the same.
func TestClawbacksOfScrambledEvents(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]stripesim.DeliveryFaultKind{"lost": stripesim.Lose, "twice": stripesim.Duplicate, "twins": stripesim.Twin, "late": stripesim.LoseOnce, "held": stripesim.Hold} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *worldOptions) { o.backfill = time.Second })
			do := operate(t)
			w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: kind, Times: 1000})
			_, stripeID := w.customer("acme", "", "pm_card_visa")
			pi, charge := w.boughtBy("acme", stripeID, "20")
			_, disputed := w.boughtBy("acme", stripeID, "10")
			op := w.sim.Operator()
			re := do(op.Refund(pi, 500))
			do(op.Refund(charge, 300))
			do(op.FailRefund(re))
			d := do(op.OpenDispute(disputed, "fraudulent"))
			do(op.CloseDispute(d, true))
			w.sim.Release()
			w.within(40*time.Second, "27 are left", func() bool { return w.available("acme") == "27" })
			w.inStep("acme")
			time.Sleep(300 * time.Millisecond) // what still comes changes nothing
			if w.available("acme") != "27" {
				t.Errorf("later: %s", w.available("acme"))
			}
		})
	}
}

// Refunds of a random cut of a payment, between random spending, from two gateways: the sum that went back is the sum
// that was taken back.
func TestRandomRefunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	do := operate(t)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 3))
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0, "price_per_unit": "0.007", "currency": "usd"})
	w.customer("acme", "", "pm_card_visa")
	a := w.must("POST", "/v1/topups", map[string]any{"customer": "acme", "asset": "tokens", "amount": "3333"})
	pi := a.str("stripe.payment_intent")
	wallet := a.str("wallet")
	charged, spent, back := int64(2334), int64(0), int64(0) // 3333 × 0.7 cents, rounded up
	var refunds []string
	for range 12 {
		if n := rng.Int64N(charged-back) / 2; n > 0 {
			refunds = append(refunds, do(w.sim.Operator().Refund(pi, n)))
			back += n
		}
		if a := w.call("POST", "/v1/usage", map[string]any{"customer": "acme", "asset": "tokens", "amount": fmt.Sprint(1 + rng.IntN(100))}); a.status == 200 {
			var n int64
			if _, err := fmt.Sscan(a.str("amount"), &n); err != nil {
				t.Fatal(err)
			}
			spent += n
		}
	}
	want := fmt.Sprint(3333 - spent - 3333*back/charged)
	w.eventually(fmt.Sprintf("seed %d: %s are left", seed, want), func() bool {
		return w.must("GET", "/v1/wallets/"+wallet, nil).str("balance.available") == want
	})
	for _, re := range refunds {
		do(w.sim.Operator().FailRefund(re))
	}
	w.eventually("all is given back", func() bool {
		return w.must("GET", "/v1/wallets/"+wallet, nil).str("balance.available") == fmt.Sprint(3333-spent)
	})
	w.inStep("acme")
}

// What Stripe sold goes back as a top-up does: a pack's credit, and a plan's, by the share of the payment that went back,
// whoever the payment names, and also where the refund is heard of before the sale.
func TestRefundsOfSales(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]string{"in order": "", "the refund first": "checkout.session.completed"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.customer("acme", "", "")
			_, other := w.customer("other", "", "pm_card_visa")
			if late != "" {
				w.sim.InjectDelivery(stripesim.DeliveryFault{Type: late, Kind: stripesim.Hold})
			}
			pack := w.priced(stripesim.NewPrice{Unit: 1000, Metadata: map[string]string{"credits": "40"}})
			session := w.bought(stripesim.Link{Price: pack, ClientReference: "acme", Customer: other}, "pm_card_visa")
			pi := string(w.sim.Session(session).PaymentIntent)
			operate(t)(w.sim.Operator().Refund(pi, 250))
			if late != "" {
				w.quietEvents()
				w.sim.Release()
			}
			w.has("acme", "usd", "30")
			re := operate(t)(w.sim.Operator().Refund(pi, 0))
			w.has("acme", "usd", "0")
			operate(t)(w.sim.Operator().FailRefund(re))
			w.has("acme", "usd", "30")
			w.inStep("acme")
		})
	}
}

// Killed after a refund's credit was taken back and before its event was marked done, the service takes nothing twice.
func TestKilledWhileClawingBack(t *testing.T) {
	t.Parallel()
	w := detached(t)
	first := w.spawn("")
	w.base = first.base
	_, stripeID := w.customer("acme", "", "pm_card_visa")
	pi, _ := w.boughtBy("acme", stripeID, "20")
	w.inStepWithin(30*time.Second, "acme")
	acted := handlers.EventTypes()
	w.within(30*time.Second, "all that came before the refund is done", func() bool {
		return !slices.ContainsFunc(w.sim.Events(), func(e stripesim.Event) bool { return slices.Contains(acted, e.Type) && w.stored(e.ID) != "done" })
	})
	_ = first.cmd.Process.Kill()
	<-first.done

	operate(t)(w.sim.Operator().Refund(pi, 500)) // heard of by the backfill
	w.spawn("event.applied").killed(t)
	if got := w.balanceInBooks("acme"); got != 15_000_000 {
		t.Fatalf("killed with %d steps in the books, not after the refund was booked", got)
	}
	w.base = w.spawn("").base
	w.within(60*time.Second, "the refund is booked", func() bool { return w.available("acme") == "15" })
	w.within(60*time.Second, "every event is done", func() bool {
		var pending int
		err := w.g.ledger.DB().Get(&pending, `select count(*) from stripe_events where status = 'pending'`)
		return err == nil && pending == 0
	})
	if w.available("acme") != "15" {
		t.Errorf("%s available", w.available("acme"))
	}
	w.inStepWithin(60*time.Second, "acme")
}

// balanceInBooks is a customer's total as the database has it, with nobody to ask.
func (w *world) balanceInBooks(customer string) (total int64) {
	w.t.Helper()
	if err := w.g.ledger.DB().Get(&total, `select sum(total) from wallets where customer_id = $1`, customer); err != nil {
		w.t.Fatal(err)
	}
	return total
}
