package stripesim

import (
	"slices"
	"strconv"
)

var invoiceItemRoutes = map[string]handler{
	"POST /v1/invoiceitems":        createInvoiceItem,
	"GET /v1/invoiceitems":         listInvoiceItems,
	"GET /v1/invoiceitems/{id}":    getInvoiceItem,
	"DELETE /v1/invoiceitems/{id}": deleteInvoiceItem,
}

type invoiceItem struct {
	ID                string            `json:"id"`
	Object            string            `json:"object"`
	Amount            int64             `json:"amount"`
	Currency          string            `json:"currency"`
	Customer          string            `json:"customer"`
	Date              int64             `json:"date"`
	Description       opt               `json:"description"`
	Discountable      bool              `json:"discountable"`
	Discounts         []any             `json:"discounts"`
	Invoice           opt               `json:"invoice"`
	Livemode          bool              `json:"livemode"`
	Metadata          map[string]string `json:"metadata"`
	Period            period            `json:"period"`
	Price             *price            `json:"price"`
	Proration         bool              `json:"proration"`
	Quantity          int64             `json:"quantity"`
	Subscription      opt               `json:"subscription"`
	SubscriptionItem  string            `json:"subscription_item,omitempty"`
	TaxRates          []any             `json:"tax_rates"`
	UnitAmount        *int64            `json:"unit_amount"`
	UnitAmountDecimal opt               `json:"unit_amount_decimal"`
	Deleted           bool              `json:"deleted,omitempty"`
}

// newItem makes an item, pending or on a draft.
func (c *call) newItem(item invoiceItem, unit int64, in *invoice) *invoiceItem {
	now := c.unix()
	item.ID, item.Object, item.Date = newID("ii_1", 23), "invoiceitem", now
	if item.Period == (period{}) {
		item.Period = period{now, now}
	}
	item.Livemode, item.Discountable, item.Discounts, item.TaxRates = c.livemode, true, []any{}, []any{}
	item.Metadata = cloneMetadata(item.Metadata)
	item.UnitAmount, item.UnitAmountDecimal = &unit, decimal(unit)
	c.state.InvoiceItems.put(item.ID, &item)
	if in != nil {
		c.addLine(in, &item)
	}
	c.emit("invoiceitem.created", &item, nil)
	return &item
}

func createInvoiceItem(c *call) (any, *apiError) {
	customerID, invoiceID, priceID := c.need("customer"), c.ref("invoice"), c.ref("price")
	item := invoiceItem{Currency: c.currency("currency", false), Metadata: c.metadata(nil), Quantity: 1}
	c.set("description", &item.Description)
	if n, ok := c.positive("quantity"); ok {
		item.Quantity = n
	}
	amount, hasAmount := c.integer("amount")
	unit, hasUnit := c.integer("unit_amount")
	behavior := c.enum("tax_behavior", "exclusive", "inclusive", "unspecified")
	c.ignore("discountable", "period")
	if priceID == "" && !hasAmount && !hasUnit {
		c.fail(missing("amount"))
	}
	if hasAmount && (hasUnit || priceID != "") {
		c.fail(badRequest("", "amount", "You may only specify one of these parameters: amount, price, unit_amount."))
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	cus, err := c.customerIn(customerID)
	if err != nil {
		return nil, err
	}
	if priceID != "" {
		p := c.state.Prices.get(priceID)
		if p == nil || p.UnitAmount == nil {
			return nil, noSuchParam("price", priceID, "price")
		}
		unit, item.Price, item.Currency = *p.UnitAmount, p, p.Currency
	}
	item.Customer, item.Amount = cus.ID, unit*item.Quantity
	if hasAmount {
		item.Amount, unit, item.Quantity = amount, amount, 1
	}
	in, err := c.itemFits(cus, &item, invoiceID)
	if err != nil {
		return nil, err
	}
	if in != nil && in.AutomaticTax["enabled"] == true && behavior != "exclusive" {
		return nil, badRequest("", "tax_behavior", "The tax behavior of an item on an invoice with automatic tax must be told; of those, stripesim knows exclusive alone.")
	}
	return c.newItem(item, unit, in), nil
}

// itemFits settles an item's currency and finds the draft it is for.
func (c *call) itemFits(cus *customer, item *invoiceItem, invoiceID string) (*invoice, *apiError) {
	var in *invoice
	if invoiceID != "" {
		in = c.state.Invoices.get(invoiceID)
		switch {
		case in == nil || in.Status == "deleted" || in.Customer != cus.ID:
			return nil, noSuchParam("invoice", invoiceID, "invoice")
		case in.Status != "draft":
			return nil, badRequest("invoice_not_editable", "", "This invoice is no longer editable")
		}
	}
	if item.Currency == "" {
		item.Currency = string(cus.Currency)
		if in != nil {
			item.Currency = in.Currency
		}
	}
	if item.Currency == "" {
		return nil, missing("currency")
	}
	if in != nil && in.Currency != item.Currency {
		return nil, badRequest("", "currency", "The currency of the invoice item (%s) does not match the currency of the invoice (%s).", item.Currency, in.Currency)
	}
	return in, currencyFits(cus, item.Currency)
}

func (c *call) invoiceItemAt() (*invoiceItem, *apiError) {
	if item := c.state.InvoiceItems.get(c.id()); item != nil && !item.Deleted {
		return item, nil
	}
	return nil, noSuch("invoiceitem", c.id(), "invoiceitem")
}

func getInvoiceItem(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	return orError(c.invoiceItemAt())
}

func deleteInvoiceItem(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	item, err := c.invoiceItemAt()
	if err != nil {
		return nil, err
	}
	if in := c.state.Invoices.get(string(item.Invoice)); in != nil {
		if in.Status != "draft" {
			return nil, badRequest("invoice_not_editable", "", "This invoice item is attached to an invoice that is no longer editable")
		}
		in.Lines.Data = slices.DeleteFunc(slices.Clone(in.Lines.Data), func(l line) bool { return l.InvoiceItem == item.ID })
		c.sum(in)
	}
	c.emit("invoiceitem.deleted", item, nil)
	item.Deleted = true
	return deleted{ID: item.ID, Object: "invoiceitem", Deleted: true}, nil
}

func listInvoiceItems(c *call) (any, *apiError) {
	w, cus, in := c.window(true), c.ref("customer"), c.ref("invoice")
	filter, pending := c.has("pending"), c.boolean("pending")
	return list(c, &c.state.InvoiceItems, w, "invoiceitem", func(r *invoiceItem) int64 { return r.Date }, func(r *invoiceItem) bool {
		return !r.Deleted && (cus == "" || r.Customer == cus) && (in == "" || string(r.Invoice) == in) && (!filter || pending == (r.Invoice == ""))
	})
}

func decimal(n int64) opt { return opt(strconv.FormatInt(n, 10)) }
