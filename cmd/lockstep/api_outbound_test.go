package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"lockstep/ledger"
)

// What no endpoint can be is refused, by the name of the field, and what is not there is not found.
func TestEndpointRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "10", "")
	endpoint := map[string]any{"url": "https://example.com/hook", "events": []string{"*"}}
	id := w.must("POST", "/v1/webhook_endpoints", endpoint).str("id")
	event := w.must("GET", "/v1/events", nil).str("data.0.id")
	var cases []refuse
	for what, url := range map[string]any{"http": "http://example.com/hook", "no scheme": "example.com", "another scheme": "ftp://example.com", "no host": "https:///hook", "a host of a port": "https://:443/",
		"a path": "/hook", "a user": "https://user@example.com", "a password": "https://user:pass@example.com", "a fragment": "https://example.com/#here", "a space": "https://exa mple.com",
		"a line": "https://example.com/\nHost: x", "a mail address": "mailto:a@example.com", "a file": "file:///etc/passwd", "501 bytes": "https://example.com/" + strings.Repeat("x", 481)} {
		cases = append(cases, refuse{"a url with " + what, "POST", "/v1/webhook_endpoints", with(endpoint, "url", url), bad("parameter_invalid", "url")},
			refuse{"a url with " + what, "PATCH", "/v1/webhook_endpoints/" + id, map[string]any{"url": url}, bad("parameter_invalid", "url")})
	}
	for what, wrong := range wrongTexts {
		cases = append(cases, refuse{"a url that is " + what, "POST", "/v1/webhook_endpoints", with(endpoint, "url", wrong), bad("parameter_invalid", "url")})
	}
	for what, events := range map[string]any{"none": []string{}, "unknown": []string{"grant.exploded"}, "one of two unknown": []string{"grant.expired", "*.expired"}, "all and one": []string{"*", "grant.expired"},
		"twice": []string{"grant.expired", "grant.expired"}, "empty": []string{""}, "two in one": []string{"grant.expired,grant.confirmed"}, "null": []any{nil}, "long": []string{megabyte}} {
		cases = append(cases, refuse{"events " + what, "POST", "/v1/webhook_endpoints", with(endpoint, "events", events), bad("parameter_invalid", "events")},
			refuse{"events " + what, "PATCH", "/v1/webhook_endpoints/" + id, map[string]any{"events": events}, bad("parameter_invalid", "events")})
	}
	for what, wrong := range wrongMaps {
		cases = append(cases, refuse{"metadata: " + what, "POST", "/v1/webhook_endpoints", with(endpoint, "metadata", wrong), bad("parameter_invalid", "metadata")})
	}
	nobody, nothing := "whk_00000000000000000000", "evt_00000000000000000000"
	cases = append(cases,
		refuse{"no url", "POST", "/v1/webhook_endpoints", map[string]any{"events": []string{"*"}}, bad("parameter_missing", "url")},
		refuse{"no events", "POST", "/v1/webhook_endpoints", map[string]any{"url": "https://example.com"}, bad("parameter_missing", "events")},
		refuse{"events that are a text", "POST", "/v1/webhook_endpoints", with(endpoint, "events", "*"), bad("parameter_invalid", "events")},
		refuse{"a secret of one's own", "POST", "/v1/webhook_endpoints", with(endpoint, "secret", "whsec_x"), bad("parameter_unknown", "secret")},
		refuse{"a status", "POST", "/v1/webhook_endpoints", with(endpoint, "status", "enabled"), bad("parameter_unknown", "status")},
		refuse{"a long description", "POST", "/v1/webhook_endpoints", with(endpoint, "description", strings.Repeat("x", 501)), bad("parameter_invalid", "description")},
		refuse{"an unknown status", "PATCH", "/v1/webhook_endpoints/" + id, map[string]any{"status": "paused"}, bad("parameter_invalid", "status")},
		refuse{"no such endpoint", "GET", "/v1/webhook_endpoints/" + nobody, nil, notFound},
		refuse{"no endpoint's id", "GET", "/v1/webhook_endpoints/x", nil, notFound},
		refuse{"no such endpoint", "PATCH", "/v1/webhook_endpoints/" + nobody, map[string]any{"status": "disabled"}, notFound},
		refuse{"no such endpoint", "DELETE", "/v1/webhook_endpoints/" + nobody, nil, notFound},
		refuse{"no such endpoint", "POST", "/v1/webhook_endpoints/" + nobody + "/rotate_secret", nil, notFound},
		refuse{"no such endpoint", "GET", "/v1/webhook_endpoints/" + nobody + "/deliveries", nil, notFound},
		refuse{"something to rotate", "POST", "/v1/webhook_endpoints/" + id + "/rotate_secret", map[string]any{"secret": "x"}, bad("parameter_unknown", "secret")},
		refuse{"no such event", "GET", "/v1/events/" + nothing, nil, notFound},
		refuse{"no event's id", "GET", "/v1/events/evt_1NG8Du2eZvKYlo2CUI79vXWy", nil, notFound},
		refuse{"no such event", "POST", "/v1/events/" + nothing + "/resend", nil, notFound},
		refuse{"to nobody", "POST", "/v1/events/" + event + "/resend", map[string]any{"endpoint": nobody}, notFound},
		refuse{"to nothing", "POST", "/v1/events/" + event + "/resend", map[string]any{"endpoint": ""}, bad("parameter_invalid", "endpoint")},
		refuse{"an unknown type", "GET", "/v1/events?type=grant.exploded", nil, bad("parameter_invalid", "type")},
		refuse{"no type", "GET", "/v1/events?type=", nil, bad("parameter_missing", "type")},
		refuse{"an unknown customer", "GET", "/v1/events?customer=nobody", nil, notFound},
		refuse{"an unknown filter", "GET", "/v1/events?wallet=x", nil, bad("parameter_unknown", "wallet")},
		refuse{"after no event", "GET", "/v1/events?starting_after=x", nil, notFound},
		refuse{"after no endpoint", "GET", "/v1/webhook_endpoints?starting_after=" + nobody, nil, notFound},
		refuse{"after no attempt", "GET", "/v1/webhook_endpoints/" + id + "/deliveries?starting_after=x", nil, notFound},
	)
	w.refuses(cases)
	if list := w.must("GET", "/v1/webhook_endpoints", nil).list(); len(list) != 1 || list[0].str("url") != "https://example.com/hook" || list[0].str("events") != `["*"]` {
		t.Errorf("after refusals only: %v", list)
	}
}

