package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/stripeutil"
	"lockstep/stripeutil/stripesim"
)

// unheard has Stripe tell of nothing that happens from here on, by no webhook and by no list of events.
func (w *world) unheard() {
	w.t.Helper()
	w.quietEvents()
	w.sim.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Lose, Times: -1})
	w.sql(`insert into progress (name, at) values ('backfill', $1) on conflict (name) do update set at = excluded.at`, time.Now().AddDate(1, 0, 0))
}

// sql changes the books behind everybody's back.
func (w *world) sql(query string, args ...any) {
	w.t.Helper()
	if _, err := w.g.ledger.DB().Exec(query, args...); err != nil {
		w.t.Fatal(err)
	}
}

// planted is a difference between Stripe and the books, made where nobody hears of it.
type planted struct {
	kind   string
	begin  string                        // what the customer buys before
	before func(p *plot)                 // and what else happens while everything is heard of
	plant  func(p *plot) (ids []string)  // makes it, and answers what a finding has to name
	person string                        // what the finding tells a person to do; "" where a repair can
	undo   func(p *plot)                 // what that person does
	after  string                        // what is available in the end
	also   func(p *plot, finding answer) // what else the finding has to say
}

// plot is where a difference is planted.
type plot struct {
	*world
	customer, stripeID, wallet string
	payment, charge, topup     string // of what was bought before
	saved                      string
}

func (p *plot) do(id string, err error) string { return p.did(id, err) }

// page opens a checkout of 20 whose payment no worker will look at.
func (p *plot) page() answer {
	top := p.must("POST", "/v1/topups", with(checkout, "customer", p.customer))
	p.sql(`update topups set run_at = now() + interval '10 years', lease_until = null where id = $1`, top.str("id"))
	return top
}

// refunded gives back 5.00 of what was bought.
func refunded(p *plot) {
	p.saved = p.do(p.sim.Operator().Refund(p.payment, 500))
	p.left(p.customer, "15")
}

// disputed calls all of what was bought into question.
func disputed(p *plot) {
	p.saved = p.do(p.sim.Operator().OpenDispute(p.charge, "fraudulent"))
	p.left(p.customer, "0")
}

// invoiceWaits has a rule buy 20 by an invoice that waits for the customer, and that no worker will look at.
func invoiceWaits(p *plot) {
	p.must("POST", "/v1/grants", map[string]any{"customer": p.customer, "amount": "10", "kind": "purchased"})
	p.card(p.stripeID, "pm_card_authenticationRequired")
	p.rule(p.wallet, with(refill(2000), "mode", "invoice"))
	p.world.spend(p.customer, "6")
	p.eventually("the rule waits for the customer", func() bool { _, reason := p.state(p.wallet); return reason == "action_required" })
	p.quietEvents() // each that is heard has the top-up looked at again
	top := p.must("GET", "/v1/topups?customer="+p.customer, nil).list()[0]
	p.topup, p.saved = top.str("id"), top.str("stripe.invoice")
	p.sql(`update topups set run_at = now() + interval '10 years', lease_until = null where id = $1`, p.topup)
}

