package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/ledger"
)

// quiet leaves out webhooks, which would change what books sees while a test looks.
func quiet(o *worldOptions) { o.noWebhook = true }

// refusal is what a refused call must be answered. Of code "" any will do, as where a mistake has two
// right names; of param "*" too.
type refusal struct {
	status            int
	kind, code, param string
}

func bad(code, param string) refusal {
	return refusal{400, "invalid_request_error", code, param}
}

var (
	notFound  = refusal{404, "invalid_request_error", "resource_missing", "*"}
	reusedKey = refusal{422, "idempotency_error", "idempotency_key_reused", "idempotency_key"}
)

// refused checks the whole shape of a refusal.
func (w *world) refused(what string, a answer, want refusal) {
	w.t.Helper()
	got := refusal{a.status, a.str("error.type"), a.str("error.code"), a.str("error.param")}
	if want.code == "" {
		got.code = ""
	}
	if want.param == "*" {
		got.param = "*"
	}
	shown := a.String()
	shown = shown[:min(len(shown), 400)]
	if got != want {
		w.t.Errorf("%s: %v, want %v; %s", what, got, want, shown)
	}
	if id := a.header.Get("Request-Id"); id == "" || a.str("error.request_id") != id {
		w.t.Errorf("%s: Request-Id is %q; %s", what, id, shown)
	}
	if m := a.str("error.message"); m == "" || len(m) > 1000 || strings.HasPrefix(m, " ") {
		w.t.Errorf("%s: a message of %d bytes: %.80q", what, len(m), m)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/json" {
		w.t.Errorf("%s: Content-Type %q", what, ct)
	}
}

