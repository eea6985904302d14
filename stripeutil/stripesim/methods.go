package stripesim

import (
	"strings"
	"time"
)

var methodRoutes = map[string]handler{
	"POST /v1/payment_methods":             createMethod,
	"GET /v1/payment_methods":              listMethods,
	"GET /v1/payment_methods/{id}":         getMethod,
	"POST /v1/payment_methods/{id}":        updateMethod,
	"POST /v1/payment_methods/{id}/attach": attachMethod,
	"POST /v1/payment_methods/{id}/detach": detachMethod,
}

type paymentMethod struct {
	ID             string            `json:"id"`
	Object         string            `json:"object"`
	BillingDetails billingDetails    `json:"billing_details"`
	Card           *card             `json:"card,omitempty"`
	Created        int64             `json:"created"`
	Customer       opt               `json:"customer"`
	Livemode       bool              `json:"livemode"`
	Metadata       map[string]string `json:"metadata"`
	Type           string            `json:"type"`
	USBankAccount  *bankAccount      `json:"us_bank_account,omitempty"`
	SEPADebit      *bankDebit        `json:"sepa_debit,omitempty"`
	ACSSDebit      *bankDebit        `json:"acss_debit,omitempty"`
	BECSDebit      *bankDebit        `json:"au_becs_debit,omitempty"`
	BACSDebit      *bankDebit        `json:"bacs_debit,omitempty"`
}

type billingDetails struct {
	Address map[string]any `json:"address"`
	Email   opt            `json:"email"`
	Name    opt            `json:"name"`
	Phone   opt            `json:"phone"`
}

type card struct {
	Brand             string         `json:"brand"`
	Checks            map[string]any `json:"checks"`
	Country           string         `json:"country"`
	ExpMonth          int64          `json:"exp_month"`
	ExpYear           int64          `json:"exp_year"`
	Fingerprint       string         `json:"fingerprint"`
	Funding           string         `json:"funding"`
	GeneratedFrom     any            `json:"generated_from"`
	Last4             string         `json:"last4"`
	Networks          map[string]any `json:"networks"`
	ThreeDSecureUsage map[string]any `json:"three_d_secure_usage"`
	Wallet            any            `json:"wallet"`
}

// newMethod makes an unattached payment method from a test token.
func (c *call) newMethod(token string, spec testCard) *paymentMethod {
	pm := &paymentMethod{ID: newID("pm_1", 23), Object: "payment_method", Created: c.unix(), Livemode: c.livemode,
		Metadata: map[string]string{}, Type: "card",
		BillingDetails: billingDetails{Address: map[string]any{"city": nil, "country": nil, "line1": nil, "line2": nil, "postal_code": nil, "state": nil}}}
	if spec.bank != "" {
		pm.fillBank(spec)
	} else {
		expiry := c.now().Add(365 * 24 * time.Hour)
		funding := "credit"
		if strings.HasSuffix(token, "_debit") {
			funding = "debit"
		}
		pm.Card = &card{Brand: spec.brand, Country: "US", ExpMonth: int64(expiry.Month()), ExpYear: int64(expiry.Year()),
			Checks:      map[string]any{"address_line1_check": nil, "address_postal_code_check": nil, "cvc_check": "unchecked"},
			Fingerprint: newID("", 16), Funding: funding, Last4: spec.last4,
			Networks:          map[string]any{"available": []string{spec.brand}, "preferred": nil},
			ThreeDSecureUsage: map[string]any{"supported": true}}
	}
	c.state.PaymentMethods.put(pm.ID, pm)
	c.state.Tokens[pm.ID] = token
	return pm
}

// methodFor finds a payment method by id, or makes one when the id is a test
// token: each use of a token gives a new method.
func (c *call) methodFor(id, param string) (*paymentMethod, *apiError) {
	if pm := c.state.PaymentMethods.get(id); pm != nil {
		return pm, nil
	}
	spec, ok := cardFor(id)
	if !ok || c.livemode {
		return nil, noSuchParam("PaymentMethod", id, param)
	}
	return c.newMethod(id, spec), nil
}

// behaviour is how the method's test card behaves.
func (c *call) behaviour(pm *paymentMethod) testCard {
	spec, _ := cardFor(c.state.Tokens[pm.ID])
	return spec
}

// attachable says whether a method can be attached. Some test cards fail the
// bank's check of the card, which Stripe makes at this point.
func (c *call) attachable(pm *paymentMethod) *apiError {
	if c.state.Used[pm.ID] {
		return errMethodSpent()
	}
	if pm.Customer != "" {
		return badRequest("", "", "The payment method you provided has already been attached to a customer.")
	}
	if spec := c.behaviour(pm); spec.refused {
		return declined(spec.decline)
	}
	return nil
}

func errMethodSpent() *apiError {
	return badRequest("", "payment_method", "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, shared with a connected account without Customer attachment, or was detached from a Customer. It may not be used again. To use a PaymentMethod multiple times, you must attach it to a Customer first.")
}

func (c *call) attachTo(cus *customer, pm *paymentMethod) {
	pm.Customer = opt(cus.ID)
	c.emit("payment_method.attached", pm, nil)
}

