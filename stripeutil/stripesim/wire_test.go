package stripesim_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// Who has no key, or another one, learns nothing and changes nothing.
func TestKeyRequired(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, header := range map[string]string{"none": "", "wrong": "Bearer sk_test_other", "scheme": "Digest " + w.SecretKey(), "empty": "Bearer "} {
		r := w.post("/v1/customers", "", "Authorization", header)
		if r.status != 401 || r.str("error", "type") != "invalid_request_error" {
			t.Errorf("%s: got %d %s", name, r.status, r.body)
		}
	}
	if n := len(w.Customers()); n != 0 {
		t.Errorf("%d customers made without a key", n)
	}
	req, _ := http.NewRequest("GET", w.url+"/v1/customers", nil)
	req.SetBasicAuth(w.SecretKey(), "")
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != 200 {
		t.Errorf("basic authentication: %v %v", res, err)
	}
}

// Each refusal has Stripe's status, code and parameter; nothing is made.
func TestParametersRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	txn := "/v1/customers/" + cus + "/balance_transactions"
	for _, c := range []struct {
		path, form string
		status     int
		code       string
		param      string
	}{
		{"/v1/customers", "nme=x", 400, "parameter_unknown", "nme"},
		{"/v1/customers", "invoice_settings[foo]=x", 400, "parameter_unknown", "invoice_settings[foo]"},
		{"/v1/customers", "metadata[" + strings.Repeat("k", 41) + "]=x", 400, "", "metadata"},
		{"/v1/customers", "metadata[k]=" + strings.Repeat("v", 501), 400, "", "metadata[k]"},
		{"/v1/customers", "metadata=x", 400, "", "metadata"},
		{"/v1/customers", "name[a]=x", 400, "", "name"},
		{"/v1/customers", "name=" + strings.Repeat("x", 5001), 400, "", "name"},
		{txn, "currency=usd", 400, "parameter_missing", "amount"},
		{txn, "amount=5", 400, "parameter_missing", "currency"},
		{txn, "amount=5.5&currency=usd", 400, "parameter_invalid_integer", "amount"},
		{txn, "amount=abc&currency=usd", 400, "parameter_invalid_integer", "amount"},
		{txn, "amount=1e3&currency=usd", 400, "parameter_invalid_integer", "amount"},
		{txn, "amount=99999999999999999999&currency=usd", 400, "parameter_invalid_integer", "amount"},
		{txn, "amount=&currency=usd", 400, "parameter_invalid_empty", "amount"},
		{txn, "amount=5&currency=zzz", 400, "", "currency"},
		{txn, "amount=5&currency=usd&type=initial", 400, "parameter_unknown", "type"},
		{"/v1/payment_intents", "amount=100&currency=usd&confirm=maybe", 400, "", "confirm"},
		{"/v1/payment_intents", "amount=-5&currency=usd", 400, "parameter_invalid_integer", "amount"},
		{"/v1/customers/cus_none", "name=x", 404, "resource_missing", "id"},
		{"/v1/customers/cus_none/balance_transactions", "amount=1&currency=usd", 404, "resource_missing", "customer"},
		{"/v1/nothing", "", 404, "", ""},
	} {
		w.refused(w.post(c.path, c.form), c.status, c.code, c.param)
	}
	if got := w.get("/v1/customers/cus_none", "").str("error", "message"); got != "No such customer: 'cus_none'" {
		t.Errorf("message %q", got)
	}
	if n := len(w.BalanceTransactions(cus)); n != 0 || len(w.Customers()) != 1 || len(w.PaymentIntents("")) != 0 {
		t.Errorf("a refused call had an effect")
	}
}

// Lists are newest first, in pages that neither skip nor repeat, both ways.
func TestListsPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var ids []string
	for range 25 {
		ids = append([]string{w.customer()}, ids...)
	}
	for _, bad := range []string{"limit=0", "limit=101", "limit=x"} {
		w.refused(w.get("/v1/customers", bad), 400, "parameter_invalid_integer", "limit")
	}
	w.refused(w.get("/v1/customers", "starting_after=cus_none"), 400, "resource_missing", "starting_after")
	if r := w.get("/v1/customers", "starting_after="+ids[0]+"&ending_before="+ids[3]); r.status != 400 {
		t.Errorf("both cursors: %d", r.status)
	}
	page := func(form string) (got []string, more bool) {
		r := w.must(w.get("/v1/customers", form))
		for _, o := range r.json["data"].([]any) {
			got = append(got, o.(map[string]any)["id"].(string))
		}
		return got, r.json["has_more"].(bool)
	}
	equal := func(name string, got []string, more bool, want []string, wantMore bool) {
		t.Helper()
		if strings.Join(got, " ") != strings.Join(want, " ") || more != wantMore {
			t.Errorf("%s: got %v %v, want %v %v", name, got, more, want, wantMore)
		}
	}
	got, more := page("")
	equal("default", got, more, ids[:10], true)
	got, more = page("limit=3&starting_after=" + ids[4])
	equal("after", got, more, ids[5:8], true)
	got, more = page("limit=100&starting_after=" + ids[19])
	equal("last", got, more, ids[20:], false)
	got, more = page("limit=3&ending_before=" + ids[4])
	equal("before", got, more, ids[1:4], true)
	got, more = page("limit=4&ending_before=" + ids[4])
	equal("first", got, more, ids[:4], false)
	got, more = page("ending_before=" + ids[0])
	equal("nothing newer", got, more, nil, false)
}

