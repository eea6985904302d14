package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// lastError is why the newest event of a type has not been worked off.
func (w *world) lastError(kind string) (status, reason string) {
	w.t.Helper()
	var row struct {
		Status string `db:"status"`
		Error  string `db:"last_error"`
	}
	if err := w.g.ledger.DB().Get(&row, `select status, last_error from stripe_events where type = $1 order by received_at desc limit 1`, kind); err != nil {
		return "", ""
	}
	return row.Status, row.Error
}

// What can't be read grants nothing, says which price and which key, and is granted once it has been put right.
func TestSoldMetadataThatCannotBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("PUT", "/v1/assets/minutes", map[string]any{"scale": 1, "price_per_unit": "0.05", "currency": "eur"})
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0})
	for i, c := range []struct {
		key, value, fixed string
		plan              bool
		beside            []string
	}{
		{key: "credits", value: "ten", fixed: "10"},
		{key: "credits", value: "0", fixed: "10"},
		{key: "credits", value: "-5", fixed: "10"},
		{key: "credits", value: "1e3", fixed: "10"},
		{key: "credits", value: "0.0000001", fixed: "10"},
		{key: "credits", value: "9223372036854775807", fixed: "10"},
		{key: "credits", value: "9223372036854", fixed: "10"}, // fits once, not twice
		{key: "credits", value: "2.5", fixed: "10", beside: []string{"credits_asset", "tokens"}},
		{key: "credits_asset", value: "toucans", fixed: "usd"},
		{key: "credits_asset", value: "USD", fixed: "usd"},
		{key: "credits_asset", value: "minutes", fixed: "usd"}, // eur, and the customer's balance is in usd
		{key: "credits_asset", value: "eur", fixed: "usd"},
		{key: "credits_kind", value: "gift", fixed: "promotional"},
		{key: "credits_expire", value: "30 days", fixed: "30d"},
		{key: "credits_expire", value: "0d", fixed: "30d"},
		{key: "credits_expire", value: "36501d", fixed: "36500d"},
		{key: "credits_expire", value: "99999d", fixed: "36500d"},
		{key: "credits_expire", value: "period_end", fixed: "never"}, // sold once, there is no period
		{key: "credits_priority", value: "101", fixed: "100"},
		{key: "credits_priority", value: "-1", fixed: "0"},
		{key: "credits_priority", value: "high", fixed: "1"},
		{key: "credits_rollover", value: "some", fixed: "all", plan: true},
		{key: "credits_rollover", value: "0", fixed: "none", plan: true},
		{key: "credits_rollover", value: "0.0000001", fixed: "0.1", plan: true},
	} {
		t.Run(c.key+"="+c.value, func(t *testing.T) {
			id := fmt.Sprint("buyer", i)
			w := &world{t: t, sim: w.sim, g: w.g, base: w.base, key: w.key, clock: w.clock, o: w.o}
			_, stripeID := w.customer(id, "", "pm_card_visa")
			metadata := append([]string{"credits", "10", "credits_asset", "usd"}, c.beside...)
			metadata = append(metadata, c.key, c.value)
			kind, price := "checkout.session.completed", ""
			if c.plan {
				kind, price = "invoice.paid", w.plan(1000, metadata...)
				w.did(w.sim.Operator().Subscribe(stripeID, price, 2, stripesim.Terms{}))
			} else {
				price = w.pack(1000, metadata...)
				w.bought(stripesim.Link{Price: price, Quantity: 2, Customer: stripeID}, "pm_card_visa")
			}
			w.eventually("the sale is refused", func() bool {
				status, why := w.lastError(kind)
				return status == "pending" && strings.Contains(why, "price "+price+":") && strings.Contains(why, c.key+" ") && strings.Contains(why, "replay")
			})
			if gs := w.grants(id); len(gs) != 0 {
				t.Fatalf("granted all the same: %v", gs)
			}
			w.did(w.sim.Operator().SetPriceMetadata(price, c.key, c.fixed))
			for _, key := range []string{"credits_asset"} {
				if len(c.beside) > 0 {
					w.did(w.sim.Operator().SetPriceMetadata(price, key, "usd"))
				}
			}
			w.advance(time.Hour) // its next try is due
			w.has(id, "usd", "20")
		})
	}
}

