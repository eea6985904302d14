package stripesim

import (
	"maps"
	"slices"
)

var disputeRoutes = map[string]handler{
	"GET /v1/disputes":             listDisputes,
	"GET /v1/disputes/{id}":        getDispute,
	"POST /v1/disputes/{id}":       updateDispute,
	"POST /v1/disputes/{id}/close": concedeDispute,
}

type dispute struct {
	ID                  string            `json:"id"`
	Object              string            `json:"object"`
	Amount              int64             `json:"amount"`
	BalanceTransactions []any             `json:"balance_transactions"`
	Charge              string            `json:"charge"`
	Created             int64             `json:"created"`
	Currency            string            `json:"currency"`
	Evidence            map[string]any    `json:"evidence"`
	EvidenceDetails     map[string]any    `json:"evidence_details"`
	IsChargeRefundable  bool              `json:"is_charge_refundable"`
	Livemode            bool              `json:"livemode"`
	Metadata            map[string]string `json:"metadata"`
	PaymentIntent       opt               `json:"payment_intent"`
	Reason              string            `json:"reason"`
	Status              string            `json:"status"`
}

func (c *call) refundableDispute(ch *charge) bool {
	for _, d := range c.state.Disputes.oldest {
		if d.Charge == ch.ID && !d.IsChargeRefundable && d.Status != "won" {
			return false
		}
	}
	return true
}

// openDispute opens a dispute, or with inquiry one of the warnings that move no
// money and leave the charge refundable.
func (c *call) openDispute(ch *charge, reason string, inquiry bool) *dispute {
	status := "needs_response"
	if inquiry {
		status = "warning_needs_response"
	}
	d := &dispute{ID: newID("dp_1", 23), Object: "dispute", Amount: ch.Amount - ch.AmountRefunded, BalanceTransactions: []any{}, Charge: ch.ID,
		Created: c.unix(), Currency: ch.Currency, Evidence: map[string]any{}, IsChargeRefundable: inquiry, Livemode: c.livemode,
		EvidenceDetails: map[string]any{"due_by": c.unix() + 7*24*3600, "has_evidence": false, "past_due": false, "submission_count": 0},
		Metadata:        map[string]string{}, PaymentIntent: ch.PaymentIntent, Reason: reason, Status: status}
	c.state.Disputes.put(d.ID, d)
	ch.Disputed = true
	c.emit("charge.dispute.created", d, nil)
	return d
}

// move takes a dispute's money, or gives it back.
func (c *call) move(d *dispute, event string, amount, fee int64) {
	before := toMap(d)
	now := c.unix()
	d.BalanceTransactions = append(slices.Clone(d.BalanceTransactions), map[string]any{
		"id": newID("txn_1", 23), "object": "balance_transaction", "amount": amount, "available_on": now, "created": now, "currency": d.Currency,
		"description": "Chargeback for " + d.Charge, "exchange_rate": nil, "fee": fee, "fee_details": []any{}, "net": amount - fee,
		"reporting_category": "dispute", "source": d.ID, "status": "available", "type": "adjustment"})
	c.emitUpdated(event, before, d)
}

func (c *call) withdraw(d *dispute) { c.move(d, "charge.dispute.funds_withdrawn", -d.Amount, 1500) }

func (c *call) closeDispute(d *dispute, won bool) *apiError {
	inquiry := d.Status == "warning_needs_response" || d.Status == "warning_under_review"
	if d.Status != "needs_response" && d.Status != "under_review" && !inquiry {
		return badRequest("", "", "This dispute is already closed")
	}
	before := toMap(d)
	switch {
	case inquiry:
		d.Status = "warning_closed"
	case won:
		d.Status = "won"
	default:
		d.Status = "lost"
	}
	c.emitUpdated("charge.dispute.closed", before, d)
	if won && !inquiry {
		c.move(d, "charge.dispute.funds_reinstated", d.Amount, 0)
	}
	return nil
}

func (c *call) disputeAt() (*dispute, *apiError) {
	if d := c.state.Disputes.get(c.id()); d != nil {
		return d, nil
	}
	return nil, noSuch("dispute", c.id(), "dispute")
}

func getDispute(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	return orError(c.disputeAt())
}

// updateDispute takes the merchant's evidence; submitting it (the default) puts
// the dispute before the bank.
func updateDispute(c *call) (any, *apiError) {
	d, err := c.disputeAt()
	if err != nil {
		return nil, err
	}
	next := *d
	next.Metadata = c.metadata(d.Metadata)
	submit := !c.has("submit") || c.boolean("submit")
	if h := c.hash("evidence"); h != nil {
		next.Evidence = maps.Clone(d.Evidence)
		for key := range h.tree {
			next.Evidence[key] = h.str(key)
		}
		next.EvidenceDetails = maps.Clone(d.EvidenceDetails)
		next.EvidenceDetails["has_evidence"] = true
		if submit {
			next.EvidenceDetails["submission_count"] = 1
			next.Status = map[string]string{"needs_response": "under_review", "warning_needs_response": "warning_under_review"}[d.Status]
		}
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	if next.Status == "" {
		return nil, badRequest("", "", "This dispute is closed, or its evidence was submitted already.")
	}
	before := toMap(d)
	*d = next
	c.emitUpdated("charge.dispute.updated", before, d)
	return d, nil
}

func concedeDispute(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	d, err := c.disputeAt()
	if err == nil {
		err = c.closeDispute(d, false)
	}
	return orError(d, err)
}

func listDisputes(c *call) (any, *apiError) {
	w, ch, pi := c.window(true), c.ref("charge"), c.ref("payment_intent")
	return list(c, &c.state.Disputes, w, "dispute", func(r *dispute) int64 { return r.Created },
		func(r *dispute) bool {
			return (ch == "" || r.Charge == ch) && (pi == "" || string(r.PaymentIntent) == pi)
		})
}
