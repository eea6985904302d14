package pages_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"lockstep/handlers/pages/browsertest"
)

type object = browsertest.JSON

// signIn opens the console's door with the key of everything, and comes to path.
func signIn(w *browsertest.World, tab *browsertest.Tab, path string) {
	tab.Open(path)
	tab.Fill("Your name", "Anna Operator")
	tab.Fill("API key", w.Key)
	tab.Click("Sign in")
}

// views looks at a page as it is met: wide and narrow, by day and by night.
func views(tab *browsertest.Tab, path, name string) {
	for _, view := range []struct {
		name, scheme  string
		width, height int
		axe           bool
	}{{"", "light", 1280, 800, name == "wallet" || name == "customer" || name == "login"}, {"-phone-dark", "dark", 390, 844, true}} {
		tab.ColorScheme(view.scheme)
		tab.Viewport(view.width, view.height, view.width < 500)
		if path != "" {
			tab.Open(path)
		}
		if view.axe {
			tab.Axe()
		}
		if os.Getenv("SCREENSHOTS") != "" {
			tab.Screenshot("console-" + name + view.name)
		}
	}
	tab.ColorScheme("light")
	tab.Viewport(1280, 800, false)
}

// longName is as long as one may be in most systems, and reads from the right.
var longName = strings.Repeat("شركة الاختبار الطويلة ", 9)

// consoleCustomer makes a customer, and answers their wallet.
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
	ruled := consoleCustomer(w, "page-ruled", nil)
	w.Put("/v1/wallets/"+ruled+"/auto_topup", object{"threshold_percent": 20, "target": "50", "spend_cap": object{"amount": 20000, "currency": "usd", "interval": "month"}})
	w.Post("/v1/wallets/"+ruled+"/auto_topup/pause", nil)
	w.Patch("/v1/customers/page-ruled", object{"status": "frozen"})
	for _, page := range []struct {
		path, name, shows string
		once              bool // one look is enough: it is made of what other pages are made of
	}{
		{"/console", "overview", "Paused rules", false}, {"/console/customers", "customers", "demo", false}, {"/console/customers?q=page", "search", "page-ruled", true},
		{"/console/customers?q=nobody-at-all", "search-empty", "No customer's id", true}, {"/console/customers/page-acme", "customer", "Compared with Stripe just now", false},
		{"/console/customers/page-ruled", "frozen", "frozen", true}, {"/console/customers/page-acme/lockstep", "lockstep", "Both ledgers", false},
		{"/console/wallets/" + wallet, "wallet", "Open holds", false}, {"/console/wallets/" + ruled, "ruled", "of $200.00", false},
		{"/console/debits/" + debit, "debit", "burn order", false}, {"/console/grants/" + grant, "grant", "a gift", true}, {"/console/audit", "audit", "What operators did", false},
		{"/console/paused?reason=manual", "paused", "page-ruled", true}, {"/console/paused?reason=spend_cap", "paused-none", "None.", true}, {"/console/drifted", "drifted", "Nobody.", true},
		{"/console/wallets/" + wallet + "/grant", "form", "Last day", false}, {"/console/customers/page-acme/freeze", "preview", "What it will do", false},
	} {
		tab.Open(page.path)
		tab.WaitFor(page.shows)
		if page.once {
			tab.Axe()
			continue
		}
		views(tab, page.path, page.name)
	}
	tab.Allow(404)
	views(tab, "/console/customers/nobody", "missing")
}

