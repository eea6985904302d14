package main

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"

	"lockstep/stripeutil"
	"lockstep/stripeutil/stripesim"
)

// stranger makes a Stripe customer that Lockstep knows nothing of, with a balance of credit minor units.
func (w *world) stranger(credit int64, currency string) (stripeID string) {
	w.t.Helper()
	c, err := w.g.stripe.CreateCustomer(w.t.Context(), stripeutil.CustomerParams{Name: "a stranger", IdempotencyKey: rand.Text()})
	if err != nil {
		w.t.Fatal(err)
	}
	if credit != 0 {
		if _, err := w.sim.Operator().AdjustBalance(c.ID, -credit, currency, "before Lockstep"); err != nil {
			w.t.Fatal(err)
		}
	}
	return c.ID
}

// A customer that can't be made is refused, and neither the row nor anything in Stripe is left of it.
func TestCustomerRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	_, stripeID := w.customer("acme", "", "")
	deleted := w.stranger(0, "")
	if _, err := w.sim.Operator().DeleteCustomer(deleted); err != nil {
		t.Fatal(err)
	}
	w.quietEvents() // what tells of all this has come
	made := len(w.sim.Customers())
	taken := refusal{409, "conflict", "state_conflict", "id"}
	var cases []refuse
	for what, id := range map[string]string{"a space": "a b", "a slash": "a/b", "a dot alone": ".", "two dots": "..", "not ASCII": "ácme", "129 letters": strings.Repeat("x", 129), "Stripe's": "cus_123", "a line": "a\nb", "markup": "<b>"} {
		cases = append(cases, refuse{"an id with " + what, "POST", "/v1/customers", map[string]any{"id": id}, bad("parameter_invalid", "id")})
	}
	for _, email := range []string{"acme", "a@", "@b", "a b@c.d", "A <a@b.c>", "a@b.c\nx"} {
		cases = append(cases, refuse{"email " + email, "POST", "/v1/customers", map[string]any{"id": "x", "email": email}, bad("parameter_invalid", "email")})
	}
	for _, id := range []string{"cus_nobody", "nobody", "../customers", "cus_x/sources", "cus_x?expand[]=y", "pm_card_visa", "cus_" + strings.Repeat("x", 400), "cus_ü"} {
		cases = append(cases, refuse{"Stripe customer " + id, "POST", "/v1/customers", map[string]any{"id": "x", "stripe_customer": id}, refusal{0, "invalid_request_error", "", "*"}})
	}
	before := w.books()
	for _, c := range append(cases,
		refuse{"taken", "POST", "/v1/customers", map[string]any{"id": "acme"}, taken},
		refuse{"taken, with its own Stripe customer", "POST", "/v1/customers", map[string]any{"id": "acme", "stripe_customer": stripeID}, taken},
		refuse{"another's Stripe customer", "POST", "/v1/customers", map[string]any{"id": "x", "stripe_customer": stripeID}, refusal{409, "conflict", "state_conflict", "stripe_customer"}},
		refuse{"deleted in Stripe", "POST", "/v1/customers", map[string]any{"id": "x", "stripe_customer": deleted}, bad("parameter_invalid", "stripe_customer")},
	) {
		a := w.call(c.method, c.path, c.body)
		if c.want.status == 0 && (a.status == 400 || a.status == 404) {
			c.want.status = a.status
		}
		w.refused(c.what, a, c.want)
	}
	if after := w.books(); after != before {
		t.Errorf("booked: %s, before it %s", after, before)
	}
	if now := len(w.sim.Customers()); now != made {
		t.Errorf("%d customers in Stripe, were %d", now, made)
	}
	w.must("POST", "/v1/customers", map[string]any{"id": "x"}) // a refused id is still free
}

