package stripesim

import (
	"math/big"
	"time"
)

// jobCycle is a subscription's period turning.
const jobCycle = "subscription.cycle"

// subscription is as much of one as its invoices and events need.
type subscription struct {
	ID                            string                `json:"id"`
	Object                        string                `json:"object"`
	AutomaticTax                  map[string]any        `json:"automatic_tax"`
	BillingCycleAnchor            int64                 `json:"billing_cycle_anchor"`
	CancelAt                      optInt                `json:"cancel_at"`
	CancelAtPeriodEnd             bool                  `json:"cancel_at_period_end"`
	CanceledAt                    optInt                `json:"canceled_at"`
	CollectionMethod              string                `json:"collection_method"`
	Created                       int64                 `json:"created"`
	Currency                      string                `json:"currency"`
	CurrentPeriodEnd              int64                 `json:"current_period_end"`
	CurrentPeriodStart            int64                 `json:"current_period_start"`
	Customer                      string                `json:"customer"`
	DefaultPaymentMethod          opt                   `json:"default_payment_method"`
	Discount                      map[string]any        `json:"discount"`
	EndedAt                       optInt                `json:"ended_at"`
	Items                         subscriptionItemsPage `json:"items"`
	LatestInvoice                 opt                   `json:"latest_invoice"`
	Livemode                      bool                  `json:"livemode"`
	Metadata                      map[string]string     `json:"metadata"`
	NextPendingInvoiceItemInvoice optInt                `json:"next_pending_invoice_item_invoice"`
	StartDate                     int64                 `json:"start_date"`
	Status                        string                `json:"status"`
	TrialEnd                      optInt                `json:"trial_end"`
	TrialStart                    optInt                `json:"trial_start"`
}

type subscriptionItemsPage struct {
	Data    []subscriptionItem `json:"data"`
	HasMore bool               `json:"has_more"`
	Object  string             `json:"object"`
	URL     string             `json:"url"`
}

type subscriptionItem struct {
	ID           string            `json:"id"`
	Object       string            `json:"object"`
	Created      int64             `json:"created"`
	Metadata     map[string]string `json:"metadata"`
	Price        *price            `json:"price"`
	Quantity     int64             `json:"quantity"`
	Subscription string            `json:"subscription"`
	TaxRates     []any             `json:"tax_rates"`
}

// nextPlan is what a subscription changes to when its period turns.
type nextPlan struct {
	Price    string
	Quantity int64
}

// newSubscription makes a subscription and its first invoice, finalized but not collected. A trial's first
// invoice is of nothing, and so paid at once.
func (c *call) newSubscription(cus *customer, p *price, quantity, percentOff, trialDays int64, method opt) (*subscription, *invoice, *apiError) {
	if p.Recurring == nil {
		return nil, nil, badRequest("", "items[0][price]", "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.")
	}
	if err := currencyFits(cus, p.Currency); err != nil {
		return nil, nil, err
	}
	now := c.unix()
	sub := &subscription{ID: newID("sub_1", 23), Object: "subscription", AutomaticTax: map[string]any{"enabled": false, "liability": nil},
		BillingCycleAnchor: now, CollectionMethod: "charge_automatically", Created: now, Currency: p.Currency, CurrentPeriodStart: now,
		Customer: cus.ID, DefaultPaymentMethod: method, Livemode: c.livemode, Metadata: map[string]string{}, StartDate: now, Status: "incomplete"}
	item := subscriptionItem{ID: newID("si_", 14), Object: "subscription_item", Created: now, Metadata: map[string]string{}, Price: p, Quantity: quantity,
		Subscription: sub.ID, TaxRates: []any{}}
	sub.Items = subscriptionItemsPage{Data: []subscriptionItem{item}, Object: "list", URL: "/v1/subscription_items?subscription=" + sub.ID}
	if percentOff > 0 {
		sub.Discount = c.discount(sub, percentOff)
	}
	end := p.after(c.now())
	if trialDays > 0 {
		end = c.now().AddDate(0, 0, int(trialDays))
		sub.Status, sub.TrialStart, sub.TrialEnd = "trialing", optInt(now), optInt(end.Unix())
	}
	sub.CurrentPeriodEnd = end.Unix()
	c.state.Subscriptions.put(sub.ID, sub)
	c.emit("customer.subscription.created", sub, nil)
	in := c.invoiceOf(sub, "subscription_create")
	c.addPlanLine(in, sub)
	c.emit("invoice.created", in, nil)
	c.state.Jobs = append(c.state.Jobs, &job{At: end, Kind: jobCycle, ID: sub.ID})
	return sub, in, c.finalize(in)
}

