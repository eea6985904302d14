package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A forecast says how fast credit goes, how long it lasts, and what expires next; of no wallet it says nothing.
func TestForecast(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "100", "")
	path := "/v1/wallets/" + wallet + "/forecast"
	w.refuses([]refuse{
		{"no such wallet", "GET", "/v1/wallets/wal_nothing/forecast", nil, notFound},
		{"a window", "GET", path + "?window=hour", nil, bad("parameter_unknown", "window")},
	})
	if a := w.must("GET", path, nil); a.str("object") != "forecast" || a.str("wallet") != wallet || a.str("asset") != "usd" || a.str("available") != "100" ||
		a.str("burn.0.used") != "0" || a.str("burn.0.per_hour") != "0" || a.at("burn.0.empty_at") != nil || a.at("burn.0.minutes_left") != nil || a.at("next_expiry") != nil {
		t.Errorf("nothing used: %v", a)
	}
	w.advance(48 * time.Hour)
	expires := w.clock.now().Add(time.Hour).UTC().Format(time.RFC3339)
	g := w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "5", "expires_at": expires, "priority": 90})
	w.usage("acme", "10")
	a := w.must("GET", path, nil)
	for path, want := range map[string]string{"available": "95", "burn.0.window": "hour", "burn.0.used": "10", "burn.0.per_hour": "10", "burn.0.minutes_left": "570",
		"burn.1.window": "day", "burn.1.per_hour": "0.416666667", "burn.2.window": "week", "burn.2.used": "10",
		"next_expiry.amount": "5", "next_expiry.grant": g.str("id"), "next_expiry.at": g.str("expires_at")} {
		if got := a.str(path); got != want {
			t.Errorf("%s is %q, want %q: %v", path, got, want, a)
		}
	}
}

// A rule with a runway says so, refuses what is none, and refills in a spike, by itself, long before the threshold.
func TestRunway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "100", "pm_card_visa")
	path := "/v1/wallets/" + wallet + "/auto_topup"
	body := map[string]any{"threshold": "5", "amount": "20", "runway_minutes": 30}
	var cases []refuse
	for what, v := range map[string]any{"none": 0, "below zero": -1, "over thirty days": 43201, "a text": "30", "a fraction": 0.5, "a huge number": rawNumber("99999999999")} {
		cases = append(cases, refuse{what, "PUT", path, with(body, "runway_minutes", v), bad("parameter_invalid", "runway_minutes")})
	}
	w.refuses(append(cases, refuse{"no threshold", "PUT", path, map[string]any{"amount": "20", "runway_minutes": 30}, bad("parameter_missing", "threshold")}))
	if a := w.rule(wallet, with(body, "runway_minutes", nil)); a.status != 200 || a.at("runway_minutes") != nil {
		t.Errorf("no runway: %v", a)
	}
	if a := w.rule(wallet, body); a.str("runway_minutes") != "30" || a.str("threshold") != "5" || a.str("state") != "armed" {
		t.Errorf("a runway: %v", a)
	}
	w.usage("acme", "20") // 4 a minute: 120 are needed
	w.eventually("the spike is refilled", func() bool { return w.available("acme") == "120" })
	if a := w.must("GET", "/v1/topups?customer=acme", nil); a.str("data.0.trigger") != "auto" || a.at("data.2") != nil {
		t.Errorf("its top-ups: %v", a)
	}
}

// A simulation refuses what PUT would refuse, answers what a rule would have done, and books nothing.
func TestSimulate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "100", "")
	path := "/v1/wallets/" + wallet + "/auto_topup/simulate"
	rule := map[string]any{"days": 7, "threshold": "5", "amount": "20", "spend_cap": map[string]any{"amount": 4000, "currency": "usd", "interval": "month"}}
	w.refuses([]refuse{
		{"no such wallet", "POST", "/v1/wallets/wal_nothing/auto_topup/simulate", rule, notFound},
		{"no rule", "POST", path, map[string]any{"days": 7}, bad("parameter_missing", "threshold")},
		{"no days", "POST", path, with(rule, "days", 0), bad("parameter_invalid", "days")},
		{"too many days", "POST", path, with(rule, "days", 401), bad("parameter_invalid", "days")},
		{"days as a text", "POST", path, with(rule, "days", "7"), bad("parameter_invalid", "days")},
		{"half a rule", "POST", path, map[string]any{"days": 7, "threshold": "5"}, bad("parameter_missing", "amount")},
		{"a rule that can't act", "POST", path, with(rule, "amount", "0.49"), bad("parameter_invalid", "amount")},
		{"a cap below one top-up", "POST", path, with(rule, "amount", "40.01"), bad("parameter_invalid", "spend_cap.amount")},
		{"a threshold that is a number", "POST", path, with(rule, "threshold", 5), bad("parameter_invalid", "threshold")},
		{"an unknown field", "POST", path, with(rule, "weeks", 1), bad("parameter_unknown", "weeks")},
		{"an empty key", "POST", path, with(rule, "idempotency_key", ""), bad("parameter_invalid", "idempotency_key")},
	})
	for range 12 {
		w.usage("acme", "8")
	}
	before := w.books()
	a := w.must("POST", path, with(rule, "threshold", "50"))
	for path, want := range map[string]string{"object": "simulation", "wallet": wallet, "events": "13", "topups.count": "2", "topups.amount": "40", "topups.charged.amount": "4000",
		"topups.charged.currency": "usd", "cap.refused": "1", "depleted.at": "", "depleted.debits_refused": "0", "depleted.short": "0", "lowest": "0", "highest": "100", "ending": "44",
		"charges.0.amount": "20", "charges.0.charge.amount": "2000", "charges.2": ""} {
		if got := a.str(path); got != want {
			t.Errorf("%s is %q, want %q: %v", path, got, want, a)
		}
	}
	if after := w.books(); after != before {
		t.Errorf("booked: %s, before %s", after, before)
	}
	first := w.must("POST", path, rule, "Idempotency-Key", "s1")
	w.usage("acme", "1")
	if again := w.must("POST", path, rule, "Idempotency-Key", "s1"); string(again.raw) != string(first.raw) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("under one key: %v, then %v", first, again)
	}
	w.refused("another under its key", w.call("POST", path, with(rule, "days", 8), "Idempotency-Key", "s1"), reusedKey)
	w.rule(wallet, map[string]any{"enabled": false, "threshold": "50", "amount": "20"})
	if a := w.must("POST", path, nil); a.str("events") != "14" || a.str("topups.count") != "3" {
		t.Errorf("the wallet's own rule, were it enabled: %v", a)
	}
}

