package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// deleted waits until a customer's books are closed.
func (w *world) deleted(customer string) {
	w.t.Helper()
	w.within(40*time.Second, customer+" is deleted here too", func() bool { return w.call("GET", "/v1/customers/"+customer, nil).str("status") == "deleted" })
}

// A customer deleted in Stripe takes everything with it that could still move money: the rule is off, pages and payments
// that wait are ended, and the mirror has stopped, which nobody calls drift. What was there stays in the books.
func TestDeletedCustomerEndsWhatIsOpen(t *testing.T) {
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "12", "pm_card_visa")
	w.rule(wallet, refill(0))
	w.inStep("acme")
	page := w.must("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "20", "mode": "checkout", "success_url": "https://app.example/done"})
	other, otherID := w.armed("other", "pm_card_authenticationRequired", 0)
	w.spend("other", "6")
	w.eventually("a page waits for its customer", func() bool { return w.call("GET", "/v1/topups?customer=other", nil).str("data.0.url") != "" })
	w.inStep("other")
	w.spend("acme", "1.5") // perhaps not flushed any more
	for _, id := range []string{stripeID, otherID} {
		w.did(w.sim.Operator().DeleteCustomer(id))
	}
	w.deleted("acme")
	w.deleted("other")
	w.becomes(page, "canceled")
	w.eventually("the payment is canceled", func() bool { return w.call("GET", "/v1/topups?customer=other", nil).str("data.0.status") == "canceled" })
	if a := w.sim.Session(page.str("stripe.checkout_session")); a.Status != "expired" {
		t.Errorf("the page is %s", a.Status)
	}
	if pi := w.sim.PaymentIntents(otherID)[0]; pi.Status != "canceled" {
		t.Errorf("the payment is %s", pi.Status)
	}
	for _, id := range []string{wallet, other} {
		if state, _ := w.state(id); state != "disabled" && state != "paused" {
			t.Errorf("a rule is %s", state)
		}
		if a := w.must("GET", "/v1/wallets/"+id+"/auto_topup", nil); a.str("enabled") != "false" {
			t.Errorf("%v", a)
		}
		if a := w.must("GET", "/v1/wallets/"+id, nil); a.str("balance.pending") != "0" || a.str("balance.total") == "0" {
			t.Errorf("%v", a)
		}
		w.refused("a rule", w.rule(id, refill(0)), refusal{409, "conflict", "state_conflict", "id"})
	}
	a := w.must("GET", "/v1/customers/acme/lockstep", nil)
	if a.str("state") != "unknown" || a.str("drift") != "0" || !strings.Contains(a.str("explanation"), "deleted in Stripe") {
		t.Errorf("%v", a)
	}
	r := w.must("POST", "/v1/reconcile", map[string]any{"repair": true})
	if len(r.at("findings").([]any)) != 2 || r.str("findings.0.kind") != "customer_deleted" || r.str("findings.0.drift") != "0" {
		t.Errorf("%v", r)
	}
	var told int
	if err := w.g.ledger.DB().Get(&told, `select count(*) from events where type = 'lockstep.drift'`); err != nil || told != 0 {
		t.Errorf("%d times drift was told of: %v", told, err)
	}
	if out, code := w.command("verify"); code != 0 {
		t.Errorf("%s", out)
	}
	// Whoever asks or writes in vain: no call is made for the balance any more.
	calls := len(w.sim.Requests())
	w.must("POST", "/v1/reconcile", nil)
	w.quietEvents()
	for _, r := range w.sim.Requests()[calls:] {
		if strings.Contains(r.Path, "/customers/") {
			t.Errorf("%s %s", r.Method, r.Path)
		}
	}
}

