package handlers

import (
	"context"
	"encoding/csv"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/ledger"
)

// Nobody sees a page of the console, or does anything on one, without being signed in.
func TestOfficeNeedsASession(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	o.cookie = nil
	for pattern := range o.s.backOffice() {
		method, path, _ := strings.Cut(pattern, " ")
		path = strings.NewReplacer("{id}", "x").Replace(path)
		w := o.call(httptest.NewRequest(method, path, nil), http.StatusSeeOther)
		if to := w.Header().Get("Location"); !strings.HasPrefix(to, "/console/login") {
			t.Errorf("%s leads to %s", pattern, to)
		}
	}
}

// Each act of these pages has a name in the audit trail's filter.
func TestOfficeActsAreNamed(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	page := o.get("/console/audit")
	for _, a := range officeActs {
		has(t, "the trail", page, a.Label)
	}
}

// A key is shown once: not when its form is sent again, not in the list, not in the trail. It works, until it is revoked;
// the environment's is not revoked without a word that it comes back.
func TestKeysAtTheConsole(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	form := url.Values{"name": {"reports <b>"}, "scopes": {"usage", "read"}}
	shown, confirm := o.preview("/console/keys/new", form, http.StatusOK)
	has(t, "the preview", shown, "reports <b>", scopeWords["usage"]+"; "+scopeWords["read"])
	made := o.post("/console/keys/new", confirm, http.StatusOK).Body.String()
	key := regexp.MustCompile(`lsk_[\w-]{43}`).FindString(made)
	if key == "" {
		t.Fatalf("the key was not shown: %s", made)
	}
	again := o.post("/console/keys/new", confirm, http.StatusSeeOther)
	for _, page := range []string{again.Body.String(), o.get(again.Header().Get("Location")), o.get("/console/keys"), o.get("/console/audit")} {
		if strings.Contains(page, key) {
			t.Errorf("the key is shown once more: %s", page)
		}
	}
	keys, err := o.s.Ledger.Keys(t.Context())
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys: %v", len(keys), err)
	}
	k, found, err := o.s.Ledger.FindKey(t.Context(), ledger.HashKey(key))
	if err != nil || !found || k.ScopeList != "usage,read" {
		t.Fatalf("the key %+v: %t %v", k, found, err)
	}
	has(t, "the outcome", o.act("/console/keys/"+k.ID+"/revoke", nil), "is revoked")
	if _, found, err := o.s.Ledger.FindKey(t.Context(), ledger.HashKey(key)); found || err != nil {
		t.Errorf("revoked, it is found: %v", err)
	}
	shown, _ = o.preview("/console/keys/key_environment/revoke", nil, http.StatusOK)
	has(t, "revoking the environment's", shown, "comes back at the next start", "you will be signed out", "last key that may sign in")
	o.call(httptest.NewRequest("GET", "/console/keys/key_none/revoke", nil), http.StatusNotFound)
	page, _ := o.preview("/console/keys/new", url.Values{"name": {"none"}}, http.StatusBadRequest)
	has(t, "a key that may do nothing", page, "This is needed.")
}

