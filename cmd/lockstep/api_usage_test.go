package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// usage books a debit.
func (w *world) usage(customer, amount string, headers ...string) answer {
	w.t.Helper()
	return w.call("POST", "/v1/usage", map[string]any{"customer": customer, "amount": amount}, headers...)
}

// A debit that can't be booked says why, and leaves the balance alone.
func TestUsageRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "10", "")
	w.customer("poor", "", "")
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 0})
	w.must("PUT", "/v1/assets/minutes", map[string]any{"scale": 2})
	w.must("POST", "/v1/customers/poor/wallets", map[string]any{"asset": "tokens"})
	w.must("POST", "/v1/customers", map[string]any{"id": "nothing-to-spend"})
	debit := map[string]any{"customer": "acme", "amount": "1"}
	short := refusal{402, "insufficient_credits", "insufficient_credits", "amount"}
	w.refuses([]refuse{
		{"zero", "POST", "/v1/usage", with(debit, "amount", "0"), bad("parameter_invalid", "amount")},
		{"zero in full", "POST", "/v1/usage", with(debit, "amount", "-0.000000"), bad("parameter_invalid", "amount")},
		{"nobody", "POST", "/v1/usage", with(debit, "customer", "nobody"), refusal{404, "invalid_request_error", "resource_missing", "customer"}},
		{"nobody of Stripe's", "POST", "/v1/usage", with(debit, "customer", "cus_nobody"), refusal{404, "invalid_request_error", "resource_missing", "customer"}},
		{"no such asset", "POST", "/v1/usage", with(debit, "asset", "gold"), bad("asset_unknown", "asset")},
		{"an asset in capitals", "POST", "/v1/usage", with(debit, "asset", "USD"), bad("asset_unknown", "asset")},
		{"no wallet of the asset", "POST", "/v1/usage", with(debit, "asset", "minutes"), refusal{404, "invalid_request_error", "resource_missing", "asset"}},
		{"no wallet of the currency", "POST", "/v1/usage", with(debit, "asset", "eur"), refusal{404, "invalid_request_error", "resource_missing", "asset"}},
		{"which asset", "POST", "/v1/usage", map[string]any{"customer": "poor", "amount": "1"}, bad("parameter_missing", "asset")},
		{"half a token", "POST", "/v1/usage", map[string]any{"customer": "poor", "asset": "tokens", "amount": "0.5"}, bad("parameter_invalid", "amount")},
		{"a step too much", "POST", "/v1/usage", with(debit, "amount", "10.000001"), short},
		{"all there can be", "POST", "/v1/usage", with(debit, "amount", "9223372036854.775807"), short},
		{"nothing there", "POST", "/v1/usage", map[string]any{"customer": "poor", "asset": "usd", "amount": "0.000001"}, short},
		{"a quantity of nothing", "POST", "/v1/usage", with(debit, "quantity", "1"), bad("parameter_missing", "feature")},
		{"an amount and a feature", "POST", "/v1/usage", with(with(debit, "quantity", "1"), "feature", "f"), bad("parameter_invalid", "amount")},
		{"a feature without a quantity", "POST", "/v1/usage", map[string]any{"customer": "acme", "feature": "f"}, bad("parameter_missing", "quantity")},
		{"a feature that there is not", "POST", "/v1/usage", map[string]any{"customer": "acme", "feature": "f", "quantity": "1"}, bad("parameter_invalid", "feature")},
	})
	a := w.usage("acme", "10.5")
	if a.str("error.available") != "10" || a.str("error.required") != "10.5" || a.str("error.auto_topup.state") != "disabled" {
		t.Errorf("the facts of the case: %v", a)
	}
	if w.available("acme") != "10" {
		t.Errorf("available %s", w.available("acme"))
	}
}