// A payment whose outcome nobody knew when its customer was deleted is still found: what was charged is credited, in books
// that nothing is spent from.
func TestDeletedCustomerWhosePaymentWentThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *worldOptions) { o.backfill = time.Hour })
	wallet, stripeID := w.armed("acme", "pm_card_visa", 0)
	w.inStep("acme")
	w.sim.InjectDelivery(stripesim.DeliveryFault{Type: "payment_intent.succeeded", Kind: stripesim.Lose, Times: -1})
	w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/payment_intents", Kind: stripesim.DropAfter, Times: 12})
	w.spend("acme", "6")
	w.eventually("the card was charged", func() bool { return len(w.sim.Charges(stripeID)) == 1 })
	w.did(w.sim.Operator().DeleteCustomer(stripeID))
	w.deleted("acme")
	w.within(60*time.Second, "the payment is credited", func() bool {
		return w.must("GET", "/v1/wallets/"+wallet, nil).str("balance.total") == "24"
	})
	if a := w.must("GET", "/v1/topups?customer=acme", nil); a.str("data.0.status") != "succeeded" || len(w.sim.Charges(stripeID)) != 1 {
		t.Errorf("%v", a)
	}
	w.refused("usage", w.usage("acme", "1"), refusal{409, "conflict", "wallet_frozen", "customer"})
	w.must("POST", "/v1/reconcile", map[string]any{"repair": true})
	if state, _ := w.state(wallet); state != "disabled" {
		t.Errorf("the rule is %s", state)
	}
}

// Where the event is lost for good, the first refusal to write, or the next look, tells as well.
func TestDeletedCustomerWhoseEventIsLost(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]func(*world){
		"a flush is refused": func(w *world) { w.spend("acme", "1") },
		"somebody looks":     func(w *world) { w.must("POST", "/v1/reconcile", map[string]any{"customer": "acme", "repair": true}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quiet)
			_, stripeID := w.customer("acme", "10", "")
			w.inStep("acme")
			w.did(w.sim.Operator().DeleteCustomer(stripeID))
			look(w)
			w.deleted("acme")
			if a := w.must("GET", "/v1/customers/acme/lockstep", nil); a.str("state") != "unknown" {
				t.Errorf("%v", a)
			}
			w.eventually("the mirror has stopped for good", func() (stopped bool) {
				if err := w.g.ledger.DB().Get(&stopped, `select run_at = 'infinity' and lease_until is null from mirrors`); err != nil {
					t.Fatal(err)
				}
				return stopped
			})
		})
	}
}

// A card that is taken away pauses at once the rules that would charge it, and no others: the one that names it, and the
// one that charges the default, where it was that. Another card, or another rule, arms them again.
func TestDetachedCard(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]stripesim.DeliveryFaultKind{"twice": stripesim.Duplicate, "twins": stripesim.Twin, "lost until the backfill": stripesim.Lose} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *worldOptions) { o.backfill = time.Second })
			w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: kind, Times: 1000})
			op := w.sim.Operator()
			byDefault, stripeID := w.customer("acme", "10", "pm_card_visa")
			w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0, "price_per_unit": "0.01", "currency": "usd"})
			named := w.must("POST", "/v1/customers/acme/wallets", map[string]any{"asset": "tokens"}).str("id")
			w.granted(map[string]any{"customer": "acme", "asset": "tokens", "amount": "1000", "kind": "purchased"})
			bystander, _ := w.armed("other", "pm_card_visa", 0)
			var cards []string
			for range 3 {
				cards = append(cards, w.did(op.AttachCard(stripeID, "pm_card_visa")))
			}
			rule := map[string]any{"enabled": true, "threshold": "500", "amount": "2000", "payment_method": cards[0]}
			w.must("PUT", "/v1/wallets/"+named+"/auto_topup", rule)
			w.must("PUT", "/v1/wallets/"+byDefault+"/auto_topup", refill(0))
			is := func(wallet, state, reason string) {
				t.Helper()
				w.within(40*time.Second, wallet+" is "+state, func() bool { s, r := w.state(wallet); return s == state && r == reason })
			}
			w.did(op.DetachPaymentMethod(cards[2])) // nobody's
			w.did(op.DetachPaymentMethod(cards[0]))
			is(named, "paused", "no_payment_method")
			is(byDefault, "armed", "")
			is(bystander, "armed", "")
			if len(w.sim.Charges(stripeID)) != 0 {
				t.Error("a card was charged")
			}
			w.quietEvents()
			var told int
			if err := w.g.ledger.DB().Get(&told, `select count(*) from events where type = 'auto_topup.paused'`); err != nil || told != 1 {
				t.Errorf("told of %d pauses, want the one: %v", told, err)
			}
			// Another default says nothing to a rule that names its card; a rule without the name does.
			second := w.card(stripeID, "pm_card_mastercard")
			w.quietEvents()
			is(named, "paused", "no_payment_method")
			w.must("PUT", "/v1/wallets/"+named+"/auto_topup", with(rule, "payment_method", nil))
			is(named, "armed", "")
			// The default goes: everybody who charges it pauses, until there is another.
			w.did(op.DetachPaymentMethod(second))
			is(named, "paused", "no_payment_method")
			is(byDefault, "paused", "no_payment_method")
			is(bystander, "armed", "")
			w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "asset": "usd", "amount": "6"})
			w.did(op.SetDefaultPaymentMethod(stripeID, cards[1]))
			w.paid("acme", stripeID, "24", 1)
			is(named, "armed", "")
			w.inStep("acme")
		})
	}
}

