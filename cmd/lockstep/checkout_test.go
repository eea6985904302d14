package main

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

var checkout = map[string]any{"customer": "acme", "amount": "20", "mode": "checkout", "success_url": "https://app.example.com/done"}

// opened is a customer with a page on which 20.00 is to be paid.
func (w *world) opened(card string) (top answer, stripeID string) {
	w.t.Helper()
	_, stripeID = w.customer("acme", "", card)
	top = w.must("POST", "/v1/topups", checkout)
	if top.str("status") != "pending" || top.str("url") == "" || top.str("stripe.checkout_session") == "" {
		w.t.Fatalf("a page: %v", top)
	}
	return top, stripeID
}

// pay is the customer paying on the page.
func (w *world) pay(top answer, card string) {
	w.t.Helper()
	w.did(w.sim.Operator().CompleteCheckout(top.str("stripe.checkout_session"), card))
}

// becomes waits until a top-up has a status, and answers it.
func (w *world) becomes(top answer, status string) (now answer) {
	w.t.Helper()
	defer func() {
		if w.t.Failed() {
			w.t.Logf("top-up: %v", now)
		}
	}()
	w.eventually("the top-up has "+status, func() bool {
		now = w.must("GET", "/v1/topups/"+top.str("id"), nil)
		return now.str("status") == status
	})
	return now
}

func (w *world) pending() string {
	w.t.Helper()
	return w.must("GET", "/v1/customers/acme", nil).str("wallets.0.balance.pending")
}

// A page needs a way back and takes no card beforehand, and only a page takes a way back.
func TestCheckoutRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "10", "pm_card_visa")
	w.refuses([]refuse{
		{"nowhere to go", "POST", "/v1/topups", with(checkout, "success_url", nil), bad("parameter_missing", "success_url")},
		{"no URL", "POST", "/v1/topups", with(checkout, "success_url", "app.example.com"), bad("parameter_invalid", "success_url")},
		{"a script", "POST", "/v1/topups", with(checkout, "success_url", "javascript:alert(1)"), bad("parameter_invalid", "success_url")},
		{"empty", "POST", "/v1/topups", with(checkout, "success_url", ""), bad("", "success_url")},
		{"a card", "POST", "/v1/topups", with(checkout, "payment_method", "pm_card_visa"), bad("parameter_invalid", "payment_method")},
		{"below Stripe's least", "POST", "/v1/topups", with(checkout, "amount", "0.49"), bad("parameter_invalid", "amount")},
		{"a charge with a way back", "POST", "/v1/topups", with(checkout, "mode", "charge"), bad("parameter_invalid", "success_url")},
		{"and without a mode", "POST", "/v1/topups", with(checkout, "mode", nil), bad("parameter_invalid", "success_url")},
	})
	if a := w.call("PUT", "/v1/wallets/"+w.must("GET", "/v1/customers/acme", nil).str("wallets.0.id")+"/auto_topup",
		with(refill(0), "mode", "checkout")); a.status != http.StatusBadRequest || a.str("error.param") != "mode" {
		t.Errorf("a rule that asks nobody opened pages: %v", a)
	}
}

// A customer pays on Stripe's page: credited once, the card kept, and nothing else in flight meanwhile.
func TestCheckout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *worldOptions) { o.config = func(c *config) { c.PublicURL = "https://app.example.com" } })
	_, stripeID := w.customer("acme", "3", "")
	body := with(checkout, "success_url", nil)
	top := w.must("POST", "/v1/topups", body, "Idempotency-Key", "one")
	if again := w.call("POST", "/v1/topups", body, "Idempotency-Key", "one"); string(again.raw) != string(top.raw) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("under its key: %v", again)
	}
	w.refused("a second", w.call("POST", "/v1/topups", checkout), refusal{409, "conflict", "topup_in_flight", ""})
	if w.available("acme") != "3" || w.pending() != "20" {
		t.Errorf("before it is paid: %v", w.must("GET", "/v1/customers/acme", nil))
	}
	for _, r := range w.sim.Requests() {
		if r.Method == "POST" && r.Path == "/v1/checkout/sessions" {
			for name, want := range map[string]string{"metadata[lockstep_topup]": top.str("id"), "payment_intent_data[metadata][lockstep_topup]": top.str("id"),
				"payment_intent_data[setup_future_usage]": "off_session", "success_url": "https://app.example.com/portal", "line_items[0][price_data][unit_amount]": "2000"} {
				if got := r.Form.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if r.IdempotencyKey != "topup:"+top.str("id")+":attempt:1" {
				t.Errorf("key %s", r.IdempotencyKey)
			}
		}
	}
	w.pay(top, "pm_card_visa")
	w.paid("acme", stripeID, "23", 1)
	now := w.becomes(top, "succeeded")
	if now.str("url") != "" || now.str("stripe.payment_intent") != w.sim.PaymentIntents(stripeID)[0].ID || w.pending() != "0" {
		t.Errorf("paid: %v", now)
	}
	w.inStep("acme")
	w.eventually("the card is kept", func() bool { c, _ := w.sim.Customer(stripeID); return c.DefaultPaymentMethod != "" })
	w.refused("what was paid is not canceled", w.call("POST", "/v1/topups/"+top.str("id")+"/cancel", nil), refusal{409, "conflict", "state_conflict", "*"})
	if a := w.must("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "5"}); a.str("status") != "succeeded" {
		t.Errorf("with the card that was kept: %v", a)
	}
	w.did(w.sim.Operator().Refund(now.str("stripe.payment_intent"), 2000))
	w.eventually("a refund is taken back", func() bool { return w.available("acme") == "8" })
	w.inStep("acme")
}

