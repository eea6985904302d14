package main

import (
	"bytes"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// A link to the portal is made for a customer who is there, with a way back that is one or with none.
func TestPortalSessionRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "", "")
	w.refuses(fields{"POST", "/v1/portal_sessions", map[string]any{"customer": "acme", "return_url": "https://app.example.com"},
		map[string]string{"customer": "text", "return_url": "text"}, []string{"customer"}}.mistakes())
	link := map[string]any{"customer": "acme"}
	w.refuses([]refuse{
		{"nobody", "POST", "/v1/portal_sessions", with(link, "customer", "nobody"), notFound},
		{"a script", "POST", "/v1/portal_sessions", with(link, "return_url", "javascript:alert(1)"), bad("parameter_invalid", "return_url")},
		{"no URL", "POST", "/v1/portal_sessions", with(link, "return_url", "app.example.com"), bad("parameter_invalid", "return_url")},
	})
	a := w.must("POST", "/v1/portal_sessions", link)
	if a.status != 201 || !strings.HasPrefix(a.str("url"), w.base+"/portal/enter/") || a.at("id") != nil {
		t.Errorf("a link: %v", a)
	}
}

// Replicas open each other's links, whether they have a secret of the portal's or only Stripe's key; and the link that one
// has exchanged is used on all.
func TestPortalOverReplicas(t *testing.T) {
	t.Parallel()
	one := newWorld(t, quiet)
	one.customer("acme", "", "")
	two := newWorld(t, quiet, func(o *worldOptions) {
		o.url, o.sim, o.stripeURL, o.clock = one.o.url, one.o.sim, one.o.stripeURL, one.clock
	})
	link := one.must("POST", "/v1/portal_sessions", map[string]any{"customer": "acme"}).str("url")
	open := func(w *world) (*http.Response, string) {
		t.Helper()
		c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		resp, err := c.Get(w.base + strings.TrimPrefix(link, one.base))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body)
		return resp, b.String()
	}
	if resp, body := open(two); resp.StatusCode != http.StatusSeeOther || len(resp.Cookies()) != 1 {
		t.Errorf("the other replica: %s %s", resp.Status, body)
	}
	if resp, _ := open(one); resp.StatusCode != http.StatusForbidden {
		t.Errorf("again at the first: %s", resp.Status)
	}
}

// What signs links is the portal's secret, else made of Stripe's key; never the simulator's key, which everybody knows, and
// never a secret that can be guessed.
func TestPortalKey(t *testing.T) {
	t.Parallel()
	key := func(secret, stripe string, simulated bool) string {
		c := config{PortalSecret: secret, StripeSecretKey: stripe, simulated: simulated}
		return string(c.portalKey())
	}
	own, derived := key("a-secret-of-the-portal", "sk_live_1", false), key("", "sk_live_1", false)
	if own != key("a-secret-of-the-portal", "sk_live_2", true) || derived != key("", "sk_live_1", false) {
		t.Error("two processes with the same settings have different keys")
	}
	if own == derived || derived == key("", "sk_live_2", false) || own == key("another-secret-of-it", "sk_live_1", false) {
		t.Error("different secrets make the same key")
	}
	simulated, none := key("", "sk_test_stripesim", true), key("", "", false)
	if simulated == key("", "sk_test_stripesim", true) || none == key("", "", false) {
		t.Error("the simulator's key, or none, makes a key that can be known")
	}
	c := config{PortalSecret: "fifteen-letters", ListenAddr: "127.0.0.1:0", DataDir: "x", MirrorInterval: 1e9, BackfillInterval: 1e9, LogFormat: "text", DefaultAsset: "usd"}
	if err := c.check(); err == nil || !strings.Contains(err.Error(), "PORTAL_SECRET") || strings.Contains(err.Error(), c.PortalSecret) {
		t.Errorf("a short secret: %v", err)
	}
	if c.PortalSecret += "!"; c.check() != nil {
		t.Errorf("one of sixteen: %v", c.check())
	}
}

