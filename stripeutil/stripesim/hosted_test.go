package stripesim_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"lockstep/stripeutil/stripesim"
)

// browse is a simulator whose pages are its own, and a customer's browser that stays on it.
func browse(t *testing.T) (*world, *http.Client) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	w := newWorld(t, func(o *stripesim.Options) { o.PagesURL = "http://" + server.Listener.Addr().String() })
	server.Config.Handler = w.Sim
	server.Start()
	t.Cleanup(server.Close)
	return w, &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// press posts a button of a page, and answers where it led and what it says.
func press(t *testing.T, c *http.Client, page, do, on string) (location, text string) {
	t.Helper()
	resp, err := c.PostForm(page, url.Values{"do": {do}, "on": {on}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Get("Location"), look(t, resp)
}

func look(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func visit(t *testing.T, c *http.Client, page string) string {
	t.Helper()
	resp, err := c.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	return look(t, resp)
}

// A page for saving a card refuses a card, takes another, and sends the customer back, once.
func TestHostedSetup(t *testing.T) {
	t.Parallel()
	w, c := browse(t)
	cus := w.customer()
	page := w.must(w.post("/v1/checkout/sessions", "mode=setup&payment_method_types[0]=card&customer="+cus+
		"&success_url=https://x.example/{CHECKOUT_SESSION_ID}&cancel_url=https://x.example/no")).str("url")
	if !strings.HasPrefix(page, "http://127.0.0.1:") {
		t.Fatalf("the page is at %s", page)
	}
	if s := visit(t, c, page); !strings.Contains(s, `href="https://x.example/no"`) || !strings.Contains(s, "pm_card_chargeCustomerFail") {
		t.Errorf("%s", s)
	}
	if to, s := press(t, c, page, "card", "pm_card_visa_chargeDeclined"); to != "" || !strings.Contains(s, "declined.") {
		t.Errorf("a refused card led to %q: %s", to, s)
	}
	if n := len(w.PaymentMethods(cus)); n != 0 {
		t.Errorf("%d cards are saved after a refusal", n)
	}
	to, _ := press(t, c, page, "card", "pm_card_visa")
	if want := "https://x.example/" + page[strings.LastIndex(page, "/")+1:]; to != want || len(w.PaymentMethods(cus)) != 1 {
		t.Errorf("led to %q, not %q, with %d cards", to, want, len(w.PaymentMethods(cus)))
	}
	if _, s := press(t, c, page, "card", "pm_card_visa"); !strings.Contains(s, "nothing more to do") || len(w.PaymentMethods(cus)) != 1 {
		t.Errorf("a finished page: %s", s)
	}
	if s := visit(t, c, page[:strings.LastIndex(page, "/")]+"/cs_none"); !strings.Contains(s, "404") {
		t.Errorf("%s", s)
	}
}

// A page for paying takes one payment; an expired one takes none.
func TestHostedPayment(t *testing.T) {
	t.Parallel()
	w, c := browse(t)
	form := "mode=payment&customer=" + w.customer() + "&success_url=https://x.example/paid&line_items[0][quantity]=2" +
		"&line_items[0][price_data][currency]=usd&line_items[0][price_data][unit_amount]=1050&line_items[0][price_data][product_data][name]=<Credits>"
	paid, expired := w.must(w.post("/v1/checkout/sessions", form)), w.must(w.post("/v1/checkout/sessions", form))
	if s := visit(t, c, paid.str("url")); !strings.Contains(s, "&lt;Credits&gt;: $21.00") || strings.Contains(s, "0341") {
		t.Errorf("%s", s)
	}
	if to, _ := press(t, c, paid.str("url"), "card", "pm_card_visa"); to != "https://x.example/paid" {
		t.Errorf("led to %q", to)
	}
	if r := w.must(w.get("/v1/checkout/sessions/"+paid.str("id"), "")); r.str("payment_status") != "paid" {
		t.Errorf("%s", r.body)
	}
	w.must(w.post("/v1/checkout/sessions/"+expired.str("id")+"/expire", ""))
	if to, s := press(t, c, expired.str("url"), "card", "pm_card_visa"); to != "" || !strings.Contains(s, "This page has expired.") {
		t.Errorf("an expired page led to %q: %s", to, s)
	}
}

// The billing portal adds, prefers and removes the customer's own cards, and nobody else's.
func TestHostedPortal(t *testing.T) {
	t.Parallel()
	w, c := browse(t)
	cus, other := w.customer(), w.customer()
	theirs, err := w.Operator().AttachCard(other, "pm_card_visa")
	if err != nil {
		t.Fatal(err)
	}
	page := w.must(w.post("/v1/billing_portal/sessions", "customer="+cus+"&return_url=https://x.example/back")).str("url")
	for _, token := range []string{"pm_card_visa", "pm_card_authenticationRequired"} {
		if _, s := press(t, c, page, "card", token); !strings.Contains(s, "(default)") {
			t.Errorf("%s", s)
		}
	}
	cards := w.PaymentMethods(cus)
	press(t, c, page, "default", cards[0].ID)
	if got, _ := w.Customer(cus); got.DefaultPaymentMethod != cards[0].ID {
		t.Errorf("the default is %s", got.DefaultPaymentMethod)
	}
	press(t, c, page, "remove", cards[1].ID)
	press(t, c, page, "remove", theirs)
	if a, b := len(w.PaymentMethods(cus)), len(w.PaymentMethods(other)); a != 1 || b != 1 {
		t.Errorf("%d and %d cards are left", a, b)
	}
	if s := visit(t, c, page); !strings.Contains(s, `href="https://x.example/back"`) {
		t.Errorf("%s", s)
	}
	flow := w.must(w.post("/v1/billing_portal/sessions", "customer="+cus+"&return_url=https://x.example/back&flow_data[type]=payment_method_update")).str("url")
	if to, _ := press(t, c, flow, "card", "pm_card_visa"); to != "https://x.example/back" {
		t.Errorf("the one thing done led to %q", to)
	}
}

// An open invoice's page takes a payment.
func TestHostedInvoice(t *testing.T) {
	t.Parallel()
	w, c := browse(t)
	in, err := w.Operator().FinalInvoice(w.customer(), 2500, "usd")
	if err != nil {
		t.Fatal(err)
	}
	page := w.must(w.get("/v1/invoices/"+in, "")).str("hosted_invoice_url")
	if _, s := press(t, c, page, "card", "pm_card_chargeDeclined"); !strings.Contains(s, "declined.") || !strings.Contains(s, "Status: open") {
		t.Errorf("%s", s)
	}
	if _, s := press(t, c, page, "card", "pm_card_visa"); !strings.Contains(s, "Status: paid") {
		t.Errorf("%s", s)
	}
}
