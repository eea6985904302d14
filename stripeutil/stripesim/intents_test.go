package stripesim_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// What cannot be attempted is a 400, makes no intent and sends no event.
func TestPaymentIntentRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	_, foreign := w.withCard("pm_card_mastercard")
	detached := w.attach(cus, "pm_card_visa")
	w.must(w.post("/v1/payment_methods/"+detached+"/detach", ""))
	n := len(w.Events())
	base := "amount=500&currency=usd&customer=" + cus
	for _, c := range []struct{ form, code, param string }{
		{"amount=49&currency=usd&off_session=true&confirm=true&customer=" + cus + "&payment_method=" + pm, "amount_too_small", "amount"},
		{"amount=100000000&currency=usd", "amount_too_large", "amount"},
		{base + "&off_session=true&payment_method=" + pm, "", "off_session"},
		{base + "&off_session=true&confirm=true", "parameter_missing", "payment_method"},
		{base + "&off_session=true&confirm=true&payment_method=pm_none", "resource_missing", "payment_method"},
		{base + "&off_session=true&confirm=true&payment_method=" + foreign, "", "payment_method"},
		{base + "&off_session=true&confirm=true&payment_method=" + detached, "", "payment_method"},
		{"amount=500&currency=usd&off_session=true&confirm=true&payment_method=" + pm, "", "payment_method"}, // without its customer
		{base + "&confirm=true&payment_method=" + pm, "", ""},                                                // no return_url
		{base + "&confirm=true&off_session=true&payment_method_types[]=us_bank_account&payment_method=" + pm, "payment_intent_incompatible_payment_method", "payment_method"},
		{"amount=500&currency=usd&customer=cus_none", "resource_missing", "customer"},
		{base + "&frobnicate=1", "parameter_unknown", "frobnicate"},
	} {
		w.refused(w.post("/v1/payment_intents", c.form), 400, c.code, c.param)
	}
	w.wantTypes(n)
	if len(w.PaymentIntents("")) != 0 || len(w.Charges("")) != 0 {
		t.Errorf("a refused call made something")
	}
	w.refused(w.get("/v1/payment_intents/pi_none", ""), 404, "resource_missing", "intent")
}

func TestPaymentSucceeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	n := len(w.Events())
	params := &stripe.PaymentIntentParams{Amount: stripe.Int64(2000), Currency: stripe.String("usd"), Customer: stripe.String(cus),
		PaymentMethod: stripe.String(pm), OffSession: stripe.Bool(true), Confirm: stripe.Bool(true)}
	params.AddMetadata("topup_id", "t1")
	params.AddExpand("latest_charge")
	params.SetIdempotencyKey("topup:t1:attempt:1")
	pi, err := w.api.PaymentIntents.New(params)
	if err != nil {
		t.Fatal(err)
	}
	if pi.Status != "succeeded" || pi.AmountReceived != 2000 || !pi.LatestCharge.Paid || pi.LatestCharge.Metadata["topup_id"] != "t1" || pi.Metadata["topup_id"] != "t1" {
		t.Errorf("%+v", pi)
	}
	w.wantTypes(n, "payment_intent.created", "charge.succeeded", "payment_intent.succeeded")
	for _, e := range w.Events()[n:] {
		if e.IdempotencyKey != "topup:t1:attempt:1" {
			t.Errorf("%s: key %q", e.Type, e.IdempotencyKey)
		}
	}
	w.refused(w.post("/v1/payment_intents/"+pi.ID+"/confirm", ""), 400, "payment_intent_unexpected_state", "")
	w.refused(w.post("/v1/payment_intents/"+pi.ID+"/cancel", ""), 400, "payment_intent_unexpected_state", "")
	if got, _ := w.Customer(cus); got.Balance != 0 {
		t.Errorf("a payment moved the balance to %d", got.Balance)
	}
}

