package main

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// What can't be a price is refused by its field, and nothing is set.
func TestFeatureRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	price := map[string]any{"asset": "usd", "unit_cost": "0.002"}
	tiers := func(tiers ...map[string]any) map[string]any {
		return map[string]any{"asset": "usd", "tier_mode": "graduated", "tiers": tiers}
	}
	const path = "/v1/features/gpt-4o.output"
	w.refuses([]refuse{
		{"no asset", "PUT", path, map[string]any{"unit_cost": "1"}, bad("parameter_missing", "asset")},
		{"an asset that there is not", "PUT", path, with(price, "asset", "gold"), bad("asset_unknown", "asset")},
		{"no cost", "PUT", path, map[string]any{"asset": "usd"}, bad("parameter_missing", "unit_cost")},
		{"a cost that is a number", "PUT", path, with(price, "unit_cost", 0.002), bad("parameter_invalid", "unit_cost")},
		{"a cost below zero", "PUT", path, with(price, "unit_cost", "-1"), bad("parameter_invalid", "unit_cost")},
		{"a moment that is none", "PUT", path, with(price, "effective_at", "tomorrow"), bad("parameter_invalid", "effective_at")},
		{"a word that there is not", "PUT", path, with(price, "price", "1"), bad("parameter_unknown", "price")},
		{"a key with a space", "PUT", "/v1/features/a%20b", price, bad("parameter_invalid", "key")},
		{"tiers without a mode", "PUT", path, map[string]any{"asset": "usd", "tiers": []any{map[string]any{"unit_cost": "1"}}}, bad("parameter_invalid", "tier_mode")},
		{"a tier without a cost", "PUT", path, tiers(map[string]any{}), bad("parameter_missing", "tiers[0].unit_cost")},
		{"a last tier that ends", "PUT", path, tiers(map[string]any{"up_to": "5", "unit_cost": "1"}), bad("parameter_invalid", "tiers[0].up_to")},
		{"a feature that there is not", "GET", "/v1/features/none", nil, refusal{404, "invalid_request_error", "resource_missing", "feature"}},
	})
	if a := w.must("GET", "/v1/features", nil); len(a.list()) != 0 {
		t.Errorf("features: %v", a)
	}
}

// Usage by feature and quantity costs what the rate card says; the debit keeps its price, and its key the first answer,
// whatever becomes of the price.
func TestUsageByFeature(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "10", "")
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0})
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "asset": "tokens", "amount": "100"})
	f := w.must("PUT", "/v1/features/openai%2Fgpt-4o:output", map[string]any{"asset": "usd", "unit_cost": "0.002", "name": "GPT-4o output"})
	if f.str("object") != "feature" || f.str("version") != "1" || f.str("key") != "openai/gpt-4o:output" || f.str("unit_cost") != "0.002" || f.str("name") != "GPT-4o output" {
		t.Errorf("a feature: %v", f)
	}
	use := map[string]any{"customer": "acme", "feature": "openai/gpt-4o:output", "quantity": "1532", "idempotency_key": "k1"}
	d := w.must("POST", "/v1/usage", use) // two assets, and the feature says which
	if d.str("amount") != "3.064" || d.str("wallet") != wallet || d.str("feature") != "openai/gpt-4o:output" || d.str("quantity") != "1532" || d.str("feature_version") != "1" {
		t.Errorf("a debit by feature: %v", d)
	}
	w.must("PUT", "/v1/features/openai%2Fgpt-4o:output", map[string]any{"asset": "tokens", "unit_cost": "0.01"})
	again := w.must("POST", "/v1/usage", use)
	if string(again.raw) != string(d.raw) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("the same key after a change of price: %v", again)
	}
	w.refused("the key with another quantity", w.call("POST", "/v1/usage", with(use, "quantity", "1")), reusedKey)
	if a := w.must("POST", "/v1/usage", with(use, "idempotency_key", "k2")); a.str("amount") != "16" || a.str("feature_version") != "2" {
		t.Errorf("by the new price, 15.32 rounded up to a whole token: %v", a)
	}
	w.refused("another asset than the feature's", w.call("POST", "/v1/usage", with(with(use, "asset", "usd"), "idempotency_key", "k3")), bad("parameter_invalid", "asset"))
	if a := w.must("GET", "/v1/debits/"+d.str("id"), nil); string(a.raw) != string(d.raw) {
		t.Errorf("read again: %v, first %v", a, d)
	}
	if a := w.must("GET", "/v1/features/openai%2Fgpt-4o:output", nil); a.str("version") != "2" || a.str("versions.0.unit_cost") != "0.002" || a.str("versions.1.asset") != "tokens" {
		t.Errorf("its versions: %v", a)
	}
	if a := w.must("GET", "/v1/features?limit=1", nil); len(a.list()) != 1 || a.str("has_more") != "false" {
		t.Errorf("the list: %v", a)
	}
	check := w.must("GET", "/v1/customers/acme/check?feature=openai%2Fgpt-4o:output&quantity=8400", nil)
	if check.str("allowed") != "true" || check.str("available") != "84" {
		t.Errorf("a check of all there is: %v", check)
	}
	if a := w.must("GET", "/v1/customers/acme/check?feature=openai%2Fgpt-4o:output&quantity=8401", nil); a.str("allowed") != "false" || a.str("reason") != "insufficient_credits" {
		t.Errorf("a check of one too many: %v", a)
	}
	batch := w.must("POST", "/v1/usage/batch", map[string]any{"events": []any{with(use, "idempotency_key", "k4"), with(with(use, "feature", "none"), "idempotency_key", "k5"),
		map[string]any{"customer": "acme", "asset": "usd", "amount": "1"}}})
	if batch.str("accepted") != "2" || batch.str("data.0.amount") != "16" || batch.str("data.1.error.param") != "feature" {
		t.Errorf("a batch: %v", batch)
	}
}

