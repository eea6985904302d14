package stripesim

import "fmt"

var creditNoteRoutes = map[string]handler{
	"POST /v1/credit_notes":           createCreditNote,
	"GET /v1/credit_notes":            listCreditNotes,
	"GET /v1/credit_notes/{id}":       getCreditNote,
	"POST /v1/credit_notes/{id}":      updateCreditNote,
	"POST /v1/credit_notes/{id}/void": voidCreditNote,
}

type creditNote struct {
	ID                         string            `json:"id"`
	Object                     string            `json:"object"`
	Amount                     int64             `json:"amount"`
	AmountShipping             int64             `json:"amount_shipping"`
	Created                    int64             `json:"created"`
	Currency                   string            `json:"currency"`
	Customer                   string            `json:"customer"`
	CustomerBalanceTransaction opt               `json:"customer_balance_transaction"`
	DiscountAmount             int64             `json:"discount_amount"`
	DiscountAmounts            []any             `json:"discount_amounts"`
	EffectiveAt                optInt            `json:"effective_at"`
	Invoice                    string            `json:"invoice"`
	Lines                      page              `json:"lines"`
	Livemode                   bool              `json:"livemode"`
	Memo                       opt               `json:"memo"`
	Metadata                   map[string]string `json:"metadata"`
	Number                     string            `json:"number"`
	OutOfBandAmount            optInt            `json:"out_of_band_amount"`
	PDF                        string            `json:"pdf"`
	Reason                     opt               `json:"reason"`
	Refund                     opt               `json:"refund"`
	Status                     string            `json:"status"`
	Subtotal                   int64             `json:"subtotal"`
	SubtotalExcludingTax       int64             `json:"subtotal_excluding_tax"`
	TaxAmounts                 []any             `json:"tax_amounts"`
	Total                      int64             `json:"total"`
	TotalExcludingTax          int64             `json:"total_excluding_tax"`
	Type                       string            `json:"type"`
	VoidedAt                   optInt            `json:"voided_at"`
}

// parts are the three ways in which a credit note on a paid invoice gives value
// back. They sum to its total.
type parts struct{ credit, refund, outOfBand int64 }

func createCreditNote(c *call) (any, *apiError) {
	invoiceID := c.need("invoice")
	amount, given := c.positive("amount")
	var p parts
	p.credit, _ = c.positive("credit_amount")
	p.refund, _ = c.positive("refund_amount")
	p.outOfBand, _ = c.positive("out_of_band_amount")
	refundID := c.ref("refund")
	note := creditNote{Metadata: c.metadata(nil), Reason: opt(c.enum("reason", "duplicate", "fraudulent", "order_change", "product_unsatisfactory"))}
	c.set("memo", &note.Memo)
	if err := c.done(); err != nil {
		return nil, err
	}
	in := c.state.Invoices.get(invoiceID)
	if in == nil || in.Status == "deleted" {
		return nil, noSuchParam("invoice", invoiceID, "invoice")
	}
	sum := p.credit + p.refund + p.outOfBand
	if refundID != "" {
		re := c.state.Refunds.get(refundID)
		if re == nil || re.Charge != in.Charge {
			return nil, noSuchParam("refund", refundID, "refund")
		}
		sum += re.Amount
	}
	if !given {
		amount = sum
	}
	if err := creditable(in, amount, sum); err != nil {
		return nil, err
	}
	note.Amount, note.Invoice, note.Refund = amount, in.ID, opt(refundID)
	return orError(c.issue(in, &note, p))
}

func creditable(in *invoice, amount, sum int64) *apiError {
	switch in.Status {
	case "open":
		if amount < 1 || amount > in.AmountRemaining {
			return badRequest("", "amount", "The amount to credit (%s) must be positive and no more than what remains on the invoice (%s).", money(amount, in.Currency), money(in.AmountRemaining, in.Currency))
		}
		if sum != 0 {
			return badRequest("", "", "An open invoice has no payment to credit or refund: pass only `amount`.")
		}
	case "paid":
		if amount < 1 || sum != amount {
			return badRequest("", "", "The sum of credit amount, refund amount and out of band amount (%s) must equal the credit note amount (%s).", money(sum, in.Currency), money(amount, in.Currency))
		}
		if amount > in.Total-in.PostPaymentCreditNotesAmount-in.PrePaymentCreditNotesAmount {
			return badRequest("", "amount", "The credit notes on an invoice cannot exceed its total.")
		}
	default:
		return badRequest("", "invoice", "You can only create credit notes for open or paid invoices.")
	}
	return nil
}

