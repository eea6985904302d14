package referee

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// listener takes what a referee says, in place of a test.
type listener struct {
	testing.TB
	said []string
}

func (l *listener) Helper()                      {}
func (l *listener) Logf(string, ...any)          {}
func (l *listener) Errorf(f string, args ...any) { l.said = append(l.said, fmt.Sprintf(f, args...)) }

const goodCharge = `{"amount":1,"amount_captured":1,"amount_refunded":0,"billing_details":{},"captured":true,"created":1,"currency":"usd","disputed":false,
	"id":"ch_1","livemode":false,"metadata":{},"object":"charge","paid":true,"refunded":false,"status":"succeeded"}`

// judged runs one call through a referee and returns what it says.
func judged(t *testing.T, method, path, form string, status int, body string) []string {
	t.Helper()
	l := &listener{TB: t}
	h := New(l).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got, _ := io.ReadAll(r.Body); method == "POST" && string(got) != form {
			t.Errorf("the handler got %q", got)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	target, sent := path, form
	if method == "GET" {
		target, sent = path+"?"+form, ""
	}
	r := httptest.NewRequest(method, target, strings.NewReader(sent))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != status || w.Body.String() != body {
		t.Errorf("the answer was changed to %d %s", w.Code, w.Body)
	}
	return l.said
}

const (
	deletedCustomer = `{"id":"cus_1","object":"customer","deleted":true}`
	txn             = `{"amount":-5,"created":1,"currency":"usd","customer":"cus_1","ending_balance":-5,"id":"cbtxn_1","livemode":false,"object":"customer_balance_transaction","type":"adjustment"}`
	refusal         = `{"error":{"type":"invalid_request_error","message":"no"}}`
)

// Each fault of a request or of an answer is named; want is part of the verdict.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	const cbt = "/v1/customers/cus_1/balance_transactions"
	replace := func(s, from, to string) string {
		if !strings.Contains(s, from) {
			t.Fatalf("%q is not in %s", from, s)
		}
		return strings.Replace(s, from, to, 1)
	}
	for name, c := range map[string]struct {
		method, path, form string
		status             int
		body, want         string
	}{
		"unknown parameter":          {"POST", cbt, "amount=1&currency=usd&nope=1", 200, txn, "stripe-mock refuses"},
		"missing parameter":          {"POST", cbt, "currency=usd", 200, txn, "stripe-mock refuses"},
		"parameter of another type":  {"POST", cbt, "amount=x&currency=usd", 200, txn, "stripe-mock refuses"},
		"unknown query parameter":    {"GET", cbt, "customer=cus_1", 200, `{"data":[],"has_more":false,"object":"list","url":"/x"}`, "stripe-mock refuses"},
		"decline of a bad request":   {"POST", "/v1/payment_intents", "amount=1", 402, refusal, "stripe-mock refuses"},
		"no such call":               {"POST", "/v1/wallets", "", 200, txn, "no such call"},
		"missing property":           {"POST", cbt, "amount=1&currency=usd", 200, replace(txn, `"currency":"usd",`, ""), "currency is missing"},
		"null where there is none":   {"POST", cbt, "amount=1&currency=usd", 200, replace(txn, `"usd"`, "null"), "answer.currency: is null"},
		"number for string":          {"POST", cbt, "amount=1&currency=usd", 200, replace(txn, `"usd"`, "7"), "answer.currency: is a number"},
		"string for integer":         {"POST", cbt, "amount=1&currency=usd", 200, replace(txn, `-5`, `"-5"`), "answer.amount: is a string"},
		"fraction for integer":       {"POST", cbt, "amount=1&currency=usd", 200, replace(txn, `-5`, `-5.5`), "not an integer"},
		"bad enum":                   {"POST", cbt, "amount=1&currency=usd", 200, replace(txn, `"adjustment"`, `"usage"`), "not one of"},
		"property Stripe has not":    {"POST", cbt, "amount=1&currency=usd", 200, replace(txn, `"amount"`, `"extra":1,"amount"`), "no property extra"},
		"wrong object":               {"POST", cbt, "amount=1&currency=usd", 200, deletedCustomer, "is missing"},
		"row of a list":              {"GET", cbt, "limit=3", 200, `{"data":[` + replace(txn, `-5`, "null") + `],"has_more":false,"object":"list","url":"/x"}`, "answer.data[0].amount: is null"},
		"expanded object":            {"GET", "/v1/charges/ch_1", "", 200, replace(goodCharge, `"disputed"`, `"customer":{"id":"cus_1"},"disputed"`), "is missing"},
		"error without type":         {"POST", cbt, "amount=1&currency=usd", 400, `{"error":{"message":"no"}}`, "type is missing"},
		"error of an unknown type":   {"POST", cbt, "amount=1&currency=usd", 400, `{"error":{"type":"odd"}}`, "not one of"},
		"not JSON":                   {"POST", cbt, "amount=1&currency=usd", 500, `oops`, "not JSON"},
		"event about nothing":        {"GET", "/v1/events/evt_1", "", 200, event(`{"object":"wallet"}`, "{}"), `no object "wallet"`},
		"event with a broken object": {"GET", "/v1/events/evt_1", "", 200, event(`{"object":"charge"}`, "{}"), "is missing"},
		"event with a strange past":  {"GET", "/v1/events/evt_1", "", 200, event(goodCharge, `{"wallet":1}`), "no property wallet"},

		"good request":          {"POST", cbt, "amount=-5&currency=usd&metadata[a]=b", 200, txn, ""},
		"good list":             {"GET", cbt, "limit=3", 200, `{"data":[` + txn + `],"has_more":false,"object":"list","url":"/x"}`, ""},
		"deleted customer":      {"GET", "/v1/customers/cus_1", "", 200, deletedCustomer, ""},
		"customer just deleted": {"DELETE", "/v1/customers/cus_1", "", 200, deletedCustomer, ""},
		"expanded, deleted":     {"GET", "/v1/charges/ch_1", "", 200, replace(goodCharge, `"disputed"`, `"customer":`+deletedCustomer+`,"disputed"`), ""},
		"refusal":               {"POST", cbt, "nope=1", 400, refusal, ""},
		"good event":            {"GET", "/v1/events/evt_1", "", 200, event(goodCharge, `{"amount_refunded":0}`), ""},
	} {
		said := judged(t, c.method, c.path, c.form, c.status, c.body)
		if c.want == "" && len(said) > 0 {
			t.Errorf("%s: blamed: %v", name, said)
		}
		if c.want != "" && (len(said) != 1 || !strings.Contains(said[0], c.want)) {
			t.Errorf("%s: want %q, got %q", name, c.want, said)
		}
	}
}

func event(object, previous string) string {
	return `{"api_version":"2023-10-16","created":1,"data":{"object":` + object + `,"previous_attributes":` + previous + `},"id":"evt_1","livemode":false,
	"object":"event","pending_webhooks":0,"request":{"id":null,"idempotency_key":null},"type":"charge.succeeded"}`
}

// The receiver's requests are judged and handed on.
func TestReceiver(t *testing.T) {
	t.Parallel()
	for body, faults := range map[string]int{event(goodCharge, "{}"): 0, event(`{"object":"charge"}`, "{}"): 1, `{"id":"evt_1"}`: 1} {
		l, got := &listener{TB: t}, ""
		h := New(l).Receiver(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			got = string(b)
		}))
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/hook", strings.NewReader(body)))
		if len(l.said) != faults || got != body {
			t.Errorf("%s: %v", body, l.said)
		}
	}
}
