package stripeutil

import (
	"context"
	"net/http"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// InvoiceParams are the parameters of the calls that make an invoice of one line and have it paid. Keys are made of
// IdempotencyKey, one for each call; resent with the same key they must be the same.
type InvoiceParams struct {
	Customer, PaymentMethod string
	MethodType              string // Stripe's word, such as us_bank_account; "" is card
	Amount                  int64  // minor units, positive
	Currency, Description   string
	Metadata                map[string]string
	AutomaticTax            bool  // has Stripe put tax on top of Amount
	DaysUntilDue            int64 // the customer is sent the invoice, to pay it within so many days; 0 charges the card
	IdempotencyKey          string
}

// DraftInvoice makes an invoice without a line, which nothing but our own calls will move on: Stripe neither finalizes
// it by itself nor puts other items on it.
func (c *Client) DraftInvoice(ctx context.Context, p InvoiceParams) (Invoice, error) {
	if err := checkID("customer", p.Customer); err != nil {
		return Invoice{}, err
	}
	if p.Amount <= 0 {
		return Invoice{}, refuse("an invoice of %d is not positive", p.Amount)
	}
	in := &stripe.InvoiceParams{
		Customer: &p.Customer, Currency: &p.Currency, Description: optional(p.Description), Metadata: p.Metadata,
		AutoAdvance: stripe.Bool(false), PendingInvoiceItemsBehavior: stripe.String("exclude"),
	}
	if p.AutomaticTax {
		in.AutomaticTax = &stripe.InvoiceAutomaticTaxParams{Enabled: stripe.Bool(true)}
	}
	if p.DaysUntilDue > 0 {
		in.CollectionMethod, in.DaysUntilDue = stripe.String("send_invoice"), &p.DaysUntilDue
	} else {
		if err := checkID("payment method", p.PaymentMethod); err != nil {
			return Invoice{}, err
		}
		in.CollectionMethod = stripe.String("charge_automatically")
		// Only by what is charged: on Stripe's page for it, too.
		in.PaymentSettings = &stripe.InvoicePaymentSettingsParams{PaymentMethodTypes: methodTypes(p.MethodType)}
	}
	raw, err := c.post(ctx, "/v1/invoices", p.IdempotencyKey+":draft", in)
	return read(raw, err, decodeInvoice)
}

// AddInvoiceLine puts the one line on a draft.
func (c *Client) AddInvoiceLine(ctx context.Context, invoice string, p InvoiceParams) error {
	if err := checkID("invoice", invoice); err != nil {
		return err
	}
	item := &stripe.InvoiceItemParams{
		Customer: &p.Customer, Invoice: &invoice, Amount: &p.Amount, Currency: &p.Currency, Description: optional(p.Description), Metadata: p.Metadata,
	}
	if p.AutomaticTax {
		item.TaxBehavior = stripe.String("exclusive")
	}
	raw, err := c.post(ctx, "/v1/invoiceitems", p.IdempotencyKey+":item", item)
	_, err = read(raw, err, decodePageSession)
	return err
}

// FinalizeInvoice closes a draft to changes. Stripe spends the customer's balance on it now.
func (c *Client) FinalizeInvoice(ctx context.Context, invoice string, p InvoiceParams) (Invoice, error) {
	if err := checkID("invoice", invoice); err != nil {
		return Invoice{}, err
	}
	raw, err := c.post(ctx, stripe.FormatURLPath("/v1/invoices/%s/finalize", invoice), p.IdempotencyKey+":finalize",
		&stripe.InvoiceFinalizeInvoiceParams{AutoAdvance: stripe.Bool(false)})
	return read(raw, err, decodeInvoice)
}

// PayInvoice charges what the customer saved for an open invoice, without the customer present. A refusal by the bank, a
// demand for authentication included, is ErrDeclined; the invoice stays open. So it does for the days that a bank account
// takes, whose payment is processing.
func (c *Client) PayInvoice(ctx context.Context, invoice string, p InvoiceParams) error {
	if err := checkID("invoice", invoice); err != nil {
		return err
	}
	raw, err := c.post(ctx, stripe.FormatURLPath("/v1/invoices/%s/pay", invoice), p.IdempotencyKey+":pay",
		&stripe.InvoicePayParams{PaymentMethod: &p.PaymentMethod, OffSession: stripe.Bool(true)})
	_, err = read(raw, err, decodeInvoice)
	return err
}

// SendInvoice has Stripe mail a finalized invoice to its customer. One that was paid meanwhile is ErrInvalid.
func (c *Client) SendInvoice(ctx context.Context, invoice string, p InvoiceParams) error {
	if err := checkID("invoice", invoice); err != nil {
		return err
	}
	raw, err := c.post(ctx, stripe.FormatURLPath("/v1/invoices/%s/send", invoice), p.IdempotencyKey+":send", nil)
	_, err = read(raw, err, decodeInvoice)
	return err
}

// VoidInvoice calls an open invoice off, so that nobody can pay it any more; Stripe gives back what the balance paid of
// it. It is refused with ErrInvalid where the invoice was paid or is being paid.
func (c *Client) VoidInvoice(ctx context.Context, invoice, idempotencyKey string) error {
	if err := checkID("invoice", invoice); err != nil {
		return err
	}
	raw, err := c.post(ctx, stripe.FormatURLPath("/v1/invoices/%s/void", invoice), idempotencyKey, nil)
	_, err = read(raw, err, decodeInvoice)
	return err
}

// DeleteInvoice deletes a draft.
func (c *Client) DeleteInvoice(ctx context.Context, invoice, idempotencyKey string) error {
	if err := checkID("invoice", invoice); err != nil {
		return err
	}
	if err := checkKey(idempotencyKey); err != nil {
		return err
	}
	_, err := c.call(ctx, http.MethodDelete, stripe.FormatURLPath("/v1/invoices/%s", invoice), idempotencyKey, nil)
	return err
}

// FindInvoice looks through the customer's invoices made at since or later, newest first, for one that match accepts:
// that of a call whose answer was lost.
func (c *Client) FindInvoice(ctx context.Context, customer string, since time.Time, match func(Invoice) bool) (in Invoice, found bool, err error) {
	if err := checkID("customer", customer); err != nil {
		return Invoice{}, false, err
	}
	list := pager{client: c, path: "/v1/invoices", params: func(p stripe.ListParams) any {
		return &stripe.InvoiceListParams{ListParams: p, Customer: &customer, CreatedRange: from(since)}
	}}
	err = each(ctx, &list, decodeInvoice, func(i Invoice) bool {
		if found = match(i); found {
			in = i
		}
		return !found
	})
	return in, found && err == nil, err
}