// A sale of an asset that nobody has made is put aside in the end, and booked by a replay once there is one; what else
// was on the same invoice waits with it.
func TestSoldAssetMadeLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "", "pm_card_visa")
	w.did(w.sim.Operator().InvoicePrice(stripeID, w.pack(1000, "credits", "7", "credits_asset", "toucans"), 1, nil))
	w.eventually("it is refused", func() bool { _, why := w.lastError("invoice.paid"); return strings.Contains(why, `"toucans"`) })
	if _, err := w.g.ledger.DB().Exec(`update stripe_events set tries = 20 where type = 'invoice.paid'`); err != nil {
		t.Fatal(err)
	}
	w.advance(3 * time.Hour)
	w.eventually("it is put aside", func() bool { status, _ := w.lastError("invoice.paid"); return status == "failed" })
	w.must("PUT", "/v1/assets/toucans", map[string]any{"scale": 2})
	for range 2 {
		if _, err := w.g.ledger.Replay(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		w.has("acme", "toucans", "7")
	}
	var ids []string
	if err := w.g.ledger.DB().Select(&ids, `select id from stripe_events where type = 'invoice.paid'`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.g.ledger.Replay(t.Context(), ids); err != nil { // once more, though it is done
		t.Fatal(err)
	}
	w.quietEvents()
	if gs := w.grants("acme"); len(gs) != 1 {
		t.Errorf("%d grants", len(gs))
	}
}

// What was not paid, is not about credit, or is nobody's, gives nothing and leaves no trace.
func TestSoldNothing(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	w := newWorld(t, func(o *worldOptions) { o.log = log })
	_, stripeID := w.customer("acme", "", "pm_card_visa")
	o := w.sim.Operator()
	silent, price, plan := w.pack(1000), w.pack(1000, "credits", "10"), w.plan(1000, "credits", "10")
	guest := w.bought(stripesim.Link{Price: price}, "pm_card_visa")
	w.bought(stripesim.Link{Price: silent, ClientReference: "order 66"}, "pm_card_visa")
	w.bought(stripesim.Link{Price: silent, ClientReference: "order-67"}, "pm_card_visa") // not about us, so no customer of ours
	w.bought(stripesim.Link{Price: w.plan(1000), ClientReference: "order-68"}, "pm_card_visa")
	w.bought(stripesim.Link{Price: price, ClientReference: "what / ever"}, "pm_card_visa")
	w.bought(stripesim.Link{Price: plan, Email: "stranger@example.com"}, "pm_card_visa")
	w.bought(stripesim.Link{Price: price, Customer: stripeID, Metadata: map[string]string{"lockstep_topup": "top_1"}}, "pm_card_visa")
	w.did(o.InvoicePrice(stripeID, price, 1, map[string]string{"lockstep_topup": "top_1"}))
	w.did(o.InvoicePrice(stripeID, silent, 1, nil))
	w.did(o.Invoice(stripeID, 1000, "usd"))
	w.did(o.Subscribe(stripeID, plan, 1, stripesim.Terms{TrialDays: 7}))
	w.card(stripeID, "pm_card_chargeCustomerFail")
	if _, err := o.InvoicePrice(stripeID, price, 1, nil); err == nil {
		t.Fatal("the card paid")
	}
	if _, err := o.Subscribe(stripeID, plan, 1, stripesim.Terms{}); err == nil {
		t.Fatal("the card paid")
	}
	w.quietEvents()
	if gs := w.must("GET", "/v1/grants", nil).list(); len(gs) != 0 {
		t.Errorf("%v", gs)
	}
	if cs := w.must("GET", "/v1/customers", nil).list(); len(cs) != 1 {
		t.Errorf("%v", cs)
	}
	if lines := log.String(); !strings.Contains(lines, "stranger") || !strings.Contains(lines, guest) || strings.Contains(lines, "order") {
		t.Errorf("the log says nothing of the stranger, or too much:\n%s", lines)
	}
}

// What is sold to a customer whom Stripe has deleted is told, and granted to nobody.
func TestSoldToDeletedCustomer(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	w := newWorld(t, func(o *worldOptions) { o.log = log })
	_, stripeID := w.customer("acme", "", "pm_card_visa")
	if _, err := w.sim.Operator().DeleteCustomer(stripeID); err != nil {
		t.Fatal(err)
	}
	w.eventually("the customer is deleted here too", func() bool { return w.must("GET", "/v1/customers/acme", nil).str("status") == "deleted" })
	w.bought(stripesim.Link{Price: w.pack(1000, "credits", "10"), ClientReference: "acme"}, "pm_card_visa")
	w.quietEvents()
	if len(w.grants("acme")) != 0 || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("%v\n%s", w.grants("acme"), log)
	}
}

// Of several lines of one invoice, all are booked or none.
func TestSoldAllOrNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "", "pm_card_visa")
	old := w.plan(3000, "credits", "30")
	bad := w.plan(9000, "credits", "many")
	sub := w.did(w.sim.Operator().Subscribe(stripeID, old, 1, stripesim.Terms{}))
	w.has("acme", "usd", "30")
	w.advance(10 * 24 * time.Hour)
	w.did(w.sim.Operator().ChangePlan(sub, bad, 1))
	w.eventually("it is refused", func() bool { _, why := w.lastError("invoice.paid"); return strings.Contains(why, bad) })
	if w.credit("acme", "usd") != "30" {
		t.Errorf("%s after half a change of plan", w.credit("acme", "usd"))
	}
	// The next period's is not kept waiting for it.
	good := w.plan(100, "credits", "5")
	w.did(w.sim.Operator().ChangeNextPeriod(sub, good, 1))
	w.turn(sub)
	w.has("acme", "usd", "5")
	w.did(w.sim.Operator().SetPriceMetadata(bad, "credits", "90"))
	w.advance(time.Hour)
	w.eventually("it is whole", func() bool { return len(w.grants("acme")) == 3 })
	if got := w.grants("acme"); !slices.ContainsFunc(got, func(g answer) bool { return g.str("reason") == "proration" }) {
		t.Errorf("%v", got)
	}
}