func (c *call) discount(sub *subscription, percent int64) map[string]any {
	return map[string]any{"id": newID("di_1", 23), "object": "discount", "checkout_session": nil, "customer": sub.Customer, "end": nil, "invoice": nil,
		"invoice_item": nil, "promotion_code": nil, "start": sub.Created, "subscription": sub.ID,
		"coupon": map[string]any{"id": newID("", 8), "object": "coupon", "amount_off": nil, "created": sub.Created, "currency": nil, "duration": "forever",
			"duration_in_months": nil, "livemode": c.livemode, "max_redemptions": nil, "metadata": map[string]string{}, "name": nil,
			"percent_off": percent, "redeem_by": nil, "times_redeemed": 1, "valid": true}}
}

// after is when a period of the price that begins at t ends.
func (p *price) after(t time.Time) time.Time {
	switch p.Recurring["interval"] {
	case "day":
		return t.AddDate(0, 0, 1)
	case "week":
		return t.AddDate(0, 0, 7)
	case "year":
		return t.AddDate(1, 0, 0)
	}
	return t.AddDate(0, 1, 0)
}

func (c *call) invoiceOf(sub *subscription, reason string) *invoice {
	in := c.newInvoice(c.state.Customers.get(sub.Customer), invoice{BillingReason: reason, Currency: sub.Currency, CollectionMethod: "charge_automatically",
		DefaultPaymentMethod: sub.DefaultPaymentMethod, Subscription: opt(sub.ID), AutoAdvance: true})
	sub.LatestInvoice = opt(in.ID)
	return in
}

// worth is what a quantity of a price costs a period; of one with tiers, what the state says.
func (c *call) worth(p *price, quantity int64) int64 {
	if p.UnitAmount == nil {
		return c.state.Tiers[p.ID] * quantity
	}
	return *p.UnitAmount * quantity
}

// addPlanLine puts the current period of a subscription on a draft.
func (c *call) addPlanLine(in *invoice, sub *subscription) {
	item := sub.Items.Data[0]
	amount := c.worth(item.Price, item.Quantity)
	if sub.Status == "trialing" {
		amount = 0
	}
	l := line{ID: newID("il_1", 23), Object: "line_item", Amount: amount, AmountExcludingTax: amount, Currency: sub.Currency,
		Description: "Plan", DiscountAmounts: []any{}, Discountable: true, Discounts: []any{}, Invoice: in.ID, Livemode: c.livemode,
		Metadata: map[string]string{}, Period: period{Start: sub.CurrentPeriodStart, End: sub.CurrentPeriodEnd}, Price: item.Price,
		Quantity: item.Quantity, Subscription: opt(sub.ID), SubscriptionItem: item.ID, TaxAmounts: []any{}, TaxRates: []any{},
		Type: "subscription", UnitAmountExcludingTax: item.Price.UnitAmountDecimal}
	if d := sub.Discount; d != nil && amount > 0 {
		percent, _ := toMap(d["coupon"])["percent_off"].(interface{ Int64() (int64, error) }).Int64()
		l.Discounts = []any{d["id"]}
		l.DiscountAmounts = []any{map[string]any{"amount": amount * percent / 100, "discount": d["id"]}}
	}
	in.Lines.Data = append(in.Lines.Data, l)
	c.sum(in)
}

// discount is what all discounts take off a line.
func (l *line) discount() (off int64) {
	for _, d := range l.DiscountAmounts {
		n, _ := toMap(d)["amount"].(interface{ Int64() (int64, error) }).Int64()
		off += n
	}
	return off
}

// cycle turns a subscription's period: the plan that was chosen for it begins, and its invoice is drafted. Stripe
// finalizes and collects that an hour later.
func (c *call) cycle(id string) {
	sub := c.state.Subscriptions.get(id)
	if sub == nil || sub.Status == "canceled" {
		return
	}
	before := toMap(sub)
	if sub.CancelAtPeriodEnd {
		sub.Status, sub.EndedAt = "canceled", optInt(c.unix())
		c.emit("customer.subscription.deleted", sub, nil)
		return
	}
	if next, ok := c.state.Next[id]; ok {
		c.replan(sub, c.state.Prices.get(next.Price), next.Quantity)
		delete(c.state.Next, id)
	}
	if sub.Status == "trialing" {
		sub.Status = "active"
	}
	start := time.Unix(sub.CurrentPeriodEnd, 0).UTC()
	end := sub.Items.Data[0].Price.after(start)
	sub.CurrentPeriodStart, sub.CurrentPeriodEnd = start.Unix(), end.Unix()
	in := c.invoiceOf(sub, "subscription_cycle")
	c.addPlanLine(in, sub)
	c.emit("invoice.created", in, nil)
	c.emitUpdated("customer.subscription.updated", before, sub)
	c.state.Jobs = append(c.state.Jobs, &job{At: c.now().Add(finalizeAfter), Kind: jobFinalize, ID: in.ID}, &job{At: end, Kind: jobCycle, ID: id})
}

