package stripeutil

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

func stripeError(typ, code string) string {
	return `{"error":{"type":"` + typ + `","code":"` + code + `","message":"because"}}`
}

// Each answer is retried exactly as often as the rule says, and keeps its meaning and Stripe's own words whether or
// not retries preceded it.
func TestAttemptsPerAnswer(t *testing.T) {
	hang := func(w http.ResponseWriter, _ *http.Request, _ int) { hangUp(w) }
	cutShort := func(w http.ResponseWriter, _ *http.Request, _ int) {
		reply(w, 200, `{"id":"pi_1","object":"pay`, "Content-Length", "500")
	}
	for name, tc := range map[string]struct {
		answer   func(http.ResponseWriter, *http.Request, int)
		call     func(*Client) error
		attempts int
		kind     error
		code     string
	}{
		"429 rate_limit":            {says(429, stripeError("invalid_request_error", "rate_limit")), charge, 5, ErrRateLimited, "rate_limit"},
		"429 lock_timeout":          {says(429, stripeError("invalid_request_error", "lock_timeout")), charge, 5, ErrRateLimited, "lock_timeout"},
		"409 key in use":            {says(409, stripeError("idempotency_error", "idempotency_key_in_use")), charge, 5, ErrUnknown, "idempotency_key_in_use"},
		"POST 500":                  {says(500, stripeError("api_error", "")), charge, 1, ErrUnknown, ""},
		"POST 502":                  {says(502, "<html>bad gateway</html>"), charge, 1, ErrUnknown, ""},
		"POST 500, told to retry":   {says(500, stripeError("api_error", ""), "Stripe-Should-Retry", "true"), charge, 5, ErrUnknown, ""},
		"GET 500":                   {says(500, stripeError("api_error", "")), readCustomer, 5, ErrUnknown, ""},
		"GET 500, told not to":      {says(500, stripeError("api_error", ""), "Stripe-Should-Retry", "false"), readCustomer, 1, ErrUnknown, ""},
		"503":                       {says(503, stripeError("api_error", "")), charge, 5, ErrUnknown, ""},
		"503, told not to":          {says(503, stripeError("api_error", ""), "Stripe-Should-Retry", "false"), charge, 1, ErrUnknown, ""},
		"429, told not to":          {says(429, stripeError("", "rate_limit"), "Stripe-Should-Retry", "false"), charge, 1, ErrRateLimited, "rate_limit"},
		"402":                       {says(402, stripeError("card_error", "card_declined")), charge, 1, ErrDeclined, "card_declined"},
		"400":                       {says(400, stripeError("invalid_request_error", "parameter_missing")), charge, 1, ErrInvalid, "parameter_missing"},
		"dropped connection, POST":  {hang, charge, 5, ErrUnknown, ""},
		"dropped connection, GET":   {hang, readCustomer, 5, ErrUnknown, ""},
		"body cut short":            {cutShort, charge, 5, ErrUnknown, ""},
		"a page instead of JSON":    {says(200, "<html>welcome to the hotel wifi</html>"), charge, 5, ErrUnknown, ""},
		"JSON that is no object":    {says(200, `[]`), charge, 1, ErrUnknown, ""},
		"an object of another kind": {says(200, `{}`), charge, 1, ErrUnknown, ""},
		"redirect":                  {says(307, "", "Location", "/v1/elsewhere"), charge, 1, ErrUnknown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWire(t, tc.answer)
			err := tc.call(clientFor(t, s))
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, tc.kind) {
				t.Fatalf("got %v, want %v", err, tc.kind)
			}
			if e.Code != tc.code {
				t.Errorf("code %q, want %q", e.Code, tc.code)
			}
			if got := len(s.seen()); got != tc.attempts {
				t.Errorf("%d attempts, want %d", got, tc.attempts)
			}
		})
	}
}

