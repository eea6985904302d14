package stripesim

const jobOutcome = "payment_intent.outcome"

// attempt makes one payment attempt. The error, when there is one, is the 402
// that the caller gets; what happened to the intent has happened all the same.
func (c *call) attempt(pi *paymentIntent, pm *paymentMethod, k confirmation, authenticated bool) *apiError {
	spec := c.behaviour(pm)
	needsAuth := (spec.auth || spec.authOnSetup && !c.state.Set[pm.ID]) && !authenticated
	pi.PaymentMethod, pi.LastPaymentError, pi.NextAction = opt(pm.ID), nil, nil
	switch {
	case needsAuth && (k.offSession || k.errorOnAction):
		// The bank was never asked, so there is no charge.
		e := authenticationRequired()
		pi.LatestCharge = ""
		return c.paymentFailed(pi, pm, e)
	case needsAuth:
		pi.Status, pi.NextAction = "requires_action", useSDK()
		c.emit("payment_intent.requires_action", pi, nil)
		return nil
	case spec.bank != "":
		pi.Status = "processing"
		ch := c.newCharge(pi, pm, "pending")
		c.emit("payment_intent.processing", pi, nil)
		c.emit("charge.pending", ch, nil)
		if !spec.hangs {
			c.state.Jobs = append(c.state.Jobs, &job{At: c.now().Add(processingTime), Kind: jobOutcome, ID: pi.ID})
		}
		return nil
	case spec.decline != "":
		e := declined(spec.decline)
		ch := c.newCharge(pi, pm, "failed")
		c.refuseCharge(ch, e)
		c.emit("charge.failed", ch, nil)
		return c.paymentFailed(pi, pm, e)
	}
	ch := c.newCharge(pi, pm, "succeeded")
	c.paymentSucceeded(pi, pm, ch)
	return nil
}

// paymentFailed sends the intent back for another method.
func (c *call) paymentFailed(pi *paymentIntent, pm *paymentMethod, e *apiError) *apiError {
	snapshot := *pm
	e.PaymentMethod = &snapshot
	e.Charge = string(pi.LatestCharge)
	pi.Status, pi.PaymentMethod, pi.LastPaymentError = "requires_payment_method", "", e.inside()
	c.emit("payment_intent.payment_failed", pi, nil)
	c.retire(pm)
	c.invoicePaymentFailed(pi)
	c.checkoutPaymentFailed(pi)
	return e.withIntent(pi)
}

func (c *call) paymentSucceeded(pi *paymentIntent, pm *paymentMethod, ch *charge) {
	ch.Status, ch.Paid, ch.Captured, ch.AmountCaptured = "succeeded", true, true, ch.Amount
	ch.BalanceTransaction = opt(newID("txn_3", 23))
	ch.ReceiptURL = opt(c.hostedURL("https://pay.stripe.com", "/receipts/payment/"+newID("", 32)))
	c.emit("charge.succeeded", ch, nil)
	var d *dispute
	if c.behaviour(pm).dispute {
		d = c.openDispute(ch, "fraudulent", false)
	}
	pi.Status, pi.AmountReceived, pi.NextAction = "succeeded", pi.Amount, nil
	c.emit("payment_intent.succeeded", pi, nil)
	if d != nil {
		c.withdraw(d)
	}
	if cus := c.state.Customers.get(string(pi.Customer)); pi.SetupFutureUsage != "" && cus != nil && pm.Customer == "" && !c.state.Used[pm.ID] {
		c.state.Set[pm.ID] = true
		c.attachTo(cus, pm)
	}
	c.retire(pm)
	c.invoicePaymentSucceeded(pi)
	c.checkoutPaymentSucceeded(pi)
}

// retire ends a method that was used without ever being attached: Stripe lets
// it be used once.
func (c *call) retire(pm *paymentMethod) {
	if pm.Customer == "" {
		c.state.Used[pm.ID] = true
	}
}

// finishProcessing is the bank's late word on a debit.
func (c *call) finishProcessing(pi *paymentIntent, succeed bool) {
	c.state.dropJobs(jobOutcome, pi.ID)
	pm, ch := c.state.PaymentMethods.get(string(pi.PaymentMethod)), c.state.Charges.get(string(pi.LatestCharge))
	if succeed {
		c.paymentSucceeded(pi, pm, ch)
		return
	}
	e := sentBack(c.behaviour(pm).decline)
	ch.Status = "failed"
	c.refuseCharge(ch, e)
	c.emit("charge.failed", ch, nil)
	c.paymentFailed(pi, pm, e)
}

// runJob does what Stripe does by itself.
func (s *Sim) runJob(j *job) {
	c := s.byStripe()
	switch j.Kind {
	case jobOutcome:
		if pi := s.state.PaymentIntents.get(j.ID); pi != nil && pi.Status == "processing" {
			c.finishProcessing(pi, c.behaviour(s.state.PaymentMethods.get(string(pi.PaymentMethod))).decline == "")
		}
	case jobFinalize:
		c.autoFinalize(j.ID)
	case jobCollect:
		c.autoCollect(j.ID)
	case jobCycle:
		c.cycle(j.ID)
	case jobExpireSession:
		c.expireSession(j.ID)
	}
}
