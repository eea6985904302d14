package main

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil/stripesim"
)

// Each term is the price's own where it has it, else its product's.
func TestSoldTermsOfTheProduct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 2})
	_, stripeID := w.customer("acme", "", "")
	product := pairs([]string{"credits", "5", "credits_asset", "tokens", "credits_kind", "promotional", "credits_priority", "7", "credits_expire", "10d"})
	w.bought(stripesim.Link{Price: w.priced(stripesim.NewPrice{Unit: 500, ProductMetadata: product}), Customer: stripeID}, "pm_card_visa")
	w.has("acme", "tokens", "5")
	w.bought(stripesim.Link{Price: w.priced(stripesim.NewPrice{Unit: 500, ProductMetadata: product,
		Metadata: pairs([]string{"credits", "1.25", "credits_expire", "never", "credits_kind", " "})}), Customer: stripeID}, "pm_card_visa")
	w.has("acme", "tokens", "6.25")
	own, of := w.grants("acme")[0], w.grants("acme")[1]
	if of.str("kind") != "promotional" || of.str("covers") != "usage" || of.str("priority") != "7" || of.str("expires_at") == "" {
		t.Errorf("%v", of.m)
	}
	if own.str("kind") != "promotional" || own.str("priority") != "7" || own.str("expires_at") != "" || own.str("amount") != "1.25" {
		t.Errorf("%v", own.m)
	}
}

// A guest who pays with the app's own id of the customer has credit: the customer is made, and gets a Stripe
// customer of their own.
func TestSoldToGuest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.pack(1000, "credits", "10")
	w.bought(stripesim.Link{Price: price, ClientReference: "user-1"}, "pm_card_visa")
	w.has("user-1", "usd", "10")
	w.advance(time.Minute)
	if err := w.g.linkCustomers(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.inStep("user-1")
	w.bought(stripesim.Link{Price: price, ClientReference: "user-1"}, "pm_card_visa")
	w.has("user-1", "usd", "20")
	if n := len(w.sim.Customers()); n != 1 {
		t.Errorf("%d Stripe customers", n)
	}
}

// A checkout's Stripe customer and the customer that it names are tied where both are free; where not, the one that
// was named has the credit.
func TestSoldTies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.pack(1000, "credits", "10")
	_, acme := w.customer("acme", "", "")
	_, other := w.customer("other", "", "")
	made := w.sim
	stranger := func() string {
		t.Helper()
		id, err := made.Operator().AddCustomer("Somebody", nil)
		return w.did(id, err)
	}
	free := stranger()
	w.bought(stripesim.Link{Price: price, ClientReference: "fresh", Customer: free}, "pm_card_visa")
	w.has("fresh", "usd", "10")
	if a := w.must("GET", "/v1/customers/"+free, nil); a.str("id") != "fresh" {
		t.Errorf("%v", a)
	}
	w.inStep("fresh")
	// Known, and not tied yet.
	w.unlinked("early")
	early := stranger()
	w.bought(stripesim.Link{Price: price, ClientReference: "early", Customer: early}, "pm_card_visa")
	w.has("early", "usd", "10")
	if a := w.must("GET", "/v1/customers/early", nil); a.str("stripe_customer") != early {
		t.Errorf("%v", a)
	}
	// Named, and tied to another: the credit is the one's who was named, both stay as they are.
	w.bought(stripesim.Link{Price: price, ClientReference: "acme", Customer: other}, "pm_card_visa")
	w.has("acme", "usd", "10")
	w.bought(stripesim.Link{Price: price, ClientReference: "new-one", Customer: other}, "pm_card_visa")
	w.has("new-one", "usd", "10")
	w.bought(stripesim.Link{Price: price, ClientReference: acme, Customer: stranger()}, "pm_card_visa") // Stripe's id will do
	w.has("acme", "usd", "20")
	w.bought(stripesim.Link{Price: price, ClientReference: "a / b", Customer: other}, "pm_card_visa") // can't be an id
	w.has("other", "usd", "10")
	// One that we made, and never got to write down.
	w.unlinked("lost")
	id, err := made.Operator().AddCustomer("Lost", map[string]string{"lockstep_customer": "lost"})
	lost := w.did(id, err)
	w.bought(stripesim.Link{Price: price, Customer: lost}, "pm_card_visa")
	w.has("lost", "usd", "10")
	w.inStep("lost")
}

// unlinked is a customer whose Stripe customer nobody has made yet.
func (w *world) unlinked(id string) {
	w.t.Helper()
	if _, _, err := w.g.ledger.CreateCustomer(w.t.Context(), ledger.CustomerInput{ID: id}, ledger.Once{}); err != nil {
		w.t.Fatal(err)
	}
}

