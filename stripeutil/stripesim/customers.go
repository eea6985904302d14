package stripesim

import (
	"maps"
	"strings"
)

var customerRoutes = map[string]handler{
	"POST /v1/customers":                                      createCustomer,
	"GET /v1/customers":                                       listCustomers,
	"GET /v1/customers/{id}":                                  getCustomer,
	"POST /v1/customers/{id}":                                 updateCustomer,
	"DELETE /v1/customers/{id}":                               deleteCustomer,
	"POST /v1/customers/{id}/balance_transactions":            createBalanceTransaction,
	"GET /v1/customers/{id}/balance_transactions":             listBalanceTransactions,
	"GET /v1/customers/{id}/balance_transactions/{txn}":       getBalanceTransaction,
	"POST /v1/customers/{id}/balance_transactions/{txn}":      updateBalanceTransaction,
	"GET /v1/customers/{id}/payment_methods":                  listCustomerMethods,
	"GET /v1/customers/{id}/payment_methods/{payment_method}": getCustomerMethod,
}

type customer struct {
	ID                  string            `json:"id"`
	Object              string            `json:"object"`
	Address             any               `json:"address"`
	Balance             int64             `json:"balance"`
	Created             int64             `json:"created"`
	Currency            opt               `json:"currency"`
	DefaultSource       opt               `json:"default_source"`
	Delinquent          bool              `json:"delinquent"`
	Description         opt               `json:"description"`
	Discount            any               `json:"discount"`
	Email               opt               `json:"email"`
	InvoicePrefix       string            `json:"invoice_prefix"`
	InvoiceSettings     invoiceSettings   `json:"invoice_settings"`
	Livemode            bool              `json:"livemode"`
	Metadata            map[string]string `json:"metadata"`
	Name                opt               `json:"name"`
	NextInvoiceSequence int64             `json:"next_invoice_sequence"`
	Phone               opt               `json:"phone"`
	PreferredLocales    []string          `json:"preferred_locales"`
	Shipping            any               `json:"shipping"`
	TaxExempt           string            `json:"tax_exempt"`
	TestClock           any               `json:"test_clock"`
	Deleted             bool              `json:"deleted,omitempty"`
}

type invoiceSettings struct {
	CustomFields         any `json:"custom_fields"`
	DefaultPaymentMethod opt `json:"default_payment_method"`
	Footer               opt `json:"footer"`
	RenderingOptions     any `json:"rendering_options"`
}

// customerAt is the customer in the path. A deleted one can be read, and that
// is all: everything else says that there is no such customer.
func (c *call) customerAt(param string) (*customer, *apiError) {
	cus := c.state.Customers.get(c.id())
	if cus == nil || cus.Deleted {
		return nil, c.noCustomer(noSuch("customer", c.id(), param), c.id())
	}
	return cus, nil
}

// noCustomer adds to a refusal that the customer is one of the other mode, where it is.
func (c *call) noCustomer(e *apiError, id string) *apiError {
	if c.state.Elsewhere[id] {
		key, other := "test", "live"
		if c.livemode {
			key, other = other, key
		}
		e.Message += "; a similar object exists in " + other + " mode, but a " + key + " mode key was used to make this request."
	}
	return e
}

// customerIn is the customer named by a parameter; nil when it is absent.
func (c *call) customerIn(id string) (*customer, *apiError) {
	if id == "" {
		return nil, nil
	}
	cus := c.state.Customers.get(id)
	if cus == nil || cus.Deleted {
		return nil, c.noCustomer(noSuchParam("customer", id, "customer"), id)
	}
	return cus, nil
}

// fillCustomer reads what create and update have in common. own is a method
// that the same call attaches, if any.
func (c *call) fillCustomer(cus *customer, own *paymentMethod) {
	c.set("description", &cus.Description)
	c.set("email", &cus.Email)
	c.set("name", &cus.Name)
	c.set("phone", &cus.Phone)
	cus.Metadata = c.metadata(cus.Metadata)
	if c.has("address") {
		cus.Address = address(c.hash("address"))
	}
	if v := c.enum("tax_exempt", "none", "exempt", "reverse"); v != "" {
		cus.TaxExempt = v
	}
	if c.has("preferred_locales") {
		cus.PreferredLocales = append([]string{}, c.params.list("preferred_locales")...)
	}
	if v := c.ref("invoice_prefix"); v != "" {
		cus.InvoicePrefix = v
	}
	if n, ok := c.positive("next_invoice_sequence"); ok {
		cus.NextInvoiceSequence = n
	}
	c.ignore("shipping", "cash_balance", "tax", "tax_id_data")
	settings := c.hash("invoice_settings")
	if settings == nil {
		return
	}
	settings.set("default_payment_method", &cus.InvoiceSettings.DefaultPaymentMethod)
	settings.set("footer", &cus.InvoiceSettings.Footer)
	settings.ignore("custom_fields", "rendering_options")
	if pm := string(cus.InvoiceSettings.DefaultPaymentMethod); settings.str("default_payment_method") != "" {
		if m := c.state.PaymentMethods.get(pm); m == nil || m != own && string(m.Customer) != cus.ID {
			c.fail(badRequest("resource_missing", "invoice_settings[default_payment_method]", "No such PaymentMethod: '%s'; OR the PaymentMethod is not attached to this customer.", pm))
		}
	}
}