// Who may come in, and who stays outside; and where they come to.
func TestConsoleDoor(t *testing.T) {
	t.Parallel()
	w := browsertest.Shared(t)
	tab := w.Tab()
	tab.Open("/console/audit?action=freeze")
	if tab.Path() != "/console/login?next=%2Fconsole%2Faudit%3Faction%3Dfreeze" {
		t.Fatal(tab.Path())
	}
	tab.Allow(403)
	tab.Fill("Your name", "Anna Operator")
	tab.Fill("API key", "lsk_wrong_key")
	tab.Click("Sign in")
	tab.WaitFor("This key is not known, was revoked, or lacks the scope admin.")
	if tab.Value("Your name") != "Anna Operator" || tab.Value("API key") != "" {
		t.Error("what was typed is gone, or the key is in the page")
	}
	tab.Axe()
	tab.Fill("API key", w.Key)
	tab.Press("Enter")
	tab.WaitFor("Audit trail")
	if tab.Path() != "/console/audit?action=freeze" {
		t.Errorf("signed in, they come to %s", tab.Path())
	}
	c := tab.Cookie("lockstep_console")
	if c == nil || !c.HTTPOnly || c.SameSite != "Lax" || c.Path != "/console" {
		t.Errorf("the cookie is %+v", c)
	}
	tab.In("nav.wide").Click("Sign out")
	tab.Open("/console/customers")
	if !strings.HasPrefix(tab.Path(), "/console/login?") {
		t.Errorf("signed out, they are at %s", tab.Path())
	}
	tab.Open("/console/login?next=https://example.com/console")
	tab.Fill("Your name", "Anna Operator")
	tab.Fill("API key", w.Key)
	tab.Click("Sign in")
	if tab.Path() != "/console" {
		t.Errorf("sent to %s by a link of somebody else's", tab.Path())
	}
}

// act fills in an act's preview and confirms it.
func confirmAct(tab *browsertest.Tab, why, verb string) {
	tab.Fill("Why", why)
	tab.In("main").Click(verb)
}