// A decline is a 402 with the intent inside, a failed charge and two events; the
// code tells a caller whether to try the card again.
func TestPaymentDeclined(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ token, code, decline string }{
		{"pm_card_chargeCustomerFail", "card_declined", "generic_decline"},
		{"pm_card_stripesim_insufficientFunds", "card_declined", "insufficient_funds"},
		{"pm_card_stripesim_do_not_honor", "card_declined", "do_not_honor"},
		{"pm_card_stripesim_lost_card", "card_declined", "lost_card"},
		{"pm_card_stripesim_expired_card", "expired_card", ""},
	} {
		t.Run(c.token, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cus, pm := w.withCard(c.token)
			n := len(w.Events())
			_, err := w.api.PaymentIntents.New(&stripe.PaymentIntentParams{Amount: stripe.Int64(2000), Currency: stripe.String("usd"),
				Customer: stripe.String(cus), PaymentMethod: stripe.String(pm), OffSession: stripe.Bool(true), Confirm: stripe.Bool(true)})
			e := stripeError(t, err)
			if e.HTTPStatusCode != 402 || e.Type != stripe.ErrorTypeCard || string(e.Code) != c.code || string(e.DeclineCode) != c.decline {
				t.Errorf("%d %s %s %s", e.HTTPStatusCode, e.Type, e.Code, e.DeclineCode)
			}
			pi := e.PaymentIntent
			if pi == nil || pi.Status != "requires_payment_method" || pi.PaymentMethod != nil || pi.LastPaymentError == nil ||
				string(pi.LastPaymentError.Code) != c.code || pi.LatestCharge == nil || e.PaymentMethod.ID != pm || e.ChargeID != pi.LatestCharge.ID {
				t.Fatalf("intent in the error: %+v", pi)
			}
			w.wantTypes(n, "payment_intent.created", "charge.failed", "payment_intent.payment_failed")
			charges := w.Charges(cus)
			if len(charges) != 1 || charges[0].Status != "failed" || charges[0].Paid || charges[0].FailureCode != c.code {
				t.Errorf("charges %+v", charges)
			}
			// The same intent can be paid with another card.
			good := w.attach(cus, "pm_card_visa")
			r := w.must(w.post("/v1/payment_intents/"+pi.ID+"/confirm", "off_session=true&payment_method="+good))
			if r.str("status") != "succeeded" || r.json["last_payment_error"] != nil {
				t.Errorf("second attempt: %s", r.body)
			}
		})
	}
}

// Off-session, a card that wants its owner is a 402, never requires_action, and
// the bank is never asked.
func TestAuthenticationRequiredOffSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_authenticationRequired")
	n := len(w.Events())
	r := w.charge(cus, pm, "2000")
	w.refused(r, 402, "authentication_required", "")
	if r.str("error", "decline_code") != "authentication_required" || r.str("error", "payment_intent", "status") != "requires_payment_method" {
		t.Errorf("%s", r.body)
	}
	w.wantTypes(n, "payment_intent.created", "payment_intent.payment_failed")
	if len(w.Charges(cus)) != 0 {
		t.Error("there is a charge")
	}
	pi := r.str("error", "payment_intent", "id")
	// The customer comes back with the intent's client secret.
	n = len(w.Events())
	if _, err := w.Operator().ConfirmPaymentIntent(pi, pm); err != nil {
		t.Fatal(err)
	}
	if got := w.PaymentIntents(cus)[0]; got.Status != "succeeded" {
		t.Errorf("status %s", got.Status)
	}
	w.wantTypes(n, "charge.succeeded", "payment_intent.succeeded")
	if e := w.Events()[n]; e.RequestID != "" {
		t.Error("the customer's act carries a request id of the caller's")
	}
}

func TestAuthenticationOnSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_authenticationRequired")
	form := "amount=2000&currency=usd&confirm=true&return_url=https://example.com&customer=" + cus + "&payment_method=" + pm
	if r := w.post("/v1/payment_intents", form+"&error_on_requires_action=true"); r.status != 402 {
		t.Errorf("error_on_requires_action: %d", r.status)
	}
	n := len(w.Events())
	r := w.must(w.post("/v1/payment_intents", form))
	if r.str("status") != "requires_action" || r.str("next_action", "type") == "" {
		t.Errorf("%s", r.body)
	}
	w.wantTypes(n, "payment_intent.created", "payment_intent.requires_action")
	pi := r.str("id")
	if _, err := w.Operator().FailAuthentication(pi); err != nil {
		t.Fatal(err)
	}
	if r := w.get("/v1/payment_intents/"+pi, ""); r.str("last_payment_error", "code") != "payment_intent_authentication_failure" {
		t.Errorf("%s", r.body)
	}
	if _, err := w.Operator().ConfirmPaymentIntent(pi, pm); err != nil {
		t.Fatal(err)
	}
	if r := w.get("/v1/payment_intents/"+pi, ""); r.str("status") != "succeeded" || r.json["next_action"] != nil {
		t.Errorf("%s", r.body)
	}
}