// browser is a customer's, signed in to the portal.
type browser struct {
	w *world
	c http.Client
}

func (w *world) browser(customer string) *browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	b := &browser{w, http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	link := w.must("POST", "/v1/portal_sessions", map[string]any{"customer": customer}).str("url")
	if status, at, _ := b.do("GET", strings.TrimPrefix(link, w.base), nil); status != http.StatusSeeOther || at != "/portal" {
		w.t.Fatalf("the link: %d %s", status, at)
	}
	return b
}

// do asks for a page, or sends a form, and answers what comes, and where it leads.
func (b *browser) do(method, path string, form url.Values) (status int, location, body string) {
	b.w.t.Helper()
	req, err := http.NewRequestWithContext(b.w.t.Context(), method, b.w.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.w.t.Fatal(err)
	}
	if method == "POST" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	resp, err := b.c.Do(req)
	if err != nil {
		b.w.t.Error(err)
		return 0, "", ""
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		b.w.t.Error(err)
	}
	return resp.StatusCode, resp.Header.Get("Location"), string(raw)
}

var hiddenInput = regexp.MustCompile(`type="hidden" name="(\w+)" value="([^"]*)"`)

// hidden is what a page's forms send without showing it.
func hidden(page string) url.Values {
	form := url.Values{}
	for _, m := range hiddenInput.FindAllStringSubmatch(page, -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	return form
}

// The form by which credit is bought does it once, however often and however much at once it is sent; with another amount
// it is another form's. A card that is not the customer's own is refused, to buy with and in a rule.
func TestPortalBuysOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wallet, stripe := w.customer("acme", "10", "pm_card_visa")
	_, others := w.customer("other", "10", "pm_card_visa")
	b := w.browser("acme")
	form := url.Values{"amount": {"20"}, "how": {"card"}}
	status, _, page := b.do("POST", "/portal/buy/"+wallet, form)
	form = hidden(page)
	if status != 200 || form.Get("nonce") == "" || form.Get("card") == "" || !strings.Contains(page, "$20.00") {
		t.Fatalf("%d %s", status, page)
	}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			status, at, page := b.do("POST", "/portal/buy/"+wallet, form)
			if status != http.StatusSeeOther || !strings.HasPrefix(at, "/portal/topups/top_") {
				t.Errorf("%d %s %.500s", status, at, page)
			}
		})
	}
	wg.Wait()
	if n := len(w.must("GET", "/v1/topups?customer=acme", nil).list()); n != 1 {
		t.Errorf("%d top-ups", n)
	}
	w.paid("acme", stripe, "30", 1)
	b.do("POST", "/portal/buy/"+wallet, form)
	form.Set("amount", "21")
	if status, _, page := b.do("POST", "/portal/buy/"+wallet, form); status != http.StatusOK || !strings.Contains(page, "$21.00") {
		t.Errorf("another amount by the same form: %d", status)
	}
	form.Set("amount", "20")
	w.paid("acme", stripe, "30", 1)

	theirs, _ := w.sim.Customer(others)
	form.Set("card", theirs.DefaultPaymentMethod)
	length := len(form.Get("nonce"))
	form.Set("nonce", strings.Repeat("A", length))
	if status, _, page := b.do("POST", "/portal/buy/"+wallet, form); status != http.StatusUnprocessableEntity || !strings.Contains(page, "Choose one of your saved cards.") {
		t.Errorf("another's card: %d", status)
	}
	form.Del("card")
	rule := url.Values{"was": {""}, "enabled": {"1"}, "threshold": {"5"}, "fill": {"amount"}, "amount": {"20"}, "card": {theirs.DefaultPaymentMethod}}
	if status, _, page := b.do("POST", "/portal/refill/"+wallet, rule); status != http.StatusUnprocessableEntity || !strings.Contains(page, "Choose one of your saved cards.") {
		t.Errorf("a rule with another's card: %d", status)
	}
	for _, bad := range []string{"", "x", strings.Repeat("a", length)} {
		form.Set("nonce", bad)
		if status, _, _ := b.do("POST", "/portal/buy/"+wallet, form); status != http.StatusBadRequest {
			t.Errorf("a form without its nonce: %d", status)
		}
	}
	w.paid("acme", stripe, "30", 1)
}

