package stripesim

import (
	"slices"
	"time"
)

var invoiceRoutes = map[string]handler{
	"POST /v1/invoices":                         createInvoice,
	"GET /v1/invoices":                          listInvoices,
	"GET /v1/invoices/{id}":                     getInvoice,
	"POST /v1/invoices/{id}":                    updateInvoice,
	"DELETE /v1/invoices/{id}":                  deleteInvoice,
	"GET /v1/invoices/{id}/lines":               listInvoiceLines,
	"POST /v1/invoices/{id}/finalize":           finalizeInvoice,
	"POST /v1/invoices/{id}/pay":                payInvoice,
	"POST /v1/invoices/{id}/send":               sendInvoice,
	"POST /v1/invoices/{id}/void":               voidInvoice,
	"POST /v1/invoices/{id}/mark_uncollectible": markUncollectible,
}

type invoice struct {
	ID                           string            `json:"id"`
	Object                       string            `json:"object"`
	AccountCountry               string            `json:"account_country"`
	AccountName                  opt               `json:"account_name"`
	AmountDue                    int64             `json:"amount_due"`
	AmountPaid                   int64             `json:"amount_paid"`
	AmountRemaining              int64             `json:"amount_remaining"`
	AmountShipping               int64             `json:"amount_shipping"`
	AttemptCount                 int64             `json:"attempt_count"`
	Attempted                    bool              `json:"attempted"`
	AutoAdvance                  bool              `json:"auto_advance"`
	AutomaticTax                 map[string]any    `json:"automatic_tax"`
	BillingReason                string            `json:"billing_reason"`
	Charge                       opt               `json:"charge"`
	CollectionMethod             string            `json:"collection_method"`
	Created                      int64             `json:"created"`
	Currency                     string            `json:"currency"`
	Customer                     string            `json:"customer"`
	CustomerEmail                opt               `json:"customer_email"`
	CustomerName                 opt               `json:"customer_name"`
	CustomerTaxExempt            string            `json:"customer_tax_exempt"`
	DefaultPaymentMethod         opt               `json:"default_payment_method"`
	DefaultTaxRates              []any             `json:"default_tax_rates"`
	Description                  opt               `json:"description"`
	Discounts                    []any             `json:"discounts"`
	DueDate                      optInt            `json:"due_date"`
	EffectiveAt                  optInt            `json:"effective_at"`
	EndingBalance                *int64            `json:"ending_balance"`
	Footer                       opt               `json:"footer"`
	HostedInvoiceURL             opt               `json:"hosted_invoice_url"`
	InvoicePDF                   opt               `json:"invoice_pdf"`
	Issuer                       map[string]any    `json:"issuer"`
	Lines                        linePage          `json:"lines"`
	Livemode                     bool              `json:"livemode"`
	Metadata                     map[string]string `json:"metadata"`
	NextPaymentAttempt           optInt            `json:"next_payment_attempt"`
	Number                       opt               `json:"number"`
	Paid                         bool              `json:"paid"`
	PaidOutOfBand                bool              `json:"paid_out_of_band"`
	PaymentIntent                opt               `json:"payment_intent"`
	PaymentSettings              map[string]any    `json:"payment_settings"`
	PeriodEnd                    int64             `json:"period_end"`
	PeriodStart                  int64             `json:"period_start"`
	PostPaymentCreditNotesAmount int64             `json:"post_payment_credit_notes_amount"`
	PrePaymentCreditNotesAmount  int64             `json:"pre_payment_credit_notes_amount"`
	StartingBalance              int64             `json:"starting_balance"`
	Status                       string            `json:"status"`
	StatusTransitions            transitions       `json:"status_transitions"`
	Subscription                 opt               `json:"subscription"`
	Subtotal                     int64             `json:"subtotal"`
	SubtotalExcludingTax         int64             `json:"subtotal_excluding_tax"`
	Tax                          optInt            `json:"tax"`
	Total                        int64             `json:"total"`
	TotalDiscountAmounts         []any             `json:"total_discount_amounts"`
	TotalExcludingTax            int64             `json:"total_excluding_tax"`
	TotalTaxAmounts              []any             `json:"total_tax_amounts"`
	WebhooksDeliveredAt          optInt            `json:"webhooks_delivered_at"`
}

type transitions struct {
	FinalizedAt           optInt `json:"finalized_at"`
	MarkedUncollectibleAt optInt `json:"marked_uncollectible_at"`
	PaidAt                optInt `json:"paid_at"`
	VoidedAt              optInt `json:"voided_at"`
}

type linePage struct {
	Data    []line `json:"data"`
	HasMore bool   `json:"has_more"`
	Object  string `json:"object"`
	URL     string `json:"url"`
}

