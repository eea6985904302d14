package stripeutil

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

var kinds = []error{
	ErrDeclined, ErrInvalid, ErrNotFound, ErrAuth, ErrRateLimited, ErrUnknown, ErrKeyMismatch, ErrSignature,
}

// Every answer is of exactly one kind.
func TestKindOfAnswer(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		body   string
		kind   error
	}{
		"card declined":               {402, stripeError("card_error", "card_declined"), ErrDeclined},
		"402 that is no card error":   {402, stripeError("invalid_request_error", "x"), ErrDeclined},
		"card error with a 400":       {400, stripeError("card_error", "incorrect_number"), ErrDeclined},
		"bad parameter":               {400, stripeError("invalid_request_error", "parameter_unknown"), ErrInvalid},
		"400 for a missing method":    {400, stripeError("invalid_request_error", "resource_missing"), ErrInvalid},
		"key with other parameters":   {400, stripeError("idempotency_error", ""), ErrKeyMismatch},
		"no such customer":            {404, stripeError("invalid_request_error", "resource_missing"), ErrNotFound},
		"no such address":             {404, stripeError("invalid_request_error", ""), ErrInvalid},
		"wrong key":                   {401, stripeError("invalid_request_error", ""), ErrAuth},
		"key without the right":       {403, stripeError("invalid_request_error", "more_permissions_required"), ErrAuth},
		"too many":                    {429, stripeError("invalid_request_error", "rate_limit"), ErrRateLimited},
		"too many, from a proxy":      {429, "slow down", ErrRateLimited},
		"key in use":                  {409, stripeError("invalid_request_error", "idempotency_key_in_use"), ErrUnknown},
		"server fault":                {500, stripeError("api_error", ""), ErrUnknown},
		"gateway time-out":            {504, "", ErrUnknown},
		"a proxy's 403":               {403, "<html>forbidden</html>", ErrUnknown},
		"a proxy's 404":               {404, "{}", ErrUnknown},
		"other refusals are refusals": {422, stripeError("invalid_request_error", ""), ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWire(t, says(tc.status, tc.body))
			err := charge(clientFor(t, s))
			for _, kind := range kinds {
				if got, want := errors.Is(err, kind), kind == tc.kind; got != want {
					t.Errorf("errors.Is(%v, %v) is %v", err, kind, got)
				}
			}
			var e *Error
			if !errors.As(err, &e) || e.HTTPStatus != tc.status || e.RequestID != "req_123" {
				t.Errorf("got %+v", e)
			}
		})
	}
}

// A decline brings the reason and the payment, whose client secret stays out of the text.
func TestDecline(t *testing.T) {
	s := newWire(t, says(402, `{"error":{"type":"card_error","code":"card_declined","decline_code":"insufficient_funds",
		"advice_code":"try_again_later","message":"Your card has insufficient funds.","charge":"ch_1",
		"payment_intent":{"id":"pi_1","object":"payment_intent","status":"requires_payment_method","amount":500,
			"currency":"usd","customer":"cus_1","payment_method":null,"client_secret":"pi_1_secret_xyz",
			"latest_charge":"ch_1","metadata":{"topup":"t1"},
			"last_payment_error":{"code":"card_declined","decline_code":"insufficient_funds","message":"no"}},
		"payment_method":{"id":"pm_1","object":"payment_method"}}}`))
	err := charge(clientFor(t, s))
	var e *Error
	if !errors.As(err, &e) || e.Kind != ErrDeclined {
		t.Fatalf("got %v", err)
	}
	want := Failure{"card_declined", "insufficient_funds", "Your card has insufficient funds.", "try_again_later"}
	if e.Failure == nil || *e.Failure != want {
		t.Errorf("failure %+v", e.Failure)
	}
	pi := e.PaymentIntent
	if pi == nil || pi.ID != "pi_1" || pi.Status != "requires_payment_method" || pi.Metadata["topup"] != "t1" ||
		pi.Failure == nil || pi.Failure.DeclineCode != "insufficient_funds" {
		t.Errorf("payment %+v", pi)
	}
	if text := err.Error(); strings.Contains(text, "secret_xyz") || !strings.Contains(text, "card_declined/insufficient_funds") {
		t.Errorf("text %q", text)
	}
}

