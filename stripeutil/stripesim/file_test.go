package stripesim_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"lockstep/stripeutil/stripesim"
)

// A simulator that starts from the file of another goes on where that one was:
// objects, keys, clock, undelivered events and payments still processing.
func TestFileKeepsEverything(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "stripe.json")
	w := newWorld(t, withFile(name), retries(time.Hour))
	b := w.listen()
	b.setRefuse(true)
	w.Advance(48 * time.Hour)
	cus, pm := w.withCard("pm_usBankAccount_success")
	path := "/v1/customers/" + cus + "/balance_transactions"
	first := w.must(w.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k"))
	w.must(w.post(path+"/"+first.str("id"), "description=told+later"))
	w.must(w.charge(cus, pm, "500"))
	declining := w.attach(cus, "pm_card_stripesim_insufficientFunds")
	if r := w.charge(cus, declining, "500"); r.status != 402 {
		t.Fatalf("%d", r.status)
	}
	w.settle()
	events := w.Events()

	// The first one is not closed: this is what a kill -9 leaves behind.
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "stripe.json")
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Fatal(err)
	}
	b.setRefuse(false)
	next := newWorld(t, withFile(copied), retries(time.Hour))
	if d := next.Now().Sub(w.Now()); d < -time.Minute || d > time.Minute {
		t.Errorf("the clock jumped by %v", d)
	}
	if got, _ := next.Customer(cus); got.Balance != -5 {
		t.Errorf("balance %d", got.Balance)
	}
	again := next.must(next.post(path, "amount=-5&currency=usd", "Idempotency-Key", "k"))
	if again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("the key is forgotten: %s", again.body)
	}
	if got := next.BalanceTransactions(cus); len(got) != 1 || got[0].Description != "told later" {
		t.Errorf("transactions %+v", got)
	}
	if got := next.Events(); len(got) != len(events) || string(got[2].Object) != string(events[2].Object) {
		t.Errorf("%d events, want %d", len(got), len(events))
	}
	if r := next.charge(cus, declining, "500"); r.status != 402 {
		t.Errorf("the card's behaviour is forgotten: %d", r.status)
	}
	next.Advance(time.Hour)
	next.settle()
	if n := len(b.events()); n < len(events) {
		t.Errorf("%d of %d events delivered after the restart", n, len(events))
	}
	if got := next.PaymentIntents(cus)[0]; got.Status != "succeeded" {
		t.Errorf("the debit is %s", got.Status)
	}
}

// Nobody is left to release what was held: it is due after the restart.
func TestFileReleasesHeld(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "stripe.json")
	w := newWorld(t, withFile(name))
	b := w.listen()
	w.InjectDelivery(stripesim.DeliveryFault{Kind: stripesim.Hold})
	w.customer()
	w.settle()
	w.Close()
	if n := len(b.events()); n != 0 {
		t.Fatalf("%d events though held", n)
	}
	next := newWorld(t, withFile(name))
	next.settle()
	if n := len(b.events()); n != 1 {
		t.Errorf("%d events", n)
	}
}

// What was answered is in the file: the file is written before the answer.
func TestFileWrittenBeforeAnswer(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "stripe.json")
	w := newWorld(t, withFile(name))
	cus := w.customer()
	for i := range 5 {
		w.must(w.post("/v1/customers/"+cus+"/balance_transactions", "amount=-1&currency=usd"))
		sim, err := stripesim.New(stripesim.Options{File: name})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := sim.Customer(cus); got.Balance != -int64(i+1) {
			t.Errorf("the file says %d after %d debits", got.Balance, i+1)
		}
		// Not closed before the next write: closing writes the file.
		t.Cleanup(func() { os.Remove(name); sim.Close() })
	}
}

func TestFileUnusable(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "stripe.json")
	if err := os.WriteFile(name, []byte(`{"Customers":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := stripesim.New(stripesim.Options{File: name}); err == nil {
		t.Error("a broken file was accepted")
	}
	w := newWorld(t, withFile(filepath.Join(t.TempDir(), "no", "such", "dir", "stripe.json")))
	w.check = false
	if r := w.post("/v1/customers", ""); r.status != 500 {
		t.Errorf("a change that could not be kept was answered with %d", r.status)
	}
}
