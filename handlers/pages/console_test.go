package pages_test

import (
	"fmt"
	"strings"
	"testing"

	"lockstep/handlers/pages/browsertest"
)

type object = browsertest.JSON

// signIn opens the console's door with the key of everything, and comes to path.
func signIn(w *browsertest.World, tab *browsertest.Tab, path string) {
	tab.Open(path)
	tab.Fill("Your name", "Anna Operator")
	tab.Fill("API key", w.Key)
	tab.Click("button.signin")
}

// views looks at a page as it is met: wide and narrow, by day and by night.
func views(tab *browsertest.Tab, path, name string) {
	for _, view := range []struct {
		name, scheme  string
		width, height int
		axe           bool
	}{{"", "light", 1280, 800, true}, {"-dark", "dark", 1280, 800, false}, {"-phone", "light", 390, 844, false}, {"-phone-dark", "dark", 390, 844, true}} {
		tab.ColorScheme(view.scheme)
		tab.Viewport(view.width, view.height, view.width < 500)
		if path != "" {
			tab.Open(path)
		}
		if view.axe {
			tab.Axe()
		}
		tab.Screenshot("console-" + name + view.name)
	}
	tab.ColorScheme("light")
	tab.Viewport(1280, 800, false)
}

// longName is as long as one may be in most systems, and reads from the right.
var longName = strings.Repeat("شركة الاختبار الطويلة ", 9)

// consoleWorld makes customers in each state, once.
func consoleCustomer(w *browsertest.World, id string, more object) (wallet string) {
	c := object{"id": id, "email": id + "@example.com"}
	for k, v := range more {
		c[k] = v
	}
	return w.Post("/v1/customers", c).Text("wallets", 0, "id")
}

// Each page of the console can be read by everybody, on any screen, with one entry or thousands.
func TestConsolePages(t *testing.T) {
	t.Parallel()
	w := browsertest.Shared(t)
	wallet := consoleCustomer(w, "page-acme", object{"name": longName, "metadata": object{"plan": "gold"}})
	w.Post("/v1/grants", object{"customer": "page-acme", "amount": "100", "kind": "purchased", "reason": "bought elsewhere"})
	grant := w.Post("/v1/grants", object{"customer": "page-acme", "amount": "5.5", "expires_at": "2099-01-01T00:00:00Z", "reason": "a gift"}).Text("id")
	debit := w.Post("/v1/usage", object{"customer": "page-acme", "amount": "7.25"}).Text("id")
	w.Post("/v1/holds", object{"customer": "page-acme", "amount": "2"})
	tab := w.Tab()
	tab.Open("/console")
	views(tab, "/console/login", "login")
	signIn(w, tab, "/console")
	tab.WaitFor("Credit outstanding")
	for _, page := range []struct{ path, name string }{
		{"/console", "overview"}, {"/console/customers", "customers"}, {"/console/customers?q=page", "search"}, {"/console/customers?q=nobody-at-all", "search-empty"},
		{"/console/customers/page-acme", "customer"}, {"/console/customers/page-acme/lockstep", "lockstep"}, {"/console/wallets/" + wallet, "wallet"},
		{"/console/debits/" + debit, "debit"}, {"/console/grants/" + grant, "grant"}, {"/console/audit", "audit"}, {"/console/paused?reason=spend_cap", "paused"},
		{"/console/drifted", "drifted"}, {"/console/wallets/" + wallet + "/grant", "form"}, {"/console/customers/page-acme/freeze", "preview"},
	} {
		views(tab, page.path, page.name)
	}
	tab.Allow(404)
	views(tab, "/console/customers/nobody", "missing")
	_ = fmt.Sprint
}
