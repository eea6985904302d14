package stripesim_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stripe/stripe-go/v76"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// A balance has one currency, the first one it was given.
func TestBalanceKeepsItsCurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	path := "/v1/customers/" + cus
	if r := w.get(path, ""); r.json["currency"] != nil || r.num("balance") != 0 {
		t.Errorf("new customer: %s", r.body)
	}
	w.must(w.post(path+"/balance_transactions", "amount=-1000&currency=EUR"))
	w.refused(w.post(path+"/balance_transactions", "amount=5&currency=usd"), 400, "", "currency")
	if r := w.get(path, ""); r.str("currency") != "eur" || r.num("balance") != -1000 {
		t.Errorf("after one transaction: %s", r.body)
	}
}

// A transaction moves the balance, records where it ended, and shows up as
// customer.updated with what was there before, nothing more.
func TestBalanceTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, err := w.api.Customers.New(&stripe.CustomerParams{Email: stripe.String("a@example.com")})
	if err != nil {
		t.Fatal(err)
	}
	params := &stripe.CustomerBalanceTransactionParams{Customer: stripe.String(cus.ID), Amount: stripe.Int64(-1000),
		Currency: stripe.String("usd"), Description: stripe.String("grant")}
	params.AddMetadata("outbox_id", "7")
	params.SetIdempotencyKey("outbox-7")
	grant, err := w.api.CustomerBalanceTransactions.New(params)
	if err != nil {
		t.Fatal(err)
	}
	if grant.EndingBalance != -1000 || grant.Type != "adjustment" || grant.Metadata["outbox_id"] != "7" {
		t.Errorf("grant %+v", grant)
	}
	debit, err := w.api.CustomerBalanceTransactions.New(&stripe.CustomerBalanceTransactionParams{Customer: stripe.String(cus.ID),
		Amount: stripe.Int64(250), Currency: stripe.String("usd")})
	if err != nil || debit.EndingBalance != -750 {
		t.Errorf("debit %+v %v", debit, err)
	}
	events := w.Events()
	if len(events) != 3 {
		t.Fatalf("%d events", len(events))
	}
	for i, want := range []string{`{"balance":0,"currency":null}`, `{"balance":-1000}`} {
		if e := events[i+1]; e.Type != "customer.updated" || string(e.PreviousAttributes) != want {
			t.Errorf("event %d: %s %s, want %s", i, e.Type, e.PreviousAttributes, want)
		}
	}
	if e := events[1]; e.IdempotencyKey != "outbox-7" || e.RequestID != grant.LastResponse.RequestID {
		t.Errorf("event's request: %+v", e)
	}
	var listed []string
	list := w.api.CustomerBalanceTransactions.List(&stripe.CustomerBalanceTransactionListParams{Customer: stripe.String(cus.ID)})
	for list.Next() {
		listed = append(listed, list.CustomerBalanceTransaction().ID)
	}
	if fmt.Sprint(listed) != fmt.Sprint([]string{debit.ID, grant.ID}) {
		t.Errorf("listed %v", listed)
	}
}

// Only the words of a transaction can change.
func TestBalanceTransactionImmutable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, other := w.customer(), w.customer()
	base := "/v1/customers/" + cus + "/balance_transactions"
	txn := w.must(w.post(base, "amount=-5&currency=usd&metadata[a]=1&metadata[b]=2")).str("id")
	w.refused(w.post(base+"/"+txn, "amount=7"), 400, "parameter_unknown", "amount")
	w.refused(w.get("/v1/customers/"+other+"/balance_transactions/"+txn, ""), 404, "resource_missing", "transaction")
	n := len(w.Events())
	r := w.must(w.post(base+"/"+txn, "description=why&metadata[a]=&metadata[c]=3"))
	if r.str("description") != "why" || fmt.Sprint(r.json["metadata"]) != "map[b:2 c:3]" || r.num("amount") != -5 {
		t.Errorf("updated: %s", r.body)
	}
	w.wantTypes(n)
	if r := w.must(w.get(base+"/"+txn, "")); r.str("description") != "why" {
		t.Errorf("read back: %s", r.body)
	}
}

