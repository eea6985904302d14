package stripesim

var setupRoutes = map[string]handler{
	"POST /v1/setup_intents":              createSetupIntent,
	"GET /v1/setup_intents":               listSetupIntents,
	"GET /v1/setup_intents/{id}":          getSetupIntent,
	"POST /v1/setup_intents/{id}":         updateSetupIntent,
	"POST /v1/setup_intents/{id}/confirm": confirmSetupIntent,
	"POST /v1/setup_intents/{id}/cancel":  cancelSetupIntent,
}

type setupIntent struct {
	ID                      string            `json:"id"`
	Object                  string            `json:"object"`
	Application             any               `json:"application"`
	AutomaticPaymentMethods *automaticMethods `json:"automatic_payment_methods"`
	CancellationReason      opt               `json:"cancellation_reason"`
	ClientSecret            string            `json:"client_secret"`
	Created                 int64             `json:"created"`
	Customer                opt               `json:"customer"`
	Description             opt               `json:"description"`
	FlowDirections          any               `json:"flow_directions"`
	LastSetupError          *apiError         `json:"last_setup_error"`
	LatestAttempt           opt               `json:"latest_attempt"`
	Livemode                bool              `json:"livemode"`
	Mandate                 opt               `json:"mandate"`
	Metadata                map[string]string `json:"metadata"`
	NextAction              *nextAction       `json:"next_action"`
	OnBehalfOf              any               `json:"on_behalf_of"`
	PaymentMethod           opt               `json:"payment_method"`
	PaymentMethodOptions    any               `json:"payment_method_options"`
	PaymentMethodTypes      []string          `json:"payment_method_types"`
	SingleUseMandate        opt               `json:"single_use_mandate"`
	Status                  string            `json:"status"`
	Usage                   string            `json:"usage"`
}

// newSetupIntent makes a setup intent in its first state and says so.
func (c *call) newSetupIntent(si setupIntent) *setupIntent {
	si.ID, si.Object = newID("seti_1", 23), "setup_intent"
	si.ClientSecret = si.ID + "_secret_" + newID("", 25)
	si.Created, si.Livemode, si.Metadata = c.unix(), c.livemode, cloneMetadata(si.Metadata)
	if si.Usage == "" {
		si.Usage = "off_session"
	}
	if len(si.PaymentMethodTypes) == 0 {
		si.PaymentMethodTypes = []string{"card"}
	}
	si.Status = "requires_payment_method"
	if si.PaymentMethod != "" {
		si.Status = "requires_confirmation"
	}
	c.state.SetupIntents.put(si.ID, &si)
	c.emit("setup_intent.created", &si, nil)
	return &si
}

func createSetupIntent(c *call) (any, *apiError) {
	si := setupIntent{Usage: c.enum("usage", "off_session", "on_session"), Metadata: c.metadata(nil)}
	customerID, methodID := c.ref("customer"), c.ref("payment_method")
	confirm, returnURL := c.boolean("confirm"), c.ref("return_url")
	c.set("description", &si.Description)
	si.PaymentMethodTypes = c.params.list("payment_method_types")
	si.AutomaticPaymentMethods = c.automaticMethods(len(si.PaymentMethodTypes) > 0)
	c.ignore("mandate_data", "payment_method_options", "use_stripe_sdk")
	if err := c.done(); err != nil {
		return nil, err
	}
	if si.AutomaticPaymentMethods != nil {
		si.PaymentMethodTypes = []string{"card", "us_bank_account"}
	}
	if _, err := c.customerIn(customerID); err != nil {
		return nil, err
	}
	si.Customer = opt(customerID)
	var pm *paymentMethod
	if methodID != "" {
		var err *apiError
		if pm, err = c.usable(methodID, customerID); err != nil {
			return nil, err
		}
		si.PaymentMethod = opt(pm.ID)
	}
	if confirm && pm == nil {
		return nil, badRequest("parameter_missing", "payment_method", "You cannot confirm this SetupIntent because it's missing a payment method. Update the SetupIntent with a payment method and then confirm it again.")
	}
	if confirm && returnURL == "" && si.AutomaticPaymentMethods.redirects() {
		return nil, errNeedsReturnURL("SetupIntent")
	}
	made := c.newSetupIntent(si)
	if confirm {
		if err := c.setUp(made, pm, false); err != nil {
			return nil, err
		}
	}
	return made, nil
}

func (c *call) setupIntentAt() (*setupIntent, *apiError) {
	if si := c.state.SetupIntents.get(c.id()); si != nil {
		return si, nil
	}
	return nil, noSuch("setupintent", c.id(), "intent")
}