// A rule that names a card is not cleared by another default, nor charged to it.
func TestNamedCardOutlivesTheDefault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "10", "pm_card_visa")
	bad := w.did(w.sim.Operator().AttachCard(stripeID, "pm_card_chargeCustomerFail"))
	w.rule(wallet, with(refill(0), "payment_method", bad))
	w.spend("acme", "6")
	w.eventually("paused", func() bool { _, reason := w.state(wallet); return reason == "payment_failed" })
	w.card(stripeID, "pm_card_mastercard")
	w.quietEvents()
	if _, reason := w.state(wallet); reason != "payment_failed" || w.available("acme") != "4" {
		t.Errorf("another default cleared the pause of a card that is named: %q", reason)
	}
	good := w.did(w.sim.Operator().AttachCard(stripeID, "pm_card_visa"))
	w.rule(wallet, with(refill(0), "payment_method", good))
	w.paid("acme", stripeID, "24", 1)
}

// Stripe fixes a customer's currency with the first thing that has one, which need not be ours. Credit in another is then
// not shown there, which a finding says, and is refused from then on, before Stripe is called.
func TestCurrencyLockedElsewhere(t *testing.T) {
	for name, change := range map[string]func(*worldOptions){
		"told by the event":   func(*worldOptions) {},
		"told by the refusal": quiet,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, change, func(o *worldOptions) { o.mirror = 300 * time.Millisecond })
			wallet, stripeID := w.customer("acme", "", "pm_card_visa")
			w.did(w.sim.Operator().FinalInvoice(stripeID, 900, "eur"))
			if name == "told by the refusal" {
				w.granted(map[string]any{"customer": "acme", "amount": "5", "kind": "purchased"})
			}
			w.eventually("the currency is known", func() bool { return w.must("GET", "/v1/customers/acme", nil).str("currency") == "eur" })
			calls := len(w.sim.Requests())
			mismatch := refusal{400, "invalid_request_error", "currency_mismatch", "asset"}
			w.refused("a grant", w.call("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "1"}), mismatch)
			w.refused("a top-up", w.call("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "20", "mode": "invoice"}), mismatch)
			w.refused("a rule", w.rule(wallet, refill(0)), mismatch)
			w.refused("a wallet", w.call("POST", "/v1/customers/acme/wallets", map[string]any{"asset": "gbp"}), mismatch)
			for _, r := range w.sim.Requests()[calls:] {
				if r.Method == "POST" && !strings.HasSuffix(r.Path, "/balance_transactions") {
					t.Errorf("%s %s", r.Method, r.Path)
				}
			}
			w.granted(map[string]any{"customer": "acme", "asset": "eur", "amount": "3", "kind": "purchased"})
			w.inStep("acme")
			if c, _ := w.sim.Customer(stripeID); c.Balance != -300 {
				t.Errorf("Stripe shows %d", c.Balance)
			}
			r := w.must("POST", "/v1/reconcile", map[string]any{"customer": "acme", "repair": true})
			findings := r.at("findings").([]any)
			if name == "told by the refusal" {
				if r.str("in_step") != "1" || r.str("findings.0.kind") != "credit_not_shown" || !strings.Contains(r.str("findings.0.explanation"), "usd") {
					t.Errorf("%v", r)
				}
			} else if len(findings) != 0 {
				t.Errorf("%v", r)
			}
		})
	}
}

// What a stranger writes in another currency is never taken for one of the mirror's, whichever event comes first.
func TestCurrencyOfTheFirstTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "", "")
	w.sim.InjectDelivery(stripesim.DeliveryFault{Type: "customer.updated", Kind: stripesim.Hold, Times: 1})
	w.did(w.sim.Operator().AdjustBalance(stripeID, -500, "eur", "heard of last")) // it fixes the currency
	w.did(w.sim.Operator().AdjustBalance(stripeID, -200, "eur", "heard of first"))
	w.has("acme", "eur", "7")
	w.sim.Release()
	w.quietEvents()
	w.inStep("acme")
	if w.credit("acme", "eur") != "7" || w.credit("acme", "usd") != "0" {
		t.Errorf("%v", w.must("GET", "/v1/customers/acme", nil))
	}
}