// A price that is set from a moment on holds from that moment, in every process; usage meanwhile is by the old or by
// the new one, and the books are right.
func TestFeatureTakesEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "100000", "")
	peer := w.peer()
	w.must("PUT", "/v1/features/f", map[string]any{"asset": "usd", "unit_cost": "1"})
	w.must("PUT", "/v1/features/f", map[string]any{"asset": "usd", "unit_cost": "2", "effective_at": w.clock.now().Add(time.Hour).UTC().Format(time.RFC3339Nano)})
	use := func(at *world, key string) answer {
		return at.must("POST", "/v1/usage", map[string]any{"customer": "acme", "feature": "f", "quantity": "3", "idempotency_key": key})
	}
	for i, at := range []*world{w, peer} {
		if a := use(at, fmt.Sprint("before", i)); a.str("amount") != "3" {
			t.Errorf("before: %v", a)
		}
	}
	w.advance(time.Hour)
	for i, at := range []*world{w, peer} {
		if a := use(at, fmt.Sprint("after", i)); a.str("amount") != "6" || a.str("feature_version") != "2" {
			t.Errorf("after: %v", a)
		}
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 20 {
				at := []*world{w, peer}[n%2]
				if i == 0 {
					at.must("PUT", "/v1/features/f", map[string]any{"asset": "usd", "unit_cost": fmt.Sprint(n + 1)})
					continue
				}
				use(at, fmt.Sprint(i, "-", n))
			}
		})
	}
	wg.Wait()
	// A process that did not hear of the change follows within a second.
	w.eventually("the other process rates by the last price", func() bool {
		a := w.must("GET", "/v1/customers/acme/check?feature=f&quantity=1", nil)
		b := peer.must("GET", "/v1/customers/acme/check?feature=f&quantity=1", nil)
		return a.str("allowed") == b.str("allowed") && use(peer, fmt.Sprint(time.Now())).str("feature_version") == use(w, fmt.Sprint(time.Now())).str("feature_version")
	})
}