// The signing secret of an endpoint is shown once, when it is made and when it is rotated.
func TestEndpointsAtTheConsole(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	long := "https://example.com/" + strings.Repeat("x", 1980)
	page, _ := o.preview("/console/webhooks/new", url.Values{"url": {long}, "events": {"*"}}, http.StatusBadRequest)
	has(t, "a URL of 2,000 characters", page, "url is longer than 500 bytes", long)
	page, _ = o.preview("/console/webhooks/new", url.Values{"url": {"http://example.com"}, "events": {"*"}}, http.StatusBadRequest)
	has(t, "a URL without TLS", page, "url must begin with https://")
	page, _ = o.preview("/console/webhooks/new", url.Values{"url": {"https://example.com"}, "events": {"*", "topup.failed"}}, http.StatusBadRequest)
	has(t, "all and more", page, `"*" is all types`)

	_, confirm := o.preview("/console/webhooks/new", url.Values{"url": {"https://example.com/hook"}, "events": {"topup.failed", "topup.succeeded"}}, http.StatusOK)
	secretOf := func(path string) string {
		t.Helper()
		made := o.post(path, confirm, http.StatusOK).Body.String()
		secret := html.UnescapeString(regexp.MustCompile(`whsec_[^<]+`).FindString(made))
		again := o.post(path, confirm, http.StatusSeeOther)
		for _, page := range []string{o.get(again.Header().Get("Location")), o.get("/console/webhooks")} {
			if secret == "" || strings.Contains(html.UnescapeString(page), secret) {
				t.Errorf("the secret %q: %s", secret, page)
			}
		}
		return secret
	}
	first := secretOf("/console/webhooks/new")
	all, err := o.s.Ledger.Endpoints(t.Context())
	if err != nil || len(all) != 1 || all[0].Secret != first || all[0].EventList != "topup.failed,topup.succeeded" {
		t.Fatalf("endpoints %+v: %v", all, err)
	}
	at := "/console/webhooks/" + all[0].ID
	_, confirm = o.preview(at+"/rotate", nil, http.StatusOK)
	second := secretOf(at + "/rotate")
	e, err := o.s.Ledger.EndpointByID(t.Context(), all[0].ID)
	if err != nil || e.Secret != second || *e.OldSecret != first {
		t.Errorf("rotated: %+v: %v", e, err)
	}
	has(t, "its page", o.get(at), "https://example.com/hook", "signs too, until", "Nothing yet")
	o.act(at+"/edit", url.Values{"url": {"https://example.com/other"}, "events": {"*"}, "description": {"books"}})
	o.act(at+"/disable", nil)
	e, _ = o.s.Ledger.EndpointByID(t.Context(), e.ID)
	if e.URL != "https://example.com/other" || e.EventList != "*" || e.Description != "books" || e.Status != "disabled" || e.Secret != second {
		t.Errorf("changed and disabled: %+v", e)
	}
	has(t, "disabled twice", o.follow(httptest.NewRequest("GET", at+"/disable", nil), http.StatusConflict), "disabled already")
	o.act(at+"/enable", nil)
	_, confirm = o.preview(at+"/delete", nil, http.StatusOK)
	gone := o.post(at+"/delete", confirm, http.StatusSeeOther).Header().Get("Location")
	if to := o.post(at+"/delete", confirm, http.StatusSeeOther).Header().Get("Location"); to != gone {
		t.Errorf("sent again it leads to %s, first to %s", to, gone)
	}
	has(t, "deleted", o.get(gone), "was deleted")
}

// What an endpoint answered to each try stands beside its event, as text whatever it is, and the event is sent again.
func TestDeliveriesAtTheConsole(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	address := "https://example.com/other"
	e, err := o.s.Ledger.CreateEndpoint(t.Context(), ledger.EndpointInput{URL: &address, Events: []string{"*"}}, ledger.Once{})
	must(t, err)
	at := "/console/webhooks/" + e.ID
	one, _ := ledger.ParseDecimal("1")
	_, _, err = o.s.Ledger.Grant(t.Context(), ledger.GrantInput{Customer: "acme", Amount: one}, ledger.Once{})
	must(t, err)
	_, _, err = o.s.Ledger.FanOut(t.Context())
	must(t, err)
	d, found, err := o.s.Ledger.LeaseDelivery(t.Context(), e.ID)
	if err != nil || !found {
		t.Fatal(found, err)
	}
	_, err = o.s.Ledger.EndTry(t.Context(), d, ledger.Tried{StatusCode: 500, Error: "it answered 500", Response: "<script>alert(1)</script>"})
	must(t, err)
	page := o.get("/console/events/" + d.ID)
	has(t, "the event", page, "it answered 500", "500", "https://example.com/other")
	if strings.Contains(page, "<script>alert") {
		t.Error("an answer was taken for a part of the page")
	}
	has(t, "the log", o.get(at), "it answered 500", "failing")
	has(t, "sending it again", o.act("/console/events/"+d.ID+"/resend", url.Values{"endpoint": {e.ID}}), "on its way again")
	due, err := o.s.Ledger.DueDeliveries(t.Context(), 10)
	if err != nil || len(due) != 1 {
		t.Errorf("due: %+v: %v", due, err)
	}
}

