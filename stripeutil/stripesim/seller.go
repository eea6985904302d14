package stripesim

// NewPrice is a pack or a plan as a person sets it up in the dashboard.
type NewPrice struct {
	Unit                      int64
	Currency                  string // usd
	Interval                  string // day, week, month, year; "" is sold once
	Metadata, ProductMetadata map[string]string
	Tiered                    bool // in tiers, which Stripe shows without a unit amount
}

// AddPrice makes a product and its price.
func (o *Operator) AddPrice(n NewPrice) (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		made := c.newProduct(product{Name: "Credits", Active: true, Metadata: n.ProductMetadata})
		p := price{Currency: n.Currency, UnitAmount: &n.Unit, Product: made.ID, Metadata: n.Metadata}
		if p.Currency == "" {
			p.Currency = "usd"
		}
		if n.Interval != "" {
			p.Recurring = map[string]any{"aggregate_usage": nil, "interval": n.Interval, "interval_count": 1, "usage_type": "licensed"}
		}
		if n.Tiered {
			p.UnitAmount = nil
		}
		id = c.newPrice(p).ID
		if n.Tiered {
			c.state.Tiers[id] = n.Unit
		}
		return nil
	})
	return id, err
}

// SetPriceMetadata changes a price's metadata; an empty value removes its key.
func (o *Operator) SetPriceMetadata(id, key, value string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		p, err := c.priceNamed(id)
		if err != nil {
			return err
		}
		before := toMap(p)
		p.Metadata = cloneMetadata(p.Metadata)
		p.Metadata[key] = value
		if value == "" {
			delete(p.Metadata, key)
		}
		c.emitUpdated("price.updated", before, p)
		return nil
	})
}

func (c *call) priceNamed(id string) (*price, *apiError) {
	if p := c.state.Prices.get(id); p != nil {
		return p, nil
	}
	return nil, noSuch("price", id, "price")
}

// Terms are how a subscription begins.
type Terms struct {
	PercentOff, TrialDays int64
}

// Subscribe subscribes a customer to a price and collects the first invoice from the default card. The
// subscription stays, incomplete, where that is refused.
func (o *Operator) Subscribe(customer, price string, quantity int64, t Terms) (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		cus, err := c.liveCustomer(customer)
		if err != nil {
			return err
		}
		p, err := c.priceNamed(price)
		if err != nil {
			return err
		}
		sub, in, err := c.newSubscription(cus, p, quantity, t.PercentOff, t.TrialDays, "")
		if sub != nil {
			id = sub.ID
		}
		if err != nil || in.Status == "paid" {
			return err
		}
		return c.collect(in, "")
	})
	return id, err
}

// subscriptionNow is a subscription that has not ended.
func (c *call) subscriptionNow(id string) (*subscription, *apiError) {
	if sub := c.state.Subscriptions.get(id); sub != nil && sub.Status != "canceled" {
		return sub, nil
	}
	return nil, noSuch("subscription", id, "id")
}

// CollectNow finalizes a subscription's newest invoice without waiting for its hour, and collects it; it answers the
// invoice.
func (o *Operator) CollectNow(subscription string) (invoice string, err error) {
	err = o.s.act(func(c *call) *apiError {
		sub, err := c.subscriptionNow(subscription)
		if err != nil {
			return err
		}
		invoice = string(sub.LatestInvoice)
		in := c.state.Invoices.get(invoice)
		if in.Status == "draft" {
			if err := c.finalize(in); err != nil {
				return err
			}
		}
		if in.Status != "open" {
			return nil
		}
		return c.collect(in, "")
	})
	return invoice, err
}

// ChangePlan changes a subscription at once, prorates, and invoices that at once.
func (o *Operator) ChangePlan(subscription, price string, quantity int64) (invoice string, err error) {
	err = o.s.act(func(c *call) *apiError {
		sub, err := c.subscriptionNow(subscription)
		if err != nil {
			return err
		}
		p, err := c.priceNamed(price)
		if err != nil {
			return err
		}
		in, err := c.changePlan(sub, p, quantity)
		invoice = in.ID
		if err != nil || in.Status == "paid" {
			return err
		}
		return c.collect(in, "")
	})
	return invoice, err
}