// A debit takes from grants in burn order and says which; numbers are exact; the debit can be read again.
func TestUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, stripeID := w.customer("acme", "10", "")
	gift := w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "amount": "0.3"}).str("id")
	a := w.must("POST", "/v1/usage", map[string]any{"customer": stripeID, "asset": "usd", "amount": "0.250", "metadata": map[string]any{"z": "<&>", "a": "ü\u2028"}})
	for path, want := range map[string]string{"object": "debit", "customer": "acme", "wallet": wallet, "amount": "0.25", "reason": "usage", "metadata.z": "<&>", "metadata.a": "ü\u2028",
		"parts.0.grant": gift, "parts.0.amount": "0.25", "balance.available": "10.05", "balance.held": "0", "balance.pending": "0", "balance.total": "10.05"} {
		if got := a.str(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if _, err := time.Parse(time.RFC3339, a.str("created_at")); err != nil || !strings.HasSuffix(a.str("created_at"), "Z") || !strings.HasPrefix(a.str("id"), "deb_") {
		t.Errorf("%v", a)
	}
	if again := w.must("GET", "/v1/debits/"+a.str("id"), nil); string(again.raw) != string(a.raw) {
		t.Errorf("read again it is %v, was %v", again, a)
	}
	split := w.usage("acme", "1")
	if split.str("parts.0.amount") != "0.05" || split.str("parts.1.amount") != "0.95" || split.str("parts.2") != "" || split.str("metadata") != "{}" {
		t.Errorf("over two grants: %v", split)
	}
	for range 90 { // a tenth has no exact float
		w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "0.1"})
	}
	if last := w.usage("acme", "0.05"); last.str("balance.available") != "0" {
		t.Errorf("the last of it: %v", last)
	}
	if s := w.must("GET", "/v1/wallets/"+wallet, nil).str("alert_state"); s != "depleted" {
		t.Errorf("alert_state %s", s)
	}
}

// An overdraft lets a wallet go below zero as far as its limit, and the next grant pays the debt first.
func TestOverdraft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "", "")
	w.must("PUT", "/v1/assets/tokens", map[string]any{"scale": 2})
	w.must("POST", "/v1/customers/acme/wallets", map[string]any{"asset": "tokens", "overdraft_limit": "5"})
	debit := map[string]any{"customer": "acme", "asset": "tokens", "amount": "3"}
	if a := w.must("POST", "/v1/usage", debit); a.str("balance.available") != "-3" || a.at("parts.0.grant") != nil || a.str("parts.0.amount") != "3" {
		t.Errorf("on credit: %v", a)
	}
	w.refused("past the limit", w.call("POST", "/v1/usage", debit), refusal{402, "insufficient_credits", "insufficient_credits", "amount"})
	g := w.must("POST", "/v1/grants", map[string]any{"customer": "acme", "asset": "tokens", "amount": "10"})
	if g.str("remaining") != "7" {
		t.Errorf("after debt was paid: %v", g)
	}
	a := w.must("GET", "/v1/customers/acme/check?asset=tokens&amount=12", nil)
	if a.str("allowed") != "true" || a.str("available") != "7" {
		t.Errorf("check counts the overdraft in: %v", a)
	}
}

// A check answers what a debit would, and books nothing.
func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	_, stripeID := w.customer("acme", "10", "")
	before := w.books()
	for _, id := range []string{"acme", stripeID} {
		for amount, allowed := range map[string]string{"10": "true", "10.000001": "false", "0.000001": "true", "9223372036854.775807": "false"} {
			a := w.must("GET", "/v1/customers/"+id+"/check?amount="+amount, nil)
			reason := map[string]string{"true": "", "false": "insufficient_credits"}[allowed]
			if a.str("object") != "check" || a.str("allowed") != allowed || a.str("available") != "10" || a.str("reason") != reason {
				t.Errorf("%s: %v", amount, a)
			}
		}
	}
	if _, err := w.sim.Operator().DeleteCustomer(stripeID); err != nil {
		t.Fatal(err)
	}
	if w.books() != before {
		t.Error("a check booked something")
	}
	if _, err := w.g.ledger.DB().Exec(`update wallets set status = 'frozen'`); err != nil {
		t.Fatal(err)
	}
	if a := w.must("GET", "/v1/customers/acme/check?amount=1", nil); a.str("allowed") != "false" || a.str("reason") != "wallet_frozen" {
		t.Errorf("frozen: %v", a)
	}
	w.refused("usage of a frozen wallet", w.usage("acme", "1"), refusal{409, "conflict", "wallet_frozen", "customer"})
}

