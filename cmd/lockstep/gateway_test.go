package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/ledger/ledgertest"
	"lockstep/stripeutil/stripesim"
	"lockstep/stripeutil/stripesim/referee"
)

// asMain makes the test binary the lockstep command, for tests that need a gateway in a process of its own.
const asMain = "LOCKSTEP_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
	}
	ledgertest.Main(m)
}

// A test's world is whole: a gateway with its workers behind HTTP, on a PostgreSQL database of its own, and a
// simulated Stripe that sends it webhooks. Every request to Stripe is held to Stripe's own description, every
// request to the gateway and its answer to the gateway's OpenAPI document, and when the test ends the invariants
// of the books and of Stripe are checked. Nothing in it is mocked.
type world struct {
	t     *testing.T
	sim   *stripesim.Sim
	g     *gateway
	base  string // of the gateway: http://127.0.0.1:…
	key   string // an API key with every scope
	clock *testClock
	o     worldOptions
}

// worldOptions are what a test may change; url, sim, stripeURL and clock are what peers share.
type worldOptions struct {
	url       string         // of the database; "": one of its own
	sim       *stripesim.Sim // nil: one of its own
	stripeURL string         // where sim listens
	clock     *testClock     // nil: one of its own
	secrets   []string       // of the webhook endpoint
	idle      bool           // the gateway only keeps the books for the checks at the end
	noWebhook bool           // Stripe has no endpoint: only the backfill tells
	mirror    time.Duration  // interval
	backfill  time.Duration  // interval; an hour: what a test sees came by webhook
	rateLimit float64        // of sim, requests a second; 0: none
	log       io.Writer      // the gateway's log; discarded
	config    func(*config)  // the last word on the gateway's settings
}

// testClock is the gateway's and Stripe's time: the real one, and what was added to it.
type testClock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *testClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// newWorld starts a world, which ends with the test.
func newWorld(t *testing.T, change ...func(*worldOptions)) *world {
	t.Helper()
	o := worldOptions{secrets: []string{"whsec_test_of_the_gateway"}, mirror: 50 * time.Millisecond, backfill: time.Hour, log: io.Discard}
	for _, f := range change {
		f(&o)
	}
	if o.clock == nil {
		o.clock = &testClock{}
	}
	if o.url == "" {
		o.url = ledgertest.URL(t)
	}
	first := o.sim == nil
	if first {
		o.startStripe(t)
	}
	w := &world{t: t, sim: o.sim, key: "lsk_test_with_every_scope", clock: o.clock, o: o}
	w.start(first)
	if first && !o.noWebhook {
		o.sim.AddEndpoint(stripesim.Endpoint{URL: w.base + "/webhooks/stripe", Secrets: o.secrets})
	}
	return w
}

