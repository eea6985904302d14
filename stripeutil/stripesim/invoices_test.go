package stripesim_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// draft makes a one-line draft invoice.
func (w *world) draft(cus, amount, form string) string {
	w.t.Helper()
	id := w.must(w.post("/v1/invoices", "currency=usd&pending_invoice_items_behavior=exclude&customer="+cus+"&"+form)).str("id")
	w.must(w.post("/v1/invoiceitems", "currency=usd&description=Top-up&customer="+cus+"&invoice="+id+"&amount="+amount))
	return id
}

func (w *world) invoice(cus, amount string) string {
	w.t.Helper()
	id := w.draft(cus, amount, "")
	w.must(w.post("/v1/invoices/"+id+"/finalize", ""))
	return id
}

func (w *world) setDefault(cus, pm string) {
	w.t.Helper()
	w.must(w.post("/v1/customers/"+cus, "invoice_settings[default_payment_method]="+pm))
}

func (w *world) balance(cus string) int64 {
	got, _ := w.Customer(cus)
	return got.Balance
}

// The four calls of a top-up by invoice, and what each step refuses.
func TestInvoicePaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	w.refused(w.post("/v1/invoices", ""), 400, "parameter_missing", "customer")
	w.refused(w.post("/v1/invoices", "customer=cus_none"), 400, "resource_missing", "customer")
	in := w.must(w.post("/v1/invoices", "currency=usd&collection_method=charge_automatically&auto_advance=false&metadata[topup_id]=t1&customer="+cus)).str("id")
	path := "/v1/invoices/" + in
	w.refused(w.post(path+"/finalize", ""), 400, "invoice_no_customer_line_items", "")
	w.refused(w.post("/v1/invoiceitems", "amount=5&currency=eur&customer="+cus+"&invoice="+in), 400, "", "currency")
	w.refused(w.post("/v1/invoiceitems", "currency=usd&customer="+cus+"&invoice="+in), 400, "parameter_missing", "amount")
	w.refused(w.post("/v1/invoiceitems", "amount=5&currency=usd&customer="+cus+"&invoice=in_none"), 400, "resource_missing", "invoice")
	if r := w.post(path+"/void", ""); r.status != 400 {
		t.Errorf("a draft was voided: %d", r.status)
	}
	w.must(w.post("/v1/invoiceitems", "amount=2000&currency=usd&customer="+cus+"&invoice="+in))
	n := len(w.Events())
	r := w.must(w.post(path+"/finalize", ""))
	if r.str("status") != "open" || r.num("amount_due") != 2000 || r.num("starting_balance") != 0 || r.json["ending_balance"] != 0.0 || r.json["attempted"] != false {
		t.Errorf("%s", r.body)
	}
	w.wantTypes(n, "payment_intent.created", "invoice.finalized", "customer.updated")
	w.refused(w.post(path+"/finalize", ""), 400, "invoice_not_editable", "")
	w.refused(w.post("/v1/invoiceitems", "amount=5&currency=usd&customer="+cus+"&invoice="+in), 400, "invoice_not_editable", "")
	w.refused(w.post(path+"/pay", ""), 400, "resource_missing", "") // nothing to pay with
	n = len(w.Events())
	paid, err := w.api.Invoices.Pay(in, &stripe.InvoicePayParams{PaymentMethod: stripe.String(pm), OffSession: stripe.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	if paid.Status != "paid" || !paid.Paid || paid.AmountPaid != 2000 || paid.AmountRemaining != 0 || paid.AttemptCount != 1 || paid.Charge == nil {
		t.Errorf("%+v", paid)
	}
	w.wantTypes(n, "charge.succeeded", "payment_intent.succeeded", "invoice.paid", "invoice.payment_succeeded")
	pi := w.PaymentIntents(cus)[0]
	if pi.Invoice != in || len(pi.Metadata) != 0 {
		t.Errorf("the intent: %+v", pi)
	}
	if r := w.post(path+"/pay", ""); r.status != 400 || r.str("error", "message") != "Invoice is already paid" {
		t.Errorf("%s", r.body)
	}
	if r := w.post(path+"/void", ""); r.status != 400 {
		t.Errorf("a paid invoice was voided: %d", r.status)
	}
}

// Finalization takes the balance first, whichever its direction.
func TestInvoiceAppliesBalance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name               string
		balance, due, left int64
		status             string
		types              []string
	}{
		{"no balance", 0, 2000, 0, "open", nil},
		{"some credit", -300, 1700, 0, "open", []string{"applied_to_invoice 300"}},
		{"more credit than due", -3000, 0, -1000, "paid", []string{"applied_to_invoice 2000"}},
		{"just enough credit", -2000, 0, 0, "paid", []string{"applied_to_invoice 2000"}},
		{"debt", 500, 2500, 0, "open", []string{"applied_to_invoice -500"}},
		{"too little left to charge", -1970, 0, 30, "paid", []string{"applied_to_invoice 1970", "invoice_too_small 30"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cus := w.customer()
			skip := 0
			if c.balance != 0 {
				w.must(w.post("/v1/customers/"+cus+"/balance_transactions", "currency=usd&amount="+itoa(c.balance)))
				skip = 1
			}
			in := w.invoice(cus, "2000")
			r := w.must(w.get("/v1/invoices/"+in, ""))
			if r.str("status") != c.status || r.num("amount_due") != c.due || r.num("starting_balance") != c.balance || r.num("ending_balance") != c.left ||
				r.num("amount_paid") != 0 || r.num("attempt_count") != 0 || r.json["attempted"] != (c.status == "paid") {
				t.Errorf("%s", r.body)
			}
			var types []string
			for _, txn := range w.BalanceTransactions(cus)[skip:] {
				types = append(types, txn.Type+" "+itoa(txn.Amount))
				if txn.Invoice != in {
					t.Errorf("%+v is not of the invoice", txn)
				}
			}
			if !slices.Equal(types, c.types) || w.balance(cus) != c.left {
				t.Errorf("%v, balance %d", types, w.balance(cus))
			}
			if got := slices.Contains(w.types(0), "invoice.paid"); got != (c.status == "paid") {
				t.Errorf("invoice.paid sent: %v", got)
			}
			// Voiding gives it back.
			if c.status == "open" {
				w.must(w.post("/v1/invoices/"+in+"/void", ""))
				if w.balance(cus) != c.balance {
					t.Errorf("after the void the balance is %d", w.balance(cus))
				}
				if pi := w.PaymentIntents(cus)[0]; pi.Status != "canceled" {
					t.Errorf("the intent of a void invoice is %s", pi.Status)
				}
				if r := w.post("/v1/invoices/"+in+"/pay", ""); r.status != 400 {
					t.Errorf("a void invoice was paid: %d", r.status)
				}
			}
		})
	}
}

