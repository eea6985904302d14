package stripeutil

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// Lists of the whole account, a page of up to 100 at a time, for those who compare everything. A page is one read.

// Span is what a list is of: things made at Since or later (the zero time: ever), newest first, of one customer where
// one is named.
type Span struct {
	Customer string
	Since    time.Time
}

// Page is a part of a list. Next is what to go on after, "" at the end.
type Page[T any] struct {
	Items []T
	Next  string
}

// CustomerPage lists customers, without those that were deleted. The span has no say in which.
func (c *Client) CustomerPage(ctx context.Context, after string) (Page[Customer], error) {
	return page(ctx, c, "/v1/customers", after, decodeCustomer, func(p stripe.ListParams) any { return &stripe.CustomerListParams{ListParams: p} })
}

// PaymentPage lists payments, whatever became of them, each with how much of it was refunded and whether it was ever
// disputed.
func (c *Client) PaymentPage(ctx context.Context, s Span, after string) (Page[PaymentIntent], error) {
	return page(ctx, c, "/v1/payment_intents", after, decodePaymentIntent, func(p stripe.ListParams) any {
		return &stripe.PaymentIntentListParams{ListParams: p, Customer: optional(s.Customer), CreatedRange: from(s.Since),
			Expand: stripe.StringSlice([]string{"data.latest_charge"})}
	})
}

// InvoicePage lists invoices that were paid.
func (c *Client) InvoicePage(ctx context.Context, s Span, after string) (Page[Invoice], error) {
	return page(ctx, c, "/v1/invoices", after, decodeInvoice, func(p stripe.ListParams) any {
		return &stripe.InvoiceListParams{ListParams: p, Customer: optional(s.Customer), CreatedRange: from(s.Since), Status: stripe.String("paid")}
	})
}

// SessionPage lists checkout sessions that were completed. It ends where they are older than the span.
func (c *Client) SessionPage(ctx context.Context, s Span, after string) (Page[CheckoutSession], error) {
	return page(ctx, c, "/v1/checkout/sessions", after, decodeCheckoutSession, func(p stripe.ListParams) any {
		return &stripe.CheckoutSessionListParams{ListParams: p, Customer: optional(s.Customer), CreatedRange: from(s.Since), Status: stripe.String("complete")}
	})
}

// RefundPage lists refunds of everybody's payments.
func (c *Client) RefundPage(ctx context.Context, s Span, after string) (Page[Refund], error) {
	return page(ctx, c, "/v1/refunds", after, decodeRefund, func(p stripe.ListParams) any {
		return &stripe.RefundListParams{ListParams: p, CreatedRange: from(s.Since)}
	})
}

// DisputePage lists disputes of everybody's payments.
func (c *Client) DisputePage(ctx context.Context, s Span, after string) (Page[Dispute], error) {
	return page(ctx, c, "/v1/disputes", after, decodeDispute, func(p stripe.ListParams) any {
		return &stripe.DisputeListParams{ListParams: p, CreatedRange: from(s.Since)}
	})
}

// page reads one page of a list.
func page[T any](ctx context.Context, c *Client, path, after string, decode func(json.RawMessage) (T, error), params func(stripe.ListParams) any) (Page[T], error) {
	list := &pager{client: c, path: path, params: params, after: after}
	if err := list.fetch(ctx); err != nil {
		return Page[T]{}, err
	}
	p := Page[T]{Items: make([]T, len(list.page))}
	for i, raw := range list.page {
		var err error
		if p.Items[i], err = read(raw, nil, decode); err != nil {
			return Page[T]{}, err
		}
	}
	if len(list.page) > 0 && !list.last {
		id, err := objectID(list.page[len(list.page)-1])
		if err != nil || id == "" || id == after {
			return Page[T]{}, unreadable("a list of %s does not advance past %q", path, after)
		}
		p.Next = id
	}
	return p, nil
}

type readsKey struct{}

// CountReads has every read that is made under the context counted, each try of one by itself: Stripe allows so many for
// each payment (docs.stripe.com/rate-limits).
func CountReads(ctx context.Context) (context.Context, *atomic.Int64) {
	n := new(atomic.Int64)
	return context.WithValue(ctx, readsKey{}, n), n
}

// countReads adds the tries of a read to who counts them.
func countReads(ctx context.Context, tries int) {
	if n, ok := ctx.Value(readsKey{}).(*atomic.Int64); ok {
		n.Add(int64(tries))
	}
}