// An endpoint is what was asked for; its secret is shown where it is made and nowhere else.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	request := map[string]any{"url": "https://example.com/hook?a=b", "events": []string{"grant.expired", "topup.failed"}, "description": "Billing", "metadata": map[string]any{"team": "x"}}
	a := w.must("POST", "/v1/webhook_endpoints", request, "Idempotency-Key", "one")
	id, secret := a.str("id"), a.str("secret")
	if !strings.HasPrefix(id, "whk_") || !strings.HasPrefix(secret, "whsec_") || a.status != 201 {
		t.Fatalf("made: %v", a)
	}
	if again := w.must("POST", "/v1/webhook_endpoints", request, "Idempotency-Key", "one"); string(again.raw) != string(a.raw) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("again: %v", again)
	}
	w.refused("another under the key", w.call("POST", "/v1/webhook_endpoints", with(request, "url", "https://example.com/"), "Idempotency-Key", "one"), reusedKey)
	for path, want := range map[string]string{"object": "webhook_endpoint", "url": "https://example.com/hook?a=b", "events": `["grant.expired","topup.failed"]`, "status": "enabled", "disabled_reason": "",
		"description": "Billing", "metadata": `{"team":"x"}`} {
		if got := a.str(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	a = w.must("PATCH", "/v1/webhook_endpoints/"+id, map[string]any{"status": "disabled", "events": []string{"*"}, "description": "", "metadata": map[string]any{}})
	if a.str("status") != "disabled" || a.str("disabled_reason") != "manual" || a.str("events") != `["*"]` || a.str("url") != "https://example.com/hook?a=b" || a.m["description"] != nil || a.str("metadata") != "{}" {
		t.Errorf("changed: %v", a)
	}
	for _, path := range []string{"/v1/webhook_endpoints", "/v1/webhook_endpoints/" + id} {
		if a := w.must("GET", path, nil); strings.Contains(string(a.raw), "whsec_") || strings.Contains(string(a.raw), "secret") {
			t.Errorf("GET %s shows the secret: %v", path, a)
		}
	}
	if strings.Contains(string(a.raw), "whsec_") {
		t.Errorf("PATCH shows the secret: %v", a)
	}
	// Twenty, and however many ask at once, not one more.
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			if a := w.call("POST", "/v1/webhook_endpoints", with(request, "url", fmt.Sprint("https://example.com/", i))); a.status != 201 && a.str("error.code") != "state_conflict" {
				t.Errorf("one of many: %v", a)
			}
		})
	}
	wg.Wait()
	var ids []string
	for after := ""; ; {
		page := w.must("GET", "/v1/webhook_endpoints?limit=7"+after, nil)
		for _, e := range page.list() {
			ids = append(ids, e.str("id"))
		}
		if page.m["has_more"] != true {
			break
		}
		after = "&starting_after=" + ids[len(ids)-1]
	}
	if len(ids) != 20 || !slices.IsSortedFunc(ids, func(a, b string) int { return strings.Compare(b, a) }) {
		t.Errorf("%d endpoints, want 20, newest first: %v", len(ids), ids)
	}
	if a := w.must("DELETE", "/v1/webhook_endpoints/"+id, nil); a.str("id") != id || a.m["deleted"] != true {
		t.Errorf("deleted: %v", a)
	}
	w.refused("deleted", w.call("GET", "/v1/webhook_endpoints/"+id, nil), notFound)
	w.must("POST", "/v1/webhook_endpoints", request)
}