func TestInvoiceDeclined(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_stripesim_insufficientFunds")
	w.setDefault(cus, pm)
	in := w.invoice(cus, "2000")
	n := len(w.Events())
	r := w.post("/v1/invoices/"+in+"/pay", "")
	w.refused(r, 402, "card_declined", "")
	w.wantTypes(n, "charge.failed", "payment_intent.payment_failed", "invoice.payment_failed")
	if r := w.get("/v1/invoices/"+in, ""); r.str("status") != "open" || r.num("attempt_count") != 1 || r.num("amount_paid") != 0 || r.json["next_payment_attempt"] != nil {
		t.Errorf("%s", r.body)
	}
	w.must(w.post("/v1/invoices/"+in+"/mark_uncollectible", ""))
	w.must(w.post("/v1/invoices/"+in+"/pay", "payment_method="+w.attach(cus, "pm_card_visa")))
	if got := w.PaymentIntents(cus); len(got) != 1 || got[0].Status != "succeeded" {
		t.Errorf("%+v", got)
	}
}

func TestInvoiceNeedsAuthentication(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_authenticationRequired")
	w.setDefault(cus, pm)
	in := w.invoice(cus, "2000")
	n := len(w.Events())
	w.refused(w.post("/v1/invoices/"+in+"/pay", ""), 402, "invoice_payment_intent_requires_action", "")
	w.wantTypes(n, "payment_intent.requires_action", "invoice.payment_action_required")
	if _, err := w.Operator().ConfirmPaymentIntent(w.PaymentIntents(cus)[0].ID, ""); err != nil {
		t.Fatal(err)
	}
	if r := w.get("/v1/invoices/"+in, ""); r.str("status") != "paid" || r.num("amount_paid") != 2000 {
		t.Errorf("%s", r.body)
	}
}

