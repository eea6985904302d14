package stripeutil

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// What a line earned is its amount after discounts and before tax, whether the tax is in the amount or comes on top;
// and a unit amount is believed only where amount = quantity × unit.
func TestInvoiceLine(t *testing.T) {
	t.Parallel()
	const price = `{"id":"price_1","currency":"usd","unit_amount":1000,"billing_scheme":"per_unit","transform_quantity":null,
		"metadata":{"credits":"5"},"product":{"id":"prod_1","object":"product","metadata":{"credits":"6"}}}`
	unit := int64(1000)
	whole := SaleLine{ID: "il_1", Price: "price_1", PriceMetadata: map[string]string{"credits": "5"}, ProductMetadata: map[string]string{"credits": "6"},
		Currency: "usd", Quantity: 2, Amount: 2000, Net: 2000, UnitAmount: &unit, Start: time.Unix(10, 0).UTC(), End: time.Unix(20, 0).UTC()}
	for name, c := range map[string]struct {
		fields string
		want   func(*SaleLine)
	}{
		"plain":               {`"price":` + price, func(*SaleLine) {}},
		"discounted":          {`"discount_amounts":[{"amount":300},{"amount":200}],"price":` + price, func(l *SaleLine) { l.Net, l.Discounted = 1500, true }},
		"tax in it":           {`"tax_amounts":[{"amount":200,"inclusive":true}],"price":` + price, func(l *SaleLine) { l.Net = 1800 }},
		"tax on top":          {`"tax_amounts":[{"amount":200,"inclusive":false}],"price":` + price, func(*SaleLine) {}},
		"no price":            {`"price":null`, func(l *SaleLine) { l.Price, l.PriceMetadata, l.ProductMetadata, l.UnitAmount = "", nil, nil, nil }},
		"flat":                {`"quantity":null,"price":` + price, func(l *SaleLine) { l.Quantity = 1 }},
		"of a subscription":   {`"subscription":"sub_1","subscription_item":{"id":"si_1"},"proration":true,"price":` + price, func(l *SaleLine) { l.Subscription, l.SubscriptionItem, l.Proration = "sub_1", "si_1", true }},
		"product not read":    {`"price":{"id":"price_1","currency":"usd","unit_amount":1000,"billing_scheme":"per_unit","metadata":{"credits":"5"},"product":"prod_1"}`, func(l *SaleLine) { l.ProductMetadata = nil }},
		"product deleted":     {`"price":{"id":"price_1","currency":"usd","unit_amount":1000,"billing_scheme":"per_unit","metadata":{"credits":"5"},"product":{"id":"prod_1","deleted":true}}`, func(l *SaleLine) { l.ProductMetadata = nil }},
		"tiers":               {`"price":{"id":"price_1","currency":"usd","unit_amount":null,"billing_scheme":"tiered","metadata":{"credits":"5"},"product":"prod_1"}`, func(l *SaleLine) { l.ProductMetadata, l.UnitAmount = nil, nil }},
		"packages":            {`"price":{"id":"price_1","currency":"usd","unit_amount":1000,"billing_scheme":"per_unit","transform_quantity":{"divide_by":2,"round":"up"},"metadata":{"credits":"5"},"product":"prod_1"}`, func(l *SaleLine) { l.ProductMetadata, l.UnitAmount = nil, nil }},
		"in another currency": {`"price":{"id":"price_1","currency":"eur","unit_amount":1000,"billing_scheme":"per_unit","metadata":{"credits":"5"},"product":"prod_1"}`, func(l *SaleLine) { l.ProductMetadata, l.UnitAmount = nil, nil }},
	} {
		want := whole
		c.want(&want)
		raw := `{"id":"il_1","amount":2000,"currency":"usd","quantity":2,"period":{"start":10,"end":20},` + c.fields + `}`
		got, err := decodeInvoiceLine(json.RawMessage(raw))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
	for _, raw := range []string{`{}`, `{"id":""}`, `{"id":"il_1","amount":"x"}`, `[]`} {
		if l, err := decodeInvoiceLine(json.RawMessage(raw)); err == nil {
			t.Errorf("%s was read as %+v", raw, l)
		}
	}
}

func TestCheckoutLine(t *testing.T) {
	t.Parallel()
	got, err := decodeCheckoutLine(json.RawMessage(`{"id":"li_1","amount_subtotal":2000,"amount_discount":500,"amount_tax":150,"amount_total":1650,"currency":"usd","quantity":2,
		"price":{"id":"price_1","currency":"usd","unit_amount":1000,"billing_scheme":"per_unit","metadata":{},"product":"prod_1"}}`))
	if err != nil || got.Amount != 2000 || got.Net != 1500 || !got.Discounted || got.Quantity != 2 || got.Price != "price_1" || got.SubscriptionItem != "" || !got.End.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
}

// A session and an invoice read whether what they point to is expanded, an id, or null.
func TestSessionAndInvoice(t *testing.T) {
	t.Parallel()
	for _, pi := range []string{`"pi_1"`, `{"id":"pi_1","metadata":{"lockstep_topup":"top_1"}}`} {
		cs, err := decodeCheckoutSession(json.RawMessage(`{"id":"cs_1","mode":"payment","status":"complete","payment_status":"paid","customer":null,"client_reference_id":"acme",
			"invoice":{"id":"in_1"},"invoice_creation":{"enabled":true},"customer_details":{"email":"a@b.c","name":null},"payment_intent":` + pi + `}`))
		if err != nil || cs.PaymentIntent != "pi_1" || cs.Invoice != "in_1" || !cs.Invoices || cs.ClientReference != "acme" || cs.Email != "a@b.c" || cs.Customer != "" {
			t.Errorf("%+v, %v", cs, err)
		}
		in, err := decodeInvoice(json.RawMessage(`{"id":"in_1","customer":{"id":"cus_1"},"status":"paid","billing_reason":"manual","subscription":null,"status_transitions":{"paid_at":5},"payment_intent":` + pi + `}`))
		if err != nil || in.PaymentIntent != "pi_1" || in.Customer != "cus_1" || !in.PaidAt.Equal(time.Unix(5, 0)) || len(in.PaymentMetadata) != len(cs.PaymentMetadata) {
			t.Errorf("%+v, %v", in, err)
		}
	}
	cs, err := decodeCheckoutSession(json.RawMessage(`{"id":"cs_1","payment_intent":null,"invoice_creation":null,"customer_details":null}`))
	if err != nil || cs.PaymentIntent != "" || cs.Invoices {
		t.Errorf("%+v, %v", cs, err)
	}
}