func address(h *params) any {
	if h == nil {
		return nil
	}
	out := map[string]any{}
	for _, k := range []string{"city", "country", "line1", "line2", "postal_code", "state"} {
		out[k] = opt(h.str(k))
	}
	return out
}

func (c *call) newCustomer() *customer {
	return &customer{ID: newID("cus_", 14), Object: "customer", Created: c.unix(), Livemode: c.livemode, Metadata: map[string]string{},
		InvoicePrefix: strings.ToUpper(newID("", 8)), NextInvoiceSequence: 1, PreferredLocales: []string{}, TaxExempt: "none"}
}

func createCustomer(c *call) (any, *apiError) {
	cus := c.newCustomer()
	var pm *paymentMethod
	if token := c.ref("payment_method"); token != "" {
		var err *apiError
		if pm, err = c.methodFor(token, "payment_method"); err == nil {
			err = c.attachable(pm)
		}
		if err != nil {
			return nil, err
		}
		// The default may be the very method that this call attaches.
		if h, ok := c.tree["invoice_settings"].(map[string]any); ok && h["default_payment_method"] == token {
			h["default_payment_method"] = pm.ID
		}
	}
	c.fillCustomer(cus, pm)
	balance, _ := c.integer("balance")
	if err := c.done(); err != nil {
		return nil, err
	}
	c.state.Customers.put(cus.ID, cus)
	if balance != 0 {
		// An opening balance is in the account's currency.
		c.book(cus, balanceTransaction{Amount: balance, Currency: "usd", Type: "initial"}, false)
	}
	c.emit("customer.created", cus, nil)
	if pm != nil {
		c.attachTo(cus, pm)
	}
	return cus, nil
}

func getCustomer(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	cus := c.state.Customers.get(c.id())
	if cus == nil {
		return nil, c.noCustomer(noSuch("customer", c.id(), "id"), c.id())
	}
	return cus, nil
}

func updateCustomer(c *call) (any, *apiError) {
	cus, err := c.customerAt("id")
	if err != nil {
		return nil, err
	}
	next := *cus
	c.fillCustomer(&next, nil)
	balance, setBalance := c.integer("balance")
	c.ignore("default_source")
	if err := c.done(); err != nil {
		return nil, err
	}
	before := toMap(cus)
	*cus = next
	if setBalance && balance != cus.Balance {
		// Overwriting the balance books the difference, as Stripe does: whoever
		// races with another writer loses an update, and the ledger shows it.
		currency := string(cus.Currency)
		if currency == "" {
			currency = "usd"
		}
		c.book(cus, balanceTransaction{Amount: balance - cus.Balance, Currency: currency, Type: "adjustment"}, false)
	}
	c.emitUpdated("customer.updated", before, cus)
	return cus, nil
}

func deleteCustomer(c *call) (any, *apiError) {
	cus, err := c.customerAt("id")
	if err != nil {
		return nil, err
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	c.removeCustomer(cus)
	return cus, nil
}

// removeCustomer deletes a customer for good. The event carries the last full
// object; the methods can never be used again.
func (c *call) removeCustomer(cus *customer) {
	c.emit("customer.deleted", cus, nil)
	cus.Deleted = true
	for id, pm := range c.state.PaymentMethods.oldest {
		if string(pm.Customer) == cus.ID {
			pm.Customer = ""
			c.state.Used[id] = true
		}
	}
}

func listCustomers(c *call) (any, *apiError) {
	w := c.window(true)
	email := c.params.str("email")
	c.ignore("test_clock")
	return list(c, &c.state.Customers, w, "customer", func(r *customer) int64 { return r.Created },
		func(r *customer) bool { return !r.Deleted && (email == "" || string(r.Email) == email) })
}

// cloneMetadata keeps an object's metadata apart from the one it was read from.
func cloneMetadata(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}