// An event of Stripe's is shown as it came, without its secrets, whatever is in it; what failed is worked off again.
func TestInboxAtTheConsole(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	woken := 0
	o.s.EventStored = func() { woken++ }
	payload := `{"id":"evt_bad","object":"event","type":"payment_intent.succeeded","data":{"object":{"id":"pi_1","object":"payment_intent","customer":{"id":"cus_1"},` +
		`"description":"</pre><script>alert(1)</script>","client_secret":"pi_1_secret_Abc123","nested":{"webhook_secret":"x\"y","note":"whsec_Zz9 and sk_live_51AAA"},"metadata":{"lockstep_topup":"top_1"}}}}`
	store := func(id, kind, payload, status string, failures int) {
		t.Helper()
		e := ledger.StripeEvent{ID: id, Type: kind, Payload: payload, Origin: "webhook", Status: status, CreatedAt: time.Now()}
		_, err := o.s.Ledger.StoreEvent(t.Context(), e)
		must(t, err)
		if failures > 0 {
			e.Tries = failures
			must(t, o.s.Ledger.EndEvent(t.Context(), e, "", fmt.Errorf("stripe is away <b>")))
		}
	}
	store("evt_bad", "payment_intent.succeeded", payload, "pending", 20)
	store("evt_2", "invoice.paid", `{"a":1}`, "pending", 20)
	store("evt_kept", "product.created", `not json <i>`, "ignored", 0)
	store("evt_long", "charge.refunded", `{"list":["`+strings.Repeat(`x","`, 60_000)+`"]}`, "ignored", 0)

	page := o.get("/console/stripe_events/evt_bad")
	has(t, "the event", page, "stripe is away <b>", "Settles the top-up", "https://dashboard.stripe.com/test/payments/pi_1", "about no customer of this service", "(hidden)")
	for _, bad := range []string{"<script>alert", "Abc123", `x\"y`, `x\\`, "Zz9", "51AAA"} {
		if strings.Contains(html.UnescapeString(page), bad) && bad != "<script>alert" || strings.Contains(page, bad) {
			t.Errorf("the page has %q: %s", bad, page)
		}
	}
	has(t, "what is no JSON", o.get("/console/stripe_events/evt_kept"), "not json <i>", "say nothing to Lockstep")
	if long := o.get("/console/stripe_events/evt_long"); len(long) > 3*payloadShown {
		t.Errorf("a long one is a page of %d bytes", len(long))
	}
	has(t, "a long one", o.get("/console/stripe_events/evt_long"), "this is its beginning")
	has(t, "what can't be worked off", o.follow(httptest.NewRequest("GET", "/console/stripe_events/evt_kept/replay", nil), http.StatusConflict), "say nothing to Lockstep")

	if n := strings.Count(o.get("/console/stripe_events?status=failed"), "/console/stripe_events/evt_"); n != 2 {
		t.Errorf("%d failed ones are listed", n)
	}
	has(t, "one again", o.act("/console/stripe_events/evt_bad/replay", nil), "waits to be worked off")
	if e, err := o.s.Ledger.InboxEvent(t.Context(), "evt_bad"); err != nil || e.Status != "pending" || e.Tries != 0 || woken != 1 {
		t.Errorf("worked off again: %+v, woken %d: %v", e, woken, err)
	}
	shown, _ := o.preview("/console/stripe_events/replay_failed", nil, http.StatusOK)
	has(t, "all again", shown, "The one event that failed")
	has(t, "all again", o.act("/console/stripe_events/replay_failed", nil), "One event waits")
	has(t, "none left", o.follow(httptest.NewRequest("GET", "/console/stripe_events/replay_failed", nil), http.StatusConflict), "No event has failed")
}

