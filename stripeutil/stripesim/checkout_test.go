package stripesim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"
)

func TestCheckoutRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	line := "&line_items[0][quantity]=1&line_items[0][price_data][currency]=usd&line_items[0][price_data][product_data][name]=Credits&line_items[0][price_data][unit_amount]="
	for _, c := range []struct{ form, code, param string }{
		{"success_url=https://x.example", "parameter_missing", "mode"},
		{"mode=setup&currency=usd", "parameter_missing", "success_url"},
		{"mode=setup&success_url=https://x.example&customer=" + cus, "parameter_missing", "currency"},
		{"mode=setup&currency=usd&success_url=https://x.example&customer=cus_none", "resource_missing", "customer"},
		{"mode=payment&success_url=https://x.example", "parameter_missing", "line_items"},
		{"mode=payment&success_url=https://x.example" + line + "10", "amount_too_small", "amount"},
		{"mode=payment&success_url=https://x.example&line_items[0][quantity]=1&line_items[0][price]=price_none", "resource_missing", "line_items[0][price]"},
		{"mode=payment&success_url=https://x.example&line_items[0][price]=price_none", "parameter_missing", "line_items[0][quantity]"},
		{"mode=setup&currency=usd&success_url=https://x.example&expires_at=5", "", "expires_at"},
	} {
		w.refused(w.post("/v1/checkout/sessions", c.form), 400, c.code, c.param)
	}
	w.wantTypes(1)
}

// A completed setup session has saved a method; it made it nobody's default.
func TestCheckoutSetup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	session, err := w.api.CheckoutSessions.New(&stripe.CheckoutSessionParams{Mode: stripe.String("setup"), Customer: stripe.String(cus), Currency: stripe.String("usd"),
		SuccessURL: stripe.String("https://x.example/{CHECKOUT_SESSION_ID}")})
	if err != nil {
		t.Fatal(err)
	}
	if session.Status != "open" || session.URL == "" || session.SetupIntent == nil {
		t.Errorf("%+v", session)
	}
	if _, err := w.Operator().CompleteCheckout(session.ID, "pm_card_visa_chargeDeclined"); err == nil {
		t.Error("a refused card was saved")
	}
	n := len(w.Events())
	if _, err := w.Operator().CompleteCheckout(session.ID, "pm_card_authenticationRequired"); err != nil {
		t.Fatal(err)
	}
	w.wantTypes(n, "payment_method.attached", "setup_intent.succeeded", "checkout.session.completed")
	got, _ := w.Customer(cus)
	if got.DefaultPaymentMethod != "" || len(w.PaymentMethods(cus)) != 1 {
		t.Errorf("%+v", got)
	}
	r := w.must(w.get("/v1/checkout/sessions/"+session.ID, "expand[]=setup_intent"))
	if r.str("status") != "complete" || r.str("setup_intent", "payment_method") != w.PaymentMethods(cus)[0].ID || r.json["url"] != nil {
		t.Errorf("%s", r.body)
	}
	if _, err := w.Operator().CompleteCheckout(session.ID, "pm_card_visa"); err == nil {
		t.Error("completed twice")
	}
	if r := w.post("/v1/checkout/sessions/"+session.ID+"/expire", ""); r.status != 400 {
		t.Errorf("a complete session expired: %d", r.status)
	}
}

func TestCheckoutPayment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.must(w.post("/v1/prices", "currency=usd&unit_amount=500&product_data[name]=Credits")).str("id")
	cus := w.customer()
	form := "mode=payment&success_url=https://x.example&metadata[topup]=1&payment_intent_data[metadata][topup_id]=t1&payment_intent_data[setup_future_usage]=off_session" +
		"&line_items[0][quantity]=4&line_items[0][price]=" + price + "&customer=" + cus
	session := w.must(w.post("/v1/checkout/sessions", form))
	id := session.str("id")
	if session.num("amount_total") != 2000 || session.json["payment_intent"] != nil || session.str("payment_status") != "unpaid" {
		t.Errorf("%s", session.body)
	}
	if _, err := w.Operator().CompleteCheckout(id, "pm_card_chargeCustomerFail"); err == nil {
		t.Error("a declined card paid")
	}
	if r := w.must(w.get("/v1/checkout/sessions/"+id, "")); r.str("status") != "open" {
		t.Errorf("%s", r.body)
	}
	n := len(w.Events())
	if _, err := w.Operator().CompleteCheckout(id, "pm_card_visa"); err != nil {
		t.Fatal(err)
	}
	w.wantTypes(n, "charge.succeeded", "payment_intent.succeeded", "payment_method.attached", "checkout.session.completed")
	r := w.must(w.get("/v1/checkout/sessions/"+id, "expand[]=payment_intent&expand[]=line_items"))
	if r.str("payment_status") != "paid" || r.str("payment_intent", "metadata", "topup_id") != "t1" || len(r.json["line_items"].(map[string]any)["data"].([]any)) != 1 {
		t.Errorf("%s", r.body)
	}
	if r := w.must(w.get("/v1/checkout/sessions/"+id+"/line_items", "")); len(r.json["data"].([]any)) != 1 {
		t.Errorf("%s", r.body)
	}
	if r := w.must(w.get("/v1/checkout/sessions", "customer="+cus+"&status=complete")); len(r.json["data"].([]any)) != 1 {
		t.Errorf("%s", r.body)
	}
}

