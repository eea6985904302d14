package stripesim

import (
	"slices"
	"strings"
)

var intentRoutes = map[string]handler{
	"POST /v1/payment_intents":              createPaymentIntent,
	"GET /v1/payment_intents":               listPaymentIntents,
	"GET /v1/payment_intents/{id}":          getPaymentIntent,
	"POST /v1/payment_intents/{id}":         updatePaymentIntent,
	"POST /v1/payment_intents/{id}/confirm": confirmPaymentIntent,
	"POST /v1/payment_intents/{id}/cancel":  cancelPaymentIntent,
}

type paymentIntent struct {
	ID                        string            `json:"id"`
	Object                    string            `json:"object"`
	Amount                    int64             `json:"amount"`
	AmountCapturable          int64             `json:"amount_capturable"`
	AmountDetails             map[string]any    `json:"amount_details"`
	AmountReceived            int64             `json:"amount_received"`
	Application               any               `json:"application"`
	ApplicationFeeAmount      any               `json:"application_fee_amount"`
	AutomaticPaymentMethods   *automaticMethods `json:"automatic_payment_methods"`
	CanceledAt                optInt            `json:"canceled_at"`
	CancellationReason        opt               `json:"cancellation_reason"`
	CaptureMethod             string            `json:"capture_method"`
	ClientSecret              string            `json:"client_secret"`
	ConfirmationMethod        string            `json:"confirmation_method"`
	Created                   int64             `json:"created"`
	Currency                  string            `json:"currency"`
	Customer                  opt               `json:"customer"`
	Description               opt               `json:"description"`
	Invoice                   opt               `json:"invoice"`
	LastPaymentError          *apiError         `json:"last_payment_error"`
	LatestCharge              opt               `json:"latest_charge"`
	Livemode                  bool              `json:"livemode"`
	Metadata                  map[string]string `json:"metadata"`
	NextAction                *nextAction       `json:"next_action"`
	OnBehalfOf                any               `json:"on_behalf_of"`
	PaymentMethod             opt               `json:"payment_method"`
	PaymentMethodOptions      map[string]any    `json:"payment_method_options"`
	PaymentMethodTypes        []string          `json:"payment_method_types"`
	Processing                any               `json:"processing"`
	ReceiptEmail              opt               `json:"receipt_email"`
	Review                    any               `json:"review"`
	SetupFutureUsage          opt               `json:"setup_future_usage"`
	Shipping                  any               `json:"shipping"`
	StatementDescriptor       opt               `json:"statement_descriptor"`
	StatementDescriptorSuffix opt               `json:"statement_descriptor_suffix"`
	Status                    string            `json:"status"`
	TransferData              any               `json:"transfer_data"`
	TransferGroup             opt               `json:"transfer_group"`
}

type automaticMethods struct {
	AllowRedirects string `json:"allow_redirects"`
	Enabled        bool   `json:"enabled"`
}

// redirects says whether a confirmation may send the customer off the page.
func (a *automaticMethods) redirects() bool {
	return a != nil && a.Enabled && a.AllowRedirects != "never"
}

type nextAction struct {
	Type         string         `json:"type"`
	UseStripeSDK map[string]any `json:"use_stripe_sdk,omitempty"`
}

func useSDK() *nextAction {
	return &nextAction{Type: "use_stripe_sdk", UseStripeSDK: map[string]any{"type": "three_d_secure_redirect", "stripe_js": "https://hooks.stripe.com/redirect/authenticate"}}
}

// automaticMethods reads the parameter of that name. Since API 2023-08-16 it is
// on unless the caller lists the types of method.
func (c *call) automaticMethods(typesGiven bool) *automaticMethods {
	a := &automaticMethods{AllowRedirects: "always", Enabled: true}
	h := c.hash("automatic_payment_methods")
	if h == nil {
		if typesGiven {
			return nil
		}
		return a
	}
	a.Enabled = h.boolean("enabled")
	if v := h.enum("allow_redirects", "always", "never"); v != "" {
		a.AllowRedirects = v
	}
	if typesGiven && a.Enabled {
		c.fail(badRequest("", "payment_method_types", "You may only specify one of these parameters: automatic_payment_methods, payment_method_types."))
	}
	if !a.Enabled {
		return nil
	}
	return a
}