// Two customers on one Stripe customer are refused, whoever is first, also where two processes are asked at once for
// customers of different buckets; who is refused leaves nothing behind.
func TestOneStripeCustomerOfTwoProcesses(t *testing.T) {
	t.Parallel()
	w := detached(t)
	one, two := w.spawn(""), w.spawn("")
	w.base = one.base
	for round := range 4 {
		stripeID := w.stranger(500, "usd")
		ids := make([]string, 12)
		got := make([]int, len(ids))
		for i := range ids {
			ids[i] = fmt.Sprintf("r%d-c%d", round, i)
		}
		var wg sync.WaitGroup
		for i, id := range ids {
			side := *w
			side.base = []string{one.base, two.base}[i%2]
			wg.Go(func() {
				_, got[i] = side.quietly("POST", "/v1/customers", fmt.Sprintf(`{"id":%q,"stripe_customer":%q}`, id, stripeID))
			})
		}
		wg.Wait()
		made := 0
		for i, status := range got {
			if status != 201 && status != 409 {
				t.Errorf("%s: %d", ids[i], status)
			}
			if a := w.call("GET", "/v1/customers/"+ids[i], nil); (a.status == 200) != (status == 201) {
				t.Errorf("%s was answered %d and is %v", ids[i], status, a)
			}
			if status == 201 {
				made++
			}
		}
		if made != 1 {
			t.Errorf("round %d: %d customers on one Stripe customer: %v", round, made, got)
		}
		owner := ids[slices.Index(got, 201)]
		w.within(30*time.Second, "its balance is imported once", func() bool { return w.available(owner) == "5" })
	}
	// Tied afterwards, it is no other.
	var wg sync.WaitGroup
	w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/customers", Kind: stripesim.Unavailable, Times: 1000})
	for _, id := range []string{"late-1", "late-2"} {
		if _, status := w.quietly("POST", "/v1/customers", fmt.Sprintf(`{"id":%q}`, id)); status != 503 {
			t.Fatalf("%s: %d", id, status)
		}
	}
	w.sim.ClearFaults()
	free := w.stranger(0, "")
	statuses := make([]int, 2)
	for i, id := range []string{"late-1", "late-2"} {
		side := *w
		side.base = []string{one.base, two.base}[i]
		wg.Go(func() {
			_, statuses[i] = side.quietly("PATCH", "/v1/customers/"+id, fmt.Sprintf(`{"stripe_customer":%q}`, free))
		})
	}
	wg.Wait()
	slices.Sort(statuses)
	if !slices.Equal(statuses, []int{200, 409}) {
		t.Errorf("tied at once: %v", statuses)
	}
}

