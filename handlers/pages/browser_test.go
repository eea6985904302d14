package pages_test

import (
	"testing"

	"lockstep/handlers/pages/browsertest"
)

func TestMain(m *testing.M) { browsertest.Main(m) }

// The description of the API can be read by everybody: on a wide screen and on a phone, by day and by night.
func TestDocsInABrowser(t *testing.T) {
	t.Parallel()
	w := browsertest.Shared(t)
	tab := w.Tab()
	for _, view := range []struct {
		name, scheme  string
		width, height int
		axe           bool // each scheme and each width once: the page is long
	}{
		{"docs", "light", 1280, 800, true}, {"docs-phone", "light", 390, 844, false}, {"docs-dark-phone", "dark", 390, 844, true}, {"docs-dark", "dark", 1280, 800, false},
	} {
		tab.ColorScheme(view.scheme)
		tab.Viewport(view.width, view.height, view.width < 500)
		tab.Open("/docs")
		if view.axe {
			tab.Axe()
		}
		tab.Screenshot(view.name)
	}
}

// Whoever tries dev can go through the pages that Stripe would host, and comes back.
func TestHostedPagesInABrowser(t *testing.T) {
	t.Parallel()
	w := browsertest.Shared(t)
	w.Post("/v1/customers", browsertest.JSON{"id": "visitor", "name": "Visitor"})
	session := func() string {
		return w.Post("/v1/customers/visitor/setup_sessions", browsertest.JSON{"success_url": w.URL + "/docs#saved", "cancel_url": w.URL + "/docs#cancelled"}).Text("url")
	}
	w.Until("the customer is in Stripe", func() bool { return w.Get("/v1/customers/visitor").Text("stripe_customer") != "" })
	tab := w.Tab()
	tab.Viewport(390, 844, true)
	tab.Open(session())
	tab.Axe()
	tab.Click("Cancel")
	if tab.Path() != "/docs#cancelled" {
		t.Errorf("cancelled, it leads to %s", tab.Path())
	}
	tab.Open(session())
	tab.Click("Save card 0002, which is declined")
	tab.WaitFor("Your card was declined.")
	tab.Click("Save card 4242, which works")
	if tab.Path() != "/docs#saved" {
		t.Errorf("saved, it leads to %s", tab.Path())
	}
	tab.Open(w.Post("/v1/customers/visitor/billing_portal_sessions", browsertest.JSON{"return_url": w.URL + "/docs"}).Text("url"))
	tab.WaitFor("visa 4242")
	tab.Axe()
	tab.Click("Return")
	if tab.Path() != "/docs" {
		t.Errorf("the portal leads to %s", tab.Path())
	}
}
