package stripesim_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// A key belongs to the request it was first used for.
func TestKeyRefusesAnotherRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.check = false // the misuse below is what Check would report
	cus := w.customer()
	base := "/v1/customers/" + cus
	w.must(w.post(base+"/balance_transactions", "amount=-5&currency=usd", "Idempotency-Key", "k"))
	for name, r := range map[string]reply{
		"another amount": w.post(base+"/balance_transactions", "amount=-6&currency=usd", "Idempotency-Key", "k"),
		"one more":       w.post(base+"/balance_transactions", "amount=-5&currency=usd&description=x", "Idempotency-Key", "k"),
		"another path":   w.post(base, "name=x", "Idempotency-Key", "k"),
	} {
		if r.status != 400 || r.str("error", "type") != "idempotency_error" || r.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	if r := w.post(base, "name=x", "Idempotency-Key", strings.Repeat("k", 256)); r.status != 400 {
		t.Errorf("a key of 256 characters: %d", r.status)
	}
	if n := len(w.BalanceTransactions(cus)); n != 1 {
		t.Errorf("%d transactions", n)
	}
	if err := w.Check(); err == nil || !strings.Contains(err.Error(), `idempotency key "k"`) {
		t.Errorf("Check does not report the reuse: %v", err)
	}
}

// A replay is the first answer to the byte, has no effect and makes no event;
// the order in which parameters are sent does not matter.
func TestKeyReplays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	path := "/v1/customers/" + cus + "/balance_transactions"
	first := w.must(w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k"))
	w.must(w.post(path, "amount=-9&currency=usd"))
	n := len(w.Events())
	again := w.must(w.post(path, "currency=usd&amount=-5", "Idempotency-Key", "k"))
	if again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" ||
		again.header.Get("Original-Request") != first.header.Get("Request-Id") || again.header.Get("Request-Id") == first.header.Get("Request-Id") {
		t.Errorf("replay %v %s", again.header, again.body)
	}
	w.wantTypes(n)
	if got, _ := w.Customer(cus); got.Balance != -14 {
		t.Errorf("balance %d", got.Balance)
	}
	requests := w.Requests()
	if last := requests[len(requests)-1]; !last.Replayed || last.IdempotencyKey != "k" || last.Form.Get("amount") != "-5" || last.Status != 200 {
		t.Errorf("request log: %+v", last)
	}
}

// A decline is an outcome: the same key gives the same decline, even though the
// card would pay by now.
func TestKeyReplaysDecline(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_chargeCustomerFail")
	first := w.charge(cus, pm, "500", "Idempotency-Key", "topup:1:attempt:1")
	again := w.charge(cus, pm, "500", "Idempotency-Key", "topup:1:attempt:1")
	if first.status != 402 || again.status != 402 || again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%d %d %v", first.status, again.status, again.header)
	}
	if n := len(w.Charges(cus)); n != 1 {
		t.Errorf("%d charges", n)
	}
	if r := w.charge(cus, pm, "500", "Idempotency-Key", "topup:1:attempt:2"); r.status != 402 || len(w.Charges(cus)) != 2 {
		t.Errorf("a new key must be a new attempt: %d, %d charges", r.status, len(w.Charges(cus)))
	}
}

// What never began to execute is not saved: the corrected request may use the
// key.
func TestKeyNotSpentByRefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	path := "/v1/customers/" + cus + "/balance_transactions"
	w.Inject(stripesim.Fault{Kind: stripesim.LockTimeout, Path: path, RetryAfter: "1", ShouldRetry: "true"})
	r := w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k")
	w.refused(r, 429, "lock_timeout", "")
	if r.header.Get("Retry-After") != "1" || r.header.Get("Stripe-Should-Retry") != "true" || r.header.Get("Stripe-Rate-Limited-Reason") == "" {
		t.Errorf("headers %v", r.header)
	}
	w.refused(w.post(path, "amount=x&currency=usd", "Idempotency-Key", "k"), 400, "parameter_invalid_integer", "amount")
	w.refused(w.post("/v1/customers/cus_none", "name=x", "Idempotency-Key", "k"), 404, "resource_missing", "id")
	if r := w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k", "Authorization", "Bearer no"); r.status != 401 {
		t.Errorf("wrong API key: %d", r.status)
	}
	if r := w.must(w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k")); r.header.Get("Idempotent-Replayed") != "" {
		t.Error("a refusal was replayed")
	}
}

// While the first request runs, another with its key is turned away.
func TestKeyInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	path := "/v1/customers/" + cus + "/balance_transactions"
	w.Inject(stripesim.Fault{Kind: stripesim.Slow, Delay: 300 * time.Millisecond})
	done := make(chan reply)
	go func() { done <- w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k") }()
	time.Sleep(100 * time.Millisecond)
	w.refused(w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k"), 409, "idempotency_key_in_use", "")
	if r := w.post(path, "amount=-1&currency=usd", "Idempotency-Key", "other"); r.status != 200 {
		t.Errorf("another key must not wait: %d", r.status)
	}
	if r := <-done; r.status != 200 {
		t.Errorf("the first: %d %s", r.status, r.body)
	}
	if got, _ := w.Customer(cus); got.Balance != -6 {
		t.Errorf("balance %d", got.Balance)
	}
}

// Forty senders of one key: one effect, one event, and nothing but the first
// answer or 409.
func TestKeyUnderConcurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	var wg sync.WaitGroup
	var executed, replayed, conflicts atomic.Int32
	for range 40 {
		wg.Go(func() {
			r := w.charge(cus, pm, "500", "Idempotency-Key", "k")
			switch {
			case r.status == 409:
				conflicts.Add(1)
			case r.status == 200 && r.header.Get("Idempotent-Replayed") == "true":
				replayed.Add(1)
			case r.status == 200:
				executed.Add(1)
			default:
				t.Errorf("%d %s", r.status, r.body)
			}
		})
	}
	wg.Wait()
	if executed.Load() != 1 || executed.Load()+replayed.Load()+conflicts.Load() != 40 || len(w.Charges(cus)) != 1 {
		t.Errorf("%d executed, %d replayed, %d conflicts, %d charges", executed.Load(), replayed.Load(), conflicts.Load(), len(w.Charges(cus)))
	}
}

// After 24 hours a key is forgotten, and resending is doing it twice.
func TestKeyExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	path := "/v1/customers/" + cus + "/balance_transactions"
	w.must(w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k"))
	w.Advance(23 * time.Hour)
	if r := w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k"); r.header.Get("Idempotent-Replayed") != "true" {
		t.Error("forgotten after 23 hours")
	}
	w.Advance(time.Hour)
	if r := w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k"); r.header.Get("Idempotent-Replayed") != "" {
		t.Error("still known after 24 hours")
	}
	if n := len(w.BalanceTransactions(cus)); n != 2 {
		t.Errorf("%d transactions", n)
	}
}

// GET and DELETE have no use for keys.
func TestKeyIgnoredOnDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	w.must(w.do("DELETE", "/v1/customers/"+cus, "", "Idempotency-Key", "k"))
	w.refused(w.do("DELETE", "/v1/customers/"+cus, "", "Idempotency-Key", "k"), 404, "resource_missing", "id")
}
