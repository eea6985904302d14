package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// outward lets the gateway deliver to this machine, and warn of what expires within three days.
func outward(o *worldOptions) {
	o.config = func(c *config) { c.OutboundPrivate, c.ExpiryWarning = true, 72*time.Hour }
}

// receiver is an endpoint of the merchant's: it verifies what comes and keeps it.
type receiver struct {
	w    *world
	srv  *httptest.Server
	id   string // whk_…
	mu   sync.Mutex
	got  []received
	keys []string // secrets, each of which must verify what comes

	seen   func(*http.Request, []byte)                            // looks at each request; nil does not
	answer func(n int, r received) (status int, header [2]string) // to the n-th request, from 1; nil is 200
}

type received struct {
	id, eventType, body string
	at                  time.Time
	event               answer
}

// receive starts a receiver and makes an endpoint of it for events, by default all.
func (w *world) receive(events ...string) *receiver {
	w.t.Helper()
	if len(events) == 0 {
		events = []string{"*"}
	}
	r := w.listener()
	a := w.must("POST", "/v1/webhook_endpoints", map[string]any{"url": r.srv.URL + "/hook?a=b", "events": events})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.id, r.keys = a.str("id"), []string{a.str("secret")}
	return r
}

// listener is a receiver that no endpoint leads to.
func (w *world) listener() *receiver {
	r := &receiver{w: w}
	r.srv = httptest.NewServer(r)
	w.t.Cleanup(func() { r.srv.CloseClientConnections(); r.srv.Close() })
	return r
}

func (r *receiver) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	e := received{id: req.Header.Get("webhook-id"), body: string(body), at: r.w.clock.now()}
	e.event.raw = body
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&e.event.m); err != nil {
		r.w.t.Errorf("received %q: %v", body, err)
	}
	e.eventType = e.event.str("type")
	r.mu.Lock()
	for _, key := range r.keys {
		wh, err := standardwebhooks.NewWebhook(key)
		if err == nil {
			err = wh.VerifyIgnoringTimestamp(body, req.Header) // the library goes by the real clock
		}
		if err != nil {
			r.w.t.Errorf("%s %s does not verify: %v; %v", e.eventType, e.id, err, req.Header)
		}
	}
	if sec, err := strconv.ParseInt(req.Header.Get("webhook-timestamp"), 10, 64); err != nil || e.at.Sub(time.Unix(sec, 0)).Abs() > time.Minute {
		r.w.t.Errorf("webhook-timestamp is %q at %v", req.Header.Get("webhook-timestamp"), e.at)
	}
	if req.Method != "POST" || req.URL.RequestURI() != "/hook?a=b" || req.Header.Get("Content-Type") != "application/json" {
		r.w.t.Errorf("%s %s with %v", req.Method, req.URL, req.Header)
	}
	if r.seen != nil {
		r.seen(req, body)
	}
	r.got = append(r.got, e)
	n, answer := len(r.got), r.answer
	r.mu.Unlock()
	if answer == nil {
		return
	}
	status, header := answer(n, e)
	if header[0] != "" {
		rw.Header().Set(header[0], header[1])
	}
	rw.WriteHeader(status)
	_, _ = fmt.Fprintf(rw, "answer %d\x00%s", n, strings.Repeat("x", 5000))
}

// answers has the receiver answer so from now on.
func (r *receiver) answers(f func(n int, e received) (int, [2]string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

func always(status int) func(int, received) (int, [2]string) {
	return func(int, received) (int, [2]string) { return status, [2]string{} }
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *receiver) count() int { return len(r.all()) }

// until waits until that many requests have come in all.
func (r *receiver) until(n int) []received {
	r.w.t.Helper()
	r.w.eventually(fmt.Sprintf("%d requests at the receiver", n), func() bool { return r.count() >= n && r.noted() })
	return r.all()
}

// noted reports whether what the receiver answered has been written down: before, a test must not move the clock,
// past the lease.
func (r *receiver) noted() bool {
	r.w.t.Helper()
	var leased int
	if err := r.w.g.ledger.DB().Get(&leased, `select count(*) from deliveries where endpoint_id = $1 and lease_until is not null`, r.id); err != nil {
		r.w.t.Fatal(err)
	}
	return leased == 0
}

// counts is how often events of each type came.
func (r *receiver) counts() map[string]int {
	counts := map[string]int{}
	for _, e := range r.all() {
		counts[e.eventType]++
	}
	return counts
}

// giveGrants makes something happen: n grants.
func (w *world) giveGrants(n int) {
	w.t.Helper()
	for range n {
		w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "1"})
	}
}

