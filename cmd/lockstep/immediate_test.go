package main

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil/stripesim"
)

// atOnce is a rule whose credit does not wait for its payment.
func atOnce(capCents int64, mode string) map[string]any {
	return with(with(refill(capCents), "settlement", "immediate"), "mode", mode)
}

// Credit is there at once, whichever way it is paid; what is not paid is taken back, once, whoever tells of it first, and
// Stripe's balance never shows what is not paid.
func TestImmediate(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"charge", "invoice"} {
		for method, c := range map[string]struct{ status, pause string }{
			"pm_card_visa":                       {"succeeded", ""},
			"pm_card_chargeCustomerFail":         {"failed", "payment_failed"},
			"pm_usBankAccount_success":           {"succeeded", ""},
			"pm_usBankAccount_insufficientFunds": {"failed", "payment_failed"},
			"":                                   {"failed", "no_payment_method"},
		} {
			for _, by := range []string{"webhook", "backfill", "look"} {
				t.Run(fmt.Sprintf("%s %s by %s", mode, method, by), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, tell(by), func(o *worldOptions) { o.config = func(c *config) { c.OutboundPrivate = true } })
					w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Twin, Times: -1})
					hook := w.receive("grant.confirmed", "topup.succeeded", "topup.failed", "auto_topup.paused")
					wallet, stripeID := w.customer("acme", "10", method)
					w.inStep("acme")
					if a := w.rule(wallet, atOnce(2000, mode)); a.str("settlement") != "immediate" {
						t.Fatal(a)
					}
					w.spend("acme", "6")
					top := w.must("GET", "/v1/topups?customer=acme", nil).list()[0]
					g := top.str("grant")
					if top.str("status") == "pending" {
						if a := w.must("GET", "/v1/grants/"+g, nil); w.pending() != "0" || a.str("source.id") != top.str("id") {
							t.Errorf("before it is paid: %v", a)
						}
					}
					if method == "pm_usBankAccount_success" || method == "pm_usBankAccount_insufficientFunds" {
						w.becomes(top, "processing")
						w.left("acme", "24")
						if a := w.must("GET", "/v1/grants/"+g, nil); a.str("status") != "confirmed" || a.str("covers") != "usage" {
							t.Errorf("while it is processing: %v", a)
						}
						w.spend("acme", "21") // 17 of what is not paid
						w.quietEvents()
						w.inStep("acme")
						if c, _ := w.sim.Customer(stripeID); c.Balance != 0 {
							t.Errorf("Stripe shows %d", c.Balance)
						}
						w.advance(2 * 24 * time.Hour)
						w.becomes(top, c.status)
						w.left("acme", map[string]string{"succeeded": "3", "failed": "-17"}[c.status]) // no more under the cap
					} else {
						w.becomes(top, c.status)
						w.left("acme", map[string]string{"succeeded": "24", "failed": "4"}[c.status])
					}
					w.quietEvents()
					w.inStep("acme")
					w.noOpenInvoice(stripeID)
					if _, reason := w.state(wallet); reason != c.pause && !(c.pause == "" && reason == "spend_cap") {
						t.Errorf("paused for %q", reason)
					}
					tops := w.must("GET", "/v1/topups?customer=acme", nil).list()
					if c.status == "failed" && len(tops) != 1 {
						t.Errorf("%d top-ups", len(tops))
					}
					w.within(30*time.Second, "it is told once", func() bool {
						n := hook.counts()
						return n["topup."+c.status] >= 1 && n["grant.confirmed"] >= 2 && (c.status != "failed" || n["auto_topup.paused"] >= 1)
					})
					if n := hook.counts(); c.status == "failed" && (n["topup.failed"] != 1 || n["grant.confirmed"] != 2 || n["auto_topup.paused"] != 1) {
						t.Errorf("told %v", n)
					}
				})
			}
		}
	}
}

// Credit whose payment needs the customer stays while it waits for them, and is taken back when the page or the invoice is
// closed.
func TestImmediateWaitsForCustomer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"charge", "invoice"} {
		for _, paid := range []bool{true, false} {
			t.Run(fmt.Sprint(mode, paid), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				wallet, stripeID := w.customer("acme", "10", "pm_card_authenticationRequired")
				w.rule(wallet, atOnce(0, mode))
				w.spend("acme", "6")
				top := w.paged("")
				if w.available("acme") != "24" {
					t.Errorf("%s available while it waits", w.available("acme"))
				}
				w.inStep("acme")
				if c, _ := w.sim.Customer(stripeID); c.Balance != -400 {
					t.Errorf("Stripe shows %d", c.Balance)
				}
				switch {
				case paid && mode == "charge":
					w.pay(top, "pm_card_visa")
				case paid:
					w.did(w.sim.Operator().PayInvoice(top.str("stripe.invoice"), true))
				case mode == "charge":
					w.must("POST", "/v1/wallets/"+wallet+"/auto_topup/pause", nil)
					w.must("POST", "/v1/topups/"+top.str("id")+"/cancel", nil)
				default:
					w.did(w.sim.Operator().VoidInvoice(top.str("stripe.invoice")))
				}
				w.left("acme", map[bool]string{true: "24", false: "4"}[paid])
				w.quietEvents()
				w.inStep("acme")
				w.left("acme", map[bool]string{true: "24", false: "4"}[paid])
			})
		}
	}
}