var planteds = map[string]planted{
	"a pack's checkout": {kind: "sale_unbooked", after: "40", plant: func(p *plot) []string {
		pack := p.pack(1000, "credits", "40")
		return []string{p.bought(stripesim.Link{Price: pack, Customer: p.stripeID}, "pm_card_visa")}
	}},
	"a pack for somebody who is not there yet": {kind: "sale_unbooked", after: "0", plant: func(p *plot) []string {
		pack := p.pack(1000, "credits", "40")
		return []string{p.bought(stripesim.Link{Price: pack, ClientReference: "newcomer"}, "pm_card_visa")}
	}},
	"a plan's invoice": {kind: "sale_unbooked", after: "1000", plant: func(p *plot) []string {
		plan := p.plan(2000, "credits", "1000")
		p.do(p.sim.Operator().Subscribe(p.stripeID, plan, 1, stripesim.Terms{}))
		return []string{p.sim.Invoices(p.stripeID)[0].ID}
	}},
	"a top-up's page": {kind: "topup_stuck", after: "20", plant: func(p *plot) []string {
		top := p.page()
		p.pay(top, "pm_card_visa")
		return []string{p.sim.PaymentIntents(p.stripeID)[0].ID, top.str("id")}
	}},
	"a top-up's invoice": {kind: "topup_stuck", after: "24", before: invoiceWaits, plant: func(p *plot) []string {
		return []string{p.do(p.sim.Operator().PayInvoice(p.saved, true)), p.topup}
	}},
	"a top-up's invoice that was voided": {kind: "topup_stuck", after: "4", before: invoiceWaits, plant: func(p *plot) []string {
		p.sql(`update topups set created_at = created_at - interval '2 days' where id = $1`, p.topup)
		return []string{p.do(p.sim.Operator().VoidInvoice(p.saved)), p.topup}
	}},
	"a payment of a top-up that was given up": {kind: "charge_without_grant", after: "20", plant: func(p *plot) []string {
		top := p.page()
		p.sql(`update topups set status = 'failed', settled_at = now() where id = $1`, top.str("id"))
		p.sql(`update grants set status = 'voided', remaining = 0 where source_id = $1`, top.str("id"))
		p.sql(`update wallets set pending = 0, version = version + 1 where id = $1`, p.wallet)
		p.pay(top, "pm_card_visa")
		return []string{p.sim.PaymentIntents(p.stripeID)[0].ID, top.str("id")}
	}},
	"a payment of a top-up that there is not": {kind: "charge_without_grant", after: "0", person: "refund it in Stripe", plant: func(p *plot) []string {
		return []string{p.charged("top_00000000000000000000000000")}
	}, undo: func(p *plot) {
		p.do(p.sim.Operator().Refund(p.saved, 0))
	}},
	"a top-up that was paid twice": {kind: "charge_without_grant", begin: "20", after: "20", person: "refund pi_", plant: func(p *plot) []string {
		return []string{p.charged(p.topup), p.payment}
	}, undo: func(p *plot) {
		p.do(p.sim.Operator().Refund(p.saved, 0))
	}},
	"a grant without a payment": {kind: "grant_without_charge", begin: "20", after: "0", person: "/void", plant: func(p *plot) []string {
		p.sql(`update topups set payment_intent = 'pi_never', verified_at = null where id = $1`, p.topup)
		p.do(p.sim.Operator().SetPaymentMetadata(p.payment, "lockstep_topup", ""))
		return []string{"pi_never", p.topup}
	}, undo: func(p *plot) {
		p.must("POST", "/v1/grants/"+p.grants(p.customer)[0].str("id")+"/void", map[string]any{"reason": "was not paid"})
	}},
	"a grant of twice its payment": {kind: "amount_differs", begin: "20", after: "10", person: "/void", plant: func(p *plot) []string {
		p.sql(`update topups set charge = charge * 2, verified_at = null where id = $1`, p.topup)
		return []string{p.payment, p.topup}
	}, undo: func(p *plot) {
		p.must("POST", "/v1/grants/"+p.grants(p.customer)[0].str("id")+"/void", map[string]any{"reason": "amount differs from its payment"})
		p.must("POST", "/v1/grants", map[string]any{"customer": p.customer, "amount": "10", "kind": "purchased"})
	}},
	"a refund": {kind: "refund_unbooked", begin: "20", after: "15", plant: func(p *plot) []string {
		return []string{p.do(p.sim.Operator().Refund(p.payment, 500)), p.payment}
	}, also: func(p *plot, f answer) {
		if f.str("ledger") != "2000" || f.str("stripe") != "1500" || f.str("drift") != "-500" || f.str("state") != "ledger_ahead" || !strings.Contains(f.str("explanation"), "5.00 USD") {
			p.t.Errorf("a refund: %v", f.m)
		}
	}},
	"a refund that failed": {kind: "refund_failed", begin: "20", after: "20", before: refunded, plant: func(p *plot) []string {
		re := p.saved
		p.do(p.sim.Operator().FailRefund(re))
		return []string{re, p.payment}
	}},
	"a refund of another amount": {kind: "refund_differs", begin: "20", after: "15", before: refunded, plant: func(p *plot) []string {
		p.sql(`update clawbacks set amount = 300 where id = $1`, p.saved)
		return []string{p.saved, p.payment}
	}},
	"a dispute": {kind: "dispute_unbooked", begin: "20", after: "0", plant: func(p *plot) []string {
		return []string{p.do(p.sim.Operator().OpenDispute(p.charge, "fraudulent")), p.payment}
	}},
	"a dispute that was won": {kind: "dispute_changed", begin: "20", after: "20", before: disputed, plant: func(p *plot) []string {
		p.do(p.sim.Operator().CloseDispute(p.saved, true))
		return []string{p.saved, p.payment}
	}},
	"a dispute that was lost": {kind: "dispute_changed", begin: "20", after: "0", before: disputed, plant: func(p *plot) []string {
		p.do(p.sim.Operator().CloseDispute(p.saved, false))
		return []string{p.saved, p.payment}
	}},
	"somebody's goodwill": {kind: "foreign_transaction", begin: "20", after: "23", plant: func(p *plot) []string {
		return []string{p.do(p.sim.Operator().AdjustBalance(p.stripeID, -300, "usd", "goodwill"))}
	}, also: func(p *plot, f answer) {
		if f.str("state") != "foreign" || f.str("ledger") != "2000" || f.str("stripe") != "2300" || f.str("drift") != "300" {
			p.t.Errorf("goodwill: %v", f.m)
		}
	}},
	"a flush made twice": {kind: "doubled_transaction", begin: "20", after: "20", plant: func(p *plot) []string {
		all := p.sim.BalanceTransactions(p.stripeID)
		first := all[len(all)-1]
		return []string{p.copied(first, first.Amount), first.ID}
	}},
	"a flush copied with another amount": {kind: "doubled_transaction", begin: "20", after: "20", plant: func(p *plot) []string {
		all := p.sim.BalanceTransactions(p.stripeID)
		first := all[len(all)-1]
		return []string{p.copied(first, -777), first.ID}
	}},
	"more in Stripe than anybody knows": {kind: "stripe_ahead", begin: "20", after: "20", plant: func(p *plot) []string {
		p.drift(p.customer, 200)
		return []string{p.stripeID}
	}},
	"less in Stripe than anybody knows": {kind: "ledger_ahead", begin: "20", after: "20", plant: func(p *plot) []string {
		p.drift(p.customer, -200)
		return []string{p.stripeID}
	}},
	"a customer who was deleted": {kind: "customer_deleted", after: "0", plant: func(p *plot) []string {
		p.do(p.sim.Operator().DeleteCustomer(p.stripeID))
		return []string{p.stripeID}
	}},
	"a customer whom Stripe does not know": {kind: "customer_missing", after: "0", person: "lockstep doctor", plant: func(p *plot) []string {
		p.isAtStripe("cus_never")
		return []string{"cus_never"}
	}, undo: func(p *plot) { p.isAtStripe(p.stripeID) }},
	"a customer in another currency": {kind: "currency_differs", after: "5", person: "a new Stripe customer in USD", plant: func(p *plot) []string {
		p.must("POST", "/v1/grants", map[string]any{"customer": p.customer, "amount": "5", "kind": "purchased"})
		p.inStep(p.customer)
		other := p.do(p.sim.Operator().AddCustomer("somebody in Europe", nil))
		p.do(p.sim.Operator().AdjustBalance(other, -300, "eur", "goodwill"))
		p.isAtStripe(other)
		return []string{other}
	}, undo: func(p *plot) { p.isAtStripe(p.stripeID) }},
	"an event that was given up": {kind: "event_failed", after: "13", plant: func(p *plot) []string {
		// Its customer is a stranger's until the event has been tried in vain; what it tells of is imported by it alone.
		p.do(p.sim.Operator().AdjustBalance(p.stripeID, -1300, "usd", "goodwill"))
		e := p.lastEvent("customer.updated")
		p.sql(`insert into stripe_events (id, type, api_version, livemode, payload, origin, status, tries, run_at, last_error, created_at, received_at)
			values ($1, 'customer.updated', '2023-10-16', false, $2, 'webhook', 'failed', 20, now(), 'it was a bad day', now(), now())`, e.ID,
			fmt.Sprintf(`{"id":%q,"object":"event","type":"customer.updated","api_version":"2023-10-16","livemode":false,"created":%d,"request":null,"data":{"object":%s,"previous_attributes":{"balance":0}}}`,
				e.ID, e.Created.Unix(), e.Object))
		return []string{e.ID}
	}, also: func(p *plot, f answer) {
		if !strings.Contains(f.str("explanation"), "it was a bad day") || !strings.Contains(f.str("action"), "lockstep replay") {
			p.t.Errorf("a failed event: %v", f.m)
		}
	}},
}