func createMethod(c *call) (any, *apiError) {
	kind := c.enum("type", "card", "us_bank_account", "sepa_debit", "acss_debit", "au_becs_debit", "bacs_debit")
	metadata := c.metadata(nil)
	token := "pm_card_visa"
	for name, d := range bankDebits {
		if d.kind == kind {
			token = "pm_" + name + "_success"
		}
	}
	if h := c.hash("card"); h != nil {
		if t := h.str("token"); t != "" {
			token = "pm_card_" + strings.TrimPrefix(t, "tok_")
		}
		h.ignore("number", "exp_month", "exp_year", "cvc")
		if h.has("number") {
			c.fail(refuse(402, "", "card[number]", "Sending credit card numbers directly to the Stripe API is generally unsafe. To continue processing use Stripe.js, the Stripe mobile bindings, or Stripe Elements."))
		}
	} else if kind == "card" {
		c.fail(missing("card"))
	}
	var details billingDetails
	c.fillBilling(&details)
	c.ignore("us_bank_account", "sepa_debit", "acss_debit", "au_becs_debit", "bacs_debit")
	if kind == "" {
		c.fail(missing("type"))
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	spec, ok := cardFor(token)
	if !ok || c.livemode {
		return nil, noSuchParam("token", "tok_"+strings.TrimPrefix(token, "pm_card_"), "card[token]")
	}
	pm := c.newMethod(token, spec)
	pm.Metadata = metadata
	details.Address = pm.BillingDetails.Address
	pm.BillingDetails = details
	return pm, nil
}

func (c *call) fillBilling(d *billingDetails) {
	if h := c.hash("billing_details"); h != nil {
		h.set("email", &d.Email)
		h.set("name", &d.Name)
		h.set("phone", &d.Phone)
		h.ignore("address")
	}
}

func (c *call) methodAt() (*paymentMethod, *apiError) {
	if pm := c.state.PaymentMethods.get(c.id()); pm != nil {
		return pm, nil
	}
	return nil, noSuch("PaymentMethod", c.id(), "")
}

func getMethod(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	// Reading a token shows the method that using it would make.
	if spec, ok := cardFor(c.id()); ok && !c.livemode {
		return c.newMethod(c.id(), spec), nil
	}
	return orError(c.methodAt())
}

func getCustomerMethod(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	pm := c.state.PaymentMethods.get(c.args[1])
	if pm == nil || string(pm.Customer) != c.id() {
		return nil, noSuch("PaymentMethod", c.args[1], "payment_method")
	}
	return pm, nil
}

func updateMethod(c *call) (any, *apiError) {
	pm, err := c.methodAt()
	if err != nil {
		return nil, err
	}
	next := *pm
	next.Metadata = c.metadata(pm.Metadata)
	c.fillBilling(&next.BillingDetails)
	if h := c.hash("card"); h != nil && pm.Card != nil {
		changed := *pm.Card
		if n, ok := h.positive("exp_month"); ok {
			changed.ExpMonth = n
		}
		if n, ok := h.positive("exp_year"); ok {
			changed.ExpYear = n
		}
		next.Card = &changed
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	if pm.Customer == "" {
		return nil, badRequest("", "", "You must save this PaymentMethod to a customer before you can update it.")
	}
	before := toMap(pm)
	*pm = next
	c.emitUpdated("payment_method.updated", before, pm)
	return pm, nil
}

func attachMethod(c *call) (any, *apiError) {
	customerID := c.need("customer")
	if err := c.done(); err != nil {
		return nil, err
	}
	cus, err := c.customerIn(customerID)
	if err != nil {
		return nil, err
	}
	pm, err := c.methodFor(c.id(), "payment_method")
	if err != nil {
		err.status = 404
		return nil, err
	}
	if string(pm.Customer) == cus.ID {
		return pm, nil
	}
	if err := c.attachable(pm); err != nil {
		return nil, err
	}
	c.attachTo(cus, pm)
	return pm, nil
}

func detachMethod(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	pm, err := c.methodAt()
	if err != nil {
		return nil, err
	}
	if err := c.detach(pm); err != nil {
		return nil, err
	}
	return pm, nil
}

// detach is final: the method can never be used or attached again. A customer
// whose default it was is left without one.
func (c *call) detach(pm *paymentMethod) *apiError {
	if pm.Customer == "" {
		return badRequest("", "", "The payment method you provided is not attached to a customer so detachment is impossible.")
	}
	cus := c.state.Customers.get(string(pm.Customer))
	before := toMap(pm)
	pm.Customer = ""
	c.state.Used[pm.ID] = true
	c.emitUpdated("payment_method.detached", before, pm)
	if cus != nil && string(cus.InvoiceSettings.DefaultPaymentMethod) == pm.ID {
		was := toMap(cus)
		cus.InvoiceSettings.DefaultPaymentMethod = ""
		c.emitUpdated("customer.updated", was, cus)
	}
	return nil
}

func listMethods(c *call) (any, *apiError) {
	customerID := c.ref("customer")
	return c.methodsOf(customerID)
}

func listCustomerMethods(c *call) (any, *apiError) {
	if _, err := c.customerAt("customer"); err != nil {
		return nil, err
	}
	return c.methodsOf(c.id())
}

// methodsOf lists a customer's methods; methods of nobody are never listed.
func (c *call) methodsOf(customerID string) (any, *apiError) {
	w, kind := c.window(false), c.params.str("type")
	if err := c.done(); err != nil {
		return nil, err
	}
	if _, err := c.customerIn(customerID); err != nil {
		return nil, err
	}
	return list(c, &c.state.PaymentMethods, w, "PaymentMethod", func(r *paymentMethod) int64 { return r.Created },
		func(r *paymentMethod) bool {
			return r.Customer != "" && string(r.Customer) == customerID && (kind == "" || r.Type == kind)
		})
}