// Each act is shown before, asks why, is done once however often its form is sent, and is in the trail and in the entries.
func TestConsoleActs(t *testing.T) {
	t.Parallel()
	w := browsertest.Shared(t)
	wallet := consoleCustomer(w, "act-acme", nil)
	debit := func() string { return w.Post("/v1/usage", object{"customer": "act-acme", "amount": "4"}).Text("id") }
	available := func() string { return w.Get("/v1/wallets/"+wallet).Text("balance", "available") }
	expect := func(what, want string) {
		t.Helper()
		if got := available(); got != want {
			t.Fatalf("after %s there is %s, not %s", what, got, want)
		}
	}
	tab := w.Tab()
	signIn(w, tab, "/console/wallets/"+wallet)

	// Give credit: by keyboard alone, with a mistake first.
	tab.Click("Give credit")
	tab.Allow(400)
	tab.Fill("Amount", "1.2345678")
	tab.Press("Enter")
	tab.WaitFor("amount has 7 decimals")
	if tab.Value("Amount") != "1.2345678" {
		t.Error("what was typed is gone")
	}
	tab.Axe()
	tab.Allow()
	tab.Fill("Amount", "12.5")
	tab.Select("Kind", "purchased")
	tab.Click("Show what it will do")
	tab.WaitFor("What it will do")
	for _, shown := range []string{"Available, usd", "$0.00", "$12.50", "Credit balance in Stripe"} {
		if !tab.Has(shown) {
			t.Errorf("the preview does not say %q: %s", shown, tab.Text("main"))
		}
	}
	expect("a preview", "0")
	tab.Axe()
	confirmAct(tab, "paid by bank transfer", "Give it")
	tab.WaitFor("$12.50 given.")
	tab.Axe()
	done := tab.Path()
	if !strings.HasPrefix(done, "/console/audit/act_") {
		t.Fatal(done)
	}
	expect("a grant", "12.5")
	tab.Reload()
	expect("a reload", "12.5")
	// Back leads to what was done, and sends nothing.
	tab.Back()
	tab.WaitFor("$12.50 given.")
	if tab.Path() != done {
		t.Errorf("back from what was done is %s", tab.Path())
	}
	expect("going back", "12.5")
	tab.In("dl.facts").Click("grt_")
	tab.WaitFor("console_grant")
	if tab.Has("paid by bank transfer") {
		t.Error("why it was done stands outside of the trail")
	}

	// The rest of the acts, by their addresses.
	act := func(path, fill, value, verb, shown, said string) string {
		t.Helper()
		tab.Open(path)
		if fill != "" {
			tab.Fill(fill, value)
			tab.Click("Show what it will do")
		}
		tab.WaitFor(shown)
		confirmAct(tab, "because of "+verb, verb)
		tab.WaitFor(said)
		if !tab.Has("Anna Operator") || !tab.Has("because of "+verb) || !tab.Has(shown) {
			t.Errorf("the trail does not say who, why and what: %s", tab.Text("main"))
		}
		return tab.Path()
	}
	spent := debit()
	expect("a debit", "8.5")
	act("/console/debits/"+spent+"/reverse", "Amount", "1.5", "Give it back", "$10.00", "$1.50 given back.")
	expect("a reversal in part", "10")
	act("/console/debits/"+spent+"/reverse", "Amount", "", "Give it back", "$12.50", "$2.50 given back.")
	expect("a reversal of the rest", "12.5")
	act("/console/wallets/"+wallet+"/adjust?way=take", "Amount", "0.5", "Adjust", "$12.00", "$0.50 taken away.")
	expect("taking away", "12")
	act("/console/wallets/"+wallet+"/adjust?way=give", "Amount", "3", "Adjust", "$15.00", "$3.00 given.")
	expect("an adjustment", "15")
	gift := w.Post("/v1/grants", object{"customer": "act-acme", "amount": "7"}).Text("id")
	act("/console/grants/"+gift+"/void", "", "", "Void it", "$15.00", "What was left of the grant is void.")
	expect("voiding", "15")
	act("/console/customers/act-acme/freeze", "", "", "Freeze", "frozen", "The customer is frozen.")
	if got := w.Get("/v1/customers/act-acme").Text("status"); got != "frozen" {
		t.Errorf("frozen, the customer is %s", got)
	}
	act("/console/customers/act-acme/unfreeze", "", "", "Unfreeze", "can be spent", "The customer is active again.")

	// A card, a rule, and what they cost.
	w.Until("the customer is in Stripe", func() bool { return w.Get("/v1/customers/act-acme").Text("stripe_customer") != "" })
	tab.Allow(400)
	tab.Open("/console/wallets/" + wallet + "/charge")
	tab.Fill("Amount", "20")
	tab.Click("Show what it will do")
	tab.WaitFor("no default payment method")
	tab.Allow()
	w.PressHosted(w.Post("/v1/customers/act-acme/setup_sessions", object{"success_url": w.URL + "/docs", "cancel_url": w.URL + "/docs"}).Text("url"), "card", "pm_card_visa")
	w.Until("the card is the default", func() bool {
		return w.Stripe("GET", "/v1/customers/"+w.Get("/v1/customers/act-acme").Text("stripe_customer"), "").Text("invoice_settings", "default_payment_method") != ""
	})
	act("/console/wallets/"+wallet+"/charge", "Amount", "20", "Charge the card", "$20.00 is charged for $20.00", "Top-up of $20.00: succeeded.")
	w.Until("it is paid", func() bool { return available() == "35" })
	w.Put("/v1/wallets/"+wallet+"/auto_topup", object{"threshold": "5", "amount": "20"})
	act("/console/wallets/"+wallet+"/pause_rule", "", "", "Pause", "paused: manual", "The rule is paused.")
	w.Post("/v1/usage", object{"customer": "act-acme", "amount": "31"})
	act("/console/wallets/"+wallet+"/resume_rule", "", "", "Resume", "By the wallet's rule, at once: $20.00 is charged", "The rule goes on.")
	w.Until("the rule has acted", func() bool { return available() == "24" })
	w.Until("Stripe has followed", func() bool { return w.Get("/v1/customers/act-acme/lockstep").Text("state") == "in_step" })
	act("/console/customers/act-acme/repair", "", "", "Repair", "there is nothing to repair", "Differences found: 0")

	// All of it is in the trail and in the entries.
	tab.Open("/console/audit?customer=act-acme")
	if n := tab.Count("tbody tr"); n != 12 {
		t.Errorf("the trail has %d acts: %s", n, tab.Text("main"))
	}
	tab.Open("/console/wallets/" + wallet + "?type=reversal")
	if n := tab.In("section[aria-labelledby=entries]").Count("tbody tr"); n != 2 {
		t.Errorf("there are %d reversals", n)
	}
}

