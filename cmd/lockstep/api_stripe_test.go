package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// event is the JSON of an event about an object, as Stripe sends it in test mode; change may alter it.
func event(t *testing.T, id, kind string, object any, change ...func(map[string]any)) string {
	t.Helper()
	e := map[string]any{"id": id, "object": "event", "type": kind, "api_version": "2023-10-16", "livemode": false, "created": time.Now().Unix(),
		"pending_webhooks": 1, "request": nil, "data": map[string]any{"object": object}}
	for _, f := range change {
		f(e)
	}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// signature is Stripe's of a payload at a moment, by each of the secrets.
func signature(payload string, at time.Time, secrets ...string) string {
	s := fmt.Sprintf("t=%d", at.Unix())
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%d.%s", at.Unix(), payload)
		s += ",v1=" + hex.EncodeToString(mac.Sum(nil))
	}
	return s
}

// deliver posts an event as Stripe does, without a key.
func (w *world) deliver(payload, signature string) answer {
	w.t.Helper()
	return w.call("POST", "/webhooks/stripe", payload, "Stripe-Signature", signature, "Authorization", "")
}

// stored is how an event is kept: "" when it is not.
func (w *world) stored(id string) (status string) {
	w.t.Helper()
	if err := w.g.ledger.DB().Get(&status, `select coalesce((select status from stripe_events where id = $1), '')`, id); err != nil {
		w.t.Fatal(err)
	}
	return status
}

// Only Stripe's own word, said now, is taken: by any of the secrets, to the byte.
func TestWebhookSignatures(t *testing.T) {
	t.Parallel()
	const old, current = "whsec_old", "whsec_current"
	w := newWorld(t, quiet, func(o *worldOptions) { o.secrets = []string{old, current} })
	_, stripeID := w.customer("acme", "10", "")
	customer := map[string]any{"id": stripeID, "object": "customer"}
	deleted := event(t, "evt_deleted", "customer.deleted", customer)
	now := time.Now()
	good := signature(deleted, now, current)
	for what, c := range map[string]struct{ payload, header string }{
		"no signature":          {deleted, ""},
		"no words":              {deleted, "hello"},
		"no v1":                 {deleted, fmt.Sprintf("t=%d", now.Unix())},
		"only the test scheme":  {deleted, strings.Replace(good, "v1=", "v0=", 1)},
		"no time":               {deleted, good[strings.Index(good, "v1="):]},
		"two times":             {deleted, good + ",t=1"},
		"another time":          {deleted, strings.Replace(good, "t=", "t=1", 1)},
		"a wrong secret":        {deleted, signature(deleted, now, "whsec_wrong")},
		"no secret":             {deleted, signature(deleted, now, "")},
		"another body":          {deleted + " ", good},
		"another body's length": {deleted[:len(deleted)-1], good},
		"six minutes old":       {deleted, signature(deleted, now.Add(-6*time.Minute), current)},
		"six minutes ahead":     {deleted, signature(deleted, now.Add(6*time.Minute), current)},
		"a short signature":     {deleted, good[:len(good)-2]},
		"a huge header":         {deleted, good + strings.Repeat(",v0=00", 2000)},
	} {
		w.refused(what, w.deliver(c.payload, c.header), bad("signature_invalid", ""))
	}
	for what, payload := range map[string]string{"not JSON": "x", "empty": "", "a list": "[]", "no event": `{"object":"customer"}`, "no id": `{"object":"event","type":"x","data":{"object":{}}}`,
		"no object": `{"object":"event","id":"evt_1","type":"x","data":{}}`, "another kind of event": `{"object":"v2.core.event","id":"evt_1","type":"x"}`} {
		w.refused(what, w.deliver(payload, signature(payload, now, current)), bad("parameter_invalid", ""))
	}
	huge := event(t, "evt_huge", "customer.updated", with(customer, "description", strings.Repeat("x", 512<<10)))
	w.refused("over 512 KiB", w.deliver(huge, signature(huge, now, current)), refusal{413, "invalid_request_error", "parameter_invalid", ""})
	var kept int
	if err := w.g.ledger.DB().Get(&kept, `select count(*) from stripe_events`); err != nil || kept != 0 {
		t.Fatalf("%d events kept of those refused: %v", kept, err)
	}

	large := event(t, "evt_large", "customer.updated", with(customer, "description", strings.Repeat("x", 500<<10)+"\x00ü"))
	for what, c := range map[string]struct{ payload, header string }{
		"the current secret":       {large, signature(large, now, current)},
		"the same again":           {large, signature(large, now, current)},
		"the old secret":           {large, signature(large, now, old)},
		"a strange one beside":     {large, signature(large, now, "whsec_wrong", old)},
		"four minutes old":         {large, signature(large, now.Add(-4*time.Minute), current)},
		"an odd signature beside":  {large, signature(large, now, current) + ",v1=zz,v2=x"},
		"four minutes ahead of us": {large, signature(large, now.Add(4*time.Minute), current)},
	} {
		if a := w.deliver(c.payload, c.header); a.status != 200 || a.header.Get("Request-Id") == "" {
			t.Errorf("%s: %v", what, a)
		}
	}
	if err := w.g.ledger.DB().Get(&kept, `select count(*) from stripe_events`); err != nil || kept != 1 {
		t.Errorf("%d events kept of one that came often: %v", kept, err)
	}
	if a := w.must("GET", "/v1/customers/acme", nil); a.str("status") != "active" {
		t.Errorf("a refused event had its effect: %v", a)
	}
}