// Each kind of bank debit is charged off-session by its own type alone, in its own currencies, and its failure has the
// bank's reason as its code.
func TestBankDebits(t *testing.T) {
	t.Parallel()
	for token, c := range map[string]struct{ kind, currency, code string }{
		"pm_usBankAccount_accountClosed":      {"us_bank_account", "usd", "account_closed"},
		"pm_sepaDebit_debitNotAuthorized":     {"sepa_debit", "eur", "debit_not_authorized"},
		"pm_acssDebit_insufficientFunds":      {"acss_debit", "cad", "insufficient_funds"},
		"pm_auBecsDebit_noAccount":            {"au_becs_debit", "aud", "no_account"},
		"pm_bacsDebit_genericCouldNotProcess": {"bacs_debit", "gbp", "generic_could_not_process"},
	} {
		t.Run(token, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cus, pm := w.withCard(token)
			form := "amount=2000&currency=" + c.currency + "&customer=" + cus + "&payment_method=" + pm + "&off_session=true&confirm=true"
			w.refused(w.post("/v1/payment_intents", form+"&payment_method_types[]=card"), 400, "payment_intent_incompatible_payment_method", "payment_method")
			w.refused(w.post("/v1/payment_intents", strings.Replace(form, c.currency, "jpy", 1)+"&payment_method_types[]="+c.kind), 400, "", "payment_method_types")
			r := w.must(w.post("/v1/payment_intents", form+"&payment_method_types[]="+c.kind))
			if r.str("status") != "processing" || w.must(w.get("/v1/charges/"+r.str("latest_charge"), "")).str("payment_method_details", c.kind, "last4") != "2222" {
				t.Errorf("%s", r.body)
			}
			if m := w.must(w.get("/v1/payment_methods/"+pm, "")); m.str("type") != c.kind || m.str(c.kind, "last4") != "2222" {
				t.Errorf("%s", m.body)
			}
			w.Advance(time.Hour)
			r = w.must(w.get("/v1/payment_intents/"+r.str("id"), ""))
			if r.str("status") != "requires_payment_method" || r.str("last_payment_error", "code") != c.code || r.str("last_payment_error", "decline_code") != "" ||
				w.Charges(cus)[0].FailureCode != c.code {
				t.Errorf("%s", r.body)
			}
		})
	}
}

// A bank debit takes its time, and may fail at the end of it.
func TestProcessing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		token, end, status string
		events             []string
	}{
		{"pm_usBankAccount_success", "advance", "succeeded", []string{"charge.succeeded", "payment_intent.succeeded"}},
		{"pm_usBankAccount_insufficientFunds", "advance", "requires_payment_method", []string{"charge.failed", "payment_intent.payment_failed"}},
		{"pm_usBankAccount_processing", "advance", "processing", nil},
		{"pm_usBankAccount_processing", "succeed", "succeeded", []string{"charge.succeeded", "payment_intent.succeeded"}},
		{"pm_usBankAccount_success", "fail", "requires_payment_method", []string{"charge.failed", "payment_intent.payment_failed"}},
	} {
		t.Run(c.token+" "+c.end, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cus, pm := w.withCard(c.token)
			n := len(w.Events())
			r := w.must(w.charge(cus, pm, "2000"))
			if r.str("status") != "processing" || r.num("amount_received") != 0 || w.Charges(cus)[0].Status != "pending" {
				t.Fatalf("%s", r.body)
			}
			w.wantTypes(n, "payment_intent.created", "payment_intent.processing", "charge.pending")
			w.refused(w.post("/v1/payment_intents/"+r.str("id")+"/cancel", ""), 400, "payment_intent_unexpected_state", "")
			n = len(w.Events())
			switch c.end {
			case "advance":
				w.Advance(time.Hour)
			default:
				if _, err := w.Operator().FinishProcessing(r.str("id"), c.end == "succeed"); err != nil {
					t.Fatal(err)
				}
				w.Advance(time.Hour) // nothing is left to happen
			}
			w.wantTypes(n, c.events...)
			if got := w.PaymentIntents(cus)[0]; got.Status != c.status {
				t.Errorf("status %s", got.Status)
			}
		})
	}
}

