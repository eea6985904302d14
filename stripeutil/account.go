package stripeutil

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// CheckSecretKey says what is wrong with the shape of a key, without repeating it.
func CheckSecretKey(key string) error {
	_, err := parseKey(key)
	return err
}

// KeyKind is the part of a key that may be shown: sk_live_….
func KeyKind(key string) string { return keyKind(key) }

// Restricted reports whether the key has only the rights that somebody gave it.
func (c *Client) Restricted() bool { return strings.HasPrefix(c.key, "rk_") }

// Right is one permission of a restricted key, as the dashboard's list of them names it.
type Right struct {
	Name   string
	Access string // "Read" or "Write": what the gateway needs
	// SetupOnly marks what only `lockstep stripe setup` and `lockstep doctor` use: a running gateway does without.
	SetupOnly bool

	path string // a list that reading it opens
}

// String is the right as one would write it down: "Customers: Write".
func (r Right) String() string { return r.Name + ": " + r.Access }

// Rights are what a restricted key of the gateway needs.
func Rights() []Right {
	return []Right{
		{Name: "Customers", Access: "Write", path: "/v1/customers"},
		{Name: "PaymentIntents", Access: "Write", path: "/v1/payment_intents"},
		{Name: "PaymentMethods", Access: "Write", path: "/v1/payment_methods"},
		{Name: "SetupIntents", Access: "Write", path: "/v1/setup_intents"},
		{Name: "Invoices", Access: "Write", path: "/v1/invoices"},
		{Name: "Credit notes", Access: "Write", path: "/v1/credit_notes"},
		{Name: "Checkout Sessions", Access: "Write", path: "/v1/checkout/sessions"},
		{Name: "Customer portal", Access: "Write", path: "/v1/billing_portal/configurations"},
		{Name: "Events", Access: "Read", path: "/v1/events"},
		{Name: "Charges", Access: "Read", path: "/v1/charges"},
		{Name: "Refunds", Access: "Read", path: "/v1/refunds"},
		{Name: "Disputes", Access: "Read", path: "/v1/disputes"},
		{Name: "Products", Access: "Read", path: "/v1/products"},
		{Name: "Prices", Access: "Read", path: "/v1/prices"},
		{Name: "Webhook Endpoints", Access: "Write", SetupOnly: true, path: "/v1/webhook_endpoints"},
	}
}

