package stripeutil

import (
	"context"
	"encoding/json"

	"github.com/stripe/stripe-go/v76"
)

// Card is a card that a customer saved, as much of it as may be shown.
type Card struct {
	ID, Brand, Last4  string
	ExpMonth, ExpYear int
}

// maxCards bounds the list; nobody chooses among more.
const maxCards = 30

// Cards lists a customer's saved cards, newest first.
func (c *Client) Cards(ctx context.Context, customer string) (cards []Card, err error) {
	if err := checkID("customer", customer); err != nil {
		return nil, err
	}
	list := pager{client: c, path: stripe.FormatURLPath("/v1/customers/%s/payment_methods", customer), params: func(p stripe.ListParams) any {
		return &stripe.CustomerListPaymentMethodsParams{ListParams: p, Type: stripe.String("card")}
	}}
	err = each(ctx, &list, decodeCard, func(card Card) bool {
		cards = append(cards, card)
		return len(cards) < maxCards
	})
	return cards, err
}

func decodeCard(raw json.RawMessage) (Card, error) {
	var wire struct {
		ID   string `json:"id"`
		Card struct {
			Brand    string `json:"brand"`
			Last4    string `json:"last4"`
			ExpMonth int    `json:"exp_month"`
			ExpYear  int    `json:"exp_year"`
		} `json:"card"`
	}
	err := decode(raw, "payment method", &wire, &wire.ID)
	return Card{ID: wire.ID, Brand: wire.Card.Brand, Last4: wire.Card.Last4, ExpMonth: wire.Card.ExpMonth, ExpYear: wire.Card.ExpYear}, err
}

// Receipt is the page on which Stripe shows the receipt of a payment; "" where there is none. It goes stale, so it is asked
// for when somebody wants to see it.
func (c *Client) Receipt(ctx context.Context, payment string) (string, error) {
	if err := checkID("payment", payment); err != nil {
		return "", err
	}
	raw, err := c.get(ctx, stripe.FormatURLPath("/v1/payment_intents/%s", payment),
		&stripe.PaymentIntentParams{Expand: stripe.StringSlice([]string{"latest_charge"})})
	return read(raw, err, func(raw json.RawMessage) (string, error) {
		var wire struct {
			ID     string          `json:"id"`
			Charge json.RawMessage `json:"latest_charge"`
		}
		if err := decode(raw, "payment", &wire, &wire.ID); err != nil || !isObject(wire.Charge) {
			return "", err
		}
		var charge struct {
			URL string `json:"receipt_url"`
		}
		err := json.Unmarshal(wire.Charge, &charge)
		return charge.URL, err
	})
}
