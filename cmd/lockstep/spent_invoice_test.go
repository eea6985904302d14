package main

import (
	"encoding/csv"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// entriesOf are a wallet's entries, the newest first, those of one type where one is said.
func (w *world) entriesOf(wallet, kind string) []answer {
	w.t.Helper()
	return slices.DeleteFunc(w.must("GET", "/v1/wallets/"+wallet+"/entries?limit=100", nil).list(), func(e answer) bool { return kind != "" && e.str("type") != kind })
}

// granted gives credit and answers its grant.
func (w *world) granted(body map[string]any) string {
	w.t.Helper()
	return w.must("POST", "/v1/grants", body).str("id")
}

// parts are an entry's, as "grant:amount" in a row.
func (a answer) parts() string {
	var all []string
	for _, p := range (answer{m: map[string]any{"data": a.at("parts")}}).list() {
		all = append(all, p.str("grant")+":"+p.str("amount"))
	}
	return strings.Join(all, " ")
}

// remaining is what a grant has left.
func (w *world) remaining(grant string) string {
	w.t.Helper()
	for _, g := range w.must("GET", "/v1/grants?limit=100", nil).list() {
		if g.str("id") == grant {
			return g.str("remaining")
		}
	}
	return ""
}

// An invoice that Stripe pays from the balance takes from the grants that may pay invoices, in burn order, those of the
// wallet for invoices first, and is shown with its id. Voided, the same goes back to the same grants, and nothing is made
// of it.
func TestInvoiceSpendsCredit(t *testing.T) {
	w := newWorld(t)
	all, stripeID := w.customer("acme", "", "")
	invoices := w.must("POST", "/v1/customers/acme/wallets", map[string]any{"asset": "usd", "scope": "invoices"}).str("id")
	w.must("POST", "/v1/customers/acme/wallets", map[string]any{"asset": "usd", "scope": "usage"})
	credit := func(wallet, amount, kind string, priority int) string {
		return w.granted(map[string]any{"wallet": wallet, "customer": "acme", "amount": amount, "kind": kind, "priority": priority})
	}
	first := credit(invoices, "2", "purchased", 50)
	late := credit(all, "10", "purchased", 60)
	soon := credit(all, "4", "purchased", 40)
	promotional := credit(all, "50", "promotional", 1)
	w.inStep("acme")
	paid := w.did(w.sim.Operator().FinalInvoice(stripeID, 300, "usd"))
	w.eventually("it is booked", func() bool { return w.remaining(soon) == "3" })
	w.inStep("acme")
	took, fromInvoices := w.entriesOf(all, "stripe_balance"), w.entriesOf(invoices, "stripe_balance")
	if len(took) != 1 || took[0].str("amount") != "-1" || took[0].parts() != soon+":-1" || len(fromInvoices) != 1 || fromInvoices[0].parts() != first+":-2" {
		t.Fatalf("%v %v", took, fromInvoices)
	}
	for _, e := range []answer{took[0], fromInvoices[0]} {
		if e.str("stripe.invoice") != paid || e.str("stripe.balance_transaction") != e.str("refers_to") || e.str("stripe.credit_note") != "" {
			t.Errorf("it does not name its invoice: %v", e)
		}
	}
	in := w.did(w.sim.Operator().FinalInvoice(stripeID, 5000, "usd")) // more than there is, so it is open
	w.eventually("it is booked", func() bool { return w.remaining(late) == "0" })
	w.inStep("acme")
	if e := w.entriesOf(all, "stripe_balance")[0]; e.parts() != soon+":-3 "+late+":-10" || len(w.entriesOf(invoices, "stripe_balance")) != 1 {
		t.Errorf("%v", e)
	}
	grants := len(w.grants("acme"))
	w.did(w.sim.Operator().VoidInvoice(in))
	w.eventually("it is given back", func() bool { return w.remaining(late) == "10" })
	w.inStep("acme")
	if w.remaining(first) != "0" || w.remaining(soon) != "3" || w.remaining(promotional) != "50" || len(w.grants("acme")) != grants {
		t.Errorf("after the void: %v", w.grants("acme"))
	}
	back := w.entriesOf(all, "stripe_balance")[0]
	if back.str("amount") != "13" || back.parts() != late+":10 "+soon+":3" || back.str("stripe.invoice") != in {
		t.Errorf("%v", back)
	}
	out, code := w.command("export", "-wallet", all)
	lines, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || code != 0 {
		t.Fatal(err, code)
	}
	if at := slices.Index(lines[0], "stripe_invoice"); lines[len(lines)-1][at] != in || lines[len(lines)-3][at] != paid || lines[1][at] != "" {
		t.Errorf("the export: %v", lines)
	}
	// No sale and no loss: what was earned with the voided invoice was given back with it.
	now := time.Now().UTC()
	report := w.must("GET", "/v1/reports/revenue?from="+now.Format("2006-01-02")+"T00:00:00Z&to="+now.AddDate(0, 0, 1).Format("2006-01-02")+"T00:00:00Z", nil)
	for i, row := range (answer{m: map[string]any{"data": report.at("rows")}}).list() {
		if earned := row.str("earned"); row.str("kind") == "adjustment" || row.str("kind") == "purchased" && earned != "3" {
			t.Errorf("row %d: %v", i, row)
		}
	}
}

// Credit priced in the same currency is all in the one balance of Stripe: what an invoice takes comes from each asset's
// grants, and is never owed while there is any.
func TestInvoiceSpendsEveryAsset(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0, "price_per_unit": "0.007", "currency": "usd"})
	usd, stripeID := w.customer("acme", "3", "")
	tokens := w.granted(map[string]any{"customer": "acme", "asset": "tokens", "amount": "1000", "kind": "purchased"})
	w.inStep("acme")
	w.did(w.sim.Operator().FinalInvoice(stripeID, 800, "usd"))
	w.eventually("the dollars are spent", func() bool { return w.available("acme") == "0" })
	if got := w.remaining(tokens); got != "286" { // 714 cost 4.998, of the 5.00 that Stripe took
		t.Errorf("%s tokens are left", got)
	}
	w.inStep("acme")
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "1", "kind": "purchased"})
	w.inStep("acme")
	in := w.did(w.sim.Operator().FinalInvoice(stripeID, 5000, "usd"))
	w.has("acme", "tokens", "1")
	w.left("acme", "0")
	w.inStep("acme")
	w.did(w.sim.Operator().VoidInvoice(in))
	w.has("acme", "tokens", "286")
	w.left("acme", "1")
	w.inStep("acme")
	if n := len(w.entriesOf(usd, "stripe_balance")); n != 3 || len(w.grants("acme")) != 3 {
		t.Errorf("%d entries of the dollars, want 3", n)
	}
}