// A retry that succeeds is a success, and each attempt carries the same key and the same bytes.
func TestEveryAttemptIsTheSameRequest(t *testing.T) {
	s := newWire(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		switch n {
		case 1:
			hangUp(w)
		case 2:
			reply(w, 409, stripeError("invalid_request_error", "idempotency_key_in_use"))
		case 3:
			reply(w, 200, `{"id":"pi`) // executed, and the answer lost on the way
		default:
			reply(w, 200, paymentJSON)
		}
	})
	c := clientFor(t, s)
	pi, err := c.ChargeSavedMethod(t.Context(), chargeParams)
	if err != nil || pi.ID != "pi_1" {
		t.Fatalf("got %+v, %v", pi, err)
	}
	seen := s.seen()
	if len(seen) != 4 {
		t.Fatalf("%d attempts, want 4", len(seen))
	}
	for i, a := range seen {
		if a.key != chargeParams.IdempotencyKey || a.body != seen[0].body || a.body == "" {
			t.Errorf("attempt %d: key %q body %q, first body %q", i+1, a.key, a.body, seen[0].body)
		}
	}
	// Two calls with the same parameters are byte-equal too: maps are sent in a fixed order.
	for range 20 {
		if err := charge(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range s.seen() {
		if a.body != seen[0].body {
			t.Fatalf("bytes differ:\n%s\n%s", a.body, seen[0].body)
		}
	}
}

// A refusal that Stripe gives before it looks at the key says nothing about an earlier attempt that may have been
// executed; one it gives from the key's memory does.
func TestDoubtOutlivesALaterRefusal(t *testing.T) {
	for name, tc := range map[string]struct {
		first  func(http.ResponseWriter)
		status int
		body   string
		call   func(*Client) error
		kind   error
	}{
		"dropped, then 429":      {hangUp, 429, stripeError("", "rate_limit"), charge, ErrUnknown},
		"dropped, then 401":      {hangUp, 401, stripeError("invalid_request_error", ""), charge, ErrUnknown},
		"dropped, then 402":      {hangUp, 402, stripeError("card_error", "card_declined"), charge, ErrDeclined},
		"dropped, then 400":      {hangUp, 400, stripeError("invalid_request_error", "x"), charge, ErrInvalid},
		"503, then 429":          {func(w http.ResponseWriter) { reply(w, 503, "{}") }, 429, stripeError("", "rate_limit"), charge, ErrUnknown},
		"409, then 429":          {func(w http.ResponseWriter) { reply(w, 409, "{}") }, 429, stripeError("", "rate_limit"), charge, ErrUnknown},
		"429, then 401":          {func(w http.ResponseWriter) { reply(w, 429, "{}") }, 401, stripeError("invalid_request_error", ""), charge, ErrAuth},
		"read: dropped, 429":     {hangUp, 429, stripeError("", "rate_limit"), readCustomer, ErrRateLimited},
		"read: 500, then 401":    {func(w http.ResponseWriter) { reply(w, 500, "{}") }, 401, stripeError("", ""), readCustomer, ErrAuth},
		"read: 500 and then 404": {func(w http.ResponseWriter) { reply(w, 500, "{}") }, 404, stripeError("", "resource_missing"), readCustomer, ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWire(t, func(w http.ResponseWriter, _ *http.Request, n int) {
				if n == 1 {
					tc.first(w)
					return
				}
				reply(w, tc.status, tc.body)
			})
			if err := tc.call(clientFor(t, s)); !errors.Is(err, tc.kind) {
				t.Errorf("got %v, want %v", err, tc.kind)
			}
		})
	}
}

