package stripesim_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/webhook"

	"lockstep/stripeutil/stripesim"
)

// Every event reaches the endpoint once, signed so that stripe-go accepts it.
func TestWebhooksDelivered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.listen()
	cus, pm := w.withCard("pm_card_visa")
	w.must(w.charge(cus, pm, "500"))
	w.settle()
	got, want := b.ids(), []string{}
	for _, e := range w.Events() {
		want = append(want, e.ID)
		if e.PendingWebhooks != 0 {
			t.Errorf("%s is still pending", e.Type)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(b.failures()) != 0 {
		t.Errorf("got %v, want %v; %v", got, want, b.failures())
	}
	for _, p := range b.payloads {
		w.ref.Event(p)
	}
}

// An endpoint hears what it asked for, in the version it asked for, as long as
// it is enabled.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := &inbox{}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	w.refused(w.post("/v1/webhook_endpoints", "enabled_events[]=*"), 400, "parameter_missing", "url")
	w.refused(w.post("/v1/webhook_endpoints", "url="+server.URL), 400, "parameter_missing", "enabled_events")
	w.refused(w.post("/v1/webhook_endpoints", "enabled_events[]=*&url=example.com"), 400, "url_invalid", "url")
	e, err := w.api.WebhookEndpoints.New(&stripe.WebhookEndpointParams{URL: stripe.String(server.URL), APIVersion: stripe.String("2023-10-16"),
		EnabledEvents: stripe.StringSlice([]string{"customer.created", "payment_method.attached"})})
	if err != nil || !strings.HasPrefix(e.Secret, "whsec_") {
		t.Fatalf("%+v %v", e, err)
	}
	b.secret = e.Secret
	path := "/v1/webhook_endpoints/" + e.ID
	if r := w.must(w.get(path, "")); r.json["secret"] != nil || strings.Contains(r.body, "stripesim") {
		t.Errorf("the secret is shown again: %s", r.body)
	}
	if r := w.must(w.get("/v1/webhook_endpoints", "")); strings.Contains(r.body, "whsec") {
		t.Errorf("the secret is listed: %s", r.body)
	}
	cus, pm := w.withCard("pm_card_visa")
	w.must(w.charge(cus, pm, "500"))
	w.settle()
	if got := b.events(); len(got) != 2 {
		t.Errorf("%d events", len(got))
	}
	if r := w.must(w.post(path, "disabled=true")); r.str("status") != "disabled" {
		t.Errorf("%s", r.body)
	}
	w.customer()
	w.settle()
	w.must(w.post(path, "disabled=false&enabled_events[]=*"))
	w.must(w.post("/v1/customers/"+cus, "name=Bob"))
	w.settle()
	if got := b.events(); len(got) != 3 || got[2].Type != "customer.updated" {
		t.Errorf("%d events", len(got))
	}
	w.must(w.do("DELETE", path, ""))
	w.refused(w.get(path, ""), 404, "resource_missing", "webhook_endpoint")
	w.customer()
	w.settle()
	if n := len(b.events()); n != 3 {
		t.Errorf("%d events after deletion", n)
	}
}

// What is not accepted is sent again on the schedule, and signed afresh.
func TestWebhooksRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, retries(time.Minute, time.Hour))
	b := w.listen()
	b.setRefuse(true)
	w.customer()
	w.settle()
	first := w.Events()[0]
	if first.PendingWebhooks != 1 || len(b.events()) != 0 {
		t.Fatalf("%+v", first)
	}
	w.Advance(59 * time.Second)
	w.settle()
	if n := len(b.payloads); n != 1 {
		t.Errorf("%d attempts before the first retry is due", n)
	}
	w.Advance(time.Second)
	w.settle()
	if n := len(b.payloads); n != 2 {
		t.Errorf("%d attempts", n)
	}
	b.setRefuse(false)
	w.Advance(time.Hour)
	w.settle()
	if got := b.ids(); len(got) != 1 || got[0] != first.ID || w.Events()[0].PendingWebhooks != 0 {
		t.Errorf("%v", got)
	}
}

// After the last retry Stripe gives up; the event can still be listed.
func TestWebhooksGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, retries(time.Minute))
	b := w.listen()
	b.setRefuse(true)
	w.customer()
	for range 5 {
		w.settle()
		w.Advance(time.Hour)
	}
	w.settle()
	if n := len(b.payloads); n != 2 {
		t.Errorf("%d attempts", n)
	}
	b.setRefuse(false)
	w.customer()
	w.settle()
	list := func(v string) []any {
		return w.must(w.get("/v1/events", "delivery_success="+v)).json["data"].([]any)
	}
	if n := len(list("false")); n != 1 || list("false")[0].(map[string]any)["id"] != w.Events()[0].ID || len(list("true")) != 1 {
		t.Errorf("%d undelivered", n)
	}
	// A person can resend it.
	if _, err := w.Operator().ResendEvent("evt_none"); err == nil {
		t.Error("resent nothing")
	}
	if _, err := w.Operator().ResendEvent(w.Events()[0].ID); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if len(list("false")) != 0 || len(b.events()) != 2 {
		t.Error("resending did not help")
	}
}