// A batch with a bad envelope books nothing at all.
func TestBatchEnvelope(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "10", "")
	good := map[string]any{"customer": "acme", "amount": "0.001"}
	w.refuses([]refuse{
		{"no events", "POST", "/v1/usage/batch", map[string]any{}, bad("parameter_missing", "events")},
		{"null", "POST", "/v1/usage/batch", map[string]any{"events": nil}, bad("parameter_missing", "events")},
		{"empty", "POST", "/v1/usage/batch", map[string]any{"events": []any{}}, bad("parameter_invalid", "events")},
		{"an object", "POST", "/v1/usage/batch", map[string]any{"events": good}, bad("parameter_invalid", "events")},
		{"1001", "POST", "/v1/usage/batch", map[string]any{"events": slices.Repeat([]any{good}, 1001)}, bad("parameter_invalid", "events")},
		{"an unknown field", "POST", "/v1/usage/batch", map[string]any{"events": []any{good}, "surprise": 1}, bad("parameter_unknown", "surprise")},
		{"a key in the envelope's body", "POST", "/v1/usage/batch", map[string]any{"events": []any{good}, "idempotency_key": "k"}, bad("parameter_unknown", "idempotency_key")},
		{"a list", "POST", "/v1/usage/batch", []any{good}, bad("parameter_invalid", "")},
		{"trailing", "POST", "/v1/usage/batch", `{"events":[{"customer":"acme","amount":"1"}]}{}`, bad("parameter_invalid", "")},
		{"cut off", "POST", "/v1/usage/batch", `{"events":[{"customer":"acme","amount":"1"}`, bad("parameter_invalid", "")},
		{"invalid UTF-8", "POST", "/v1/usage/batch", "{\"events\":[{\"customer\":\"acme\",\"amount\":\"1\"},{\"customer\":\"\xff\"}]}", bad("parameter_invalid", "")},
		{"deep", "POST", "/v1/usage/batch", `{"events":[{"customer":"acme","amount":"1"},` + strings.Repeat("[", 20_000) + `]}`, bad("parameter_invalid", "")},
		{"over a megabyte", "POST", "/v1/usage/batch", map[string]any{"events": []any{good, with(good, "customer", strings.Repeat("x", 1<<20))}}, refusal{413, "invalid_request_error", "parameter_invalid", ""}},
	})
}

// Each event of a batch stands alone, in the order sent: a bad one is refused in its place and spoils no other.
func TestBatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	_, stripeID := w.customer("acme", "10", "")
	w.customer("rich", "1000", "")
	good := map[string]any{"customer": "acme", "amount": "1"}
	type event struct {
		body any
		want string // code and param of its error, or what is left
	}
	events := []event{
		{good, "9"},
		{with(good, "amount", "1e400"), "parameter_invalid amount"},
		{with(good, "amount", 1), "parameter_invalid amount"},
		{with(good, "surprise", 1), "parameter_unknown surprise"},
		{with(good, "Amount", "1"), "parameter_unknown Amount"},
		{with(good, "customer", nul), "parameter_invalid customer"},
		{with(good, "idempotency_key", nul), "parameter_invalid idempotency_key"},
		{with(good, "idempotency_key", ""), "parameter_invalid idempotency_key"},
		{with(good, "customer", "nobody"), "resource_missing customer"},
		{with(good, "asset", "gold"), "asset_unknown asset"},
		{nil, "parameter_missing customer"},
		{1, "parameter_invalid "},
		{[]any{}, "parameter_invalid "},
		{with(good, "amount", "9.000001"), "insufficient_credits amount"},
		{with(good, "customer", stripeID), "8"},
		{with(good, "idempotency_key", "one"), "7"},
		{with(good, "idempotency_key", "one"), "7"}, // its replay, which counts as accepted
		{with(with(good, "idempotency_key", "one"), "amount", "2"), "idempotency_key_reused idempotency_key"},
		{map[string]any{"customer": "rich", "amount": "1000"}, "0"},
		{with(good, "amount", "7"), "0"},
		{with(good, "amount", "0.000001"), "insufficient_credits amount"},
	}
	bodies := make([]any, len(events))
	for i, e := range events {
		bodies[i] = e.body
	}
	a := w.must("POST", "/v1/usage/batch", map[string]any{"events": bodies})
	if a.str("object") != "usage_batch" || a.str("accepted") != "6" || a.str("rejected") != fmt.Sprint(len(events)-6) {
		t.Errorf("%s: accepted %s, rejected %s", a.str("object"), a.str("accepted"), a.str("rejected"))
	}
	ids := map[string]int{}
	for i, e := range events {
		at := fmt.Sprintf("data.%d.", i)
		got := a.str(at + "balance.available")
		if a.at(at+"error") != nil {
			got = a.str(at+"error.code") + " " + a.str(at+"error.param")
			if a.str(at+"error.request_id") != a.header.Get("Request-Id") || a.str(at+"error.type") == "" || a.str(at+"error.message") == "" {
				t.Errorf("event %d: %s", i, a.str(fmt.Sprintf("data.%d", i)))
			}
		} else {
			ids[a.str(at+"id")]++
		}
		if got != e.want {
			t.Errorf("event %d: %s, want %s", i, got, e.want)
		}
	}
	if len(ids) != 5 {
		t.Errorf("%d debits, want 5: %v", len(ids), ids)
	}
	if one := w.usage("acme", "1", "Idempotency-Key", "one"); one.status != 200 || one.header.Get("Idempotent-Replayed") != "true" || one.str("balance.available") != "7" {
		t.Errorf("an event's key outside of its batch: %v", one)
	}
	w.customer("many", "1", "")
	thousand := w.must("POST", "/v1/usage/batch", map[string]any{"events": slices.Repeat([]any{map[string]any{"customer": "many", "amount": "0.001"}}, 1000)})
	if thousand.str("accepted") != "1000" || w.available("many") != "0" {
		t.Errorf("a thousand: accepted %s, left %s", thousand.str("accepted"), w.available("many"))
	}
}