// A void after which Stripe keeps the balance gives nothing back, one that gives it back in parts gives the parts, and
// what it gives beyond what the invoice took is a stranger's credit.
func TestInvoiceVoidedInParts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "", "")
	one := w.granted(map[string]any{"customer": "acme", "amount": "3", "kind": "purchased", "priority": 10})
	two := w.granted(map[string]any{"customer": "acme", "amount": "5", "kind": "purchased", "priority": 20})
	w.inStep("acme")
	op := w.sim.Operator()
	in := w.did(op.FinalInvoice(stripeID, 2000, "usd"))
	w.left("acme", "0")
	w.inStep("acme")
	w.did(op.VoidInvoiceOnly(in))
	w.quietEvents()
	w.inStep("acme")
	if w.available("acme") != "0" {
		t.Fatalf("Stripe gave nothing back, and %s are there", w.available("acme"))
	}
	for _, step := range []struct {
		cents          int64
		one, two, left string
	}{{100, "0", "1", "1"}, {150, "0", "2.5", "2.5"}, {300, "0.5", "5", "5.5"}, {350, "3", "5", "9"}, {200, "3", "5", "11"}} {
		w.did(op.ReturnBalance(in, step.cents))
		w.left("acme", step.left)
		w.inStep("acme")
		if w.remaining(one) != step.one || w.remaining(two) != step.two {
			t.Errorf("after %d: %s and %s, want %s and %s", step.cents, w.remaining(one), w.remaining(two), step.one, step.two)
		}
	}
	sources := 0
	for _, g := range w.grants("acme") {
		if g.str("kind") == "adjustment" && g.str("amount") != "1" && g.str("amount") != "2" {
			t.Errorf("%v", g)
		}
		if g.str("kind") == "adjustment" {
			sources++
		}
	}
	if sources != 2 || len(w.entriesOf(wallet, "stripe_balance")) != 6 {
		t.Errorf("%d adjustments, %v", sources, w.entriesOf(wallet, "stripe_balance"))
	}
}