func errNeedsReturnURL(kind string) *apiError {
	return badRequest("", "", "This %s is configured to accept payment methods enabled in your Dashboard. Because some of these payment methods might redirect your customer off of your page, you must provide a `return_url`. If you don't want to accept redirect-based payment methods, set `automatic_payment_methods[enabled]` to `true` and `automatic_payment_methods[allow_redirects]` to `never` when creating Setup Intents and Payment Intents.", kind)
}

// minimumCharge is the smallest payment Stripe takes, by currency.
// https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts
var minimumCharge = map[string]int64{"usd": 50, "aud": 50, "brl": 50, "cad": 50, "chf": 50, "eur": 50, "gbp": 30,
	"inr": 50, "nzd": 50, "sgd": 50, "jpy": 50, "dkk": 250, "nok": 300, "sek": 300, "hkd": 400, "mxn": 1000, "pln": 200, "czk": 1500}

const maximumCharge = 99_999_999 // eight digits

func chargeable(amount int64, currency string) *apiError {
	if least := minimumCharge[currency]; amount < least {
		return badRequest("amount_too_small", "amount", "Amount must be at least %s", money(least, currency))
	}
	if amount > maximumCharge {
		return badRequest("amount_too_large", "amount", "Amount must be no more than %s", money(maximumCharge, currency))
	}
	return nil
}

// newPaymentIntent makes a payment intent in its first state and says so.
func (c *call) newPaymentIntent(pi paymentIntent) *paymentIntent {
	pi.ID, pi.Object = newID("pi_3", 23), "payment_intent"
	pi.ClientSecret = pi.ID + "_secret_" + newID("", 25)
	pi.Created, pi.Livemode, pi.Metadata = c.unix(), c.livemode, cloneMetadata(pi.Metadata)
	pi.AmountDetails, pi.ConfirmationMethod = map[string]any{"tip": map[string]any{}}, "automatic"
	pi.PaymentMethodOptions = map[string]any{"card": map[string]any{"installments": nil, "mandate_options": nil, "network": nil, "request_three_d_secure": "automatic"}}
	if pi.CaptureMethod == "" {
		pi.CaptureMethod = "automatic"
	}
	if len(pi.PaymentMethodTypes) == 0 {
		pi.PaymentMethodTypes = []string{"card"}
		if pi.AutomaticPaymentMethods != nil {
			pi.PaymentMethodTypes = []string{"card", "link", "us_bank_account"}
		}
	}
	pi.Status = "requires_payment_method"
	if pi.PaymentMethod != "" {
		pi.Status = "requires_confirmation"
	}
	c.state.PaymentIntents.put(pi.ID, &pi)
	c.emit("payment_intent.created", &pi, nil)
	return &pi
}

// confirmation is how a caller asks for the attempt to be made.
type confirmation struct {
	confirm, offSession, errorOnAction bool
	returnURL                          string
}

func (c *call) confirmation() confirmation {
	k := confirmation{errorOnAction: c.boolean("error_on_requires_action"), returnURL: c.ref("return_url")}
	if v := c.params.str("off_session"); v == "one_off" || v == "recurring" {
		k.offSession = true
	} else {
		k.offSession = c.boolean("off_session")
	}
	c.ignore("mandate", "mandate_data", "payment_method_options", "radar_options", "use_stripe_sdk")
	return k
}

func (c *call) fillIntent(pi *paymentIntent) {
	pi.Metadata = c.metadata(pi.Metadata)
	c.set("description", &pi.Description)
	c.set("receipt_email", &pi.ReceiptEmail)
	c.set("statement_descriptor", &pi.StatementDescriptor)
	c.set("statement_descriptor_suffix", &pi.StatementDescriptorSuffix)
	c.set("transfer_group", &pi.TransferGroup)
	if v := c.enum("setup_future_usage", "off_session", "on_session"); v != "" {
		pi.SetupFutureUsage = opt(v)
	}
	c.ignore("shipping", "payment_method_options")
}

