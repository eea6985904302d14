package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func in(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339Nano) }

// What no grant can be is refused, by the name of the field.
func TestGrantRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "10", "")
	w.must("PUT", "/v1/assets/cents", map[string]any{"scale": 2, "price_per_unit": "0.01", "currency": "eur"})
	grant := map[string]any{"customer": "acme", "amount": "1"}
	cases := []refuse{
		{"zero", "POST", "/v1/grants", with(grant, "amount", "0"), bad("parameter_invalid", "amount")},
		{"a kind there is not", "POST", "/v1/grants", with(grant, "kind", "gift"), bad("parameter_invalid", "kind")},
		{"covers nothing known", "POST", "/v1/grants", with(grant, "covers", "invoices"), bad("parameter_invalid", "covers")},
		{"expired", "POST", "/v1/grants", with(grant, "expires_at", in(-time.Second)), bad("parameter_invalid", "expires_at")},
		{"expires before it begins", "POST", "/v1/grants", with(with(grant, "effective_at", in(2*time.Hour)), "expires_at", in(time.Hour)), bad("parameter_invalid", "expires_at")},
		{"no such asset", "POST", "/v1/grants", with(grant, "asset", "gold"), bad("asset_unknown", "asset")},
		{"another currency than Stripe's", "POST", "/v1/grants", with(grant, "asset", "eur"), bad("currency_mismatch", "asset")},
		{"an asset priced in another", "POST", "/v1/grants", with(grant, "asset", "cents"), bad("currency_mismatch", "asset")},
		{"too much for the balance", "POST", "/v1/grants", with(grant, "amount", "9223372036854"), bad("parameter_invalid", "amount")},
		{"to nobody", "POST", "/v1/grants", with(grant, "customer", "nobody"), notFound},
		{"a cost below zero", "POST", "/v1/grants", with(grant, "cost", map[string]any{"amount": -1, "currency": "usd"}), bad("parameter_invalid", "cost")},
		{"a cost in no currency", "POST", "/v1/grants", with(grant, "cost", map[string]any{"amount": 1, "currency": "gold"}), bad("parameter_invalid", "cost")},
		{"a cost without a currency", "POST", "/v1/grants", with(grant, "cost", map[string]any{"amount": 1}), bad("parameter_invalid", "cost")},
		{"a cost without an amount", "POST", "/v1/grants", with(grant, "cost", map[string]any{"currency": "usd"}), bad("parameter_missing", "cost.amount")},
		{"a cost that is a text", "POST", "/v1/grants", with(grant, "cost", "1"), bad("parameter_invalid", "cost")},
		{"a fraction of a cost", "POST", "/v1/grants", with(grant, "cost", map[string]any{"amount": 1.5, "currency": "usd"}), bad("parameter_invalid", "cost.amount")},
		{"an endless cost", "POST", "/v1/grants", with(grant, "cost", map[string]any{"amount": rawNumber("1e400"), "currency": "usd"}), bad("parameter_invalid", "cost.amount")},
		{"a cost with more to it", "POST", "/v1/grants", with(grant, "cost", map[string]any{"amount": 1, "currency": "usd", "tax": 1}), bad("parameter_unknown", "*")},
	}
	for _, p := range []any{-1, 101, 32768} {
		cases = append(cases, refuse{fmt.Sprint("priority ", p), "POST", "/v1/grants", with(grant, "priority", p), bad("parameter_invalid", "priority")})
	}
	for _, at := range []string{"tomorrow", "2027-01-01", "2027-01-01T00:00:00", "1800000000", "2027-13-01T00:00:00Z", "10000-01-01T00:00:00Z", "0001-01-01T00:00:00Z"} {
		cases = append(cases, refuse{"at " + at, "POST", "/v1/grants", with(grant, "effective_at", at), bad("parameter_invalid", "effective_at")},
			refuse{"at " + at, "POST", "/v1/grants", with(grant, "expires_at", at), bad("parameter_invalid", "expires_at")})
	}
	w.refuses(cases)
}