// A payment that takes days counts when it has arrived, and not before; one that never does gives nothing.
func TestSoldPaidLater(t *testing.T) {
	t.Parallel()
	for card, want := range map[string]int{"pm_usBankAccount_success": 1, "pm_usBankAccount_insufficientFunds": 0} {
		t.Run(card, func(t *testing.T) {
			w := newWorld(t)
			_, stripeID := w.customer("acme", "", "")
			w.bought(stripesim.Link{Price: w.pack(1000, "credits", "10", "credits_expire", "1d"), Customer: stripeID}, card)
			w.quietEvents()
			if len(w.grants("acme")) != 0 {
				t.Fatalf("granted before it was paid: %v", w.grants("acme"))
			}
			w.advance(time.Hour)
			w.quietEvents()
			if want == 1 {
				w.has("acme", "usd", "10")
			}
			if gs := w.grants("acme"); len(gs) != want {
				t.Errorf("%d grants, want %d", len(gs), want)
			} else if want == 1 && gs[0].str("source.type") != "stripe_checkout" {
				t.Errorf("%v", gs[0].m)
			}
		})
	}
}

// A one-off sale that gets an invoice is that invoice's business, whichever event comes first: granted once.
func TestSoldWithInvoice(t *testing.T) {
	t.Parallel()
	for _, late := range []string{"", "invoice.paid", "checkout.session.completed"} {
		t.Run("late: "+late, func(t *testing.T) {
			w := newWorld(t)
			w.backfilled()
			if late != "" {
				w.sim.InjectDelivery(stripesim.DeliveryFault{Type: late, Kind: stripesim.Hold})
			}
			_, stripeID := w.customer("acme", "", "")
			price := w.pack(1000, "credits", "10")
			w.bought(stripesim.Link{Price: price, Customer: stripeID, Invoices: true}, "pm_card_visa")
			w.has("acme", "usd", "10")
			w.sim.Release()
			w.quietEvents()
			w.bought(stripesim.Link{Price: price, ClientReference: "guest", Invoices: true}, "pm_card_visa")
			w.has("guest", "usd", "10")
			w.quietEvents()
			for _, id := range []string{"acme", "guest"} {
				if gs := w.grants(id); len(gs) != 1 || gs[0].str("source.type") != "stripe_invoice" {
					t.Errorf("%s: %v", id, gs)
				}
			}
			if got := w.credit("acme", "usd"); got != "10" {
				t.Errorf("%s", got)
			}
		})
	}
}

// A pack for nothing, by a promotion code, gives what it says: the merchant said so.
func TestSoldForNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "", "")
	w.bought(stripesim.Link{Price: w.pack(1000, "credits", "10"), Customer: stripeID, PercentOff: 100}, "pm_card_visa")
	w.has("acme", "usd", "10")
	w.bought(stripesim.Link{Price: w.pack(1000, "credits", "10"), Customer: stripeID, PercentOff: 25, Quantity: 3}, "pm_card_visa")
	w.has("acme", "usd", "40")
	if gs := w.grants("acme"); gs[1].str("cost.amount") != "0" || gs[0].str("cost.amount") != "2250" {
		t.Errorf("%v", gs)
	}
}

// A subscription bought at a payment link by somebody new: the customer is made, and has each period's credit, whether
// the invoice is heard of before the checkout or after it.
func TestPlanSoldToNewCustomer(t *testing.T) {
	t.Parallel()
	for _, late := range []string{"invoice.paid", "checkout.session.completed"} {
		t.Run("late: "+late, func(t *testing.T) {
			log := &lockedBuffer{}
			w := newWorld(t, func(o *worldOptions) { o.log = log })
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(log)
				}
			})
			w.backfilled()
			w.sim.InjectDelivery(stripesim.DeliveryFault{Type: late, Kind: stripesim.Hold})
			plan := w.priced(stripesim.NewPrice{Unit: 1000, Interval: "week", Metadata: pairs([]string{"credits", "10"})}) // Stripe forgets events after a month
			session := w.bought(stripesim.Link{Price: plan, ClientReference: "user-1", Email: "one@example.com"}, "pm_card_visa")
			w.quietEvents()
			sub := w.sim.Session(session).Subscription
			w.turn(sub) // a second period, before the first is heard of
			w.quietEvents()
			w.sim.Release()
			w.has("user-1", "usd", "10")
			w.quietEvents()
			a := w.must("GET", "/v1/customers/user-1", nil)
			if got, _ := w.sim.Subscription(sub); a.str("stripe_customer") != got.Customer {
				t.Errorf("%v", a)
			}
			gs := w.grants("user-1")
			if len(gs) != 2 || gs[0].str("status") != "confirmed" || gs[1].str("status") != "expired" {
				t.Fatalf("%v", gs)
			}
			w.turn(sub)
			w.eventually("the third period", func() bool { return len(w.grants("user-1")) == 3 })
			w.has("user-1", "usd", "10")
		})
	}
}

