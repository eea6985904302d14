package stripeutil

import (
	"context"
	"encoding/json"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// CheckoutSession is a checkout page that a customer went through, a Payment Link's included.
type CheckoutSession struct {
	ID string
	// Mode is payment, subscription or setup; Status is open, complete or expired; PaymentStatus is paid, unpaid or
	// no_payment_required. A session that is complete may still be unpaid: a bank debit takes days.
	Mode, Status, PaymentStatus string
	Customer, Email, Name       string // Customer is empty for a guest
	ClientReference             string // the merchant's own word for who is buying
	PaymentIntent, SetupIntent  string
	Invoice, Subscription       string
	// Invoices is set where a one-off sale gets an invoice, which may come a moment after the payment.
	Invoices bool
	Metadata map[string]string
	// PaymentMetadata is the payment's own.
	PaymentMetadata map[string]string
	// Payment is the whole payment where the session was read by itself and has one.
	Payment *PaymentIntent
	URL     string // where the customer pays, while it is open
	Created time.Time
}

// Invoice is an invoice as far as it says what was sold.
type Invoice struct {
	ID, Customer, Status, Subscription string
	// Reason is Stripe's billing_reason: manual, subscription_create, subscription_cycle, subscription_update, …
	Reason                    string
	PaymentIntent             string // empty where no card was charged: paid by balance, by nothing, or elsewhere
	PaidAt                    time.Time
	Metadata, PaymentMetadata map[string]string

	Currency string
	// Subtotal is of all lines before tax and discounts, Total after them. AmountDue is what the customer's balance left to be paid, AmountPaid what was.
	Subtotal, Total, AmountDue, AmountPaid int64
	// StartingBalance and EndingBalance are the customer's, in Stripe's sign, before and after finalization; the
	// ending one of a draft says nothing.
	StartingBalance, EndingBalance int64
	PaidOutOfBand                  bool
	Credited                       int64          // by credit notes since it was paid
	URL                            string         // where the customer can pay it, once it is finalized
	Payment                        *PaymentIntent // the whole payment where the invoice was read by itself and has one
	Created                        time.Time
}

// SaleLine is a line of an invoice or of a checkout session, with what its price and product say of themselves.
type SaleLine struct {
	ID, Price                      string
	PriceMetadata, ProductMetadata map[string]string
	Currency                       string
	// Quantity is 1 where Stripe gives none, as it does for flat fees.
	Quantity int64
	// Amount is before discounts, in minor units; below zero where the line gives money back. Net is what the
	// merchant earns by it: after discounts, before tax.
	Amount, Net int64
	Discounted  bool
	// UnitAmount is nil where Amount is not simply quantity × unit: tiers, packages, fractions of a cent, or a price
	// shown in another currency than its own.
	UnitAmount *int64
	// SubscriptionItem is empty on lines that no subscription made.
	Subscription, SubscriptionItem string
	Start, End                     time.Time // the period that the line pays for; zero for a checkout session's
	Proration                      bool
}

// CheckoutSession reads a session.
func (c *Client) CheckoutSession(ctx context.Context, id string) (CheckoutSession, error) {
	if err := checkID("checkout session", id); err != nil {
		return CheckoutSession{}, err
	}
	raw, err := c.get(ctx, stripe.FormatURLPath("/v1/checkout/sessions/%s", id),
		&stripe.CheckoutSessionParams{Expand: stripe.StringSlice([]string{"payment_intent"})})
	return read(raw, err, decodeCheckoutSession)
}

// Received is what came of a paid invoice, in minor units: what was paid, here or elsewhere, and what the customer's
// balance paid beside it. Where the balance owed, the debt was paid with it and is not counted.
func (in Invoice) Received() int64 {
	if in.Status != "paid" {
		return 0
	}
	paid := in.AmountPaid
	if in.PaidOutOfBand && paid == 0 {
		paid = in.AmountDue
	}
	return paid + in.EndingBalance - in.StartingBalance
}

// Invoice reads an invoice.
func (c *Client) Invoice(ctx context.Context, id string) (Invoice, error) {
	if err := checkID("invoice", id); err != nil {
		return Invoice{}, err
	}
	raw, err := c.get(ctx, stripe.FormatURLPath("/v1/invoices/%s", id),
		&stripe.InvoiceParams{Expand: stripe.StringSlice([]string{"payment_intent"})})
	return read(raw, err, decodeInvoice)
}

// InvoicesOf hands the invoices of a subscription to yield, newest first, and stops when yield returns false.
func (c *Client) InvoicesOf(ctx context.Context, subscription string, yield func(Invoice) bool) error {
	if err := checkID("subscription", subscription); err != nil {
		return err
	}
	list := pager{client: c, path: "/v1/invoices", params: func(p stripe.ListParams) any {
		return &stripe.InvoiceListParams{ListParams: p, Subscription: &subscription}
	}}
	return each(ctx, &list, decodeInvoice, yield)
}

// saleLines asks for what a line's price and product say.
var saleLines = []string{"data.price.product"}

// InvoiceLines reads all lines of an invoice.
func (c *Client) InvoiceLines(ctx context.Context, invoice string) (lines []SaleLine, err error) {
	if err := checkID("invoice", invoice); err != nil {
		return nil, err
	}
	list := pager{client: c, path: stripe.FormatURLPath("/v1/invoices/%s/lines", invoice), params: func(p stripe.ListParams) any {
		return &stripe.InvoiceListLinesParams{ListParams: p, Expand: stripe.StringSlice(saleLines)}
	}}
	err = each(ctx, &list, decodeInvoiceLine, func(l SaleLine) bool { lines = append(lines, l); return true })
	return lines, err
}

// CheckoutLines reads all lines of a checkout session.
func (c *Client) CheckoutLines(ctx context.Context, session string) (lines []SaleLine, err error) {
	if err := checkID("checkout session", session); err != nil {
		return nil, err
	}
	list := pager{client: c, path: stripe.FormatURLPath("/v1/checkout/sessions/%s/line_items", session), params: func(p stripe.ListParams) any {
		return &stripe.CheckoutSessionListLineItemsParams{ListParams: p, Expand: stripe.StringSlice(saleLines)}
	}}
	err = each(ctx, &list, decodeCheckoutLine, func(l SaleLine) bool { lines = append(lines, l); return true })
	return lines, err
}

// each hands the objects of a list to yield until it returns false.
func each[T any](ctx context.Context, list *pager, decode func(json.RawMessage) (T, error), yield func(T) bool) error {
	for {
		raw, ok, err := list.next(ctx)
		if err != nil || !ok {
			return err
		}
		v, err := read(raw, nil, decode)
		if err != nil || !yield(v) {
			return err
		}
	}
}

// described is an object as an id, or expanded with its metadata.
type described struct {
	ID       string
	Metadata map[string]string
}

// UnmarshalJSON keeps the id, and the metadata of the expanded form.
func (p *described) UnmarshalJSON(b []byte) error {
	if !isObject(b) {
		return json.Unmarshal(b, &p.ID)
	}
	var object struct {
		ID       string            `json:"id"`
		Metadata map[string]string `json:"metadata"`
	}
	err := json.Unmarshal(b, &object)
	*p = described{object.ID, object.Metadata}
	return err
}

func decodeCheckoutSession(raw json.RawMessage) (CheckoutSession, error) {
	var wire struct {
		ID              string            `json:"id"`
		Mode            string            `json:"mode"`
		Status          string            `json:"status"`
		PaymentStatus   string            `json:"payment_status"`
		Customer        ref               `json:"customer"`
		ClientReference string            `json:"client_reference_id"`
		PaymentIntent   json.RawMessage   `json:"payment_intent"`
		Created         int64             `json:"created"`
		URL             string            `json:"url"`
		SetupIntent     ref               `json:"setup_intent"`
		Invoice         ref               `json:"invoice"`
		Subscription    ref               `json:"subscription"`
		Metadata        map[string]string `json:"metadata"`
		InvoiceCreation struct {
			Enabled bool `json:"enabled"`
		} `json:"invoice_creation"`
		CustomerDetails struct {
			Email string `json:"email"`
			Name  string `json:"name"`
		} `json:"customer_details"`
	}
	if err := decode(raw, "checkout session", &wire, &wire.ID); err != nil {
		return CheckoutSession{}, err
	}
	payment, whole, err := decodePaymentOf(wire.PaymentIntent)
	if err != nil {
		return CheckoutSession{}, err
	}
	return CheckoutSession{
		ID: wire.ID, Mode: wire.Mode, Status: wire.Status, PaymentStatus: wire.PaymentStatus, Customer: string(wire.Customer),
		Email: wire.CustomerDetails.Email, Name: wire.CustomerDetails.Name, ClientReference: wire.ClientReference,
		PaymentIntent: payment.ID, SetupIntent: string(wire.SetupIntent), Invoice: string(wire.Invoice), Subscription: string(wire.Subscription),
		Invoices: wire.InvoiceCreation.Enabled, Metadata: wire.Metadata, PaymentMetadata: payment.Metadata, Payment: whole, URL: wire.URL, Created: unixTime(wire.Created),
	}, nil
}

// decodePaymentOf reads the payment of an object: its id and metadata, and all of it where it is expanded.
func decodePaymentOf(raw json.RawMessage) (p described, whole *PaymentIntent, err error) {
	if len(raw) == 0 {
		return p, nil, nil
	}
	if err := json.Unmarshal(raw, &p); err != nil || !isObject(raw) {
		return p, nil, err
	}
	pi, err := decodePaymentIntent(raw)
	return p, &pi, err
}

func decodeInvoice(raw json.RawMessage) (Invoice, error) {
	var wire struct {
		ID            string            `json:"id"`
		Customer      ref               `json:"customer"`
		Status        string            `json:"status"`
		Subscription  ref               `json:"subscription"`
		Reason        string            `json:"billing_reason"`
		PaymentIntent json.RawMessage   `json:"payment_intent"`
		Metadata      map[string]string `json:"metadata"`
		Currency      string            `json:"currency"`
		Subtotal      int64             `json:"subtotal"`
		Total         int64             `json:"total"`
		AmountDue     int64             `json:"amount_due"`
		AmountPaid    int64             `json:"amount_paid"`
		Starting      int64             `json:"starting_balance"`
		Ending        int64             `json:"ending_balance"`
		Elsewhere     bool              `json:"paid_out_of_band"`
		Credited      int64             `json:"post_payment_credit_notes_amount"`
		URL           string            `json:"hosted_invoice_url"`
		Created       int64             `json:"created"`
		Transitions   struct {
			PaidAt int64 `json:"paid_at"`
		} `json:"status_transitions"`
	}
	if err := decode(raw, "invoice", &wire, &wire.ID); err != nil {
		return Invoice{}, err
	}
	payment, whole, err := decodePaymentOf(wire.PaymentIntent)
	if err != nil {
		return Invoice{}, err
	}
	return Invoice{
		ID: wire.ID, Customer: string(wire.Customer), Status: wire.Status, Subscription: string(wire.Subscription), Reason: wire.Reason,
		PaymentIntent: payment.ID, PaidAt: unixTime(wire.Transitions.PaidAt), Metadata: wire.Metadata,
		PaymentMetadata: payment.Metadata, Currency: wire.Currency, Subtotal: wire.Subtotal, Total: wire.Total, AmountDue: wire.AmountDue, AmountPaid: wire.AmountPaid,
		StartingBalance: wire.Starting, EndingBalance: wire.Ending, PaidOutOfBand: wire.Elsewhere, Credited: wire.Credited, URL: wire.URL, Payment: whole,
		Created: unixTime(wire.Created),
	}, nil
}

// linePrice is the price of a line with its product expanded. A product that was deleted has no metadata any more.
type linePrice struct {
	ID            string            `json:"id"`
	Currency      string            `json:"currency"`
	UnitAmount    *int64            `json:"unit_amount"`
	BillingScheme string            `json:"billing_scheme"`
	Transform     json.RawMessage   `json:"transform_quantity"`
	Metadata      map[string]string `json:"metadata"`
	Product       described         `json:"product"`
}

// onto notes on a line what its price says.
func (p *linePrice) onto(l *SaleLine) {
	if p == nil {
		return
	}
	l.Price, l.PriceMetadata, l.ProductMetadata = p.ID, p.Metadata, p.Product.Metadata
	if p.BillingScheme == "per_unit" && !isObject(p.Transform) && p.Currency == l.Currency {
		l.UnitAmount = p.UnitAmount
	}
}

func decodeInvoiceLine(raw json.RawMessage) (SaleLine, error) {
	var wire struct {
		ID               string     `json:"id"`
		Amount           int64      `json:"amount"`
		Currency         string     `json:"currency"`
		Quantity         *int64     `json:"quantity"`
		Price            *linePrice `json:"price"`
		Proration        bool       `json:"proration"`
		Subscription     ref        `json:"subscription"`
		SubscriptionItem ref        `json:"subscription_item"`
		Discounts        []struct {
			Amount int64 `json:"amount"`
		} `json:"discount_amounts"`
		Taxes []struct {
			Amount    int64 `json:"amount"`
			Inclusive bool  `json:"inclusive"`
		} `json:"tax_amounts"`
		Period struct {
			Start int64 `json:"start"`
			End   int64 `json:"end"`
		} `json:"period"`
	}
	if err := decode(raw, "invoice line", &wire, &wire.ID); err != nil {
		return SaleLine{}, err
	}
	l := SaleLine{
		ID: wire.ID, Currency: wire.Currency, Quantity: 1, Amount: wire.Amount, Net: wire.Amount, Proration: wire.Proration,
		Subscription: string(wire.Subscription), SubscriptionItem: string(wire.SubscriptionItem),
		Start: unixTime(wire.Period.Start), End: unixTime(wire.Period.End), Discounted: len(wire.Discounts) > 0,
	}
	if wire.Quantity != nil {
		l.Quantity = *wire.Quantity
	}
	for _, d := range wire.Discounts {
		l.Net -= d.Amount
	}
	for _, t := range wire.Taxes {
		if t.Inclusive { // an exclusive tax is not in the amount
			l.Net -= t.Amount
		}
	}
	wire.Price.onto(&l)
	return l, nil
}

func decodeCheckoutLine(raw json.RawMessage) (SaleLine, error) {
	var wire struct {
		ID       string     `json:"id"`
		Subtotal int64      `json:"amount_subtotal"`
		Discount int64      `json:"amount_discount"`
		Tax      int64      `json:"amount_tax"`
		Total    int64      `json:"amount_total"`
		Currency string     `json:"currency"`
		Quantity *int64     `json:"quantity"`
		Price    *linePrice `json:"price"`
	}
	if err := decode(raw, "checkout line", &wire, &wire.ID); err != nil {
		return SaleLine{}, err
	}
	l := SaleLine{ID: wire.ID, Currency: wire.Currency, Quantity: 1, Amount: wire.Subtotal, Net: wire.Total - wire.Tax, Discounted: wire.Discount > 0}
	if wire.Quantity != nil {
		l.Quantity = *wire.Quantity
	}
	wire.Price.onto(&l)
	return l, nil
}