// An event is kept before it is answered; one of the other mode, or of a type that says nothing to us, is
// kept and has no effect; one of another API version is only a hint to look at Stripe.
func TestWebhookModesVersionsAndTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	_, stripeID := w.customer("acme", "10", "pm_usBankAccount_processing")
	wallet := w.must("GET", "/v1/customers/acme", nil).str("wallets.0.id")
	send := func(id, kind string, object map[string]any, change ...func(map[string]any)) {
		t.Helper()
		payload := event(t, id, kind, object, change...)
		for range 2 {
			if a := w.deliver(payload, signature(payload, time.Now(), w.o.secrets[0])); a.status != 200 {
				t.Errorf("%s: %v", id, a)
			}
		}
	}
	customer := map[string]any{"id": stripeID, "object": "customer"}
	send("evt_live", "customer.deleted", customer, func(e map[string]any) { e["livemode"] = true })
	send("evt_unknown", "v9.never.heard.of", customer)
	send("evt_stranger", "customer.deleted", map[string]any{"id": "cus_stranger", "object": "customer"})
	w.eventually("the stranger's is done", func() bool { return w.stored("evt_stranger") == "done" })
	for _, id := range []string{"evt_live", "evt_unknown"} {
		if got := w.stored(id); got != "ignored" {
			t.Errorf("%s is %q", id, got)
		}
	}
	if a := w.must("GET", "/v1/customers/acme", nil); a.str("status") != "active" || w.available("acme") != "10" {
		t.Errorf("%v", a)
	}

	w.rule(wallet, map[string]any{"threshold": "11", "amount": "20"})
	w.eventually("the payment waits for the bank", func() bool {
		return w.call("GET", "/v1/topups?customer=acme", nil).str("data.0.status") == "processing"
	})
	pi := w.must("GET", "/v1/topups?customer=acme", nil).str("data.0.stripe.payment_intent")
	// What it says is not true yet: nothing is believed of an event in words of another version.
	other := func(e map[string]any) { e["api_version"] = "2031-01-01" }
	send("evt_early", "payment_intent.succeeded", map[string]any{"id": pi, "object": "payment_intent", "status": "paid in full"}, other)
	w.eventually("the early event is done", func() bool { return w.stored("evt_early") == "done" })
	if got := w.available("acme"); got != "10" {
		t.Errorf("available %s by a hint alone", got)
	}
	if _, err := w.sim.Operator().FinishProcessing(pi, true); err != nil {
		t.Fatal(err)
	}
	send("evt_late", "payment_intent.succeeded", map[string]any{"id": pi, "object": "payment_intent"}, other)
	w.eventually("the hint leads to the payment", func() bool { return w.available("acme") == "30" })
	w.inStep("acme")
}