// Two hundred callers on one wallet, through two gateways, spend exactly what is there.
func TestManySpendWhatIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.peer()
	wallet, _ := w.customer("acme", "30", "")
	var mu sync.Mutex
	statuses := map[int]int{}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			a := []*world{w, p}[i%2].usage("acme", "0.25")
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
		})
	}
	wg.Wait()
	if statuses[200] != 120 || statuses[402] != 80 {
		t.Errorf("answers: %v", statuses)
	}
	seq := w.must("GET", "/v1/wallets/"+wallet+"/balance", nil).str("seq")
	if w.available("acme") != "0" || seq != "121" {
		t.Errorf("left %s after %s entries", w.available("acme"), seq)
	}
	w.inStep("acme")
}

// The entries of a wallet have no gap, each follows from the one before, and any past balance can be asked for.
func TestEntriesAndPastBalances(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	wallet, _ := w.customer("acme", "10", "")
	for range 6 {
		if a := w.usage("acme", "1"); a.status != 200 {
			t.Fatal(a)
		}
	}
	var all []answer
	after := ""
	for {
		page := w.must("GET", "/v1/wallets/"+wallet+"/entries?limit=3"+after, nil)
		list := page.list()
		all = append(all, list...)
		if page.str("has_more") != "true" {
			break
		}
		after = "&starting_after=" + list[len(list)-1].str("id")
	}
	if len(all) != 7 {
		t.Fatalf("%d entries", len(all))
	}
	left := 4
	for i, e := range all {
		if e.str("seq") != fmt.Sprint(7-i) || e.str("balance_after") != fmt.Sprint(left+i) {
			t.Errorf("entry %d: %v", i, e.m)
		}
		if i < 6 && (e.str("type") != "debit" || e.str("amount") != "-1" || !strings.HasPrefix(e.str("refers_to"), "deb_") || e.str("parts.0.amount") != "-1") {
			t.Errorf("entry %d: %v", i, e.m)
		}
		at := e.str("created_at")
		b := w.must("GET", "/v1/wallets/"+wallet+"/balance?at="+at, nil)
		if b.str("object") != "balance" || b.str("at") != at || b.str("total") != e.str("balance_after") || b.str("seq") != e.str("seq") {
			t.Errorf("balance at %s: %v", at, b)
		}
	}
	if b := w.must("GET", "/v1/wallets/"+wallet+"/balance?at=2001-01-01T00:00:00%2B02:00", nil); b.str("total") != "0" || b.str("seq") != "0" {
		t.Errorf("before there was anything: %v", b)
	}
	if b := w.must("GET", "/v1/wallets/"+wallet+"/balance?at=2999-01-01T00:00:00Z", nil); b.str("total") != "4" {
		t.Errorf("in the future: %v", b)
	}
}
