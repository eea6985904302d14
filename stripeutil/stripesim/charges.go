package stripesim

var chargeRoutes = map[string]handler{
	"GET /v1/charges":       listCharges,
	"GET /v1/charges/{id}":  getCharge,
	"POST /v1/charges/{id}": updateCharge,
}

type charge struct {
	ID                            string            `json:"id"`
	Object                        string            `json:"object"`
	Amount                        int64             `json:"amount"`
	AmountCaptured                int64             `json:"amount_captured"`
	AmountRefunded                int64             `json:"amount_refunded"`
	Application                   any               `json:"application"`
	ApplicationFee                any               `json:"application_fee"`
	ApplicationFeeAmount          any               `json:"application_fee_amount"`
	BalanceTransaction            opt               `json:"balance_transaction"`
	BillingDetails                billingDetails    `json:"billing_details"`
	CalculatedStatementDescriptor opt               `json:"calculated_statement_descriptor"`
	Captured                      bool              `json:"captured"`
	Created                       int64             `json:"created"`
	Currency                      string            `json:"currency"`
	Customer                      opt               `json:"customer"`
	Description                   opt               `json:"description"`
	Disputed                      bool              `json:"disputed"`
	FailureBalanceTransaction     opt               `json:"failure_balance_transaction"`
	FailureCode                   opt               `json:"failure_code"`
	FailureMessage                opt               `json:"failure_message"`
	FraudDetails                  map[string]any    `json:"fraud_details"`
	Invoice                       opt               `json:"invoice"`
	Livemode                      bool              `json:"livemode"`
	Metadata                      map[string]string `json:"metadata"`
	OnBehalfOf                    any               `json:"on_behalf_of"`
	Outcome                       *outcome          `json:"outcome"`
	Paid                          bool              `json:"paid"`
	PaymentIntent                 opt               `json:"payment_intent"`
	PaymentMethod                 opt               `json:"payment_method"`
	PaymentMethodDetails          map[string]any    `json:"payment_method_details"`
	RadarOptions                  map[string]any    `json:"radar_options"`
	ReceiptEmail                  opt               `json:"receipt_email"`
	ReceiptNumber                 opt               `json:"receipt_number"`
	ReceiptURL                    opt               `json:"receipt_url"`
	Refunded                      bool              `json:"refunded"`
	Review                        any               `json:"review"`
	Shipping                      any               `json:"shipping"`
	SourceTransfer                any               `json:"source_transfer"`
	StatementDescriptor           opt               `json:"statement_descriptor"`
	StatementDescriptorSuffix     opt               `json:"statement_descriptor_suffix"`
	Status                        string            `json:"status"`
	TransferData                  any               `json:"transfer_data"`
	TransferGroup                 opt               `json:"transfer_group"`
}

type outcome struct {
	NetworkStatus string `json:"network_status"`
	Reason        opt    `json:"reason"`
	RiskLevel     string `json:"risk_level"`
	RiskScore     int64  `json:"risk_score"`
	SellerMessage string `json:"seller_message"`
	Type          string `json:"type"`
}

// newCharge makes the row of one attempt; the caller settles and announces it.
func (c *call) newCharge(pi *paymentIntent, pm *paymentMethod, status string) *charge {
	prefix := "ch_3"
	details := map[string]any{"type": pm.Type}
	if b := pm.bank(); b != nil {
		prefix = "py_3" // as Stripe names payments that are not cards
		details[pm.Type] = b
	} else {
		k := pm.Card
		details["card"] = map[string]any{"amount_authorized": pi.Amount, "brand": k.Brand, "country": k.Country, "exp_month": k.ExpMonth,
			"exp_year": k.ExpYear, "fingerprint": k.Fingerprint, "funding": k.Funding, "installments": nil, "last4": k.Last4,
			"checks":  map[string]any{"address_line1_check": nil, "address_postal_code_check": nil, "cvc_check": "pass"},
			"mandate": nil, "network": k.Brand, "network_token": map[string]any{"used": false}, "three_d_secure": nil, "wallet": nil}
	}
	ch := &charge{ID: newID(prefix, 23), Object: "charge", Amount: pi.Amount, BillingDetails: pm.BillingDetails,
		CalculatedStatementDescriptor: "STRIPESIM", Created: c.unix(), Currency: pi.Currency, Customer: pi.Customer, Description: pi.Description,
		FraudDetails: map[string]any{}, Invoice: pi.Invoice, Livemode: c.livemode, Metadata: cloneMetadata(pi.Metadata),
		Outcome:       &outcome{NetworkStatus: "approved_by_network", RiskLevel: "normal", RiskScore: 20, SellerMessage: "Payment complete.", Type: "authorized"},
		PaymentIntent: opt(pi.ID), PaymentMethod: opt(pm.ID), PaymentMethodDetails: details, RadarOptions: map[string]any{},
		ReceiptEmail: pi.ReceiptEmail, StatementDescriptor: pi.StatementDescriptor, Status: status}
	c.state.Charges.put(ch.ID, ch)
	pi.LatestCharge = opt(ch.ID)
	return ch
}

func (c *call) refuseCharge(ch *charge, e *apiError) {
	ch.FailureCode, ch.FailureMessage = opt(e.Code), opt(e.Message)
	reason := e.DeclineCode
	if reason == "" {
		reason = e.Code
	}
	ch.Outcome = &outcome{NetworkStatus: "declined_by_network", Reason: opt(reason), RiskLevel: "normal", RiskScore: 20,
		SellerMessage: "The bank did not return any further details with this decline.", Type: "issuer_declined"}
}

func (c *call) chargeAt() (*charge, *apiError) {
	if ch := c.state.Charges.get(c.id()); ch != nil {
		return ch, nil
	}
	return nil, noSuch("charge", c.id(), "charge")
}

func getCharge(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	return orError(c.chargeAt())
}

func updateCharge(c *call) (any, *apiError) {
	ch, err := c.chargeAt()
	if err != nil {
		return nil, err
	}
	next := *ch
	next.Metadata = c.metadata(ch.Metadata)
	c.set("description", &next.Description)
	c.set("receipt_email", &next.ReceiptEmail)
	if err := c.done(); err != nil {
		return nil, err
	}
	before := toMap(ch)
	*ch = next
	c.emitUpdated("charge.updated", before, ch)
	return ch, nil
}

func listCharges(c *call) (any, *apiError) {
	w, cus, pi := c.window(true), c.ref("customer"), c.ref("payment_intent")
	return list(c, &c.state.Charges, w, "charge", func(r *charge) int64 { return r.Created },
		func(r *charge) bool {
			return (cus == "" || string(r.Customer) == cus) && (pi == "" || string(r.PaymentIntent) == pi)
		})
}
