package pages_test

import (
	"encoding/csv"
	"net/http"
	"strings"
	"testing"

	"lockstep/handlers/pages/browsertest"
)

// shopper is a customer with some credit, as the merchant sets them up.
type shopper struct {
	w      *browsertest.World
	id     string
	wallet string
}

func newShopper(t *testing.T, id, name string) shopper {
	t.Helper()
	w := browsertest.Shared(t)
	w.Post("/v1/customers", browsertest.JSON{"id": id, "name": name})
	w.Until("the customer is in Stripe", func() bool { return w.Get("/v1/customers/"+id).Text("stripe_customer") != "" })
	w.Post("/v1/grants", browsertest.JSON{"customer": id, "amount": "10", "kind": "purchased"})
	return shopper{w, id, w.Get("/v1/customers/"+id).Text("wallets", 0, "id")}
}

func (s shopper) link() string {
	return s.w.Post("/v1/portal_sessions", browsertest.JSON{"customer": s.id, "return_url": s.w.URL + "/docs"}).Text("url")
}

func (s shopper) spend(amount, job string) {
	s.w.Post("/v1/usage", browsertest.JSON{"customer": s.id, "amount": amount, "metadata": browsertest.JSON{"job": job}})
}

// save has them save a card without a browser; the last one is the default.
func (s shopper) save(card string) {
	page := s.w.Post("/v1/customers/"+s.id+"/setup_sessions", browsertest.JSON{"success_url": s.w.URL}).Text("url")
	s.w.PressHosted(page, "card", card)
	customer := s.w.Get("/v1/customers/" + s.id).Text("stripe_customer")
	before := s.w.Stripe("GET", "/v1/customers/"+customer+"/payment_methods", "").Text("data", 0, "id")
	s.w.Until("the card is the default", func() bool {
		return s.w.Stripe("GET", "/v1/customers/"+customer, "").Text("invoice_settings", "default_payment_method") == before
	})
}

func (s shopper) rule() browsertest.JSON { return s.w.Get("/v1/wallets/" + s.wallet + "/auto_topup") }

// A customer comes in by a link, sets up automatic refill, saves a card at Stripe, buys, is declined, finds what happened,
// and goes; the link that was used says so.
func TestPortalInABrowser(t *testing.T) {
	t.Parallel()
	s := newShopper(t, "nora", "Nora")
	tab := s.w.Tab()
	link := s.link()
	tab.Open(link)
	if tab.Path() != "/portal" {
		t.Fatalf("the link leads to %s", tab.Path())
	}
	tab.WaitFor("$10.00")
	tab.Axe()

	s.refill(t, tab)

	// A card, at Stripe and back.
	tab.Click("Cards")
	tab.WaitFor("No card is saved yet.")
	tab.Click("Add a card")
	tab.WaitFor("Save card 4242, which works")
	tab.Click("Save card 4242, which works")
	tab.WaitFor("Your card is saved.")
	tab.ReloadUntil("Default card")
	tab.Axe()

	// Bought with it; twice by one form is once.
	tab.Click("Your credit")
	tab.Click("Buy credit")
	tab.Allow(422)
	tab.Fill("How much credit", "ten")
	tab.Click("Continue")
	tab.WaitFor("It must cost at least $0.50.")
	tab.Allow()
	tab.Axe()
	tab.Fill("How much credit", "20")
	tab.Click("Continue")
	tab.WaitFor("Visa ending in 4242")
	tab.Axe()
	tab.Click("Pay $20.00 now")
	tab.WaitFor("The credit was added.")
	tab.Axe()
	tab.Click("Receipt")
	tab.WaitFor("Paid: ")
	tab.Open("/portal")
	tab.WaitFor("$30.00")

	s.look(t, tab)

	// What was used is used; who signed out is out.
	stranger := s.w.Tab()
	stranger.Allow(403, 401)
	stranger.Open(link)
	stranger.WaitFor("This link has been used already")
	stranger.Axe()
	tab.Open(link)
	if tab.Path() != "/portal" {
		t.Errorf("its own browser comes to %s", tab.Path())
	}
	tab.Click("Sign out")
	tab.WaitFor("You are signed out")
	tab.Axe()
	if tab.Cookie("lockstep_portal") != nil {
		t.Error("the cookie is still there")
	}
	tab.Allow(403, 401)
	tab.Open("/portal")
	tab.WaitFor("You are not signed in here")
}

