package main

import (
	"slices"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// A rule that could never act, or whose words are not known, is refused and none is set.
func TestRuleRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "10", "pm_card_visa")
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 2})
	w.must("PUT", "/v1/assets/credits", map[string]any{"scale": 2, "price_per_unit": "0.01", "currency": "usd"})
	priceless := w.must("POST", "/v1/customers/acme/wallets", map[string]any{"asset": "tokens"}).str("id")
	credits := w.must("POST", "/v1/customers/acme/wallets", map[string]any{"asset": "credits"}).str("id")
	rule := map[string]any{"threshold": "5", "amount": "20"}
	usd := func(amount any) map[string]any {
		return map[string]any{"amount": amount, "currency": "usd", "interval": "month"}
	}
	path := "/v1/wallets/" + wallet + "/auto_topup"
	var cases []refuse
	for what, c := range map[string]struct {
		body any
		want refusal
	}{
		"no threshold":                    {map[string]any{"amount": "20"}, bad("parameter_missing", "threshold")},
		"both thresholds":                 {with(rule, "threshold_percent", 20), bad("parameter_invalid", "threshold_percent")},
		"no amount":                       {map[string]any{"threshold": "5"}, bad("parameter_missing", "amount")},
		"amount and target":               {with(rule, "target", "50"), bad("parameter_invalid", "target")},
		"nothing":                         {map[string]any{}, bad("parameter_missing", "threshold")},
		"a target at the threshold":       {map[string]any{"threshold": "5", "target": "5"}, bad("parameter_invalid", "target")},
		"a target below the threshold":    {map[string]any{"threshold": "5", "target": "4.999999"}, bad("parameter_invalid", "target")},
		"a threshold below zero":          {with(rule, "threshold", "-1"), bad("parameter_invalid", "threshold")},
		"an amount of zero":               {with(rule, "amount", "0"), bad("parameter_invalid", "amount")},
		"a target of zero":                {map[string]any{"threshold": "0", "target": "0"}, bad("parameter_invalid", "target")},
		"more decimals":                   {with(rule, "threshold", "5.0000001"), bad("parameter_invalid", "threshold")},
		"an amount below Stripe's least":  {with(rule, "amount", "0.49"), bad("parameter_invalid", "amount")},
		"0 percent":                       {map[string]any{"threshold_percent": 0, "amount": "20"}, bad("parameter_invalid", "threshold_percent")},
		"100 percent":                     {map[string]any{"threshold_percent": 100, "amount": "20"}, bad("parameter_invalid", "threshold_percent")},
		"half a percent":                  {map[string]any{"threshold_percent": 0.5, "amount": "20"}, bad("parameter_invalid", "threshold_percent")},
		"a cap below one top-up":          {with(rule, "spend_cap", usd(1999)), bad("parameter_invalid", "spend_cap.amount")},
		"a cap below zero":                {with(rule, "spend_cap", usd(-1)), bad("parameter_invalid", "spend_cap.amount")},
		"a cap that is a text":            {with(rule, "spend_cap", usd("5000")), bad("parameter_invalid", "spend_cap.amount")},
		"half a cent of a cap":            {with(rule, "spend_cap", usd(5000.5)), bad("parameter_invalid", "spend_cap.amount")},
		"an endless cap":                  {with(rule, "spend_cap", usd(rawNumber("1e400"))), bad("parameter_invalid", "spend_cap.amount")},
		"a cap in another currency":       {with(rule, "spend_cap", with(usd(5000), "currency", "eur")), bad("currency_mismatch", "spend_cap.currency")},
		"a cap for a year":                {with(rule, "spend_cap", with(usd(5000), "interval", "year")), bad("parameter_invalid", "spend_cap.interval")},
		"a cap for no time":               {with(rule, "spend_cap", map[string]any{"amount": 5000, "currency": "usd"}), bad("parameter_invalid", "spend_cap.interval")},
		"a cap that is a number":          {with(rule, "spend_cap", 5000), bad("parameter_invalid", "spend_cap")},
		"a cap with more to it":           {with(rule, "spend_cap", with(usd(5000), "soft", true)), bad("parameter_unknown", "*")},
		"a cap of another case":           {with(rule, "spend_cap", with(usd(5000), "Interval", "day")), bad("parameter_unknown", "Interval")},
		"enabled as a text":               {with(rule, "enabled", "yes"), bad("parameter_invalid", "enabled")},
		"a mode there is not":             {with(rule, "mode", "gift"), bad("parameter_invalid", "mode")},
		"a settlement there is not":       {with(rule, "settlement", "never"), bad("parameter_invalid", "settlement")},
		"a grant of no kind":              {with(rule, "grant", map[string]any{"kind": "gift"}), bad("parameter_invalid", "grant.kind")},
		"a grant of an empty kind":        {with(rule, "grant", map[string]any{"kind": ""}), bad("parameter_invalid", "grant.kind")},
		"a grant of priority 101":         {with(rule, "grant", map[string]any{"priority": 101}), bad("parameter_invalid", "grant.priority")},
		"a grant that expires at once":    {with(rule, "grant", map[string]any{"expires_in_days": 0}), bad("parameter_invalid", "grant.expires_in_days")},
		"a grant that is a text":          {with(rule, "grant", "purchased"), bad("parameter_invalid", "grant")},
		"a payment method with a NUL":     {with(rule, "payment_method", nul), bad("parameter_invalid", "payment_method")},
		"a payment method that is a list": {with(rule, "payment_method", []any{}), bad("parameter_invalid", "payment_method")},
	} {
		cases = append(cases, refuse{what, "PUT", path, c.body, c.want})
	}
	w.refuses(append(cases,
		refuse{"an asset with no price", "PUT", "/v1/wallets/" + priceless + "/auto_topup", rule, bad("parameter_invalid", "*")},
		refuse{"a cap below one top-up of credits", "PUT", "/v1/wallets/" + credits + "/auto_topup", map[string]any{"threshold": "500", "amount": "2000.01", "spend_cap": usd(2000)}, bad("parameter_invalid", "spend_cap.amount")},
	))
	w.refused("none was set", w.call("GET", path, nil), notFound)
}