// A grant has the terms that were asked for, and for what was left out the ones that the contract says.
func TestGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, stripeID := w.customer("acme", "", "")
	expires := in(time.Hour)
	a := w.must("POST", "/v1/grants", map[string]any{"customer": stripeID, "asset": "usd", "amount": "10.50", "kind": "plan", "priority": 7, "covers": "all",
		"expires_at": expires, "reason": "signup", "cost": map[string]any{"amount": 999, "currency": "usd"}, "metadata": map[string]any{"a": "b"}})
	for path, want := range map[string]string{"object": "grant", "wallet": wallet, "status": "confirmed", "amount": "10.5", "remaining": "10.5", "kind": "plan", "priority": "7", "covers": "all",
		"reason": "signup", "cost.amount": "999", "cost.currency": "usd", "source.type": "api", "source.id": "", "metadata.a": "b"} {
		if got := a.str(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if a.status != 201 || !strings.HasPrefix(a.str("id"), "grt_") {
		t.Errorf("%v", a)
	}
	if again := w.must("GET", "/v1/grants/"+a.str("id"), nil); string(again.raw) != string(a.raw) {
		t.Errorf("read again it is %v, was %v", again, a)
	}
	for kind, covers := range map[string]string{"promotional": "usage", "plan": "usage", "purchased": "all", "adjustment": "all", "": "usage"} {
		body := map[string]any{"customer": "acme", "amount": "1", "kind": kind}
		if kind == "" {
			delete(body, "kind")
			kind = "promotional"
		}
		g := w.must("POST", "/v1/grants", body)
		if g.str("covers") != covers || g.str("kind") != kind || g.str("priority") != "50" || g.at("expires_at") != nil || g.str("metadata") != "{}" {
			t.Errorf("%s: %v", kind, g)
		}
	}
	w.inStep("acme")
	if a := w.must("GET", "/v1/customers/acme/lockstep", nil); a.str("ledger") != "1250" {
		t.Errorf("only credit that covers all is Stripe's to spend: %v", a)
	}
}

// Usage burns lower priority first, then what expires soonest, then by kind, then the oldest.
func TestBurnOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "", "")
	soon, late := in(time.Hour), in(2*time.Hour)
	var bodies []map[string]any
	for _, g := range []map[string]any{ // in the order in which they must burn
		{"priority": 0, "kind": "purchased"},
		{"priority": 50, "expires_at": soon, "kind": "purchased"},
		{"priority": 50, "expires_at": late, "kind": "plan"},
		{"priority": 50, "kind": "plan"},
		{"priority": 50, "kind": "promotional"},
		{"priority": 50, "kind": "adjustment"},
		{"priority": 50, "kind": "purchased"},
		{"priority": 50, "kind": "purchased", "reason": "younger"},
		{"priority": 100, "expires_at": soon, "kind": "plan"},
	} {
		g["customer"], g["amount"] = "acme", "1"
		bodies = append(bodies, g)
	}
	grants := make([]string, len(bodies))
	for _, i := range []int{8, 2, 6, 4, 0, 7, 5, 1, 3} { // the two alike in their order
		grants[i] = w.must("POST", "/v1/grants", bodies[i]).str("id")
	}
	d := w.usage("acme", "9")
	var burned []string
	for i := range 9 {
		burned = append(burned, d.str(fmt.Sprintf("parts.%d.grant", i)))
	}
	if !slices.Equal(burned, grants) {
		t.Errorf("burned %v, want %v", burned, grants)
	}
}