func createPaymentIntent(c *call) (any, *apiError) {
	pi := paymentIntent{Amount: c.needInt("amount"), Currency: c.currency("currency", true)}
	customerID, methodID := c.ref("customer"), c.ref("payment_method")
	c.fillIntent(&pi)
	k := c.confirmation()
	k.confirm = c.boolean("confirm")
	pi.CaptureMethod = c.enum("capture_method", "automatic", "automatic_async")
	pi.PaymentMethodTypes = c.params.list("payment_method_types")
	pi.AutomaticPaymentMethods = c.automaticMethods(len(pi.PaymentMethodTypes) > 0)
	c.enum("confirmation_method", "automatic")
	if pi.Amount < 1 {
		c.fail(badRequest("parameter_invalid_integer", "amount", "This value must be greater than or equal to 1."))
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	if k.offSession && !k.confirm {
		return nil, badRequest("", "off_session", "You cannot set `off_session` to `true` when `confirm` is not `true`.")
	}
	if err := chargeable(pi.Amount, pi.Currency); err != nil {
		return nil, err
	}
	if err := payableIn(pi.PaymentMethodTypes, pi.Currency); err != nil {
		return nil, err
	}
	if _, err := c.customerIn(customerID); err != nil {
		return nil, err
	}
	pi.Customer = opt(customerID)
	var pm *paymentMethod
	if methodID != "" {
		var err *apiError
		if pm, err = c.usable(methodID, customerID); err != nil {
			return nil, err
		}
		pi.PaymentMethod = opt(pm.ID)
	}
	if k.confirm {
		if err := confirmable(&pi, pm, k); err != nil {
			return nil, err
		}
	}
	made := c.newPaymentIntent(pi)
	if k.confirm {
		if err := c.attempt(made, pm, k, false); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// usable is the method that a payment or setup names, if that customer may use
// it: their own, or one that nobody has used yet.
func (c *call) usable(id, customerID string) (*paymentMethod, *apiError) {
	pm, err := c.methodFor(id, "payment_method")
	if err != nil {
		return nil, err
	}
	switch {
	case c.state.Used[pm.ID]:
		return nil, errMethodSpent()
	case pm.Customer == "" || string(pm.Customer) == customerID:
		return pm, nil
	case customerID == "":
		return nil, badRequest("", "payment_method", "The PaymentMethod supplied (%s) belongs to a Customer (%s). Please include the Customer in the `customer` parameter on the PaymentIntent.", pm.ID, pm.Customer)
	}
	return nil, badRequest("", "payment_method", "The provided PaymentMethod cannot be used: %s belongs to a different Customer. The customer %s does not have a payment method with the ID %s. The payment method must be attached to the customer.", pm.ID, customerID, pm.ID)
}

// confirmable refuses an attempt that cannot be made.
func confirmable(pi *paymentIntent, pm *paymentMethod, k confirmation) *apiError {
	switch {
	case pm == nil:
		return badRequest("parameter_missing", "payment_method", "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update the PaymentIntent with a payment method and then confirm it again, or confirm it again directly with a payment method or ConfirmationToken.")
	case !k.offSession && k.returnURL == "" && pi.AutomaticPaymentMethods.redirects():
		return errNeedsReturnURL("PaymentIntent")
	case len(pi.PaymentMethodTypes) > 0 && !slices.Contains(pi.PaymentMethodTypes, pm.Type):
		return incompatible(pi, pm)
	}
	return nil
}

// incompatible refuses a method of a type that the payment does not allow.
func incompatible(pi *paymentIntent, pm *paymentMethod) *apiError {
	return badRequest("payment_intent_incompatible_payment_method", "payment_method", "The PaymentMethod provided (%s) is not allowed for this PaymentIntent. Please attach a PaymentMethod of one of the following types: %s.", pm.Type, strings.Join(pi.PaymentMethodTypes, ", "))
}

// payableIn refuses a type of method that does not pay in a currency.
func payableIn(types []string, currency string) *apiError {
	for _, kind := range types {
		if in := debitCurrencies(kind); in != nil && !slices.Contains(in, currency) {
			return badRequest("", "payment_method_types", "The currency provided (%s) is invalid for one or more of the payment method types: %s supports %s.", currency, kind, strings.Join(in, ", "))
		}
	}
	return nil
}

func (c *call) paymentIntentAt() (*paymentIntent, *apiError) {
	if pi := c.state.PaymentIntents.get(c.id()); pi != nil {
		return pi, nil
	}
	return nil, noSuch("payment_intent", c.id(), "intent")
}

func getPaymentIntent(c *call) (any, *apiError) {
	c.ignore("client_secret")
	if err := c.done(); err != nil {
		return nil, err
	}
	return orError(c.paymentIntentAt())
}

// withIntent puts a copy of the intent into the answer.
func (e *apiError) withIntent(pi *paymentIntent) *apiError {
	snapshot := *pi
	e.PaymentIntent = &snapshot
	return e
}

// inside is the error as last_payment_error holds it.
func (e *apiError) inside() *apiError {
	kept := *e
	kept.PaymentIntent, kept.SetupIntent, kept.RequestLogURL = nil, nil, ""
	return &kept
}

func unexpectedState(pi *paymentIntent, format string, args ...any) *apiError {
	return badRequest("payment_intent_unexpected_state", "", format, args...).withIntent(pi)
}

func updatePaymentIntent(c *call) (any, *apiError) {
	pi, err := c.paymentIntentAt()
	if err != nil {
		return nil, err
	}
	next := *pi
	c.fillIntent(&next)
	amount, newAmount := c.positive("amount")
	customerID, methodID := c.ref("customer"), c.ref("payment_method")
	if err := c.done(); err != nil {
		return nil, err
	}
	if (newAmount || customerID != "" || methodID != "") && !slices.Contains(cancelable[:3], pi.Status) {
		return nil, unexpectedState(pi, "This PaymentIntent's amount, customer or payment_method could not be updated because it has a status of %s.", pi.Status)
	}
	if newAmount {
		if err := chargeable(amount, pi.Currency); err != nil {
			return nil, err
		}
		next.Amount = amount
	}
	if customerID != "" {
		if _, err := c.customerIn(customerID); err != nil {
			return nil, err
		}
		next.Customer = opt(customerID)
	}
	if methodID != "" {
		pm, err := c.usable(methodID, string(next.Customer))
		if err != nil {
			return nil, err
		}
		next.PaymentMethod, next.Status = opt(pm.ID), "requires_confirmation"
	}
	*pi = next // Stripe has no payment_intent.updated
	return pi, nil
}

func confirmPaymentIntent(c *call) (any, *apiError) {
	methodID := c.ref("payment_method")
	k := c.confirmation()
	c.ignore("client_secret", "receipt_email", "setup_future_usage", "capture_method")
	if err := c.done(); err != nil {
		return nil, err
	}
	pi, err := c.paymentIntentAt()
	if err != nil {
		return nil, err
	}
	switch pi.Status {
	case "succeeded":
		return nil, unexpectedState(pi, "You cannot confirm this PaymentIntent because it has already succeeded after being previously confirmed.")
	case "canceled", "processing":
		return nil, unexpectedState(pi, "You cannot confirm this PaymentIntent because it has a status of %s. Only a PaymentIntent with one of the following statuses may be confirmed: requires_confirmation, requires_action.", pi.Status)
	}
	if methodID == "" {
		methodID = string(pi.PaymentMethod)
	}
	var pm *paymentMethod
	if methodID != "" {
		if pm, err = c.usable(methodID, string(pi.Customer)); err != nil {
			return nil, err
		}
	}
	if err := confirmable(pi, pm, k); err != nil {
		return nil, err.withIntent(pi)
	}
	if err := c.attempt(pi, pm, k, false); err != nil {
		return nil, err
	}
	return pi, nil
}

// cancelable are the states in which a payment can be called off; in the first
// three its terms can still change.
var cancelable = []string{"requires_payment_method", "requires_confirmation", "requires_action", "requires_capture"}

func cancelPaymentIntent(c *call) (any, *apiError) {
	reason := c.enum("cancellation_reason", "duplicate", "fraudulent", "requested_by_customer", "abandoned")
	if err := c.done(); err != nil {
		return nil, err
	}
	pi, err := c.paymentIntentAt()
	if err != nil {
		return nil, err
	}
	if err := c.cancelIntent(pi, reason); err != nil {
		return nil, err
	}
	return pi, nil
}

func (c *call) cancelIntent(pi *paymentIntent, reason string) *apiError {
	if !slices.Contains(cancelable, pi.Status) {
		return unexpectedState(pi, "You cannot cancel this PaymentIntent because it has a status of %s. Only a PaymentIntent with one of the following statuses may be canceled: requires_payment_method, requires_capture, requires_confirmation, requires_action, processing.", pi.Status)
	}
	pi.Status, pi.CanceledAt, pi.CancellationReason, pi.NextAction = "canceled", optInt(c.unix()), opt(reason), nil
	c.emit("payment_intent.canceled", pi, nil)
	return nil
}

func listPaymentIntents(c *call) (any, *apiError) {
	w, cus := c.window(true), c.ref("customer")
	return list(c, &c.state.PaymentIntents, w, "payment_intent", func(r *paymentIntent) int64 { return r.Created },
		func(r *paymentIntent) bool { return cus == "" || string(r.Customer) == cus })
}