// A payment that comes after it was given up gives back what was taken, once.
func TestImmediatePaidLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "10", "pm_card_visa")
	w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/payment_intents", Kind: stripesim.Error500After}) // paid, and nobody hears
	w.sim.Inject(stripesim.Fault{Method: "GET", Path: "/v1/payment_intents", Kind: stripesim.Unavailable, Times: -1})
	w.sim.InjectDelivery(stripesim.DeliveryFault{Type: "payment_intent.succeeded", Kind: stripesim.Hold, Times: -1})
	w.rule(wallet, atOnce(2000, "charge"))
	w.spend("acme", "6")
	w.eventually("it was charged", func() bool { return len(w.sim.Charges(stripeID)) == 1 })
	w.must("POST", "/v1/wallets/"+wallet+"/auto_topup/pause", nil)
	top := w.must("GET", "/v1/topups?customer=acme", nil).list()[0]
	o := ledger.Outcome{Topup: top.str("id"), Status: "failed", Code: "not_executed"} // as a look that finds nothing for a day has it
	if _, err := w.g.ledger.SettleTopup(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	w.left("acme", "4")
	w.sim.ClearFaults()
	w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Twin, Times: -1})
	w.sim.Release()
	w.left("acme", "24")
	w.quietEvents()
	w.left("acme", "24")
	w.inStep("acme")
	if a := w.must("GET", "/v1/wallets/"+wallet+"/entries", nil); a.str("data.0.type") != "adjustment" || a.str("data.0.amount") != "20" || a.str("data.1.amount") != "-20" {
		t.Errorf("%v", a)
	}
}

// Spent from two gateways while every other payment is declined, the cap holds, and what was not paid is not there.
func TestImmediateInParallel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	peer := w.peer()
	wallet, stripeID := w.customer("acme", "10", "pm_card_visa")
	good, _ := w.sim.Customer(stripeID)
	bad := w.did(w.sim.Operator().AttachCard(stripeID, "pm_card_chargeCustomerFail"))
	w.rule(wallet, atOnce(9999, "charge")) // four of 20.00, not five
	var wg sync.WaitGroup
	var mu sync.Mutex
	booked := 0
	stop := make(chan struct{})
	for i := range 8 {
		side := []*world{w, peer}[i%2]
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				a := side.call("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "1", "idempotency_key": fmt.Sprint(i, "-", n)})
				if a.status == 200 {
					mu.Lock()
					booked++
					mu.Unlock()
				} else {
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	charged := func() (n int) {
		for _, ch := range w.sim.Charges(stripeID) {
			if ch.Status == "succeeded" {
				n++
			}
		}
		return n
	}
	for i := 0; charged() < 4 && i < 400; i++ { // whoever pays next may be either
		w.did(w.sim.Operator().SetDefaultPaymentMethod(stripeID, []string{bad, good.DefaultPaymentMethod}[i%2]))
		w.must("POST", "/v1/wallets/"+wallet+"/auto_topup/resume", nil)
		time.Sleep(50 * time.Millisecond)
	}
	w.did(w.sim.Operator().SetDefaultPaymentMethod(stripeID, good.DefaultPaymentMethod))
	w.eventually("all is spent", func() bool { a := w.available("acme"); n, err := strconv.Atoi(a); return err == nil && n <= 0 })
	close(stop)
	wg.Wait()
	w.quietEvents()
	w.eventually("nothing is in flight", func() bool {
		for _, top := range w.must("GET", "/v1/topups?customer=acme&limit=100", nil).list() {
			if s := top.str("status"); s != "succeeded" && s != "failed" && s != "canceled" {
				return false
			}
		}
		return true
	})
	mu.Lock()
	defer mu.Unlock()
	if n := charged(); n != 4 || w.available("acme") != strconv.Itoa(10+20*n-booked) {
		t.Errorf("%d charges under a cap of four, %d debits, %s available", n, booked, w.available("acme"))
	}
	w.inStep("acme")
}

// Killed at any step of a payment that fails, or does not, the service comes back to credit that is there once, or not.
func TestKilledAroundImmediate(t *testing.T) {
	t.Parallel()
	points := map[string][]string{"charge": {"topup.leased", "topup.fixed", "topup.called", "topup.settling", "topup.settled", "event.applied"},
		"invoice": {"topup.called", "invoice.failed", "invoice.closed", "topup.settling", "topup.settled"}}
	for mode, all := range points {
		for _, point := range all {
			for card, want := range map[string]string{"pm_card_visa": "24", "pm_card_chargeCustomerFail": "4"} {
				if card == "pm_card_visa" && (point == "invoice.failed" || point == "invoice.closed") {
					continue
				}
				t.Run(mode+" "+point+" "+card, func(t *testing.T) {
					t.Parallel()
					w := detached(t)
					first := w.spawn("")
					w.base = first.base
					wallet, stripeID := w.customer("acme", "10", card)
					w.must("PUT", "/v1/wallets/"+wallet+"/auto_topup", atOnce(2000, mode))
					_ = first.cmd.Process.Kill()
					<-first.done
					doomed := w.spawn(point)
					w.base = doomed.base
					go w.quietly("POST", "/v1/usage", `{"customer":"acme","amount":"6","idempotency_key":"one"}`)
					doomed.killed(t)
					w.base = w.spawn("").base
					w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "6", "idempotency_key": "one"})
					w.within(60*time.Second, "the top-up has ended", func() bool {
						s := w.must("GET", "/v1/topups?customer=acme", nil).str("data.0.status")
						return s == "succeeded" || s == "failed"
					})
					w.left("acme", want)
					if n := len(w.must("GET", "/v1/topups?customer=acme", nil).list()); n != 1 {
						t.Errorf("%d top-ups", n)
					}
					if want == "24" {
						w.invoiced(stripeID, 2000)
					} else {
						w.invoiced(stripeID)
						if _, reason := w.state(wallet); reason != "payment_failed" {
							t.Errorf("paused for %q", reason)
						}
					}
					w.inStepWithin(60*time.Second, "acme")
					w.left("acme", want)
				})
			}
		}
	}
}