// The class of a decline does not hang on whether the embedded payment reads.
func TestDeclineWithAnOddPayment(t *testing.T) {
	s := newWire(t, says(402, `{"error":{"type":"card_error","code":"card_declined","payment_intent":{"id":7,"amount":"x"}}}`))
	var e *Error
	if err := charge(clientFor(t, s)); !errors.As(err, &e) || e.Kind != ErrDeclined || e.PaymentIntent != nil {
		t.Errorf("got %v", err)
	}
}

// What this package refuses itself is ErrInvalid and sends nothing.
func TestRefusedBeforeSending(t *testing.T) {
	s := newWire(t, says(200, paymentJSON))
	c := clientFor(t, s)
	ctx := t.Context()
	with := func(change func(*ChargeParams)) error {
		p := chargeParams
		change(&p)
		_, err := c.ChargeSavedMethod(ctx, p)
		return err
	}
	drop := func(_ any, err error) error { return err }
	for name, err := range map[string]error{
		"no key":             with(func(p *ChargeParams) { p.IdempotencyKey = "" }),
		"key too long":       with(func(p *ChargeParams) { p.IdempotencyKey = strings.Repeat("k", 256) }),
		"key with a space":   with(func(p *ChargeParams) { p.IdempotencyKey = " k" }),
		"key with a newline": with(func(p *ChargeParams) { p.IdempotencyKey = "k\nX: y" }),
		"no customer":        with(func(p *ChargeParams) { p.Customer = "" }),
		"no method":          with(func(p *ChargeParams) { p.PaymentMethod = "" }),
		"nothing to charge":  with(func(p *ChargeParams) { p.Amount = 0 }),
		"negative charge":    with(func(p *ChargeParams) { p.Amount = -1 }),
		"customer":           drop(c.Customer(ctx, "")),
		"customer ..":        drop(c.Customer(ctx, "..")),
		"customer a/b":       drop(c.Customer(ctx, "cus_1/balance_transactions")),
		"create, no key":     drop(c.CreateCustomer(ctx, CustomerParams{})),
		"line, no key":       drop(c.CreateBalanceTransaction(ctx, BalanceTransactionParams{Customer: "cus_1"})),
		"line, no customer":  drop(c.CreateBalanceTransaction(ctx, BalanceTransactionParams{IdempotencyKey: "k"})),
		"lines":              c.BalanceTransactions(ctx, "", func(BalanceTransaction) bool { return true }),
		"payment":            drop(c.PaymentIntent(ctx, "")),
		"cancel":             drop(c.CancelPaymentIntent(ctx, "", "k")),
		"cancel, no key":     drop(c.CancelPaymentIntent(ctx, "pi_1", "")),
		"default":            drop(c.SetDefaultPaymentMethod(ctx, "cus_1", "", "k")),
		"default, customer":  drop(c.SetDefaultPaymentMethod(ctx, "", "pm_1", "k")),
		"attach":             drop(c.AttachPaymentMethod(ctx, "", "cus_1", "k")),
		"attach, customer":   drop(c.AttachPaymentMethod(ctx, "pm_1", "", "k")),
	} {
		var e *Error
		if !errors.As(err, &e) || e.Kind != ErrInvalid || e.HTTPStatus != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(s.seen()); n != 0 {
		t.Errorf("%d requests went out", n)
	}
}

// A server nobody listens at leaves the outcome open like any other network fault.
func TestNobodyThere(t *testing.T) {
	s := newWire(t, func(http.ResponseWriter, *http.Request, int) {})
	c := clientFor(t, s)
	s.Close()
	var e *Error
	if err := charge(c); !errors.As(err, &e) || e.Kind != ErrUnknown || e.HTTPStatus != 0 || e.Message == "" {
		t.Errorf("got %v", err)
	}
}
