package stripesim

var refundRoutes = map[string]handler{
	"POST /v1/refunds":      createRefund,
	"GET /v1/refunds":       listRefunds,
	"GET /v1/refunds/{id}":  getRefund,
	"POST /v1/refunds/{id}": updateRefund,
}

type refund struct {
	ID                     string            `json:"id"`
	Object                 string            `json:"object"`
	Amount                 int64             `json:"amount"`
	BalanceTransaction     opt               `json:"balance_transaction"`
	Charge                 opt               `json:"charge"`
	Created                int64             `json:"created"`
	Currency               string            `json:"currency"`
	FailureReason          string            `json:"failure_reason,omitempty"`
	Metadata               map[string]string `json:"metadata"`
	PaymentIntent          opt               `json:"payment_intent"`
	Reason                 opt               `json:"reason"`
	ReceiptNumber          opt               `json:"receipt_number"`
	SourceTransferReversal any               `json:"source_transfer_reversal"`
	Status                 string            `json:"status"`
	TransferReversal       any               `json:"transfer_reversal"`
}

func createRefund(c *call) (any, *apiError) {
	chargeID, intentID := c.ref("charge"), c.ref("payment_intent")
	amount, given := c.positive("amount")
	reason := c.enum("reason", "duplicate", "fraudulent", "requested_by_customer")
	metadata := c.metadata(nil)
	c.ignore("refund_application_fee", "reverse_transfer", "instructions_email")
	if err := c.done(); err != nil {
		return nil, err
	}
	ch, err := c.refundTarget(chargeID, intentID)
	if err != nil {
		return nil, err
	}
	if !given {
		amount = ch.Amount - ch.AmountRefunded
	}
	return orError(c.refund(ch, amount, reason, metadata))
}

func (c *call) refundTarget(chargeID, intentID string) (*charge, *apiError) {
	if chargeID == "" && intentID == "" {
		return nil, badRequest("parameter_missing", "", "One of the following params should be provided for this request: payment_intent or charge.")
	}
	if intentID != "" {
		pi := c.state.PaymentIntents.get(intentID)
		if pi == nil {
			return nil, noSuchParam("payment_intent", intentID, "payment_intent")
		}
		if pi.Status != "succeeded" {
			return nil, badRequest("", "payment_intent", "This PaymentIntent (%s) does not have a successful charge to refund.", intentID)
		}
		chargeID = string(pi.LatestCharge)
	}
	ch := c.state.Charges.get(chargeID)
	if ch == nil {
		return nil, noSuchParam("charge", chargeID, "charge")
	}
	return ch, nil
}

// refund gives money back. charge.refunded carries the cumulative amount.
func (c *call) refund(ch *charge, amount int64, reason string, metadata map[string]string) (*refund, *apiError) {
	left := ch.Amount - ch.AmountRefunded
	switch {
	case !ch.Paid:
		return nil, badRequest("", "charge", "Charge %s has not been paid and cannot be refunded.", ch.ID)
	case ch.Disputed && !c.refundableDispute(ch):
		return nil, badRequest("charge_disputed", "", "Charge %s has been charged back; cannot issue a refund.", ch.ID)
	case ch.Refunded:
		return nil, badRequest("charge_already_refunded", "", "Charge %s has already been refunded.", ch.ID)
	case amount > left:
		return nil, badRequest("", "amount", "Refund amount (%s) is greater than unrefunded amount on charge (%s)", money(amount, ch.Currency), money(left, ch.Currency))
	}
	re := &refund{ID: newID("re_3", 23), Object: "refund", Amount: amount, BalanceTransaction: opt(newID("txn_3", 23)), Charge: opt(ch.ID),
		Created: c.unix(), Currency: ch.Currency, Metadata: cloneMetadata(metadata), PaymentIntent: ch.PaymentIntent, Reason: opt(reason), Status: "succeeded"}
	c.state.Refunds.put(re.ID, re)
	before := toMap(ch)
	ch.AmountRefunded += amount
	ch.Refunded = ch.AmountRefunded == ch.Amount
	c.emit("refund.created", re, nil)
	c.emitUpdated("charge.refunded", before, ch)
	return re, nil
}

// failRefund is the bank sending the money back: the charge counts as not
// refunded to that extent.
func (c *call) failRefund(re *refund) *apiError {
	if re.Status == "failed" {
		return badRequest("", "", "This refund has failed already.")
	}
	before := toMap(re)
	re.Status, re.FailureReason = "failed", "lost_or_stolen_card"
	ch := c.state.Charges.get(string(re.Charge))
	ch.AmountRefunded -= re.Amount
	ch.Refunded = false
	c.emitUpdated("charge.refund.updated", before, re)
	c.emitUpdated("refund.updated", before, re)
	return nil
}

func (c *call) refundAt() (*refund, *apiError) {
	if re := c.state.Refunds.get(c.id()); re != nil {
		return re, nil
	}
	return nil, noSuch("refund", c.id(), "refund")
}

func getRefund(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	return orError(c.refundAt())
}

func updateRefund(c *call) (any, *apiError) {
	re, err := c.refundAt()
	if err != nil {
		return nil, err
	}
	metadata := c.metadata(re.Metadata)
	if err := c.done(); err != nil {
		return nil, err
	}
	before := toMap(re)
	re.Metadata = metadata
	c.emitUpdated("charge.refund.updated", before, re)
	return re, nil
}

func listRefunds(c *call) (any, *apiError) {
	w, ch, pi := c.window(true), c.ref("charge"), c.ref("payment_intent")
	return list(c, &c.state.Refunds, w, "refund", func(r *refund) int64 { return r.Created },
		func(r *refund) bool {
			return (ch == "" || string(r.Charge) == ch) && (pi == "" || string(r.PaymentIntent) == pi)
		})
}
