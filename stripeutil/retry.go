package stripeutil

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// The one retry layer.
//
//	stripe-go (its retries off) → retryTransport → retryablehttp → attemptTransport → the wire
//
// retryTransport fixes the request's bytes and lets retryablehttp drive up to five attempts by the policy in this
// file. attemptTransport sends one of them, in its turn (pace.go), and reads the whole answer, so that a body cut short
// counts as a network error and is asked for again under the same idempotency key, which replays it.

const (
	// retryMax is the number of attempts after the first.
	retryMax = 4
	// maxAnswer bounds what is read of one answer. A page of 100 events is around 1 MB.
	maxAnswer = 16 << 20
)

// backoff is the shape of the waits: the n-th retry waits base·2ⁿ, at most max, less a random part of up to a half.
type backoff struct{ base, max time.Duration }

// Worst case 0.5+1+2+4 s: four retries fit the default call timeout with time left to answer.
var defaultBackoff = backoff{base: 500 * time.Millisecond, max: 8 * time.Second}

// trace is what one call did on the wire. It belongs to the goroutine of the call.
type trace struct {
	method   string
	attempts int
	sent     bool // at least one attempt left this process
	// doubt: an attempt that was followed by another one may have been executed.
	doubt bool
	// Of the last attempt: its status (0 without an answer), request id, Date header, body and transport error.
	status    int
	oneObject bool // a 429 about one object alone
	requestID string
	date      string
	body      []byte
	failure   error
}

type traceKey struct{}

func traceFrom(ctx context.Context) *trace {
	if t, ok := ctx.Value(traceKey{}).(*trace); ok {
		return t
	}
	return &trace{}
}

// Faults of an attempt that another attempt cannot cure.
var (
	errNotSent  = errors.New("the rate limit of this client left no room before the deadline")
	errRedirect = errors.New("the answer is a redirect, which is not followed: the API base is not Stripe's API")
	errTooLarge = fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
)

// errNotJSON is a 2xx whose body is not JSON: cut short, or a proxy's page.
var errNotJSON = errors.New("the answer is not JSON")

type retryTransport struct {
	attempts *http.Client
	waits    backoff
	// room is the time an attempt should have before the deadline. Starting one with less would trade a known "not
	// executed" for a time-out that says nothing.
	room time.Duration
}

func newRetryTransport(base http.RoundTripper, p *pace, waits backoff, room time.Duration) *retryTransport {
	return &retryTransport{
		attempts: &http.Client{Transport: &attemptTransport{base: base, pace: p, room: room}},
		waits:    waits,
		room:     room,
	}
}

// RoundTrip drives the attempts of one call.
func (rt *retryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req, err := withFixedBody(req)
	if err != nil {
		return nil, err
	}
	// The policy and the wait it chose belong to this call, so the (small) retry client does too.
	var wait time.Duration
	retry := 0
	client := &retryablehttp.Client{
		HTTPClient: rt.attempts,
		RetryMax:   retryMax,
		CheckRetry: func(ctx context.Context, resp *http.Response, err error) (bool, error) {
			t := traceFrom(ctx)
			if ctx.Err() != nil || !retryable(req.Method, resp, err) {
				return false, nil
			}
			wait = rt.waits.next(retry, retryAfter(resp))
			if !fits(ctx, wait, rt.room) || retry == retryMax {
				return false, nil
			}
			retry++
			t.doubt = t.doubt || mayHaveExecuted(req.Method, resp, err)
			return true, nil
		},
		Backoff: func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return wait },
		// Without it the last answer, and Stripe's reason in it, would be replaced by "giving up after 5 attempts".
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	resp, err := (&retryablehttp.RoundTripper{Client: client}).RoundTrip(req)
	if err != nil && traceFrom(req.Context()).failure == nil {
		traceFrom(req.Context()).failure = err
	}
	return resp, err
}

// withFixedBody returns a copy of the request whose body is one known byte string with its length. stripe-go leaves
// the length open, which sends it chunked. It drops GetBody for the reason given at unrepeatable.
func withFixedBody(req *http.Request) (*http.Request, error) {
	req = req.Clone(req.Context())
	if req.Body == nil {
		return req, nil
	}
	b, err := io.ReadAll(req.Body)
	req.Body.Close()
	if err != nil {
		return nil, err
	}
	req.Body, req.GetBody, req.ContentLength = nil, nil, 0
	if len(b) > 0 {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	}
	return req, nil
}

