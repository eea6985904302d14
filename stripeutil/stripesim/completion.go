package stripesim

// CompleteCheckout is the customer going through a checkout page with a card (a
// test token, or one of their methods). When the card is refused the session
// stays open and the refusal is returned.
func (o *Operator) CompleteCheckout(session, token string) (string, error) {
	return session, o.s.act(func(c *call) *apiError {
		cs := c.state.Sessions.get(session)
		if cs == nil || cs.Status != "open" {
			return noSuch("checkout.session", session, "session")
		}
		pm, err := c.methodFor(token, "payment_method")
		if err == nil && c.state.Used[pm.ID] {
			err = errMethodSpent()
		}
		if err != nil {
			return err
		}
		plan := c.state.Plans[cs.ID]
		if cs.Customer == "" && (cs.CustomerCreation == "always" || cs.Mode == "subscription" || plan.Invoices) {
			cs.Customer = opt(c.guest(cs).ID)
		}
		switch {
		case cs.Mode == "subscription":
			err = c.subscribeCheckout(cs, pm)
		case cs.PaymentStatus == "no_payment_required" && cs.Mode == "payment":
		case cs.Mode == "setup":
			si := c.state.SetupIntents.get(string(cs.SetupIntent))
			si.Customer = cs.Customer
			err = c.setUp(si, pm, true)
		default:
			err = c.payCheckout(cs, pm)
		}
		if err != nil {
			return err
		}
		c.completeCheckout(cs)
		return nil
	})
}

// guest is the customer that a session makes for whoever pays.
func (c *call) guest(cs *checkoutSession) *customer {
	cus := c.newCustomer()
	cus.Email = cs.CustomerEmail
	c.state.Customers.put(cus.ID, cus)
	c.emit("customer.created", cus, nil)
	return cus
}

// payCheckout makes the payment; since API 2022-08-01 there is no intent before
// the customer pays. A second try uses the first one's intent.
func (c *call) payCheckout(cs *checkoutSession, pm *paymentMethod) *apiError {
	pi := c.state.PaymentIntents.get(string(cs.PaymentIntent))
	if pi == nil {
		plan := c.state.Plans[cs.ID]
		pi = c.newPaymentIntent(paymentIntent{Amount: *cs.AmountTotal, Currency: string(cs.Currency), Customer: cs.Customer, Metadata: plan.Metadata,
			Description: plan.Description, SetupFutureUsage: plan.SetupFutureUsage, PaymentMethodTypes: cs.PaymentMethodTypes})
		cs.PaymentIntent = opt(pi.ID)
	}
	err := c.attempt(pi, pm, confirmation{}, true)
	if pi.Status == "succeeded" {
		cs.PaymentStatus = "paid"
	}
	return err
}

func (c *call) completeCheckout(cs *checkoutSession) {
	c.state.dropJobs(jobExpireSession, cs.ID)
	cs.Status, cs.URL, cs.ClientSecret = "complete", "", ""
	cs.CustomerDetails = map[string]any{"address": nil, "email": cs.CustomerEmail, "name": nil, "phone": nil, "tax_exempt": "none", "tax_ids": []any{}}
	if cus := c.state.Customers.get(string(cs.Customer)); cus != nil {
		cs.CustomerDetails["email"], cs.CustomerDetails["name"] = cus.Email, cus.Name
	}
	if cs.PaymentStatus == "paid" {
		c.invoiceCheckout(cs)
	}
	c.emit("checkout.session.completed", cs, nil)
}

// checkoutOf is the completed session that still waits for this payment.
func (c *call) checkoutOf(pi *paymentIntent) *checkoutSession {
	for _, cs := range c.state.Sessions.oldest {
		if string(cs.PaymentIntent) == pi.ID && cs.Status == "complete" && cs.PaymentStatus == "unpaid" {
			return cs
		}
	}
	return nil
}

func (c *call) checkoutPaymentSucceeded(pi *paymentIntent) {
	if cs := c.checkoutOf(pi); cs != nil {
		cs.PaymentStatus = "paid"
		c.invoiceCheckout(cs)
		c.emit("checkout.session.async_payment_succeeded", cs, nil)
	}
}

func (c *call) checkoutPaymentFailed(pi *paymentIntent) {
	if cs := c.checkoutOf(pi); cs != nil {
		c.emit("checkout.session.async_payment_failed", cs, nil)
	}
}
