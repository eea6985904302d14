package stripeutil

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/stripe/stripe-go/v76"
)

// Customer is what the gateway needs of a Stripe customer.
type Customer struct {
	ID, Email, Name string
	// Currency is empty until Stripe fixes it with the first balance transaction or invoice; after that it is final.
	Currency string
	// Balance is in minor units with Stripe's sign: negative is credit the customer has, positive is debt that the
	// next invoice adds.
	Balance int64
	// DefaultPaymentMethod is invoice_settings.default_payment_method, or the older default_source where that is
	// unset. A PaymentIntent does not fall back to it by itself.
	DefaultPaymentMethod string
	// Deleted customers can still be read, but hold nothing beyond their id and take no writes.
	Deleted  bool
	Livemode bool
	Metadata map[string]string
}

// CustomerParams are the parameters of CreateCustomer. Empty Email or Name are not sent.
type CustomerParams struct {
	Email, Name    string
	Metadata       map[string]string
	IdempotencyKey string
}

// CreateCustomer makes a customer.
func (c *Client) CreateCustomer(ctx context.Context, p CustomerParams) (Customer, error) {
	raw, err := c.post(ctx, "/v1/customers", p.IdempotencyKey, &stripe.CustomerParams{
		Email:    optional(p.Email),
		Name:     optional(p.Name),
		Metadata: p.Metadata,
	})
	return read(raw, err, decodeCustomer)
}

// Customer reads a customer. A deleted one is no error: it comes back with Deleted set and little else.
func (c *Client) Customer(ctx context.Context, id string) (Customer, error) {
	if err := checkID("customer", id); err != nil {
		return Customer{}, err
	}
	raw, err := c.get(ctx, stripe.FormatURLPath("/v1/customers/%s", id), nil)
	return read(raw, err, decodeCustomer)
}

// Method is a saved payment method: a card, or a bank account that can be debited.
type Method struct {
	ID   string // "" is none
	Type string // Stripe's word: card, us_bank_account, sepa_debit, …; "" is not known
}

// UnmarshalJSON reads a method as it stands, or the id alone.
func (m *Method) UnmarshalJSON(b []byte) error {
	if !isObject(b) {
		*m = Method{}
		return json.Unmarshal(b, &m.ID)
	}
	var object struct {
		ID   string `json:"id"`
		Type string `json:"type"`
	}
	err := json.Unmarshal(b, &object)
	*m = Method{ID: object.ID, Type: object.Type}
	return err
}

// DefaultMethod reads a customer's default payment method, in one call: the one with no ID where there is none, or the
// customer was deleted.
func (c *Client) DefaultMethod(ctx context.Context, customer string) (Method, error) {
	if err := checkID("customer", customer); err != nil {
		return Method{}, err
	}
	raw, err := c.get(ctx, stripe.FormatURLPath("/v1/customers/%s", customer), &stripe.CustomerParams{
		Expand: stripe.StringSlice([]string{"invoice_settings.default_payment_method"})})
	return read(raw, err, func(raw json.RawMessage) (Method, error) {
		var wire struct {
			ID              string `json:"id"`
			DefaultSource   ref    `json:"default_source"`
			InvoiceSettings struct {
				DefaultPaymentMethod Method `json:"default_payment_method"`
			} `json:"invoice_settings"`
		}
		if err := decode(raw, "customer", &wire, &wire.ID); err != nil {
			return Method{}, err
		}
		if pm := wire.InvoiceSettings.DefaultPaymentMethod; pm.ID != "" {
			return pm, nil
		}
		return Method{ID: string(wire.DefaultSource), Type: "card"}, nil
	})
}

// PaymentMethod reads a saved payment method. One of the older kinds, which are not payment methods to Stripe, is taken
// for the card that it is; of one that is not there nothing is known, and whoever charges it is told so.
func (c *Client) PaymentMethod(ctx context.Context, id string) (Method, error) {
	if err := checkID("payment method", id); err != nil {
		return Method{}, err
	}
	if !strings.HasPrefix(id, "pm_") {
		return Method{ID: id, Type: "card"}, nil
	}
	raw, err := c.get(ctx, stripe.FormatURLPath("/v1/payment_methods/%s", id), nil)
	if errors.Is(err, ErrNotFound) {
		return Method{ID: id}, nil
	}
	return read(raw, err, func(raw json.RawMessage) (m Method, err error) {
		err = decode(raw, "payment method", &m, &m.ID)
		return m, err
	})
}

// SetDefaultPaymentMethod makes pm, which must be attached to the customer, the one that charges and invoices use.
func (c *Client) SetDefaultPaymentMethod(ctx context.Context, customer, pm, idempotencyKey string) (Customer, error) {
	if err := checkID("customer", customer); err != nil {
		return Customer{}, err
	}
	if err := checkID("payment method", pm); err != nil {
		return Customer{}, err
	}
	raw, err := c.post(ctx, stripe.FormatURLPath("/v1/customers/%s", customer), idempotencyKey, &stripe.CustomerParams{
		InvoiceSettings: &stripe.CustomerInvoiceSettingsParams{DefaultPaymentMethod: &pm},
	})
	return read(raw, err, decodeCustomer)
}

// AttachPaymentMethod saves pm on the customer and returns its id, which differs from pm for Stripe's test methods
// (pm_card_visa becomes a method of its own). A card refused here is ErrDeclined.
func (c *Client) AttachPaymentMethod(ctx context.Context, pm, customer, idempotencyKey string) (id string, err error) {
	if err := checkID("payment method", pm); err != nil {
		return "", err
	}
	if err := checkID("customer", customer); err != nil {
		return "", err
	}
	raw, err := c.post(ctx, stripe.FormatURLPath("/v1/payment_methods/%s/attach", pm), idempotencyKey,
		&stripe.PaymentMethodAttachParams{Customer: &customer})
	return read(raw, err, func(raw json.RawMessage) (string, error) {
		var wire struct {
			ID string `json:"id"`
		}
		err := decode(raw, "payment method", &wire, &wire.ID)
		return wire.ID, err
	})
}

func decodeCustomer(raw json.RawMessage) (Customer, error) {
	var wire struct {
		ID              string            `json:"id"`
		Email           string            `json:"email"`
		Name            string            `json:"name"`
		Currency        string            `json:"currency"`
		Balance         int64             `json:"balance"`
		Deleted         bool              `json:"deleted"`
		Livemode        bool              `json:"livemode"`
		Metadata        map[string]string `json:"metadata"`
		DefaultSource   ref               `json:"default_source"`
		InvoiceSettings struct {
			DefaultPaymentMethod ref `json:"default_payment_method"`
		} `json:"invoice_settings"`
	}
	if err := decode(raw, "customer", &wire, &wire.ID); err != nil {
		return Customer{}, err
	}
	method := wire.InvoiceSettings.DefaultPaymentMethod
	if method == "" {
		method = wire.DefaultSource
	}
	return Customer{
		ID: wire.ID, Email: wire.Email, Name: wire.Name, Currency: wire.Currency, Balance: wire.Balance,
		DefaultPaymentMethod: string(method), Deleted: wire.Deleted, Livemode: wire.Livemode, Metadata: wire.Metadata,
	}, nil
}

// optional leaves an empty parameter out of the request; Stripe reads a sent empty string as "unset this".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
