package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// posts are the calls that make something, each with the change that makes it another request.
func posts(customer string) []struct {
	path           string
	body, another  map[string]any
	status         int
	inBody, charge bool // the key may stand in the body; it charges a card
} {
	type post = struct {
		path           string
		body, another  map[string]any
		status         int
		inBody, charge bool
	}
	debit := map[string]any{"customer": customer, "amount": "0.25", "metadata": map[string]any{"b": "2", "a": "1"}}
	grant := map[string]any{"customer": customer, "amount": "5", "kind": "purchased"}
	topup := map[string]any{"customer": customer, "amount": "20"}
	made := map[string]any{"id": customer + "-made", "name": "Ácme <&>"}
	return []post{
		{"/v1/usage", debit, with(debit, "amount", "0.26"), 200, true, false},
		{"/v1/usage/batch", map[string]any{"events": []any{debit, with(debit, "amount", "NaN"), debit}}, map[string]any{"events": []any{debit}}, 200, false, false},
		{"/v1/grants", grant, with(grant, "amount", "6"), 201, true, false},
		{"/v1/customers", made, with(made, "name", "Other"), 201, false, false},
		{"/v1/customers/" + customer + "/wallets", map[string]any{"asset": "usd", "scope": "invoices"}, map[string]any{"asset": "usd", "scope": "all"}, 201, false, false},
		{"/v1/topups", topup, with(topup, "amount", "21"), 201, false, true},
	}
}

// The same key and the same request get the first answer again, byte for byte, from any gateway and at any
// time; the same key and another request get 422. Neither does anything.
func TestReplay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	p := w.peer()
	_, stripeID := w.customer("acme", "10", "pm_card_visa")
	w.customer("other", "10", "pm_card_visa")
	for _, c := range posts("acme") {
		key := "key of " + c.path
		first := w.call("POST", c.path, c.body, "Idempotency-Key", key)
		if first.status != c.status || first.header.Get("Idempotent-Replayed") != "" {
			t.Fatalf("%s: %v", c.path, first)
		}
		w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "1"}) // what the answer spoke of has changed
		before, charges := w.books(), len(w.sim.Charges(stripeID))
		same := func(what string, a answer) {
			t.Helper()
			if a.status != first.status || string(a.raw) != string(first.raw) || a.header.Get("Idempotent-Replayed") != "true" || a.header.Get("Content-Type") != first.header.Get("Content-Type") {
				t.Errorf("%s, %s: %v\nwas %v", c.path, what, a, first)
			}
			if id := a.header.Get("Request-Id"); id == "" || id == first.header.Get("Request-Id") {
				t.Errorf("%s, %s: Request-Id %q", c.path, what, id)
			}
		}
		same("at once", w.call("POST", c.path, c.body, "Idempotency-Key", key))
		same("from another gateway", p.call("POST", c.path, c.body, "Idempotency-Key", key))
		if c.inBody {
			same("the key in the body", w.call("POST", c.path, with(c.body, "idempotency_key", key)))
			same("the key in both", w.call("POST", c.path, with(c.body, "idempotency_key", key), "Idempotency-Key", key))
			w.refused(c.path+", another in the body", w.call("POST", c.path, with(c.another, "idempotency_key", key)), reusedKey)
		}
		w.advance(29 * 24 * time.Hour)
		same("after 29 days", w.call("POST", c.path, c.body, "Idempotency-Key", key))
		for from, g := range map[string]*world{"this": w, "another": p} {
			w.refused(c.path+", another request at "+from+" gateway", g.call("POST", c.path, c.another, "Idempotency-Key", key), reusedKey)
		}
		for _, other := range posts("acme") {
			if other.path != c.path {
				w.refused(c.path+"'s key at "+other.path, w.call("POST", other.path, other.body, "Idempotency-Key", key), reusedKey)
			}
		}
		for _, other := range posts("other") {
			w.refused(c.path+"'s key for another customer at "+other.path, w.call("POST", other.path, other.body, "Idempotency-Key", key), reusedKey)
		}
		if after := w.books(); after != before || len(w.sim.Charges(stripeID)) != charges {
			t.Errorf("%s: booked again: %s, before it %s", c.path, after, before)
		}
	}
}

