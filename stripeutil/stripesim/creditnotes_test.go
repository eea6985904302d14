package stripesim_test

import (
	"strings"
	"testing"

	"lockstep/stripeutil/stripesim"
)

func TestCreditNotes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	w.setDefault(cus, pm)
	in := w.invoice(cus, "2000")
	w.must(w.post("/v1/invoices/"+in+"/pay", ""))
	for _, form := range []string{"amount=500", "amount=500&credit_amount=400", "credit_amount=2001", "credit_amount=0"} {
		if r := w.post("/v1/credit_notes", "invoice="+in+"&"+form); r.status != 400 {
			t.Errorf("%s: %d", form, r.status)
		}
	}
	w.refused(w.post("/v1/credit_notes", "amount=5&invoice=in_none"), 400, "resource_missing", "invoice")
	n := len(w.Events())
	r := w.must(w.post("/v1/credit_notes", "amount=600&credit_amount=300&refund_amount=200&out_of_band_amount=100&invoice="+in))
	if r.str("type") != "post_payment" || r.str("customer_balance_transaction") == "" || r.str("refund") == "" {
		t.Errorf("%s", r.body)
	}
	w.wantTypes(n, "refund.created", "charge.refunded", "customer.updated", "credit_note.created")
	if got := w.BalanceTransactions(cus); len(got) != 1 || got[0].Type != "credit_note" || got[0].CreditNote != r.str("id") || w.balance(cus) != -300 {
		t.Errorf("%+v", got)
	}
	if r := w.post("/v1/credit_notes/"+r.str("id")+"/void", ""); r.status != 400 {
		t.Errorf("a refund was voided: %d", r.status)
	}
	credit := w.must(w.post("/v1/credit_notes", "credit_amount=400&invoice="+in)).str("id")
	if w.balance(cus) != -700 {
		t.Errorf("balance %d", w.balance(cus))
	}
	w.must(w.post("/v1/credit_notes/"+credit+"/void", ""))
	if w.balance(cus) != -300 {
		t.Errorf("after the void: balance %d", w.balance(cus))
	}
	n = len(w.Events())
	o := w.Operator()
	gone, err := o.CreditNote(in, stripesim.CreditParts{Credit: 10, OutOfBand: 20})
	if err != nil {
		t.Fatal(err)
	}
	if r := w.must(w.post("/v1/credit_notes/"+gone, "memo=sorry&metadata[a]=b")); r.str("memo") != "sorry" || r.num("out_of_band_amount") != 20 {
		t.Errorf("%s", r.body)
	}
	if _, err := o.NoteMemo(gone, "very"); err != nil {
		t.Error(err)
	}
	if _, err := o.VoidCreditNote(gone); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{"void again": second(o.VoidCreditNote(gone)), "none": second(o.VoidCreditNote("cn_none")), "no memo": second(o.NoteMemo("cn_none", "")),
		"no invoice": second(o.CreditNote("in_none", stripesim.CreditParts{Credit: 1})), "too much": second(o.CreditNote(in, stripesim.CreditParts{OutOfBand: 1401}))} {
		if err == nil {
			t.Errorf("%s did what cannot be done", what)
		}
	}
	w.wantTypes(n, "customer.updated", "credit_note.created", "credit_note.updated", "credit_note.updated", "customer.updated", "credit_note.voided")
	if r := w.must(w.get("/v1/invoices/"+in, "")); r.num("post_payment_credit_notes_amount") != 600 || w.balance(cus) != -300 {
		t.Errorf("%s", r.body)
	}
	if r := w.must(w.get("/v1/credit_notes", "invoice="+in)); len(r.json["data"].([]any)) != 3 {
		t.Errorf("%s", r.body)
	}
}

