package stripesim

import "time"

var sessionRoutes = map[string]handler{
	"POST /v1/checkout/sessions":                createCheckout,
	"GET /v1/checkout/sessions":                 listCheckouts,
	"GET /v1/checkout/sessions/{id}":            getCheckout,
	"POST /v1/checkout/sessions/{id}/expire":    expireCheckout,
	"GET /v1/checkout/sessions/{id}/line_items": listCheckoutItems,
}

const (
	jobExpireSession = "checkout.session.expire"
	sessionLife      = 24 * time.Hour
)

type checkoutSession struct {
	ID                       string            `json:"id"`
	Object                   string            `json:"object"`
	AllowPromotionCodes      any               `json:"allow_promotion_codes"`
	AmountSubtotal           *int64            `json:"amount_subtotal"`
	AmountTotal              *int64            `json:"amount_total"`
	AutomaticTax             map[string]any    `json:"automatic_tax"`
	BillingAddressCollection any               `json:"billing_address_collection"`
	CancelURL                opt               `json:"cancel_url"`
	ClientReferenceID        opt               `json:"client_reference_id"`
	ClientSecret             opt               `json:"client_secret"`
	Created                  int64             `json:"created"`
	Currency                 opt               `json:"currency"`
	CustomFields             []any             `json:"custom_fields"`
	CustomText               map[string]any    `json:"custom_text"`
	Customer                 opt               `json:"customer"`
	CustomerCreation         opt               `json:"customer_creation"`
	CustomerDetails          map[string]any    `json:"customer_details"`
	CustomerEmail            opt               `json:"customer_email"`
	ExpiresAt                int64             `json:"expires_at"`
	Invoice                  opt               `json:"invoice"`
	InvoiceCreation          any               `json:"invoice_creation"`
	Livemode                 bool              `json:"livemode"`
	Locale                   opt               `json:"locale"`
	Metadata                 map[string]string `json:"metadata"`
	Mode                     string            `json:"mode"`
	PaymentIntent            opt               `json:"payment_intent"`
	PaymentMethodCollection  opt               `json:"payment_method_collection"`
	PaymentMethodOptions     map[string]any    `json:"payment_method_options"`
	PaymentMethodTypes       []string          `json:"payment_method_types"`
	PaymentStatus            string            `json:"payment_status"`
	PhoneNumberCollection    map[string]any    `json:"phone_number_collection"`
	ReturnURL                string            `json:"return_url,omitempty"`
	SetupIntent              opt               `json:"setup_intent"`
	ShippingOptions          []any             `json:"shipping_options"`
	Status                   string            `json:"status"`
	SubmitType               opt               `json:"submit_type"`
	Subscription             opt               `json:"subscription"`
	SuccessURL               opt               `json:"success_url"`
	TotalDetails             map[string]any    `json:"total_details"`
	UIMode                   string            `json:"ui_mode"`
	URL                      opt               `json:"url"`
}

// checkoutPlan is what a session will do when the customer completes it.
type checkoutPlan struct {
	Items            []checkoutItem
	Metadata         map[string]string // of the intent
	Description      opt
	SetupFutureUsage opt
	Invoices         bool  // invoice_creation
	PercentOff       int64 // of a subscription
	TrialDays        int64
}

type checkoutItem struct {
	ID             string `json:"id"`
	Object         string `json:"object"`
	AmountDiscount int64  `json:"amount_discount"`
	AmountSubtotal int64  `json:"amount_subtotal"`
	AmountTax      int64  `json:"amount_tax"`
	AmountTotal    int64  `json:"amount_total"`
	Currency       string `json:"currency"`
	Description    string `json:"description"`
	Price          *price `json:"price"`
	Quantity       int64  `json:"quantity"`
}

