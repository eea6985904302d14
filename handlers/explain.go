package handlers

import (
	"encoding/json"
	"fmt"
	"net/http"

	"lockstep/ledger"
)

// explainedPart says which grant paid a part of a debit, by which rule it was its turn, and what funded it.
type explainedPart struct {
	Grant    *grantJSON  `json:"grant"` // null: taken as debt
	Amount   string      `json:"amount"`
	Rank     int         `json:"rank"`
	Why      string      `json:"why"`
	FundedBy *fundedJSON `json:"funded_by"`
}

type fundedJSON struct {
	Type          string  `json:"type"`
	ID            *string `json:"id"`
	PaymentIntent *string `json:"payment_intent"`
	Invoice       *string `json:"invoice"`
}

func (s *Server) explainDebit(c *call) error {
	d, err := s.Ledger.DebitByID(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	parts := make([]explainedPart, len(d.Parts))
	for i, p := range d.Parts {
		if parts[i], err = s.explainPart(c, p, d.Scale); err != nil {
			return err
		}
		parts[i].Rank = i + 1
	}
	return c.reply(http.StatusOK, struct {
		Object string          `json:"object"`
		Debit  json.RawMessage `json:"debit"`
		Parts  []explainedPart `json:"parts"`
	}{"explanation", appendDebit(nil, &d), parts})
}

func (s *Server) explainPart(c *call, p ledger.Part, scale int16) (explainedPart, error) {
	e := explainedPart{Amount: ledger.FormatSteps(p.Amount, scale)}
	if p.Grant == "" {
		e.Why = "no grant had more: the overdraft allowed it, and it is owed"
		return e, nil
	}
	g, err := s.Ledger.GrantByID(c.ctx(), p.Grant)
	if err != nil {
		return e, err
	}
	shown := newGrant(&g)
	e.Grant, e.FundedBy = &shown, &fundedJSON{Type: g.SourceType, ID: shown.Source.ID}
	expiry := "never expires"
	if g.ExpiresAt != nil {
		expiry = "expires " + stamp(*g.ExpiresAt)
	}
	e.Why = fmt.Sprintf("burn order: priority %d, then %s, then kind %s, then granted %s", g.Priority, expiry, g.Kind, stamp(g.CreatedAt))
	switch g.SourceType {
	case "topup":
	case "stripe_invoice", "stripe_checkout":
		payment, err := s.Ledger.SalePayment(c.ctx(), &g)
		e.FundedBy.PaymentIntent = orNil(payment)
		if g.SourceType == "stripe_invoice" {
			e.FundedBy.Invoice = shown.Source.ID
		}
		return e, err
	default:
		return e, nil
	}
	top, err := s.Ledger.TopupByID(c.ctx(), g.SourceID)
	e.FundedBy.PaymentIntent = top.PaymentIntent
	return e, err
}