// refill sets automatic refill up, with a mistake at first.
func (s shopper) refill(t *testing.T, tab *browsertest.Tab) {
	t.Helper()
	tab.Click("Change automatic refill")
	tab.Allow(422)
	tab.Click("Refill automatically")
	tab.Fill("Refill when less than this is left", "5")
	tab.Fill("How much each time", "0.10")
	tab.Fill("Spending limit", "1,000")
	tab.Click("Save")
	if got := tab.Text("#wrong-amount"); !strings.Contains(got, "at least $0.50") || tab.Value("Spending limit") != "1,000" || tab.Value("How much each time") != "0.10" {
		t.Errorf("the mistake: %q, kept %q and %q", got, tab.Value("Spending limit"), tab.Value("How much each time"))
	}
	tab.Axe()
	tab.Allow()
	tab.Fill("How much each time", "20")
	tab.Click("Save")
	tab.WaitFor("Saved.")
	if r := s.rule(); r.Text("enabled") != "true" || r.Text("threshold") != "5" || r.Text("amount") != "20" || r.Text("spend_cap", "amount") != "100000" || r.Text("spend_cap", "interval") != "month" {
		t.Errorf("the rule is %v", r)
	}
	tab.Axe()
}

// look goes through what there is to look at: activity, its filter and its table, what is left, purchases.
func (s shopper) look(t *testing.T, tab *browsertest.Tab) {
	t.Helper()
	s.spend("1.25", "render a film")
	s.spend("0.50", "=cmd()")
	tab.Click("Activity")
	tab.WaitFor("job: render a film")
	tab.Axe()
	tab.Select("Kind", "Spent")
	tab.Fill("Search descriptions", "FILM")
	tab.Click("Show")
	tab.WaitFor("entries were searched.")
	if n := tab.Count("tbody tr"); n != 1 || !tab.Has("-$1.25") || tab.Has("Credit added $") {
		t.Errorf("%d lines are shown", n)
	}
	tab.Axe()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.w.URL+"/portal/activity/"+s.wallet+"/csv?type=debit", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.AddCookie(&http.Cookie{Name: "lockstep_portal", Value: tab.Cookie("lockstep_portal").Value})
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines, err := csv.NewReader(resp.Body).ReadAll()
	if err != nil || len(lines) != 3 || lines[1][2] != "-0.5" || lines[2][2] != "-1.25" {
		t.Errorf("the table: %v %q", err, lines)
	}
	tab.Click("Your credit")
	tab.Click("Remaining credit")
	tab.WaitFor("It is older.")
	tab.Axe()
	tab.Click("Your credit")
	tab.Click("Purchases")
	tab.WaitFor("Single purchase")
	tab.Axe()
}

// A card that is declined stops automatic refill and a purchase, in words; another card that the customer chooses sets
// both right. On Stripe's page any card pays.
func TestPortalDeclined(t *testing.T) {
	t.Parallel()
	s := newShopper(t, "dora", "Dora")
	s.save("pm_card_visa")
	s.save("pm_card_chargeCustomerFail")
	s.w.Put("/v1/wallets/"+s.wallet+"/auto_topup", browsertest.JSON{"threshold": "5", "amount": "20", "grant": browsertest.JSON{"expires_in_days": 90}, "decline_retries": 2})
	s.spend("6", "work")
	s.w.Until("the rule is paused", func() bool { return s.rule().Text("state") == "paused" })
	tab := s.w.Tab()
	tab.Open(s.link())
	tab.WaitFor("The last automatic payment did not go through.")
	tab.Axe()

	// Paying by the same card is declined, and says what to do.
	tab.Click("Pay now")
	tab.Fill("How much credit", "12.50")
	tab.Click("Continue")
	tab.WaitFor("ending in 0341")
	tab.Click("Pay $12.50 now")
	tab.WaitFor("Nothing was charged, and no credit was added.")
	if !tab.Has("Your bank declined the card.") || !tab.Has("Try another card, or ask your bank.") {
		t.Error("it does not say what happened, or what to do")
	}
	tab.Axe()

	s.payOnPage(t, tab)

	// Another card clears the pause, and the rule keeps what the form does not show.
	s.spend("7", "more") // a payment has armed it meanwhile, with the card that fails
	s.w.Until("the rule is paused again", func() bool { return s.rule().Text("state") == "paused" })
	tab.Open("/portal")
	tab.Click("Choose another card")
	tab.Select("Pay with", s.cardOf("4242"))
	tab.Click("Save")
	tab.WaitFor("Saved.")
	s.w.Until("the rule has refilled", func() bool {
		r := s.rule()
		return r.Text("state") == "armed" && s.w.Get("/v1/wallets/"+s.wallet).Text("balance", "available") == "24"
	})
	if r := s.rule(); r.Text("grant", "expires_in_days") != "90" || r.Text("decline_retries") != "2" || r.Text("payment_method") != s.cardOf("4242") {
		t.Errorf("the rule is %v", r)
	}
	tab.Open("/portal")
	if tab.Has("did not go through") {
		t.Error("it still says that the payment failed")
	}
}