// The revenue report is refused for what is no time or format, and says the same as JSON and as CSV; what Stripe spent
// of the balance there is earned, what somebody gave there is sold, and a top-up is sold when it was paid.
func TestRevenueReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const path = "/v1/reports/revenue"
	w.refuses([]refuse{
		{"a format there is not", "GET", path + "?format=xml", nil, bad("parameter_invalid", "format")},
		{"no format", "GET", path + "?format=", nil, bad("parameter_invalid", "format")},
		{"from no time", "GET", path + "?from=2026-01", nil, bad("parameter_invalid", "from")},
		{"to no time", "GET", path + "?to=yesterday", nil, bad("parameter_invalid", "to")},
		{"backwards", "GET", path + "?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", nil, bad("parameter_invalid", "to")},
		{"no time at all", "GET", path + "?from=2026-02-01T00:00:00Z&to=2026-02-01T00:00:00Z", nil, bad("parameter_invalid", "to")},
		{"ten years", "GET", path + "?from=2016-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", nil, bad("parameter_invalid", "from")},
		{"of a customer", "GET", path + "?customer=acme", nil, bad("parameter_unknown", "customer")},
	})
	_, stripeID := w.armed("acme", "pm_card_visa", 0)
	w.inStep("acme")
	if _, err := w.sim.Operator().AdjustBalance(stripeID, -500, "usd", "goodwill"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the goodwill is booked", func() bool { return w.available("acme") == "15" })
	if _, err := w.sim.Operator().AdjustBalance(stripeID, 300, "usd", "taken"); err != nil {
		t.Fatal(err)
	}
	w.eventually("what was taken is booked", func() bool { return w.available("acme") == "12" })
	w.usage("acme", "10")
	w.eventually("the top-up is booked", func() bool { return w.available("acme") == "22" })
	month := w.clock.now().UTC().Format("2006-01")
	from := w.clock.now().UTC().Add(-time.Hour).Format(time.RFC3339)
	a := w.must("GET", path+"?from="+from, nil)
	sold, earned, closing := 0.0, 0.0, 0.0
	for i := range 4 {
		at := fmt.Sprintf("rows.%d.", i)
		if a.str(at+"currency") == "" {
			break
		}
		for _, f := range []struct {
			name string
			sum  *float64
		}{{"sold", &sold}, {"earned", &earned}, {"closing", &closing}} {
			n, err := strconv.ParseFloat(a.str(at+f.name), 64)
			if err != nil {
				t.Fatal(err)
			}
			*f.sum += n
		}
	}
	if a.str("object") != "revenue_report" || a.str("rows.0.period") == "" || sold != 35 || earned != 13 || closing != 22 {
		t.Errorf("sold %v, earned %v, closing %v: %v", sold, earned, closing, a)
	}
	text := w.must("GET", path+"?format=csv&from="+from, nil)
	if ct := text.header.Get("Content-Type"); !strings.HasPrefix(ct, "text/csv") {
		t.Errorf("Content-Type %q", ct)
	}
	lines, err := csv.NewReader(bytes.NewReader(text.raw)).ReadAll()
	if err != nil || len(lines) < 3 || strings.Join(lines[0], " ") != "period currency kind opening sold earned breakage refunded closing" {
		t.Fatalf("%q: %v", text.raw, err)
	}
	for i, line := range lines[1:] {
		for c, name := range lines[0] {
			if want := a.str(fmt.Sprintf("rows.%d.%s", i, name)); line[c] != want {
				t.Errorf("row %d: %s is %q as CSV, %q as JSON", i, name, line[c], want)
			}
		}
	}
	if a := w.must("GET", path, nil); !strings.HasPrefix(a.str("from"), month+"-01T00:00:00") || a.str("rows.0.period") != month {
		t.Errorf("the month so far: %v", a)
	}
}
