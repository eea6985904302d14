package main

import (
	"slices"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

var (
	taxed = with(byInvoice, "invoice", map[string]any{"automatic_tax": true})
	sent  = with(byInvoice, "invoice", map[string]any{"collection_method": "send_invoice", "days_until_due": 14})
)

// Terms that there are not are refused, at a top-up and at a rule.
func TestInvoiceTermsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "10", "pm_card_visa")
	for name, c := range map[string]struct {
		change map[string]any
		param  string
	}{
		"of another mode":  {map[string]any{"mode": "charge", "invoice": map[string]any{"automatic_tax": true}}, "invoice"},
		"another method":   {map[string]any{"invoice": map[string]any{"collection_method": "by_pigeon"}}, "invoice.collection_method"},
		"due at once":      {map[string]any{"invoice": map[string]any{"collection_method": "send_invoice", "days_until_due": 0}}, "invoice.days_until_due"},
		"due in ages":      {map[string]any{"invoice": map[string]any{"collection_method": "send_invoice", "days_until_due": 1826}}, "invoice.days_until_due"},
		"charged when due": {map[string]any{"invoice": map[string]any{"days_until_due": 7}}, "invoice.days_until_due"},
		"unknown":          {map[string]any{"invoice": map[string]any{"due": 7}}, "invoice.due"},
	} {
		topup, rule := byInvoice, with(refill(0), "mode", "invoice")
		for field, v := range c.change {
			topup, rule = with(topup, field, v), with(rule, field, v)
		}
		want := bad("parameter_invalid", c.param)
		if name == "unknown" {
			want = bad("parameter_unknown", "due")
		}
		w.refused(name+", top-up", w.call("POST", "/v1/topups", topup), want)
		w.refused(name+", rule", w.rule(wallet, rule), want)
	}
	w.refused("a card beside it", w.call("POST", "/v1/topups", with(sent, "payment_method", "pm_card_visa")), bad("parameter_invalid", "payment_method"))
	if n := len(w.sim.Invoices(stripeID)); n != 0 {
		t.Errorf("%d invoices", n)
	}
}

// Tax comes on top: the customer pays it, and has the credit that they asked for; a refund of half of all that they paid
// takes half of the credit.
func TestInvoiceTaxed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "3", "pm_card_visa")
	w.inStep("acme")
	w.refused("nobody knows where", w.call("POST", "/v1/topups", taxed), bad("parameter_invalid", "*"))
	w.inStep("acme")
	w.atStripe("/v1/customers/"+stripeID, "address[country]=DE")
	a := w.must("POST", "/v1/topups", taxed)
	if a.str("status") != "succeeded" || a.str("charge.amount") != "2380" || a.str("tax.amount") != "380" || a.str("amount") != "20" || a.at("invoice.automatic_tax") != true {
		t.Fatalf("%v", a)
	}
	w.invoiced(stripeID, 2380)
	w.left("acme", "23")
	w.inStep("acme")
	if g := w.must("GET", "/v1/grants?customer=acme", nil).list()[0]; g.str("cost.amount") != "2000" {
		t.Errorf("what was sold is without its tax: %v", g)
	}
	w.did(w.sim.Operator().Refund(a.str("stripe.payment_intent"), 1190))
	w.left("acme", "13")
	w.inStep("acme")
	w.noOpenInvoice(stripeID)
}

// The cap is on what is charged, with its tax: what passes it by its tax alone is not charged, and is not tried again
// before there is more cap.
func TestInvoiceTaxAndCap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "10", "pm_card_visa")
	w.atStripe("/v1/customers/"+stripeID, "address[country]=DE")
	rule := with(with(refill(4500), "mode", "invoice"), "invoice", map[string]any{"automatic_tax": true})
	if a := w.rule(wallet, rule); a.at("invoice.automatic_tax") != true || a.str("invoice.collection_method") != "charge_automatically" {
		t.Fatalf("%v", a)
	}
	w.spend("acme", "6")
	w.left("acme", "24")
	w.spend("acme", "20")
	w.eventually("the rule is paused", func() bool { _, reason := w.state(wallet); return reason == "spend_cap" })
	w.left("acme", "4")
	w.invoiced(stripeID, 2380)
	before := len(w.sim.Invoices(stripeID))
	w.spend("acme", "1")
	w.quietEvents()
	if n := len(w.sim.Invoices(stripeID)); n != before {
		t.Errorf("%d invoices were drafted that the cap does not allow", n-before)
	}
	if a := w.must("GET", "/v1/wallets/"+wallet+"/auto_topup", nil); a.str("spent.amount") != "2380" {
		t.Errorf("%v", a)
	}
	w.rule(wallet, with(rule, "spend_cap", map[string]any{"amount": 4760, "currency": "usd", "interval": "month"}))
	w.left("acme", "23")
	w.invoiced(stripeID, 2380, 2380)
	w.inStep("acme")
	w.noOpenInvoice(stripeID)
}

