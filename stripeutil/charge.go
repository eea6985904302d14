package stripeutil

import (
	"context"
	"encoding/json"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// PaymentIntent is one payment at Stripe, whatever became of it.
type PaymentIntent struct {
	ID, Customer string
	// Status is Stripe's word: succeeded, processing, canceled, requires_payment_method (which is also where a
	// declined payment ends), requires_action, requires_confirmation or requires_capture.
	Status, Currency string
	// PaymentMethod is empty after a decline: Stripe takes the method off the payment.
	PaymentMethod string
	// Invoice is set when the payment belongs to an invoice. API versions of 2025 and later no longer render it.
	Invoice string
	// ClientSecret lets the customer's browser finish the payment. Never log it.
	ClientSecret string
	LatestCharge string
	// Amount was asked for, AmountReceived has arrived; both in minor units.
	Amount, AmountReceived int64
	// Refunded, in minor units, Disputed, at any time, and ChargedAt are of the latest charge where that was read with it.
	Refunded  int64
	Disputed  bool
	ChargedAt time.Time
	Metadata  map[string]string
	Failure   *Failure // of the last attempt, nil when that did not fail
	Created   time.Time
}

// Failure says why a payment was refused.
type Failure struct {
	// Code is Stripe's (card_declined, expired_card, authentication_required, …), DeclineCode the issuer's reason.
	Code, DeclineCode string
	// Message is written for the customer.
	Message string
	// AdviceCode is confirm_card_data, do_not_try_again or try_again_later where the network gave advice.
	AdviceCode string
}

// ChargeParams are the parameters of ChargeSavedMethod. Resent with the same key they must be the same.
type ChargeParams struct {
	Customer, PaymentMethod string
	MethodType              string // Stripe's word, such as us_bank_account; "" is card
	Amount                  int64  // minor units, positive
	Currency, Description   string
	Metadata                map[string]string
	IdempotencyKey          string
}

// ChargeSavedMethod charges a card or a bank account that the customer saved, without the customer present. The payment
// of a card comes back succeeded; that of a bank account is processing for days, and only then succeeds or fails. A
// refusal by the bank, a demand for authentication included, is ErrDeclined with the Failure and the PaymentIntent, and
// is final for this key.
func (c *Client) ChargeSavedMethod(ctx context.Context, p ChargeParams) (PaymentIntent, error) {
	if err := checkID("customer", p.Customer); err != nil {
		return PaymentIntent{}, err
	}
	if err := checkID("payment method", p.PaymentMethod); err != nil {
		return PaymentIntent{}, err
	}
	if p.Amount <= 0 {
		return PaymentIntent{}, refuse("a charge of %d is not positive", p.Amount)
	}
	raw, err := c.post(ctx, "/v1/payment_intents", p.IdempotencyKey, &stripe.PaymentIntentParams{
		Customer:      &p.Customer,
		PaymentMethod: &p.PaymentMethod,
		// Without it Stripe allows every method the dashboard has on, among them ones that redirect, and then
		// refuses to confirm without a return_url.
		PaymentMethodTypes: methodTypes(p.MethodType),
		Amount:             &p.Amount,
		Currency:           &p.Currency,
		Description:        optional(p.Description),
		Metadata:           p.Metadata,
		OffSession:         stripe.Bool(true),
		Confirm:            stripe.Bool(true),
	})
	return read(raw, err, decodePaymentIntent)
}

// methodTypes is the one type that a payment allows. Parameters that were written down before there was a type were of
// a card.
func methodTypes(kind string) []*string {
	if kind == "" {
		kind = "card"
	}
	return []*string{&kind}
}

// PaymentIntent reads a payment.
func (c *Client) PaymentIntent(ctx context.Context, id string) (PaymentIntent, error) {
	if err := checkID("payment", id); err != nil {
		return PaymentIntent{}, err
	}
	raw, err := c.get(ctx, stripe.FormatURLPath("/v1/payment_intents/%s", id),
		&stripe.PaymentIntentParams{Expand: stripe.StringSlice([]string{"latest_charge"})})
	return read(raw, err, decodePaymentIntent)
}

// CancelPaymentIntent closes a payment that has not succeeded, so that nobody can finish it later. Stripe refuses
// with ErrInvalid (code payment_intent_unexpected_state) when it already succeeded, is processing or was canceled.
func (c *Client) CancelPaymentIntent(ctx context.Context, id, idempotencyKey string) (PaymentIntent, error) {
	if err := checkID("payment", id); err != nil {
		return PaymentIntent{}, err
	}
	raw, err := c.post(ctx, stripe.FormatURLPath("/v1/payment_intents/%s/cancel", id), idempotencyKey, nil)
	return read(raw, err, decodePaymentIntent)
}

// FindPaymentIntent looks through the customer's payments made at since or later, newest first, for one that match
// accepts. It finds the payment of a call whose answer was lost: match on the metadata that call carried. Allow
// for clock skew in since. A zero since looks through all of them.
func (c *Client) FindPaymentIntent(
	ctx context.Context, customer string, since time.Time, match func(PaymentIntent) bool,
) (PaymentIntent, bool, error) {
	if err := checkID("customer", customer); err != nil {
		return PaymentIntent{}, false, err
	}
	list := pager{client: c, path: "/v1/payment_intents", params: func(p stripe.ListParams) any {
		return &stripe.PaymentIntentListParams{ListParams: p, Customer: &customer, CreatedRange: from(since)}
	}}
	for {
		raw, ok, err := list.next(ctx)
		if err != nil || !ok {
			return PaymentIntent{}, false, err
		}
		pi, err := read(raw, nil, decodePaymentIntent)
		if err != nil {
			return PaymentIntent{}, false, err
		}
		if match(pi) {
			return pi, true, nil
		}
	}
}

// from is the filter created[gte], or none for the zero time.
func from(since time.Time) *stripe.RangeQueryParams {
	if since.IsZero() {
		return nil
	}
	return &stripe.RangeQueryParams{GreaterThanOrEqual: since.Unix()}
}

func decodePaymentIntent(raw json.RawMessage) (PaymentIntent, error) {
	var wire struct {
		ID             string            `json:"id"`
		Customer       ref               `json:"customer"`
		Status         string            `json:"status"`
		Currency       string            `json:"currency"`
		PaymentMethod  ref               `json:"payment_method"`
		Invoice        ref               `json:"invoice"`
		ClientSecret   string            `json:"client_secret"`
		LatestCharge   latestCharge      `json:"latest_charge"`
		Amount         int64             `json:"amount"`
		AmountReceived int64             `json:"amount_received"`
		Metadata       map[string]string `json:"metadata"`
		Created        int64             `json:"created"`
		LastError      *struct {
			Code        string `json:"code"`
			DeclineCode string `json:"decline_code"`
			Message     string `json:"message"`
			AdviceCode  string `json:"advice_code"`
		} `json:"last_payment_error"`
	}
	if err := decode(raw, "payment", &wire, &wire.ID); err != nil {
		return PaymentIntent{}, err
	}
	pi := PaymentIntent{
		ID: wire.ID, Customer: string(wire.Customer), Status: wire.Status, Currency: wire.Currency,
		PaymentMethod: string(wire.PaymentMethod), Invoice: string(wire.Invoice), ClientSecret: wire.ClientSecret,
		LatestCharge: wire.LatestCharge.ID, Refunded: wire.LatestCharge.Refunded, Disputed: wire.LatestCharge.Disputed, ChargedAt: unixTime(wire.LatestCharge.Created),
		Amount: wire.Amount, AmountReceived: wire.AmountReceived,
		Metadata: wire.Metadata, Created: unixTime(wire.Created),
	}
	if f := wire.LastError; f != nil {
		pi.Failure = &Failure{Code: f.Code, DeclineCode: f.DeclineCode, Message: f.Message, AdviceCode: f.AdviceCode}
	}
	return pi, nil
}

// latestCharge is a charge as an id, or expanded with what went back of it.
type latestCharge struct {
	ID       string
	Refunded int64
	Disputed bool
	Created  int64
}

// UnmarshalJSON keeps the id, and the rest of the expanded form.
func (l *latestCharge) UnmarshalJSON(b []byte) error {
	*l = latestCharge{}
	if !isObject(b) {
		return json.Unmarshal(b, &l.ID)
	}
	var object struct {
		ID       string `json:"id"`
		Refunded int64  `json:"amount_refunded"`
		Disputed bool   `json:"disputed"`
		Created  int64  `json:"created"`
	}
	err := json.Unmarshal(b, &object)
	*l = latestCharge(object)
	return err
}

// HardDecline reports whether the same card, or bank account, will be refused again whatever the day: only a new one, or
// the customer in person, helps. Everything else may pass days later.
//
// The first nine are those Stripe's own dunning never retries (docs.stripe.com/billing/revenue-recovery/smart-retries);
// the next four say in docs.stripe.com/declines/codes that the card data or the card itself must change. The others are
// of bank debits (docs.stripe.com/error-codes, and the pages of each kind of debit): the account is not there or may not
// be debited, or its owner has said no, after which the networks forbid another try. A lack of funds, refer_to_customer
// and a bank's failure to process pass.
func HardDecline(f Failure) bool {
	return hardDeclines[f.DeclineCode] || hardDeclines[f.Code] || f.AdviceCode == "do_not_try_again"
}

var hardDeclines = map[string]bool{
	"incorrect_number":                 true,
	"lost_card":                        true,
	"pickup_card":                      true,
	"stolen_card":                      true,
	"revocation_of_authorization":      true,
	"revocation_of_all_authorizations": true,
	"authentication_required":          true,
	"highest_risk_level":               true,
	"transaction_not_allowed":          true,

	"expired_card":     true,
	"incorrect_cvc":    true,
	"fraudulent":       true,
	"do_not_try_again": true,

	"account_closed":                      true,
	"account_frozen":                      true,
	"account_number_invalid":              true,
	"bank_account_declined":               true,
	"bank_account_restricted":             true,
	"bank_account_unusable":               true,
	"bank_ownership_changed":              true,
	"billing_invalid_mandate":             true,
	"debit_not_authorized":                true,
	"incorrect_account_holder_name":       true,
	"invalid_account_number":              true,
	"no_account":                          true,
	"payment_method_bank_account_blocked": true,
	"recurring_debit_not_authorized":      true,
}