// isAtStripe has the books say that the customer is another one at Stripe.
func (p *plot) isAtStripe(id string) {
	for table, key := range map[string]string{"mirrors": "customer_id", "stripe_links": "customer_id", "customers": "id"} {
		p.sql(`update `+table+` set stripe_customer = $2 where `+key+` = $1`, p.customer, id)
	}
}

// charged makes a payment that says to be of a top-up.
func (p *plot) charged(topup string) string {
	p.t.Helper()
	pi, err := p.g.stripe.ChargeSavedMethod(p.t.Context(), stripeutil.ChargeParams{Customer: p.stripeID, PaymentMethod: p.sim.PaymentMethods(p.stripeID)[0].ID,
		Amount: 2000, Currency: "usd", Metadata: map[string]string{"lockstep_topup": topup}, IdempotencyKey: "planted-" + p.customer})
	if err != nil {
		p.t.Fatal(err)
	}
	p.saved = pi.ID
	return pi.ID
}

// copied posts a balance transaction with the metadata of another.
func (p *plot) copied(of stripesim.BalanceTransaction, amount int64) string {
	p.t.Helper()
	t, err := p.g.stripe.CreateBalanceTransaction(p.t.Context(), stripeutil.BalanceTransactionParams{Customer: p.stripeID, Amount: amount, Currency: "usd",
		Metadata: of.Metadata, IdempotencyKey: "copied-" + p.customer})
	if err != nil {
		p.t.Fatal(err)
	}
	return t.ID
}