// What a customer agrees to is what was shown: after a new price they are asked again, and nothing is bought.
func TestPortalAsksAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "", "pm_card_visa")
	price := func(p string) {
		w.must("PUT", "/v1/assets/credits", map[string]any{"scale": 0, "price_per_unit": p, "currency": "usd"})
	}
	price("0.01")
	wallet := w.must("POST", "/v1/customers/acme/wallets", map[string]any{"asset": "credits"}).str("id")
	b := w.browser("acme")
	_, _, page := b.do("POST", "/portal/buy/"+wallet, url.Values{"amount": {"2000"}, "how": {"card"}})
	form := hidden(page)
	price("0.02")
	status, _, page := b.do("POST", "/portal/buy/"+wallet, form)
	if status != http.StatusOK || !strings.Contains(page, "$40.00") || len(w.must("GET", "/v1/topups?customer=acme", nil).list()) != 0 {
		t.Fatalf("after a new price: %d %s", status, page)
	}
	if status, at, _ := b.do("POST", "/portal/buy/"+wallet, hidden(page)); status != http.StatusSeeOther || !strings.HasPrefix(at, "/portal/topups/") {
		t.Errorf("agreed to the new one: %d %s", status, at)
	}
	if got := w.must("GET", "/v1/topups?customer=acme", nil).str("data.0.charge.amount"); got != "4000" {
		t.Errorf("%s was charged", got)
	}
}

// The merchant's terms are not the customer's to change: credit before its payment is for the rule that the merchant knows,
// and a pause of theirs is theirs to end. A form that was made of a rule before it changed does not undo the change.
func TestPortalLeavesTheMerchantsTerms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "10", "pm_card_visa")
	rule := func(most int) map[string]any {
		return map[string]any{"enabled": true, "threshold": "5", "amount": "20", "settlement": "immediate",
			"spend_cap": map[string]any{"amount": most, "currency": "usd", "interval": "month"}}
	}
	put := func(most int) {
		if a := w.rule(wallet, rule(most)); a.status != 200 {
			t.Fatal(a)
		}
	}
	is := func() answer { return w.must("GET", "/v1/wallets/"+wallet+"/auto_topup", nil) }
	put(10000)
	b := w.browser("acme")
	form := func(amount, most string) url.Values {
		_, _, page := b.do("GET", "/portal/refill/"+wallet, nil)
		f := hidden(page)
		for name, value := range map[string]string{"enabled": "1", "threshold": "5", "fill": "amount", "amount": amount, "cap": most, "interval": "month"} {
			f.Set(name, value)
		}
		return f
	}
	save := func(f url.Values) int {
		status, _, _ := b.do("POST", "/portal/refill/"+wallet, f)
		return status
	}
	if status := save(form("20", "100")); status != http.StatusSeeOther || is().str("settlement") != "immediate" {
		t.Errorf("saved as it was: %d %v", status, is())
	}
	for _, f := range []url.Values{form("30", "100"), form("20", ""), form("20", "100.01")} {
		put(10000)
		if status := save(f); status != http.StatusSeeOther || is().str("settlement") != "on_payment" {
			t.Errorf("%v: %d %v", f, status, is())
		}
	}
	old := form("20", "")
	put(5000)
	if status := save(old); status != http.StatusConflict || is().str("spend_cap.amount") != "5000" {
		t.Errorf("an old form: %d %v", status, is())
	}
	w.must("POST", "/v1/wallets/"+wallet+"/auto_topup/pause", nil)
	b.do("POST", "/portal/refill/"+wallet+"/resume", url.Values{})
	if state, reason := w.state(wallet); state != "paused" || reason != "manual" {
		t.Errorf("%s %s", state, reason)
	}
}