// However its events come, and whether any does, a page that was paid is credited once.
func TestCheckoutEvents(t *testing.T) {
	t.Parallel()
	type fault struct {
		kind stripesim.DeliveryFaultKind
		of   string
	}
	faults := map[string]fault{}
	for name, kind := range map[string]stripesim.DeliveryFaultKind{"lost": stripesim.Lose, "lost once": stripesim.LoseOnce, "doubled": stripesim.Duplicate,
		"twins": stripesim.Twin, "held": stripesim.Hold, "of another API": stripesim.WrongAPIVersion} {
		for _, of := range []string{"", "checkout.session.completed", "payment_intent.succeeded"} {
			faults[name+" "+of] = fault{kind, of}
		}
	}
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *worldOptions) {
				if f.of == "" && f.kind != stripesim.Hold { // what is lost of one, the other tells
					o.backfill = time.Second
				}
			})
			w.sim.InjectDelivery(stripesim.DeliveryFault{Type: f.of, Kind: f.kind, Times: -1})
			top, stripeID := w.opened("")
			w.pay(top, "pm_card_visa")
			if f.kind == stripesim.Hold && f.of == "" {
				w.sim.ClearFaults()
				w.sim.Release()
			}
			w.paid("acme", stripeID, "20", 1)
			if w.sim.ClearFaults(); f.kind == stripesim.Hold {
				w.sim.Release() // late
			}
			w.quietEvents()
			w.paid("acme", stripeID, "20", 1)
			w.becomes(top, "succeeded")
			w.eventually("the card is kept", func() bool { c, _ := w.sim.Customer(stripeID); return c.DefaultPaymentMethod != "" })
			w.inStep("acme")
		})
	}
}

// Without any event, a look tells: that it was paid, or that nobody will.
func TestCheckoutLookedAt(t *testing.T) {
	t.Parallel()
	for name, paid := range map[string]bool{"paid": true, "expired": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quiet)
			top, stripeID := w.opened("")
			if paid {
				w.pay(top, "pm_card_visa")
				w.advance(11 * time.Minute)
				w.becomes(top, "succeeded")
				w.paid("acme", stripeID, "20", 1)
				if c, _ := w.sim.Customer(stripeID); c.DefaultPaymentMethod == "" {
					t.Error("the card was not kept")
				}
			} else {
				for range 3 {
					w.advance(time.Hour)
					time.Sleep(1200 * time.Millisecond)
				}
				looks := 0
				for _, r := range w.sim.Requests() {
					if r.Method == "GET" && r.Path == "/v1/checkout/sessions/"+top.str("stripe.checkout_session") {
						looks++
					}
				}
				if looks == 0 || looks > 3 {
					t.Errorf("looked at %d times", looks)
				}
				w.advance(22 * time.Hour)
				now := w.becomes(top, "canceled")
				if now.str("url") != "" || now.at("grant") != nil || w.pending() != "0" {
					t.Errorf("%v", now)
				}
			}
			w.inStep("acme")
		})
	}
}

// A card that is declined on the page ends nothing: the customer takes another.
func TestCheckoutDeclinedFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top, stripeID := w.opened("")
	if _, err := w.sim.Operator().CompleteCheckout(top.str("stripe.checkout_session"), "pm_card_chargeCustomerFail"); err == nil {
		t.Fatal("it paid")
	}
	w.quietEvents()
	if now := w.must("GET", "/v1/topups/"+top.str("id"), nil); now.str("status") != "pending" || now.str("url") != top.str("url") || now.at("failure") != nil {
		t.Errorf("after a decline: %v", now)
	}
	w.pay(top, "pm_card_visa")
	w.paid("acme", stripeID, "20", 1)
	w.inStep("acme")
}