func (p *plot) lastEvent(kind string) stripesim.Event {
	p.t.Helper()
	for _, e := range slices.Backward(p.sim.Events()) {
		if e.Type == kind && e.ObjectID == p.stripeID {
			return e
		}
	}
	p.t.Fatal("no " + kind)
	return stripesim.Event{}
}

// of are a customer's findings.
func findingsOf(a answer, customer string) (of []answer) {
	all, _ := a.m["findings"].([]any)
	for _, v := range all {
		if f := (answer{m: v.(map[string]any)}); f.str("customer") == customer {
			of = append(of, f)
		}
	}
	return of
}

// Whatever differs between Stripe and the books is found, named and explained; what can be repaired is, for good, and
// the rest is told to a person, who is left alone once it is done.
func TestEveryPlantedDifferenceIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	names := slices.Sorted(maps.Keys(planteds))
	plots, ids := w.planted(names)
	look := w.must("POST", "/v1/reconcile", nil)
	for _, name := range names {
		w.isFound(look, name, plots[name], ids[name], false)
		if !strings.Contains(name, "not there yet") {
			w.isFound(w.must("POST", "/v1/reconcile", map[string]any{"customer": plots[name].customer}), name+", alone", plots[name], ids[name], false)
		}
	}
	if f := findingsOf(look, "fine"); len(f) > 0 || look.str("repaired") != "0" {
		t.Errorf("what is fine: %v", f)
	}
	w.toldOnce(plots)
	mended := w.must("POST", "/v1/reconcile", map[string]any{"repair": true})
	for _, name := range names {
		w.isFound(mended, name+", repaired", plots[name], ids[name], planteds[name].person == "")
	}
	w.toldOnce(plots)

	again := w.must("POST", "/v1/reconcile", nil)
	for _, name := range names {
		if planteds[name].person != "" {
			w.isFound(again, name+", again", plots[name], ids[name], false)
			planteds[name].undo(plots[name])
		} else if f := findingsOf(again, plots[name].customer); len(f) > 0 {
			t.Errorf("%s is found again after its repair: %v", name, f)
		}
	}
	w.advance(5 * time.Minute)
	if last := w.must("POST", "/v1/reconcile", nil); last.str("findings") != "[]" {
		t.Errorf("in the end: %v", last)
	}
	for _, name := range names {
		if got := w.available(plots[name].customer); got != planteds[name].after {
			t.Errorf("%s: %s is available in the end, want %s", name, got, planteds[name].after)
		}
		if planteds[name].kind != "customer_deleted" {
			w.inStep(plots[name].customer)
		}
	}
	if got := w.available("newcomer"); got != "40" {
		t.Errorf("the newcomer has %s", got)
	}
}

