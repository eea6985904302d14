package stripeutil_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-mock/embedded"
	"github.com/stripe/stripe-mock/server"

	"lockstep/stripeutil"
)

// stripe-mock holds Stripe's own description of API version 2023-10-16. It keeps no state, but answers 400 to any
// parameter that version does not know, lacks, or has of another type.
func specServer(t *testing.T) (url string, refusals func() []string) {
	t.Helper()
	fixtures, err := server.LoadFixtures(embedded.OpenAPIFixtures, "")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := server.LoadSpec(embedded.OpenAPISpec, "")
	if err != nil {
		t.Fatal(err)
	}
	stub, err := server.NewStubServer(fixtures, spec, true, false)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var refused []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		stub.HandleRequest(rec, r)
		if rec.Code >= 400 {
			mu.Lock()
			refused = append(refused, r.Method+" "+r.URL.String()+": "+rec.Body.String())
			mu.Unlock()
		}
		w.WriteHeader(rec.Code)
		io.Copy(w, rec.Body)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return refused
	}
}

// Every request this package makes is one that API version 2023-10-16 knows, and every answer of that version reads.
func TestRequestsFitTheSpec(t *testing.T) {
	url, refusals := specServer(t)
	c, err := stripeutil.New(stripeutil.Config{SecretKey: "sk_test_123", APIBase: url, RequestsPerSecond: 1000})
	if err != nil {
		t.Fatal(err)
	}
	ctx, meta := t.Context(), map[string]string{"lockstep": "1"}
	drop := func(_ any, err error) error { return err }
	find := func() error {
		_, _, err := c.FindPaymentIntent(ctx, "cus_1", time.Unix(1, 0), func(stripeutil.PaymentIntent) bool { return true })
		return err
	}
	for name, err := range map[string]error{
		"CreateCustomer": drop(c.CreateCustomer(ctx, stripeutil.CustomerParams{Email: "a@b.c", Name: "A", Metadata: meta, IdempotencyKey: "1"})),
		"Customer":       drop(c.Customer(ctx, "cus_1")),
		"CreateBalanceTransaction": drop(c.CreateBalanceTransaction(ctx, stripeutil.BalanceTransactionParams{
			Customer: "cus_1", Amount: -5, Currency: "usd", Description: "d", Metadata: meta, IdempotencyKey: "2",
		})),
		"BalanceTransactions": c.BalanceTransactions(ctx, "cus_1", func(stripeutil.BalanceTransaction) bool { return false }),
		"ChargeSavedMethod": drop(c.ChargeSavedMethod(ctx, stripeutil.ChargeParams{
			Customer: "cus_1", PaymentMethod: "pm_1", Amount: 500, Currency: "usd", Description: "d", Metadata: meta, IdempotencyKey: "3",
		})),
		"ChargeSavedMethod of a bank account": drop(c.ChargeSavedMethod(ctx, stripeutil.ChargeParams{
			Customer: "cus_1", PaymentMethod: "pm_1", MethodType: "au_becs_debit", Amount: 500, Currency: "aud", IdempotencyKey: "9",
		})),
		"DraftInvoice": drop(c.DraftInvoice(ctx, stripeutil.InvoiceParams{
			Customer: "cus_1", PaymentMethod: "pm_1", MethodType: "sepa_debit", Amount: 500, Currency: "eur", Metadata: meta, IdempotencyKey: "10",
		})),
		"PaymentMethod":           drop(c.PaymentMethod(ctx, "pm_1")),
		"DefaultMethod":           drop(c.DefaultMethod(ctx, "cus_1")),
		"PaymentIntent":           drop(c.PaymentIntent(ctx, "pi_1")),
		"CancelPaymentIntent":     drop(c.CancelPaymentIntent(ctx, "pi_1", "4")),
		"FindPaymentIntent":       find(),
		"SetDefaultPaymentMethod": drop(c.SetDefaultPaymentMethod(ctx, "cus_1", "pm_1", "5")),
		"AttachPaymentMethod":     drop(c.AttachPaymentMethod(ctx, "pm_1", "cus_1", "6")),
		"Events": c.Events(ctx, []string{"customer.updated"}, time.Unix(1, 0), func(stripeutil.Event, []byte) bool {
			return false
		}),
		"Invoice":         drop(c.Invoice(ctx, "in_1")),
		"InvoiceLines":    drop(c.InvoiceLines(ctx, "in_1")),
		"InvoicesOf":      c.InvoicesOf(ctx, "sub_1", func(stripeutil.Invoice) bool { return false }),
		"CheckoutSession": drop(c.CheckoutSession(ctx, "cs_1")),
		"CheckoutLines":   drop(c.CheckoutLines(ctx, "cs_1")),

		"WebhookEndpoints":      drop(c.WebhookEndpoints(ctx)),
		"CreateWebhookEndpoint": drop(c.CreateWebhookEndpoint(ctx, "https://a.example/hook", []string{"customer.updated"}, "7")),
		"UpdateWebhookEndpoint": drop(c.UpdateWebhookEndpoint(ctx, "we_1", []string{"customer.updated"}, "8")),
		"Cards":                 drop(c.Cards(ctx, "cus_1")),
		"Receipt":               drop(c.Receipt(ctx, "pi_1")),
		"PortalSaved":           drop(c.PortalSaved(ctx)),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, r := range stripeutil.Rights() {
		if err := c.MayRead(ctx, r); err != nil {
			t.Errorf("%v: %v", r, err)
		}
	}
	for _, refused := range refusals() {
		t.Error(refused)
	}
}