// Reading endpoints and events takes the scope read, everything else write.
func TestEndpointScopes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "10", "")
	id := w.must("POST", "/v1/webhook_endpoints", map[string]any{"url": "https://example.com", "events": []string{"*"}}).str("id")
	event := w.must("GET", "/v1/events", nil).str("data.0.id")
	calls := map[string]string{"GET /v1/webhook_endpoints": "read", "GET /v1/webhook_endpoints/" + id: "read", "GET /v1/webhook_endpoints/" + id + "/deliveries": "read",
		"GET /v1/events": "read", "GET /v1/events/" + event: "read", "POST /v1/webhook_endpoints": "write", "PATCH /v1/webhook_endpoints/" + id: "write",
		"POST /v1/webhook_endpoints/" + id + "/rotate_secret": "write", "POST /v1/events/" + event + "/resend": "write", "DELETE /v1/webhook_endpoints/" + id: "write"}
	for _, scope := range ledger.Scopes {
		_, secret, err := w.g.ledger.CreateKey(t.Context(), scope, []string{scope})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range slices.Sorted(maps.Keys(calls)) {
			method, path, _ := strings.Cut(c, " ")
			if method == "DELETE" && scope == calls[c] {
				continue // the others need it
			}
			a := w.call(method, path, nil, "Authorization", "Bearer "+secret)
			if scope != calls[c] && scope != "admin" {
				w.refused(c+" with scope "+scope, a, refusal{403, "permission_error", "scope_missing", ""})
			} else if a.status == 403 {
				t.Errorf("%s with scope %s: %v", c, scope, a)
			}
		}
	}
}

// Events are listed newest first, of one customer or type or both.
func TestEventList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	for _, c := range []string{"acme", "other"} {
		w.customer(c, "10", "")
		for range 3 {
			w.must("POST", "/v1/grants", map[string]any{"customer": c, "amount": "1"})
		}
	}
	wallet := w.must("GET", "/v1/customers/acme", nil).str("wallets.0.id")
	w.rule(wallet, refill(0))
	w.must("POST", "/v1/wallets/"+wallet+"/auto_topup/pause", nil)
	for query, want := range map[string]int{"": 9, "?customer=acme": 5, "?customer=other": 4, "?type=auto_topup.paused": 1, "?customer=other&type=auto_topup.paused": 0,
		"?customer=acme&type=grant.confirmed": 4, "?limit=2": 2} {
		a := w.must("GET", "/v1/events"+query, nil)
		if got := len(a.list()); got != want {
			t.Errorf("%s: %d events, want %d", query, got, want)
		}
		if more := a.m["has_more"] == true; more != (query == "?limit=2") {
			t.Errorf("%s: has_more %t", query, more)
		}
	}
	if a := w.must("GET", "/v1/events?limit=1", nil); a.str("data.0.type") != "auto_topup.paused" || a.str("data.0.data.pause.reason") != "manual" {
		t.Errorf("the newest: %v", a)
	}
	first := w.must("GET", "/v1/events?customer=acme&limit=3", nil)
	rest := w.must("GET", "/v1/events?customer=acme&starting_after="+first.str("data.2.id"), nil)
	if len(rest.list()) != 2 || rest.str("data.0.id") >= first.str("data.2.id") {
		t.Errorf("the next page: %v", rest)
	}
}