// A rule is answered as it was set, with its state; it can be paused, resumed and switched off.
func TestRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, _ := w.customer("acme", "10", "pm_card_visa")
	path := "/v1/wallets/" + wallet + "/auto_topup"
	a := w.rule(wallet, map[string]any{"threshold": "5.50", "target": "50", "spend_cap": map[string]any{"amount": 50000, "currency": "USD", "interval": "week"},
		"grant": map[string]any{"kind": "plan", "priority": 3, "expires_in_days": 30}})
	for path, want := range map[string]string{"object": "auto_topup", "wallet": wallet, "enabled": "true", "threshold": "5.5", "threshold_percent": "", "amount": "", "target": "50", "spend_cap.amount": "50000",
		"spend_cap.currency": "usd", "spend_cap.interval": "week", "mode": "charge", "settlement": "on_payment", "payment_method": "", "grant.kind": "plan", "grant.priority": "3", "grant.expires_in_days": "30",
		"state": "armed", "pause": "", "spent.amount": "0", "spent.currency": "usd"} {
		if got := a.str(path); a.status != 200 || got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if again := w.must("GET", path, nil); string(again.raw) != string(a.raw) {
		t.Errorf("read again: %v", again)
	}
	if a := w.must("GET", "/v1/wallets/"+wallet, nil); a.str("auto_topup.state") != "armed" {
		t.Errorf("in its wallet: %v", a)
	}
	if a := w.must("POST", path+"/pause", nil, "Idempotency-Key", "p"); a.str("state") != "paused" || a.str("pause.reason") != "manual" || a.str("pause.clears_when") == "" || a.str("pause.since") == "" {
		t.Errorf("paused: %v", a)
	}
	w.refused("a body with something in it", w.call("POST", path+"/resume", map[string]any{"now": true}), bad("parameter_unknown", "now"))
	if a := w.usage("acme", "6"); a.status != 200 {
		t.Fatal(a)
	}
	if a := w.usage("acme", "6"); a.str("error.auto_topup.state") != "paused" || a.str("error.auto_topup.pause.reason") != "manual" {
		t.Errorf("a refusal says that nothing is coming: %v", a)
	}
	w.must("POST", path+"/resume", "{}")
	w.eventually("the rule acts once it is resumed", func() bool { return w.available("acme") == "50" })
	if a := w.must("GET", path, nil); a.str("spent.amount") != "4600" || a.str("state") != "armed" {
		t.Errorf("after a refill to the target: %v", a)
	}
	top := w.must("GET", "/v1/topups?customer=acme", nil)
	if top.str("data.0.trigger") != "auto" || top.str("data.0.status") != "succeeded" || top.str("data.0.charge.amount") != "4600" || top.str("data.1") != "" {
		t.Errorf("its top-up: %v", top)
	}
	if g := w.must("GET", "/v1/grants/"+top.str("data.0.grant"), nil); g.str("kind") != "plan" || g.str("priority") != "3" || g.at("expires_at") == nil || g.str("source.type") != "topup" || g.str("source.id") != top.str("data.0.id") || g.str("cost.amount") != "4600" {
		t.Errorf("its grant: %v", g)
	}
	if a := w.rule(wallet, map[string]any{"enabled": false, "threshold_percent": 20, "amount": "20"}); a.str("state") != "disabled" || a.str("threshold_percent") != "20" || a.at("threshold") != nil {
		t.Errorf("disabled: %v", a)
	}
	w.inStep("acme")
}