// What a price is shown to cost before it is set is what uses cost after, to the step.
func TestRatesAtTheConsole(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	tiers := url.Values{"key": {"gpt-4o/output"}, "asset": {"usd"}, "tiers": {"1000 0.002\r\nrest 0.0005 1"}, "tier_mode": {"graduated"}, "effective_at": {""}}
	shown, _ := o.preview("/console/rates/change", tiers, http.StatusOK)
	has(t, "the preview", shown, "1,000 units in one use will cost $2.00", "no gpt-4o/output yet", "$502.50") // 1000 × 0.002 + 1 + 999,000 × 0.0005
	has(t, "set", o.act("/console/rates/change", tiers), "has version 1")
	quantity, _ := ledger.ParseDecimal("1000000")
	rated, err := o.s.Ledger.Rate(t.Context(), "gpt-4o/output", quantity, "")
	if err != nil || rated.Amount.String() != "502.5" {
		t.Errorf("a million cost %s: %v", rated.Amount, err)
	}
	has(t, "the form to change it", o.get("/console/rates/change?key=gpt-4o%2Foutput"), "1000 0.002\nrest 0.0005 1")
	o.act("/console/rates/change", url.Values{"key": {"gpt-4o/output"}, "asset": {"usd"}, "unit_cost": {"0.003"}, "effective_at": {"2099-01-01"}})
	has(t, "its page", o.get("/console/rates/feature?key=gpt-4o%2Foutput"), "in force", "to come", "$502.50", "$0.003 a unit")
	for what, tt := range map[string]struct {
		form url.Values
		says string
	}{
		"no price":       {url.Values{"key": {"a"}, "asset": {"usd"}}, "unit_cost or tiers is missing"},
		"no asset":       {url.Values{"key": {"a"}, "asset": {"gold"}, "unit_cost": {"1"}}, `there is no asset "gold"`},
		"a bad tier":     {url.Values{"key": {"a"}, "asset": {"usd"}, "tiers": {"1000"}}, "Line 1: write up to"},
		"a bad number":   {url.Values{"key": {"a"}, "asset": {"usd"}, "unit_cost": {"1,5"}}, "must be a decimal"},
		"a bad time":     {url.Values{"key": {"a"}, "asset": {"usd"}, "unit_cost": {"1"}, "effective_at": {"soon"}}, "Write a day such as"},
		"tiers and cost": {url.Values{"key": {"a"}, "asset": {"usd"}, "unit_cost": {"1"}, "tiers": {"rest 1"}, "tier_mode": {"volume"}}, "not both"},
		"falling tiers":  {url.Values{"key": {"a"}, "asset": {"usd"}, "tiers": {"10 1\n5 1\nrest 1"}, "tier_mode": {"volume"}}, "Tier 2:"},
		"an odd key":     {url.Values{"key": {"a b"}, "asset": {"usd"}, "unit_cost": {"1"}}, "a feature's key is"},
	} {
		page, _ := o.preview("/console/rates/change", tt.form, http.StatusBadRequest)
		has(t, what, page, tt.says)
	}
	has(t, "an asset", o.act("/console/assets/change", url.Values{"code": {"credits"}, "scale": {"2"}, "price": {"0.01"}, "currency": {"usd"}}), "is set")
	page, _ := o.preview("/console/assets/change", url.Values{"code": {"credits"}, "scale": {"3"}}, http.StatusBadRequest)
	has(t, "another scale", page, "can't be changed")
	shown, _ = o.preview("/console/assets/change", url.Values{"code": {"credits"}, "scale": {"2"}, "price": {"0.02"}, "currency": {"usd"}}, http.StatusOK)
	has(t, "another price", shown, "$0.01", "$0.02", "brought up to it")
	has(t, "the list", o.get("/console/assets"), "credits", "$0.01")
	_, err = o.s.Ledger.Asset(t.Context(), "gold")
	if !ledger.IsCode(err, ledger.CodeAssetUnknown) {
		t.Errorf("a refused form made something: %v", err)
	}
}

