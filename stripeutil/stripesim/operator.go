package stripesim

import "errors"

// Operator is a person at Stripe's dashboard. What they do carries no request
// id in its events.
type Operator struct{ s *Sim }

// Operator returns the person at the dashboard.
func (s *Sim) Operator() *Operator { return &Operator{s} }

// act runs f as nobody's API request, then saves and delivers like one.
func (s *Sim) act(f func(*call) *apiError) error {
	s.mu.Lock()
	err := f(s.byStripe())
	generation := s.touch()
	s.mu.Unlock()
	if err := s.flush(generation); err != nil {
		return err
	}
	s.pump()
	if err != nil {
		return err
	}
	return nil
}

// Error makes an API error a Go error for the operator.
func (e *apiError) Error() string { return "stripesim: " + e.Message }

func (c *call) liveCustomer(id string) (*customer, *apiError) {
	cus := c.state.Customers.get(id)
	if cus == nil || cus.Deleted {
		return nil, noSuch("customer", id, "customer")
	}
	return cus, nil
}

// AdjustBalance books a manual balance adjustment and returns its id.
func (o *Operator) AdjustBalance(customer string, amount int64, currency, description string) (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		cus, err := c.liveCustomer(customer)
		if err == nil {
			err = currencyFits(cus, currency)
		}
		if err == nil {
			id = c.book(cus, balanceTransaction{Amount: amount, Currency: currency, Description: opt(description), Type: "adjustment"}, true).ID
		}
		return err
	})
	return id, err
}

// SetDefaultPaymentMethod changes the customer's default; "" leaves none.
func (o *Operator) SetDefaultPaymentMethod(customer, pm string) (string, error) {
	return customer, o.s.act(func(c *call) *apiError {
		cus, err := c.liveCustomer(customer)
		if err != nil {
			return err
		}
		if m := c.state.PaymentMethods.get(pm); pm != "" && (m == nil || string(m.Customer) != customer) {
			return noSuch("PaymentMethod", pm, "payment_method")
		}
		before := toMap(cus)
		cus.InvoiceSettings.DefaultPaymentMethod = opt(pm)
		c.emitUpdated("customer.updated", before, cus)
		return nil
	})
}

// AttachCard attaches a new method made from a test token, in live mode too,
// where the API has no such tokens.
func (o *Operator) AttachCard(customer, token string) (pm string, err error) {
	err = o.s.act(func(c *call) *apiError {
		cus, err := c.liveCustomer(customer)
		if err != nil {
			return err
		}
		spec, ok := cardFor(token)
		if !ok {
			return noSuch("PaymentMethod", token, "payment_method")
		}
		m := c.newMethod(token, spec)
		if err := c.attachable(m); err != nil {
			return err
		}
		c.attachTo(cus, m)
		pm = m.ID
		return nil
	})
	return pm, err
}

// DetachPaymentMethod detaches a method for good.
func (o *Operator) DetachPaymentMethod(pm string) (string, error) {
	return pm, o.s.act(func(c *call) *apiError {
		m := c.state.PaymentMethods.get(pm)
		if m == nil {
			return noSuch("PaymentMethod", pm, "payment_method")
		}
		return c.detach(m)
	})
}

// RenewCard is the card network telling Stripe of a new card in place of a saved one: the method stays, and behaves
// from now on as token's card does.
func (o *Operator) RenewCard(pm, token string) (string, error) {
	return pm, o.s.act(func(c *call) *apiError {
		m := c.state.PaymentMethods.get(pm)
		spec, known := cardFor(token)
		if m == nil || m.Card == nil || !known {
			return noSuch("PaymentMethod", pm, "payment_method")
		}
		before := toMap(m)
		renewed := *m.Card
		renewed.ExpYear++
		renewed.Last4 = spec.last4
		m.Card = &renewed
		c.state.Tokens[pm] = token
		c.emitUpdated("payment_method.automatically_updated", before, m)
		return nil
	})
}

// DeleteCustomer deletes a customer for good.
func (o *Operator) DeleteCustomer(id string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		cus, err := c.liveCustomer(id)
		if err == nil {
			c.removeCustomer(cus)
		}
		return err
	})
}

// Refund refunds a charge, or the charge of a payment intent; amount 0 is all
// that is left.
func (o *Operator) Refund(chargeOrIntent string, amount int64) (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		var ch *charge
		var err *apiError
		if c.state.PaymentIntents.get(chargeOrIntent) != nil {
			ch, err = c.refundTarget("", chargeOrIntent)
		} else {
			ch, err = c.refundTarget(chargeOrIntent, "")
		}
		if err != nil {
			return err
		}
		if amount == 0 {
			amount = ch.Amount - ch.AmountRefunded
		}
		re, err := c.refund(ch, amount, "requested_by_customer", nil)
		if err == nil {
			id = re.ID
		}
		return err
	})
	return id, err
}

// FailRefund lets the bank return a refund: the money is the merchant's again.
func (o *Operator) FailRefund(id string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		re := c.state.Refunds.get(id)
		if re == nil {
			return noSuch("refund", id, "refund")
		}
		return c.failRefund(re)
	})
}

// OpenDispute is the cardholder disputing a charge; the money is withdrawn.
func (o *Operator) OpenDispute(charge, reason string) (string, error) {
	return o.dispute(charge, reason, false)
}