// ChangeNextPeriod changes a subscription when its period turns.
func (o *Operator) ChangeNextPeriod(subscription, price string, quantity int64) (string, error) {
	return subscription, o.s.act(func(c *call) *apiError {
		if _, err := c.subscriptionNow(subscription); err != nil {
			return err
		}
		_, err := c.priceNamed(price)
		if err == nil {
			c.state.Next[subscription] = nextPlan{price, quantity}
		}
		return err
	})
}

// CancelSubscription ends a subscription with its period.
func (o *Operator) CancelSubscription(subscription string) (string, error) {
	return subscription, o.s.act(func(c *call) *apiError {
		sub, err := c.subscriptionNow(subscription)
		if err != nil {
			return err
		}
		before := toMap(sub)
		sub.CancelAtPeriodEnd, sub.CanceledAt, sub.CancelAt = true, optInt(c.unix()), optInt(sub.CurrentPeriodEnd)
		c.emitUpdated("customer.subscription.updated", before, sub)
		return nil
	})
}

// PayInvoice pays an open invoice by the customer's default card, or out of band.
func (o *Operator) PayInvoice(id string, outOfBand bool) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		in := c.state.Invoices.get(id)
		if in == nil || in.Status != "open" {
			return noSuch("invoice", id, "invoice")
		}
		if outOfBand {
			c.payElsewhere(in)
			return nil
		}
		return c.collect(in, "")
	})
}

// InvoicePrice sends a customer a one-off invoice for a price, and collects it.
func (o *Operator) InvoicePrice(customer, price string, quantity int64, metadata map[string]string) (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		cus, err := c.liveCustomer(customer)
		if err != nil {
			return err
		}
		p, err := c.priceNamed(price)
		if err != nil {
			return err
		}
		in := c.newInvoice(cus, invoice{Currency: p.Currency, CollectionMethod: "charge_automatically", Metadata: metadata})
		id = in.ID
		c.emit("invoice.created", in, nil)
		c.newItem(invoiceItem{Customer: customer, Amount: c.worth(p, quantity), Currency: p.Currency, Quantity: quantity, Price: p}, c.worth(p, 1), in)
		if err := c.finalize(in); err != nil || in.Status == "paid" {
			return err
		}
		return c.collect(in, "")
	})
	return id, err
}

// Link is a Payment Link (or any page of the merchant's own making) that somebody opened.
type Link struct {
	Price           string
	Quantity        int64 // 1
	Customer        string
	Email           string
	ClientReference string
	Metadata        map[string]string
	Invoices        bool  // a one-off sale gets an invoice (invoice_creation)
	PercentOff      int64 // a promotion code
	TrialDays       int64
}

// PaymentLink opens a checkout session; CompleteCheckout pays it. A recurring price makes a subscription.
func (o *Operator) PaymentLink(l Link) (session string, err error) {
	err = o.s.act(func(c *call) *apiError {
		p, err := c.priceNamed(l.Price)
		if err != nil {
			return err
		}
		if _, err := c.customerIn(l.Customer); err != nil {
			return err
		}
		cs := &checkoutSession{Mode: "payment", Metadata: cloneMetadata(l.Metadata), Currency: opt(p.Currency), Customer: opt(l.Customer),
			CustomerEmail: opt(l.Email), ClientReferenceID: opt(l.ClientReference), SuccessURL: "https://merchant.example/thanks",
			ExpiresAt: c.now().Add(sessionLife).Unix(), CustomerCreation: "if_required"}
		if p.Recurring != nil {
			cs.Mode, cs.CustomerCreation = "subscription", ""
		} else {
			cs.InvoiceCreation = map[string]any{"enabled": l.Invoices, "invoice_data": map[string]any{"account_tax_ids": nil, "custom_fields": nil,
				"description": nil, "footer": nil, "issuer": nil, "metadata": nil, "rendering_options": nil}}
		}
		item := c.checkoutItem(newLine{price: p.ID, quantity: max(l.Quantity, 1), percentOff: l.PercentOff})
		total := item.AmountTotal
		cs.AmountSubtotal, cs.AmountTotal = &item.AmountSubtotal, &total
		cs.TotalDetails = map[string]any{"amount_discount": item.AmountDiscount, "amount_shipping": 0, "amount_tax": 0}
		c.openCheckout(cs, &checkoutPlan{Items: []checkoutItem{item}, Invoices: l.Invoices, PercentOff: l.PercentOff, TrialDays: l.TrialDays})
		if total == 0 && cs.Mode == "payment" {
			cs.PaymentStatus = "no_payment_required"
		}
		session = cs.ID
		return nil
	})
	return session, err
}