// startStripe starts a simulated Stripe under the referee's eyes.
func (o *worldOptions) startStripe(t *testing.T) {
	t.Helper()
	sim, err := stripesim.New(stripesim.Options{RateLimit: o.rateLimit, RetrySchedule: []time.Duration{200 * time.Millisecond, time.Second, time.Second, time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	sim.Advance(o.clock.offset)
	srv := httptest.NewServer(referee.New(t).Wrap(sim))
	t.Cleanup(func() {
		srv.CloseClientConnections() // a call that hangs on purpose must not keep the test from ending
		srv.Close()
		sim.Close()
	})
	o.sim, o.stripeURL = sim, srv.URL
}

// start runs the gateway as serve does, until the test ends. The first of the peers, which is the last to
// stop, then looks at the books and at Stripe.
func (w *world) start(first bool) {
	w.t.Helper()
	c := config{ListenAddr: "127.0.0.1:0", StripeSecretKey: w.sim.SecretKey(), StripeWebhookSecret: w.o.secrets, StripeAPIBase: w.o.stripeURL,
		StripeRate: 1000, APIKey: w.key, DefaultAsset: "usd", MirrorInterval: w.o.mirror, BackfillInterval: w.o.backfill, now: w.clock.now}
	if w.o.config != nil {
		w.o.config(&c)
	}
	log := slog.New(slog.NewTextHandler(w.o.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g, err := newGateway(context.Background(), c, log, w.o.url)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.o.idle {
		w.g = g
		w.t.Cleanup(func() { _ = g.ledger.Close() })
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	addr, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		ended <- g.run(ctx, func(_ *gateway, a net.Addr) error { addr <- a; return nil })
	}()
	w.t.Cleanup(func() {
		stop()
		err := <-ended
		if first {
			ledgertest.Check(w.t, g.ledger)
			if err := w.sim.Check(); err != nil {
				w.t.Error(err)
			}
		}
		if err = errors.Join(err, g.ledger.Close()); err != nil {
			w.t.Errorf("the gateway did not stop well: %v", err)
		}
	})
	select {
	case a := <-addr:
		w.g, w.base = g, "http://"+a.String()
	case err := <-ended:
		ended <- err
		w.t.Fatalf("the gateway did not start: %v", err)
	}
}

// peer is a second gateway on the same database and the same Stripe; webhooks go to the first.
func (w *world) peer() *world {
	w.t.Helper()
	return newWorld(w.t, func(o *worldOptions) { *o = w.o })
}

// advance moves the time of the gateway and of Stripe.
func (w *world) advance(d time.Duration) {
	w.clock.add(d)
	w.sim.Advance(d)
}

// answer is what a call was answered.
type answer struct {
	status int
	raw    []byte
	header http.Header
	m      map[string]any // the body; nil where it is no JSON object
}

// client has room for hundreds of callers at once.
var client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 256, MaxConnsPerHost: 256},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// call calls the gateway with its key. body is nil, a string to be sent as it is, or a value to be sent as
// JSON; headers are names and values in turn. It may be called from any goroutine.
func (w *world) call(method, path string, body any, headers ...string) answer {
	w.t.Helper()
	var payload []byte
	switch b := body.(type) {
	case nil:
	case string:
		payload = []byte(b)
	default:
		var err error
		if payload, err = json.Marshal(b); err != nil {
			w.t.Errorf("%s %s: %v", method, path, err)
			return answer{}
		}
	}
	req, err := http.NewRequestWithContext(context.Background(), method, w.base+path, bytes.NewReader(payload))
	if err != nil {
		w.t.Errorf("%s %s: %v", method, path, err)
		return answer{}
	}
	req.Header.Set("Authorization", "Bearer "+w.key)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Errorf("%s %s: %v", method, path, err)
		return answer{}
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.raw, err = io.ReadAll(resp.Body); err != nil {
		w.t.Errorf("%s %s: %v", method, path, err)
	}
	d := json.NewDecoder(bytes.NewReader(a.raw))
	d.UseNumber()
	_ = d.Decode(&a.m) // a body that is no object has no m
	judged(w.t, exchange{method, path, req.Header, payload, a})
	return a
}

// at follows a path such as "wallets.0.balance"; nil where it ends nowhere.
func (a answer) at(path string) any {
	var v any = a.m
	for name := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

// str is what stands at a path such as "error.code" or "wallets.0.balance.available": a string as it is, ""
// for null and for nothing at all, anything else as JSON.
func (a answer) str(path string) string {
	switch v := a.at(path).(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(b)
	}
}

// list are the objects of a list's page.
func (a answer) list() []answer {
	data, _ := a.m["data"].([]any)
	list := make([]answer, len(data))
	for i, v := range data {
		list[i].m, _ = v.(map[string]any)
	}
	return list
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, bytes.TrimSpace(a.raw)) }

// must is call for what the test takes for granted: it ends the test unless the answer is a 2xx.
func (w *world) must(method, path string, body any, headers ...string) answer {
	w.t.Helper()
	a := w.call(method, path, body, headers...)
	if a.status/100 != 2 {
		w.t.Fatalf("%s %s: %v", method, path, a)
	}
	return a
}

// customer makes a customer with a Stripe customer of its own. card is "" for none, else a test token whose
// card becomes the default; credit is "" for none, else granted as purchased.
func (w *world) customer(id, credit, card string) (walletID, stripeID string) {
	w.t.Helper()
	a := w.must("POST", "/v1/customers", map[string]any{"id": id})
	walletID, stripeID = a.str("wallets.0.id"), a.str("stripe_customer")
	if card != "" {
		w.card(stripeID, card)
	}
	if credit != "" {
		w.must("POST", "/v1/grants", map[string]any{"customer": id, "amount": credit, "kind": "purchased"})
	}
	return walletID, stripeID
}

// card saves a test token's card as the Stripe customer's default and answers its payment method.
func (w *world) card(stripeID, token string) string {
	w.t.Helper()
	pm, err := w.sim.Operator().AttachCard(stripeID, token)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.sim.Operator().SetDefaultPaymentMethod(stripeID, pm); err != nil {
		w.t.Fatal(err)
	}
	return pm
}

// rule sets a wallet's auto top-up rule.
func (w *world) rule(walletID string, body map[string]any) answer {
	w.t.Helper()
	return w.call("PUT", "/v1/wallets/"+walletID+"/auto_topup", body)
}

// available is what the customer's first wallet may spend.
func (w *world) available(customer string) string {
	w.t.Helper()
	return w.call("GET", "/v1/customers/"+customer, nil).str("wallets.0.balance.available")
}

// inStep waits until the customer's balance in Stripe is what the ledger says.
func (w *world) inStep(customer string) {
	w.t.Helper()
	w.inStepWithin(patience, customer)
}

func (w *world) inStepWithin(limit time.Duration, customer string) {
	w.t.Helper()
	stripeID := w.must("GET", "/v1/customers/"+customer, nil).str("stripe_customer")
	var a answer
	var balance int64
	defer func() {
		if w.t.Failed() {
			w.t.Logf("lockstep of %s: %v; at Stripe %d", customer, a, balance)
		}
	}()
	w.within(limit, customer+" is in step with Stripe", func() bool {
		a = w.call("GET", "/v1/customers/"+customer+"/lockstep", nil)
		c, _ := w.sim.Customer(stripeID)
		balance = c.Balance
		return a.str("state") == "in_step" && a.str("ledger") == strconv.FormatInt(-balance, 10)
	})
}

// patience is how long a test waits for what takes a moment.
const patience = 15 * time.Second

// eventually polls until f holds, and fails the test when its patience ends.
func (w *world) eventually(what string, f func() bool) {
	w.t.Helper()
	w.within(patience, what, f)
}

// within asks again ever less often, down to five times a second: a question costs both sides more than the waiting, and
// many tests ask at once.
func (w *world) within(limit time.Duration, what string, f func() bool) {
	w.t.Helper()
	pause := 20 * time.Millisecond
	for end := time.Now().Add(limit); !f(); time.Sleep(pause) {
		if time.Now().After(end) {
			w.t.Fatalf("not within %v: %s", limit, what)
		}
		pause = min(pause*3/2, 200*time.Millisecond)
	}
}