// OpenInquiry is the bank asking before there is a dispute; no money moves.
func (o *Operator) OpenInquiry(charge, reason string) (string, error) {
	return o.dispute(charge, reason, true)
}

func (o *Operator) dispute(charge, reason string, inquiry bool) (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		ch := c.state.Charges.get(charge)
		if ch == nil || !ch.Paid {
			return noSuch("charge", charge, "charge")
		}
		if ch.Disputed {
			return badRequest("", "charge", "Charge %s is disputed already.", charge)
		}
		d := c.openDispute(ch, reason, inquiry)
		if !inquiry {
			c.withdraw(d)
		}
		id = d.ID
		return nil
	})
	return id, err
}

// CloseDispute decides a dispute.
func (o *Operator) CloseDispute(id string, won bool) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		d := c.state.Disputes.get(id)
		if d == nil {
			return noSuch("dispute", id, "dispute")
		}
		return c.closeDispute(d, won)
	})
}

// CancelPaymentIntent calls a payment off.
func (o *Operator) CancelPaymentIntent(id string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		pi := c.state.PaymentIntents.get(id)
		if pi == nil {
			return noSuch("payment_intent", id, "intent")
		}
		return c.cancelIntent(pi, "requested_by_customer")
	})
}

// SetPaymentMetadata writes what a payment carries in the dashboard; "" takes the key off. No event tells of it.
func (o *Operator) SetPaymentMetadata(id, key, value string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		pi := c.state.PaymentIntents.get(id)
		if pi == nil {
			return noSuch("payment_intent", id, "intent")
		}
		m := cloneMetadata(pi.Metadata)
		if m[key] = value; value == "" {
			delete(m, key)
		}
		pi.Metadata = m
		return nil
	})
}

// ConfirmPaymentIntent is the customer on the page with the client secret: they
// choose a method (or keep the intent's, with "") and authenticate. A decline is
// returned as an error.
func (o *Operator) ConfirmPaymentIntent(id, pm string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		pi := c.state.PaymentIntents.get(id)
		if pi == nil {
			return noSuch("payment_intent", id, "intent")
		}
		if pi.Status != "requires_payment_method" && pi.Status != "requires_confirmation" && pi.Status != "requires_action" {
			return unexpectedState(pi, "You cannot confirm this PaymentIntent because it has a status of %s.", pi.Status)
		}
		if pm == "" {
			pm = string(pi.PaymentMethod)
		}
		if pm == "" && pi.LastPaymentError != nil && pi.LastPaymentError.PaymentMethod != nil {
			pm = pi.LastPaymentError.PaymentMethod.ID
		}
		m, err := c.usable(pm, string(pi.Customer))
		if err == nil {
			err = c.attempt(pi, m, confirmation{}, true)
		}
		return err
	})
}

// FailAuthentication is the customer failing, or closing, the bank's page.
func (o *Operator) FailAuthentication(id string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		pi := c.state.PaymentIntents.get(id)
		if pi == nil || pi.Status != "requires_action" {
			return noSuch("payment_intent", id, "intent")
		}
		e := badRequest("payment_intent_authentication_failure", "", "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new PaymentMethod to attempt to fulfill this PaymentIntent again.")
		pi.NextAction = nil
		c.paymentFailed(pi, c.state.PaymentMethods.get(string(pi.PaymentMethod)), e)
		return nil
	})
}

// ConfirmSetupIntent is the customer saving a method on the page.
func (o *Operator) ConfirmSetupIntent(id, pm string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		si := c.state.SetupIntents.get(id)
		if si == nil || si.Status == "succeeded" || si.Status == "canceled" {
			return noSuch("setupintent", id, "intent")
		}
		if pm == "" {
			pm = string(si.PaymentMethod)
		}
		m, err := c.usable(pm, string(si.Customer))
		if err == nil {
			err = c.setUp(si, m, true)
		}
		return err
	})
}

// FinishProcessing is the bank's word on a payment that is processing.
func (o *Operator) FinishProcessing(pi string, succeed bool) (string, error) {
	return pi, o.s.act(func(c *call) *apiError {
		row := c.state.PaymentIntents.get(pi)
		if row == nil || row.Status != "processing" {
			return noSuch("payment_intent", pi, "intent")
		}
		c.finishProcessing(row, succeed)
		return nil
	})
}

// unknownType is no event type of this API version, nor a likely one of any.
const unknownType = "v9.stripesim.unknown"

// SendUnknownEvent emits an event of a type that no program knows yet.
func (o *Operator) SendUnknownEvent() (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		c.emit(unknownType, map[string]any{"id": newID("tsy_", 14), "object": "test_helpers.unknown", "livemode": c.livemode}, nil)
		id = c.made[0]
		return nil
	})
	return id, err
}

// ErrNoEvent is the answer to resending an event that is not there.
var ErrNoEvent = errors.New("stripesim: no such event")

// ResendEvent delivers an event once more to every endpoint that listens, as
// the dashboard's button does; automatic retries go on.
func (o *Operator) ResendEvent(id string) (string, error) {
	found := false
	err := o.s.act(func(c *call) *apiError {
		e := c.state.Events.get(id)
		if e == nil {
			return nil
		}
		found = true
		for endpointID, ep := range c.state.Endpoints.oldest {
			if ep.listens(e.Type) {
				c.enqueue(id, endpointID, nil)
			}
		}
		return nil
	})
	if err == nil && !found {
		err = ErrNoEvent
	}
	return id, err
}
