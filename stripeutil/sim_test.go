package stripeutil_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"lockstep/stripeutil"
	"lockstep/stripeutil/stripesim"
)

// account is a simulated Stripe account with a client on it.
type account struct {
	*stripeutil.Client
	sim *stripesim.Sim
	t   *testing.T
	// reusesKeys says that the test breaks the rule of one parameter set a key, which the simulator holds against us.
	reusesKeys bool
}

// newAccount checks the simulator's own books when the test ends.
func newAccount(t *testing.T) *account {
	t.Helper()
	t.Parallel()
	sim, err := stripesim.New(stripesim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(sim)
	c, err := stripeutil.New(stripeutil.Config{SecretKey: sim.SecretKey(), APIBase: s.URL, RequestsPerSecond: 1000})
	if err != nil {
		t.Fatal(err)
	}
	a := &account{Client: c, sim: sim, t: t}
	t.Cleanup(func() {
		s.Close()
		if err := sim.Check(); (err != nil) != a.reusesKeys {
			t.Errorf("check: %v", err)
		}
		sim.Close()
	})
	return a
}

// customer makes one with a saved default card.
func (a *account) customer(token string) stripeutil.Customer {
	a.t.Helper()
	ctx := a.t.Context()
	cus, err := a.CreateCustomer(ctx, stripeutil.CustomerParams{
		Email: "ada@example.com", Metadata: map[string]string{"wallet": "w1"}, IdempotencyKey: "create",
	})
	if err != nil {
		a.t.Fatal(err)
	}
	pm, err := a.AttachPaymentMethod(ctx, token, cus.ID, "attach")
	if err != nil {
		a.t.Fatal(err)
	}
	cus, err = a.SetDefaultPaymentMethod(ctx, cus.ID, pm, "default")
	if err != nil || cus.DefaultPaymentMethod != pm || cus.Metadata["wallet"] != "w1" {
		a.t.Fatalf("customer %+v, %v", cus, err)
	}
	return cus
}

func topup(cus stripeutil.Customer, key string) stripeutil.ChargeParams {
	return stripeutil.ChargeParams{
		Customer: cus.ID, PaymentMethod: cus.DefaultPaymentMethod, Amount: 2000, Currency: "usd",
		Metadata: map[string]string{"topup": "t1"}, IdempotencyKey: key,
	}
}

func isTopup(pi stripeutil.PaymentIntent) bool { return pi.Metadata["topup"] == "t1" }

func TestSimCharge(t *testing.T) {
	a := newAccount(t)
	cus := a.customer("pm_card_visa")
	pi, err := a.ChargeSavedMethod(t.Context(), topup(cus, "k"))
	if err != nil || pi.Status != "succeeded" || pi.AmountReceived != 2000 || pi.LatestCharge == "" || pi.Customer != cus.ID {
		t.Fatalf("%+v, %v", pi, err)
	}
	again, err := a.ChargeSavedMethod(t.Context(), topup(cus, "k"))
	if err != nil || again.ID != pi.ID || len(a.sim.Charges(cus.ID)) != 1 {
		t.Errorf("resent: %+v, %v, %d charges", again, err, len(a.sim.Charges(cus.ID)))
	}
	if _, err := a.CancelPaymentIntent(t.Context(), pi.ID, "cancel"); !errors.Is(err, stripeutil.ErrInvalid) {
		t.Errorf("a paid one was cancelled: %v", err)
	}
	if got, err := a.PaymentIntent(t.Context(), pi.ID); err != nil || got.Status != "succeeded" {
		t.Errorf("%+v, %v", got, err)
	}
	small := topup(cus, "small")
	small.Amount = stripeutil.MinimumCharge("usd") - 1
	var e *stripeutil.Error
	if _, err := a.ChargeSavedMethod(t.Context(), small); !errors.As(err, &e) || e.Kind != stripeutil.ErrInvalid || e.Code != "amount_too_small" {
		t.Errorf("49 cents: %v", err)
	}
}

// What is charged is known with its type: a card, a bank account, or nothing.
func TestSimMethods(t *testing.T) {
	a := newAccount(t)
	cus := a.customer("pm_sepaDebit_success")
	if m, err := a.DefaultMethod(t.Context(), cus.ID); err != nil || m != (stripeutil.Method{ID: cus.DefaultPaymentMethod, Type: "sepa_debit"}) {
		t.Errorf("%+v, %v", m, err)
	}
	card, err := a.AttachPaymentMethod(t.Context(), "pm_card_visa", cus.ID, "card")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := a.PaymentMethod(t.Context(), card); err != nil || m != (stripeutil.Method{ID: card, Type: "card"}) {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := a.PaymentMethod(t.Context(), "card_old"); err != nil || m != (stripeutil.Method{ID: "card_old", Type: "card"}) {
		t.Errorf("of an older kind: %+v, %v", m, err)
	}
	if m, err := a.PaymentMethod(t.Context(), "pm_nobody"); err != nil || m != (stripeutil.Method{ID: "pm_nobody"}) {
		t.Errorf("nobody's: %+v, %v", m, err)
	}
	var alone stripeutil.Method
	if err := json.Unmarshal([]byte(`"pm_alone"`), &alone); err != nil || alone.ID != "pm_alone" {
		t.Errorf("an id alone: %+v, %v", alone, err)
	}
	none, err := a.CreateCustomer(t.Context(), stripeutil.CustomerParams{IdempotencyKey: "none"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := a.DefaultMethod(t.Context(), none.ID); err != nil || m.ID != "" {
		t.Errorf("none: %+v, %v", m, err)
	}
}

func TestSimKeyMismatch(t *testing.T) {
	a := newAccount(t)
	a.reusesKeys = true
	p := topup(a.customer("pm_card_visa"), "k")
	if _, err := a.ChargeSavedMethod(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	p.Amount++
	if _, err := a.ChargeSavedMethod(t.Context(), p); !errors.Is(err, stripeutil.ErrKeyMismatch) {
		t.Errorf("same key, other amount: %v", err)
	}
	if n := len(a.sim.Charges(p.Customer)); n != 1 {
		t.Errorf("%d charges", n)
	}
}

func TestSimDeclines(t *testing.T) {
	for token, hard := range map[string]bool{
		"pm_card_chargeCustomerFail": false, "pm_card_authenticationRequired": true,
		"pm_card_stripesim_lost_card": true, "pm_card_stripesim_insufficient_funds": false,
	} {
		t.Run(token, func(t *testing.T) {
			a := newAccount(t)
			cus := a.customer(token)
			_, err := a.ChargeSavedMethod(t.Context(), topup(cus, "k"))
			var e *stripeutil.Error
			if !errors.As(err, &e) || e.Kind != stripeutil.ErrDeclined || e.Failure == nil || e.PaymentIntent == nil {
				t.Fatalf("got %v", err)
			}
			if stripeutil.HardDecline(*e.Failure) != hard || e.PaymentIntent.Status != "requires_payment_method" || !isTopup(*e.PaymentIntent) {
				t.Errorf("%+v, %+v", e.Failure, e.PaymentIntent)
			}
			if pi, err := a.CancelPaymentIntent(t.Context(), e.PaymentIntent.ID, "cancel"); err != nil || pi.Status != "canceled" {
				t.Errorf("%+v, %v", pi, err)
			}
		})
	}
}

// Whatever gets lost on the way, one top-up is one charge, and a look-up finds it.
func TestSimFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		fault stripesim.Fault
		kind  error // nil: the retries get through
		found bool  // by its metadata afterwards
	}{
		"drop before":        {stripesim.Fault{Kind: stripesim.DropBefore}, nil, true},
		"drop after":         {stripesim.Fault{Kind: stripesim.DropAfter}, nil, true},
		"truncated":          {stripesim.Fault{Kind: stripesim.TruncateBody}, nil, true},
		"rate limited":       {stripesim.Fault{Kind: stripesim.RateLimited, RetryAfter: "1"}, nil, true},
		"lock timeout":       {stripesim.Fault{Kind: stripesim.LockTimeout, Times: 2}, nil, true},
		"conflict":           {stripesim.Fault{Kind: stripesim.Conflict}, nil, true},
		"unavailable":        {stripesim.Fault{Kind: stripesim.Unavailable}, nil, true},
		"told not to retry":  {stripesim.Fault{Kind: stripesim.Unavailable, ShouldRetry: "false"}, stripeutil.ErrUnknown, false},
		"wait a day":         {stripesim.Fault{Kind: stripesim.RateLimited, RetryAfter: "86400"}, stripeutil.ErrRateLimited, false},
		"500 without effect": {stripesim.Fault{Kind: stripesim.Error500Before}, stripeutil.ErrUnknown, false},
		"500 with effect":    {stripesim.Fault{Kind: stripesim.Error500After}, stripeutil.ErrUnknown, true},
		"unauthorised":       {stripesim.Fault{Kind: stripesim.Unauthorized}, stripeutil.ErrAuth, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t)
			cus := a.customer("pm_card_visa")
			tc.fault.Method, tc.fault.Path = "POST", "/v1/payment_intents"
			a.sim.Inject(tc.fault)
			_, err := a.ChargeSavedMethod(t.Context(), topup(cus, "k"))
			if !errors.Is(err, tc.kind) {
				t.Errorf("got %v, want %v", err, tc.kind)
			}
			pi, found, err := a.FindPaymentIntent(t.Context(), cus.ID, a.sim.Now().Add(-time.Hour), isTopup)
			if err != nil || found != tc.found || found && pi.Status != "succeeded" {
				t.Errorf("found %v %+v, %v", found, pi, err)
			}
			if n := len(a.sim.Charges(cus.ID)); n > 1 || n == 1 != tc.found {
				t.Errorf("%d charges", n)
			}
		})
	}
}

func TestSimBalance(t *testing.T) {
	a := newAccount(t)
	cus := a.customer("pm_card_visa")
	for i, amount := range []int64{-1000, 300, 150} {
		line, err := a.CreateBalanceTransaction(t.Context(), stripeutil.BalanceTransactionParams{
			Customer: cus.ID, Amount: amount, Currency: "usd", Description: "flush",
			Metadata: map[string]string{"outbox": string(rune('a' + i))}, IdempotencyKey: string(rune('a' + i)),
		})
		if err != nil || line.Amount != amount || line.Type != "adjustment" || line.Customer != cus.ID {
			t.Fatalf("%+v, %v", line, err)
		}
	}
	if _, err := a.sim.Operator().AdjustBalance(cus.ID, -25, "usd", "sorry"); err != nil {
		t.Fatal(err)
	}
	got, err := a.Customer(t.Context(), cus.ID)
	if err != nil || got.Balance != -575 || got.Currency != "usd" {
		t.Fatalf("%+v, %v", got, err)
	}
	var sum int64
	var foreign int
	err = a.BalanceTransactions(t.Context(), cus.ID, func(b stripeutil.BalanceTransaction) bool {
		if sum == 0 && b.EndingBalance != got.Balance {
			t.Errorf("the newest line ends at %d", b.EndingBalance)
		}
		sum += b.Amount
		if b.Metadata["outbox"] == "" {
			foreign++
		}
		return true
	})
	if err != nil || sum != got.Balance || foreign != 1 {
		t.Errorf("sum %d, %d foreign, %v", sum, foreign, err)
	}
	_, err = a.CreateBalanceTransaction(t.Context(), stripeutil.BalanceTransactionParams{
		Customer: cus.ID, Amount: 1, Currency: "eur", IdempotencyKey: "euro",
	})
	if !errors.Is(err, stripeutil.ErrInvalid) {
		t.Errorf("another currency: %v", err)
	}
}

func TestSimDeletedCustomer(t *testing.T) {
	a := newAccount(t)
	cus := a.customer("pm_card_visa")
	if _, err := a.sim.Operator().DeleteCustomer(cus.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Customer(t.Context(), cus.ID); err != nil || !got.Deleted || got.ID != cus.ID {
		t.Errorf("%+v, %v", got, err)
	}
	_, err := a.CreateBalanceTransaction(t.Context(), stripeutil.BalanceTransactionParams{
		Customer: cus.ID, Amount: 1, Currency: "usd", IdempotencyKey: "late",
	})
	if !errors.Is(err, stripeutil.ErrNotFound) {
		t.Errorf("a deleted customer was written to: %v", err)
	}
	if _, err := a.Customer(t.Context(), "cus_none"); !errors.Is(err, stripeutil.ErrNotFound) {
		t.Errorf("no such customer: %v", err)
	}
}

// What is delivered is what the list of events has, and both read alike.
func TestSimEvents(t *testing.T) {
	a := newAccount(t)
	var mu sync.Mutex
	delivered := map[string]stripeutil.Event{}
	secrets := []string{"whsec_old", "whsec_new"}
	types := []string{"customer.updated", "payment_intent.succeeded", "payment_method.attached"}
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload, _ := io.ReadAll(r.Body)
		e, err := stripeutil.VerifyWebhook(payload, r.Header.Get("Stripe-Signature"), secrets, a.sim.Now())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		delivered[e.ID] = e
	}))
	defer hook.Close()
	a.sim.AddEndpoint(stripesim.Endpoint{URL: hook.URL, Secrets: []string{"whsec_new"}, EnabledEvents: types})

	cus := a.customer("pm_card_visa")
	if _, err := a.ChargeSavedMethod(t.Context(), topup(cus, "k")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.CreateBalanceTransaction(t.Context(), stripeutil.BalanceTransactionParams{
		Customer: cus.ID, Amount: -2000, Currency: "usd", IdempotencyKey: "flush:1",
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := a.sim.Settle(ctx); err != nil {
		t.Fatal(err)
	}

	seen, paid, moved := 0, 0, 0
	err := a.Events(ctx, types, a.sim.Now().Add(-time.Hour), func(e stripeutil.Event, raw []byte) bool {
		seen++
		mu.Lock()
		same, ok := delivered[e.ID]
		mu.Unlock()
		if !ok || same.Type != e.Type || same.ObjectID() != e.ObjectID() || same.RequestIdempotencyKey != e.RequestIdempotencyKey {
			t.Errorf("listed %+v, delivered %v %+v", e, ok, same)
		}
		if parsed, err := stripeutil.ParseEvent(raw); err != nil || parsed.ID != e.ID || e.Livemode {
			t.Errorf("%s: %v", raw, err)
		}
		if pi, err := e.PaymentIntent(); err == nil && e.Type == "payment_intent.succeeded" && isTopup(pi) {
			paid++
		}
		if c, err := e.Customer(); err == nil && e.Changed("balance") && c.Balance == -2000 && e.RequestIdempotencyKey == "flush:1" {
			moved++
		}
		return true
	})
	if err != nil || paid != 1 || moved != 1 || seen != len(delivered) {
		t.Errorf("%d events, %d delivered, %d paid, %d moved, %v", seen, len(delivered), paid, moved, err)
	}
}