type line struct {
	ID                     string            `json:"id"`
	Object                 string            `json:"object"`
	Amount                 int64             `json:"amount"`
	AmountExcludingTax     int64             `json:"amount_excluding_tax"`
	Currency               string            `json:"currency"`
	Description            opt               `json:"description"`
	DiscountAmounts        []any             `json:"discount_amounts"`
	Discountable           bool              `json:"discountable"`
	Discounts              []any             `json:"discounts"`
	Invoice                string            `json:"invoice"`
	InvoiceItem            string            `json:"invoice_item,omitempty"`
	Livemode               bool              `json:"livemode"`
	Metadata               map[string]string `json:"metadata"`
	Period                 period            `json:"period"`
	Price                  *price            `json:"price"`
	Proration              bool              `json:"proration"`
	Quantity               int64             `json:"quantity"`
	Subscription           opt               `json:"subscription"`
	SubscriptionItem       string            `json:"subscription_item,omitempty"`
	TaxAmounts             []any             `json:"tax_amounts"`
	TaxRates               []any             `json:"tax_rates"`
	Type                   string            `json:"type"`
	UnitAmountExcludingTax opt               `json:"unit_amount_excluding_tax"`
}

type period struct {
	End   int64 `json:"end"`
	Start int64 `json:"start"`
}

// newInvoice makes an empty draft. The first one fixes the customer's currency.
func (c *call) newInvoice(cus *customer, in invoice) *invoice {
	now := c.unix()
	in.ID, in.Object, in.Status = newID("in_1", 23), "invoice", "draft"
	if in.BillingReason == "" {
		in.BillingReason = "manual"
	}
	in.AccountCountry, in.AccountName = "US", "Stripesim"
	if in.AutomaticTax == nil {
		in.AutomaticTax = map[string]any{"enabled": false, "liability": nil, "status": nil}
	}
	in.Created, in.PeriodStart, in.PeriodEnd, in.Livemode = now, now, now, c.livemode
	in.Customer, in.CustomerEmail, in.CustomerName, in.CustomerTaxExempt = cus.ID, cus.Email, cus.Name, cus.TaxExempt
	in.DefaultTaxRates, in.Discounts, in.TotalDiscountAmounts, in.TotalTaxAmounts = []any{}, []any{}, []any{}, []any{}
	in.Issuer = map[string]any{"type": "self"}
	in.Lines = linePage{Data: []line{}, Object: "list", URL: "/v1/invoices/" + in.ID + "/lines"}
	in.Metadata = cloneMetadata(in.Metadata)
	if in.PaymentSettings == nil {
		in.PaymentSettings = map[string]any{"default_mandate": nil, "payment_method_options": nil, "payment_method_types": nil}
	}
	in.StartingBalance = cus.Balance
	if in.AutoAdvance {
		in.NextPaymentAttempt = optInt(now + 3600)
	}
	c.state.Invoices.put(in.ID, &in)
	if cus.Currency == "" {
		before := toMap(cus)
		cus.Currency = opt(in.Currency)
		c.emitUpdated("customer.updated", before, cus)
	}
	return &in
}

func (c *call) fillInvoice(in *invoice) {
	in.Metadata = c.metadata(in.Metadata)
	c.set("description", &in.Description)
	c.set("footer", &in.Footer)
	c.set("default_payment_method", &in.DefaultPaymentMethod)
	if c.has("auto_advance") {
		in.AutoAdvance = c.boolean("auto_advance")
	}
	if days, ok := c.integer("days_until_due"); ok {
		if in.CollectionMethod != "send_invoice" {
			c.fail(badRequest("", "days_until_due", "You can only set `days_until_due` when `collection_method` is `send_invoice`."))
		}
		in.DueDate = optInt(c.now().Add(time.Duration(days) * 24 * time.Hour).Unix())
	}
	if pm := string(in.DefaultPaymentMethod); c.has("default_payment_method") && pm != "" {
		if m := c.state.PaymentMethods.get(pm); m == nil || m.Customer == "" {
			c.fail(noSuchParam("PaymentMethod", pm, "default_payment_method"))
		}
	}
	if tax := c.hash("automatic_tax"); tax != nil {
		in.AutomaticTax = map[string]any{"enabled": tax.boolean("enabled"), "liability": nil, "status": nil}
	}
	if h := c.hash("payment_settings"); h != nil {
		types := h.list("payment_method_types")
		h.ignore("payment_method_options", "default_mandate")
		in.PaymentSettings = map[string]any{"default_mandate": nil, "payment_method_options": nil, "payment_method_types": types}
	}
	c.ignore("custom_fields", "rendering", "statement_descriptor")
}

