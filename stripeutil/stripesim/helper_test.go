package stripesim_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"
	"github.com/stripe/stripe-go/v76/webhook"

	"lockstep/stripeutil/stripesim"
	"lockstep/stripeutil/stripesim/referee"
)

// world is a simulator behind real HTTP, watched by the referee, with Stripe's
// own client to drive it. At the end of the test everything in it must add up.
type world struct {
	*stripesim.Sim
	t     *testing.T
	ref   *referee.Referee
	url   string
	api   *client.API
	check bool
}

func newWorld(t *testing.T, options ...func(*stripesim.Options)) *world {
	t.Helper()
	o := stripesim.Options{}
	for _, f := range options {
		f(&o)
	}
	sim, err := stripesim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Sim: sim, t: t, ref: referee.New(t), check: true}
	server := httptest.NewServer(w.ref.Wrap(sim))
	w.url = server.URL
	w.api = newClient(sim.SecretKey(), server.URL)
	t.Cleanup(func() {
		sim.ClearFaults()
		w.get("/v1/events", "limit=100") // for the referee, which looks at what the events are about
		sim.Close()
		server.Close()
		if w.check {
			if err := sim.Check(); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

func newClient(key, url string) *client.API {
	backend := stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		URL: stripe.String(url), MaxNetworkRetries: stripe.Int64(0), EnableTelemetry: stripe.Bool(false),
		LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull},
	})
	return client.New(key, &stripe.Backends{API: backend, Connect: backend, Uploads: backend})
}

// reply is an answer as it came over the wire.
type reply struct {
	status int
	header http.Header
	body   string
	json   map[string]any
	err    error
}

func (r reply) str(path ...string) string {
	var v any = r.json
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	s, _ := v.(string)
	return s
}

func (r reply) num(key string) int64 {
	f, _ := r.json[key].(float64)
	return int64(f)
}

// do makes a call with a form written as a query string.
func (w *world) do(method, path, form string, headers ...string) reply {
	w.t.Helper()
	target, body := w.url+path, ""
	if method == "GET" && form != "" {
		target += "?" + form
	} else {
		body = form
	}
	req, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.SecretKey())
	if method != "GET" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	r := reply{status: res.StatusCode, header: res.Header, body: string(data), err: err}
	if jsonErr := json.Unmarshal(data, &r.json); jsonErr != nil && err == nil {
		w.t.Errorf("%s %s: %v in %s", method, path, jsonErr, data)
	}
	return r
}

func (w *world) post(path, form string, headers ...string) reply {
	return w.do("POST", path, form, headers...)
}
func (w *world) get(path, form string) reply { return w.do("GET", path, form) }

// must is for the steps that a test takes for granted.
func (w *world) must(r reply) reply {
	w.t.Helper()
	if r.err != nil || r.status != 200 {
		w.t.Fatalf("want 200, got %d %v %s", r.status, r.err, r.body)
	}
	return r
}

// refused checks a refusal's status, code and parameter.
func (w *world) refused(r reply, status int, code, param string) {
	w.t.Helper()
	if r.status != status || r.str("error", "code") != code || r.str("error", "param") != param {
		w.t.Errorf("want %d %q on %q, got %d %s", status, code, param, r.status, r.body)
	}
}

func (w *world) customer() string {
	w.t.Helper()
	return w.must(w.post("/v1/customers", "name=Ada")).str("id")
}

// withCard makes a customer with one attached method.
func (w *world) withCard(token string) (customer, pm string) {
	w.t.Helper()
	customer = w.customer()
	return customer, w.attach(customer, token)
}

func (w *world) attach(customer, token string) string {
	w.t.Helper()
	return w.must(w.post("/v1/payment_methods/"+token+"/attach", "customer="+customer)).str("id")
}

// charge makes the payment that a gateway makes: off-session and confirmed.
func (w *world) charge(customer, pm string, amount string, headers ...string) reply {
	return w.post("/v1/payment_intents", url.Values{"amount": {amount}, "currency": {"usd"}, "customer": {customer}, "payment_method": {pm},
		"off_session": {"true"}, "confirm": {"true"}}.Encode(), headers...)
}

// types are the types of the events so far, less the first skip.
func (w *world) types(skip int) []string {
	var out []string
	for _, e := range w.Events()[skip:] {
		out = append(out, e.Type)
	}
	return out
}

func (w *world) wantTypes(skip int, want ...string) {
	w.t.Helper()
	if got := w.types(skip); !slices.Equal(got, want) {
		w.t.Errorf("events\n got %v\nwant %v", got, want)
	}
}

func (w *world) settle() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.Settle(ctx); err != nil {
		w.t.Fatalf("deliveries did not settle: %v", err)
	}
}

// inbox is a webhook endpoint of the receiving side.
type inbox struct {
	id, secret, url string

	mu       sync.Mutex
	got      []stripe.Event
	errs     []error
	payloads [][]byte
	refuse   bool
	onEvent  func(stripe.Event)
}

// listen adds an endpoint that verifies each delivery as stripe-go does.
func (w *world) listen(kinds ...string) *inbox {
	w.t.Helper()
	b := &inbox{secret: "whsec_test"}
	server := httptest.NewServer(b)
	w.t.Cleanup(server.Close)
	b.url = server.URL
	b.id = w.AddEndpoint(stripesim.Endpoint{URL: server.URL, Secrets: []string{b.secret}, EnabledEvents: kinds})
	return b
}

func (b *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	e, err := webhook.ConstructEvent(body, r.Header.Get("Stripe-Signature"), b.secret)
	b.mu.Lock()
	b.payloads = append(b.payloads, body)
	refuse, onEvent := b.refuse, b.onEvent
	if err != nil {
		b.errs = append(b.errs, err)
		refuse = true
	} else if !refuse {
		b.got = append(b.got, e)
	}
	b.mu.Unlock()
	if refuse {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if onEvent != nil {
		onEvent(e)
	}
}

func (b *inbox) setRefuse(v bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = v
}

func (b *inbox) events() []stripe.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *inbox) ids() []string {
	var out []string
	for _, e := range b.events() {
		out = append(out, e.ID)
	}
	return out
}

func (b *inbox) failures() []error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.errs)
}

func stripeError(t *testing.T, err error) *stripe.Error {
	t.Helper()
	var e *stripe.Error
	if !errors.As(err, &e) {
		t.Fatalf("want a Stripe error, got %v", err)
	}
	return e
}

func withFile(name string) func(*stripesim.Options) {
	return func(o *stripesim.Options) { o.File = name }
}

func retries(waits ...time.Duration) func(*stripesim.Options) {
	return func(o *stripesim.Options) { o.RetrySchedule = waits }
}