// Why a top-up failed is said in words, beside the bank's code and what Stripe said; what has ended can't be canceled.
func TestDeclinedTopupAtTheConsole(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	twenty, _ := ledger.ParseDecimal("20")
	top, _, err := o.s.Ledger.CreateTopup(t.Context(), ledger.TopupInput{Customer: "acme", Amount: twenty, MinimumCharge: func(string) int64 { return 50 }}, ledger.Once{})
	must(t, err)
	at := "/console/topups/" + top.ID
	has(t, "one that waits", o.get(at), "waiting to be charged", "Cancel", "not yet, for this attempt")
	_, err = o.s.Ledger.SettleTopup(t.Context(), ledger.Outcome{Topup: top.ID, Status: "failed", PaymentIntent: "pi_9", Code: "card_declined", DeclineCode: "insufficient_funds", Message: "Your card has <b>no</b> funds."})
	must(t, err)
	page := o.get(at)
	has(t, "one that failed", page, "The card had not enough money on it.", "Your card has <b>no</b> funds.", "insufficient_funds", "https://dashboard.stripe.com/test/payments/pi_9", "a top-up failed")
	if strings.Contains(page, "<b>no</b>") || strings.Contains(page, at+"/cancel") {
		t.Errorf("its page: %s", page)
	}
	has(t, "the list", o.get("/console/topups?status=failed&customer=acme"), "insufficient_funds", "$20.00")
	has(t, "canceling it", o.follow(httptest.NewRequest("GET", at+"/cancel", nil), http.StatusConflict), "not on its way any more: it is failed")
	o.call(httptest.NewRequest("GET", "/console/topups/top_x", nil), http.StatusNotFound)
	o.call(httptest.NewRequest("GET", "/console/topups?status=odd", nil), http.StatusBadRequest)
}

// Ten thousand features, and as many events, are pages that come at once, each row on one of them.
func TestLongListsAtTheConsole(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	exec := func(statement string) {
		t.Helper()
		_, err := o.s.Ledger.DB().Exec(statement)
		must(t, err)
	}
	exec(`insert into features (key, version, asset, unit_cost, effective_at, created_at) select 'k' || lpad(n::text, 5, '0'), 1, 'usd', '0.001', now() - interval '1 hour', now() from generate_series(1, 10000) n`)
	exec(`insert into stripe_events (id, type, livemode, payload, origin, status, run_at, created_at, received_at) select 'evt_' || n, 'invoice.paid', false, '{}', 'webhook', 'done', now(), now(), now() from generate_series(1, 10000) n`)
	exec(`insert into api_keys (id, name, hash, hint, scopes, created_at) select 'key_' || n, 'k' || n, sha256(n::text::bytea), 'abcd', 'read', now() - n * interval '1 minute' from generate_series(1, 300) n`)
	for path, want := range map[string]int{"/console/rates": 10000, "/console/stripe_events": 10000, "/console/keys": 301} {
		rows, next, slowest := 0, path, time.Duration(0)
		row := map[string]*regexp.Regexp{"/console/rates": regexp.MustCompile(`rates/feature\?key=`), "/console/stripe_events": regexp.MustCompile(`stripe_events/evt_`), "/console/keys": regexp.MustCompile(`data-label="Key"`)}[path]
		pagesSeen := 0
		for next != "" && pagesSeen < 300 {
			begun := time.Now()
			page := o.get(next)
			if took := time.Since(begun); took > slowest {
				if slowest = took; took > time.Second { // far above what it takes, for a machine that does much else
					t.Errorf("%s took %v", next, took)
				}
			}
			rows += len(row.FindAllString(page, -1))
			pagesSeen++
			next = ""
			if m := regexp.MustCompile(`href="([^"]+)" rel="next"`).FindStringSubmatch(page); m != nil {
				next = html.UnescapeString(m[1])
			}
			if pagesSeen == 12 && want == 10000 { // enough to see that it goes on
				rows += want - 12*onPage
				break
			}
		}
		t.Logf("%s: %v at most", path, slowest)
		if rows != want {
			t.Errorf("%s has %d rows on %d pages, want %d", path, rows, pagesSeen, want)
		}
	}
}