// A rule that asks for more than a wallet can hold does nothing, and no debit suffers from it.
func TestRuleThatCanNotAct(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "9220000000000", "pm_card_visa")
	if a := w.rule(wallet, map[string]any{"threshold": "1", "amount": "10000000000"}); a.str("error.param") != "amount" {
		t.Errorf("more than Stripe charges: %v", a)
	}
	if a := w.rule(wallet, map[string]any{"threshold": "9219999999999", "amount": "9999999999"}); a.status != 200 {
		t.Fatal(a)
	}
	for range 3 {
		if a := w.usage("acme", "2"); a.status != 200 {
			t.Errorf("%v", a)
		}
	}
	if top := w.must("GET", "/v1/topups?customer=acme", nil); w.available("acme") != "9219999999994" || len(top.list()) != 0 {
		t.Errorf("available %s, top-ups %v", w.available("acme"), top)
	}
}

// Yen have no smaller unit: what is bought is charged in whole ones, rounded up, and shown so in Stripe.
func TestTopupInYen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *worldOptions) { o.config = func(c *config) { c.DefaultAsset = "jpy" } })
	wallet, stripeID := w.customer("acme", "", "pm_card_visa")
	if a := w.must("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "2000.5"}); a.str("charge.amount") != "2001" || a.str("charge.currency") != "jpy" {
		t.Errorf("%v", a)
	}
	w.inStep("acme")
	if c, _ := w.sim.Customer(stripeID); c.Balance != -2000 || c.Currency != "jpy" {
		t.Errorf("half a yen is not Stripe's to spend: %+v", c)
	}
	if a := w.rule(wallet, map[string]any{"threshold": "1000", "target": "3000", "spend_cap": map[string]any{"amount": 5000, "currency": "jpy", "interval": "day"}}); a.status != 200 {
		t.Errorf("%v", a)
	}
	w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "1500.75"})
	w.eventually("the rule refills to its target", func() bool { return w.available("acme") == "3000.75" })
	if a := w.must("GET", "/v1/topups?customer=acme", nil); a.str("data.0.charge.amount") != "2501" {
		t.Errorf("%v", a)
	}
	w.inStep("acme")
}