// MayRead asks for one object of what a right is about. ErrAuth says that the key has not got it (or is none at all, see
// KeyRefused); what Stripe lets in and then finds fault with has been let in.
func (c *Client) MayRead(ctx context.Context, r Right) error {
	_, err := c.get(ctx, r.path, &stripe.ListParams{Limit: stripe.Int64(1)})
	if errors.Is(err, ErrInvalid) || errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// KeyRefused reports whether Stripe did not take the key at all, in contrast to one that lacks a right.
func KeyRefused(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == ErrAuth && e.HTTPStatus == http.StatusUnauthorized
}

var rightName = regexp.MustCompile(`\brak_[a-z_]+\b`)

// MissingRight is Stripe's own name of the right that an answer said to be missing, such as rak_charge_read; "" where
// it named none.
func MissingRight(err error) string {
	var e *Error
	if !errors.As(err, &e) || e.Kind != ErrAuth {
		return ""
	}
	return rightName.FindString(e.Message)
}

// ClockSkew is how far Stripe's clock is ahead of ours (negative: behind), as its Date header tells. The header's
// seconds and the time that the call took are no skew: what they can explain is 0.
func (c *Client) ClockSkew(ctx context.Context) (time.Duration, error) {
	t := &trace{method: http.MethodGet}
	start := time.Now()
	_, err := c.traced(ctx, t, Rights()[0].path, "", &stripe.ListParams{Limit: stripe.Int64(1)})
	end := time.Now()
	if t.status == 0 {
		return 0, err
	}
	at, err := http.ParseTime(t.date)
	if err != nil {
		return 0, unreadable("the answer has no readable Date")
	}
	switch {
	case at.After(end):
		return at.Sub(end), nil
	case at.Add(time.Second).Before(start): // Date is cut off to the second
		return at.Add(time.Second).Sub(start), nil
	}
	return 0, nil
}

// WebhookEndpoint is where Stripe sends the account's events.
type WebhookEndpoint struct {
	ID, URL    string
	APIVersion string // the one its events are rendered in, for ever; "" follows the account's
	Enabled    bool
	EventTypes []string
	Secret     string // whsec_…, in the answer to a creation alone
}

// Receives reports whether events of the type are sent to it.
func (e WebhookEndpoint) Receives(eventType string) bool {
	return slices.Contains(e.EventTypes, "*") || slices.Contains(e.EventTypes, eventType)
}

// WebhookEndpoints lists the account's endpoints of the key's mode, newest first. Stripe allows 16.
func (c *Client) WebhookEndpoints(ctx context.Context) (all []WebhookEndpoint, err error) {
	list := &pager{client: c, path: "/v1/webhook_endpoints", params: func(p stripe.ListParams) any {
		return &stripe.WebhookEndpointListParams{ListParams: p}
	}}
	err = each(ctx, list, decodeEndpoint, func(e WebhookEndpoint) bool { all = append(all, e); return true })
	return all, err
}

// CreateWebhookEndpoint makes an endpoint whose events are rendered in this package's API version. Its answer alone has
// the secret.
func (c *Client) CreateWebhookEndpoint(ctx context.Context, url string, types []string, idempotencyKey string) (WebhookEndpoint, error) {
	raw, err := c.post(ctx, "/v1/webhook_endpoints", idempotencyKey, &stripe.WebhookEndpointParams{
		URL:           &url,
		EnabledEvents: stripe.StringSlice(types),
		APIVersion:    stripe.String(c.APIVersion()),
		Description:   stripe.String("Lockstep"),
	})
	return read(raw, err, decodeEndpoint)
}

// UpdateWebhookEndpoint has an endpoint receive exactly these types, and enables it. Its API version can't be changed.
func (c *Client) UpdateWebhookEndpoint(ctx context.Context, id string, types []string, idempotencyKey string) (WebhookEndpoint, error) {
	if err := checkID("webhook endpoint", id); err != nil {
		return WebhookEndpoint{}, err
	}
	raw, err := c.post(ctx, stripe.FormatURLPath("/v1/webhook_endpoints/%s", id), idempotencyKey, &stripe.WebhookEndpointParams{
		EnabledEvents: stripe.StringSlice(types),
		Disabled:      stripe.Bool(false),
	})
	return read(raw, err, decodeEndpoint)
}

func decodeEndpoint(raw json.RawMessage) (WebhookEndpoint, error) {
	var wire struct {
		ID            string   `json:"id"`
		URL           string   `json:"url"`
		APIVersion    string   `json:"api_version"`
		Status        string   `json:"status"`
		EnabledEvents []string `json:"enabled_events"`
		Secret        string   `json:"secret"`
	}
	if err := decode(raw, "webhook endpoint", &wire, &wire.ID); err != nil {
		return WebhookEndpoint{}, err
	}
	return WebhookEndpoint{ID: wire.ID, URL: wire.URL, APIVersion: wire.APIVersion, Enabled: wire.Status == "enabled",
		EventTypes: wire.EnabledEvents, Secret: wire.Secret}, nil
}

// PortalSaved reports whether the account has a billing portal to open: a default configuration that is active.
func (c *Client) PortalSaved(ctx context.Context) (bool, error) {
	list := &pager{client: c, path: "/v1/billing_portal/configurations", params: func(p stripe.ListParams) any {
		return &stripe.BillingPortalConfigurationListParams{ListParams: p, Active: stripe.Bool(true), IsDefault: stripe.Bool(true)}
	}}
	_, ok, err := list.next(ctx)
	return ok, err
}