// books is a look at all that calls could have left behind.
func (w *world) books() string {
	w.t.Helper()
	var s string
	err := w.g.ledger.DB().Get(&s, `select concat_ws(' ',
		'customers', (select count(*) from customers), 'links', (select count(*) from stripe_links),
		'wallets', (select concat(count(*), '/', sum(total), '/', sum(pending), '/', sum(overdraft_limit)) from wallets),
		'grants', (select concat(count(*), '/', sum(remaining), '/', count(*) filter (where status = 'voided')) from grants),
		'entries', (select count(*) from entries), 'topups', (select count(*) from topups), 'answers', (select count(*) from answers),
		'rules', (select string_agg(concat(wallet_id, enabled, threshold, amount, target, cap_amount, pause_reason), ',') from topup_rules),
		'assets', (select string_agg(concat(code, scale, price_pico, currency), ',' order by code) from assets),
		'events', (select count(*) from stripe_events))`)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// refuse is one call that must be refused.
type refuse struct {
	what, method, path string
	body               any
	want               refusal
}

// refuses makes the calls and sees that each is refused in the contract's words and books nothing.
func (w *world) refuses(cases []refuse) {
	w.t.Helper()
	before := w.books()
	for _, c := range cases {
		what := c.method + " " + c.path + ": " + c.what
		w.refused(what, w.call(c.method, c.path, c.body), c.want)
		if after := w.books(); after != before {
			w.t.Errorf("%s: booked something: %s, before it %s", what, after, before)
			before = after
		}
	}
}

// nul, and what else no text may be.
const nul = "a\x00b"

var megabyte = strings.Repeat("x", 900<<10)

// wrongTexts are what is no text for a field that takes one.
var wrongTexts = map[string]any{"a number": 12, "a huge number": rawNumber("1e400"), "a truth": true, "an object": map[string]any{"a": 1},
	"a list": []any{"a"}, "empty": "", "a megabyte": megabyte, "a NUL": nul}

var wrongInts = map[string]any{"a text": "50", "a fraction": 1.5, "1e400": rawNumber("1e400"), "a huge number": rawNumber("99999999999999999999"),
	"a truth": true, "a list": []any{1}}

var wrongMaps = map[string]any{"a text": "x", "a number": 1, "a list": []any{}, "a number within": map[string]any{"k": 1}, "a list within": map[string]any{"k": []any{}},
	"a megabyte within": map[string]any{"k": megabyte}, "a megabyte's name": map[string]any{megabyte: "v"}, "a NUL within": map[string]any{"k": nul}, "51 names": fiftyOne()}

func fiftyOne() map[string]any {
	m := map[string]any{}
	for i := range 51 {
		m[fmt.Sprint("k", i)] = "v"
	}
	return m
}

// wrongAmounts are decimal strings that are none, or none that a currency's scale of 6 takes.
var wrongAmounts = []string{"-1", "-0.000001", "NaN", "nan", "Inf", "-Infinity", "1e400", "1e2", "1E-2", "0x10", "1.", ".5", ".", "-", "+1", " 1", "1 ",
	"1,5", "1_000", "1.2.3", "--1", "0.0000001", "1.1234567", "99999999999999999999", "9223372036854.775808", "9223372036854775807", "１", "abc", "null", "1/2"}

type rawNumber string

func (n rawNumber) MarshalJSON() ([]byte, error) { return []byte(n), nil }

// with is a body with one field changed.
func with(body map[string]any, field string, value any) map[string]any {
	b := maps.Clone(body)
	b[field] = value
	return b
}

// fields says which kind of value each field of a call takes: text, free (an empty text is fine), amount,
// int or map. A call with every kind of mistake in every field must name the field, and book nothing.
type fields struct {
	method, path string
	body         map[string]any
	kinds        map[string]string
	need         []string
}

func (f fields) mistakes() []refuse {
	var cases []refuse
	add := func(what string, body any, want refusal) {
		cases = append(cases, refuse{what, f.method, f.path, body, want})
	}
	for _, field := range f.need {
		b := maps.Clone(f.body)
		delete(b, field)
		add("without "+field, b, bad("parameter_missing", field))
		add("null "+field, with(f.body, field, nil), bad("parameter_missing", field))
	}
	for _, field := range slices.Sorted(maps.Keys(f.kinds)) {
		wrong := wrongTexts
		switch f.kinds[field] {
		case "int":
			wrong = wrongInts
		case "map":
			wrong = wrongMaps
		case "amount":
			for _, s := range wrongAmounts {
				add(field+" "+s, with(f.body, field, s), bad("parameter_invalid", field))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(wrong)) {
			if f.kinds[field] == "free" && name == "empty" {
				continue
			}
			add(field+" "+name, with(f.body, field, wrong[name]), bad("", field))
		}
	}
	add("an unknown field", with(f.body, "surprise", 1), bad("parameter_unknown", "surprise"))
	add("an unknown field of a megabyte", with(f.body, megabyte, 1), bad("parameter_unknown", "*"))
	for field := range f.body {
		name := strings.ToUpper(field[:1]) + field[1:]
		add("a field of another case", with(f.body, name, f.body[field]), bad("parameter_unknown", name))
		break
	}
	for what, raw := range map[string]string{
		"a list": "[]", "a text": `"x"`, "a number": "1", "1e400": "1e400", "half an object": `{"customer":`, "no JSON": "amount=1&customer=acme",
		"NaN": `{"amount":NaN}`, "trailing object": "{} {}", "trailing text": "{}x", "deep": strings.Repeat("[", 200_000), "deep in a field": `{"metadata":` + strings.Repeat(`{"a":`, 200_000),
		"a deep field": `{"surprise":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "}", "a byte order mark": "\ufeff{}", "invalid UTF-8": "{\"customer\":\"\xff\"}", "a comment": "{/**/}",
		"a NUL": "\x00",
	} {
		add(what, raw, refusal{400, "invalid_request_error", "", "*"})
	}
	add("over a megabyte", `{"customer":"`+strings.Repeat("x", 1<<20)+`"}`, refusal{413, "invalid_request_error", "parameter_invalid", ""})
	return cases
}

// Every call that takes a body refuses every kind of mistake in every field, by the field's name, and books
// nothing.
func TestBadFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "10", "pm_card_visa")
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0})
	for _, f := range []fields{
		{"POST", "/v1/usage", map[string]any{"customer": "acme", "asset": "usd", "amount": "1", "idempotency_key": "k", "metadata": map[string]any{"a": "b"}},
			map[string]string{"customer": "text", "asset": "text", "amount": "amount", "idempotency_key": "text", "metadata": "map"}, []string{"customer", "amount"}},
		{"POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "1", "idempotency_key": "k"},
			map[string]string{"customer": "text", "asset": "text", "amount": "amount", "kind": "text", "priority": "int", "covers": "text", "effective_at": "text",
				"expires_at": "text", "reason": "free", "metadata": "map", "idempotency_key": "text"}, []string{"customer", "amount"}},
		{"POST", "/v1/customers", map[string]any{"id": "other"},
			map[string]string{"id": "text", "email": "free", "name": "free", "stripe_customer": "text", "metadata": "map"}, []string{"id"}},
		{"POST", "/v1/customers/acme/wallets", map[string]any{"asset": "tokens"},
			map[string]string{"asset": "text", "scope": "text"}, []string{"asset"}},
		{"PUT", "/v1/assets/credits", map[string]any{"scale": 2, "price_per_unit": "0.01", "currency": "usd"},
			map[string]string{"scale": "int", "currency": "text"}, []string{"scale"}},
		{"PUT", "/v1/wallets/" + wallet + "/auto_topup", map[string]any{"threshold": "5", "amount": "20"},
			map[string]string{"threshold": "amount", "amount": "amount", "threshold_percent": "int", "mode": "text", "settlement": "text", "payment_method": "text"}, nil},
		{"POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "20"},
			map[string]string{"customer": "text", "asset": "text", "amount": "amount", "mode": "text", "payment_method": "text"}, []string{"customer", "amount"}},
		{"POST", "/v1/reconcile", map[string]any{"repair": true}, map[string]string{"customer": "text"}, nil},
	} {
		w.refuses(f.mistakes())
	}
	if got := w.available("acme"); got != "10" {
		t.Errorf("available %s after refusals only", got)
	}
}

// A path, a query or a header may hold what no database takes; it is refused as input, not as a fault.
func TestBadPathsQueriesAndHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "10", "")
	long := strings.Repeat("x", 4000)
	for _, c := range []struct {
		method, path string
		want         refusal
	}{
		{"GET", "/v1/customers/nobody", notFound},
		{"GET", "/v1/customers/cus_nobody", notFound},
		{"GET", "/v1/customers/%00", bad("parameter_invalid", "customer")},
		{"GET", "/v1/customers/%ff", bad("parameter_invalid", "customer")},
		{"GET", "/v1/customers/cus_%ff", bad("parameter_invalid", "customer")},
		{"GET", "/v1/customers/" + long, bad("parameter_invalid", "customer")},
		{"GET", "/v1/customers/%ff/wallets", bad("parameter_invalid", "customer")},
		{"GET", "/v1/customers/%ff/lockstep", bad("parameter_invalid", "customer")},
		{"GET", "/v1/customers/%ff/check?amount=1", bad("parameter_invalid", "customer")},
		{"GET", "/v1/customers/nobody/wallets", notFound},
		{"GET", "/v1/customers/nobody/lockstep", notFound},
		{"GET", "/v1/customers/nobody/check?amount=1", notFound},
		{"GET", "/v1/wallets/nothing", notFound},
		{"GET", "/v1/wallets/wal_%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff", notFound},
		{"GET", "/v1/wallets/wal_00000000000000000000", notFound},
		{"GET", "/v1/wallets/wal_00000000000000000000/balance", notFound},
		{"GET", "/v1/wallets/wal_00000000000000000000/entries", notFound},
		{"GET", "/v1/wallets/wal_00000000000000000000/auto_topup", notFound},
		{"PUT", "/v1/wallets/wal_00000000000000000000/auto_topup", notFound},
		{"GET", "/v1/wallets/" + wallet + "/auto_topup", notFound},
		{"POST", "/v1/wallets/" + wallet + "/auto_topup/pause", notFound},
		{"POST", "/v1/wallets/" + wallet + "/auto_topup/resume", notFound},
		{"GET", "/v1/grants/grt_00000000000000000000", notFound},
		{"POST", "/v1/grants/grt_00000000000000000000/void", notFound},
		{"GET", "/v1/debits/deb_00000000000000000000", notFound},
		{"GET", "/v1/debits/" + wallet, notFound},
		{"GET", "/v1/topups/top_00000000000000000000", notFound},
		{"POST", "/v1/topups/top_00000000000000000000/cancel", notFound},
		{"GET", "/v1/assets/nothing", notFound},
		{"GET", "/v1/assets/%ff", bad("parameter_invalid", "code")},
		{"GET", "/v1/grants?customer=", bad("", "customer")},
		{"GET", "/v1/grants?customer=%ff", bad("parameter_invalid", "customer")},
		{"GET", "/v1/grants?customer=nobody", notFound},
		{"GET", "/v1/grants?customer=acme&status=gone", bad("parameter_invalid", "status")},
		{"GET", "/v1/grants?customer=acme&starting_after=%00", bad("parameter_invalid", "starting_after")},
		{"GET", "/v1/grants?customer=acme&starting_after=grt_%ff", bad("parameter_invalid", "starting_after")},
		{"GET", "/v1/grants?customer=acme&starting_after=nothing", refusal{404, "invalid_request_error", "resource_missing", "starting_after"}},
		{"GET", "/v1/grants?customer=acme&stauts=voided", bad("parameter_unknown", "stauts")},
		{"GET", "/v1/topups?customer=%ff", bad("parameter_invalid", "customer")},
		{"GET", "/v1/topups?customer=acme&starting_after=nothing", refusal{404, "invalid_request_error", "resource_missing", "starting_after"}},
		{"GET", "/v1/customers?limit=0", bad("parameter_invalid", "limit")},
		{"GET", "/v1/customers?limit=101", bad("parameter_invalid", "limit")},
		{"GET", "/v1/customers?limit=-1", bad("parameter_invalid", "limit")},
		{"GET", "/v1/customers?limit=1.5", bad("parameter_invalid", "limit")},
		{"GET", "/v1/customers?limit=ten", bad("parameter_invalid", "limit")},
		{"GET", "/v1/customers?limit=99999999999999999999", bad("parameter_invalid", "limit")},
		{"GET", "/v1/customers?limt=5", bad("parameter_unknown", "limt")},
		{"GET", "/v1/customers?limit=5;starting_after=x", bad("", "*")},
		{"GET", "/v1/customers?limit=%zz", bad("", "*")},
		{"GET", "/v1/customers?starting_after=nobody", refusal{404, "invalid_request_error", "resource_missing", "starting_after"}},
		{"GET", "/v1/customers/acme?expand=wallets", bad("parameter_unknown", "expand")},
		{"GET", "/v1/wallets/" + wallet + "?at=now", bad("parameter_unknown", "at")},
		{"GET", "/v1/wallets/" + wallet + "/entries?starting_after=nothing", refusal{404, "invalid_request_error", "resource_missing", "starting_after"}},
		{"GET", "/v1/wallets/" + wallet + "/entries?limit=0", bad("parameter_invalid", "limit")},
		{"GET", "/v1/wallets/" + wallet + "/balance?at=yesterday", bad("parameter_invalid", "at")},
		{"GET", "/v1/wallets/" + wallet + "/balance?at=1700000000", bad("parameter_invalid", "at")},
		{"GET", "/v1/customers/acme/check", bad("parameter_missing", "amount")},
		{"GET", "/v1/customers/acme/check?amount=", bad("parameter_invalid", "amount")},
		{"GET", "/v1/customers/acme/check?amount=NaN", bad("parameter_invalid", "amount")},
		{"GET", "/v1/customers/acme/check?amount=1e400", bad("parameter_invalid", "amount")},
		{"GET", "/v1/customers/acme/check?amount=-1", bad("parameter_invalid", "amount")},
		{"GET", "/v1/customers/acme/check?amount=0.0000001", bad("parameter_invalid", "amount")},
		{"GET", "/v1/customers/acme/check?amount=1&asset=nothing", bad("asset_unknown", "asset")},
		{"GET", "/v1/customers/acme/check?amount=1&sum=2", bad("parameter_unknown", "sum")},
		{"POST", "/v1/usage?amount=1", bad("parameter_unknown", "amount")},
		{"GET", "/v1/customers//wallets", refusal{404, "invalid_request_error", "resource_missing", ""}},
		{"POST", "//v1/usage", refusal{404, "invalid_request_error", "resource_missing", ""}},
		{"GET", "/v1/x/../customers", refusal{404, "invalid_request_error", "resource_missing", ""}},
		{"GET", "/v1/nothing", refusal{404, "invalid_request_error", "resource_missing", ""}},
		{"POST", "/v1", refusal{404, "invalid_request_error", "resource_missing", ""}},
		{"GET", "/", refusal{404, "invalid_request_error", "resource_missing", ""}},
		{"DELETE", "/v1/customers/acme", refusal{405, "invalid_request_error", "", ""}},
		{"GET", "/v1/usage", refusal{405, "invalid_request_error", "", ""}},
		{"POST", "/v1/assets/usd", refusal{405, "invalid_request_error", "", ""}},
		{"GET", "/webhooks/stripe", refusal{405, "invalid_request_error", "", ""}},
	} {
		var body any
		if c.method == "PUT" {
			body = map[string]any{"threshold": "5", "amount": "20"}
		}
		before := w.books()
		a := w.call(c.method, c.path, body)
		w.refused(c.method+" "+c.path[:min(len(c.path), 100)], a, c.want)
		if c.want.status == 405 && a.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
		if after := w.books(); after != before {
			t.Errorf("%s %s booked: %s, before it %s", c.method, c.path, after, before)
		}
	}
	debit := map[string]any{"customer": "acme", "amount": "1"}
	for what, key := range map[string]string{"not UTF-8": "\xff\xfe", "256 bytes": strings.Repeat("k", 256)} {
		w.refused("key "+what, w.call("POST", "/v1/usage", debit, "Idempotency-Key", key), bad("parameter_invalid", "idempotency_key"))
	}
	w.refused("two keys", w.call("POST", "/v1/usage", with(debit, "idempotency_key", "a"), "Idempotency-Key", "b"), bad("parameter_invalid", "idempotency_key"))
	if got := w.available("acme"); got != "10" {
		t.Errorf("available %s after refusals only", got)
	}
}

// A key opens what its scopes say, and nothing once it is revoked.
func TestAPIKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "10", "")
	unauthorized := refusal{401, "authentication_error", "api_key_invalid", ""}
	debit := map[string]any{"customer": "acme", "amount": "1"}
	before := w.books()
	for what, header := range map[string]string{"none": "", "another scheme": "Basic " + w.key, "no scheme": w.key, "no key": "Bearer ", "a wrong key": "Bearer lsk_wrong",
		"a longer key": "Bearer " + w.key + "x", "two spaces": "Bearer  " + w.key, "odd bytes": "Bearer \xff", "a huge key": "Bearer " + strings.Repeat("x", 20_000)} {
		for _, path := range []string{"/v1/usage", "/v1/usage/batch", "/v1/customers", "/v1/grants", "/v1/topups", "/v1/reconcile"} {
			w.refused(what, w.call("POST", path, debit, "Authorization", header), unauthorized)
		}
		w.refused(what, w.call("GET", "/v1/customers", nil, "Authorization", header), unauthorized)
	}
	w.refused("a bad key before a bad body", w.call("POST", "/v1/usage", "{", "Authorization", "Bearer x"), unauthorized)
	if after := w.books(); after != before {
		t.Errorf("booked without a key: %s, before it %s", after, before)
	}

	calls := []struct{ scope, method, path string }{
		{"usage", "POST", "/v1/usage"}, {"usage", "POST", "/v1/usage/batch"}, {"usage read", "GET", "/v1/customers/acme/check"},
		{"read", "GET", "/v1/customers"}, {"read", "GET", "/v1/customers/acme"}, {"read", "GET", "/v1/grants"}, {"read", "GET", "/v1/topups"}, {"read", "GET", "/v1/customers/acme/lockstep"},
		{"write", "POST", "/v1/customers"}, {"write", "POST", "/v1/grants"}, {"write", "POST", "/v1/topups"}, {"write", "PUT", "/v1/assets/credits"}, {"write", "POST", "/v1/customers/acme/wallets"},
		{"write", "POST", "/v1/reconcile"},
	}
	secrets := map[string]string{}
	for _, scope := range ledger.Scopes {
		_, secret, err := w.g.ledger.CreateKey(t.Context(), scope, []string{scope})
		if err != nil {
			t.Fatal(err)
		}
		secrets[scope] = secret
	}
	for _, c := range calls {
		for scope, secret := range secrets {
			a := w.call(c.method, c.path, `{"surprise":1}`, "Authorization", "Bearer "+secret)
			what := fmt.Sprintf("%s %s with scope %s", c.method, c.path, scope)
			switch {
			case !strings.Contains(c.scope, scope) && scope != "admin":
				w.refused(what, a, refusal{403, "permission_error", "scope_missing", ""})
			case a.status == 401 || a.status == 403:
				t.Errorf("%s: %v", what, a)
			}
		}
	}
	if a := w.call("GET", "/v1/customers", nil, "Authorization", "bearer "+secrets["read"]); a.status != 200 {
		t.Errorf("the scheme's case matters: %v", a)
	}

	fresh, secret, err := w.g.ledger.CreateKey(t.Context(), "revoked unseen", []string{"usage"})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := w.g.ledger.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if k.Name == "usage" || k.ID == fresh.ID {
			if err := w.g.ledger.RevokeKey(t.Context(), k.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.refused("revoked before its first use", w.call("POST", "/v1/usage", debit, "Authorization", "Bearer "+secret), unauthorized)
	w.eventually("a revoked key that was used is refused", func() bool {
		return w.call("POST", "/v1/usage", "{}", "Authorization", "Bearer "+secrets["usage"]).status == 401
	})
}

// What is open to all needs no key, and every answer has a Request-Id of its own.
func TestOpenToAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := map[string]bool{}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/v1/customers", "/v1/nothing", "/webhooks/stripe", "//healthz"} {
		a := w.call("GET", path, nil, "Authorization", "")
		if open := path == "/healthz" || path == "/readyz" || path == "/metrics"; open != (a.status == http.StatusOK) {
			t.Errorf("GET %s: %d", path, a.status)
		}
		id := a.header.Get("Request-Id")
		if id == "" || seen[id] {
			t.Errorf("GET %s: Request-Id %q", path, id)
		}
		seen[id] = true
	}
	if a := w.call("HEAD", "/v1/customers", nil); a.status != http.StatusOK || len(a.raw) != 0 {
		t.Errorf("HEAD: %v", a)
	}
	start := time.Now()
	if a := w.call("POST", "/v1/usage", strings.Repeat(" ", 8<<20)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("8 MiB: %v", a)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("8 MiB took %v", d)
	}
}