func getSetupIntent(c *call) (any, *apiError) {
	c.ignore("client_secret")
	if err := c.done(); err != nil {
		return nil, err
	}
	return orError(c.setupIntentAt())
}

func updateSetupIntent(c *call) (any, *apiError) {
	si, err := c.setupIntentAt()
	if err != nil {
		return nil, err
	}
	next := *si
	next.Metadata = c.metadata(si.Metadata)
	c.set("description", &next.Description)
	if err := c.done(); err != nil {
		return nil, err
	}
	*si = next
	return si, nil
}

func confirmSetupIntent(c *call) (any, *apiError) {
	methodID := c.ref("payment_method")
	returnURL := c.ref("return_url")
	c.ignore("client_secret", "mandate_data", "payment_method_options", "use_stripe_sdk")
	if err := c.done(); err != nil {
		return nil, err
	}
	si, err := c.setupIntentAt()
	if err != nil {
		return nil, err
	}
	if si.Status != "requires_payment_method" && si.Status != "requires_confirmation" && si.Status != "requires_action" {
		return nil, badRequest("setup_intent_unexpected_state", "", "You cannot confirm this SetupIntent because it has a status of %s.", si.Status).withSetup(si)
	}
	if methodID == "" {
		methodID = string(si.PaymentMethod)
	}
	if methodID == "" {
		return nil, badRequest("parameter_missing", "payment_method", "You cannot confirm this SetupIntent because it's missing a payment method. You can either update the SetupIntent with a payment method and then confirm it again, or confirm it again directly with a payment method.").withSetup(si)
	}
	pm, err := c.usable(methodID, string(si.Customer))
	if err != nil {
		return nil, err
	}
	if returnURL == "" && si.AutomaticPaymentMethods.redirects() {
		return nil, errNeedsReturnURL("SetupIntent")
	}
	if err := c.setUp(si, pm, false); err != nil {
		return nil, err
	}
	return si, nil
}

// setUp tries a method for later use. Success attaches it to the intent's
// customer, but makes it nobody's default.
func (c *call) setUp(si *setupIntent, pm *paymentMethod, authenticated bool) *apiError {
	spec := c.behaviour(pm)
	si.LatestAttempt, si.NextAction, si.LastSetupError = opt(newID("setatt_1", 23)), nil, nil
	switch {
	case (spec.auth || spec.authOnSetup) && !authenticated:
		si.PaymentMethod, si.Status, si.NextAction = opt(pm.ID), "requires_action", useSDK()
		c.emit("setup_intent.requires_action", si, nil)
		return nil
	case spec.refused:
		e := declined(spec.decline)
		snapshot := *pm
		e.PaymentMethod = &snapshot
		si.LastSetupError, si.PaymentMethod, si.Status = e.inside(), "", "requires_payment_method"
		c.emit("setup_intent.setup_failed", si, nil)
		return e.withSetup(si)
	}
	si.PaymentMethod, si.Status = opt(pm.ID), "succeeded"
	c.state.Set[pm.ID] = true
	if cus := c.state.Customers.get(string(si.Customer)); cus != nil && pm.Customer == "" {
		c.attachTo(cus, pm)
	}
	c.emit("setup_intent.succeeded", si, nil)
	return nil
}

func cancelSetupIntent(c *call) (any, *apiError) {
	reason := c.enum("cancellation_reason", "abandoned", "requested_by_customer", "duplicate")
	if err := c.done(); err != nil {
		return nil, err
	}
	si, err := c.setupIntentAt()
	if err != nil {
		return nil, err
	}
	if si.Status == "succeeded" || si.Status == "canceled" || si.Status == "processing" {
		return nil, badRequest("setup_intent_unexpected_state", "", "You cannot cancel this SetupIntent because it has a status of %s. Only a SetupIntent with one of the following statuses may be canceled: requires_payment_method, requires_confirmation, requires_action.", si.Status).withSetup(si)
	}
	si.Status, si.CancellationReason, si.NextAction = "canceled", opt(reason), nil
	c.emit("setup_intent.canceled", si, nil)
	return si, nil
}

func listSetupIntents(c *call) (any, *apiError) {
	w, cus, pm := c.window(true), c.ref("customer"), c.ref("payment_method")
	return list(c, &c.state.SetupIntents, w, "setupintent", func(r *setupIntent) int64 { return r.Created },
		func(r *setupIntent) bool {
			return (cus == "" || string(r.Customer) == cus) && (pm == "" || string(r.PaymentMethod) == pm)
		})
}

// withSetup puts a copy of the intent into the answer: the error is saved, the
// intent goes on.
func (e *apiError) withSetup(si *setupIntent) *apiError {
	snapshot := *si
	e.SetupIntent = &snapshot
	return e
}