// planted makes a customer for each difference, and the differences, some minutes ago.
func (w *world) planted(names []string) (plots map[string]*plot, ids map[string][]string) {
	w.t.Helper()
	plots, ids = map[string]*plot{}, map[string][]string{}
	for i, name := range names {
		p := &plot{world: w, customer: fmt.Sprintf("p%02d", i)}
		plots[name] = p
		p.wallet, p.stripeID = w.customer(p.customer, "", "pm_card_visa")
		if begin := planteds[name].begin; begin != "" {
			p.payment, p.charge = w.boughtBy(p.customer, p.stripeID, begin)
			p.topup = w.must("GET", "/v1/topups?customer="+p.customer, nil).str("data.0.id")
		}
		if before := planteds[name].before; before != nil {
			before(p)
		}
	}
	w.customer("fine", "10", "")
	w.inStep("fine")
	for _, p := range plots {
		w.inStep(p.customer)
	}
	w.advance(5 * time.Minute)
	if a := w.must("POST", "/v1/reconcile", nil); a.str("findings") != "[]" || a.str("in_step") != fmt.Sprint(len(plots)+1) {
		w.t.Fatalf("before anything is planted: %v", a)
	}
	w.unheard()
	for _, name := range names {
		ids[name] = planteds[name].plant(plots[name])
	}
	if a := w.must("POST", "/v1/reconcile", nil); len(findingsOf(a, plots["a refund"].customer)) > 0 {
		w.t.Errorf("what is a moment old was judged: %v", a)
	}
	w.advance(5 * time.Minute)
	return plots, ids
}

// isFound looks for a planted difference among the findings.
func (w *world) isFound(a answer, name string, p *plot, ids []string, repaired bool) {
	w.t.Helper()
	what := planteds[strings.SplitN(name, ",", 2)[0]]
	customer := p.customer
	if strings.Contains(name, "not there yet") {
		customer = "newcomer"
	}
	found := findingsOf(a, customer)
	i := slices.IndexFunc(found, func(f answer) bool { return f.str("kind") == what.kind })
	if i < 0 {
		w.t.Errorf("%s is not found: %v", name, found)
		return
	}
	f := found[i]
	if len(found) > 1 && what.kind != "event_failed" {
		w.t.Errorf("%s is found to be more than it is: %v, %v", name, found[0].m, found[1].m)
	}
	for _, id := range ids {
		if !strings.Contains(f.str("ids"), id) || !strings.Contains(f.str("explanation")+f.str("action"), id) {
			w.t.Errorf("%s does not name %s: %v", name, id, f.m)
		}
	}
	if f.str("repaired") != fmt.Sprint(repaired) || f.str("repairable") != fmt.Sprint(what.person == "") || !strings.Contains(f.str("action"), what.person) {
		w.t.Errorf("%s: repaired %s, repairable %s, %q", name, f.str("repaired"), f.str("repairable"), f.str("action"))
	}
	if what.also != nil && !repaired {
		what.also(p, f)
	}
}

// toldOnce looks that each difference was told once.
func (w *world) toldOnce(plots map[string]*plot) {
	w.t.Helper()
	for name, p := range plots {
		var n int
		if err := w.g.ledger.DB().Get(&n, `select count(*) from events where type = 'lockstep.drift' and customer_id = $1`, p.customer); err != nil {
			w.t.Fatal(err)
		}
		want := 1
		switch {
		case strings.Contains(name, "not there yet"): // nobody's yet
			want = 0
		case planteds[name].kind == "event_failed": // and what it tells of
			want = 2
		}
		if n != want {
			w.t.Errorf("%s was told %d times, want %d", name, n, want)
		}
	}
}