// subscribeCheckout begins the subscription that a session sells, on the method that was entered.
func (c *call) subscribeCheckout(cs *checkoutSession, pm *paymentMethod) *apiError {
	cus, err := c.liveCustomer(string(cs.Customer))
	if err != nil {
		return err
	}
	if pm.Customer == "" {
		c.attachTo(cus, pm)
	}
	plan := c.state.Plans[cs.ID]
	item := plan.Items[0]
	sub, in, err := c.newSubscription(cus, item.Price, item.Quantity, plan.PercentOff, plan.TrialDays, opt(pm.ID))
	if err == nil && in.Status != "paid" {
		err = c.collect(in, "")
	}
	if err != nil {
		return err
	}
	cs.Subscription, cs.Invoice, cs.PaymentStatus = opt(sub.ID), opt(in.ID), "unpaid"
	switch {
	case plan.TrialDays > 0 || in.Total == 0:
		cs.PaymentStatus = "no_payment_required"
	case in.Status == "paid":
		cs.PaymentStatus = "paid"
	}
	return nil
}

// invoiceCheckout makes the invoice of a one-off sale that was to have one. It is paid from the start, and the
// customer's balance stays out of it.
func (c *call) invoiceCheckout(cs *checkoutSession) {
	plan := c.state.Plans[cs.ID]
	cus := c.state.Customers.get(string(cs.Customer))
	if cs.Mode != "payment" || !plan.Invoices || cus == nil {
		return
	}
	in := c.newInvoice(cus, invoice{Currency: string(cs.Currency), CollectionMethod: "charge_automatically", Metadata: cs.Metadata})
	c.emit("invoice.created", in, nil)
	for _, item := range plan.Items {
		c.newItem(invoiceItem{Customer: cus.ID, Amount: item.AmountSubtotal, Currency: item.Currency, Quantity: item.Quantity, Price: item.Price}, *item.Price.UnitAmount, in)
	}
	pi := c.state.PaymentIntents.get(string(cs.PaymentIntent))
	pi.Invoice, cs.Invoice = opt(in.ID), opt(in.ID)
	in.PaymentIntent, in.Charge, in.Attempted, in.StartingBalance, in.EndingBalance = opt(pi.ID), pi.LatestCharge, true, 0, new(int64)
	in.AmountDue, in.AmountPaid, in.Status = pi.Amount, pi.Amount, "open"
	in.StatusTransitions.FinalizedAt, in.EffectiveAt = optInt(c.unix()), optInt(c.unix())
	c.emit("invoice.finalized", in, nil)
	c.paid(in)
}

// AddCustomer makes a customer in the dashboard.
func (o *Operator) AddCustomer(name string, metadata map[string]string) (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		cus := c.newCustomer()
		cus.Name, cus.Metadata = opt(name), cloneMetadata(metadata)
		c.state.Customers.put(cus.ID, cus)
		c.emit("customer.created", cus, nil)
		id = cus.ID
		return nil
	})
	return id, err
}