func createCheckout(c *call) (any, *apiError) {
	cs := &checkoutSession{Mode: c.enum("mode", "payment", "setup", "subscription"), Metadata: c.metadata(nil), Currency: opt(c.currency("currency", false))}
	plan := &checkoutPlan{}
	customerID := c.ref("customer")
	c.fillCheckout(cs, plan)
	items := c.array("line_items")
	lines := make([]newLine, len(items))
	for i, h := range items {
		lines[i] = readLine(h)
	}
	c.checkCheckout(cs, len(items))
	if err := c.done(); err != nil {
		return nil, err
	}
	if _, err := c.customerIn(customerID); err != nil {
		return nil, err
	}
	cs.Customer = opt(customerID)
	total := int64(0)
	for _, l := range lines {
		amount, currency, err := c.priced(l)
		if err != nil {
			return nil, err
		}
		if cs.Currency != "" && string(cs.Currency) != currency {
			return nil, badRequest("", "line_items", "The price specified only supports `%s`. This doesn't match the expected currency: `%s`.", currency, cs.Currency)
		}
		cs.Currency = opt(currency)
		total += amount
	}
	if cs.Mode == "payment" {
		if err := chargeable(total, string(cs.Currency)); err != nil {
			err.Message = "The Checkout Session's total amount due must add up to at least " + money(minimumCharge[string(cs.Currency)], string(cs.Currency))
			return nil, err
		}
		cs.AmountSubtotal, cs.AmountTotal = &total, &total
		cs.TotalDetails = map[string]any{"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}
	}
	for _, l := range lines {
		plan.Items = append(plan.Items, c.checkoutItem(l))
	}
	c.openCheckout(cs, plan)
	return cs, nil
}

// fillCheckout reads everything but what is sold.
func (c *call) fillCheckout(cs *checkoutSession, plan *checkoutPlan) {
	c.set("success_url", &cs.SuccessURL)
	c.set("cancel_url", &cs.CancelURL)
	c.set("client_reference_id", &cs.ClientReferenceID)
	c.set("customer_email", &cs.CustomerEmail)
	c.set("locale", &cs.Locale)
	c.set("submit_type", &cs.SubmitType)
	cs.ReturnURL = c.ref("return_url")
	cs.CustomerCreation = opt(c.enum("customer_creation", "always", "if_required"))
	cs.UIMode = c.enum("ui_mode", "hosted", "embedded")
	cs.PaymentMethodTypes = c.params.list("payment_method_types")
	cs.ExpiresAt = c.now().Add(sessionLife).Unix()
	if at, ok := c.integer("expires_at"); ok {
		if wait := at - c.unix(); wait < 30*60 || wait > 24*3600 {
			c.fail(badRequest("", "expires_at", "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation."))
		}
		cs.ExpiresAt = at
	}
	kind := "payment_intent_data"
	if cs.Mode == "setup" {
		kind = "setup_intent_data"
	}
	if h := c.hash(kind); h != nil {
		plan.Metadata = h.metadata(nil)
		h.set("description", &plan.Description)
		if cs.Mode == "payment" {
			plan.SetupFutureUsage = opt(h.enum("setup_future_usage", "off_session", "on_session"))
			h.ignore("receipt_email", "statement_descriptor", "statement_descriptor_suffix", "capture_method")
		}
	}
	c.ignore("allow_promotion_codes", "automatic_tax", "billing_address_collection", "consent_collection", "custom_text", "customer_update",
		"invoice_creation", "payment_method_collection", "payment_method_options", "phone_number_collection", "tax_id_collection", "redirect_on_completion")
}

func (c *call) checkCheckout(cs *checkoutSession, items int) {
	switch {
	case cs.Mode == "":
		c.fail(missing("mode"))
	case cs.Mode == "subscription":
		c.fail(badRequest("", "mode", "This simulator makes sessions of mode subscription by Operator.PaymentLink alone."))
	case cs.UIMode != "embedded" && cs.SuccessURL == "":
		c.fail(missing("success_url"))
	case cs.UIMode == "embedded" && cs.ReturnURL == "":
		c.fail(missing("return_url"))
	case cs.Mode == "payment" && items == 0:
		c.fail(badRequest("parameter_missing", "line_items", "You must pass `line_items` in `payment` mode."))
	case cs.Mode == "setup" && items > 0:
		c.fail(badRequest("", "line_items", "You can not pass `line_items` in `setup` mode."))
	case cs.Mode == "setup" && cs.Currency == "" && len(cs.PaymentMethodTypes) == 0:
		c.fail(badRequest("parameter_missing", "currency", "You must provide `currency` in `setup` mode with dynamic payment methods, or pass `payment_method_types`."))
	case cs.CustomerEmail != "" && c.has("customer"):
		c.fail(badRequest("", "customer_email", "You may only specify one of these parameters: customer, customer_email."))
	}
}

// newLine is a line item as a caller describes it: by a price, or by the data of
// one.
type newLine struct {
	price, name, product, currency string
	unit, quantity, percentOff     int64
}

func readLine(h *params) newLine {
	l := newLine{price: h.ref("price"), quantity: 1}
	if n, ok := h.positive("quantity"); ok {
		l.quantity = n
	} else {
		h.fail(missing(h.full("quantity")))
	}
	data := h.hash("price_data")
	if (data == nil) == (l.price == "") {
		h.fail(badRequest("parameter_missing", h.full("price"), "You must provide one of `price` or `price_data` for each line item."))
		return l
	}
	if data != nil {
		l.unit, l.currency, l.product = data.needInt("unit_amount"), data.currency("currency", true), data.ref("product")
		data.ignore("tax_behavior")
		if p := data.hash("product_data"); p != nil {
			l.name = p.need("name")
			p.ignore("description", "images", "metadata", "tax_code")
		} else if l.product == "" {
			h.fail(missing(data.full("product_data")))
		}
	}
	h.ignore("adjustable_quantity", "tax_rates", "dynamic_tax_rates")
	return l
}

// priced checks a line and tells what it costs. It makes nothing.
func (c *call) priced(l newLine) (amount int64, currency string, err *apiError) {
	if l.price == "" {
		if l.product != "" && c.state.Products.get(l.product) == nil {
			return 0, "", noSuchParam("product", l.product, "line_items[0][price_data][product]")
		}
		return l.unit * l.quantity, l.currency, nil
	}
	p := c.state.Prices.get(l.price)
	if p == nil || !p.Active || p.UnitAmount == nil {
		return 0, "", noSuchParam("price", l.price, "line_items[0][price]")
	}
	return *p.UnitAmount * l.quantity, p.Currency, nil
}

// checkoutItem makes the item of a line that is in order.
func (c *call) checkoutItem(l newLine) checkoutItem {
	p := c.state.Prices.get(l.price)
	if p == nil {
		if l.product == "" {
			l.product = c.newProduct(product{Name: l.name}).ID
		}
		p = c.newPrice(price{Currency: l.currency, UnitAmount: &l.unit, Product: l.product})
	}
	amount := *p.UnitAmount * l.quantity
	off := amount * l.percentOff / 100
	return checkoutItem{ID: newID("li_1", 23), Object: "item", AmountSubtotal: amount, AmountDiscount: off, AmountTotal: amount - off,
		Currency: p.Currency, Description: c.state.Products.get(p.Product).Name, Price: p, Quantity: l.quantity}
}

func (c *call) openCheckout(cs *checkoutSession, plan *checkoutPlan) {
	mode := "test"
	if c.livemode {
		mode = "live"
	}
	cs.ID, cs.Object, cs.Created, cs.Livemode = newID("cs_"+mode+"_a1", 56), "checkout.session", c.unix(), c.livemode
	cs.AutomaticTax = map[string]any{"enabled": false, "liability": nil, "status": nil}
	cs.CustomFields, cs.ShippingOptions, cs.PaymentMethodOptions = []any{}, []any{}, map[string]any{}
	cs.CustomText = map[string]any{"after_submit": nil, "shipping_address": nil, "submit": nil, "terms_of_service_acceptance": nil}
	cs.PhoneNumberCollection = map[string]any{"enabled": false}
	cs.Status, cs.PaymentStatus = "open", "unpaid"
	if len(cs.PaymentMethodTypes) == 0 {
		cs.PaymentMethodTypes = []string{"card", "us_bank_account"}
	}
	if cs.UIMode == "" {
		cs.UIMode = "hosted"
	}
	if cs.UIMode == "hosted" {
		cs.URL = opt(c.hostedURL("https://checkout.stripe.com", "/c/pay/"+cs.ID))
	} else {
		cs.ClientSecret = opt(cs.ID + "_secret_" + newID("", 25))
	}
	if cs.Mode == "setup" {
		cs.PaymentStatus = "no_payment_required"
		cs.SetupIntent = opt(c.newSetupIntent(setupIntent{Customer: cs.Customer, Metadata: plan.Metadata, Description: plan.Description,
			PaymentMethodTypes: cs.PaymentMethodTypes}).ID)
	}
	c.state.Sessions.put(cs.ID, cs)
	c.state.Plans[cs.ID] = plan
	c.state.Jobs = append(c.state.Jobs, &job{At: time.Unix(cs.ExpiresAt, 0), Kind: jobExpireSession, ID: cs.ID})
}

func (c *call) checkoutAt() (*checkoutSession, *apiError) {
	if cs := c.state.Sessions.get(c.id()); cs != nil {
		return cs, nil
	}
	return nil, noSuch("checkout.session", c.id(), "session")
}

func getCheckout(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	return orError(c.checkoutAt())
}

func listCheckouts(c *call) (any, *apiError) {
	w, cus, pi := c.window(true), c.ref("customer"), c.ref("payment_intent")
	status := c.enum("status", "open", "complete", "expired")
	return list(c, &c.state.Sessions, w, "checkout.session", func(r *checkoutSession) int64 { return r.Created }, func(r *checkoutSession) bool {
		return (cus == "" || string(r.Customer) == cus) && (pi == "" || string(r.PaymentIntent) == pi) && (status == "" || r.Status == status)
	})
}

func listCheckoutItems(c *call) (any, *apiError) {
	cs, err := c.checkoutAt()
	if err != nil {
		return nil, err
	}
	w := c.window(false)
	items := c.checkoutItems(cs)
	return list(c, &items, w, "item", func(*checkoutItem) int64 { return 0 }, func(*checkoutItem) bool { return true })
}

// checkoutItems are a session's lines, in an order that lists turn around.
func (c *call) checkoutItems(cs *checkoutSession) table[checkoutItem] {
	var items table[checkoutItem]
	lines := c.state.Plans[cs.ID].Items
	for i := len(lines) - 1; i >= 0; i-- {
		items.put(lines[i].ID, &lines[i])
	}
	return items
}

// lineItemsOf is the list that a session shows only when it is asked to.
func (c *call) lineItemsOf(session string) map[string]any {
	p := page{Object: "list", URL: "/v1/checkout/sessions/" + session + "/line_items", Data: []any{}}
	for _, item := range c.state.Plans[session].Items {
		p.Data = append(p.Data, item)
	}
	return toMap(p)
}

func expireCheckout(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	cs, err := c.checkoutAt()
	if err != nil {
		return nil, err
	}
	if cs.Status != "open" {
		return nil, badRequest("", "", "Only Checkout Sessions with a status in [\"open\"] can be expired. This Checkout Session has a status of %q.", cs.Status)
	}
	c.state.dropJobs(jobExpireSession, cs.ID)
	c.expireSession(cs.ID)
	return cs, nil
}

func (c *call) expireSession(id string) {
	cs := c.state.Sessions.get(id)
	if cs == nil || cs.Status != "open" {
		return
	}
	cs.Status, cs.URL = "expired", ""
	if si := c.state.SetupIntents.get(string(cs.SetupIntent)); si != nil {
		si.Status = "canceled"
		c.emit("setup_intent.canceled", si, nil)
	}
	c.emit("checkout.session.expired", cs, nil)
}