func TestInvoicePaidOutOfBand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	in := w.invoice(cus, "2000")
	n := len(w.Events())
	if r := w.must(w.post("/v1/invoices/"+in+"/pay", "paid_out_of_band=true")); r.str("status") != "paid" || r.json["paid_out_of_band"] != true {
		t.Errorf("%s", r.body)
	}
	w.wantTypes(n, "payment_intent.canceled", "invoice.paid")
	if len(w.Charges(cus)) != 0 {
		t.Error("there is a charge")
	}
}

// An invoice takes the types of method that its settings name, and no other.
func TestInvoiceMethodTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	bank := w.attach(cus, "pm_usBankAccount_success")
	in := w.must(w.post("/v1/invoices", "customer="+cus+"&currency=usd&auto_advance=false&payment_settings[payment_method_types][]=us_bank_account")).str("id")
	w.must(w.post("/v1/invoiceitems", "customer="+cus+"&invoice="+in+"&amount=2000&currency=usd"))
	w.refused(w.post("/v1/invoices/"+in+"/pay", "payment_method="+pm), 400, "payment_intent_incompatible_payment_method", "payment_method")
	r := w.must(w.post("/v1/invoices/"+in+"/pay", "off_session=true&payment_method="+bank))
	if pi := w.must(w.get("/v1/payment_intents/"+r.str("payment_intent"), "")); r.str("status") != "open" || pi.str("status") != "processing" {
		t.Errorf("%s, %s", r.body, pi.body)
	}
}

// A debit that is processing leaves the invoice open until the bank has spoken.
func TestInvoiceProcessing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_usBankAccount_success")
	w.setDefault(cus, pm)
	in := w.invoice(cus, "2000")
	if r := w.must(w.post("/v1/invoices/"+in+"/pay", "")); r.str("status") != "open" {
		t.Errorf("%s", r.body)
	}
	if r := w.post("/v1/invoices/"+in+"/pay", ""); r.status != 400 {
		t.Errorf("paid twice: %d", r.status)
	}
	if r := w.post("/v1/invoices/"+in+"/void", ""); r.status != 400 {
		t.Errorf("voided while processing: %d", r.status)
	}
	w.Advance(time.Hour)
	if r := w.get("/v1/invoices/"+in, ""); r.str("status") != "paid" {
		t.Errorf("%s", r.body)
	}
}

// With auto_advance Stripe finalizes an hour after invoice.created was accepted
// (three days otherwise), collects, and tries again when a soft decline stopped
// it.
func TestInvoiceAutoAdvance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, retries(100*time.Hour))
	b := w.listen("invoice.created")
	cus, pm := w.withCard("pm_card_stripesim_insufficientFunds")
	w.setDefault(cus, pm)
	status := func(id string) string { return w.must(w.get("/v1/invoices/"+id, "")).str("status") }
	b.setRefuse(true)
	refused := w.draft(cus, "1000", "auto_advance=true")
	w.settle()
	b.setRefuse(false)
	accepted := w.draft(cus, "2000", "auto_advance=true")
	w.settle()
	w.Advance(59 * time.Minute)
	if status(accepted) != "draft" {
		t.Error("finalized too early")
	}
	w.Advance(2 * time.Minute)
	if status(accepted) != "open" || status(refused) != "draft" || len(w.Charges(cus)) != 1 {
		t.Errorf("after an hour: %s and %s, %d charges", status(accepted), status(refused), len(w.Charges(cus)))
	}
	w.setDefault(cus, w.attach(cus, "pm_card_visa"))
	w.Advance(24 * time.Hour)
	if status(accepted) != "paid" {
		t.Errorf("after the retry: %s", status(accepted))
	}
	w.Advance(72 * time.Hour)
	if status(refused) != "paid" {
		t.Errorf("after three days: %s", status(refused))
	}
}

func TestInvoiceHardDeclineNotRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_stripesim_lost_card")
	w.setDefault(cus, pm)
	in := w.draft(cus, "1000", "auto_advance=true")
	w.Advance(30 * 24 * time.Hour)
	if r := w.get("/v1/invoices/"+in, ""); r.str("status") != "open" || r.num("attempt_count") != 1 {
		t.Errorf("%s", r.body)
	}
	soft := w.draft(cus, "1000", "auto_advance=true&default_payment_method="+w.attach(cus, "pm_card_stripesim_try_again_later"))
	w.Advance(30 * 24 * time.Hour)
	if r := w.get("/v1/invoices/"+soft, ""); r.num("attempt_count") != 5 {
		t.Errorf("%s", r.body)
	}
}

func TestInvoiceItems(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	price := w.must(w.post("/v1/prices", "currency=usd&unit_amount=500&product_data[name]=Credits")).str("id")
	pending := w.must(w.post("/v1/invoiceitems", "customer="+cus+"&quantity=3&price="+price))
	if pending.num("amount") != 1500 || pending.json["invoice"] != nil {
		t.Errorf("%s", pending.body)
	}
	excluded := w.must(w.post("/v1/invoices", "customer="+cus))
	if excluded.num("total") != 0 {
		t.Errorf("a pending item was swept: %s", excluded.body)
	}
	swept := w.must(w.post("/v1/invoices", "pending_invoice_items_behavior=include&customer="+cus))
	if swept.num("total") != 1500 {
		t.Errorf("%s", swept.body)
	}
	if r := w.must(w.get("/v1/invoices/"+swept.str("id")+"/lines", "")); len(r.json["data"].([]any)) != 1 {
		t.Errorf("%s", r.body)
	}
	if r := w.must(w.get("/v1/invoiceitems", "pending=true&customer="+cus)); len(r.json["data"].([]any)) != 0 {
		t.Errorf("%s", r.body)
	}
	extra := w.must(w.post("/v1/invoiceitems", "amount=100&currency=usd&customer="+cus+"&invoice="+swept.str("id"))).str("id")
	w.must(w.do("DELETE", "/v1/invoiceitems/"+extra, ""))
	w.refused(w.get("/v1/invoiceitems/"+extra, ""), 404, "resource_missing", "invoiceitem")
	if r := w.must(w.get("/v1/invoices/"+swept.str("id"), "")); r.num("total") != 1500 {
		t.Errorf("%s", r.body)
	}
	w.must(w.do("DELETE", "/v1/invoices/"+swept.str("id"), ""))
	w.refused(w.get("/v1/invoices/"+swept.str("id"), ""), 404, "resource_missing", "invoice")
	if r := w.must(w.get("/v1/invoices", "customer="+cus+"&status=draft")); len(r.json["data"].([]any)) != 1 {
		t.Errorf("%s", r.body)
	}
	if r := w.must(w.get("/v1/invoiceitems", "pending=true&customer="+cus)); len(r.json["data"].([]any)) != 0 {
		t.Errorf("deleting the draft released its items: %s", r.body)
	}
	w.must(w.post("/v1/invoices/"+excluded.str("id"), "metadata[a]=b&description=x"))
}