// replan changes what a subscription's one item is of; the item keeps its id.
func (c *call) replan(sub *subscription, p *price, quantity int64) {
	item := sub.Items.Data[0]
	item.Price, item.Quantity = p, quantity
	sub.Items.Data = []subscriptionItem{item}
}

// changePlan changes a subscription now and invoices the difference at once: the unused time of the old plan goes
// back, the rest of the period is charged at the new one.
func (c *call) changePlan(sub *subscription, p *price, quantity int64) (*invoice, *apiError) {
	item, before := sub.Items.Data[0], toMap(sub)
	now := c.unix()
	left, whole := sub.CurrentPeriodEnd-now, sub.CurrentPeriodEnd-sub.CurrentPeriodStart
	rest := period{Start: now, End: sub.CurrentPeriodEnd}
	in := c.invoiceOf(sub, "subscription_update")
	unused := invoiceItem{Customer: sub.Customer, Amount: -prorated(c.worth(item.Price, item.Quantity), left, whole), Currency: sub.Currency, Period: rest,
		Description: "Unused time", Price: item.Price, Proration: true, Quantity: item.Quantity, Subscription: opt(sub.ID), SubscriptionItem: item.ID}
	remaining := unused
	remaining.Amount, remaining.Description, remaining.Price, remaining.Quantity = prorated(c.worth(p, quantity), left, whole), "Remaining time", p, quantity
	for _, it := range []invoiceItem{unused, remaining} {
		c.newItem(it, it.Amount, in)
	}
	c.emit("invoice.created", in, nil)
	c.replan(sub, p, quantity)
	c.emitUpdated("customer.subscription.updated", before, sub)
	return in, c.finalize(in)
}

// prorated is amount × left / whole, to the nearest minor unit.
func prorated(amount, left, whole int64) int64 {
	n := new(big.Int).Mul(big.NewInt(amount), big.NewInt(2*left))
	n.Add(n, big.NewInt(whole))
	return n.Div(n, big.NewInt(2*whole)).Int64()
}

// subscriptionPaid follows a subscription whose invoice was paid, or was not.
func (c *call) subscriptionPaid(in *invoice, paid bool) {
	sub := c.state.Subscriptions.get(string(in.Subscription))
	if sub == nil || sub.Status == "canceled" || sub.Status == "trialing" {
		return
	}
	before := toMap(sub)
	switch {
	case paid:
		sub.Status = "active"
	case sub.Status == "active":
		sub.Status = "past_due"
	}
	c.emitUpdated("customer.subscription.updated", before, sub)
}

// Subscription and Invoice are copies for a test to look at.
type Subscription struct {
	ID, Customer, Status, LatestInvoice string
	PeriodStart, PeriodEnd              time.Time
}

type Invoice struct {
	ID, Customer, Status, Reason, Subscription string
	Total, AmountDue, AmountPaid               int64
}

// Subscription finds a subscription, ended ones too.
func (s *Sim) Subscription(id string) (Subscription, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.state.Subscriptions.get(id)
	if r == nil {
		return Subscription{}, false
	}
	return Subscription{ID: r.ID, Customer: r.Customer, Status: r.Status, LatestInvoice: string(r.LatestInvoice),
		PeriodStart: time.Unix(r.CurrentPeriodStart, 0), PeriodEnd: time.Unix(r.CurrentPeriodEnd, 0)}, true
}

// Invoices are a customer's, oldest first.
func (s *Sim) Invoices(customer string) []Invoice {
	return collect(s, &s.state.Invoices, func(r *invoice) bool { return r.Customer == customer }, func(r *invoice) Invoice {
		return Invoice{ID: r.ID, Customer: r.Customer, Status: r.Status, Reason: r.BillingReason, Subscription: string(r.Subscription),
			Total: r.Total, AmountDue: r.AmountDue, AmountPaid: r.AmountPaid}
	})
}

// Session is a copy of a checkout session for a test to look at.
type Session struct {
	ID, Mode, Status, PaymentStatus, Customer      string
	PaymentIntent, Invoice, Subscription, Currency string
}

// Session finds a checkout session; the zero Session where there is none.
func (s *Sim) Session(id string) Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.state.Sessions.get(id)
	if r == nil {
		return Session{}
	}
	return Session{ID: r.ID, Mode: r.Mode, Status: r.Status, PaymentStatus: r.PaymentStatus, Customer: string(r.Customer),
		PaymentIntent: string(r.PaymentIntent), Invoice: string(r.Invoice), Subscription: string(r.Subscription), Currency: string(r.Currency)}
}