// A grant counts from when it begins to when it expires, to the debit, and voided it is gone.
func TestGrantsBeginExpireAndAreVoided(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, stripeID := w.customer("acme", "", "")
	now := time.Now()
	at := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339Nano) }
	later := w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "5", "effective_at": at(time.Hour), "expires_at": at(2 * time.Hour)})
	if later.str("status") != "confirmed" || w.available("acme") != "0" {
		t.Errorf("before it begins: %v, available %s", later, w.available("acme"))
	}
	keep := w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "3", "kind": "purchased"})
	w.advance(time.Hour)
	if got := w.available("acme"); got != "8" {
		t.Errorf("begun: %s", got)
	}
	if d := w.usage("acme", "1"); d.str("parts.0.grant") != later.str("id") {
		t.Errorf("the one that expires pays first: %v", d)
	}
	w.advance(time.Hour)
	w.refused("what has expired can't be spent", w.usage("acme", "3.000001"), refusal{402, "insufficient_credits", "insufficient_credits", "amount"})
	if g := w.must("GET", "/v1/grants/"+later.str("id"), nil); g.str("status") != "expired" || g.str("remaining") != "0" {
		t.Errorf("expired: %v", g)
	}
	w.refused("an expired grant is not voided", w.call("POST", "/v1/grants/"+later.str("id")+"/void", nil), refusal{409, "conflict", "state_conflict", "id"})

	void := "/v1/grants/" + keep.str("id") + "/void"
	w.usage("acme", "1")
	w.refuses([]refuse{
		{"a reason that is none", "POST", void, map[string]any{"reason": 1}, bad("parameter_invalid", "reason")},
		{"a reason with a NUL", "POST", void, map[string]any{"reason": nul}, bad("parameter_invalid", "reason")},
		{"a field there is not", "POST", void, map[string]any{"amount": "1"}, bad("parameter_unknown", "amount")},
	})
	v := w.must("POST", void, map[string]any{"reason": "fraud"}, "Idempotency-Key", "void")
	if v.str("status") != "voided" || v.str("remaining") != "0" || w.available("acme") != "0" {
		t.Errorf("voided: %v, available %s", v, w.available("acme"))
	}
	if again := w.call("POST", void, map[string]any{"reason": "fraud"}, "Idempotency-Key", "void"); string(again.raw) != string(v.raw) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("under its key: %v", again)
	}
	w.refused("twice", w.call("POST", void, nil), refusal{409, "conflict", "state_conflict", "id"})
	var types []string
	for _, e := range w.must("GET", "/v1/wallets/"+wallet+"/entries", nil).list() {
		types = append(types, e.str("type")+" "+e.str("amount"))
	}
	if want := []string{"void -2", "debit -1", "expire -4", "debit -1", "grant 5", "grant 3"}; !slices.Equal(types, want) {
		t.Errorf("entries %v, want %v", types, want)
	}
	w.inStep(stripeID)
}

// Two grants that fit each for itself, but not together, must not leave a wallet that nobody can read.
func TestGrantsThatOverflowTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "", "")
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0})
	huge := map[string]any{"customer": "acme", "asset": "tokens", "amount": "9000000000000000000"}
	w.must("POST", "/v1/grants", with(huge, "effective_at", in(time.Hour)))
	w.refused("more than the wallet will hold", w.call("POST", "/v1/grants", huge), bad("parameter_invalid", "amount"))
	w.advance(2 * time.Hour)
	if a := w.call("GET", "/v1/customers/acme/wallets", nil); a.str("data.0.balance.available") != "9000000000000000000" {
		t.Errorf("%v", a)
	}
	if a := w.call("POST", "/v1/usage", map[string]any{"customer": "acme", "asset": "tokens", "amount": "8999999999999999999"}); a.str("balance.available") != "1" {
		t.Errorf("%v", a)
	}
}

// Grants are listed newest first, by page and by status, for one customer alone.
func TestGrantLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	_, stripeID := w.customer("acme", "", "")
	w.customer("other", "5", "")
	var ids []string
	for i := range 5 {
		ids = append(ids, w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": fmt.Sprint(i + 1)}).str("id"))
	}
	w.must("POST", "/v1/grants/"+ids[1]+"/void", nil)
	slices.Reverse(ids)
	var got []string
	after := ""
	for range 4 {
		page := w.must("GET", "/v1/grants?customer="+stripeID+"&limit=2"+after, nil)
		for _, g := range page.list() {
			got = append(got, g.str("id"))
		}
		if page.str("object") != "list" || page.str("has_more") != "true" {
			break
		}
		after = "&starting_after=" + got[len(got)-1]
	}
	if !slices.Equal(got, ids) {
		t.Errorf("pages %v, want %v", got, ids)
	}
	all := w.must("GET", "/v1/grants?limit=6", nil).list()
	if len(all) != 6 || all[5].str("amount") != "5" || all[0].str("id") != ids[0] {
		t.Errorf("everybody's: %v", all)
	}
	for status, want := range map[string]int{"voided": 1, "confirmed": 4, "expired": 0, "pending": 0} {
		if list := w.must("GET", "/v1/grants?customer=acme&status="+status, nil); len(list.list()) != want {
			t.Errorf("%s: %v", status, list)
		}
	}
}