// issue makes the note: on an open invoice it lowers what is due, on a paid one
// it credits the balance, refunds, or both.
func (c *call) issue(in *invoice, note *creditNote, p parts) (*creditNote, *apiError) {
	note.ID, note.Object, note.Type = newID("cn_1", 23), "credit_note", "post_payment"
	if in.Status == "open" {
		note.Type = "pre_payment"
	}
	if p.refund > 0 {
		ch := c.state.Charges.get(string(in.Charge))
		if ch == nil {
			return nil, badRequest("", "refund_amount", "This invoice was not paid by a charge: there is nothing to refund.")
		}
		re, err := c.refund(ch, p.refund, "", nil)
		if err != nil {
			return nil, err
		}
		note.Refund = opt(re.ID)
	}
	if p.credit > 0 {
		t := c.book(c.state.Customers.get(in.Customer), balanceTransaction{Amount: -p.credit, Currency: in.Currency, Type: "credit_note",
			CreditNote: opt(note.ID), Invoice: opt(in.ID)}, true)
		note.CustomerBalanceTransaction = opt(t.ID)
	}
	count := 1
	for _, other := range c.state.CreditNotes.oldest {
		if other.Invoice == in.ID {
			count++
		}
	}
	note.Created, note.EffectiveAt, note.Livemode = c.unix(), optInt(c.unix()), c.livemode
	note.Currency, note.Customer, note.OutOfBandAmount = in.Currency, in.Customer, optInt(p.outOfBand)
	note.DiscountAmounts, note.TaxAmounts = []any{}, []any{}
	note.Number, note.PDF = fmt.Sprintf("%s-CN-%02d", in.Number, count), "https://pay.stripe.com/credit_notes/"+note.ID+"/pdf"
	note.Status, note.Subtotal, note.SubtotalExcludingTax, note.Total, note.TotalExcludingTax = "issued", note.Amount, note.Amount, note.Amount, note.Amount
	note.Lines = page{Data: []any{map[string]any{"id": newID("cnli_1", 23), "object": "credit_note_line_item", "amount": note.Amount,
		"amount_excluding_tax": note.Amount, "description": "Credit", "discount_amount": 0, "discount_amounts": []any{}, "livemode": c.livemode,
		"quantity": 1, "tax_amounts": []any{}, "tax_rates": []any{}, "type": "custom_line_item", "unit_amount": note.Amount,
		"unit_amount_decimal": decimal(note.Amount), "unit_amount_excluding_tax": decimal(note.Amount)}}, Object: "list", URL: "/v1/credit_notes/" + note.ID + "/lines"}
	c.state.CreditNotes.put(note.ID, note)
	c.emit("credit_note.created", note, nil)
	c.creditInvoice(in, note, note.Amount)
	return note, nil
}

// creditInvoice books a note (or with a negative amount its voiding) on the
// invoice.
func (c *call) creditInvoice(in *invoice, note *creditNote, amount int64) {
	if note.Type == "post_payment" {
		in.PostPaymentCreditNotesAmount += amount
		return
	}
	in.PrePaymentCreditNotesAmount += amount
	in.AmountDue -= amount
	in.AmountRemaining -= amount
	pi := c.state.PaymentIntents.get(string(in.PaymentIntent))
	if in.AmountDue > 0 {
		pi.Amount = in.AmountDue
		return
	}
	c.cancelIntent(pi, "")
	c.paid(in)
}

func (c *call) creditNoteAt() (*creditNote, *apiError) {
	if n := c.state.CreditNotes.get(c.id()); n != nil {
		return n, nil
	}
	return nil, noSuch("credit_note", c.id(), "id")
}

func getCreditNote(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	return orError(c.creditNoteAt())
}

// updateCreditNote changes what a note says of itself; its amounts never change.
func updateCreditNote(c *call) (any, *apiError) {
	n, err := c.creditNoteAt()
	if err != nil {
		return nil, err
	}
	next := *n
	c.set("memo", &next.Memo)
	next.Metadata = c.metadata(n.Metadata)
	if err := c.done(); err != nil {
		return nil, err
	}
	before := toMap(n)
	*n = next
	c.emitUpdated("credit_note.updated", before, n)
	return n, nil
}

// voidCreditNote takes a note back. A refund cannot be taken back.
func voidCreditNote(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	n, err := c.creditNoteAt()
	if err == nil {
		err = c.voidNote(n)
	}
	return orError(n, err)
}

func (c *call) voidNote(n *creditNote) *apiError {
	in := c.state.Invoices.get(n.Invoice)
	switch {
	case n.Status == "void":
		return badRequest("", "", "This credit note is already void.")
	case n.Refund != "":
		return badRequest("", "", "You cannot void a credit note that refunded a payment.")
	case n.Type == "pre_payment" && in.Status != "open":
		return badRequest("", "", "You cannot void a pre-payment credit note of an invoice that is no longer open.")
	}
	n.Status, n.VoidedAt = "void", optInt(c.unix())
	if t := c.state.BalanceTransactions.get(string(n.CustomerBalanceTransaction)); t != nil {
		c.book(c.state.Customers.get(n.Customer), balanceTransaction{Amount: -t.Amount, Currency: n.Currency, Type: "credit_note",
			CreditNote: opt(n.ID), Invoice: opt(in.ID)}, true)
	}
	c.creditInvoice(in, n, -n.Amount)
	c.emit("credit_note.voided", n, nil)
	return nil
}

func listCreditNotes(c *call) (any, *apiError) {
	w, cus, in := c.window(true), c.ref("customer"), c.ref("invoice")
	return list(c, &c.state.CreditNotes, w, "credit_note", func(r *creditNote) int64 { return r.Created }, func(r *creditNote) bool {
		return (cus == "" || r.Customer == cus) && (in == "" || r.Invoice == in)
	})
}