// What was spent beyond all grants is owed at Stripe; voided, less is owed, what was paid down meanwhile comes back, and
// what belongs to a grant that has expired expires at once.
func TestInvoiceVoidedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *worldOptions) { o.mirror = time.Hour })
	wallet, stripeID := w.customer("acme", "", "")
	old := w.granted(map[string]any{"customer": "acme", "amount": "4", "kind": "purchased", "expires_at": in(time.Hour)})
	w.must("POST", "/v1/reconcile", map[string]any{"customer": "acme", "repair": true})
	w.spend("acme", "1")
	invoice := w.did(w.sim.Operator().FinalInvoice(stripeID, 900, "usd")) // Stripe still shows 4 and spends them; 3 are left here
	w.quietEvents()
	w.must("POST", "/v1/reconcile", map[string]any{"customer": "acme", "repair": true})
	w.left("acme", "-1")
	if e := w.entriesOf(wallet, "stripe_balance"); len(e) != 1 || e[0].parts() != old+":-3 :-1" {
		t.Errorf("%v", e)
	}
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "5", "kind": "purchased"})
	w.left("acme", "4")
	w.advance(2 * time.Hour)
	w.did(w.sim.Operator().VoidInvoice(invoice))
	w.quietEvents()
	w.must("POST", "/v1/reconcile", map[string]any{"customer": "acme", "repair": true})
	w.left("acme", "5") // 4 came back: 3 of them too late, and 1 that had been paid down
	w.inStep("acme")
	if e := w.entriesOf(wallet, "expire"); len(e) != 1 || e[0].str("amount") != "-3" || e[0].str("reason") != "given back too late" {
		t.Errorf("%v", e)
	}
}

// Voided while it is still owed, less is owed, and no grant is made of it.
func TestInvoiceVoidedInDebt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *worldOptions) { o.mirror = time.Hour })
	wallet, stripeID := w.customer("acme", "", "")
	g := w.granted(map[string]any{"customer": "acme", "amount": "4", "kind": "purchased"})
	level := func() { w.must("POST", "/v1/reconcile", map[string]any{"customer": "acme", "repair": true}) }
	level()
	w.spend("acme", "3")
	invoice := w.did(w.sim.Operator().FinalInvoice(stripeID, 900, "usd")) // Stripe still shows 4 and spends them; 1 is left here
	w.quietEvents()
	level()
	w.left("acme", "-3")
	w.did(w.sim.Operator().VoidInvoice(invoice))
	w.quietEvents()
	level()
	w.left("acme", "1")
	w.inStep("acme")
	if e := w.entriesOf(wallet, "stripe_balance")[0]; e.parts() != ":3 "+g+":1" || len(w.grants("acme")) != 1 {
		t.Errorf("%v, %v", e, w.grants("acme"))
	}
}

// Whatever becomes of the events that tell of an invoice and its void, the books end the same.
func TestInvoiceSpendingUnderScrambledEvents(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]stripesim.DeliveryFaultKind{"lost": stripesim.Lose, "twice": stripesim.Duplicate, "twins": stripesim.Twin, "late": stripesim.LoseOnce, "held": stripesim.Hold} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *worldOptions) { o.backfill = time.Second })
			peer := w.peer()
			w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: kind, Times: 1000})
			_, stripeID := w.customer("acme", "", "")
			g := w.granted(map[string]any{"customer": "acme", "amount": "10", "kind": "purchased"})
			w.inStepWithin(40*time.Second, "acme")
			op := w.sim.Operator()
			w.did(op.VoidInvoice(w.did(op.FinalInvoice(stripeID, 2000, "usd"))))
			w.did(op.FinalInvoice(stripeID, 100, "usd"))
			w.sim.Release()
			w.within(40*time.Second, "9 are left", func() bool { return peer.available("acme") == "9" })
			w.sim.Release()
			w.inStepWithin(40*time.Second, "acme")
			w.quietEvents()
			if w.available("acme") != "9" || w.remaining(g) != "9" || len(w.grants("acme")) != 1 {
				t.Errorf("%v", w.grants("acme"))
			}
		})
	}
}

// Killed after Stripe's list was read, and again after it was booked, the service books an invoice and its void once.
func TestKilledWhileReturningAnInvoice(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"mirror.listed", "mirror.imported"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := detached(t)
			first := w.spawn("")
			w.base = first.base
			_, stripeID := w.customer("acme", "", "")
			g := w.granted(map[string]any{"customer": "acme", "amount": "10", "kind": "purchased"})
			w.inStepWithin(30*time.Second, "acme")
			in := w.did(w.sim.Operator().FinalInvoice(stripeID, 2000, "usd"))
			w.must("POST", "/v1/reconcile", map[string]any{"customer": "acme", "repair": true})
			w.left("acme", "0")
			_ = first.cmd.Process.Kill()
			<-first.done
			w.did(w.sim.Operator().VoidInvoice(in))
			w.spawn(point).killed(t) // its backfill hears of it
			w.base = w.spawn("").base
			w.within(60*time.Second, "it is given back", func() bool { return w.available("acme") == "10" })
			w.inStepWithin(60*time.Second, "acme")
			if w.remaining(g) != "10" || len(w.grants("acme")) != 1 {
				t.Errorf("%v", w.grants("acme"))
			}
		})
	}
}