// payOnPage pays on Stripe's page; the first time they come back without paying, and call it off.
func (s shopper) payOnPage(t *testing.T, tab *browsertest.Tab) {
	t.Helper()
	tab.Click("Try again")
	tab.Fill("How much credit", "7")
	tab.Click("on Stripe's page, with any card")
	tab.Click("Continue")
	tab.Click("Go on to Stripe")
	tab.WaitFor("Pay with card 4242, which works")
	tab.Click("Pay with card 0002, which is declined")
	tab.WaitFor("Your card was declined.")
	// Who comes back without paying finds the purchase, and calls it off.
	back := s.w.Get("/v1/topups?customer=dora").Text("data", 0, "id")
	tab.Open("/portal/buy/" + s.wallet)
	tab.WaitFor("A purchase is still on its way.")
	tab.Axe()
	tab.Click("Look at it")
	tab.Axe()
	if tab.Path() != "/portal/topups/"+back {
		t.Errorf("it is at %s", tab.Path())
	}
	tab.Click("Cancel this purchase")
	tab.ReloadUntil("Canceled")
	tab.Open("/portal/buy/" + s.wallet)
	tab.Fill("How much credit", "7")
	tab.Click("on Stripe's page, with any card")
	tab.Click("Continue")
	tab.Click("Go on to Stripe")
	tab.Click("Pay with card 4242, which works")
	tab.WaitFor("Thank you.")
	tab.ReloadUntil("$7.00 $7.00 Single purchase Paid")
}

// cardOf is the saved card with these last four digits.
func (s shopper) cardOf(last4 string) string {
	cards := s.w.Stripe("GET", "/v1/customers/"+s.w.Get("/v1/customers/"+s.id).Text("stripe_customer")+"/payment_methods", "")
	for i := range 10 {
		if cards.Text("data", i, "card", "last4") == last4 {
			return cards.Text("data", i, "id")
		}
	}
	return ""
}

// The keyboard is enough, and so is a browser without scripts: from the link to a purchase, in German.
func TestPortalByKeyboard(t *testing.T) {
	t.Parallel()
	s := newShopper(t, "kai", "Kai")
	s.save("pm_card_visa")
	tab := s.w.Tab()
	tab.Language("de-DE")
	tab.JavaScript(false)
	tab.Viewport(390, 844, true)
	tab.Open(s.link())
	to := func(what string) {
		t.Helper()
		for range 30 {
			if tab.Press("Tab"); tab.Focused() == what {
				return
			}
		}
		t.Fatalf("by Tab nobody comes to %q, but to %q", what, tab.Focused())
	}
	if tab.Count(".chart") != 1 || tab.Visible(".chart") {
		t.Error("without a script to draw it, an empty chart is shown")
	}
	to("a Guthaben kaufen")
	tab.Press("Enter")
	to("input Wie viel Guthaben (USD)")
	tab.Type("1.234,50")
	tab.Press("Enter")
	tab.WaitFor("1.234,50 $")
	to("button Jetzt 1.234,50 $ bezahlen")
	tab.Press("Enter")
	tab.WaitFor("Das Guthaben ist gutgeschrieben.")
	to("button Abmelden")
	tab.Press("Enter")
	tab.WaitFor("Sie sind abgemeldet")
	tab.Axe()
	if got := s.w.Get("/v1/wallets/"+s.wallet).Text("balance", "available"); got != "1244.5" {
		t.Errorf("available %s", got)
	}
}