// The books' report adds up and is the API's; entries come as the command exports them; a check that is asked for comes to
// its end and is kept.
func TestBooksAtTheConsole(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	newTestCustomer(t, o.s.Ledger, "beta")
	ten, _ := ledger.ParseDecimal("10")
	three, _ := ledger.ParseDecimal("3")
	_, _, err := o.s.Ledger.Grant(t.Context(), ledger.GrantInput{Customer: "beta", Amount: ten, Kind: "purchased"}, ledger.Once{})
	must(t, err)
	_, _, err = o.s.Ledger.Debit(t.Context(), ledger.DebitInput{Customer: "beta", Amount: three})
	must(t, err)
	now := time.Now().UTC().Format(month)
	has(t, "the page", o.get("/console/books"), "/console/books/report?from="+now+"&to="+now, "never checked")
	report := o.get("/console/books/report")
	has(t, "the report", report, "$10.00", "$3.00", "$7.00")
	r := httptest.NewRequest("GET", "/console/books/report?from=2023-01&to="+now, nil)
	r.Header.Set("HX-Request", "true")
	if part := o.call(r, http.StatusOK).Body.String(); strings.Contains(part, "<html") || !strings.Contains(part, "$7.00") {
		t.Errorf("the part of the page: %s", part)
	}
	lines, err := csv.NewReader(strings.NewReader(o.get("/console/books/revenue.csv"))).ReadAll()
	if err != nil || len(lines) != 3 || !slices.Equal(lines[2], []string{now, "usd", "purchased", "0", "10", "3", "0", "0", "7"}) {
		t.Errorf("as CSV: %v: %v", lines, err)
	}
	lines, err = csv.NewReader(strings.NewReader(o.get("/console/books/entries.csv"))).ReadAll()
	if err != nil || len(lines) != 4 || !slices.Equal(lines[0], ExportColumns) || !slices.ContainsFunc(lines, func(l []string) bool { return l[0] == "beta" && l[6] == "-3" }) {
		t.Errorf("the entries: %v: %v", lines, err)
	}
	for _, bad := range []string{"from=2026-13", "from=x", "from=2026-05&to=2026-04", "to=" + strings.Repeat("9", 400)} {
		has(t, bad, o.call(httptest.NewRequest("GET", "/console/books?"+bad, nil), http.StatusBadRequest).Body.String(), "months-error")
		o.call(httptest.NewRequest("GET", "/console/books/entries.csv?"+bad, nil), http.StatusBadRequest)
	}
	has(t, "too long a report", o.call(httptest.NewRequest("GET", "/console/books/report?from=1990-01&to=2026-01", nil), http.StatusBadRequest).Body.String(), "five years at most")

	o.s.exporting.Store(true) // somebody else's is on its way
	has(t, "a second export", o.call(httptest.NewRequest("GET", "/console/books/entries.csv", nil), http.StatusConflict).Body.String(), "Another export")
	o.s.exporting.Store(false)

	has(t, "the check", o.act("/console/books/verify", nil), "being checked")
	page := ""
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if page = o.get("/console/books"); strings.Contains(page, "Digest") {
			break
		}
	}
	v, err := o.s.Ledger.Verify(context.Background(), func(int, int) {})
	must(t, err)
	has(t, "what it found", page, v.Digest, "3 entries of 2 wallets", "Ann")
}
