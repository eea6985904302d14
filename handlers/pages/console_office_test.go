package pages_test

import (
	"net/url"
	"strings"
	"testing"

	"lockstep/handlers/pages/browsertest"
)

// office is a world with a top-up that was paid and refunded, one that was declined, and prices, with an operator at its
// console.
func office(t *testing.T) (*browsertest.World, *browsertest.Tab) {
	t.Helper()
	w := browsertest.Shared(t, "MERCHANT_NAME=Office") // apart from the tests that count what there is
	tab := w.Tab()
	signIn(w, tab, "/console")
	return w, tab
}

// looks has a page looked at: on a wide screen and on a phone, by day and by night.
func looks(tab *browsertest.Tab, path, name string) {
	for _, view := range []struct {
		scheme, suffix string
		width, height  int
	}{{"light", "", 1280, 800}, {"dark", "-dark-phone", 390, 844}} {
		tab.ColorScheme(view.scheme)
		tab.Viewport(view.width, view.height, view.width < 500)
		tab.Open(path)
		tab.Axe()
		tab.Screenshot(name + view.suffix)
	}
	tab.ColorScheme("light")
	tab.Viewport(1280, 800, false)
}

// confirm says why, and does what was shown.
func confirm(tab *browsertest.Tab, button string) {
	tab.Fill("#reason", "a test")
	tab.Click(button)
}

// An operator finds a top-up by how it stands, sees what it gave, why it failed, and what went back, and cancels one that
// waits for its customer.
func TestTopupsInABrowser(t *testing.T) {
	t.Parallel()
	w, tab := office(t)
	w.Post("/v1/customers", browsertest.JSON{"id": "payer", "name": "<i>Payer</i>"})
	cus := ""
	w.Until("the customer is in Stripe", func() bool {
		cus = w.Get("/v1/customers/payer").Text("stripe_customer")
		return cus != ""
	})
	card := func(token string) {
		pm := w.Stripe("POST", "/v1/payment_methods/"+token+"/attach", "customer="+cus).Text("id")
		w.Stripe("POST", "/v1/customers/"+cus, "invoice_settings[default_payment_method]="+pm)
	}
	card("pm_card_visa")
	paid := w.Post("/v1/topups", browsertest.JSON{"customer": "payer", "amount": "20"})
	w.Stripe("POST", "/v1/refunds", "amount=500&payment_intent="+paid.Text("stripe", "payment_intent"))
	waiting := w.Post("/v1/topups", browsertest.JSON{"customer": "payer", "amount": "30", "mode": "checkout", "success_url": w.URL + "/docs"}).Text("id")

	looks(tab, "/console/topups?customer=payer", "console-topups")
	tab.Select("#status", "paid")
	tab.Click("Show")
	if n := tab.Count("tbody tr"); n != 1 {
		t.Errorf("%d top-ups are paid", n)
	}
	at := "/console/topups/" + paid.Text("id")
	w.Until("the refund is followed", func() bool { tab.Open(at); return tab.Has("Refunds and disputes") })
	looks(tab, at, "console-topup")
	for _, says := range []string{"$20.00", "a top-up was paid", "$5.00", "$15.00 of $20.00", "in Stripe's dashboard"} {
		if !tab.Has(says) && !strings.Contains(tab.HTML(), says) {
			t.Errorf("the top-up does not say %q: %s", says, tab.Text("main"))
		}
	}
	if !strings.Contains(tab.HTML(), "https://dashboard.stripe.com/test/payments/pi_") {
		t.Errorf("the payment has no link to Stripe: %s", tab.HTML())
	}
	tab.Open("/console/topups/" + waiting)
	tab.Click("Cancel")
	tab.Axe()
	confirm(tab, "Cancel the top-up")
	tab.WaitFor("is canceled")
	if got := w.Get("/v1/topups/" + waiting).Text("status"); got != "canceled" {
		t.Errorf("the top-up is %s", got)
	}
	tab.Allow(409, 404)
	tab.Open("/console/topups/" + waiting + "/cancel")
	tab.WaitFor("not on its way any more")
	tab.Open("/console/topups?customer=nobody")
	tab.WaitFor("There is no such customer.")
	tab.Axe()
}

