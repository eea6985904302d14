package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// Killed between any two steps of a sale, the service books it once, and makes one customer for it.
func TestKilledWhileBookingASale(t *testing.T) {
	t.Parallel()
	for _, webhooks := range []bool{true, false} {
		t.Run(fmt.Sprint("webhooks ", webhooks), func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			doomed := w.spawn("event.applied")
			if webhooks {
				w.sim.AddEndpoint(stripesim.Endpoint{URL: doomed.base + "/webhooks/stripe", Secrets: w.o.secrets,
					EnabledEvents: []string{"invoice.paid", "checkout.session.completed"}})
			}
			session := w.bought(stripesim.Link{Price: w.plan(1000, "credits", "10"), ClientReference: "acme"}, "pm_card_visa")
			w.bought(stripesim.Link{Price: w.pack(1000, "credits", "7"), ClientReference: "acme"}, "pm_card_visa")
			doomed.killed(t)
			again := w.spawn("event.applied")
			if webhooks { // it finds what the first had kept, or what Stripe sends again
				w.sim.AddEndpoint(stripesim.Endpoint{URL: again.base + "/webhooks/stripe", Secrets: w.o.secrets})
			}
			again.killed(t)
			w.base = w.spawn("").base
			w.within(60*time.Second, "both sales are booked", func() bool { return w.credit("acme", "usd") == "17" })
			if a := w.must("GET", "/v1/customers/acme", nil); a.str("stripe_customer") != w.sim.Session(session).Customer {
				t.Errorf("%v", a)
			}
			if gs := w.grants("acme"); len(gs) != 2 {
				t.Errorf("%v", gs)
			}
			w.inStepWithin(60*time.Second, "acme")
		})
	}
}

// Whatever customers buy, renew and change, while they spend and webhooks go astray, two gateways book each paid
// invoice and session once, and the books hold.
func TestSoldAtRandom(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := newWorld(t, func(o *worldOptions) { o.backfill = 500 * time.Millisecond })
	peer := w.peer()
	w.sim.AddEndpoint(stripesim.Endpoint{URL: peer.base + "/webhooks/stripe", Secrets: w.o.secrets})
	for _, kind := range []stripesim.DeliveryFaultKind{stripesim.Twin, stripesim.Lose, stripesim.Duplicate, stripesim.Lose, stripesim.LoseOnce} {
		w.sim.InjectDelivery(stripesim.DeliveryFault{Type: "invoice.paid", Kind: kind, Times: 5})
		w.sim.InjectDelivery(stripesim.DeliveryFault{Type: "checkout.session.completed", Kind: kind, Times: 3})
	}
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 3})
	in := []string{"credits_asset", "tokens"}
	packs := []string{w.pack(1000, append(in, "credits", "10")...), w.pack(500, append(in, "credits", "2.5", "credits_expire", "3d")...)}
	plans := []string{w.plan(2000, append(in, "credits", "100", "credits_rollover", "all")...), w.plan(5000, append(in, "credits", "333.333", "credits_rollover", "50")...),
		w.plan(700, append(in, "credits", "7")...), w.plan(0, append(in, "credits", "1", "credits_rollover", "all")...)}
	const buyers = 4
	subs := make([][]string, buyers)
	stripe := make([]string, buyers)
	for i := range buyers {
		_, stripe[i] = w.customer(fmt.Sprint("buyer", i), "", "pm_card_visa")
	}
	act := func(r *rand.Rand, i int) {
		o, id := w.sim.Operator(), fmt.Sprint("buyer", i)
		plan, quantity := plans[r.IntN(len(plans))], int64(1+r.IntN(3))
		switch r.IntN(7) {
		case 0:
			s, err := o.PaymentLink(stripesim.Link{Price: packs[r.IntN(2)], Quantity: quantity, Customer: stripe[i], Invoices: r.IntN(2) == 0})
			if err == nil {
				_, err = o.CompleteCheckout(s, "pm_card_visa")
			}
			if err != nil {
				t.Error(err)
			}
		case 1:
			if _, err := o.InvoicePrice(stripe[i], packs[0], quantity, nil); err != nil {
				t.Error(err)
			}
		case 2, 3:
			if len(subs[i]) < 2 {
				sub, err := o.Subscribe(stripe[i], plan, quantity, stripesim.Terms{PercentOff: int64(r.IntN(2) * 50)})
				if err != nil {
					t.Error(err)
				}
				subs[i] = append(subs[i], sub)
				return
			}
			fallthrough
		case 4:
			if len(subs[i]) > 0 {
				if _, err := o.ChangePlan(subs[i][r.IntN(len(subs[i]))], plan, quantity); err != nil {
					t.Error(err)
				}
			}
		default:
			side := []*world{w, peer}[r.IntN(2)]
			side.call("POST", "/v1/usage", map[string]any{"customer": id, "asset": "tokens", "amount": fmt.Sprint(1 + r.IntN(40))})
		}
	}
	for round := range 6 {
		var wg sync.WaitGroup
		for i := range buyers {
			r := rand.New(rand.NewPCG(seed, uint64(round*buyers+i)))
			wg.Go(func() {
				for range 4 {
					act(r, i)
				}
			})
		}
		wg.Wait()
		if err := w.g.backfill(t.Context()); err != nil { // Stripe forgets events after thirty days
			t.Fatal(err)
		}
		w.advance(10*day + time.Second)
		for i := range buyers {
			for _, sub := range subs[i] {
				if _, err := w.sim.Operator().CollectNow(sub); err != nil {
					t.Error(err)
				}
			}
		}
	}
	w.quietEvents()
	paid := 0
	for i := range buyers {
		for _, inv := range w.sim.Invoices(stripe[i]) {
			if inv.Status == "paid" {
				paid++
			}
		}
	}
	booked := func() (n int) {
		if err := w.g.ledger.DB().Get(&n, `select count(*) from sales where id like 'in_%'`); err != nil {
			t.Fatal(err)
		}
		return n
	}
	w.within(30*time.Second, fmt.Sprint("all ", paid, " paid invoices are booked"), func() bool { return booked() == paid })
	w.quietEvents()
	for i := range buyers {
		w.inStep(fmt.Sprint("buyer", i))
	}
}
