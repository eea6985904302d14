package stripesim_test

import (
	"testing"

	"github.com/stripe/stripe-go/v76"
)

// Cards that the bank refuses are refused at attach already.
func TestAttachRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	other := w.customer()
	n := len(w.Events())
	for token, code := range map[string]string{"pm_card_visa_chargeDeclined": "card_declined", "pm_card_chargeDeclinedExpiredCard": "expired_card",
		"pm_card_visa_chargeDeclinedLostCard": "card_declined", "pm_card_chargeDeclinedIncorrectCvc": "incorrect_cvc"} {
		w.refused(w.post("/v1/payment_methods/"+token+"/attach", "customer="+cus), 402, code, "")
	}
	w.refused(w.post("/v1/payment_methods/pm_card_visa/attach", ""), 400, "parameter_missing", "customer")
	w.refused(w.post("/v1/payment_methods/pm_card_visa/attach", "customer=cus_none"), 400, "resource_missing", "customer")
	w.refused(w.post("/v1/payment_methods/pm_none/attach", "customer="+cus), 404, "resource_missing", "payment_method")
	if r := w.post("/v1/payment_methods/"+pm+"/attach", "customer="+other); r.status != 400 {
		t.Errorf("attached to a second customer: %d", r.status)
	}
	w.wantTypes(n)
	w.must(w.post("/v1/payment_methods/"+pm+"/attach", "customer="+cus)) // to the same one: nothing happens
	w.wantTypes(n)
}

// Detaching is final, and takes the customer's default with it.
func TestDetach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	w.must(w.post("/v1/customers/"+cus, "invoice_settings[default_payment_method]="+pm))
	loose := w.must(w.post("/v1/payment_methods", "type=card&card[token]=tok_visa")).str("id")
	if r := w.post("/v1/payment_methods/"+loose+"/detach", ""); r.status != 400 {
		t.Errorf("detached what was not attached: %d", r.status)
	}
	n := len(w.Events())
	r := w.must(w.post("/v1/payment_methods/"+pm+"/detach", ""))
	if r.json["customer"] != nil {
		t.Errorf("%s", r.body)
	}
	w.wantTypes(n, "payment_method.detached", "customer.updated")
	if e := w.Events()[n]; string(e.PreviousAttributes) != `{"customer":"`+cus+`"}` || e.ObjectID != pm {
		t.Errorf("%s", e.PreviousAttributes)
	}
	if got, _ := w.Customer(cus); got.DefaultPaymentMethod != "" {
		t.Errorf("default is still %s", got.DefaultPaymentMethod)
	}
	w.refused(w.post("/v1/payment_methods/"+pm+"/attach", "customer="+cus), 400, "", "payment_method")
	w.refused(w.charge(cus, pm, "500"), 400, "", "payment_method")
}

func TestMethodsListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, card := w.withCard("pm_card_mastercard")
	bank := w.attach(cus, "pm_usBankAccount_success")
	w.withCard("pm_card_visa")
	ids := func(path, form string) (out []string) {
		for _, o := range w.must(w.get(path, form)).json["data"].([]any) {
			out = append(out, o.(map[string]any)["id"].(string))
		}
		return out
	}
	w.refused(w.get("/v1/payment_methods", "customer=cus_none"), 400, "resource_missing", "customer")
	if got := ids("/v1/payment_methods", "customer="+cus); len(got) != 2 || got[0] != bank || got[1] != card {
		t.Errorf("%v", got)
	}
	if got := ids("/v1/customers/"+cus+"/payment_methods", "type=card"); len(got) != 1 || got[0] != card {
		t.Errorf("%v", got)
	}
	if r := w.must(w.get("/v1/payment_methods/"+card, "")); r.str("card", "last4") != "4444" || r.str("card", "brand") != "mastercard" {
		t.Errorf("%s", r.body)
	}
	w.must(w.get("/v1/customers/"+cus+"/payment_methods/"+card, ""))
	r := w.must(w.post("/v1/payment_methods/"+card, "card[exp_year]=2040&metadata[a]=b"))
	if r.json["card"].(map[string]any)["exp_year"] != 2040.0 {
		t.Errorf("%s", r.body)
	}
	if n := len(w.PaymentMethods(cus)); n != 2 {
		t.Errorf("%d methods", n)
	}
}

// A setup intent saves a method for later; it does not make it the default.
func TestSetupIntent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	w.refused(w.post("/v1/setup_intents", "customer=cus_none"), 400, "resource_missing", "customer")
	w.refused(w.post("/v1/setup_intents", "confirm=true&customer="+cus), 400, "parameter_missing", "payment_method")
	w.refused(w.post("/v1/setup_intents", "confirm=true&payment_method=pm_card_visa&customer="+cus), 400, "", "") // no return_url
	r := w.post("/v1/setup_intents", "confirm=true&payment_method_types[]=card&payment_method=pm_card_visa_chargeDeclined&customer="+cus)
	w.refused(r, 402, "card_declined", "")
	if r.str("error", "setup_intent", "status") != "requires_payment_method" {
		t.Errorf("%s", r.body)
	}
	n := len(w.Events())
	si, err := w.api.SetupIntents.New(&stripe.SetupIntentParams{Customer: stripe.String(cus), Usage: stripe.String("off_session"), Confirm: stripe.Bool(true),
		PaymentMethod: stripe.String("pm_card_visa"), PaymentMethodTypes: stripe.StringSlice([]string{"card"})})
	if err != nil {
		t.Fatal(err)
	}
	w.wantTypes(n, "setup_intent.created", "payment_method.attached", "setup_intent.succeeded")
	if si.Status != "succeeded" || len(w.PaymentMethods(cus)) != 1 || w.PaymentMethods(cus)[0].ID != si.PaymentMethod.ID {
		t.Errorf("%+v", si)
	}
	if got, _ := w.Customer(cus); got.DefaultPaymentMethod != "" {
		t.Error("the method became the default")
	}
	w.refused(w.post("/v1/setup_intents/"+si.ID+"/cancel", ""), 400, "setup_intent_unexpected_state", "")
	w.must(w.charge(cus, si.PaymentMethod.ID, "500"))

	open := w.must(w.post("/v1/setup_intents", "customer="+cus)).str("id")
	if r := w.must(w.post("/v1/setup_intents/"+open+"/cancel", "")); r.str("status") != "canceled" {
		t.Errorf("%s", r.body)
	}
	w.refused(w.post("/v1/setup_intents/"+open+"/confirm", "payment_method=pm_card_visa"), 400, "setup_intent_unexpected_state", "")
}

// A card that needs authentication when it is saved pays off-session afterwards,
// and not before.
func TestSetupAuthenticates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, unset := w.withCard("pm_card_authenticationRequiredOnSetup")
	w.refused(w.charge(cus, unset, "500"), 402, "authentication_required", "")
	si := w.must(w.post("/v1/setup_intents", "payment_method_types[]=card&customer="+cus)).str("id")
	r := w.must(w.post("/v1/setup_intents/"+si+"/confirm", "payment_method=pm_card_authenticationRequiredOnSetup"))
	if r.str("status") != "requires_action" {
		t.Fatalf("%s", r.body)
	}
	if _, err := w.Operator().ConfirmSetupIntent(si, ""); err != nil {
		t.Fatal(err)
	}
	w.must(w.charge(cus, r.str("payment_method"), "500"))
}