// What Stripe told is shown as it came: nothing in it becomes part of the page, and no secret is shown. It is worked off
// again with the keyboard alone.
func TestStripeEventsInABrowser(t *testing.T) {
	t.Parallel()
	w, tab := office(t)
	const script = "</pre><script>document.title='taken'</script><img src=x onerror=alert(1)>"
	pm := w.Stripe("POST", "/v1/payment_methods/pm_card_authenticationRequired/attach", "customer="+w.Stripe("POST", "/v1/customers", "name=Stranger").Text("id"))
	pi := w.Stripe("POST", "/v1/payment_intents", url.Values{"amount": {"100"}, "currency": {"usd"}, "customer": {pm.Text("customer")}, "payment_method": {pm.Text("id")},
		"confirm": {"true"}, "description": {script}, "return_url": {"https://example.com"}, "payment_method_types[]": {"card"}}.Encode())
	secret := pi.Text("client_secret")
	const list = "/console/stripe_events?type=payment_intent.requires_action"
	w.Until("the event came", func() bool { tab.Open(list); return tab.Count("tbody tr") == 1 })
	looks(tab, "/console/stripe_events", "console-stripe-events")
	tab.Open(list)
	tab.Click("tbody > tr > td:first-child > a")
	at := tab.Path()
	looks(tab, at, "console-stripe-event")
	if tab.Title() == "taken" || secret == "" || strings.Contains(tab.HTML(), secret) || !tab.Has("document.title='taken'") {
		t.Errorf("the payload on %q, with the secret %q: %s", tab.Title(), secret, tab.Text("pre.payload"))
	}
	tab.Open(at + "/replay")
	for range 40 { // as far as the field for the reason
		if tab.Focused() == "input Why For the audit trail." {
			break
		}
		tab.Press("Tab")
	}
	tab.Type("a test")
	tab.Press("Enter")
	tab.WaitFor("waits to be worked off")
	tab.Axe()
}

// Endpoints are added, followed, changed and deleted; the secret is shown once.
func TestWebhooksInABrowser(t *testing.T) {
	t.Parallel()
	w, tab := office(t)
	looks(tab, "/console/webhooks/new", "console-webhook-new")
	long := "http://127.0.0.1:1/" + strings.Repeat("long", 100)
	tab.Fill("#f-url", long)
	tab.Fill("#f-description", "اسم طويل جدا")
	tab.Click("Show what it will do")
	tab.WaitFor("all events will be sent to")
	tab.Click("Change")
	if tab.Value("#f-url") != long {
		t.Errorf("what was typed is not kept: %s", tab.Value("#f-url"))
	}
	tab.Click("Show what it will do")
	tab.Axe()
	confirm(tab, "Add the endpoint")
	tab.WaitFor("the only time")
	tab.Axe()
	tab.Screenshot("console-webhook-secret")
	secret := tab.Text("code.secret")
	tab.Viewport(390, 844, true)
	tab.Click("The endpoint")
	at := tab.Path()
	tab.Viewport(1280, 800, false)
	if strings.Contains(tab.HTML(), secret) || !strings.HasPrefix(secret, "whsec_") {
		t.Errorf("the secret %q stands on its endpoint's page", secret)
	}
	w.Post("/v1/customers", browsertest.JSON{"id": "told"})
	w.Post("/v1/grants", browsertest.JSON{"customer": "told", "amount": "1", "kind": "promotional"})
	w.Until("it was tried", func() bool { tab.Open(at); return tab.Has("no answer") })
	looks(tab, at, "console-webhook")
	looks(tab, "/console/webhooks", "console-webhooks")
	looks(tab, "/console/events?customer=told", "console-events")
	tab.Click("tbody > tr:first-child > td:first-child > a")
	looks(tab, tab.Path(), "console-event")
	tab.Click("Send it again")
	tab.Click("Show what it will do")
	confirm(tab, "Send it again")
	tab.WaitFor("on its way again")
	tab.Open(at)
	tab.Click("Delete")
	confirm(tab, "Delete the endpoint")
	tab.WaitFor("was deleted")
	tab.Open("/console/webhooks")
	tab.WaitFor("Nobody is told yet")
}