// A void may keep what the balance paid, or give it back in parts.
func TestInvoiceKeepsItsBalance(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.Operator()
	cus := w.must(w.post("/v1/customers", "")).str("id")
	if _, err := o.AdjustBalance(cus, -500, "usd", ""); err != nil {
		t.Fatal(err)
	}
	in, err := o.FinalInvoice(cus, 2000, "usd")
	if err != nil || w.balance(cus) != 0 {
		t.Fatal(err, w.balance(cus))
	}
	if r := w.must(w.get("/v1/invoices/"+in, "")); r.str("status") != "open" || r.num("amount_due") != 1500 {
		t.Errorf("%s", r.body)
	}
	if _, err := o.VoidInvoiceOnly(in); err != nil || w.balance(cus) != 0 {
		t.Error(err, w.balance(cus))
	}
	if _, err := o.ReturnBalance(in, 200); err != nil || w.balance(cus) != -200 {
		t.Error(err, w.balance(cus))
	}
	if all := w.BalanceTransactions(cus); len(all) != 3 || all[2].Type != "unapplied_from_invoice" || all[2].Invoice != in {
		t.Errorf("%+v", all)
	}
	for what, err := range map[string]error{"void": second(o.VoidInvoiceOnly(in)), "none": second(o.VoidInvoiceOnly("in_none")), "return": second(o.ReturnBalance("in_none", 1)),
		"nobody": second(o.FinalInvoice("cus_none", 1, "usd")), "euros": second(o.FinalInvoice(cus, 1, "eur"))} {
		if err == nil {
			t.Errorf("%s did what cannot be done", what)
		}
	}
}

// On an open invoice a credit note lowers what is due.
func TestCreditNoteBeforePayment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	in := w.invoice(cus, "2000")
	if r := w.post("/v1/credit_notes", "amount=2001&invoice="+in); r.status != 400 {
		t.Errorf("more than is due: %d", r.status)
	}
	w.must(w.post("/v1/credit_notes", "amount=500&invoice="+in))
	r := w.must(w.post("/v1/invoices/"+in+"/pay", "payment_method="+pm))
	if r.num("amount_paid") != 1500 || r.num("pre_payment_credit_notes_amount") != 500 {
		t.Errorf("%s", r.body)
	}
	other := w.invoice(cus, "900")
	w.must(w.post("/v1/credit_notes", "amount=900&invoice="+other))
	if r := w.must(w.get("/v1/invoices/"+other, "")); r.str("status") != "paid" || r.num("amount_paid") != 0 {
		t.Errorf("%s", r.body)
	}
}

func TestCatalog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.refused(w.post("/v1/products", ""), 400, "parameter_missing", "name")
	product := w.must(w.post("/v1/products", "name=Credits&metadata[credits]=1000")).str("id")
	w.refused(w.post("/v1/prices", "unit_amount=500&product="+product), 400, "parameter_missing", "currency")
	w.refused(w.post("/v1/prices", "unit_amount=500&currency=usd&product=prod_none"), 400, "resource_missing", "product")
	w.refused(w.post("/v1/prices", "unit_amount=500&currency=usd"), 400, "parameter_missing", "product")
	price := w.must(w.post("/v1/prices", "unit_amount=500&currency=usd&lookup_key=small&metadata[credits]=1000&product="+product)).str("id")
	if r := w.must(w.get("/v1/prices", "lookup_keys[]=small&active=true&product="+product)); len(r.json["data"].([]any)) != 1 {
		t.Errorf("%s", r.body)
	}
	n := len(w.Events())
	w.must(w.post("/v1/prices/"+price, "active=false"))
	w.must(w.post("/v1/products/"+product, "name=More&default_price="+price))
	w.wantTypes(n, "price.updated", "product.updated")
	if r := w.must(w.get("/v1/prices", "active=true")); len(r.json["data"].([]any)) != 0 {
		t.Errorf("%s", r.body)
	}
	if r := w.must(w.get("/v1/products/"+product, "expand[]=default_price")); r.str("default_price", "id") != price {
		t.Errorf("%s", r.body)
	}
	w.must(w.get("/v1/products", "active=true&ids[]="+product))
	w.must(w.get("/v1/prices/"+price, ""))
	recurring := w.must(w.post("/v1/prices", "unit_amount=500&currency=usd&recurring[interval]=month&product="+product))
	if recurring.str("type") != "recurring" {
		t.Errorf("%s", recurring.body)
	}
	made := w.must(w.post("/v1/products", "name=Pack&default_price_data[currency]=usd&default_price_data[unit_amount]=900"))
	if !strings.HasPrefix(made.str("default_price"), "price_") {
		t.Errorf("%s", made.body)
	}
}
