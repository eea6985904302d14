package main

import (
	"bytes"
	"net/http"
	"testing"
)

// Holds over HTTP: refusals first, then a streaming job from its hold to its final capture, and a reversal.
func TestHoldsAndReversals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "10", "")
	hold := map[string]any{"customer": "acme", "amount": "5", "expires_in": 900}
	for name, tt := range map[string]struct {
		path  string
		body  any
		code  int
		param string
	}{
		"no customer":            {"/v1/holds", map[string]any{"amount": "5"}, 400, "customer"},
		"no amount":              {"/v1/holds", map[string]any{"customer": "acme"}, 400, "amount"},
		"more than there is":     {"/v1/holds", map[string]any{"customer": "acme", "amount": "10.01"}, 402, "amount"},
		"for no time":            {"/v1/holds", map[string]any{"customer": "acme", "amount": "1", "expires_in": 0}, 400, "expires_in"},
		"for ever":               {"/v1/holds", map[string]any{"customer": "acme", "amount": "1", "expires_in": 1 << 40}, 400, "expires_in"},
		"of an empty asset":      {"/v1/holds", map[string]any{"customer": "acme", "amount": "1", "asset": ""}, 400, "asset"},
		"an empty on_excess":     {"/v1/holds/hld_00000000000000000000/capture", map[string]any{"on_excess": ""}, 400, "on_excess"},
		"a field of nobody's":    {"/v1/holds", map[string]any{"customer": "acme", "amount": "1", "until": 5}, 400, "until"},
		"capture of nothing":     {"/v1/holds/hld_00000000000000000000/capture", map[string]any{"amount": "1"}, 404, "hold"},
		"reversal of nothing":    {"/v1/debits/deb_00000000000000000000/reverse", nil, 404, "debit"},
		"a hold that is a grant": {"/v1/holds/grt_00000000000000000000/release", nil, 404, "hold"},
	} {
		if a := w.call("POST", tt.path, tt.body); a.status != tt.code || a.str("error.param") != tt.param {
			t.Errorf("%s: %v", name, a)
		}
	}
	first := w.must("POST", "/v1/holds", hold, "Idempotency-Key", "job-1")
	again := w.must("POST", "/v1/holds", hold, "Idempotency-Key", "job-1")
	if first.status != http.StatusCreated || !bytes.Equal(first.raw, again.raw) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a hold and its replay: %v %v", first, again)
	}
	id := first.str("id")
	if a := w.call("GET", "/v1/wallets/"+wallet, nil); a.str("balance.available") != "5" || a.str("balance.held") != "5" || a.str("balance.total") != "10" {
		t.Errorf("with a hold: %v", a)
	}
	w.inStep("acme") // what is held is not Stripe's to spend
	if c, _ := w.sim.Customer(stripeID); c.Balance != -500 {
		t.Errorf("Stripe shows %d while 5.00 are held", c.Balance)
	}
	capture := map[string]any{"amount": "1.2"}
	w.must("POST", "/v1/holds/"+id+"/capture", capture, "Idempotency-Key", "chunk-1")
	w.must("POST", "/v1/holds/"+id+"/capture", capture, "Idempotency-Key", "chunk-1")
	if a := w.must("POST", "/v1/holds/"+id+"/extend", map[string]any{"expires_in": 60}); a.str("remaining") != "3.8" || a.str("captured") != "1.2" {
		t.Errorf("a chunk sent twice: %v", a)
	}
	if a := w.call("POST", "/v1/holds/"+id+"/capture", map[string]any{"amount": "4"}); a.status != 402 || a.str("error.available") != "3.8" {
		t.Errorf("more than is left: %v", a)
	}
	if a := w.must("POST", "/v1/holds/"+id+"/capture", map[string]any{"amount": "0.8", "final": true}); a.str("status") != "captured" || a.str("remaining") != "0" || a.str("captured") != "2" {
		t.Errorf("the final capture: %v", a)
	}
	if a := w.call("POST", "/v1/holds/"+id+"/release", nil); a.status != 409 || a.str("error.code") != "state_conflict" {
		t.Errorf("release of what was captured: %v", a)
	}
	entries := w.must("GET", "/v1/wallets/"+wallet+"/entries", nil).list()
	want := []string{"release 0 -3", "capture -0.8 -0.8", "capture -1.2 -1.2", "hold 0 5", "grant 10 "}
	for i, e := range entries {
		if got := e.str("type") + " " + e.str("amount") + " " + e.str("held"); i < len(want) && got != want[i] {
			t.Errorf("entry %d: %s, want %s", i, got, want[i])
		}
	}

	debit := w.spend("acme", "3").str("id")
	if a := w.call("POST", "/v1/debits/"+debit+"/reverse", map[string]any{"amount": "3.01"}); a.status != 400 || a.str("error.param") != "amount" {
		t.Errorf("more than was taken: %v", a)
	}
	back := w.must("POST", "/v1/debits/"+debit+"/reverse", map[string]any{"amount": "1", "reason": "half of it failed"}, "Idempotency-Key", "r-1")
	if again := w.must("POST", "/v1/debits/"+debit+"/reverse", map[string]any{"amount": "1", "reason": "half of it failed"}, "Idempotency-Key", "r-1"); !bytes.Equal(back.raw, again.raw) {
		t.Errorf("a reversal and its replay: %v %v", back, again)
	}
	if back.str("object") != "reversal" || back.str("amount") != "1" || back.str("parts.0.amount") != "1" || back.str("balance.available") != "6" || back.str("debit") != debit {
		t.Errorf("a reversal: %v", back)
	}
	if a := w.must("POST", "/v1/debits/"+debit+"/reverse", nil); a.str("amount") != "2" || w.available("acme") != "8" {
		t.Errorf("the rest: %v", a)
	}
	w.inStep("acme")
}