// Prices are shown before they are set, on pages without scripts too.
func TestRatesInABrowser(t *testing.T) {
	t.Parallel()
	w, tab := office(t)
	w.Put("/v1/assets/credits", browsertest.JSON{"scale": 2, "price_per_unit": "0.01", "currency": "usd"})
	looks(tab, "/console/rates/change", "console-rate-form")
	tab.JavaScript(false)
	tab.Open("/console/rates/change")
	tab.Fill("#f-key", "gpt-4o.output")
	tab.Fill("#f-asset", "usd")
	tab.Fill("#f-unit_cost", "0.002")
	tab.Click("Show what it will do")
	tab.WaitFor("1,000 units in one use will cost $2.00")
	tab.Axe()
	tab.Screenshot("console-rate-preview")
	confirm(tab, "Set the price")
	tab.WaitFor("has version 1")
	tab.JavaScript(true)
	tab.Open("/console/rates/change?key=gpt-4o.output")
	tab.Fill("#f-unit_cost", "0.01")
	tab.Fill("#f-effective_at", "2099-01-01")
	tab.Click("Show what it will do")
	tab.WaitFor("From Jan 01, 2099")
	confirm(tab, "Set the price")
	tab.WaitFor("has version 2")
	looks(tab, "/console/rates/feature?key=gpt-4o.output", "console-feature")
	looks(tab, "/console/rates", "console-rates")
	looks(tab, "/console/assets", "console-assets")
	tab.Click("Change the price")
	tab.Fill("#f-price", "0.02")
	tab.Click("Show what it will do")
	tab.Axe()
	confirm(tab, "Set the asset")
	tab.WaitFor("is set")
	if got := w.Get("/v1/assets/credits").Text("price_per_unit"); got != "0.02" {
		t.Errorf("it costs %s", got)
	}
}

// The report comes after the page, or by a link where there are no scripts; a check of the books comes to its end before
// the eyes of whoever asked for it.
func TestBooksInABrowser(t *testing.T) {
	t.Parallel()
	_, tab := office(t)
	tab.Open("/console/books")
	tab.WaitFor("= Closing")
	looks(tab, "/console/books", "console-books")
	tab.Open("/console/books")
	tab.Click("Last twelve months")
	tab.WaitFor("= Closing")
	tab.JavaScript(false)
	tab.Open("/console/books")
	tab.Click("Show the report")
	tab.WaitFor("= Closing")
	tab.Axe()
	tab.JavaScript(true)
	tab.Open("/console/books/verify")
	confirm(tab, "Check them")
	tab.WaitFor("being checked")
	tab.Open("/console/books")
	tab.WaitFor("Digest")
	tab.Screenshot("console-books-checked")
	tab.Axe()
}

// A key is made, shown once, and revoked; whoever would revoke the one that they are signed in with is told.
func TestKeysInABrowser(t *testing.T) {
	t.Parallel()
	w, tab := office(t)
	looks(tab, "/console/keys/new", "console-key-new")
	name := strings.Repeat("A long name ", 16)
	tab.Fill("#f-name", strings.TrimSpace(name))
	tab.Click("#f-scopes-0") // not usage
	tab.Click("Show what it will do")
	tab.WaitFor("Whoever has it may: read everything.")
	confirm(tab, "Make the key")
	tab.WaitFor("the only time")
	key := tab.Text("code.secret")
	tab.Reload() // a form that is sent again leads to what came of it
	if strings.Contains(tab.HTML(), key) {
		t.Error("the key is shown again")
	}
	looks(tab, "/console/keys", "console-keys")
	w.With(t).Get("/v1/assets")
	tab.Open("/console/keys/key_environment/revoke")
	tab.WaitFor("it comes back at the next start")
	tab.WaitFor("you will be signed out")
	tab.Axe()
}
