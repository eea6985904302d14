package main

import (
	"strings"
	"sync"
	"testing"

	"lockstep/stripeutil/stripesim"
)

// A page of Stripe's is opened for a customer who is there, with a way back, and once under a key.
func TestSessionRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "", "")
	const setup, portal = "/v1/customers/acme/setup_sessions", "/v1/customers/acme/billing_portal_sessions"
	url := map[string]any{"success_url": "https://app.example.com"}
	w.refuses([]refuse{
		{"nowhere to go back", "POST", setup, nil, bad("parameter_missing", "success_url")},
		{"nowhere to go back", "POST", portal, map[string]any{}, bad("parameter_missing", "return_url")},
		{"no URL", "POST", setup, with(url, "success_url", "app.example.com"), bad("parameter_invalid", "success_url")},
		{"a script", "POST", setup, with(url, "success_url", "javascript:alert(1)"), bad("parameter_invalid", "success_url")},
		{"empty", "POST", setup, with(url, "cancel_url", ""), bad("", "*")},
		{"another word", "POST", setup, with(url, "card", "4242"), bad("parameter_unknown", "card")},
		{"nobody", "POST", "/v1/customers/nobody/setup_sessions", url, notFound},
	})
}

// A customer whose rule waits for a card saves one on Stripe's page: it becomes the default, and the rule refills, in
// whatever order and however often Stripe tells of it. A page of another program's changes nothing.
func TestSetupSession(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]stripesim.DeliveryFaultKind{"once": stripesim.LoseOnce, "twice": stripesim.Duplicate, "twins": stripesim.Twin} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.sim.InjectDelivery(stripesim.DeliveryFault{Type: "checkout.session.completed", Kind: kind, Times: 10})
			wallet, stripeID := w.customer("acme", "10", "")
			if a := w.rule(wallet, refill(0)); a.status != 200 {
				t.Fatal(a)
			}
			w.spend("acme", "6")
			w.eventually("the rule waits for a card", func() bool { _, reason := w.state(wallet); return reason == "no_payment_method" })
			var wg sync.WaitGroup
			pages := make([]answer, 4)
			for i := range pages {
				wg.Go(func() {
					pages[i] = w.call("POST", "/v1/customers/acme/setup_sessions", `{"success_url":"https://app.example.com"}`, "Idempotency-Key", "page")
				})
			}
			wg.Wait()
			for _, p := range pages {
				if p.status != 201 || p.str("id") != pages[0].str("id") || !strings.HasPrefix(p.str("url"), "https://") || p.str("customer") != "acme" {
					t.Errorf("a page: %v", p)
				}
			}
			w.did(w.sim.Operator().CompleteCheckout(pages[0].str("id"), "pm_card_visa"))
			w.paid("acme", stripeID, "24", 1)
			c, _ := w.sim.Customer(stripeID)
			if c.DefaultPaymentMethod == "" {
				t.Errorf("no default card: %+v", c)
			}
			w.inStep("acme")
		})
	}
}

func TestBillingPortalSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, func(o *worldOptions) {
		o.config = func(c *config) { c.PublicURL = "https://app.example.com/billing" }
	})
	w.customer("acme", "", "")
	a := w.must("POST", "/v1/customers/acme/billing_portal_sessions", nil, "Idempotency-Key", "one")
	if a.str("object") != "billing_portal_session" || !strings.HasPrefix(a.str("url"), "https://") || a.at("expires_at") != nil {
		t.Errorf("a page: %v", a)
	}
	if again := w.must("POST", "/v1/customers/acme/billing_portal_sessions", nil, "Idempotency-Key", "one"); string(again.raw) != string(a.raw) {
		t.Errorf("the key again: %v", again)
	}
}
