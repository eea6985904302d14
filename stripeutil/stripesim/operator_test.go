package stripesim_test

import (
	"strings"
	"testing"
)

// What a person does at the dashboard arrives as events that no request made.
func TestOperator(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.Operator()
	cus, pm := w.withCard("pm_card_visa")
	pi := w.must(w.charge(cus, pm, "2000"))
	for name, err := range map[string]error{
		"AdjustBalance":           second(o.AdjustBalance("cus_none", 1, "usd", "")),
		"SetDefaultPaymentMethod": second(o.SetDefaultPaymentMethod("cus_none", pm)),
		"AttachCard":              second(o.AttachCard(cus, "pm_none")),
		"AttachCard refused":      second(o.AttachCard(cus, "pm_card_visa_chargeDeclined")),
		"DetachPaymentMethod":     second(o.DetachPaymentMethod("pm_none")),
		"DeleteCustomer":          second(o.DeleteCustomer("cus_none")),
		"Refund":                  second(o.Refund("pi_none", 5)),
		"Refund too much":         second(o.Refund(pi.str("id"), 2001)),
		"FailRefund":              second(o.FailRefund("re_none")),
		"CloseDispute":            second(o.CloseDispute("dp_none", true)),
		"CancelPaymentIntent":     second(o.CancelPaymentIntent("pi_none")),
		"ConfirmPaymentIntent":    second(o.ConfirmPaymentIntent(pi.str("id"), pm)),
		"ConfirmSetupIntent":      second(o.ConfirmSetupIntent("seti_none", pm)),
		"FinishProcessing":        second(o.FinishProcessing(pi.str("id"), true)),
		"VoidInvoice":             second(o.VoidInvoice("in_none")),
		"CompleteCheckout":        second(o.CompleteCheckout("cs_none", pm)),
	} {
		if err == nil {
			t.Errorf("%s did what cannot be done", name)
		}
	}
	n := len(w.Events())
	if _, err := o.AdjustBalance(cus, -700, "usd", "sorry"); err != nil {
		t.Error(err)
	}
	if _, err := o.Refund(pi.str("id"), 500); err != nil {
		t.Error(err)
	}
	if _, err := o.Refund(pi.str("latest_charge"), 0); err != nil {
		t.Error(err)
	}
	other, err := o.AttachCard(cus, "pm_card_mastercard")
	if err != nil {
		t.Error(err)
	}
	if _, err := o.SetDefaultPaymentMethod(cus, other); err != nil {
		t.Error(err)
	}
	if _, err := o.DetachPaymentMethod(other); err != nil {
		t.Error(err)
	}
	if _, err := o.DeleteCustomer(cus); err != nil {
		t.Error(err)
	}
	w.wantTypes(n, "customer.updated", "refund.created", "charge.refunded", "refund.created", "charge.refunded", "payment_method.attached",
		"customer.updated", "payment_method.detached", "customer.updated", "customer.deleted")
	for _, e := range w.Events()[n:] {
		if e.RequestID != "" || e.IdempotencyKey != "" {
			t.Errorf("%s carries a request", e.Type)
		}
	}
	if got := w.Charges(cus)[0]; got.AmountRefunded != 2000 || !got.Refunded {
		t.Errorf("%+v", got)
	}
	if txns := w.BalanceTransactions(cus); len(txns) != 1 || txns[0].Description != "sorry" {
		t.Errorf("%+v", txns)
	}
}

func second(_ string, err error) error { return err }

// The calls that no story above makes have the right shape too; the referee
// looks at each answer.
func TestRemainingCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.must(w.post("/v1/customers", "address[city]=London&address[line1]=1+Main&preferred_locales[]=en&tax_exempt=exempt&phone=1")).str("id")
	pm := w.attach(cus, "pm_card_visa")
	w.must(w.post("/v1/payment_methods/"+pm, "billing_details[email]=a@example.com&billing_details[name]=Ada"))
	pi := w.must(w.charge(cus, pm, "2000"))
	ch := pi.str("latest_charge")
	if r := w.must(w.post("/v1/charges/"+ch, "metadata[a]=b&description=x")); r.str("description") != "x" {
		t.Errorf("%s", r.body)
	}
	re := w.must(w.post("/v1/refunds", "amount=5&charge="+ch)).str("id")
	if r := w.must(w.post("/v1/refunds/"+re, "metadata[a]=b")); r.str("metadata", "a") != "b" {
		t.Errorf("%s", r.body)
	}
	si := w.must(w.post("/v1/setup_intents", "payment_method_types[]=card&customer="+cus)).str("id")
	w.must(w.post("/v1/setup_intents/"+si, "description=x&metadata[a]=b"))
	if r := w.must(w.get("/v1/setup_intents/"+si, "")); r.str("description") != "x" {
		t.Errorf("%s", r.body)
	}
	if r := w.must(w.get("/v1/setup_intents", "customer="+cus)); len(r.json["data"].([]any)) != 1 {
		t.Errorf("%s", r.body)
	}
	w.setDefault(cus, pm)
	in := w.invoice(cus, "1000")
	w.must(w.post("/v1/invoices/"+in+"/pay", ""))
	cn := w.must(w.post("/v1/credit_notes", "credit_amount=100&invoice="+in)).str("id")
	w.must(w.get("/v1/credit_notes/"+cn, ""))
	w.refused(w.get("/v1/credit_notes/cn_none", ""), 404, "resource_missing", "id")
	d, err := w.Operator().OpenDispute(ch, "general")
	if err != nil {
		t.Fatal(err)
	}
	if r := w.must(w.post("/v1/disputes/"+d+"/close", "")); r.str("status") != "lost" {
		t.Errorf("%s", r.body)
	}
	guest := w.must(w.post("/v1/checkout/sessions", "mode=payment&customer_creation=always&customer_email=g@example.com&success_url=https://x.example"+
		"&line_items[0][quantity]=1&line_items[0][price_data][currency]=usd&line_items[0][price_data][product_data][name]=C&line_items[0][price_data][unit_amount]=700")).str("id")
	if _, err := w.Operator().CompleteCheckout(guest, "pm_card_visa"); err != nil {
		t.Fatal(err)
	}
	r := w.must(w.get("/v1/checkout/sessions/"+guest, "expand[]=customer"))
	if r.str("customer", "email") != "g@example.com" {
		t.Errorf("%s", r.body)
	}
	w.must(w.get("/v1/events", "limit=100")) // every event's object has its shape
}

// A customer of the account's other mode is named as such, whatever is asked of it.
func TestOtherMode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, err := w.Operator().OtherMode()
	if err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]reply{"read": w.get("/v1/customers/"+id, ""), "written": w.post("/v1/customers/"+id, "name=x"),
		"named": w.post("/v1/invoices", "customer="+id)} {
		if r.status != 404 && r.status != 400 || !strings.Contains(string(r.body), "a similar object exists in live mode, but a test mode key was used") {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
	}
	if r := w.get("/v1/customers/cus_none", ""); strings.Contains(string(r.body), "similar") {
		t.Errorf("%s", r.body)
	}
}