// Writing customer.balance books the difference, so that the ledger explains
// every balance.
func TestBalanceOverwrittenBooksTheDifference(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	w.must(w.post("/v1/customers/"+cus+"/balance_transactions", "amount=-300&currency=eur"))
	n := len(w.Events())
	w.must(w.post("/v1/customers/"+cus, "balance=-100&name=Bob"))
	txns := w.BalanceTransactions(cus)
	if len(txns) != 2 || txns[1].Amount != 200 || txns[1].Type != "adjustment" || txns[1].Currency != "eur" {
		t.Errorf("transactions %+v", txns)
	}
	w.wantTypes(n, "customer.updated")
	if got := string(w.Events()[n].PreviousAttributes); got != `{"balance":-300,"name":"Ada"}` {
		t.Errorf("previous %s", got)
	}
}

// Fifty writers at once: nothing is lost, and ending_balance is a chain.
func TestBalanceUnderConcurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	var wg sync.WaitGroup
	want := int64(0)
	for i := range int64(50) {
		want += 7 - i
		wg.Go(func() {
			if r := w.post("/v1/customers/"+cus+"/balance_transactions", "currency=usd&amount="+itoa(7-i)); r.status != 200 {
				t.Errorf("%d %s", r.status, r.body)
			}
		})
	}
	wg.Wait()
	got, _ := w.Customer(cus)
	if got.Balance != want || len(w.BalanceTransactions(cus)) != 50 {
		t.Errorf("balance %d, want %d; %d transactions", got.Balance, want, len(w.BalanceTransactions(cus)))
	}
}

func TestCustomerLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	path := "/v1/customers/" + cus
	w.refused(w.post(path, "invoice_settings[default_payment_method]=pm_none"), 400, "resource_missing", "invoice_settings[default_payment_method]")
	n := len(w.Events())
	w.must(w.post(path, "name=Ada")) // changes nothing, says nothing
	w.wantTypes(n)
	w.must(w.post(path, "email=ada@example.com&metadata[tier]=gold&invoice_settings[default_payment_method]="+pm))
	if got := string(w.Events()[n].PreviousAttributes); got != `{"email":null,"invoice_settings":{"default_payment_method":null},"metadata":{"tier":null}}` {
		t.Errorf("previous %s", got)
	}
	if r := w.get("/v1/customers", "email=ada@example.com"); len(r.json["data"].([]any)) != 1 {
		t.Errorf("by email: %s", r.body)
	}
	if r := w.get("/v1/customers", "email=bob@example.com"); len(r.json["data"].([]any)) != 0 {
		t.Errorf("by another email: %s", r.body)
	}
	r := w.must(w.do("DELETE", path, ""))
	if r.json["deleted"] != true {
		t.Errorf("deleted: %s", r.body)
	}
	if r := w.must(w.get(path, "")); r.json["deleted"] != true || len(r.json) != 3 {
		t.Errorf("read after deletion: %s", r.body)
	}
	w.refused(w.post(path, "name=x"), 404, "resource_missing", "id")
	w.refused(w.post(path+"/balance_transactions", "amount=1&currency=usd"), 404, "resource_missing", "customer")
	w.refused(w.do("DELETE", path, ""), 404, "resource_missing", "id")
	w.refused(w.charge(cus, pm, "500"), 400, "resource_missing", "customer")
	if r := w.get("/v1/customers", ""); len(r.json["data"].([]any)) != 0 {
		t.Errorf("listed after deletion: %s", r.body)
	}
	last := w.Events()[len(w.Events())-1]
	if last.Type != "customer.deleted" || last.ObjectID != cus {
		t.Errorf("last event %+v", last)
	}
}

// One call can create a customer, attach a card and make it the default.
func TestCustomerCreatedWithCard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if r := w.post("/v1/customers", "payment_method=pm_card_visa_chargeDeclined"); r.status != 402 {
		t.Errorf("a refused card: %d", r.status)
	}
	if len(w.Customers()) != 0 {
		t.Error("a customer was made with a card that is refused")
	}
	r := w.must(w.post("/v1/customers", "payment_method=pm_card_visa&invoice_settings[default_payment_method]=pm_card_visa&balance=-500"))
	methods := w.PaymentMethods(r.str("id"))
	if len(methods) != 1 || r.str("invoice_settings", "default_payment_method") != methods[0].ID || r.num("balance") != -500 {
		t.Errorf("%s %+v", r.body, methods)
	}
	w.wantTypes(0, "customer.created", "payment_method.attached")
}
