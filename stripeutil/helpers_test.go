package stripeutil

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

const testKey = "sk_test_51SecretDoNotShow"

// sent is one attempt as it arrived.
type sent struct {
	method, path, query, body, key string
	header                         http.Header
}

// wire is a Stripe that answers by a script and remembers what it was sent.
type wire struct {
	*httptest.Server
	mu       sync.Mutex
	attempts []sent
}

// newWire starts a server; answer is called with the number of the attempt, from 1.
func newWire(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, n int)) *wire {
	t.Helper()
	s := &wire{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.attempts = append(s.attempts, sent{
			method: r.Method, path: r.URL.Path, query: r.URL.RawQuery, body: string(body),
			key: r.Header.Get("Idempotency-Key"), header: r.Header.Clone(),
		})
		n := len(s.attempts)
		s.mu.Unlock()
		answer(w, r, n)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *wire) seen() []sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]sent(nil), s.attempts...)
}

// says answers every attempt alike.
func says(status int, body string, header ...string) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, _ *http.Request, _ int) { reply(w, status, body, header...) }
}

func reply(w http.ResponseWriter, status int, body string, header ...string) {
	w.Header().Set("Request-Id", "req_123")
	w.Header().Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		w.Header().Set(header[i], header[i+1])
	}
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		conn.Close()
	}
}

// fast makes waits between attempts too short to notice.
var fast = backoff{base: time.Microsecond, max: time.Microsecond}

func clientFor(t *testing.T, s *wire, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{SecretKey: testKey, APIBase: s.URL, RequestsPerSecond: 1e6}
	for _, f := range change {
		f(&cfg)
	}
	c, err := newClient(cfg, fast)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	customerJSON = `{"id":"cus_1","object":"customer"}`
	paymentJSON  = `{"id":"pi_1","object":"payment_intent","status":"succeeded","amount":500,"currency":"usd"}`
)

var chargeParams = ChargeParams{
	Customer: "cus_1", PaymentMethod: "pm_1", Amount: 500, Currency: "usd", Description: "Top-up & more",
	Metadata:       map[string]string{"topup": "t1", "attempt": "1", "wallet": "w", "zone": "z", "app": "a"},
	IdempotencyKey: "topup:t1:attempt:1",
}

func charge(c *Client) error {
	_, err := c.ChargeSavedMethod(context.Background(), chargeParams)
	return err
}

func readCustomer(c *Client) error {
	_, err := c.Customer(context.Background(), "cus_1")
	return err
}