// The first invoice tells how much tax there is: one that passes the cap by it is closed before anybody pays it.
func TestInvoiceTaxPassesCap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "10", "pm_card_visa")
	w.atStripe("/v1/customers/"+stripeID, "address[country]=DE")
	rule := with(with(refill(2000), "mode", "invoice"), "invoice", map[string]any{"automatic_tax": true})
	w.rule(wallet, rule)
	w.spend("acme", "6")
	w.eventually("the rule is paused", func() bool { _, reason := w.state(wallet); return reason == "spend_cap" })
	top := w.must("GET", "/v1/topups?customer=acme", nil).list()[0]
	if top.str("status") != "failed" || top.str("failure.code") != "spend_cap" || top.str("charge.amount") != "2380" {
		t.Errorf("%v", top.m)
	}
	w.call("POST", "/v1/wallets/"+wallet+"/auto_topup/resume", nil)
	if state, reason := w.state(wallet); state != "paused" || reason != "spend_cap" {
		t.Errorf("resumed against its cap: %s %s", state, reason)
	}
	w.invoiced(stripeID)
	w.left("acme", "4")
	w.rule(wallet, with(rule, "spend_cap", map[string]any{"amount": 2380, "currency": "usd", "interval": "month"}))
	w.left("acme", "24")
	w.invoiced(stripeID, 2380)
	w.inStep("acme")
	w.noOpenInvoice(stripeID)
}