// A manual top-up that can't be is refused before anything is charged.
func TestTopupRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "10", "pm_card_visa")
	w.customer("cardless", "", "")
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 2})
	topup := map[string]any{"customer": "acme", "amount": "20"}
	w.refuses([]refuse{
		{"zero", "POST", "/v1/topups", with(topup, "amount", "0"), bad("parameter_invalid", "amount")},
		{"below Stripe's least", "POST", "/v1/topups", with(topup, "amount", "0.49"), bad("parameter_invalid", "amount")},
		{"too large", "POST", "/v1/topups", with(topup, "amount", "9223372036854"), bad("parameter_invalid", "amount")},
		{"a mode there is not", "POST", "/v1/topups", with(topup, "mode", "gift"), bad("parameter_invalid", "mode")},
		{"no such asset", "POST", "/v1/topups", with(topup, "asset", "gold"), bad("asset_unknown", "asset")},
		{"an asset with no price", "POST", "/v1/topups", with(topup, "asset", "tokens"), bad("parameter_invalid", "asset")},
		{"another currency", "POST", "/v1/topups", with(topup, "asset", "eur"), bad("currency_mismatch", "asset")},
		{"nobody", "POST", "/v1/topups", with(topup, "customer", "nobody"), notFound},
	})
	w.refused("no card", w.call("POST", "/v1/topups", with(topup, "customer", "cardless")), refusal{402, "card_error", "no_payment_method", "payment_method"})
	w.refused("a card that is nobody's", w.call("POST", "/v1/topups", with(topup, "payment_method", "pm_nobody")), bad("parameter_invalid", "*"))
	if n := len(w.sim.Charges("")); n != 0 || w.available("acme") != "10" || w.available("cardless") != "0" {
		t.Errorf("%d charges; available %s and %s", n, w.available("acme"), w.available("cardless"))
	}
	for _, id := range []string{"acme", "cardless"} {
		if a := w.must("GET", "/v1/customers/"+id, nil); a.str("wallets.0.balance.pending") != "0" {
			t.Errorf("%v", a)
		}
	}
}