// A card that is there stays the default; a rule that waits for one is armed by the card that paid.
func TestCheckoutCard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top, stripeID := w.opened("pm_card_visa")
	before, _ := w.sim.Customer(stripeID)
	w.pay(top, "pm_card_mastercard")
	w.paid("acme", stripeID, "20", 1)
	w.quietEvents()
	if now, _ := w.sim.Customer(stripeID); now.DefaultPaymentMethod != before.DefaultPaymentMethod {
		t.Errorf("the default was %s and is %s", before.DefaultPaymentMethod, now.DefaultPaymentMethod)
	}

	wallet, waits := w.customer("waits", "6", "")
	w.rule(wallet, refill(0))
	w.spend("waits", "3")
	w.eventually("the rule waits for a card", func() bool { _, reason := w.state(wallet); return reason == "no_payment_method" })
	w.pay(w.must("POST", "/v1/topups", with(with(checkout, "customer", "waits"), "amount", "1")), "pm_card_visa")
	w.paid("waits", waits, "24", 2) // 3 + 1, still below 5, + 20
	w.inStep("waits")
}

// A page that expires, and one that is canceled, takes no more money, gives nothing and makes room for another.
func TestCheckoutEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *world, top answer){
		"expired": func(w *world, _ answer) { w.advance(24*time.Hour + time.Second) },
		"canceled": func(w *world, top answer) {
			if a := w.must("POST", "/v1/topups/"+top.str("id")+"/cancel", nil); a.str("status") != "canceled" {
				w.t.Errorf("canceled: %v", a)
			}
			w.must("POST", "/v1/topups/"+top.str("id")+"/cancel", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Twin, Times: -1})
			top, stripeID := w.opened("")
			end(w, top)
			now := w.becomes(top, "canceled")
			if now.at("grant") != nil || now.str("url") != "" || w.pending() != "0" || w.available("acme") != "0" {
				t.Errorf("%v", now)
			}
			if _, err := w.sim.Operator().CompleteCheckout(top.str("stripe.checkout_session"), "pm_card_visa"); err == nil {
				t.Error("it can still be paid")
			}
			next := w.must("POST", "/v1/topups", checkout)
			w.pay(next, "pm_card_visa")
			w.paid("acme", stripeID, "20", 1)
			w.inStep("acme")
		})
	}
}

// A cancel that comes after the customer has paid, before anybody heard of it, finds it paid.
func TestCheckoutCanceledTooLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top, stripeID := w.opened("")
	w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Hold, Times: -1})
	w.pay(top, "pm_card_visa")
	w.refused("a cancel", w.call("POST", "/v1/topups/"+top.str("id")+"/cancel", nil), refusal{409, "conflict", "state_conflict", "*"})
	w.paid("acme", stripeID, "20", 1)
	w.sim.ClearFaults()
	w.sim.Release()
	w.quietEvents()
	w.paid("acme", stripeID, "20", 1)
	w.inStep("acme")
}

// A payment that takes days is processing until it has come, or has not.
func TestCheckoutPaidLater(t *testing.T) {
	t.Parallel()
	for card, want := range map[string]string{"pm_usBankAccount_success": "succeeded", "pm_usBankAccount_insufficientFunds": "failed"} {
		for _, lost := range []string{"", "checkout.session.completed", "payment_intent.processing", "checkout.session.async_payment_succeeded",
			"checkout.session.async_payment_failed", "payment_intent.succeeded"} {
			t.Run(want+", lost "+lost, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				if lost != "" {
					w.sim.InjectDelivery(stripesim.DeliveryFault{Type: lost, Kind: stripesim.Lose, Times: -1})
				}
				top, stripeID := w.opened("")
				w.pay(top, card)
				w.becomes(top, "processing")
				if w.available("acme") != "0" || w.pending() != "20" {
					t.Error("credited before it was paid")
				}
				w.refused("a second", w.call("POST", "/v1/topups", checkout), refusal{409, "conflict", "topup_in_flight", ""})
				w.advance(3 * 24 * time.Hour)
				now := w.becomes(top, want)
				w.quietEvents()
				if want == "succeeded" {
					w.paid("acme", stripeID, "20", 1)
				} else if now.str("failure.code") == "" || w.pending() != "0" || w.available("acme") != "0" {
					t.Errorf("%v", now)
				}
				w.inStep("acme")
			})
		}
	}
}