// An explanation names, for each part of a debit, the grant, the rule, and the payment behind it.
func TestExplain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.customer("acme", "", "pm_card_visa")
	if a := w.call("GET", "/v1/debits/deb_00000000000000000000/explain", nil); a.status != 404 {
		t.Errorf("nothing to explain: %v", a)
	}
	promo := w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "1", "priority": 10}).str("id")
	top := w.must("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "20"})
	a := w.must("GET", "/v1/debits/"+w.spend("acme", "3").str("id")+"/explain", nil)
	if a.str("object") != "explanation" || a.str("debit.amount") != "3" || a.str("parts.0.grant.id") != promo || a.str("parts.0.rank") != "1" || a.str("parts.0.funded_by.type") != "api" {
		t.Errorf("the first part: %v", a)
	}
	if a.str("parts.1.amount") != "2" || a.str("parts.1.funded_by.id") != top.str("id") || a.str("parts.1.funded_by.payment_intent") != top.str("stripe.payment_intent") || a.str("parts.1.why") == "" {
		t.Errorf("the second part: %v", a)
	}
}

// A wallet is frozen, opened again, given an overdraft, and closed only when it is empty; debits see it at once.
func TestPatchWallet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, _ := w.customer("acme", "2", "")
	path := "/v1/wallets/" + wallet
	w.spend("acme", "1") // from here on the wallet is remembered
	for _, body := range []string{`{"status":"gone"}`, `{"overdraft_limit":"-1"}`, `{"overdraft_limit":5}`, `{"scope":"usage"}`, `{"overdraft_limit":"0.0000001"}`} {
		if a := w.call("PATCH", path, body); a.status != 400 {
			t.Errorf("%s: %v", body, a)
		}
	}
	spend := func() answer {
		return w.call("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "0.75"})
	}
	w.must("PATCH", path, `{"status":"frozen"}`)
	if a := spend(); a.status != 409 || a.str("error.code") != "wallet_frozen" {
		t.Errorf("frozen: %v", a)
	}
	w.must("PATCH", path, `{"status":"active","overdraft_limit":"1"}`)
	for range 2 {
		if a := spend(); a.status != 200 {
			t.Errorf("with an overdraft: %v", a)
		}
	}
	if a := w.call("PATCH", path, `{"status":"closed"}`); a.status != 409 || a.str("error.code") != "state_conflict" {
		t.Errorf("closing it in debt: %v", a)
	}
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "0.5", "kind": "adjustment"})
	w.must("PATCH", path, `{"status":"closed"}`)
	if a := spend(); a.status != 404 {
		t.Errorf("closed: %v", a)
	}
	if a := w.call("PATCH", path, `{"status":"active"}`); a.status != 409 {
		t.Errorf("opening what is closed: %v", a)
	}
}
