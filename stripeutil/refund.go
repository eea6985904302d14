package stripeutil

import (
	"context"
	"encoding/json"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// Refund is money of a payment on its way back to the customer, or come back from there.
type Refund struct {
	ID, PaymentIntent, Currency string
	Amount                      int64 // minor units
	// Status is Stripe's word: pending, requires_action, succeeded, failed or canceled.
	Status  string
	Created time.Time
}

// Stands reports whether the customer has the money, or is about to.
func (r Refund) Stands() bool { return r.Status != "failed" && r.Status != "canceled" }

// Dispute is a payment that the customer's bank calls into question.
type Dispute struct {
	ID, PaymentIntent, Currency, Reason string
	Amount                              int64 // minor units
	// Status is Stripe's word: needs_response, under_review, won, lost, or one of warning_needs_response,
	// warning_under_review and warning_closed, which are inquiries and move no money.
	Status  string
	Created time.Time
}

// Open reports whether the dispute waits for its end.
func (d Dispute) Open() bool { return d.Status == "needs_response" || d.Status == "under_review" }

// Stands reports whether Stripe has taken the money for it.
func (d Dispute) Stands() bool { return d.Open() || d.Status == "lost" }

// Refunds lists the refunds of a payment, newest first.
func (c *Client) Refunds(ctx context.Context, paymentIntent string) ([]Refund, error) {
	if err := checkID("payment", paymentIntent); err != nil {
		return nil, err
	}
	return all(ctx, &pager{client: c, path: "/v1/refunds", params: func(p stripe.ListParams) any {
		return &stripe.RefundListParams{ListParams: p, PaymentIntent: &paymentIntent}
	}}, decodeRefund)
}

// Disputes lists the disputes of a payment, newest first.
func (c *Client) Disputes(ctx context.Context, paymentIntent string) ([]Dispute, error) {
	if err := checkID("payment", paymentIntent); err != nil {
		return nil, err
	}
	return all(ctx, &pager{client: c, path: "/v1/disputes", params: func(p stripe.ListParams) any {
		return &stripe.DisputeListParams{ListParams: p, PaymentIntent: &paymentIntent}
	}}, decodeDispute)
}

// all reads a list to its end: for lists that are short by their nature.
func all[T any](ctx context.Context, list *pager, decode func(json.RawMessage) (T, error)) ([]T, error) {
	var found []T
	err := each(ctx, list, decode, func(v T) bool {
		found = append(found, v)
		return true
	})
	return found, err
}

func decodeRefund(raw json.RawMessage) (Refund, error) {
	var wire struct {
		ID            string `json:"id"`
		PaymentIntent ref    `json:"payment_intent"`
		Currency      string `json:"currency"`
		Amount        int64  `json:"amount"`
		Status        string `json:"status"`
		Created       int64  `json:"created"`
	}
	if err := decode(raw, "refund", &wire, &wire.ID); err != nil {
		return Refund{}, err
	}
	return Refund{ID: wire.ID, PaymentIntent: string(wire.PaymentIntent), Currency: wire.Currency, Amount: wire.Amount,
		Status: wire.Status, Created: unixTime(wire.Created)}, nil
}

func decodeDispute(raw json.RawMessage) (Dispute, error) {
	var wire struct {
		ID            string `json:"id"`
		PaymentIntent ref    `json:"payment_intent"`
		Currency      string `json:"currency"`
		Reason        string `json:"reason"`
		Amount        int64  `json:"amount"`
		Status        string `json:"status"`
		Created       int64  `json:"created"`
	}
	if err := decode(raw, "dispute", &wire, &wire.ID); err != nil {
		return Dispute{}, err
	}
	return Dispute{ID: wire.ID, PaymentIntent: string(wire.PaymentIntent), Currency: wire.Currency, Reason: wire.Reason, Amount: wire.Amount,
		Status: wire.Status, Created: unixTime(wire.Created)}, nil
}
