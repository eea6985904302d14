package stripesim_test

import (
	"slices"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

func (w *world) price(n stripesim.NewPrice) string {
	w.t.Helper()
	return w.made(w.Operator().AddPrice(n))
}

func (w *world) made(id string, err error) string {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) payer(token string) string {
	w.t.Helper()
	cus, pm := w.withCard(token)
	w.made(w.Operator().SetDefaultPaymentMethod(cus, pm))
	return cus
}

// lines are those of an invoice as the list gives them, with the product expanded.
func (w *world) lines(invoice string) []map[string]any {
	w.t.Helper()
	r := w.must(w.get("/v1/invoices/"+invoice+"/lines", "limit=100&expand[]=data.price.product"))
	data, _ := r.json["data"].([]any)
	out := make([]map[string]any, len(data))
	for i, d := range data {
		out[i], _ = d.(map[string]any)
	}
	return out
}

// A subscription is invoiced when it begins and when its period turns; the second invoice waits an hour.
func TestSubscriptionTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.payer("pm_card_visa")
	price := w.price(stripesim.NewPrice{Unit: 1000, Interval: "month", Metadata: map[string]string{"a": "1"}, ProductMetadata: map[string]string{"b": "2"}})
	once := w.price(stripesim.NewPrice{Unit: 1000})
	if _, err := w.Operator().Subscribe(cus, once, 1, stripesim.Terms{}); err == nil {
		t.Error("subscribed to a price that is sold once")
	}
	n := len(w.Events())
	sub := w.made(w.Operator().Subscribe(cus, price, 3, stripesim.Terms{PercentOff: 50}))
	if got := w.types(n); got[0] != "customer.subscription.created" || !slices.Contains(got, "invoice.paid") || !slices.Contains(got, "customer.subscription.updated") {
		t.Errorf("%v", got)
	}
	s, _ := w.Subscription(sub)
	in := w.must(w.get("/v1/invoices/"+s.LatestInvoice, "expand[]=payment_intent"))
	if in.str("billing_reason") != "subscription_create" || in.num("subtotal") != 3000 || in.num("total") != 1500 || in.num("amount_paid") != 1500 || in.str("subscription") != sub {
		t.Errorf("%s", in.body)
	}
	l := w.lines(s.LatestInvoice)[0]
	p, _ := l["price"].(map[string]any)
	product, _ := p["product"].(map[string]any)
	if l["type"] != "subscription" || l["amount"] != 3000.0 || l["quantity"] != 3.0 || l["subscription_item"] == nil || product["metadata"].(map[string]any)["b"] != "2" {
		t.Errorf("%v", l)
	}
	w.Advance(s.PeriodEnd.Sub(w.Now()) + time.Second)
	next, _ := w.Subscription(sub)
	if next.LatestInvoice == s.LatestInvoice || !next.PeriodStart.Equal(s.PeriodEnd) {
		t.Fatalf("%+v after %+v", next, s)
	}
	if r := w.must(w.get("/v1/invoices/"+next.LatestInvoice, "")); r.str("status") != "draft" || r.str("billing_reason") != "subscription_cycle" {
		t.Errorf("%s", r.body)
	}
	w.Advance(time.Hour)
	if r := w.must(w.get("/v1/invoices", "status=paid&subscription="+sub)); len(r.json["data"].([]any)) != 2 {
		t.Errorf("%s", r.body)
	}
	w.made(w.Operator().CancelSubscription(sub))
	w.Advance(40 * 24 * time.Hour)
	if s, _ := w.Subscription(sub); s.Status != "canceled" {
		t.Errorf("%+v", s)
	}
}