// Retry-After is obeyed while it fits the call, and otherwise ends it at once with Stripe's answer kept.
func TestRetryAfter(t *testing.T) {
	for _, after := range []string{"86400", "99999999999999999999", "9223372036854775807", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		s := newWire(t, says(429, stripeError("", "rate_limit"), "Retry-After", after))
		start := time.Now()
		err := charge(clientFor(t, s))
		var e *Error
		if !errors.As(err, &e) || e.Kind != ErrRateLimited || e.Code != "rate_limit" || e.RequestID != "req_123" {
			t.Errorf("Retry-After %s: %v", after, err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("Retry-After %s: returned after %s", after, took)
		}
		if n := len(s.seen()); n != 1 {
			t.Errorf("Retry-After %s: %d attempts", after, n)
		}
	}

	for _, after := range []string{"soon", "-1", "-99999999999999999999", "Fri, 31 Dec 1999 23:59:59 GMT", ""} {
		s := newWire(t, says(429, stripeError("", "rate_limit"), "Retry-After", after))
		if err := charge(clientFor(t, s)); !errors.Is(err, ErrRateLimited) || len(s.seen()) != 5 {
			t.Errorf("Retry-After %q: %v after %d attempts", after, err, len(s.seen()))
		}
	}

	s := newWire(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		if n == 1 {
			reply(w, 503, "{}", "Retry-After", "1")
			return
		}
		reply(w, 200, paymentJSON)
	})
	start := time.Now()
	if err := charge(clientFor(t, s)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < time.Second {
		t.Errorf("asked to wait 1 s, came back after %s", took)
	}
}

func TestBackoffGrowsWithJitter(t *testing.T) {
	b := backoff{base: 100 * time.Millisecond, max: 500 * time.Millisecond}
	for n, full := range []time.Duration{100, 200, 400, 500, 500} {
		full *= time.Millisecond
		for range 200 {
			if d := b.next(n, 0); d < full/2 || d > full {
				t.Fatalf("retry %d waits %s, want between %s and %s", n, d, full/2, full)
			}
		}
	}
	if d := b.next(0, 7*time.Second); d < 7*time.Second || d > 7*time.Second+50*time.Millisecond {
		t.Errorf("asked for 7 s, waits %s", d)
	}
	if d := b.next(0, math.MaxInt64); d != math.MaxInt64 {
		t.Errorf("a wait without end overflowed to %s", d)
	}
}

// The call ends at its deadline, whoever set it, and says that nothing is known.
func TestDeadline(t *testing.T) {
	release := make(chan struct{})
	s := newWire(t, func(_ http.ResponseWriter, r *http.Request, _ int) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	slow := clientFor(t, s, func(c *Config) { c.CallTimeout = 100 * time.Millisecond })
	start := time.Now()
	err := charge(slow)
	if !errors.Is(err, ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("own deadline: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = clientFor(t, s).Customer(ctx, "cus_1")
	if !errors.Is(err, ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("caller's deadline: %v", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("both took %s", took)
	}
}

// A wait between attempts ends when the caller goes away.
func TestCancelWhileWaiting(t *testing.T) {
	s := newWire(t, says(429, stripeError("", "rate_limit"), "Retry-After", "10"))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	start := time.Now()
	_, err := clientFor(t, s).ChargeSavedMethod(ctx, chargeParams)
	if !errors.Is(err, ErrRateLimited) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}

// The limiter stands before every attempt. A call it cannot let go in time was not executed, and says so.
func TestLimiter(t *testing.T) {
	s := newWire(t, says(200, customerJSON))
	c := clientFor(t, s, func(c *Config) { c.RequestsPerSecond = 20 })
	start := time.Now()
	for range 12 { // burst 2, so ten wait 50 ms each
		if err := readCustomer(c); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < 450*time.Millisecond {
		t.Errorf("12 calls at 20 a second took %s", took)
	}

	c = clientFor(t, s, func(c *Config) { c.RequestsPerSecond, c.CallTimeout = 0.01, time.Second })
	if err := readCustomer(c); err != nil {
		t.Fatal(err)
	}
	before := len(s.seen())
	if err := charge(c); !errors.Is(err, ErrRateLimited) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Customer(ctx, "cus_1"); !errors.Is(err, ErrRateLimited) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before it was sent: %v", err)
	}
	if got := len(s.seen()); got != before {
		t.Errorf("%d requests went out all the same", got-before)
	}
}

// net/http resends a request with an Idempotency-Key by itself when a pooled connection dies, unless it cannot get
// the body again. That would be a second retry layer.
func TestNoRetryBelowOurs(t *testing.T) {
	t.Run("with a body", func(t *testing.T) { noRetryBelowOurs(t, charge) })
	t.Run("without", func(t *testing.T) {
		noRetryBelowOurs(t, func(c *Client) error {
			_, err := c.CancelPaymentIntent(t.Context(), "pi_1", "k")
			return err
		})
	})
}

func noRetryBelowOurs(t *testing.T, call func(*Client) error) {
	s := newWire(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		if n == 1 {
			reply(w, 200, paymentJSON) // leaves a pooled connection
			return
		}
		hangUp(w)
	})
	trips := &counting{base: http.DefaultTransport.(*http.Transport).Clone()}
	c := clientFor(t, s, func(c *Config) { c.Transport = trips })
	if err := charge(c); err != nil {
		t.Fatal(err)
	}
	if err := call(c); !errors.Is(err, ErrUnknown) {
		t.Fatalf("got %v", err)
	}
	if got := len(s.seen()); got != trips.n || got != 6 {
		t.Errorf("we sent %d requests, the server saw %d, want 6", trips.n, got)
	}
}

type counting struct {
	base http.RoundTripper
	n    int
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n++
	return c.base.RoundTrip(r)
}

// An answer without end is not read to the end.
func TestAnswerIsBounded(t *testing.T) {
	endless := roundTrip(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(zeros{})}, nil
	})
	at := &attemptTransport{base: endless, pace: newPace(1e6)}
	req, _ := http.NewRequest("POST", "http://stripe.test", strings.NewReader("x"))
	if _, err := at.RoundTrip(req); !errors.Is(err, errTooLarge) {
		t.Errorf("got %v", err)
	}
	if retryable("POST", nil, errTooLarge) {
		t.Error("it would be asked for again")
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