// created[...] selects by the simulator's clock.
func TestListsFilterByCreated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.customer()
	w.Advance(time.Hour)
	cut := w.Now().Unix() - 60
	young := w.customer()
	for form, want := range map[string]string{
		"created[gte]=" + itoa(cut): young, "created[gt]=" + itoa(cut): young,
		"created[lt]=" + itoa(cut): old, "created[lte]=" + itoa(cut): old,
	} {
		r := w.must(w.get("/v1/customers", form))
		data := r.json["data"].([]any)
		if len(data) != 1 || data[0].(map[string]any)["id"] != want {
			t.Errorf("%s: %s", form, r.body)
		}
	}
	if n := len(w.must(w.get("/v1/customers", "created="+itoa(cut))).json["data"].([]any)); n != 0 {
		t.Errorf("created=<exact> found %d", n)
	}
}

// expand[] replaces ids by objects, in lists too; what is no reference is
// refused.
func TestExpand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	w.must(w.post("/v1/customers/"+cus, "invoice_settings[default_payment_method]="+pm))
	if r := w.get("/v1/customers/"+cus, "expand[]=nme"); r.status != 400 {
		t.Errorf("unknown property: %d", r.status)
	}
	pi := w.must(w.charge(cus, pm, "500")).str("id")
	r := w.must(w.get("/v1/payment_intents/"+pi, "expand[]=latest_charge&expand[]=customer.invoice_settings.default_payment_method"))
	if r.str("latest_charge", "payment_intent") != pi || r.str("customer", "invoice_settings", "default_payment_method", "id") != pm {
		t.Errorf("not expanded: %s", r.body)
	}
	r = w.must(w.get("/v1/charges", url.Values{"expand[]": {"data.payment_intent"}}.Encode()))
	if got := r.json["data"].([]any)[0].(map[string]any)["payment_intent"].(map[string]any)["id"]; got != pi {
		t.Errorf("list not expanded: %s", r.body)
	}
}

func TestAnswerHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.post("/v1/customers", "", "Stripe-Version", "2022-11-15", "Idempotency-Key", "k")
	if !strings.HasPrefix(r.header.Get("Request-Id"), "req_") || r.header.Get("Stripe-Version") != "2022-11-15" || r.header.Get("Idempotency-Key") != "k" {
		t.Errorf("headers %v", r.header)
	}
	if v := w.get("/v1/customers", "").header.Get("Stripe-Version"); v != stripesim.APIVersion {
		t.Errorf("default version %q", v)
	}
}

// The mode of the key is the mode of everything.
func TestLivemodeFollowsTheKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *stripesim.Options) { o.SecretKey = "sk_live_x" })
	cus := w.customer()
	if r := w.get("/v1/customers/"+cus, ""); r.json["livemode"] != true {
		t.Errorf("live key, test customer: %s", r.body)
	}
	if !w.Events()[0].Livemode {
		t.Error("live key, test event")
	}
	// Test tokens do not exist there.
	w.refused(w.post("/v1/payment_methods/pm_card_visa/attach", "customer="+cus), 404, "resource_missing", "payment_method")
	pm, err := w.Operator().AttachCard(cus, "pm_card_visa")
	if err != nil {
		t.Fatal(err)
	}
	if r := w.must(w.charge(cus, pm, "500")); r.json["livemode"] != true {
		t.Errorf("a test payment: %s", r.body)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	w := newWorld(t, func(o *stripesim.Options) { o.RateLimit = 3; o.Now = func() time.Time { return now } })
	for i := range 3 {
		if r := w.get("/v1/customers", ""); r.status != 200 {
			t.Fatalf("call %d: %d", i, r.status)
		}
	}
	r := w.post("/v1/customers", "", "Idempotency-Key", "k")
	w.refused(r, 429, "rate_limit", "")
	if r.header.Get("Stripe-Rate-Limited-Reason") == "" {
		t.Error("no reason given")
	}
	w.Advance(time.Second)
	if r := w.post("/v1/customers", "", "Idempotency-Key", "k"); r.status != 200 || r.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("a 429 must not be saved: %d %v", r.status, r.header)
	}
}