// The states that nobody designs for: a name of 200 letters, one from right to left, many assets, a debt, credit without end.
func TestPortalAwkward(t *testing.T) {
	t.Parallel()
	w := browsertest.Shared(t)
	s := newShopper(t, "long", strings.Repeat("Wolfeschlegelstein", 11)+"\u202eעברית")
	w.Put("/v1/assets/tokens_of_the_longest_name_that_there_is", browsertest.JSON{"scale": 0})
	w.Put("/v1/assets/minutes", browsertest.JSON{"scale": 2, "price_per_unit": "0.01", "currency": "usd"})
	w.Post("/v1/customers/long/wallets", browsertest.JSON{"asset": "tokens_of_the_longest_name_that_there_is", "scope": "usage"})
	minutes := w.Post("/v1/customers/long/wallets", browsertest.JSON{"asset": "minutes", "overdraft_limit": "50"}).Text("id")
	w.Post("/v1/usage", browsertest.JSON{"customer": "long", "asset": "minutes", "amount": "12.34"})
	w.Post("/v1/grants", browsertest.JSON{"customer": "long", "asset": "tokens_of_the_longest_name_that_there_is", "amount": "9223372036854775", "expires_at": "2099-01-01T00:00:00Z"})
	for range 30 {
		w.Post("/v1/grants", browsertest.JSON{"customer": "long", "amount": "0.000001", "reason": strings.Repeat("<script>", 20), "expires_at": "2099-01-01T00:00:00Z"})
	}
	w.Put("/v1/wallets/"+s.wallet+"/auto_topup", browsertest.JSON{"threshold_percent": 20, "target": "50", "mode": "invoice", "invoice": browsertest.JSON{"automatic_tax": true}})
	w.Post("/v1/wallets/"+s.wallet+"/auto_topup/pause", nil)
	tab := w.Tab()
	tab.Open(s.link())
	for _, view := range []struct {
		scheme string
		width  int
	}{{"light", 1280}, {"dark", 390}} {
		tab.ColorScheme(view.scheme)
		tab.Viewport(view.width, 844, view.width < 500)
		for name, path := range map[string]string{"home": "/portal", "refill": "/portal/refill/" + s.wallet, "grants": "/portal/grants/" + s.wallet, "activity": "/portal/activity/" + s.wallet,
			"buy-minutes": "/portal/buy/" + minutes, "purchases": "/portal/purchases/" + minutes} {
			tab.Open(path)
			tab.Axe()
			tab.Screenshot("portal-" + name + "-" + view.scheme)
		}
	}
	tab.Open("/portal")
	tab.WaitFor("You have used more than your credit.")
	tab.WaitFor("Automatic refill is paused. Billing can resume it.")
	if tab.Has("Resume automatic refill") {
		t.Error("the customer may end the merchant's pause")
	}
}

// Whatever paused automatic refill, the page says what to do, and doing it helps: to confirm a payment, to raise the limit,
// to save a card.
func TestPortalPauses(t *testing.T) {
	t.Parallel()
	s := newShopper(t, "paul", "Paul")
	state := func(want string) {
		t.Helper()
		s.w.Until("the rule is "+want, func() bool { return s.rule().Text("state") == want })
	}
	s.w.Put("/v1/wallets/"+s.wallet+"/auto_topup", browsertest.JSON{"threshold": "5", "amount": "20", "spend_cap": browsertest.JSON{"amount": 2000, "currency": "usd", "interval": "day"}})
	s.spend("6", "work")
	state("paused")
	tab := s.w.Tab()
	tab.Open(s.link())
	tab.WaitFor("There is no saved card to refill from.")
	tab.Axe()
	tab.Click("Add a card")
	tab.WaitFor("Save card 3184")
	tab.Click("Save card 3184, whose bank asks for authentication each time")
	tab.WaitFor("Your card is saved.")

	s.w.Until("its bank asks", func() bool { return s.rule().Text("pause", "reason") == "action_required" })
	tab.Open("/portal")
	tab.ReloadUntil("Confirm the payment")
	tab.Axe()
	tab.Click("Confirm the payment")
	tab.WaitFor("Pay with card 4242, which works")
	tab.Click("Pay with card 4242, which works")
	if tab.Path() != "/portal" {
		t.Errorf("Stripe's page leads to %s", tab.Path())
	}
	tab.ReloadUntil("$24.00")

	s.spend("20", "more")
	state("paused")
	tab.Open("/portal")
	tab.WaitFor("Your limit of $20.00 is reached.")
	tab.Axe()
	tab.Click("Raise the limit")
	tab.Allow(422)
	tab.Fill("Spending limit", "19")
	tab.Click("Save")
	tab.WaitFor("that pays for one refill at least")
	tab.Allow()
	tab.Fill("Spending limit", "500")
	tab.Select("Per", "Week")
	tab.Select("Pay with", s.cardOf("4242"))
	tab.Click("Save")
	tab.WaitFor("Saved.")
	state("armed")
	tab.Open("/portal")
	tab.ReloadUntil("$24.00")
	tab.WaitFor("$40.00 of at most $500.00 this week")
}
