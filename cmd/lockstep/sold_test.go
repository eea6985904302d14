package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// pack is a price that is sold once.
func (w *world) pack(unit int64, metadata ...string) string {
	w.t.Helper()
	return w.priced(stripesim.NewPrice{Unit: unit, Metadata: pairs(metadata)})
}

// plan is a price that is paid every month.
func (w *world) plan(unit int64, metadata ...string) string {
	w.t.Helper()
	return w.priced(stripesim.NewPrice{Unit: unit, Interval: "month", Metadata: pairs(metadata)})
}

func (w *world) priced(p stripesim.NewPrice) string {
	w.t.Helper()
	id, err := w.sim.Operator().AddPrice(p)
	return w.did(id, err)
}

// did is for what the test takes for granted of the people at Stripe's pages.
func (w *world) did(id string, err error) string {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func pairs(of []string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(of); i += 2 {
		m[of[i]] = of[i+1]
	}
	return m
}

// bought goes through a payment link with a card.
func (w *world) bought(l stripesim.Link, card string) (session string) {
	w.t.Helper()
	o := w.sim.Operator()
	session = w.did(o.PaymentLink(l))
	w.did(o.CompleteCheckout(session, card))
	return session
}

// grants are a customer's grants of a kind of source, the newest first.
func (w *world) grants(customer string) []answer {
	w.t.Helper()
	return w.must("GET", "/v1/grants?limit=100&customer="+customer, nil).list()
}

// has waits until a customer's credit of an asset is so.
func (w *world) has(customer, asset, available string) {
	w.t.Helper()
	got := ""
	defer func() {
		if w.t.Failed() {
			w.t.Logf("%s has %s %s", customer, got, asset)
		}
	}()
	w.eventually(customer+" has "+available+" "+asset, func() bool {
		got = w.credit(customer, asset)
		return got == available
	})
}

// credit is what a customer may spend of an asset, "" without a wallet.
func (w *world) credit(customer, asset string) string {
	a := w.call("GET", "/v1/customers/"+customer, nil)
	wallets, _ := a.at("wallets").([]any)
	for _, v := range wallets {
		wallet := answer{m: v.(map[string]any)}
		if wallet.str("asset") == asset {
			return wallet.str("balance.available")
		}
	}
	return ""
}

// quietEvents waits until every event that was delivered has been worked off.
func (w *world) quietEvents() {
	w.t.Helper()
	if err := w.sim.Settle(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.eventually("all events are done", func() bool {
		var n int
		if err := w.g.ledger.DB().Get(&n, `select count(*) from stripe_events where status = 'pending'`); err != nil {
			w.t.Fatal(err)
		}
		return n == 0
	})
}

// A pack that somebody set up in the dashboard is credit as soon as it is paid, and says where it came from.
func TestPackSoldByCheckout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "", "")
	price := w.pack(2500, "credits", "30", "credits_priority", "20", "credits_expire", "30d")
	session := w.bought(stripesim.Link{Price: price, Quantity: 2, Customer: stripeID}, "pm_card_visa")
	w.has("acme", "usd", "60")
	g := w.grants("acme")[0]
	for path, want := range map[string]string{"amount": "60", "kind": "purchased", "covers": "all", "priority": "20", "reason": "purchase",
		"cost.amount": "5000", "cost.currency": "usd", "source.type": "stripe_checkout", "source.id": session, "metadata.stripe_price": price} {
		if got := g.str(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	from, err := time.Parse(time.RFC3339, g.str("effective_at"))
	if err != nil || !strings.HasPrefix(g.str("expires_at"), from.AddDate(0, 0, 30).Format("2006-01-02T15:04:05")) {
		t.Errorf("from %s until %s", g.str("effective_at"), g.str("expires_at"))
	}
	w.inStep("acme")
	debit := w.spend("acme", "1").str("id")
	e := w.must("GET", "/v1/debits/"+debit+"/explain", nil)
	pi := w.sim.PaymentIntents(stripeID)[0].ID
	if e.str("parts.0.funded_by.type") != "stripe_checkout" || e.str("parts.0.funded_by.id") != session || e.str("parts.0.funded_by.payment_intent") != pi || e.str("parts.0.funded_by.invoice") != "" {
		t.Errorf("%v", e)
	}
}

// A plan gives its credit with each invoice that is paid, until the period ends.
func TestPlanSoldByInvoices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0})
	_, stripeID := w.customer("acme", "", "pm_card_visa")
	price := w.plan(2000, "credits", "1000", "credits_asset", "tokens")
	sub := w.did(w.sim.Operator().Subscribe(stripeID, price, 3, stripesim.Terms{}))
	w.has("acme", "tokens", "3000")
	g := w.grants("acme")[0]
	in := w.sim.Invoices(stripeID)[0]
	for path, want := range map[string]string{"amount": "3000", "kind": "plan", "covers": "usage", "priority": "50", "reason": "subscription",
		"cost.amount": "6000", "source.type": "stripe_invoice", "source.id": in.ID, "metadata.stripe_subscription": sub} {
		if got := g.str(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	w.quietEvents()
	w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "asset": "tokens", "amount": "500"})
	w.turn(sub)
	w.has("acme", "tokens", "3000")
	if gs := w.grants("acme"); len(gs) != 2 || gs[1].str("status") != "expired" || gs[1].str("remaining") != "0" || gs[0].str("source.id") == in.ID {
		t.Errorf("after the renewal: %v", gs)
	}
}

// turn moves time to the next period of a subscription and has its invoice collected.
func (w *world) turn(sub string) (invoice string) {
	w.t.Helper()
	w.toPeriodEnd(sub)
	return w.did(w.sim.Operator().CollectNow(sub))
}

func (w *world) toPeriodEnd(sub string) {
	w.t.Helper()
	s, ok := w.sim.Subscription(sub)
	if !ok {
		w.t.Fatal("no subscription " + sub)
	}
	w.advance(s.PeriodEnd.Sub(w.sim.Now()) + 2*time.Second)
}

// backfilled waits until the look for missed events that begins with the gateway is over: what is held back or lost
// from here on is not fetched by it.
func (w *world) backfilled() {
	w.t.Helper()
	w.eventually("events were looked for", func() bool {
		return slices.ContainsFunc(w.sim.Requests(), func(r stripesim.Request) bool { return r.Path == "/v1/events" })
	})
}
