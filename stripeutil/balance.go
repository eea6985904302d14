package stripeutil

import (
	"context"
	"encoding/json"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// BalanceTransaction is one immutable line of a customer's balance at Stripe.
type BalanceTransaction struct {
	ID, Customer string
	// Amount and EndingBalance are in minor units with Stripe's sign: a negative amount gives the customer credit.
	Amount, EndingBalance int64
	Currency              string
	// Type is adjustment for those the API makes; Stripe makes others (applied_to_invoice, credit_note, …) and adds
	// new ones over time.
	Type string
	// Invoice and CreditNote are the ids of what caused the line, where something did.
	Invoice, CreditNote string
	Description         string
	Metadata            map[string]string
	Created             time.Time
}

// BalanceTransactionParams are the parameters of CreateBalanceTransaction.
type BalanceTransactionParams struct {
	Customer string
	// Amount in minor units, Stripe's sign: negative grants credit, positive takes it.
	Amount int64
	// Currency must be the customer's; where the customer has none yet, this becomes it.
	Currency, Description string
	Metadata              map[string]string
	IdempotencyKey        string
}

// CreateBalanceTransaction adds a line to the customer's balance. It never sets the balance outright, which would
// overwrite what others did meanwhile.
func (c *Client) CreateBalanceTransaction(ctx context.Context, p BalanceTransactionParams) (BalanceTransaction, error) {
	if err := checkID("customer", p.Customer); err != nil {
		return BalanceTransaction{}, err
	}
	raw, err := c.post(ctx, balancePath(p.Customer), p.IdempotencyKey, &stripe.CustomerBalanceTransactionParams{
		Amount:      &p.Amount,
		Currency:    &p.Currency,
		Description: optional(p.Description),
		Metadata:    p.Metadata,
	})
	return read(raw, err, decodeBalanceTransaction)
}

// BalanceTransactions hands the lines of a customer's balance to yield, newest first, and stops when yield returns
// false. It asks for 100 a page; each page is a call with its own retries and deadline.
func (c *Client) BalanceTransactions(ctx context.Context, customer string, yield func(BalanceTransaction) bool) error {
	if err := checkID("customer", customer); err != nil {
		return err
	}
	list := pager{client: c, path: balancePath(customer), params: func(p stripe.ListParams) any {
		return &stripe.CustomerBalanceTransactionListParams{ListParams: p}
	}}
	for {
		raw, ok, err := list.next(ctx)
		if err != nil || !ok {
			return err
		}
		line, err := read(raw, nil, decodeBalanceTransaction)
		if err != nil {
			return err
		}
		if !yield(line) {
			return nil
		}
	}
}

func balancePath(customer string) string {
	return stripe.FormatURLPath("/v1/customers/%s/balance_transactions", customer)
}

func decodeBalanceTransaction(raw json.RawMessage) (BalanceTransaction, error) {
	var wire struct {
		ID            string            `json:"id"`
		Customer      ref               `json:"customer"`
		Amount        int64             `json:"amount"`
		EndingBalance int64             `json:"ending_balance"`
		Currency      string            `json:"currency"`
		Type          string            `json:"type"`
		Invoice       ref               `json:"invoice"`
		CreditNote    ref               `json:"credit_note"`
		Description   string            `json:"description"`
		Metadata      map[string]string `json:"metadata"`
		Created       int64             `json:"created"`
	}
	if err := decode(raw, "balance transaction", &wire, &wire.ID); err != nil {
		return BalanceTransaction{}, err
	}
	return BalanceTransaction{
		ID: wire.ID, Customer: string(wire.Customer), Amount: wire.Amount, EndingBalance: wire.EndingBalance,
		Currency: wire.Currency, Type: wire.Type, Invoice: string(wire.Invoice), CreditNote: string(wire.CreditNote),
		Description: wire.Description, Metadata: wire.Metadata, Created: unixTime(wire.Created),
	}, nil
}
