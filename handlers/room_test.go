package handlers

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
	"lockstep/stripeutil"
)

func TestMain(m *testing.M) { ledgertest.Main(m) }

const testKey, testSecret = "lsk_test_of_the_rooms", "whsec_test_of_the_rooms"

// newServer is the whole service but its workers, on a ledger of its own behind a line.
func newServer(t *testing.T) (s *Server, line *ledgertest.Line, database string) {
	t.Helper()
	database = ledgertest.URL(t)
	line, url := ledgertest.NewLine(t, database)
	l := ledgertest.New(t, ledger.Options{URL: url, Render: Render})
	client, err := stripeutil.New(stripeutil.Config{SecretKey: "sk_test_rooms", APIBase: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetFirstKey(t.Context(), testKey); err != nil {
		t.Fatal(err)
	}
	s = &Server{Ledger: l, Stripe: client, WebhookSecrets: []string{testSecret}, Log: slog.New(slog.DiscardHandler)}
	s.Handler()
	ref := newTestCustomer(t, l, "acme")
	if _, _, err := l.Grant(t.Context(), ledger.GrantInput{Customer: ref.ID, Amount: ledger.Decimal{Digits: 100}, Kind: "promotional", Priority: 50}, ledger.Once{}); err != nil {
		t.Fatal(err)
	}
	return s, line, database
}

func newTestCustomer(t *testing.T, l *ledger.Ledger, id string) ledger.Ref {
	t.Helper()
	c, _, err := l.CreateCustomer(t.Context(), ledger.CustomerInput{ID: id}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Ref
}

// ask asks the service; headers are names and values in turn.
func (s *Server) ask(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+testKey)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

// webhook sends an event as Stripe does.
func (s *Server) webhook(id string) *httptest.ResponseRecorder {
	now := time.Now().Unix()
	body := fmt.Sprintf(`{"id":%q,"object":"event","type":"customer.updated","api_version":"2023-10-16","created":%d,"livemode":false,"data":{"object":{"id":"cus_1","object":"customer"}}}`, id, now)
	mac := hmac.New(sha256.New, []byte(testSecret))
	fmt.Fprintf(mac, "%d.%s", now, body)
	return s.ask("POST", "/webhooks/stripe", body, "Stripe-Signature", fmt.Sprintf("t=%d,v1=%s", now, hex.EncodeToString(mac.Sum(nil))))
}

// refusedWith fails the test unless an answer is a refusal that a client may try again, without a word of what is inside.
func refusedWith(t *testing.T, what string, w *httptest.ResponseRecorder, status int, kind, code string) {
	t.Helper()
	var body struct {
		Error errorBody `json:"error"`
	}
	err := json.Unmarshal(w.Body.Bytes(), &body)
	if err != nil || w.Code != status || body.Error.Type != kind || body.Error.Code != code || body.Error.RequestID == "" || w.Header().Get("Retry-After") != "1" {
		t.Errorf("%s: %d %s, Retry-After %q, %v", what, w.Code, w.Body, w.Header().Get("Retry-After"), err)
	}
	discreet(t, what, w)
}

func discreet(t *testing.T, what string, w *httptest.ResponseRecorder) {
	t.Helper()
	for _, inside := range []string{"pq:", "127.0.0.1", "connect", "dial", "EOF", "driver", "context"} {
		if strings.Contains(w.Body.String(), inside) {
			t.Errorf("%s says %q of what is inside: %s", what, inside, w.Body)
		}
	}
}

// Where every place for the API is taken, each call is refused before anything is done, and what has to go on goes on:
// webhooks from Stripe, health, readiness and metrics. As soon as there is room all is well again.
func TestFullRooms(t *testing.T) {
	t.Parallel()
	s, _, _ := newServer(t)
	calls := []struct{ method, path, body, room string }{
		{"POST", "/v1/usage", `{"customer":"acme","amount":"1"}`, "usage"},
		{"POST", "/v1/usage/batch", `{"events":[{"customer":"acme","amount":"1"}]}`, "batch"},
		{"GET", "/v1/customers/acme/check?amount=1", "", "usage"},
		{"POST", "/v1/grants", `{"customer":"acme","amount":"1","kind":"promotional"}`, "books"},
		{"POST", "/v1/topups", `{"customer":"acme","amount":"1","mode":"charge"}`, "stripe"},
		{"GET", "/v1/reports/revenue", "", "reports"},
	}
	if w := s.ask("GET", "/v1/customers/acme", ""); w.Code != 200 { // the key is known from here on
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, r := range s.rooms.all() {
		r.patience = min(r.patience, 10*time.Millisecond)
		if r.name != "webhooks" {
			for range cap(r.slots) {
				r.slots <- struct{}{}
			}
		}
	}
	for _, c := range calls {
		refusedWith(t, c.method+" "+c.path, s.ask(c.method, c.path, c.body), 429, "rate_limit_error", "rate_limited")
	}
	if w := s.webhook("evt_1"); w.Code != 200 {
		t.Errorf("a webhook: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/metrics"} {
		w := s.ask("GET", path, "")
		if w.Code != 200 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if path != "/metrics" {
			continue
		}
		for _, want := range []string{`lockstep_shed_total{room="usage"} 2`, `lockstep_shed_total{room="books"} 1`, `lockstep_requests_at_work{room="usage"} 2048`,
			`lockstep_requests_waiting{room="books"} 0`, "lockstep_debits_waiting 0", "lockstep_debits_waiting_seconds 0"} {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("the metrics lack %s", want)
			}
		}
	}
	for range cap(s.rooms.webhooks.slots) {
		s.rooms.webhooks.slots <- struct{}{}
	}
	refusedWith(t, "one webhook too many", s.webhook("evt_2"), 503, "api_error", "unavailable")
	for _, r := range s.rooms.all() {
		for range cap(r.slots) {
			r.leave()
		}
	}
	for _, c := range calls[:4] {
		if w := s.ask(c.method, c.path, c.body); w.Code/100 != 2 {
			t.Errorf("with room again, %s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	if w := s.ask("GET", "/v1/customers/acme/check?amount=1", ""); !strings.Contains(w.Body.String(), `"available":"99"`) { // 100 - 2 + 1
		t.Errorf("what was refused was done: %s", w.Body)
	}
}

// Who waits at a door gets the place that becomes free, and who goes away does not keep it.
func TestWaitingAtTheDoor(t *testing.T) {
	t.Parallel()
	var m Metrics
	r := newRooms(&m, 2).books
	r.patience = time.Minute
	for range cap(r.slots) {
		r.slots <- struct{}{}
	}
	gone, leave := context.WithCancel(t.Context())
	left, in := make(chan error), make(chan error)
	go func() { left <- r.enter(gone) }()
	leave()
	if err := <-left; err == nil {
		t.Error("who went away was let in")
	}
	go func() { in <- r.enter(t.Context()) }()
	for r.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	r.leave()
	if err := <-in; err != nil {
		t.Errorf("who waited: %v", err)
	}
	r.waiting.Store(maxWaiting)
	if err := r.enter(t.Context()); err == nil || err.Error() == "" {
		t.Error("one too many waits")
	}
}

// While the database is away every call is refused so that it can be tried again, and nothing of it is done or kept; a
// batch whose events failed answers each in its place. Once it is back the same keys have their effect, once.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	s, line, database := newServer(t)
	const usage, batch = `{"customer":"acme","amount":"1","idempotency_key":"u1"}`, `{"events":[{"customer":"acme","amount":"1"},{"amount":"1"},{"customer":"acme","amount":"2"}]}`
	if w := s.ask("GET", "/v1/customers/acme", ""); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	line.To(t, "postgres://127.0.0.1:1/nowhere")
	line.Cut()
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/usage", usage},
		{"POST", "/v1/grants", `{"customer":"acme","amount":"1","kind":"promotional"}`},
		{"GET", "/v1/customers/acme", ""},
		{"GET", "/v1/reports/revenue", ""},
		{"POST", "/v1/usage/batch", ""},
	} {
		var headers []string
		if c.body == "" && c.method == "POST" {
			c.body, headers = batch, []string{"Idempotency-Key", "b1"} // its key can't be looked up
		}
		refusedWith(t, c.method+" "+c.path, s.ask(c.method, c.path, c.body, headers...), 503, "api_error", "unavailable")
	}
	refusedWith(t, "a webhook", s.webhook("evt_1"), 503, "api_error", "unavailable")
	w := s.ask("POST", "/v1/usage/batch", batch)
	discreet(t, "a batch", w)
	if b := w.Body.String(); w.Code != 200 || !strings.Contains(b, `"accepted":0,"rejected":3`) || strings.Count(b, `"unavailable"`) != 2 || strings.Count(b, `"parameter_missing"`) != 1 {
		t.Errorf("a batch: %d %s", w.Code, b)
	}
	if w := s.ask("GET", "/readyz", ""); w.Code != 503 {
		t.Errorf("ready: %d %s", w.Code, w.Body)
	}
	if w := s.ask("GET", "/healthz", ""); w.Code != 200 {
		t.Errorf("healthy: %d", w.Code)
	}
	line.To(t, database)
	eventually(t, "ready again", func() bool { return s.ask("GET", "/readyz", "").Code == 200 })
	for _, replayed := range []string{"", "true"} {
		if w := s.ask("POST", "/v1/usage", usage); w.Code != 200 || w.Header().Get("Idempotent-Replayed") != replayed {
			t.Errorf("again, replayed %q: %d %v %s", replayed, w.Code, w.Header(), w.Body)
		}
	}
	if w := s.ask("GET", "/v1/customers/acme/check?amount=1", ""); !strings.Contains(w.Body.String(), `"available":"99"`) {
		t.Errorf("more or less was booked than once: %s", w.Body)
	}
}

// A batch under a key whose events were refused for now is not answered so for ever: sent again it books them, and those
// that were booked before are not booked twice.
func TestBatchIsTriedAgain(t *testing.T) {
	t.Parallel()
	s, _, _ := newServer(t)
	newTestCustomer(t, s.Ledger, "bob")
	if w := s.ask("POST", "/v1/grants", `{"customer":"bob","amount":"10","kind":"promotional"}`); w.Code != 201 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	const batch = `{"events":[{"customer":"bob","amount":"1"},{"customer":"acme","amount":"2"},{"customer":"acme","amount":"1000"}]}`
	ask := func() *httptest.ResponseRecorder {
		return s.ask("POST", "/v1/usage/batch", batch, "Idempotency-Key", "b1")
	}
	tx, err := s.Ledger.DB().Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.Exec(`select from wallets where customer_id = 'acme' for update`); err != nil {
		t.Fatal(err)
	}
	w := ask()
	if b := w.Body.String(); w.Code != 200 || !strings.Contains(b, `"accepted":1,"rejected":2,"data":[{"object":"debit"`) || strings.Count(b, `"unavailable"`) != 2 {
		t.Fatalf("while acme's wallet is locked: %d %s", w.Code, b)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the batch is booked", func() bool { w = ask(); return !strings.Contains(w.Body.String(), `"unavailable"`) })
	if b := w.Body.String(); !strings.Contains(b, `"accepted":2,"rejected":1`) || !strings.Contains(b, `"insufficient_credits"`) || w.Header().Get("Idempotent-Replayed") != "" {
		t.Errorf("again: %s", b)
	}
	if again := ask(); again.Body.String() != w.Body.String() || again.Header().Get("Idempotent-Replayed") != "true" {
		t.Errorf("once more: %s", again.Body)
	}
	for customer, want := range map[string]string{"acme": "98", "bob": "9"} {
		if w := s.ask("GET", "/v1/customers/"+customer+"/check?amount=1", ""); !strings.Contains(w.Body.String(), `"available":"`+want+`"`) {
			t.Errorf("%s: %s", customer, w.Body)
		}
	}
}

// However many calls fail in a second, the log says it a few times, and later how often it did not.
func TestFailuresDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := &Server{Log: slog.New(slog.NewTextHandler(&log, nil))}
	begun := time.Now()
	for range 5000 {
		s.complain("request failed")
	}
	seconds := int(time.Since(begun)/time.Second) + 2
	if n := strings.Count(log.String(), "request failed"); n < 1 || n > seconds*complaintsPerSecond {
		t.Errorf("%d lines", n)
	}
	s.complaints.second = 0
	s.complain("request failed")
	if !strings.Contains(log.String(), "not_logged_before=") {
		t.Error("what was not logged is not counted")
	}
}

// A key in use is renewed by one call, long before it has to be; a revoked one, and one that can't be looked up in time,
// is believed for no longer than keyLife.
func TestKeysAreRenewedByOne(t *testing.T) {
	t.Parallel()
	var c keyCache
	hash := ledger.HashKey("x")
	if _, ok, renew := c.get(hash); ok || renew {
		t.Error("a key that nobody has seen")
	}
	c.put(hash, ledger.APIKey{ID: "key_1"})
	if _, ok, renew := c.get(hash); !ok || renew {
		t.Error("a fresh one")
	}
	age := func(by time.Duration) {
		k := c.keys[hash]
		c.keys[hash] = cachedKey{k.key, k.until.Add(-by), k.renew.Add(-by)}
	}
	age(keyLife/2 + time.Millisecond)
	if k, ok, renew := c.get(hash); !ok || !renew || k.ID != "key_1" {
		t.Error("the first after half of its life")
	}
	if _, ok, renew := c.get(hash); !ok || renew {
		t.Error("the second")
	}
	age(keyLife / 2)
	if _, ok, _ := c.get(hash); ok {
		t.Error("one too old is believed")
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