// retryable is the rule, from docs.stripe.com/error-low-level: Stripe's own advice first; then network errors, a key
// or object in use (409, 429) and 503. A 402 is an answer. The 500 of a POST is saved under its key, so another
// attempt would only replay it, while webhooks may still tell that it was executed: the caller looks it up.
func retryable(method string, resp *http.Response, err error) bool {
	if err != nil {
		var cert *tls.CertificateVerificationError
		return !errors.Is(err, errNotSent) && !errors.Is(err, errRedirect) && !errors.Is(err, errTooLarge) &&
			!errors.As(err, &cert)
	}
	switch resp.Header.Get("Stripe-Should-Retry") {
	case "true":
		return true
	case "false":
		return false
	}
	switch resp.StatusCode {
	case http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true
	}
	return resp.StatusCode >= 500 && method != http.MethodPost
}

// mayHaveExecuted says whether an attempt with this outcome could have changed something at Stripe. A 409 counts,
// because the request that holds the key may be an earlier attempt of the same call.
func mayHaveExecuted(method string, resp *http.Response, err error) bool {
	if method == http.MethodGet {
		return false
	}
	return err != nil || resp.StatusCode >= 500 || resp.StatusCode == http.StatusConflict
}

// next is the wait before retry number n (from 0): exponential with jitter, and never less than Stripe asked for.
func (b backoff) next(n int, asked time.Duration) time.Duration {
	d := min(b.base<<n, b.max)
	jittered := d - rand.N(d/2+1)
	if asked <= 0 {
		return jittered
	}
	if asked > math.MaxInt64-jittered {
		return math.MaxInt64
	}
	// A little on top, so that all who were told the same second do not come back together.
	return asked + jittered/4
}

// fits reports whether a wait, and an attempt after it, end before the call's deadline.
func fits(ctx context.Context, wait, room time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return !ok || wait < time.Until(deadline)-room
}

// retryAfter reads the header as seconds or as an HTTP date; 0 means nothing usable was said.
func retryAfter(resp *http.Response) time.Duration {
	if resp == nil {
		return 0
	}
	h := resp.Header.Get("Retry-After")
	// A number out of range comes back as the nearest that fits, which is what it means.
	if s, err := strconv.ParseInt(h, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		if s > int64(math.MaxInt64/time.Second) {
			return math.MaxInt64
		}
		return time.Duration(max(0, s)) * time.Second
	}
	if at, err := http.ParseTime(h); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// attemptTransport sends one attempt and reads its answer to the end.
type attemptTransport struct {
	base http.RoundTripper
	pace *pace
	room time.Duration // as in retryTransport
}

// RoundTrip waits for its turn, sends, reads, and notes the outcome in the call's trace.
func (at *attemptTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	t := traceFrom(req.Context())
	blocked, err := at.pace.turn(req.Context())
	if err == nil && blocked && !fits(req.Context(), 0, at.room) { // it came too late
		at.pace.giveBack()
		err = errNotSent
	}
	if err != nil {
		closeBody(req)
		// What an earlier attempt was answered stays in the trace: it says more than our own hurry.
		t.failure = errors.Join(errNotSent, req.Context().Err())
		return nil, t.failure
	}
	sent := time.Now()
	at.pace.sent[classOf(req.Context())].Add(1)
	t.attempts++
	t.sent = true
	t.status, t.oneObject, t.requestID, t.date, t.body, t.failure = 0, false, "", "", nil, nil
	resp, err := at.base.RoundTrip(unrepeatable(req))
	if err != nil {
		t.failure = err
		return nil, err
	}
	body, err := readAnswer(resp)
	if err != nil {
		t.failure = err
		return nil, err
	}
	if resp.StatusCode == http.StatusTooManyRequests {
		if t.oneObject = isOneObject(resp, body); !t.oneObject {
			at.pace.slow(classOf(req.Context()), resp, sent)
		}
	}
	t.status, t.requestID, t.date, t.body = resp.StatusCode, resp.Header.Get("Request-Id"), resp.Header.Get("Date"), body
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, nil
}

// unrepeatable keeps net/http from resending a write by itself. It does so when a pooled connection turns out dead
// and the request has an Idempotency-Key and a body that it can get again (GetBody), or none: a second retry layer,
// which neither the limiter nor the count of attempts would see.
func unrepeatable(req *http.Request) *http.Request {
	if req.Method == http.MethodGet || req.Body != nil && req.Body != http.NoBody {
		return req
	}
	once := *req
	once.Body = io.NopCloser(bytes.NewReader(nil))
	return &once
}

func readAnswer(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, errRedirect
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the answer broke off: %w", err)
	case len(body) > maxAnswer:
		return nil, errTooLarge
	case resp.StatusCode < 300 && !json.Valid(body):
		return nil, errNotJSON
	}
	return body, nil
}

// closeBody keeps a RoundTripper's duty to close the body of a request it does not send.
func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