// log is an endpoint's delivery log, newest first.
func (r *receiver) log() []answer {
	r.w.t.Helper()
	return r.w.must("GET", "/v1/webhook_endpoints/"+r.id+"/deliveries?limit=100", nil).list()
}

// What a private address would be reached by is refused when it is connected to, also behind a name, and no
// redirect is followed; the delivery log says so.
func TestOutboundRefusesPrivateAddresses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "", "")
	r := w.listener()
	port := r.srv.URL[strings.LastIndex(r.srv.URL, ":"):]
	ids := []string{}
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1"} {
		a := w.must("POST", "/v1/webhook_endpoints", map[string]any{"url": "https://" + host + port + "/hook", "events": []string{"*"}})
		ids = append(ids, a.str("id"))
	}
	w.giveGrants(1)
	for _, id := range ids {
		var a answer
		w.eventually("the refusal is in the log", func() bool {
			a = w.must("GET", "/v1/webhook_endpoints/"+id+"/deliveries", nil)
			return len(a.list()) > 0
		})
		url := w.must("GET", "/v1/webhook_endpoints/"+id, nil).str("url")
		if !strings.Contains(a.str("data.0.error"), "not a public one") && !strings.Contains(url, "127.1:") || a.str("data.0.status") != "failed" || a.str("data.0.status_code") != "" {
			t.Errorf("%s: %v", url, a)
		}
	}
	if n := r.count(); n != 0 {
		t.Errorf("%d requests came through", n)
	}
}

// A redirect is a failure that says so, not a way around the look at the address.
func TestOutboundFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, outward)
	w.customer("acme", "", "")
	r, elsewhere := w.receive(), w.listener()
	for _, status := range []int{301, 302, 307, 308} {
		n := r.count()
		r.answers(func(int, received) (int, [2]string) {
			return status, [2]string{"Location", elsewhere.srv.URL + "/hook?a=b"}
		})
		w.giveGrants(1)
		r.until(n + 1)
		w.eventually("the redirect is in the log", func() bool {
			return len(r.log()) > n && strings.Contains(r.log()[0].str("error"), "redirects are not followed") && r.log()[0].str("status_code") == strconv.Itoa(status)
		})
	}
	if n := elsewhere.count(); n != 0 {
		t.Errorf("%d redirects followed", n)
	}
}

