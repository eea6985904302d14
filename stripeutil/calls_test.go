package stripeutil

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func params(t *testing.T, encoded string) map[string]string {
	t.Helper()
	values, err := url.ParseQuery(encoded)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for k, v := range values {
		got[k] = strings.Join(v, "|")
	}
	return got
}

// Each write sends exactly these parameters to this address under the caller's key.
func TestWrites(t *testing.T) {
	ctx := t.Context()
	for name, tc := range map[string]struct {
		call   func(*Client) error
		path   string
		params map[string]string
	}{
		"bank debit": {func(c *Client) error {
			p := chargeParams
			p.MethodType = "sepa_debit"
			_, err := c.ChargeSavedMethod(ctx, p)
			return err
		}, "/v1/payment_intents", map[string]string{
			"customer": "cus_1", "payment_method": "pm_1", "payment_method_types[0]": "sepa_debit", "amount": "500",
			"currency": "usd", "description": "Top-up & more", "off_session": "true", "confirm": "true",
			"metadata[topup]": "t1", "metadata[attempt]": "1", "metadata[wallet]": "w", "metadata[zone]": "z", "metadata[app]": "a",
		}},
		"charge": {charge, "/v1/payment_intents", map[string]string{
			"customer": "cus_1", "payment_method": "pm_1", "payment_method_types[0]": "card", "amount": "500",
			"currency": "usd", "description": "Top-up & more", "off_session": "true", "confirm": "true",
			"metadata[topup]": "t1", "metadata[attempt]": "1", "metadata[wallet]": "w", "metadata[zone]": "z", "metadata[app]": "a",
		}},
		"cancel": {func(c *Client) error {
			_, err := c.CancelPaymentIntent(ctx, "pi_1", "topup:t1:attempt:1")
			return err
		}, "/v1/payment_intents/pi_1/cancel", map[string]string{}},
		"customer": {func(c *Client) error {
			_, err := c.CreateCustomer(ctx, CustomerParams{Email: "a@b.c", Metadata: map[string]string{"id": "7"}, IdempotencyKey: "topup:t1:attempt:1"})
			return err
		}, "/v1/customers", map[string]string{"email": "a@b.c", "metadata[id]": "7"}},
		"grant": {func(c *Client) error {
			_, err := c.CreateBalanceTransaction(ctx, BalanceTransactionParams{
				Customer: "cus_1", Amount: -1000, Currency: "usd", Metadata: map[string]string{"outbox": "9"}, IdempotencyKey: "topup:t1:attempt:1",
			})
			return err
		}, "/v1/customers/cus_1/balance_transactions", map[string]string{"amount": "-1000", "currency": "usd", "metadata[outbox]": "9"}},
		"default method": {func(c *Client) error {
			_, err := c.SetDefaultPaymentMethod(ctx, "cus_1", "pm_1", "topup:t1:attempt:1")
			return err
		}, "/v1/customers/cus_1", map[string]string{"invoice_settings[default_payment_method]": "pm_1"}},
		"attach": {func(c *Client) error {
			id, err := c.AttachPaymentMethod(ctx, "pm_card_visa", "cus_1", "topup:t1:attempt:1")
			if id != "x_1" {
				return fmt.Errorf("id %q, %w", id, err)
			}
			return err
		}, "/v1/payment_methods/pm_card_visa/attach", map[string]string{"customer": "cus_1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWire(t, says(200, `{"id":"x_1"}`))
			if err := tc.call(clientFor(t, s)); err != nil {
				t.Fatal(err)
			}
			got := s.seen()[0]
			if got.method != http.MethodPost || got.path != tc.path || got.query != "" || got.key != "topup:t1:attempt:1" {
				t.Errorf("got %+v", got)
			}
			if diff := cmp.Diff(tc.params, params(t, got.body)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadCustomer(t *testing.T) {
	const full = `{"id":"cus_1","object":"customer","email":"a@b.c","name":null,"currency":"usd","balance":-1000,
		"livemode":true,"metadata":{"id":"7"},"default_source":%s,"invoice_settings":{"default_payment_method":%s}}`
	want := Customer{ID: "cus_1", Email: "a@b.c", Currency: "usd", Balance: -1000, Livemode: true, Metadata: map[string]string{"id": "7"}}
	for name, tc := range map[string]struct {
		body   string
		method string
	}{
		"method by id":    {fmt.Sprintf(full, `"card_1"`, `"pm_1"`), "pm_1"},
		"method expanded": {fmt.Sprintf(full, `null`, `{"id":"pm_2","object":"payment_method"}`), "pm_2"},
		"only a source":   {fmt.Sprintf(full, `"card_1"`, `null`), "card_1"},
		"none":            {fmt.Sprintf(full, `null`, `null`), ""},
	} {
		s := newWire(t, says(200, tc.body))
		got, err := clientFor(t, s).Customer(t.Context(), "cus_1")
		want.DefaultPaymentMethod = tc.method
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if a := s.seen()[0]; a.method != "GET" || a.path != "/v1/customers/cus_1" || a.key != "" || a.body != "" {
			t.Errorf("%s: sent %+v", name, a)
		}
	}

	s := newWire(t, says(200, `{"id":"cus_1","object":"customer","deleted":true}`))
	got, err := clientFor(t, s).Customer(t.Context(), "cus_1")
	if err != nil || !reflect.DeepEqual(got, Customer{ID: "cus_1", Deleted: true}) {
		t.Errorf("deleted: %+v, %v", got, err)
	}
}

func TestReadPaymentIntent(t *testing.T) {
	s := newWire(t, says(200, `{"id":"pi_1","object":"payment_intent","status":"requires_payment_method","amount":2000,
		"amount_received":0,"currency":"eur","customer":{"id":"cus_1"},"payment_method":null,"invoice":"in_1",
		"client_secret":"s","latest_charge":{"id":"ch_1","amount":"not read"},"created":1700000000,"metadata":{},
		"last_payment_error":{"code":"authentication_required","decline_code":"authentication_required","message":"m","type":"card_error"}}`))
	got, err := clientFor(t, s).PaymentIntent(t.Context(), "pi_1")
	want := PaymentIntent{
		ID: "pi_1", Customer: "cus_1", Status: "requires_payment_method", Currency: "eur", Invoice: "in_1", ClientSecret: "s",
		LatestCharge: "ch_1", Amount: 2000, Metadata: map[string]string{}, Created: time.Unix(1700000000, 0).UTC(),
		Failure: &Failure{Code: "authentication_required", DeclineCode: "authentication_required", Message: "m"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got))
	}
}

// pages serves n objects made by object, newest (highest number) first, by Stripe's paging rules.
func pages(n int, object func(i int) string) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, r *http.Request, _ int) {
		next := n
		if after := r.URL.Query().Get("starting_after"); after != "" {
			fmt.Sscanf(after[strings.LastIndex(after, "_")+1:], "%d", &next)
			next--
		}
		var data []string
		for ; next > 0 && len(data) < 100; next-- {
			data = append(data, object(next))
		}
		reply(w, 200, fmt.Sprintf(`{"object":"list","has_more":%v,"data":[%s]}`, next > 0, strings.Join(data, ",")))
	}
}

func line(i int) string {
	return fmt.Sprintf(`{"id":"cbtxn_%d","object":"customer_balance_transaction","customer":"cus_1","amount":%d,"ending_balance":5,
		"currency":"usd","type":"applied_to_invoice","invoice":"in_1","credit_note":null,"description":null,"created":1700000000,
		"metadata":{"n":"%d"}}`, i, -i, i)
}

func TestBalanceTransactionsPage(t *testing.T) {
	s := newWire(t, pages(250, line))
	c := clientFor(t, s)
	next := 250
	err := c.BalanceTransactions(t.Context(), "cus_1", func(b BalanceTransaction) bool {
		want := BalanceTransaction{
			ID: fmt.Sprintf("cbtxn_%d", next), Customer: "cus_1", Amount: int64(-next), EndingBalance: 5, Currency: "usd",
			Type: "applied_to_invoice", Invoice: "in_1", Metadata: map[string]string{"n": fmt.Sprint(next)}, Created: time.Unix(1700000000, 0).UTC(),
		}
		if !reflect.DeepEqual(b, want) {
			t.Fatalf("%s", cmp.Diff(want, b))
		}
		next--
		return true
	})
	if err != nil || next != 0 {
		t.Fatalf("stopped before %d: %v", next, err)
	}
	seen := s.seen()
	if len(seen) != 3 || seen[0].query != "limit=100" || seen[1].query != "limit=100&starting_after=cbtxn_151" {
		t.Errorf("asked %d times, %q, %q", len(seen), seen[0].query, seen[1].query)
	}

	n := 0
	err = c.BalanceTransactions(t.Context(), "cus_1", func(BalanceTransaction) bool { n++; return n < 3 })
	if err != nil || n != 3 || len(s.seen()) != 4 {
		t.Errorf("stopped by yield: %d lines, %d pages, %v", n, len(s.seen())-3, err)
	}
}

// A list that makes no sense ends in an error, never in a loop.
func TestOddLists(t *testing.T) {
	for name, body := range map[string]string{
		"same page for ever": `{"data":[{"id":"cbtxn_1"}],"has_more":true}`,
		"no ids":             `{"data":[{"amount":1}],"has_more":false}`,
		"no objects":         `{"data":[7],"has_more":false}`,
		"no list":            `{"id":"cus_1"}`,
		"data of no list":    `{"data":{"id":"x"}}`,
		"odd line":           `{"data":[{"id":"cbtxn_1","amount":"much"}]}`,
	} {
		s := newWire(t, says(200, body))
		err := clientFor(t, s).BalanceTransactions(t.Context(), "cus_1", func(BalanceTransaction) bool { return true })
		if !errors.Is(err, ErrUnknown) || len(s.seen()) > 2 {
			t.Errorf("%s: %v after %d pages", name, err, len(s.seen()))
		}
	}
	s := newWire(t, says(200, `{"data":[],"has_more":true}`))
	if err := clientFor(t, s).BalanceTransactions(t.Context(), "cus_1", nil); err != nil || len(s.seen()) != 1 {
		t.Errorf("empty page that promises more: %v", err)
	}
}

func TestFindPaymentIntent(t *testing.T) {
	s := newWire(t, pages(150, func(i int) string {
		return fmt.Sprintf(`{"id":"pi_%d","object":"payment_intent","metadata":{"topup":"t%d"}}`, i, i)
	}))
	c := clientFor(t, s)
	topup := func(id string) func(PaymentIntent) bool {
		return func(pi PaymentIntent) bool { return pi.Metadata["topup"] == id }
	}
	pi, ok, err := c.FindPaymentIntent(t.Context(), "cus_1", time.Unix(1700000000, 5), topup("t20"))
	if err != nil || !ok || pi.ID != "pi_20" {
		t.Errorf("got %+v, %v, %v", pi, ok, err)
	}
	if got := params(t, s.seen()[0].query); !reflect.DeepEqual(got, map[string]string{
		"customer": "cus_1", "created[gte]": "1700000000", "limit": "100",
	}) {
		t.Errorf("asked for %v", got)
	}
	if _, ok, err := c.FindPaymentIntent(t.Context(), "cus_1", time.Time{}, topup("none")); ok || err != nil {
		t.Errorf("found nothing: %v, %v", ok, err)
	}
}

func TestHardDecline(t *testing.T) {
	for _, f := range []Failure{
		{Code: "card_declined", DeclineCode: "stolen_card"}, {Code: "expired_card", DeclineCode: "expired_card"},
		{Code: "incorrect_cvc"}, {Code: "authentication_required"}, {Code: "card_declined", DeclineCode: "fraudulent"},
		{Code: "card_declined", DeclineCode: "generic_decline", AdviceCode: "do_not_try_again"},
		{Code: "account_closed"}, {Code: "debit_not_authorized"}, {Code: "no_account"}, {Code: "bank_account_restricted"},
		{Code: "payment_method_provider_decline", DeclineCode: "debit_not_authorized"},
	} {
		if !HardDecline(f) {
			t.Errorf("%+v is not hard", f)
		}
	}
	for _, f := range []Failure{
		{}, {Code: "insufficient_funds"}, {Code: "refer_to_customer"}, {Code: "generic_could_not_process"},
		{Code: "card_declined", DeclineCode: "insufficient_funds"}, {Code: "processing_error"},
		{Code: "card_declined", DeclineCode: "do_not_honor", AdviceCode: "try_again_later"},
	} {
		if HardDecline(f) {
			t.Errorf("%+v is hard", f)
		}
	}
}

func TestMinimumCharge(t *testing.T) {
	for currency, want := range map[string]int64{"usd": 50, "USD": 50, "gbp": 30, "jpy": 50, "huf": 17500, "xyz": 0, "": 0} {
		if got := MinimumCharge(currency); got != want {
			t.Errorf("%s: %d, want %d", currency, got, want)
		}
	}
}
