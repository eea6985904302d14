package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"lockstep/handlers/pages/browsertest"
)

// A month of a customer's life, as they and the merchant's people see it afterwards: credit is given, spent each day and
// bought again by the rule. The README's pictures are those that it takes: SCREENSHOTS=$PWD/handlers/pages/screenshots go test ./cmd/lockstep -run TestMonthInPictures
func TestMonthInPictures(t *testing.T) {
	t.Parallel()
	const days = 30
	w := newWorld(t, func(o *worldOptions) {
		o.clock = &testClock{offset: -days * 24 * time.Hour}
		o.config = func(c *config) { c.MerchantName, c.MerchantColor = "Northwind AI", "#0f766e" }
	})
	a := w.must("POST", "/v1/customers", map[string]any{"id": "acme", "name": "Acme Robotics", "email": "ada@acme.example"})
	wallet := a.str("wallets.0.id")
	w.card(a.str("stripe_customer"), "pm_card_visa")
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "15", "kind": "promotional", "reason": "welcome",
		"expires_at": w.clock.now().Add(60 * 24 * time.Hour).UTC().Format(time.RFC3339)})
	w.must("POST", "/v1/topups", map[string]any{"customer": "acme", "amount": "40"})
	rule := map[string]any{"enabled": true, "threshold": "10", "target": "50", "spend_cap": map[string]any{"amount": 25000, "currency": "usd", "interval": "month"}}
	if a := w.rule(wallet, rule); a.str("state") != "armed" {
		t.Fatal(a)
	}
	refills := 0
	for day := range days {
		for part := range 4 { // busier by day than by night, quiet at weekends
			w.clock.add(6 * time.Hour)
			cents := []int{40, 160, 220, 90}[part] * (3 + (day*5+part)%4) / 4
			if day%7 > 4 {
				cents /= 4
			}
			d := w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": fmt.Sprintf("%d.%02d", cents/100, cents%100),
				"metadata": map[string]string{"model": []string{"small", "large"}[part%2]}})
			if w.must("GET", "/v1/wallets/"+wallet, nil).str("auto_topup.state") != "armed" {
				refills++
				w.eventually("the wallet is full again after "+d.str("id"), func() bool {
					return w.must("GET", "/v1/wallets/"+wallet, nil).str("balance.available") == "50"
				})
			}
		}
	}
	w.must("POST", "/v1/holds", map[string]any{"customer": "acme", "amount": "2.5", "expires_in": 3600})
	w.inStep("acme")
	if refills < 2 {
		t.Fatalf("refilled %d times", refills)
	}

	// The customer.
	tab := browsertest.At(t, w.base).Tab()
	tab.Open(strings.TrimPrefix(w.must("POST", "/v1/portal_sessions", map[string]any{"customer": "acme", "return_url": "https://northwind.example/app"}).str("url"), w.base))
	tab.WaitFor("Given") // in the legend of the chart
	if tab.Count("canvas") != 1 || !tab.Has("Northwind AI") || !tab.Has("$2.50") {
		t.Errorf("home says %s", tab.Text("main"))
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", w.base+"/portal/chart/"+wallet, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.AddCookie(&http.Cookie{Name: "lockstep_portal", Value: tab.Cookie("lockstep_portal").Value})
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var chart struct {
		X      []int64
		Series []struct {
			Label  string
			Values []*float64
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&chart); err != nil {
		t.Fatal(err)
	}
	if n := len(chart.X); n < days || n > 200 || chart.X[n-1]-chart.X[0] < (days-2)*24*3600 {
		t.Fatalf("%d points", n)
	}
	marked := 0
	for _, s := range chart.Series[1:] {
		for _, v := range s.Values {
			if v != nil {
				marked++
			}
		}
	}
	if marked != refills { // what was there at first is as old as the chart
		t.Errorf("%d purchases are marked, there were %d", marked, refills)
	}
	tab.Screenshot("portal")
	tab.Viewport(390, 844, true)
	tab.ColorScheme("dark")
	tab.Open("/portal/refill/" + wallet)
	tab.Screenshot("portal-refill-phone-dark")

	// The operators.
	tab.Viewport(1280, 800, false)
	tab.ColorScheme("light")
	tab.Open("/console/login")
	tab.Fill("#key", w.key)
	tab.Fill("#name", "Grace")
	tab.Click("Sign in")
	tab.WaitFor("Credit outstanding")
	tab.Screenshot("console")
	tab.Open("/console/customers/acme/lockstep")
	tab.WaitFor("in step")
}