// Whatever happens to the call that opens it, there is one page; its address comes with the same request again.
func TestCheckoutUnderFaults(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string][]stripesim.Fault{
		"the answer is lost":       {{Kind: stripesim.DropAfter}},
		"and lost again":           {{Kind: stripesim.DropAfter, Times: 5}},
		"the call never arrives":   {{Kind: stripesim.DropBefore, Times: 5}},
		"half the answer":          {{Kind: stripesim.TruncateBody, Times: 5}},
		"a saved 500 after it":     {{Kind: stripesim.Error500After}},
		"Stripe is away":           {{Kind: stripesim.Unavailable, Times: 7}},
		"the key was wrong":        {{Kind: stripesim.Unauthorized}},
		"the webhook comes before": {{Kind: stripesim.Slow, Delay: time.Millisecond, EventFirst: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			_, stripeID := w.customer("acme", "", "")
			for _, f := range faults {
				f.Method, f.Path = "POST", "/v1/checkout/sessions"
				w.sim.Inject(f)
			}
			var top answer
			w.eventually("there is a page", func() bool {
				top = w.call("POST", "/v1/topups", checkout, "Idempotency-Key", "one")
				if top.status != http.StatusCreated && top.status != http.StatusServiceUnavailable && top.str("error.code") != "request_in_progress" {
					t.Fatalf("%v", top)
				}
				return top.status == http.StatusCreated
			})
			if top.str("url") == "" {
				t.Fatalf("a page without an address: %v", top)
			}
			w.pay(top, "pm_card_visa")
			w.paid("acme", stripeID, "20", 1)
			keys := map[string]bool{} // one key opens one page
			for _, r := range w.sim.Requests() {
				if r.Method == "POST" && r.Path == "/v1/checkout/sessions" {
					keys[r.IdempotencyKey] = true
				}
			}
			if len(keys) != 1 {
				t.Errorf("asked under %v", keys)
			}
			w.inStep("acme")
		})
	}
}

// A page of which nobody knows whether it was opened can be canceled: it is opened, and closed.
func TestCheckoutCanceledInDoubt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "", "")
	w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/checkout/sessions", Kind: stripesim.DropAfter, Times: 5})
	w.call("POST", "/v1/topups", checkout)
	top := w.must("GET", "/v1/topups?customer=acme", nil).list()[0]
	w.sim.ClearFaults()
	w.call("POST", "/v1/topups/"+top.str("id")+"/cancel", nil)
	now := w.becomes(top, "canceled")
	if s := w.sim.Session(now.str("stripe.checkout_session")); s.Status != "expired" {
		t.Errorf("the page: %+v", s)
	}
}

// Killed at any step, the service comes back to one page, one payment and one grant.
func TestKilledAroundCheckout(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"topup.leased", "topup.fixed", "topup.called", "topup.opened"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			first := w.spawn("")
			w.base = first.base
			_, stripeID := w.customer("acme", "", "")
			_ = first.cmd.Process.Kill()
			<-first.done
			doomed := w.spawn(point)
			w.base = doomed.base
			body := `{"customer":"acme","amount":"20","mode":"checkout","success_url":"https://app.example.com","idempotency_key":"one"}`
			go w.quietly("POST", "/v1/topups", body)
			doomed.killed(t)
			w.base = w.spawn("").base
			var top answer
			w.within(60*time.Second, "there is a page", func() bool {
				top = w.call("POST", "/v1/topups", body)
				return top.status == http.StatusCreated
			})
			w.pay(top, "pm_card_visa")
			w.within(60*time.Second, "it is paid", func() bool { return w.available("acme") == "20" })
			w.paid("acme", stripeID, "20", 1)
			w.inStepWithin(60*time.Second, "acme")
		})
	}
	for _, point := range []string{"topup.settling", "topup.settled", "topup.expired", "event.applied"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			first := w.spawn("")
			w.base = first.base
			top, stripeID := w.opened("")
			_ = first.cmd.Process.Kill()
			<-first.done
			if point != "topup.expired" {
				w.pay(top, "pm_card_visa")
			}
			if point != "event.applied" { // the events would settle it before the call does
				w.sim.Inject(stripesim.Fault{Method: "GET", Path: "/v1/events", Kind: stripesim.Unavailable, Times: 1000})
			}
			doomed := w.spawn(point)
			w.base = doomed.base
			if point != "event.applied" {
				go w.quietly("POST", fmt.Sprintf("/v1/topups/%s/cancel", top.str("id")), "")
			}
			doomed.killed(t)
			w.sim.ClearFaults()
			w.base = w.spawn("").base
			if point == "topup.expired" {
				w.within(60*time.Second, "it is canceled", func() bool {
					return w.must("GET", "/v1/topups/"+top.str("id"), nil).str("status") == "canceled"
				})
			} else {
				w.within(60*time.Second, "it is paid", func() bool { return w.available("acme") == "20" })
				w.paid("acme", stripeID, "20", 1)
			}
			w.inStepWithin(60*time.Second, "acme")
		})
	}
}