// What happens is told once, as the API shows it, whichever of two gateways it happens at.
func TestEventsReachTheEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, outward)
	peer := w.peer()
	r := w.receive()
	some := w.receive("topup.failed", "grant.expired")
	want := map[string]int{}
	defer func() {
		if t.Failed() {
			t.Logf("got %v; happened %v", r.counts(), w.must("GET", "/v1/events?limit=100", nil))
		}
	}()
	expect := func(types ...string) {
		t.Helper()
		for _, one := range types {
			want[one]++
		}
		w.within(30*time.Second, fmt.Sprint(want), func() bool { return cmp.Equal(r.counts(), want) && r.noted() && some.noted() })
	}
	wallet, stripeID := w.customer("acme", "", "pm_card_authenticationRequired")
	g := peer.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "10", "kind": "purchased", "metadata": map[string]any{"a": "<b>"}})
	expect("grant.confirmed")
	first := r.all()[0]
	api := w.must("GET", "/v1/grants/"+g.str("id"), nil)
	if diff := cmp.Diff(string(api.raw), string(rawData(t, first))+"\n"); diff != "" {
		t.Errorf("the grant in the event is not the API's: %s", diff)
	}
	e := w.must("GET", "/v1/events/"+first.id, nil)
	if e.str("object") != "event" || e.str("id") != first.id || e.str("customer") != "acme" || e.str("wallet") != wallet || first.event.str("timestamp") != e.str("created_at") {
		t.Errorf("event %v, sent %s", e, first.body)
	}
	if e.m["timestamp"] = e.str("created_at"); !cmp.Equal(e.m, first.event.m) {
		t.Errorf("the event is shown as %v and sent as %s", e, first.body)
	}

	// Auto top-up: a debit that wants the customer, another card, a card that is declined, and one that works.
	w.rule(wallet, refill(0))
	peer.spend("acme", "6")
	expect("topup.action_required", "auto_topup.paused")
	w.card(stripeID, "pm_card_chargeCustomerFail")
	expect("auto_topup.resumed", "topup.failed", "auto_topup.paused")
	w.card(stripeID, "pm_card_visa")
	expect("auto_topup.resumed", "topup.succeeded", "grant.confirmed")
	for _, e := range r.all() {
		if e.eventType == "auto_topup.paused" && (e.event.str("data.wallet") != wallet || e.event.str("data.state") != "paused" || e.event.str("data.pause.clears_when") == "") {
			t.Errorf("a pause is told as %s", e.body)
		}
		if e.eventType == "topup.succeeded" && (e.event.str("data.status") != "succeeded" || e.event.str("data.stripe.payment_intent") == "" || e.event.str("data.grant") == "") {
			t.Errorf("a top-up is told as %s", e.body)
		}
	}
	w.must("POST", "/v1/wallets/"+wallet+"/auto_topup/pause", nil)
	expect("auto_topup.paused")

	// A grant that begins later, is about to end, and ends.
	const day = 24 * time.Hour
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "1", "effective_at": in(day), "expires_at": in(31 * day)})
	w.advance(day + time.Minute)
	expect("grant.confirmed")
	w.advance(28 * day)
	expect("grant.expiring")
	w.advance(2 * day)
	expect("grant.expired")

	w.inStep("acme")
	w.drift("acme", 200)
	for range 2 {
		w.must("POST", "/v1/reconcile", map[string]any{"customer": "acme"})
	}
	expect("lockstep.drift")
	w.must("POST", "/v1/reconcile", map[string]any{"repair": true})
	w.inStep("acme")
	w.drift("acme", 300)
	w.must("POST", "/v1/reconcile", map[string]any{})
	expect("lockstep.drift")
	last := r.all()[r.count()-1]
	if last.event.str("data.state") != "stripe_ahead" || last.event.str("data.drift") == "0" || last.event.m["wallet"] != nil || last.event.str("customer") != "acme" {
		t.Errorf("drift is told as %s", last.body)
	}
	w.must("POST", "/v1/reconcile", map[string]any{"repair": true})

	time.Sleep(2 * time.Second) // whatever still comes is too much
	expect()
	if got := some.counts(); !cmp.Equal(got, map[string]int{"topup.failed": 1, "grant.expired": 1}) {
		t.Errorf("the endpoint for some types got %v", got)
	}
	seen := map[string]bool{}
	for _, e := range r.all() {
		if seen[e.id] {
			t.Errorf("%s came twice", e.id)
		}
		seen[e.id] = true
	}
	if a := w.must("GET", "/metrics", nil); !strings.Contains(string(a.raw), `lockstep_outbound_deliveries_total{outcome="delivered"}`) {
		t.Error("deliveries are not counted")
	}
}

// rawData are the bytes of an event's data as they came.
func rawData(t *testing.T, e received) json.RawMessage {
	t.Helper()
	var v struct{ Data json.RawMessage }
	if err := json.Unmarshal([]byte(e.body), &v); err != nil {
		t.Fatal(err)
	}
	return v.Data
}

// drift has the books think that Stripe shows that many cents less than it does, which no transaction explains.
func (w *world) drift(customer string, cents int) {
	w.t.Helper()
	db := w.g.ledger.DB()
	if _, err := db.Exec(`insert into balance_transactions (bucket, id, customer_id, amount, type, created_at)
		select bucket, 'cbtxn_never' || $2, customer_id, $2::bigint, 'adjustment', now() from mirrors where customer_id = $1`, customer, cents); err != nil {
		w.t.Fatal(err)
	}
	if _, err := db.Exec(`update mirrors set credit = credit - $2 where customer_id = $1`, customer, cents); err != nil {
		w.t.Fatal(err)
	}
}
