package stripesim

import (
	"crypto/subtle"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds a request; Stripe's own forms stay far below.
const maxBody = 1 << 20

// answer is what a call is answered with.
type answer struct {
	status   int
	body     []byte
	header   http.Header // beside the ones every answer has
	replayed bool
	events   []string // ids of the events that the call made
	early    []early  // those of them that it waits for
}

func refusal(e *apiError) *answer {
	return &answer{status: e.status, body: pretty(map[string]any{"error": e})}
}

// request is one HTTP request as the simulator sees it.
type request struct {
	method, path, id, key string
	form                  url.Values
	fault                 *Fault
}

// ServeHTTP answers a Stripe API request. The order is Stripe's: who are you,
// not so fast, have I done this before, and only then the work.
func (s *Sim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.hosted(w, r) {
		return
	}
	q := &request{method: r.Method, path: r.URL.Path, id: newID("req_", 14), key: r.Header.Get("Idempotency-Key")}
	// Idempotency is a matter of POST alone: GET and DELETE are idempotent.
	if q.method != http.MethodPost {
		q.key = ""
	}
	var a *answer
	form, bad := readForm(w, r)
	q.form = form
	s.mu.Lock()
	q.fault = s.takeFault(q)
	s.mu.Unlock()
	switch refused := s.door(r, q.fault); {
	case q.fault.is(DropBefore):
		s.record(q, &answer{})
		hangUp(w)
		return
	case refused != nil:
		a = refusal(refused)
		if refused.Code == "rate_limit" || refused.Code == "lock_timeout" {
			a.header = http.Header{"Stripe-Rate-Limited-Reason": {limitReason(refused.Code)}}
		}
	case bad != nil:
		a = refusal(bad)
	default:
		a = s.idempotent(q)
	}
	if q.fault != nil && q.fault.EventFirst && len(a.events) > 0 {
		s.waitDelivered(r.Context(), a.events)
	}
	for _, e := range a.early {
		s.waitDelivered(r.Context(), []string{e.event})
		e.wait()
	}
	s.record(q, a)
	s.write(w, r, q, a)
}

// door turns away who has no key, who comes too fast, and whom a fault sends
// off. Nothing of what it refuses is saved under an idempotency key.
func (s *Sim) door(r *http.Request, f *Fault) *apiError {
	if err := s.authorize(r); err != nil {
		return err
	}
	if s.limited() {
		return errRateLimit
	}
	if f == nil {
		return nil
	}
	switch f.Kind {
	case Unauthorized:
		return errInvalidKey(s.key)
	case Forbidden:
		return errNoRight(s.key, r.URL.Path)
	case RateLimited:
		return errRateLimit
	case LockTimeout:
		return errLockTimeout
	case Conflict:
		return errKeyInUse(r.Header.Get("Idempotency-Key"))
	case Unavailable:
		return errUnavailable
	}
	return nil
}

func limitReason(code string) string {
	if code == "lock_timeout" {
		return "resource-specific"
	}
	return "global-rate"
}

func (s *Sim) authorize(r *http.Request) *apiError {
	key, _, ok := r.BasicAuth()
	if !ok {
		key, ok = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	if !ok || key == "" {
		return errNoKey
	}
	if subtle.ConstantTimeCompare([]byte(key), []byte(s.key)) != 1 {
		return errInvalidKey(key)
	}
	return nil
}

// readForm takes the parameters from the query and, for POST and DELETE, from
// the form-encoded body.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, *apiError) {
	form, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return form, badRequest("", "", "Invalid query string")
	}
	if r.Method == http.MethodGet {
		return form, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return form, refuse(http.StatusRequestEntityTooLarge, "", "", "Request body is too large or was cut short")
	}
	if len(body) == 0 {
		return form, nil
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if kind != "" && strings.TrimSpace(kind) != "application/x-www-form-urlencoded" {
		return form, badRequest("", "", "Invalid request (check that your POST content type is application/x-www-form-urlencoded). If you have any questions, we can help at https://support.stripe.com/.")
	}
	sent, err := url.ParseQuery(string(body))
	if err != nil {
		return form, badRequest("", "", "Invalid request: the body is not form-encoded")
	}
	for k, v := range sent {
		form[k] = append(form[k], v...)
	}
	return form, nil
}

func (s *Sim) write(w http.ResponseWriter, r *http.Request, q *request, a *answer) {
	if q.fault.is(DropAfter) {
		hangUp(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Date", s.Now().UTC().Format(http.TimeFormat))
	h.Set("Request-Id", q.id)
	h.Set("Stripe-Version", APIVersion)
	if v := r.Header.Get("Stripe-Version"); v != "" {
		h.Set("Stripe-Version", v)
	}
	if q.key != "" {
		h.Set("Idempotency-Key", q.key)
	}
	if a.replayed {
		h.Set("Idempotent-Replayed", "true")
	}
	for k, v := range a.header {
		h[k] = v
	}
	if f := q.fault; f != nil {
		if f.RetryAfter != "" {
			h.Set("Retry-After", f.RetryAfter)
		}
		if f.ShouldRetry != "" {
			h.Set("Stripe-Should-Retry", f.ShouldRetry)
		}
	}
	if q.fault.is(TruncateBody) {
		truncate(w, a)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	w.Write(a.body)
}

// hangUp closes the connection without an answer. Two bytes go out first:
// net/http's client silently repeats a request that carries an Idempotency-Key
// when a reused connection ends before the first byte, and the caller would
// never learn of the failure that it is to be tested with.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	io.WriteString(conn, "HT")
	conn.Close()
}

// truncate promises the whole body and sends half.
func truncate(w http.ResponseWriter, a *answer) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	io.WriteString(conn, "HTTP/1.1 "+strconv.Itoa(a.status)+" "+http.StatusText(a.status)+"\r\n")
	w.Header().Write(conn)
	io.WriteString(conn, "\r\n")
	conn.Write(a.body[:len(a.body)/2])
	conn.Close()
}

func (s *Sim) limited() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limiter != nil && !s.limiter.take(s.now())
}

// bucket is a token bucket that holds one second's worth.
type bucket struct {
	rate, tokens float64
	last         time.Time
}

func (b *bucket) take(now time.Time) bool {
	if !b.last.IsZero() {
		b.tokens = min(b.rate, b.tokens+now.Sub(b.last).Seconds()*b.rate)
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