// A customer deleted in Stripe keeps their books, which are closed.
func TestDeletedCustomer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "12", "pm_card_visa")
	for range 2 { // so that a lane remembers the wallet as it was
		w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "1"})
	}
	w.inStep("acme")
	if _, err := w.sim.Operator().DeleteCustomer(stripeID); err != nil {
		t.Fatal(err)
	}
	w.eventually("the customer is deleted here too", func() bool {
		return w.call("GET", "/v1/customers/acme", nil).str("status") == "deleted"
	})
	w.refused("usage", w.usage("acme", "1"), refusal{409, "conflict", "wallet_frozen", "customer"})
	w.refused("grant", w.call("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "1"}), refusal{409, "conflict", "state_conflict", "customer"})
	w.refused("topup", w.call("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "20"}), refusal{409, "conflict", "wallet_frozen", "customer"})
	if a := w.must("GET", "/v1/wallets/"+wallet, nil); a.str("status") != "frozen" || a.str("balance.total") != "10" {
		t.Errorf("%v", a)
	}
	if a := w.must("GET", "/v1/customers/acme/lockstep", nil); a.str("state") != "unknown" {
		t.Errorf("%v", a)
	}
	if a := w.must("POST", "/v1/reconcile", nil); a.str("customers") != "1" || a.str("findings.0.state") != "unknown" {
		t.Errorf("%v", a)
	}
}

// Lockstep and reconcile say who is out of step and why, change nothing unless they are told to, and repair
// what they find.
func TestLockstepAndReconcile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("settled", "10", "")
	wallet, stripeID := w.customer("acme", "10", "")
	w.inStep("settled")
	w.inStep("acme")
	a := w.must("GET", "/v1/customers/"+stripeID+"/lockstep", nil)
	for path, want := range map[string]string{"object": "lockstep", "state": "in_step", "currency": "usd", "ledger": "1000", "stripe": "1000", "unflushed": "0", "drift": "0"} {
		if got := a.str(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if _, err := time.Parse(time.RFC3339, a.str("checked_at")); err != nil {
		t.Errorf("%v", a)
	}

	// Somebody at the dashboard gives 5.00, and nobody tells. The worker that would import it is kept away.
	ref, err := w.g.ledger.Resolve(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("the mirror is the test's", func() bool {
		_, leased, err := w.g.ledger.LeaseMirror(t.Context(), ref)
		return leased && err == nil
	})
	if _, err := w.sim.Operator().AdjustBalance(stripeID, -500, "usd", "sorry"); err != nil {
		t.Fatal(err)
	}
	if a := w.must("GET", "/v1/customers/acme/lockstep", nil); a.str("state") != "foreign" || a.str("ledger") != "1000" || a.str("stripe") != "1500" || a.str("drift") != "500" {
		t.Errorf("%v", a)
	}
	look := w.must("POST", "/v1/reconcile", map[string]any{"customer": nil})
	for path, want := range map[string]string{"object": "reconciliation", "customers": "2", "in_step": "1", "repaired": "0", "findings.0.customer": "acme", "findings.0.state": "foreign", "findings.0.kind": "foreign_transaction",
		"findings.0.ledger": "1000", "findings.0.stripe": "1500", "findings.0.drift": "500", "findings.0.repaired": "false", "findings.1": ""} {
		if got := look.str(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if look.str("findings.0.explanation") == "" || len(w.sim.BalanceTransactions(stripeID)) != 2 {
		t.Errorf("%v", look)
	}
	if err := w.g.ledger.ReleaseMirror(t.Context(), ref, false); err != nil {
		t.Fatal(err)
	}
	w.g.ledger.MarkDirty(ref)
	w.eventually("the look fetched the event that nobody had brought", func() bool { return w.available("acme") == "15" })

	if _, err := w.sim.Operator().AdjustBalance(stripeID, 500, "usd", "not sorry any more"); err != nil {
		t.Fatal(err)
	}
	fixed := w.must("POST", "/v1/reconcile", map[string]any{"repair": true}, "Idempotency-Key", "repair")
	if f := fixed.str("findings"); f != "[]" && (fixed.str("repaired") != "1" || fixed.str("findings.0.repaired") != "true") { // a worker may have been quicker
		t.Errorf("%v", fixed)
	}
	if w.available("acme") != "10" {
		t.Errorf("available %s after a repair", w.available("acme"))
	}
	if again := w.call("POST", "/v1/reconcile", map[string]any{"repair": true}, "Idempotency-Key", "repair"); string(again.raw) != string(fixed.raw) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("under its key: %v", again)
	}
	entry := w.must("GET", "/v1/wallets/"+wallet+"/entries?limit=1", nil)
	if entry.str("data.0.type") != "stripe_balance" || entry.str("data.0.amount") != "-5" || !strings.HasPrefix(entry.str("data.0.refers_to"), "cbtxn_") || !strings.Contains(entry.str("data.0.reason"), "sorry") {
		t.Errorf("its entry: %v", entry)
	}
	w.inStep("acme")
	if all := w.must("POST", "/v1/reconcile", map[string]any{"repair": true}); all.str("in_step") != "2" || all.str("findings") != "[]" {
		t.Errorf("%v", all)
	}
}