// A request that was refused has not used its key up: made right, it goes through under the same one.
func TestRefusedRequestBurnsNoKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "1", "pm_card_visa")
	for i, c := range []struct {
		path       string
		wrong, now any
		status     int
		mend       func()
	}{
		{"/v1/usage", map[string]any{"customer": "acme", "amount": "x"}, map[string]any{"customer": "acme", "amount": "0.5"}, 400, nil},
		{"/v1/usage", map[string]any{"customer": "nobody", "amount": "1"}, map[string]any{"customer": "acme", "amount": "0.1"}, 404, nil},
		{"/v1/usage", map[string]any{"customer": "acme", "amount": "5"}, map[string]any{"customer": "acme", "amount": "5"}, 402,
			func() {
				w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "10", "kind": "purchased"})
			}},
		{"/v1/usage/batch", map[string]any{"events": []any{}}, map[string]any{"events": []any{map[string]any{"customer": "acme", "amount": "0.1"}}}, 400, nil},
		{"/v1/grants", map[string]any{"customer": "acme", "amount": "1", "asset": "eur"}, map[string]any{"customer": "acme", "amount": "1"}, 400, nil},
		{"/v1/grants", map[string]any{"customer": "late", "amount": "1"}, map[string]any{"customer": "late", "amount": "1"}, 404, func() { w.customer("late", "", "") }},
		{"/v1/customers", map[string]any{"id": "x", "stripe_customer": "cus_nobody"}, map[string]any{"id": "x"}, 404, nil},
		{"/v1/customers", map[string]any{"id": "acme"}, map[string]any{"id": "y"}, 409, nil},
		{"/v1/customers/acme/wallets", map[string]any{"asset": "usd"}, map[string]any{"asset": "usd", "scope": "usage"}, 409, nil},
		{"/v1/topups", map[string]any{"customer": "acme", "amount": "0.1"}, map[string]any{"customer": "acme", "amount": "1"}, 400, nil},
		{"/v1/topups", map[string]any{"customer": "late", "amount": "1"}, map[string]any{"customer": "late", "amount": "1"}, 402, // no card: Stripe was not asked
			func() { w.card(w.must("GET", "/v1/customers/late", nil).str("stripe_customer"), "pm_card_visa") }},
		{"/v1/reconcile", map[string]any{"customer": "nobody"}, map[string]any{"customer": "acme"}, 404, nil},
	} {
		key := fmt.Sprint("key ", i)
		if a := w.call("POST", c.path, c.wrong, "Idempotency-Key", key); a.status != c.status {
			t.Errorf("%s %v: %v", c.path, c.wrong, a)
		}
		if c.mend != nil {
			c.mend()
		}
		if a := w.call("POST", c.path, c.now, "Idempotency-Key", key); a.status/100 != 2 || a.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("%s %v under the key of a refused request: %v", c.path, c.now, a)
		}
	}
}

// Fifty senders of one key, through two gateways at once, book once, and all get the same bytes; all but one
// of them are told that it is a replay.
func TestFiftySendersOfOneKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.peer()
	_, stripeID := w.customer("acme", "100", "pm_card_visa")
	for _, c := range posts("acme") {
		answers := make([]answer, 50)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				g := []*world{w, p}[i%2]
				answers[i] = g.call("POST", c.path, c.body, "Idempotency-Key", "key of "+c.path)
			})
		}
		wg.Wait()
		firsts := 0
		for _, a := range answers {
			if a.status != c.status || string(a.raw) != string(answers[0].raw) {
				t.Errorf("%s: %v\nand %v", c.path, a, answers[0])
			}
			if a.header.Get("Idempotent-Replayed") == "" {
				firsts++
			}
		}
		if firsts != 1 {
			t.Errorf("%s: %d answers are said to be the first", c.path, firsts)
		}
	}
	var n struct{ Debits, Grants, Topups, Customers, Wallets int }
	if err := w.g.ledger.DB().Get(&n, `select (select count(*) from entries where type = 'debit') as debits, (select count(*) from grants) as grants,
		(select count(*) from topups) as topups, (select count(*) from customers) as customers, (select count(*) from wallets) as wallets`); err != nil {
		t.Fatal(err)
	}
	if n.Debits != 3 || n.Grants != 3 || n.Topups != 1 || n.Customers != 2 || n.Wallets != 3 || len(w.sim.Charges(stripeID)) != 1 || len(w.sim.Customers()) != 2 {
		t.Errorf("booked %+v, %d charges, %d customers in Stripe", n, len(w.sim.Charges(stripeID)), len(w.sim.Customers()))
	}
	if got := w.available("acme"); got != "124.25" { // 100 - 0.25 - 2 × 0.25 + 5 + 20
		t.Errorf("available %s", got)
	}
	w.inStep("acme")
}

// A batch under a key of its own books each event once even where the key's answer was lost, and a key that
// an event has wins over it.
func TestBatchKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "10", "")
	event := map[string]any{"customer": "acme", "amount": "1"}
	batch := map[string]any{"events": []any{event, with(event, "idempotency_key", "own"), event}}
	if a := w.must("POST", "/v1/usage/batch", batch, "Idempotency-Key", "batch"); a.str("accepted") != "3" {
		t.Errorf("%v", a)
	}
	if _, err := w.g.ledger.DB().Exec(`delete from answers`); err != nil { // as if it had died before it answered
		t.Fatal(err)
	}
	if a := w.must("POST", "/v1/usage/batch", batch, "Idempotency-Key", "batch"); a.str("accepted") != "3" || w.available("acme") != "7" {
		t.Errorf("again: %v, available %s", a, w.available("acme"))
	}
	if a := w.usage("acme", "1", "Idempotency-Key", "own"); a.header.Get("Idempotent-Replayed") != "true" || !strings.Contains(a.str("balance"), `"8"`) {
		t.Errorf("an event's own key: %v", a)
	}
	if w.available("acme") != "7" {
		t.Errorf("available %s", w.available("acme"))
	}
}