// An endpoint that is not there is retried like one that refuses.
func TestWebhookConnectionRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, retries(time.Minute))
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	w.AddEndpoint(stripesim.Endpoint{URL: server.URL})
	w.customer()
	w.settle()
	if n := w.Events()[0].PendingWebhooks; n != 1 {
		t.Errorf("pending_webhooks %d", n)
	}
}

// With no clock of the caller's, retries come by themselves.
func TestWebhookRetryInRealTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, retries(20*time.Millisecond))
	b := w.listen()
	w.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.LoseOnce})
	w.customer()
	for end := time.Now().Add(5 * time.Second); len(b.events()) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not redelivered")
		}
	}
}

// While a secret is rolled, both the old and the new one verify.
func TestRolledSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mu sync.Mutex
	var verified [2]int
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body := make([]byte, r.ContentLength)
		r.Body.Read(body)
		mu.Lock()
		defer mu.Unlock()
		for i, secret := range []string{"whsec_old", "whsec_new"} {
			if _, err := webhook.ConstructEvent(body, r.Header.Get("Stripe-Signature"), secret); err == nil {
				verified[i]++
			}
		}
	}))
	t.Cleanup(server.Close)
	id := w.AddEndpoint(stripesim.Endpoint{URL: server.URL, Secrets: []string{"whsec_old"}})
	for _, secrets := range [][]string{nil, {"whsec_new", "whsec_old"}, {"whsec_new"}} {
		if secrets != nil {
			w.SetEndpointSecrets(id, secrets...)
		}
		w.customer()
		w.settle()
	}
	if verified != [2]int{2, 2} {
		t.Errorf("verified by old and new: %v", verified)
	}
}

// The list is the backfill: newest first, by type, from a cursor, 30 days back.
func TestEventsListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.post("/v1/customers", "name=too-old"))
	w.Advance(31 * 24 * time.Hour)
	cus, pm := w.withCard("pm_card_visa")
	w.must(w.charge(cus, pm, "500"))
	w.refused(w.get("/v1/events", "ending_before=evt_none"), 400, "resource_missing", "ending_before")
	ids := func(form string) (out []string) {
		for _, o := range w.must(w.get("/v1/events", form)).json["data"].([]any) {
			out = append(out, o.(map[string]any)["type"].(string))
		}
		return out
	}
	all := []string{"payment_intent.succeeded", "charge.succeeded", "payment_intent.created", "payment_method.attached", "customer.created"}
	if got := ids(""); !slices.Equal(got, all) {
		t.Errorf("%v", got)
	}
	if got := ids("type=charge.succeeded"); !slices.Equal(got, all[1:2]) {
		t.Errorf("%v", got)
	}
	if got := ids("type=payment_intent.*"); !slices.Equal(got, []string{all[0], all[2]}) {
		t.Errorf("%v", got)
	}
	if got := ids(url.Values{"types[]": {"customer.created", "charge.succeeded"}}.Encode()); !slices.Equal(got, []string{all[1], all[4]}) {
		t.Errorf("%v", got)
	}
	first := w.Events()[0]
	if first.Type != "customer.created" {
		t.Fatalf("an event of 31 days ago is still there")
	}
	if got := ids("limit=2&ending_before=" + first.ID); !slices.Equal(got, all[2:4]) {
		t.Errorf("%v", got)
	}
	if r := w.must(w.get("/v1/events/"+first.ID, "")); r.str("type") != "customer.created" || r.str("api_version") != stripesim.APIVersion {
		t.Errorf("%s", r.body)
	}
	w.refused(w.get("/v1/events/evt_none", ""), 404, "resource_missing", "id")
}

func TestUnknownEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.listen()
	id, err := w.Operator().SendUnknownEvent()
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got := b.ids(); len(got) != 1 || got[0] != id {
		t.Errorf("%v", got)
	}
}

// An account whose receiver moved sends it what the old one did not take.
func TestSetEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, retries(time.Hour))
	old := w.listen()
	old.setRefuse(true)
	w.customer()
	w.settle()
	b := &inbox{secret: "whsec_moved"}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	w.SetEndpoint(stripesim.Endpoint{URL: server.URL, Secrets: []string{b.secret}})
	w.customer()
	w.settle()
	w.Advance(2 * time.Hour)
	w.settle()
	if len(b.events()) != 2 || len(old.payloads) != 1 {
		t.Errorf("%d events, %d to the old address", len(b.events()), len(old.payloads))
	}
	for _, e := range w.Events() {
		if e.PendingWebhooks != 0 {
			t.Errorf("%s is still pending", e.ID)
		}
	}
	if r := w.must(w.get("/v1/webhook_endpoints", "")); len(r.json["data"].([]any)) != 1 {
		t.Errorf("%s", r.body)
	}
}