// A change of plan gives back the unused time and charges the rest of the period; what is too much goes to the balance.
func TestSubscriptionChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.payer("pm_card_visa")
	small, large := w.price(stripesim.NewPrice{Unit: 1000, Interval: "month"}), w.price(stripesim.NewPrice{Unit: 4000, Interval: "month"})
	sub := w.made(w.Operator().Subscribe(cus, small, 1, stripesim.Terms{}))
	up := w.made(w.Operator().ChangePlan(sub, large, 2))
	var amounts []float64
	for _, l := range w.lines(up) {
		if l["proration"] != true || l["type"] != "invoiceitem" || l["subscription_item"] == nil {
			t.Errorf("%v", l)
		}
		amounts = append(amounts, l["amount"].(float64))
	}
	slices.Sort(amounts)
	if !slices.Equal(amounts, []float64{-1000, 8000}) {
		t.Errorf("%v", amounts)
	}
	down := w.made(w.Operator().ChangePlan(sub, small, 1))
	got, _ := w.Customer(cus)
	if r := w.must(w.get("/v1/invoices/"+down, "")); r.str("status") != "paid" || r.num("total") != -7000 || got.Balance != -7000 {
		t.Errorf("balance %d, %s", got.Balance, r.body)
	}
	w.made(w.Operator().ChangeNextPeriod(sub, large, 1))
	s, _ := w.Subscription(sub)
	w.Advance(s.PeriodEnd.Sub(w.Now()) + time.Second)
	in := w.made(w.Operator().CollectNow(sub))
	if r := w.must(w.get("/v1/invoices/"+in, "")); r.num("total") != 4000 || r.num("amount_due") != 0 {
		t.Errorf("%s", r.body)
	}
}

// A trial's first invoice is of nothing; a card that is refused leaves a subscription incomplete, and its invoice open.
func TestSubscriptionNotPaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.price(stripesim.NewPrice{Unit: 700, Interval: "week", Tiered: true})
	cus := w.payer("pm_card_chargeCustomerFail")
	trial := w.made(w.Operator().Subscribe(cus, price, 1, stripesim.Terms{TrialDays: 3}))
	s, _ := w.Subscription(trial)
	if s.Status != "trialing" || w.must(w.get("/v1/invoices/"+s.LatestInvoice, "")).num("amount_due") != 0 {
		t.Errorf("%+v", s)
	}
	sub, err := w.Operator().Subscribe(cus, price, 1, stripesim.Terms{})
	if err == nil {
		t.Fatal("the card paid")
	}
	s, _ = w.Subscription(sub)
	if s.Status != "incomplete" {
		t.Errorf("%+v", s)
	}
	w.made(w.Operator().PayInvoice(s.LatestInvoice, true))
	if s, _ = w.Subscription(sub); s.Status != "active" {
		t.Errorf("%+v", s)
	}
}

// A payment link sells once or by subscription, to a guest, with or without an invoice.
func TestPaymentLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	once, plan := w.price(stripesim.NewPrice{Unit: 1000}), w.price(stripesim.NewPrice{Unit: 1000, Interval: "month"})
	pay := func(l stripesim.Link) (reply, stripesim.Session) {
		t.Helper()
		id := w.made(w.Operator().PaymentLink(l))
		w.made(w.Operator().CompleteCheckout(id, "pm_card_visa"))
		w.must(w.get("/v1/checkout/sessions/"+id+"/line_items", "expand[]=data.price.product"))
		return w.must(w.get("/v1/checkout/sessions/"+id, "expand[]=payment_intent")), w.Session(id)
	}
	if r, s := pay(stripesim.Link{Price: once, ClientReference: "acme"}); r.str("client_reference_id") != "acme" || s.Customer != "" || s.Invoice != "" || s.PaymentStatus != "paid" {
		t.Errorf("%s", r.body)
	}
	r, s := pay(stripesim.Link{Price: once, Invoices: true, Email: "a@b.c"})
	if in := w.must(w.get("/v1/invoices/"+s.Invoice, "")); s.Customer == "" || in.str("status") != "paid" || in.num("amount_paid") != 1000 || in.str("payment_intent") != s.PaymentIntent {
		t.Errorf("%s %s", r.body, in.body)
	}
	if r, s := pay(stripesim.Link{Price: plan}); s.Subscription == "" || s.Invoice == "" || s.Customer == "" || s.PaymentStatus != "paid" {
		t.Errorf("%s", r.body)
	}
	if r, s := pay(stripesim.Link{Price: once, PercentOff: 100}); s.PaymentStatus != "no_payment_required" || s.PaymentIntent != "" {
		t.Errorf("%s", r.body)
	}
}