// Without a script, and by keyboard alone, everything can be done; the session ends in the middle of a form, and the
// person comes back to it.
func TestConsoleWithoutScripts(t *testing.T) {
	t.Parallel()
	w := browsertest.Shared(t)
	wallet := consoleCustomer(w, "plain-acme", object{"name": "Plain"})
	tab := w.Tab()
	tab.JavaScript(false)
	tab.Viewport(390, 844, true)
	tab.Open("/console/customers?q=plain")
	tab.Press("Tab", "Tab") // the link that skips, then the name
	for !strings.Contains(tab.Focused(), "name") {
		tab.Press("Tab")
	}
	tab.Type("Bo Keyboard")
	tab.Press("Tab")
	tab.Type(w.Key)
	tab.Press("Enter")
	tab.WaitFor("plain-acme")
	press := func(what string) {
		t.Helper()
		for range 60 {
			tab.Press("Tab")
			if strings.Contains(tab.Focused(), what) {
				tab.Press("Enter")
				return
			}
		}
		t.Fatalf("no key leads to %q on %s", what, tab.Path())
	}
	press("a plain-acme")
	tab.WaitFor("In step with Stripe")
	press("a usd")
	tab.WaitFor("Give credit")
	press("Give credit")
	tab.WaitFor("What it pays")
	tab.Fill("Amount", "3")
	tab.Press("Enter")
	tab.WaitFor("What it will do")
	tab.Axe()
	for !strings.Contains(tab.Focused(), "input") {
		tab.Press("Tab")
	}
	tab.Type("a gift")
	tab.Press("Enter")
	tab.WaitFor("$3.00 given.")
	if got := w.Get("/v1/wallets/"+wallet).Text("balance", "available"); got != "3" {
		t.Errorf("there is %s", got)
	}
	tab.Axe()
	tab.Click("Menu")
	tab.In("details").Click("Overview")
	tab.ReloadUntil("Credit outstanding")
	tab.Open("/console/wallets/" + wallet + "/grant")
	tab.Click("Menu")
	tab.In("details").Click("Sign out")
	tab.Open("/console/wallets/" + wallet + "/grant?amount=4")
	tab.Fill("Your name", "Bo Keyboard")
	tab.Fill("API key", w.Key)
	tab.Click("Sign in")
	if tab.Value("Amount") != "4" {
		t.Errorf("back from the door at %s", tab.Path())
	}
}

// A wallet with ten thousand entries, and a list of thousands, are as quick as any, a page at a time.
func TestConsoleWithManyRows(t *testing.T) {
	t.Parallel()
	w := browsertest.Shared(t)
	wallet := consoleCustomer(w, "many-acme", nil)
	w.Post("/v1/grants", object{"customer": "many-acme", "amount": "20000"})
	for batch := range 10 {
		events := make([]object, 1000)
		for i := range events {
			events[i] = object{"customer": "many-acme", "amount": "1", "idempotency_key": fmt.Sprintf("many-%d-%d", batch, i)}
		}
		w.Post("/v1/usage/batch", object{"events": events})
	}
	tab := w.Tab()
	signIn(w, tab, "/console/wallets/"+wallet)
	begun := time.Now()
	tab.Reload()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("a wallet with 10,001 entries took %s", took)
	}
	rows := tab.In("section[aria-labelledby=entries]")
	if n := rows.Count("tbody tr"); n != 50 || !tab.Has("10001") {
		t.Errorf("%d entries are shown", n)
	}
	tab.Click("Next page")
	if n := rows.Count("tbody tr"); n != 50 || !tab.Has("9951") || tab.Has("9952") {
		t.Errorf("the next page: %s", tab.Path())
	}
	tab.Click("First page")
	tab.Select("Type", "grant")
	tab.Click("Show")
	if n := rows.Count("tbody tr"); n != 1 {
		t.Errorf("%d grants", n)
	}
}