func TestPaymentCanceled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	pi := w.must(w.post("/v1/payment_intents", "amount=500&currency=usd&customer="+cus)).str("id")
	if got := w.must(w.post("/v1/payment_intents/"+pi, "payment_method="+pm+"&metadata[a]=1&amount=700")); got.str("status") != "requires_confirmation" || got.num("amount") != 700 {
		t.Errorf("%s", got.body)
	}
	n := len(w.Events())
	r := w.must(w.post("/v1/payment_intents/"+pi+"/cancel", "cancellation_reason=abandoned"))
	if r.str("status") != "canceled" || r.num("canceled_at") == 0 || r.str("cancellation_reason") != "abandoned" {
		t.Errorf("%s", r.body)
	}
	w.wantTypes(n, "payment_intent.canceled")
	w.refused(w.post("/v1/payment_intents/"+pi+"/confirm", "off_session=true"), 400, "payment_intent_unexpected_state", "")
	w.refused(w.post("/v1/payment_intents/"+pi, "amount=800"), 400, "payment_intent_unexpected_state", "")
	w.must(w.post("/v1/payment_intents/"+pi, "metadata[b]=2"))
	if _, err := w.Operator().CancelPaymentIntent(pi); err == nil {
		t.Error("canceled twice")
	}
}

// The list is how a caller finds out whether an attempt of unknown outcome took
// place.
func TestPaymentIntentsListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	other, otherPM := w.withCard("pm_card_visa")
	old := w.must(w.charge(cus, pm, "500")).str("id")
	w.must(w.charge(other, otherPM, "500"))
	w.Advance(time.Hour)
	young := w.must(w.charge(cus, pm, "600")).str("id")
	ids := func(form string) (out []string) {
		for _, o := range w.must(w.get("/v1/payment_intents", form)).json["data"].([]any) {
			out = append(out, o.(map[string]any)["id"].(string))
		}
		return out
	}
	if got := ids("customer=" + cus); strings.Join(got, " ") != young+" "+old {
		t.Errorf("%v", got)
	}
	cut := url.Values{"customer": {cus}, "created[gte]": {itoa(w.Now().Unix() - 60)}}
	if got := ids(cut.Encode()); len(got) != 1 || got[0] != young {
		t.Errorf("%v", got)
	}
}

// A method that was never attached pays once.
func TestUnattachedMethodPaysOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	pm := w.must(w.post("/v1/payment_methods", "type=card&card[token]=tok_visa")).str("id")
	w.must(w.charge(cus, pm, "500"))
	w.refused(w.charge(cus, pm, "500"), 400, "", "payment_method")
	w.refused(w.post("/v1/payment_methods/"+pm+"/attach", "customer="+cus), 400, "", "payment_method")
	// Unless the payment saves it.
	saved := w.must(w.post("/v1/payment_methods", "type=card&card[token]=tok_mastercard")).str("id")
	w.must(w.post("/v1/payment_intents", "amount=500&currency=usd&confirm=true&return_url=https://x.example&setup_future_usage=off_session&customer="+cus+"&payment_method="+saved))
	w.must(w.charge(cus, saved, "500"))
}

func TestRefunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, pm := w.withCard("pm_card_visa")
	pi := w.must(w.charge(cus, pm, "2000"))
	ch := pi.str("latest_charge")
	for _, c := range []struct{ form, code, param string }{
		{"amount=5", "parameter_missing", ""},
		{"charge=ch_none", "resource_missing", "charge"},
		{"payment_intent=pi_none", "resource_missing", "payment_intent"},
		{"charge=" + ch + "&amount=0", "parameter_invalid_integer", "amount"},
		{"charge=" + ch + "&amount=2001", "", "amount"},
	} {
		w.refused(w.post("/v1/refunds", c.form), 400, c.code, c.param)
	}
	n := len(w.Events())
	first := w.must(w.post("/v1/refunds", "charge="+ch+"&amount=500&reason=requested_by_customer&metadata[a]=b"))
	w.wantTypes(n, "refund.created", "charge.refunded")
	if e := w.Events()[n+1]; !strings.Contains(string(e.Object), `"amount_refunded":500`) || string(e.PreviousAttributes) != `{"amount_refunded":0}` {
		t.Errorf("%s %s", e.PreviousAttributes, e.Object)
	}
	w.refused(w.post("/v1/refunds", "charge="+ch+"&amount=1501"), 400, "", "amount")
	second := w.must(w.post("/v1/refunds", "payment_intent="+pi.str("id")))
	if second.num("amount") != 1500 {
		t.Errorf("the rest: %s", second.body)
	}
	w.refused(w.post("/v1/refunds", "charge="+ch), 400, "charge_already_refunded", "")
	if r := w.get("/v1/charges/"+ch, ""); r.num("amount_refunded") != 2000 || r.json["refunded"] != true {
		t.Errorf("%s", r.body)
	}
	if r := w.get("/v1/refunds", "charge="+ch); len(r.json["data"].([]any)) != 2 {
		t.Errorf("%s", r.body)
	}
	// A refund can fail later: the money comes back to the merchant.
	if _, err := w.Operator().FailRefund(first.str("id")); err != nil {
		t.Fatal(err)
	}
	if r := w.get("/v1/charges/"+ch, ""); r.num("amount_refunded") != 1500 || r.json["refunded"] != false {
		t.Errorf("%s", r.body)
	}
	if r := w.get("/v1/refunds/"+first.str("id"), ""); r.str("status") != "failed" {
		t.Errorf("%s", r.body)
	}
}

func TestDisputes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.Operator()
	cus, pm := w.withCard("pm_card_visa")
	ch := w.must(w.charge(cus, pm, "2000")).str("latest_charge")
	if _, err := o.OpenDispute("ch_none", "fraudulent"); err == nil {
		t.Error("a dispute about nothing")
	}
	n := len(w.Events())
	d, err := o.OpenDispute(ch, "fraudulent")
	if err != nil {
		t.Fatal(err)
	}
	w.wantTypes(n, "charge.dispute.created", "charge.dispute.funds_withdrawn")
	w.refused(w.post("/v1/refunds", "charge="+ch), 400, "charge_disputed", "")
	if r := w.must(w.post("/v1/disputes/"+d, "evidence[uncategorized_text]=they+came+in+person")); r.str("status") != "under_review" {
		t.Errorf("%s", r.body)
	}
	if r := w.post("/v1/disputes/"+d, "evidence[uncategorized_text]=again"); r.status != 400 {
		t.Errorf("evidence twice: %d", r.status)
	}
	w.wantTypes(n+2, "charge.dispute.updated")
	n = len(w.Events())
	if _, err := o.CloseDispute(d, true); err != nil {
		t.Fatal(err)
	}
	w.wantTypes(n, "charge.dispute.closed", "charge.dispute.funds_reinstated")
	if r := w.must(w.get("/v1/disputes/"+d, "")); r.str("status") != "won" || len(r.json["balance_transactions"].([]any)) != 2 {
		t.Errorf("%s", r.body)
	}
	if _, err := o.CloseDispute(d, false); err == nil {
		t.Error("closed twice")
	}
	// An inquiry moves no money and leaves the charge refundable.
	ch2 := w.must(w.charge(cus, pm, "2000")).str("latest_charge")
	n = len(w.Events())
	inquiry, err := o.OpenInquiry(ch2, "general")
	if err != nil {
		t.Fatal(err)
	}
	w.wantTypes(n, "charge.dispute.created")
	w.must(w.post("/v1/refunds", "charge="+ch2))
	if _, err := o.CloseDispute(inquiry, false); err != nil {
		t.Fatal(err)
	}
	if r := w.must(w.get("/v1/disputes", "charge="+ch2)); len(r.json["data"].([]any)) != 1 {
		t.Errorf("%s", r.body)
	}
	// The test card that is always disputed.
	bad := w.attach(cus, "pm_card_createDispute")
	n = len(w.Events())
	w.must(w.charge(cus, bad, "2000"))
	w.wantTypes(n, "payment_intent.created", "charge.succeeded", "charge.dispute.created", "payment_intent.succeeded", "charge.dispute.funds_withdrawn")
}

func TestUnknownTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.customer()
	for _, token := range []string{"pm_card_unknown", "pm_card_stripesim_", "tok_visa"} {
		w.refused(w.post("/v1/payment_methods/"+token+"/attach", "customer="+cus), 404, "resource_missing", "payment_method")
	}
}