// Somebody else's invoice eats the balance.
func TestOperatorInvoice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.Operator()
	cus, pm := w.withCard("pm_card_visa")
	if _, err := o.Invoice("cus_none", 500, "usd"); err == nil {
		t.Error("an invoice for nobody")
	}
	if _, err := o.AdjustBalance(cus, -1000, "usd", "gift"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.AdjustBalance(cus, -1000, "eur", "gift"); err == nil {
		t.Error("a second currency")
	}
	w.setDefault(cus, pm)
	n := len(w.Events())
	if _, err := o.Invoice(cus, 3000, "usd"); err != nil {
		t.Fatal(err)
	}
	if got := w.Charges(cus); len(got) != 1 || got[0].Amount != 2000 || w.balance(cus) != 0 {
		t.Errorf("%+v, balance %d", got, w.balance(cus))
	}
	for _, e := range w.Events()[n:] {
		if e.RequestID != "" || e.IdempotencyKey != "" {
			t.Errorf("%s carries a request: %+v", e.Type, e)
		}
	}
	open, err := o.Invoice(cus, 40, "usd") // too small to charge: goes to the balance
	if err != nil || w.balance(cus) != 40 {
		t.Errorf("%s %v, balance %d", open, err, w.balance(cus))
	}
	if _, err := o.VoidInvoice(open); err == nil {
		t.Error("a paid invoice was voided")
	}
}

// Tax comes on top of the lines where the customer's country is known, and nothing is finalized where it is not.
func TestInvoiceTaxed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	in := w.must(w.post("/v1/invoices", "currency=usd&automatic_tax[enabled]=true&customer="+cus)).str("id")
	w.refused(w.post("/v1/invoiceitems", "amount=2000&currency=usd&customer="+cus+"&invoice="+in), 400, "", "tax_behavior")
	w.must(w.post("/v1/invoiceitems", "amount=2000&currency=usd&tax_behavior=exclusive&customer="+cus+"&invoice="+in))
	n := len(w.Events())
	w.refused(w.post("/v1/invoices/"+in+"/finalize", ""), 400, "customer_tax_location_invalid", "")
	w.wantTypes(n, "invoice.finalization_failed")
	w.must(w.post("/v1/customers/"+cus, "address[country]=DE"))
	r := w.must(w.post("/v1/invoices/"+in+"/finalize", ""))
	if r.num("total") != 2380 || r.num("tax") != 380 || r.num("subtotal") != 2000 || r.num("total_excluding_tax") != 2000 || r.str("automatic_tax", "status") != "complete" {
		t.Errorf("%s", r.body)
	}
	if r := w.must(w.post("/v1/invoices/"+in+"/pay", "payment_method="+pm)); r.num("amount_paid") != 2380 {
		t.Errorf("%s", r.body)
	}
}

// An invoice that is sent waits for its customer.
func TestInvoiceSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	w.setDefault(cus, pm)
	w.refused(w.post("/v1/invoices", "currency=usd&days_until_due=7&customer="+cus), 400, "", "days_until_due")
	w.refused(w.post("/v1/invoices", "currency=usd&collection_method=send_invoice&customer="+cus), 400, "parameter_missing", "days_until_due")
	in := w.draft(cus, "2000", "collection_method=send_invoice&days_until_due=7")
	r := w.must(w.post("/v1/invoices/"+in+"/send", ""))
	if r.str("status") != "open" || r.num("due_date") == 0 || r.str("hosted_invoice_url") == "" {
		t.Errorf("%s", r.body)
	}
	if _, err := w.Operator().PayInvoice(in, false); err != nil {
		t.Fatal(err)
	}
	if r := w.post("/v1/invoices/"+in+"/send", ""); r.status != 400 {
		t.Errorf("a paid invoice was sent: %d", r.status)
	}
	if r := w.post("/v1/invoices/"+w.invoice(cus, "2000")+"/send", ""); r.status != 400 {
		t.Errorf("an invoice that is charged was sent: %d", r.status)
	}
}
