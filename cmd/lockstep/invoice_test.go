package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil/stripesim"
)

var byInvoice = map[string]any{"customer": "acme", "amount": "20", "mode": "invoice"}

// invoiced makes sure that the customer's card paid those amounts, in any order, by invoices that were paid.
func (w *world) invoiced(stripeID string, amounts ...int64) {
	w.t.Helper()
	var sum, want int64
	n := 0
	for _, ch := range w.sim.Charges(stripeID) {
		if ch.Status == "succeeded" {
			sum += ch.Amount
			n++
		}
	}
	for _, a := range amounts {
		want += a
	}
	if sum != want || n != len(amounts) {
		w.t.Errorf("%d charges of %d together, want %v", n, sum, amounts)
	}
}

func (w *world) noOpenInvoice(stripeID string) {
	w.t.Helper()
	for _, in := range w.sim.Invoices(stripeID) {
		if in.Status == "open" {
			w.t.Errorf("an invoice is left open: %+v", in)
		}
	}
}

// A top-up by invoice that can't be is refused before there is an invoice; one that the card declines leaves none that
// can still be paid, and the balance in Stripe as it was.
func TestInvoiceRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "3", "")
	w.inStep("acme")
	w.refuses([]refuse{
		{"below Stripe's least", "POST", "/v1/topups", with(byInvoice, "amount", "0.49"), bad("parameter_invalid", "amount")},
		{"a way back", "POST", "/v1/topups", with(byInvoice, "success_url", "https://app.example.com"), bad("parameter_invalid", "success_url")},
	})
	w.refused("no card", w.call("POST", "/v1/topups", byInvoice), refusal{402, "card_error", "no_payment_method", "payment_method"})
	if n := len(w.sim.Invoices(stripeID)); n != 0 {
		t.Errorf("%d invoices", n)
	}
	w.refused("a card that is nobody's", w.call("POST", "/v1/topups", with(byInvoice, "payment_method", "pm_nobody")), bad("parameter_invalid", "*"))
	for token, want := range map[string][2]string{
		"pm_card_stripesim_insufficient_funds": {"card_declined", "insufficient_funds"},
		"pm_card_stripesim_expired_card":       {"expired_card", "expired_card"},
		"pm_card_authenticationRequired":       {"authentication_required", "authentication_required"},
	} {
		w.card(stripeID, token)
		a := w.call("POST", "/v1/topups", byInvoice, "Idempotency-Key", token)
		w.refused(token, a, refusal{402, "card_error", want[0], ""})
		top := w.must("GET", "/v1/topups/"+a.str("error.topup"), nil)
		if a.str("error.decline_code") != want[1] || top.str("status") != "failed" || top.str("stripe.invoice") == "" || top.at("grant") != nil {
			t.Errorf("%s: %v, %v", token, a, top)
		}
		if again := w.call("POST", "/v1/topups", byInvoice, "Idempotency-Key", token); string(again.raw) != string(a.raw) {
			t.Errorf("%s, kept: %v", token, again)
		}
	}
	w.quietEvents()
	w.noOpenInvoice(stripeID)
	if w.available("acme") != "3" || w.pending() != "0" {
		t.Errorf("available %s, pending %s", w.available("acme"), w.pending())
	}
	w.inStep("acme")
}

// What is bought by invoice is paid in full, and what was there is there after it, in both ledgers.
func TestInvoiceTopup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "3", "pm_card_visa")
	w.inStep("acme")
	a := w.must("POST", "/v1/topups", byInvoice, "Idempotency-Key", "one")
	ins := w.sim.Invoices(stripeID)
	if a.str("status") != "succeeded" || a.str("mode") != "invoice" || len(ins) != 1 || ins[0].ID != a.str("stripe.invoice") || ins[0].AmountPaid != 2000 {
		t.Fatalf("%v, invoices %+v", a, ins)
	}
	if pi := w.sim.PaymentIntents(stripeID)[0]; pi.ID != a.str("stripe.payment_intent") {
		t.Errorf("payment %s", pi.ID)
	}
	for _, r := range w.sim.Requests() {
		if r.Method != "POST" || r.Path != "/v1/invoices" {
			continue
		}
		for name, want := range map[string]string{"auto_advance": "false", "collection_method": "charge_automatically",
			"pending_invoice_items_behavior": "exclude", "metadata[lockstep_topup]": a.str("id")} {
			if got := r.Form.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	}
	w.invoiced(stripeID, 2000)
	w.left("acme", "23")
	w.inStep("acme")
	if again := w.call("POST", "/v1/topups", byInvoice, "Idempotency-Key", "one"); string(again.raw) != string(a.raw) {
		t.Errorf("under its key: %v", again)
	}
	w.did(w.sim.Operator().Refund(a.str("stripe.payment_intent"), 500))
	w.left("acme", "18")
	w.inStep("acme")
}