// Alerts are set with the wallet and changed with it; the wallet says which are on and in which state it is.
func TestWalletAlerts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "100", "")
	path := "/v1/wallets/" + wallet
	set := func(alerts ...any) map[string]any { return map[string]any{"alerts": alerts} }
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0})
	w.refuses([]refuse{
		{"no level", "PATCH", path, set(map[string]any{"below": "5"}), bad("parameter_invalid", "alerts[0].level")},
		{"no threshold", "PATCH", path, set(map[string]any{"level": "info"}), bad("parameter_invalid", "alerts[0]")},
		{"two thresholds", "PATCH", path, set(map[string]any{"level": "info", "below": "5", "above": "6"}), bad("parameter_invalid", "alerts[0]")},
		{"a threshold that is no amount", "PATCH", path, set(map[string]any{"level": "info", "below": "x"}), bad("parameter_invalid", "alerts[0].below")},
		{"another word", "PATCH", path, set(map[string]any{"level": "info", "beneath": "5"}), bad("parameter_unknown", "beneath")},
		{"half a token", "POST", "/v1/customers/acme/wallets", with(set(map[string]any{"level": "info", "below": "0.5"}), "asset", "tokens"), bad("parameter_invalid", "alerts[0].below")},
	})
	a := w.must("PATCH", path, set(map[string]any{"level": "warning", "below_percent": 20}, map[string]any{"level": "critical", "below": "5"}))
	if a.str("alerts.0.below_percent") != "20" || a.str("alerts.0.active") != "false" || a.str("alerts.1.below") != "5" || a.str("alert_state") != "ok" {
		t.Errorf("set: %v", a)
	}
	w.spend("acme", "80.000001")
	if a = w.must("GET", path, nil); a.str("alert_state") != "warning" || a.str("alerts.0.active") != "true" || a.str("alerts.1.active") != "false" {
		t.Errorf("below 20 %%: %v", a)
	}
	w.spend("acme", "19")
	if a = w.must("GET", path, nil); a.str("alert_state") != "critical" {
		t.Errorf("below 5: %v", a)
	}
	if a = w.must("PATCH", path, `{"alerts":[]}`); a.str("alert_state") != "ok" || a.str("alerts") != "[]" {
		t.Errorf("taken away: %v", a)
	}
	a = w.must("POST", "/v1/customers/acme/wallets", with(set(map[string]any{"level": "info", "below": "5"}), "asset", "tokens"))
	if a.str("alerts.0.below") != "5" || a.str("alert_state") != "depleted" {
		t.Errorf("a new wallet with an alert: %v", a)
	}
}

// A customer is frozen and let go again by a call; a frozen one spends nothing, from any wallet.
func TestPatchCustomer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "10", "pm_card_visa")
	const path = "/v1/customers/acme"
	w.refuses([]refuse{
		{"another status", "PATCH", path, map[string]any{"status": "deleted"}, bad("parameter_invalid", "status")},
		{"another word", "PATCH", path, map[string]any{"currency": "eur"}, bad("parameter_unknown", "currency")},
		{"nobody", "PATCH", "/v1/customers/nobody", map[string]any{"status": "frozen"}, notFound},
	})
	if a := w.rule(wallet, map[string]any{"enabled": true, "threshold": "5", "amount": "20"}); a.status != http.StatusOK {
		t.Fatal(a)
	}
	w.spend("acme", "1")
	if a := w.must("PATCH", path, map[string]any{"status": "frozen", "metadata": map[string]any{"why": "chargeback"}}); a.str("status") != "frozen" ||
		a.str("wallets.0.status") != "frozen" || a.str("metadata.why") != "chargeback" {
		t.Errorf("frozen: %v", a)
	}
	w.refused("usage", w.usage("acme", "1"), refusal{409, "conflict", "wallet_frozen", "customer"})
	if a := w.must("GET", "/v1/customers/acme/check?amount=1", nil); a.str("allowed") != "false" || a.str("reason") != "wallet_frozen" {
		t.Errorf("check: %v", a)
	}
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "1"})
	if a := w.must("PATCH", path, map[string]any{"status": "active"}); a.str("wallets.0.status") != "active" || a.str("metadata.why") != "chargeback" {
		t.Errorf("let go: %v", a)
	}
	w.spend("acme", "6") // crosses the threshold: the rule acts again
	w.eventually("a refill", func() bool { return w.available("acme") == "24" })
}
