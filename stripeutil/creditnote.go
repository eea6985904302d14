package stripeutil

import (
	"context"
	"encoding/json"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// CreditNote says that an invoice was too high. On a paid one it gives the difference back in up to three parts: on the
// customer's balance, as a refund, and outside Stripe. On an open one it lowers what is due and gives nothing back.
type CreditNote struct {
	ID, Invoice, Customer, Currency string
	// Status is issued or void. One with a refund can't be voided.
	Status string
	// BeforePayment is set on one of an open invoice.
	BeforePayment bool
	// BalanceTransaction is the line of the balance that its credit part made; empty where it has none.
	BalanceTransaction string
	Refund             string // the refund that its refund part made
	OutOfBand          int64  // minor units that were given back outside Stripe
	Created            time.Time
}

// CreditNote reads a credit note.
func (c *Client) CreditNote(ctx context.Context, id string) (CreditNote, error) {
	if err := checkID("credit note", id); err != nil {
		return CreditNote{}, err
	}
	raw, err := c.get(ctx, stripe.FormatURLPath("/v1/credit_notes/%s", id), nil)
	return read(raw, err, decodeCreditNote)
}

// CreditNotes lists the credit notes of an invoice, newest first, those that were voided too.
func (c *Client) CreditNotes(ctx context.Context, invoice string) ([]CreditNote, error) {
	if err := checkID("invoice", invoice); err != nil {
		return nil, err
	}
	return all(ctx, &pager{client: c, path: "/v1/credit_notes", params: func(p stripe.ListParams) any {
		return &stripe.CreditNoteListParams{ListParams: p, Invoice: &invoice}
	}}, decodeCreditNote)
}

func decodeCreditNote(raw json.RawMessage) (CreditNote, error) {
	var wire struct {
		ID                 string `json:"id"`
		Invoice            ref    `json:"invoice"`
		Customer           ref    `json:"customer"`
		Currency           string `json:"currency"`
		Status             string `json:"status"`
		Type               string `json:"type"`
		BalanceTransaction ref    `json:"customer_balance_transaction"`
		Refund             ref    `json:"refund"`
		OutOfBand          int64  `json:"out_of_band_amount"`
		Created            int64  `json:"created"`
	}
	if err := decode(raw, "credit note", &wire, &wire.ID); err != nil {
		return CreditNote{}, err
	}
	return CreditNote{ID: wire.ID, Invoice: string(wire.Invoice), Customer: string(wire.Customer), Currency: wire.Currency, Status: wire.Status,
		BeforePayment: wire.Type == "pre_payment", BalanceTransaction: string(wire.BalanceTransaction), Refund: string(wire.Refund),
		OutOfBand: wire.OutOfBand, Created: unixTime(wire.Created)}, nil
}