// A customer who was made while Stripe was away is tied to one that exists, once, with all that follows: what it holds
// is credit, the mirror goes on from there, and the rule charges its card.
func TestLinkedLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stripeID, spare := w.stranger(700, "usd"), w.stranger(0, "")
	w.card(stripeID, "pm_card_visa")
	_, taken := w.customer("other", "", "")
	gone := w.stranger(0, "")
	w.did(w.sim.Operator().DeleteCustomer(gone))
	elsewhere := w.did(w.sim.Operator().OtherMode())
	w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/customers", Kind: stripesim.Unavailable, Times: 1000})
	if a := w.call("POST", "/v1/customers", map[string]any{"id": "acme"}); a.status != 503 {
		t.Fatal(a)
	}
	w.granted(map[string]any{"customer": "acme", "amount": "2", "kind": "purchased"})
	path := "/v1/customers/acme"
	for what, c := range map[string]struct {
		id   string
		want refusal
	}{
		"another's":         {taken, refusal{409, "conflict", "state_conflict", "stripe_customer"}},
		"deleted":           {gone, bad("parameter_invalid", "stripe_customer")},
		"nobody":            {"cus_nobody", refusal{404, "invalid_request_error", "resource_missing", "stripe_customer"}},
		"of the other mode": {elsewhere, refusal{404, "invalid_request_error", "resource_missing", "stripe_customer"}},
		"empty":             {"", bad("parameter_invalid", "stripe_customer")},
	} {
		a := w.call("PATCH", path, map[string]any{"stripe_customer": c.id, "metadata": map[string]any{"a": "b"}})
		w.refused(what, a, c.want)
		if what == "of the other mode" && !strings.Contains(a.str("error.message"), "live mode") {
			t.Errorf("%v", a)
		}
	}
	if a := w.must("PATCH", path, map[string]any{"stripe_customer": nil}); a.str("stripe_customer") != "" || a.str("metadata") != "{}" {
		t.Errorf("%v", a)
	}
	a := w.must("PATCH", path, map[string]any{"stripe_customer": stripeID, "metadata": map[string]any{"plan": "gold"}})
	if a.str("stripe_customer") != stripeID || a.str("currency") != "usd" || a.str("metadata.plan") != "gold" {
		t.Errorf("%v", a)
	}
	w.left("acme", "9")
	w.inStep("acme")
	w.must("PATCH", path, map[string]any{"stripe_customer": stripeID})
	w.refused("another then", w.call("PATCH", path, map[string]any{"stripe_customer": spare}), refusal{409, "conflict", "state_conflict", "stripe_customer"})
	wallet := a.str("wallets.0.id")
	w.rule(wallet, refill(0))
	w.spend("acme", "5")
	w.paid("acme", stripeID, "24", 1)
	w.inStep("acme")
	w.did(w.sim.Operator().AdjustBalance(stripeID, -100, "usd", "heard of from now on"))
	w.left("acme", "25")
	// Made with one of the other mode, a customer is refused as clearly.
	made := w.call("POST", "/v1/customers", map[string]any{"id": "live", "stripe_customer": elsewhere})
	w.refused("made so", made, refusal{404, "invalid_request_error", "resource_missing", "stripe_customer"})
	if !strings.Contains(made.str("error.message"), "Test and live mode are two accounts") {
		t.Errorf("%v", made)
	}
}
