package stripeutil

import (
	"context"
	"encoding/json"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// PageSession is one of Stripe's own pages, opened for one customer for a while.
type PageSession struct {
	ID, URL   string
	ExpiresAt time.Time // zero where Stripe does not say
}

// SetupSessionParams are the parameters of CreateSetupSession.
type SetupSessionParams struct {
	Customer              string
	SuccessURL, CancelURL string // CancelURL may be empty
	Metadata              map[string]string
	IdempotencyKey        string
}

// CreateSetupSession opens a page on which the customer saves a card without paying anything. Stripe attaches the card
// when they are done and says so with checkout.session.completed; it does not make it the default.
func (c *Client) CreateSetupSession(ctx context.Context, p SetupSessionParams) (PageSession, error) {
	if err := checkID("customer", p.Customer); err != nil {
		return PageSession{}, err
	}
	raw, err := c.post(ctx, "/v1/checkout/sessions", p.IdempotencyKey, &stripe.CheckoutSessionParams{
		Mode:     stripe.String("setup"),
		Customer: &p.Customer,
		// With the dashboard's methods Stripe wants a currency, and offers some that can't be charged off-session.
		PaymentMethodTypes: []*string{stripe.String("card")},
		SuccessURL:         &p.SuccessURL,
		CancelURL:          optional(p.CancelURL),
		Metadata:           p.Metadata,
	})
	return read(raw, err, decodePageSession)
}

// PaymentSessionParams are the parameters of CreatePaymentSession. Resent with the same key they must be the same.
type PaymentSessionParams struct {
	Customer       string
	Amount         int64 // minor units, positive
	Currency       string
	Name           string // of what is bought, as the page shows it
	SuccessURL     string
	Metadata       map[string]string // of the session, and of its payment
	IdempotencyKey string
}

// CreatePaymentSession opens a page on which the customer pays once with a card, which Stripe saves for payments
// without the customer present. The page lives for a day. There is no payment before the customer pays.
func (c *Client) CreatePaymentSession(ctx context.Context, p PaymentSessionParams) (PageSession, error) {
	if err := checkID("customer", p.Customer); err != nil {
		return PageSession{}, err
	}
	if p.Amount <= 0 {
		return PageSession{}, refuse("a charge of %d is not positive", p.Amount)
	}
	raw, err := c.post(ctx, "/v1/checkout/sessions", p.IdempotencyKey, &stripe.CheckoutSessionParams{
		Mode:     stripe.String("payment"),
		Customer: &p.Customer,
		// Only a card is charged later without the customer.
		PaymentMethodTypes: []*string{stripe.String("card")},
		SuccessURL:         &p.SuccessURL,
		Metadata:           p.Metadata,
		PaymentIntentData: &stripe.CheckoutSessionPaymentIntentDataParams{
			Metadata: p.Metadata, SetupFutureUsage: stripe.String("off_session"), Description: optional(p.Name)},
		LineItems: []*stripe.CheckoutSessionLineItemParams{{Quantity: stripe.Int64(1), PriceData: &stripe.CheckoutSessionLineItemPriceDataParams{
			Currency: &p.Currency, UnitAmount: &p.Amount,
			ProductData: &stripe.CheckoutSessionLineItemPriceDataProductDataParams{Name: &p.Name}}}},
	})
	return read(raw, err, decodePageSession)
}

// ExpireCheckoutSession closes a page, so that nobody can pay on it any more. Stripe refuses with ErrInvalid when it
// was completed or has expired already.
func (c *Client) ExpireCheckoutSession(ctx context.Context, id, idempotencyKey string) error {
	if err := checkID("checkout session", id); err != nil {
		return err
	}
	raw, err := c.post(ctx, stripe.FormatURLPath("/v1/checkout/sessions/%s/expire", id), idempotencyKey, nil)
	_, err = read(raw, err, decodePageSession)
	return err
}

// FindCheckoutSession looks through the customer's sessions made at since or later, newest first, for one that match
// accepts: that of a call whose answer was lost.
func (c *Client) FindCheckoutSession(
	ctx context.Context, customer string, since time.Time, match func(CheckoutSession) bool,
) (cs CheckoutSession, found bool, err error) {
	if err := checkID("customer", customer); err != nil {
		return CheckoutSession{}, false, err
	}
	list := pager{client: c, path: "/v1/checkout/sessions", params: func(p stripe.ListParams) any {
		return &stripe.CheckoutSessionListParams{ListParams: p, Customer: &customer}
	}}
	err = each(ctx, &list, decodeCheckoutSession, func(s CheckoutSession) bool {
		if found = match(s); found {
			cs = s
		}
		return !found && !s.Created.Before(since)
	})
	return cs, found && err == nil, err
}

// CreateBillingPortalSession opens Stripe's billing portal for the customer. Without a configuration saved in the
// dashboard Stripe refuses with ErrInvalid.
func (c *Client) CreateBillingPortalSession(ctx context.Context, customer, returnURL, idempotencyKey string) (PageSession, error) {
	if err := checkID("customer", customer); err != nil {
		return PageSession{}, err
	}
	raw, err := c.post(ctx, "/v1/billing_portal/sessions", idempotencyKey, &stripe.BillingPortalSessionParams{
		Customer: &customer, ReturnURL: optional(returnURL)})
	return read(raw, err, decodePageSession)
}

func decodePageSession(raw json.RawMessage) (PageSession, error) {
	var wire struct {
		ID        string `json:"id"`
		URL       string `json:"url"`
		ExpiresAt int64  `json:"expires_at"`
	}
	if err := decode(raw, "session", &wire, &wire.ID); err != nil {
		return PageSession{}, err
	}
	return PageSession{ID: wire.ID, URL: wire.URL, ExpiresAt: unixTime(wire.ExpiresAt)}, nil
}

// SetupIntent is a card on its way to being saved.
type SetupIntent struct {
	ID, Customer, PaymentMethod, Status string
}

// SetupIntent reads one.
func (c *Client) SetupIntent(ctx context.Context, id string) (SetupIntent, error) {
	if err := checkID("setup intent", id); err != nil {
		return SetupIntent{}, err
	}
	raw, err := c.get(ctx, stripe.FormatURLPath("/v1/setup_intents/%s", id), nil)
	return read(raw, err, func(raw json.RawMessage) (SetupIntent, error) {
		var wire struct {
			ID            string `json:"id"`
			Customer      ref    `json:"customer"`
			PaymentMethod ref    `json:"payment_method"`
			Status        string `json:"status"`
		}
		err := decode(raw, "setup intent", &wire, &wire.ID)
		return SetupIntent{ID: wire.ID, Customer: string(wire.Customer), PaymentMethod: string(wire.PaymentMethod), Status: wire.Status}, err
	})
}