// A customer is made in Stripe too, with a wallet from the start, and is known by either id from then on.
func TestCustomer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.must("POST", "/v1/customers", map[string]any{"id": "acme@example.com", "email": "pay@acme.example", "name": "Ácme <& Co>", "metadata": map[string]any{"plan": "gold"}})
	if a.status != 201 {
		t.Errorf("status %d", a.status)
	}
	stripeID := a.str("stripe_customer")
	for path, want := range map[string]string{"object": "customer", "id": "acme@example.com", "email": "pay@acme.example", "name": "Ácme <& Co>", "currency": "usd", "status": "active", "metadata.plan": "gold",
		"wallets.0.object": "wallet", "wallets.0.customer": "acme@example.com", "wallets.0.asset": "usd", "wallets.0.scope": "all", "wallets.0.status": "active", "wallets.0.overdraft_limit": "0",
		"wallets.0.balance": `{"available":"0","held":"0","pending":"0","total":"0"}`, "wallets.1": ""} {
		if got := a.str(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	c, ok := w.sim.Customer(stripeID)
	if !ok || c.Email != "pay@acme.example" || c.Name != "Ácme <& Co>" || c.Metadata["lockstep_customer"] != "acme@example.com" {
		t.Errorf("in Stripe: %+v", c)
	}

	// Either id everywhere.
	wallet := a.str("wallets.0.id")
	w.must("POST", "/v1/grants", map[string]any{"customer": stripeID, "amount": "10", "kind": "purchased"})
	for _, id := range []string{"acme@example.com", stripeID} {
		if got := w.must("GET", "/v1/customers/"+id, nil); got.str("id") != "acme@example.com" || got.str("wallets.0.balance.available") == "0" {
			t.Errorf("%s: %v", id, got)
		}
		if got := w.must("GET", "/v1/customers/"+id+"/wallets", nil); !strings.Contains(string(got.raw), wallet) {
			t.Errorf("%s: %v", id, got)
		}
		if got := w.usage(id, "0.5"); got.str("customer") != "acme@example.com" || got.str("wallet") != wallet {
			t.Errorf("%s: %v", id, got)
		}
		if got := w.must("POST", "/v1/usage/batch", map[string]any{"events": []any{map[string]any{"customer": id, "amount": "0.5"}}}); got.str("accepted") != "1" {
			t.Errorf("%s: %v", id, got)
		}
		for _, path := range []string{"/v1/grants?customer=" + id, "/v1/topups?customer=" + id, "/v1/customers/" + id + "/check?amount=1", "/v1/customers/" + id + "/lockstep"} {
			w.must("GET", path, nil)
		}
		if got := w.must("POST", "/v1/reconcile", map[string]any{"customer": id}); got.str("customers") != "1" {
			t.Errorf("%s: %v", id, got)
		}
		scope := "invoices"
		if id == stripeID {
			scope = "usage"
		}
		w.must("POST", "/v1/customers/"+id+"/wallets", map[string]any{"asset": "usd", "scope": scope})
	}
	w.inStep(stripeID)
}

// A Stripe customer that has credit or debt already is taken over with it, once.
func TestLinkedCustomerBringsItsBalance(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, c := range map[string]struct {
		credit    int64
		currency  string
		available string
		asset     string
	}{
		"credit": {1250, "usd", "12.5", "usd"},
		"debt":   {-300, "usd", "-3", "usd"},
		"empty":  {0, "", "0", "usd"},
		"euros":  {700, "eur", "7", "eur"},
		"yen":    {700, "jpy", "700", "jpy"},
	} {
		stripeID := w.stranger(c.credit, c.currency)
		a := w.must("POST", "/v1/customers", map[string]any{"id": name, "stripe_customer": stripeID})
		if a.str("stripe_customer") != stripeID {
			t.Errorf("%s: %v", name, a)
		}
		found := false
		for _, wallet := range w.must("GET", "/v1/customers/"+name+"/wallets", nil).list() {
			if wallet.str("asset") == c.asset {
				found = wallet.str("balance.available") == c.available
			}
		}
		if !found {
			t.Errorf("%s: no wallet of %s with %s: %v", name, c.asset, c.available, w.call("GET", "/v1/customers/"+name, nil))
		}
		w.inStep(name)
		before := len(w.sim.BalanceTransactions(stripeID))
		w.must("POST", "/v1/reconcile", map[string]any{"customer": name, "repair": true})
		if after := len(w.sim.BalanceTransactions(stripeID)); after != before || before > 1 {
			t.Errorf("%s: %d transactions, before %d: what was there is not to be written again", name, after, before)
		}
	}
	w.refused("credit in another currency than the balance in Stripe", w.call("POST", "/v1/grants", map[string]any{"customer": "euros", "amount": "1"}), bad("currency_mismatch", "asset"))
	w.refused("a top-up in another", w.call("POST", "/v1/topups", map[string]any{"customer": "euros", "asset": "usd", "amount": "10"}), bad("currency_mismatch", "asset"))
	wallet := w.must("GET", "/v1/customers/euros", nil).str("wallets.0.id")
	w.refused("a rule in another", w.rule(wallet, map[string]any{"threshold": "5", "amount": "20"}), bad("currency_mismatch", "*"))
	w.must("POST", "/v1/grants", map[string]any{"customer": "euros", "asset": "eur", "amount": "1", "kind": "purchased"})
	w.inStep("euros")
}

// A customer whom Stripe could not make is finished by the same call, and made once.
func TestCustomerIsMadeOnceWhateverStripeAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	for i, kind := range []stripesim.FaultKind{stripesim.DropAfter, stripesim.DropBefore, stripesim.Unavailable, stripesim.Error500After} {
		w.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/customers", Kind: kind})
		id := fmt.Sprint("customer-", i)
		body := map[string]any{"id": id, "email": "a@b.example"}
		var a answer
		for range 3 {
			if a = w.call("POST", "/v1/customers", body, "Idempotency-Key", id); a.status != 503 {
				break
			}
			if a.header.Get("Retry-After") == "" {
				t.Errorf("%v without Retry-After", a)
			}
		}
		made := 0
		for _, c := range w.sim.Customers() {
			if c.Metadata["lockstep_customer"] == id {
				made++
			}
		}
		if kind == stripesim.Error500After && a.status == 503 {
			continue // Stripe says so under this key for a day: a worker's or a person's
		}
		if a.status != 201 || made != 1 {
			t.Errorf("fault %d: %v, %d customers in Stripe", kind, a, made)
		}
	}
}