// What a stranger does to the balance after it was brought to nothing, and before the invoice is finalized, is spent or
// collected by Stripe with it: the customer has what was there, and what they paid.
func TestInvoiceMeetsStranger(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		amount  string
		adjust  int64   // in Stripe's sign
		charged []int64 // what the card is left to pay where the stranger came in between
	}{
		"a gift":                        {"20", -300, []int64{1700}},
		"a gift of all of it":           {"20", -2000, nil},
		"a gift of more":                {"20", -2500, nil},
		"a gift that leaves too little": {"1", -80, nil}, // Stripe charges no 0.20
		"a debt":                        {"20", 500, []int64{2500}},
		"nothing":                       {"0.5", 0, []int64{50}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			_, stripeID := w.customer("acme", "3", "pm_card_visa")
			w.inStep("acme")
			w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/invoices/*", Kind: stripesim.Slow, Delay: 6 * time.Second})
			done := make(chan answer)
			go func() { done <- w.call("POST", "/v1/topups", with(byInvoice, "amount", c.amount)) }()
			w.eventually("the balance is brought to nothing", func() bool { cus, _ := w.sim.Customer(stripeID); return cus.Balance == 0 })
			time.Sleep(2 * time.Second) // the call that finalizes is on its way
			if c.adjust != 0 {
				w.did(w.sim.Operator().AdjustBalance(stripeID, c.adjust, "usd", "somebody"))
			}
			if a := <-done; a.str("status") != "succeeded" {
				t.Fatalf("%v", a)
			}
			want := 300 - c.adjust // what was there, and what was paid
			var charged []int64
			for _, ch := range w.sim.Charges(stripeID) {
				want += ch.Amount
				charged = append(charged, ch.Amount)
			}
			if !slices.Equal(charged, c.charged) { // on a slow machine the stranger may come before the call
				t.Logf("the card paid %v, not %v", charged, c.charged)
			}
			left := ledger.FormatSteps(want, 2)
			w.left("acme", left)
			w.quietEvents()
			w.inStep("acme")
			w.left("acme", left)
		})
	}
}

// Whatever happens to any of its calls, a top-up by invoice is paid once, in full, and credited once, or ended with
// nothing left to pay.
func TestInvoiceUnderFaults(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/v1/invoices", "/v1/invoiceitems", "/v1/invoices/*"} {
		for name, f := range map[string]stripesim.Fault{
			"the answer is lost":    {Kind: stripesim.DropAfter, Times: 5},
			"the call is lost":      {Kind: stripesim.DropBefore, Times: 5},
			"half the answer":       {Kind: stripesim.TruncateBody, Times: 5},
			"a saved 500 after it":  {Kind: stripesim.Error500After},
			"a saved 500 before it": {Kind: stripesim.Error500Before},
			"Stripe is away":        {Kind: stripesim.Unavailable, Times: 6},
			"the customer locked":   {Kind: stripesim.LockTimeout},
			"events first":          {Kind: stripesim.Slow, Delay: time.Millisecond, EventFirst: true},
		} {
			t.Run(path+" "+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(o *worldOptions) { o.backfill = time.Second })
				_, stripeID := w.customer("acme", "3", "pm_card_visa")
				w.inStep("acme")
				f.Method, f.Path = "POST", path
				w.sim.Inject(f)
				w.call("POST", "/v1/topups", byInvoice)
				var top answer
				w.within(40*time.Second, "the top-up has ended", func() bool {
					top = w.must("GET", "/v1/topups?customer=acme", nil).list()[0]
					return top.str("status") == "succeeded" || top.str("status") == "failed"
				})
				if f.Kind == stripesim.Error500Before {
					if top.str("status") != "failed" {
						t.Errorf("%v", top.m)
					}
					w.invoiced(stripeID)
					w.left("acme", "3")
				} else {
					w.invoiced(stripeID, 2000)
					w.left("acme", "23")
				}
				w.inStep("acme")
				w.noOpenInvoice(stripeID)
			})
		}
	}
}

// However its events come, and whether any does.
func TestInvoiceEvents(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]stripesim.DeliveryFaultKind{"lost": stripesim.Lose, "lost once": stripesim.LoseOnce, "doubled": stripesim.Duplicate,
		"twins": stripesim.Twin, "held": stripesim.Hold, "of another API": stripesim.WrongAPIVersion} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *worldOptions) { o.backfill = time.Second })
			w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: kind, Times: -1})
			wallet, stripeID := w.customer("acme", "10", "pm_card_visa")
			w.inStep("acme")
			w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/invoices/*", Kind: stripesim.DropAfter, Times: 8})
			if a := w.rule(wallet, with(refill(2000), "mode", "invoice")); a.str("mode") != "invoice" {
				t.Fatal(a)
			}
			w.spend("acme", "6")
			w.within(45*time.Second, "it is paid", func() bool { return w.available("acme") == "24" }) // eight lost answers take their time
			w.sim.ClearFaults()
			w.sim.Release()
			w.quietEvents()
			w.inStep("acme")
			w.left("acme", "24")
			w.invoiced(stripeID, 2000)
			w.noOpenInvoice(stripeID)
		})
	}
}

// A rule's decline pauses it, and another card arms it; an invoice that needs the customer waits for them, payable on
// Stripe's page.
func TestInvoiceRuleWaits(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		card, reason string
		act          func(w *world, invoice, stripeID string)
		available    string
		charged      []int64
	}{
		"declined, then another card": {"pm_card_chargeCustomerFail", "payment_failed", func(w *world, _, stripeID string) { w.card(stripeID, "pm_card_visa") }, "24", []int64{2000}},
		"another card than the one that needs the customer": {"pm_card_authenticationRequired", "action_required",
			func(w *world, _, stripeID string) { w.card(stripeID, "pm_card_visa") }, "24", []int64{2000}},
		"paid elsewhere": {"pm_card_authenticationRequired", "action_required",
			func(w *world, invoice, _ string) { w.did(w.sim.Operator().PayInvoice(invoice, true)) }, "24", nil},
		"voided by hand": {"pm_card_authenticationRequired", "action_required",
			func(w *world, invoice, _ string) { w.did(w.sim.Operator().VoidInvoice(invoice)) }, "4", nil},
		"written off": {"pm_card_authenticationRequired", "action_required", func(w *world, invoice, _ string) { w.writeOff(invoice) }, "4", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			wallet, stripeID := w.customer("acme", "10", end.card)
			w.rule(wallet, with(refill(2000), "mode", "invoice"))
			w.spend("acme", "6")
			w.eventually("the rule is paused", func() bool { _, reason := w.state(wallet); return reason == end.reason })
			w.inStep("acme") // what was there is back in Stripe, whatever becomes of the invoice
			top := w.must("GET", "/v1/topups?customer=acme", nil).list()[0]
			if end.reason == "action_required" && top.str("url") == "" {
				t.Errorf("nowhere to pay: %v", top.m)
			}
			end.act(w, top.str("stripe.invoice"), stripeID)
			if end.available == "4" {
				w.becomes(top, "failed")
			}
			w.left("acme", end.available)
			w.quietEvents()
			w.inStep("acme")
			w.left("acme", end.available)
			w.invoiced(stripeID, end.charged...)
			w.noOpenInvoice(stripeID)
		})
	}
}

// writeOff is somebody giving an invoice up.
func (w *world) writeOff(invoice string) {
	w.t.Helper()
	w.atStripe("/v1/invoices/"+invoice+"/mark_uncollectible", "")
}

// atStripe is somebody else with a key of the account.
func (w *world) atStripe(path, form string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), "POST", w.o.stripeURL+path, strings.NewReader(form))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.sim.SecretKey())
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		w.t.Fatalf("POST %s %s: %d", path, form, resp.StatusCode)
	}
}

// A customer with nothing in Stripe buys by invoice too; and one who can't be charged now may give it up: nothing is
// left to pay, and what was there is back.
func TestInvoiceCanceled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "", "pm_card_visa")
	if a := w.must("POST", "/v1/topups", byInvoice); a.str("status") != "succeeded" {
		t.Fatalf("with nothing in Stripe: %v", a)
	}
	w.left("acme", "20")
	w.inStep("acme")
	for _, path := range []string{"/v1/invoices", "/v1/invoiceitems", "/v1/invoices/*"} {
		w.sim.Inject(stripesim.Fault{Method: "POST", Path: path, Kind: stripesim.Unavailable, Times: -1})
		top := w.must("POST", "/v1/topups", byInvoice)
		if top.str("status") != "pending" {
			t.Errorf("%s: %v", path, top)
		}
		w.sim.ClearFaults()
		for range 2 { // whoever is on the way may have had it paid
			w.call("POST", "/v1/topups/"+top.str("id")+"/cancel", nil)
		}
		now := w.must("GET", "/v1/topups/"+top.str("id"), nil)
		if now.str("status") != "canceled" || now.at("grant") != nil || w.pending() != "0" {
			t.Errorf("%s: %v", path, now)
		}
		w.left("acme", "20")
		w.inStep("acme")
		w.invoiced(stripeID, 2000)
		w.noOpenInvoice(stripeID)
	}
}

// Debits go on while credit is bought by invoice again and again, through two gateways: each is paid in full, and both
// ledgers end up the same.
func TestInvoiceUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	peer := w.peer()
	_, stripeID := w.customer("acme", "30", "pm_card_visa")
	var wg sync.WaitGroup
	for i := range 8 {
		side := []*world{w, peer}[i%2]
		wg.Go(func() {
			for n := range 25 {
				side.call("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "0.13", "idempotency_key": fmt.Sprint(i, "-", n)})
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	for i := range 4 {
		side := []*world{w, peer}[i%2]
		if a := side.must("POST", "/v1/topups", byInvoice); a.status != http.StatusCreated {
			t.Errorf("%v", a)
		}
		w.becomes(w.must("GET", "/v1/topups?customer=acme", nil).list()[0], "succeeded")
	}
	wg.Wait()
	w.left("acme", "84") // 30 + 80 - 26
	w.invoiced(stripeID, 2000, 2000, 2000, 2000)
	w.inStep("acme")
}

// Killed at any step, the service comes back to one payment in full, one grant, and the balance restored.
func TestKilledAroundInvoice(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"topup.leased", "topup.fixed", "invoice.drafted", "invoice.complete", "invoice.taxed", "mirror.planned", "mirror.called", "invoice.emptied",
		"invoice.finalized", "invoice.noted", "topup.called", "topup.settling", "topup.settled",
		"topup.called, declined", "invoice.closed, declined", "topup.settling, declined", "topup.settled, declined",
		"invoice.finalized, sent", "topup.called, sent"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			first := w.spawn("")
			w.base = first.base
			card, want, charged := "pm_card_visa", "23", []int64{2000}
			point, declined := strings.CutSuffix(point, ", declined")
			if declined {
				card, want, charged = "pm_card_chargeCustomerFail", "3", nil
			}
			point, sent := strings.CutSuffix(point, ", sent")
			_, stripeID := w.customer("acme", "3", card)
			w.inStepWithin(30*time.Second, "acme")
			_ = first.cmd.Process.Kill()
			<-first.done
			doomed := w.spawn(point)
			w.base = doomed.base
			terms := ""
			if sent {
				terms, charged = `"invoice":{"collection_method":"send_invoice"},`, nil
			}
			if point == "invoice.taxed" {
				w.atStripe("/v1/customers/"+stripeID, "address[country]=DE")
				terms, charged = `"invoice":{"automatic_tax":true},`, []int64{2380}
			}
			go w.quietly("POST", "/v1/topups", `{"customer":"acme","amount":"20","mode":"invoice",`+terms+`"idempotency_key":"one"}`)
			doomed.killed(t)
			w.base = w.spawn("").base
			if sent {
				w.within(60*time.Second, "it is sent", func() bool { return w.call("GET", "/v1/topups?customer=acme", nil).str("data.0.url") != "" })
				w.did(w.sim.Operator().PayInvoice(w.sim.Invoices(stripeID)[0].ID, true))
			}
			w.within(60*time.Second, "the top-up has ended", func() bool {
				list := w.must("GET", "/v1/topups?customer=acme", nil).list()
				return len(list) == 1 && (list[0].str("status") == "succeeded" || list[0].str("status") == "failed")
			})
			w.left("acme", want)
			w.inStepWithin(90*time.Second, "acme")
			w.invoiced(stripeID, charged...)
			w.noOpenInvoice(stripeID)
		})
	}
}