// Somebody who has a Stripe customer already buys a plan as a new one: the plan's credit, each period's, is theirs all
// the same, since they said who they are.
func TestPlanSoldUnderAnotherStripeCustomer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, first := w.customer("acme", "", "")
	session := w.bought(stripesim.Link{Price: w.plan(1000, "credits", "10"), ClientReference: "acme"}, "pm_card_visa")
	w.has("acme", "usd", "10")
	w.turn(w.sim.Session(session).Subscription)
	w.eventually("the next period's", func() bool { return len(w.grants("acme")) == 2 })
	if a := w.must("GET", "/v1/customers/acme", nil); a.str("stripe_customer") != first {
		t.Errorf("%v", a)
	}
}

// However the events come, twice, as twins, in any order, to several gateways at once, or not at all, each sale is
// booked once.
func TestSoldOnce(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]stripesim.DeliveryFaultKind{"duplicates": stripesim.Duplicate, "twins": stripesim.Twin, "lost once": stripesim.LoseOnce, "never delivered": stripesim.Lose} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(o *worldOptions) {
				if kind == stripesim.Lose {
					o.backfill = 300 * time.Millisecond
				}
			})
			if kind == stripesim.Twin {
				w.sim.AddEndpoint(stripesim.Endpoint{URL: w.peer().base + "/webhooks/stripe", Secrets: w.o.secrets})
			}
			w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: kind, Times: -1})
			pack, plan := w.pack(1000, "credits", "10", "credits_asset", "usd"), w.plan(1000, "credits", "5")
			const buyers = 6
			var wg sync.WaitGroup
			for i := range buyers {
				_, stripeID := w.customer(fmt.Sprint("buyer", i), "", "pm_card_visa")
				wg.Go(func() {
					o := w.sim.Operator()
					session, err := o.PaymentLink(stripesim.Link{Price: pack, Quantity: 2, Customer: stripeID})
					if err == nil {
						_, err = o.CompleteCheckout(session, "pm_card_visa")
					}
					if err == nil {
						_, err = o.InvoicePrice(stripeID, pack, 1, nil)
					}
					if err == nil {
						_, err = o.Subscribe(stripeID, plan, 3, stripesim.Terms{})
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			for i := range buyers {
				w.has(fmt.Sprint("buyer", i), "usd", "45")
			}
			w.quietEvents()
			for i := range buyers {
				if gs := w.grants(fmt.Sprint("buyer", i)); len(gs) != 3 || w.credit(fmt.Sprint("buyer", i), "usd") != "45" {
					t.Errorf("buyer %d has %d grants, %s", i, len(gs), w.credit(fmt.Sprint("buyer", i), "usd"))
				}
			}
		})
	}
}

// An event in words of another version is only a hint, and what is sold is read again.
func TestSoldByAnotherVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *worldOptions) { o.noWebhook = true })
	_, stripeID := w.customer("acme", "", "pm_card_visa")
	price := w.pack(1000, "credits", "10")
	in := w.did(w.sim.Operator().InvoicePrice(stripeID, price, 1, nil))
	w.card(stripeID, "pm_card_chargeCustomerFail")
	_, err := w.sim.Operator().InvoicePrice(stripeID, price, 1, nil)
	if err == nil {
		t.Fatal("the card paid")
	}
	open := w.sim.Invoices(stripeID)[1].ID
	for _, id := range []string{in, open} { // the second says that it was paid, and was not
		payload := event(t, "evt_"+id, "invoice.paid", map[string]any{"id": id, "object": "invoice", "status": "paid", "lines": "9"},
			func(e map[string]any) { e["api_version"] = "2031-01-01" })
		if a := w.deliver(payload, signature(payload, time.Now(), w.o.secrets[0])); a.status != 200 {
			t.Fatal(a)
		}
	}
	w.has("acme", "usd", "10")
	w.eventually("both are done", func() bool { return w.stored("evt_"+open) == "done" && w.stored("evt_"+in) == "done" })
	if gs := w.grants("acme"); len(gs) != 1 || gs[0].str("source.id") != in {
		t.Errorf("%v", gs)
	}
}