// A bank debit completes the session first and is paid later, or not.
func TestCheckoutPaidLater(t *testing.T) {
	t.Parallel()
	for token, last := range map[string]string{"pm_usBankAccount_success": "checkout.session.async_payment_succeeded",
		"pm_usBankAccount_insufficientFunds": "checkout.session.async_payment_failed"} {
		w := newWorld(t)
		cus := w.customer()
		id := w.must(w.post("/v1/checkout/sessions", "mode=payment&success_url=https://x.example&line_items[0][quantity]=1&line_items[0][price_data][currency]=usd"+
			"&line_items[0][price_data][product_data][name]=Credits&line_items[0][price_data][unit_amount]=700&customer="+cus)).str("id")
		if _, err := w.Operator().CompleteCheckout(id, token); err != nil {
			t.Fatal(err)
		}
		if r := w.must(w.get("/v1/checkout/sessions/"+id, "")); r.str("status") != "complete" || r.str("payment_status") != "unpaid" {
			t.Errorf("%s", r.body)
		}
		w.Advance(time.Hour)
		if got := w.types(0); got[len(got)-1] != last {
			t.Errorf("%s: %v", token, got)
		}
	}
}

func TestCheckoutExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.must(w.post("/v1/checkout/sessions", "mode=setup&currency=usd&success_url=https://x.example&customer_creation=always")).str("id")
	w.Advance(25 * time.Hour)
	if r := w.must(w.get("/v1/checkout/sessions/"+id, "")); r.str("status") != "expired" {
		t.Errorf("%s", r.body)
	}
	if _, err := w.Operator().CompleteCheckout(id, "pm_card_visa"); err == nil {
		t.Error("completed after expiry")
	}
	other := w.must(w.post("/v1/checkout/sessions", "mode=setup&ui_mode=embedded&return_url=https://x.example&currency=usd")).str("id")
	n := len(w.Events())
	w.must(w.post("/v1/checkout/sessions/"+other+"/expire", ""))
	w.wantTypes(n, "setup_intent.canceled", "checkout.session.expired")
}

func TestPortal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	w.refused(w.post("/v1/billing_portal/sessions", ""), 400, "parameter_missing", "customer")
	w.refused(w.post("/v1/billing_portal/sessions", "customer=cus_none"), 400, "resource_missing", "customer")
	w.refused(w.post("/v1/billing_portal/sessions", "configuration=bpc_none&customer="+cus), 400, "resource_missing", "configuration")
	r := w.must(w.post("/v1/billing_portal/sessions", "return_url=https://x.example&flow_data[type]=payment_method_update&customer="+cus))
	if r.str("url") == "" || r.str("flow", "type") != "payment_method_update" {
		t.Errorf("%s", r.body)
	}
	if list := w.must(w.get("/v1/billing_portal/configurations", "is_default=true")); !strings.Contains(string(list.body), r.str("configuration")) {
		t.Errorf("%s", list.body)
	}
	if list := w.must(w.get("/v1/billing_portal/configurations", "active=false")); strings.Contains(string(list.body), r.str("configuration")) {
		t.Errorf("%s", list.body)
	}
	if err := w.Operator().SavePortal(false); err != nil {
		t.Fatal(err)
	}
	w.refused(w.post("/v1/billing_portal/sessions", "customer="+cus), 400, "", "")
	n := len(w.Events())
	if _, err := w.Operator().SetDefaultPaymentMethod(cus, "pm_none"); err == nil {
		t.Error("a default that is not there")
	}
	if _, err := w.Operator().SetDefaultPaymentMethod(cus, pm); err != nil {
		t.Fatal(err)
	}
	w.wantTypes(n, "customer.updated")
}