// Wallets: one for each asset and scope of a customer.
func TestWallets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "", "")
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 2})
	path := "/v1/customers/acme/wallets"
	tokens := map[string]any{"asset": "tokens"}
	w.refuses([]refuse{
		{"no such asset", "POST", path, map[string]any{"asset": "gold"}, bad("asset_unknown", "asset")},
		{"no such scope", "POST", path, with(tokens, "scope", "none"), bad("parameter_invalid", "scope")},
		{"an overdraft below zero", "POST", path, with(tokens, "overdraft_limit", "-1"), bad("parameter_invalid", "overdraft_limit")},
		{"an overdraft of half a step", "POST", path, with(tokens, "overdraft_limit", "0.005"), bad("parameter_invalid", "overdraft_limit")},
		{"an overdraft that is a number", "POST", path, with(tokens, "overdraft_limit", 1), bad("parameter_invalid", "overdraft_limit")},
		{"an endless overdraft", "POST", path, with(tokens, "overdraft_limit", "1e400"), bad("parameter_invalid", "overdraft_limit")},
		{"nobody's", "POST", "/v1/customers/nobody/wallets", tokens, notFound},
		{"the one that is there", "POST", path, map[string]any{"asset": "usd"}, refusal{409, "conflict", "state_conflict", "asset"}},
	})
	a := w.must("POST", path, with(tokens, "overdraft_limit", "1.50"), "Idempotency-Key", "w")
	if a.status != 201 || a.str("object") != "wallet" || a.str("asset") != "tokens" || a.str("overdraft_limit") != "1.5" || a.str("scope") != "all" || a.str("customer") != "acme" {
		t.Errorf("%v", a)
	}
	if again := w.call("POST", path, with(tokens, "overdraft_limit", "1.50"), "Idempotency-Key", "w"); again.status != 201 || string(again.raw) != string(a.raw) {
		t.Errorf("under its key: %v", again)
	}
	w.must("POST", path, with(tokens, "scope", "usage"))
	w.must("POST", path, with(tokens, "scope", "invoices"))
	var got []string
	after := ""
	for range 5 {
		page := w.must("GET", path+"?limit=3"+after, nil)
		for _, v := range page.list() {
			got = append(got, v.str("asset")+" "+v.str("scope"))
			after = "&starting_after=" + v.str("id")
		}
		if page.str("has_more") != "true" {
			break
		}
	}
	if want := []string{"tokens invoices", "tokens usage", "tokens all", "usd all"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Assets: a scale is for ever, a price can change, and currencies are there already.
func TestAssets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.must("PUT", "/v1/assets/credits", map[string]any{"scale": 2, "price_per_unit": "0.010", "currency": "USD"})
	priced := map[string]any{"scale": 2, "price_per_unit": "0.01", "currency": "usd"}
	var cases []refuse
	for _, code := range []string{"Credits", "1st", "_a", "a%20b", "a%00", "%C3%A9", strings.Repeat("x", 41), "usd", "jpy"} {
		cases = append(cases, refuse{"code", "PUT", "/v1/assets/" + code, priced, bad("parameter_invalid", "code")})
	}
	for _, price := range []string{"0", "-0.01", "NaN", "1e400", "0.0000000000001", "99999999999", ""} {
		cases = append(cases, refuse{"price " + price, "PUT", "/v1/assets/x", with(priced, "price_per_unit", price), bad("parameter_invalid", "price_per_unit")})
	}
	w.refuses(append(cases,
		refuse{"scale 10", "PUT", "/v1/assets/x", with(priced, "scale", 10), bad("parameter_invalid", "scale")},
		refuse{"scale -1", "PUT", "/v1/assets/x", with(priced, "scale", -1), bad("parameter_invalid", "scale")},
		refuse{"a price that is a number", "PUT", "/v1/assets/x", with(priced, "price_per_unit", 0.01), bad("parameter_invalid", "price_per_unit")},
		refuse{"a price in no currency", "PUT", "/v1/assets/x", map[string]any{"scale": 2, "price_per_unit": "1"}, bad("parameter_missing", "currency")},
		refuse{"a currency without a price", "PUT", "/v1/assets/x", map[string]any{"scale": 2, "currency": "usd"}, bad("parameter_missing", "price_per_unit")},
		refuse{"a currency that is none", "PUT", "/v1/assets/x", with(priced, "currency", "gold"), bad("parameter_invalid", "currency")},
		refuse{"another scale", "PUT", "/v1/assets/credits", with(priced, "scale", 3), refusal{409, "conflict", "state_conflict", "scale"}},
	))
	if a := w.must("GET", "/v1/assets/credits", nil); a.str("object") != "asset" || a.str("code") != "credits" || a.str("scale") != "2" || a.str("price_per_unit") != "0.01" || a.str("currency") != "usd" {
		t.Errorf("%v", a)
	}
	if a := w.must("GET", "/v1/assets/eur", nil); a.str("scale") != "6" || a.str("price_per_unit") != "1" || a.str("currency") != "eur" {
		t.Errorf("a currency: %v", a)
	}

	// What Stripe shows follows the price.
	w.customer("acme", "", "")
	w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "asset": "credits", "amount": "1000", "kind": "purchased"})
	w.inStep("acme")
	w.must("PUT", "/v1/assets/credits", with(priced, "price_per_unit", "0.02"))
	if a := w.must("POST", "/v1/reconcile", map[string]any{"customer": "acme", "repair": true}); a.str("in_step") != "1" && // the mirror was first
		(a.str("findings.0.state") != "flushing" || a.str("repaired") != "1") {
		t.Errorf("a new price: %v", a)
	}
	if a := w.must("GET", "/v1/customers/acme/lockstep", nil); a.str("ledger") != "2000" || a.str("stripe") != "2000" || a.str("state") != "in_step" {
		t.Errorf("a new price: %v", a)
	}

	w.must("PUT", "/v1/assets/minutes", map[string]any{"scale": 0})
	first := w.must("GET", "/v1/assets?limit=1", nil)
	second := w.must("GET", "/v1/assets?starting_after=minutes", nil)
	if first.str("data.0.code") != "minutes" || first.str("has_more") != "true" || second.str("data.0.code") != "credits" || second.str("has_more") != "false" {
		t.Errorf("list: %v, %v", first, second)
	}
}

// Customers are listed newest first, by page.
func TestCustomerList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	var want []string
	for i := range 21 {
		id := fmt.Sprintf("customer-%02d", (i*8)%21) // in no order of their names
		w.must("POST", "/v1/customers", map[string]any{"id": id})
		want = append([]string{id}, want...)
	}
	if a := w.must("GET", "/v1/customers", nil); len(a.list()) != 20 || a.str("has_more") != "true" {
		t.Errorf("a page is 20: %d", len(a.list()))
	}
	var got []string
	after := ""
	for range 10 {
		page := w.must("GET", "/v1/customers?limit=5"+after, nil)
		for _, c := range page.list() {
			got = append(got, c.str("id"))
			after = "&starting_after=" + c.str("stripe_customer")
			if c.str("wallets.0.asset") != "usd" {
				t.Errorf("%v", c.m)
			}
		}
		if page.str("has_more") != "true" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