func createInvoice(c *call) (any, *apiError) {
	customerID := c.need("customer")
	in := invoice{CollectionMethod: c.enum("collection_method", "charge_automatically", "send_invoice"), Currency: c.currency("currency", false)}
	sweep := c.enum("pending_invoice_items_behavior", "exclude", "include") == "include"
	if in.CollectionMethod == "" {
		in.CollectionMethod = "charge_automatically"
	}
	c.fillInvoice(&in)
	if in.CollectionMethod == "send_invoice" && in.DueDate == 0 {
		c.fail(missing("days_until_due"))
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	cus, err := c.customerIn(customerID)
	if err != nil {
		return nil, err
	}
	if in.Currency == "" {
		if in.Currency = string(cus.Currency); in.Currency == "" {
			in.Currency = "usd"
		}
	}
	if err := currencyFits(cus, in.Currency); err != nil {
		return nil, err
	}
	made := c.newInvoice(cus, in)
	if sweep {
		for _, item := range c.state.InvoiceItems.oldest {
			if item.Customer == cus.ID && item.Invoice == "" && !item.Deleted {
				c.addLine(made, item)
			}
		}
	}
	c.emit("invoice.created", made, nil)
	if made.AutoAdvance {
		c.state.Jobs = append(c.state.Jobs, &job{At: c.now().Add(finalizeAfter), Kind: jobFinalize, ID: made.ID})
	}
	return made, nil
}

// addLine puts an item on a draft.
func (c *call) addLine(in *invoice, item *invoiceItem) {
	item.Invoice = opt(in.ID)
	in.Lines.Data = append(slices.Clone(in.Lines.Data), line{ID: newID("il_1", 23), Object: "line_item", Amount: item.Amount, AmountExcludingTax: item.Amount,
		Currency: item.Currency, Description: item.Description, DiscountAmounts: []any{}, Discountable: true, Discounts: []any{}, Invoice: in.ID,
		InvoiceItem: item.ID, Livemode: c.livemode, Metadata: cloneMetadata(item.Metadata), Period: item.Period, Price: item.Price, Proration: item.Proration,
		Quantity: item.Quantity, Subscription: item.Subscription, SubscriptionItem: item.SubscriptionItem, TaxAmounts: []any{}, TaxRates: []any{}, Type: "invoiceitem", UnitAmountExcludingTax: item.UnitAmountDecimal})
	c.sum(in)
}

// sum totals a draft, with the balance that its finalization would find now.
func (c *call) sum(in *invoice) {
	in.Subtotal, in.TotalDiscountAmounts = 0, []any{}
	off := int64(0)
	for _, l := range in.Lines.Data {
		in.Subtotal += l.Amount
		off += l.discount()
		in.TotalDiscountAmounts = append(in.TotalDiscountAmounts, l.DiscountAmounts...)
	}
	in.Total = in.Subtotal - off
	in.SubtotalExcludingTax, in.TotalExcludingTax = in.Total, in.Total
	c.taxed(in)
	in.StartingBalance = c.state.Customers.get(in.Customer).Balance
	in.AmountDue = max(in.Total+in.StartingBalance, 0)
	in.AmountRemaining = in.AmountDue
}

func (c *call) invoiceAt() (*invoice, *apiError) {
	if in := c.state.Invoices.get(c.id()); in != nil && in.Status != "deleted" {
		return in, nil
	}
	return nil, noSuch("invoice", c.id(), "invoice")
}

func getInvoice(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	return orError(c.invoiceAt())
}

func updateInvoice(c *call) (any, *apiError) {
	in, err := c.invoiceAt()
	if err != nil {
		return nil, err
	}
	next := *in
	c.fillInvoice(&next)
	if err := c.done(); err != nil {
		return nil, err
	}
	if in.Status != "draft" && (next.Footer != in.Footer || next.Description != in.Description || next.DueDate != in.DueDate) {
		return nil, badRequest("", "", "Finalized invoices can't be updated in this way")
	}
	before := toMap(in)
	*in = next
	c.emitUpdated("invoice.updated", before, in)
	return in, nil
}

// deleteInvoice forgets a draft. The items on it are not released: they go with
// it.
func deleteInvoice(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	in, err := c.invoiceAt()
	if err != nil {
		return nil, err
	}
	if in.Status != "draft" {
		return nil, badRequest("invoice_not_editable", "", "You can only delete draft invoices.")
	}
	c.emit("invoice.deleted", in, nil)
	in.Status = "deleted" // never shown
	c.state.dropJobs(jobFinalize, in.ID)
	return deleted{ID: in.ID, Object: "invoice", Deleted: true}, nil
}

func listInvoices(c *call) (any, *apiError) {
	w, cus, sub := c.window(true), c.ref("customer"), c.ref("subscription")
	status := c.enum("status", "draft", "open", "paid", "uncollectible", "void")
	return list(c, &c.state.Invoices, w, "invoice", func(r *invoice) int64 { return r.Created }, func(r *invoice) bool {
		return r.Status != "deleted" && (cus == "" || r.Customer == cus) && (sub == "" || string(r.Subscription) == sub) && (status == "" || r.Status == status)
	})
}

func listInvoiceLines(c *call) (any, *apiError) {
	in, err := c.invoiceAt()
	if err != nil {
		return nil, err
	}
	lines := table[line]{}
	for _, l := range slices.Backward(in.Lines.Data) {
		lines.put(l.ID, &l)
	}
	return list(c, &lines, c.window(false), "line item", func(*line) int64 { return 0 }, func(*line) bool { return true })
}