// A manual top-up charges the card now, and once; a decline is told, kept under its key, and a new key tries again.
func TestTopup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripeID := w.customer("acme", "", "pm_card_visa")
	a := w.must("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "20", "idempotency_key": "one"})
	for path, want := range map[string]string{"object": "topup", "customer": "acme", "wallet": wallet, "trigger": "manual", "mode": "charge", "status": "succeeded", "amount": "20", "charge.amount": "2000",
		"charge.currency": "usd", "attempt": "1", "failure": "", "url": "", "stripe.invoice": "", "stripe.checkout_session": ""} {
		if got := a.str(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if a.status != 201 || w.available("acme") != "20" || len(w.sim.Charges(stripeID)) != 1 || w.sim.PaymentIntents(stripeID)[0].ID != a.str("stripe.payment_intent") {
		t.Errorf("%v", a)
	}
	replay := w.call("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "20"}, "Idempotency-Key", "one")
	if replay.status != 201 || string(replay.raw) != string(a.raw) || replay.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("under its key: %v", replay)
	}
	if got := w.must("GET", "/v1/topups/"+a.str("id"), nil); string(got.raw) != string(a.raw) {
		t.Errorf("read again: %v", got)
	}
	w.refused("what has succeeded is not canceled", w.call("POST", "/v1/topups/"+a.str("id")+"/cancel", nil), refusal{409, "conflict", "state_conflict", "*"})

	for token, want := range map[string][2]string{
		"pm_card_stripesim_insufficient_funds": {"card_declined", "insufficient_funds"},
		"pm_card_stripesim_expired_card":       {"expired_card", "expired_card"},
		"pm_card_authenticationRequired":       {"authentication_required", "authentication_required"},
	} {
		w.card(stripeID, token)
		body := map[string]any{"customer": "acme", "amount": "20"}
		declined := w.call("POST", "/v1/topups", body, "Idempotency-Key", token)
		w.refused(token, declined, refusal{402, "card_error", want[0], ""})
		if declined.str("error.decline_code") != want[1] {
			t.Errorf("%s: %v", token, declined)
		}
		if top := w.must("GET", "/v1/topups/"+declined.str("error.topup"), nil); top.str("status") != "failed" || top.str("failure.code") != want[0] || top.at("grant") != nil {
			t.Errorf("%s: %v", token, top)
		}
		charges := len(w.sim.Charges(stripeID))
		again := w.call("POST", "/v1/topups", body, "Idempotency-Key", token)
		if string(again.raw) != string(declined.raw) || again.status != 402 || again.header.Get("Idempotent-Replayed") != "true" || len(w.sim.Charges(stripeID)) != charges {
			t.Errorf("%s, kept: %v", token, again)
		}
		if next := w.call("POST", "/v1/topups", body, "Idempotency-Key", token+" again"); next.status != 402 || next.str("error.topup") == declined.str("error.topup") || len(w.sim.PaymentIntents(stripeID)) < 3 {
			t.Errorf("%s, a new key tries again: %v", token, next)
		}
	}
	if w.available("acme") != "20" {
		t.Errorf("available %s", w.available("acme"))
	}
	w.card(stripeID, "pm_card_visa")
	if a := w.must("POST", "/v1/topups", map[string]any{"customer": stripeID, "amount": "5"}); a.str("status") != "succeeded" {
		t.Errorf("another card: %v", a)
	}
	var statuses []string
	for _, top := range w.must("GET", "/v1/topups?customer="+stripeID+"&limit=3", nil).list() {
		statuses = append(statuses, top.str("status"))
	}
	if !slices.Equal(statuses, []string{"succeeded", "failed", "failed"}) {
		t.Errorf("list: %v", statuses)
	}
	w.inStep("acme")
}

// While a charge is on its way there is no second one, and what it buys is pending.
func TestTopupInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stripeID := w.customer("acme", "", "pm_card_visa")
	topup := map[string]any{"customer": "acme", "amount": "20"}
	w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/payment_intents", Kind: stripesim.Slow, Delay: 2 * time.Second})
	first := make(chan answer)
	go func() { first <- w.call("POST", "/v1/topups", topup, "Idempotency-Key", "first") }()
	var list answer
	w.eventually("the first is on its way", func() bool {
		list = w.call("GET", "/v1/topups?customer=acme", nil)
		return list.str("data.0.status") == "pending"
	})
	if b := w.must("GET", "/v1/customers/acme", nil); b.str("wallets.0.balance") != `{"available":"0","held":"0","pending":"20","total":"0"}` {
		t.Errorf("pending: %v", b)
	}
	w.refused("a second", w.call("POST", "/v1/topups", topup, "Idempotency-Key", "second"), refusal{409, "conflict", "topup_in_flight", ""})
	w.refused("its grant can't be voided", w.call("POST", "/v1/grants/"+list.str("data.0.grant")+"/void", nil), refusal{409, "conflict", "state_conflict", "id"})
	if g := w.must("GET", "/v1/grants?customer=acme&status=pending", nil); g.str("data.0.id") != list.str("data.0.grant") {
		t.Errorf("its grant: %v", g)
	}
	a := <-first
	if a.status != 201 || a.str("status") != "succeeded" || w.available("acme") != "20" {
		t.Errorf("%v", a)
	}
	if b := w.must("POST", "/v1/topups", topup, "Idempotency-Key", "second"); b.str("status") != "succeeded" || len(w.sim.Charges(stripeID)) != 2 {
		t.Errorf("a refused request does not use its key up: %v", b)
	}
	w.inStep("acme")
}