// Tax that rises between the draft and its end is more than anybody allowed: nothing is charged, whatever was answered.
func TestInvoiceTaxRises(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]stripesim.FaultKind{"heard of": stripesim.NoFault, "a saved 500 after it": stripesim.Error500After} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			wallet, stripeID := w.customer("acme", "10", "pm_card_visa")
			w.atStripe("/v1/customers/"+stripeID, "address[country]=DE")
			w.inStep("acme")
			rule := with(with(refill(2380), "mode", "invoice"), "invoice", map[string]any{"automatic_tax": true})
			w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/customers/" + stripeID + "/balance_transactions", Kind: stripesim.Slow, Delay: 2 * time.Second, Times: 2})
			if kind != stripesim.NoFault {
				w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/invoices/*", Kind: kind})
			}
			w.rule(wallet, rule)
			w.spend("acme", "6")
			w.eventually("its tax is noted", func() bool { return w.must("GET", "/v1/topups?customer=acme", nil).str("data.0.tax.amount") == "380" })
			w.atStripe("/v1/customers/"+stripeID, "address[country]=GB")
			w.within(30*time.Second, "the rule is paused", func() bool { _, reason := w.state(wallet); return reason == "payment_failed" })
			top := w.must("GET", "/v1/topups?customer=acme", nil).list()[0]
			if top.str("failure.code") != "invoice_changed" {
				t.Errorf("%v", top.m)
			}
			w.invoiced(stripeID)
			w.left("acme", "4")
			w.inStep("acme")
			w.noOpenInvoice(stripeID)
		})
	}
}

// An invoice that is sent is its customer's to pay: until they have, the credit is pending and there is no second one.
func TestInvoiceSent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		act    func(w *world, top answer, stripeID string)
		status string
		left   string
		paid   []int64
	}{
		"paid by card": {func(w *world, top answer, _ string) {
			w.did(w.sim.Operator().PayInvoice(top.str("stripe.invoice"), false))
		}, "succeeded", "23", []int64{2000}},
		"paid by bank": {func(w *world, top answer, _ string) {
			w.did(w.sim.Operator().PayInvoice(top.str("stripe.invoice"), true))
		}, "succeeded", "23", nil},
		"declined, then paid": {func(w *world, top answer, stripeID string) {
			w.card(stripeID, "pm_card_chargeCustomerFail")
			if _, err := w.sim.Operator().PayInvoice(top.str("stripe.invoice"), false); err == nil {
				w.t.Error("not declined")
			}
			w.quietEvents()
			w.card(stripeID, "pm_card_visa")
			w.did(w.sim.Operator().PayInvoice(top.str("stripe.invoice"), false))
		}, "succeeded", "23", []int64{2000}},
		"voided":   {func(w *world, top answer, _ string) { w.did(w.sim.Operator().VoidInvoice(top.str("stripe.invoice"))) }, "failed", "3", nil},
		"given up": {func(w *world, top answer, _ string) { w.writeOff(top.str("stripe.invoice")) }, "failed", "3", nil},
		"canceled": {func(w *world, top answer, _ string) { w.must("POST", "/v1/topups/"+top.str("id")+"/cancel", nil) }, "canceled", "3", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			_, stripeID := w.customer("acme", "3", "pm_card_visa")
			w.inStep("acme")
			a := w.must("POST", "/v1/topups", sent, "Idempotency-Key", "one")
			if a.str("status") != "pending" || a.str("url") == "" || a.str("invoice.days_until_due") != "14" || w.pending() != "20" {
				t.Fatalf("%v, pending %s", a, w.pending())
			}
			if again := w.must("POST", "/v1/topups", sent, "Idempotency-Key", "one"); string(again.raw) != string(a.raw) {
				t.Errorf("under its key: %v", again)
			}
			w.refused("a second", w.call("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "20"}), refusal{409, "conflict", "topup_in_flight", ""})
			w.inStep("acme") // what was there is back in Stripe, whatever becomes of the invoice
			if in := w.sim.Invoices(stripeID)[0]; in.Status != "open" || in.AmountDue != 2000 {
				t.Errorf("%+v", in)
			}
			c.act(w, a, stripeID)
			w.becomes(a, c.status)
			w.quietEvents()
			w.left("acme", c.left)
			w.invoiced(stripeID, c.paid...)
			w.inStep("acme")
			if name != "given up" {
				w.noOpenInvoice(stripeID)
			}
		})
	}
}

// A rule sends invoices too, to a customer who has no card, or none any more.
func TestInvoiceSentByRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "10", "pm_card_visa")
	a := w.rule(wallet, with(with(refill(0), "mode", "invoice"), "invoice", map[string]any{"collection_method": "send_invoice"}))
	if a.str("invoice.days_until_due") != "30" {
		t.Fatalf("%v", a)
	}
	cus, _ := w.sim.Customer(stripeID)
	w.did(w.sim.Operator().DetachPaymentMethod(cus.DefaultPaymentMethod))
	w.quietEvents()
	if state, reason := w.state(wallet); state != "armed" {
		t.Errorf("without a card, which it does not charge: %s %s", state, reason)
	}
	w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/invoices/*", Kind: stripesim.DropAfter, Times: 4})
	w.spend("acme", "6")
	var top answer
	w.eventually("it is sent", func() bool {
		list := w.must("GET", "/v1/topups?customer=acme", nil).list()
		if len(list) == 1 {
			top = list[0]
		}
		return top.m != nil && top.str("url") != ""
	})
	if state, _ := w.state(wallet); state != "topping_up" || top.str("status") != "pending" {
		t.Errorf("state %s, %v", state, top.m)
	}
	w.spend("acme", "1")
	w.inStep("acme")
	before := len(w.sim.Requests())
	w.advance(40 * 24 * time.Hour)
	w.eventually("it is looked at when it is long due", func() bool {
		return slices.ContainsFunc(w.sim.Requests()[before:], func(r stripesim.Request) bool { return r.Path == "/v1/invoices/"+top.str("stripe.invoice") })
	})
	w.did(w.sim.Operator().PayInvoice(top.str("stripe.invoice"), true))
	w.left("acme", "23")
	w.quietEvents()
	w.inStep("acme")
	if n := len(w.sim.Invoices(stripeID)); n != 1 {
		t.Errorf("%d invoices", n)
	}
}
