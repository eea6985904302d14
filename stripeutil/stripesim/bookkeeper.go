package stripesim

// FinalInvoice is an invoice that somebody finalized and has not collected: the balance has paid its part, and the rest
// is open.
func (o *Operator) FinalInvoice(customer string, amount int64, currency string) (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		in, err := c.billed(customer, amount, currency, "send_invoice")
		if in != nil {
			id = in.ID
		}
		return err
	})
	return id, err
}

// VoidInvoiceOnly voids an open invoice and does not give the balance back, as has been seen of Stripe.
func (o *Operator) VoidInvoiceOnly(id string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		in := c.state.Invoices.get(id)
		if in == nil {
			return noSuch("invoice", id, "invoice")
		}
		return c.void(in, false)
	})
}

// ReturnBalance gives back some of what the balance paid of an invoice, as its void does of all.
func (o *Operator) ReturnBalance(invoice string, amount int64) (string, error) {
	return invoice, o.s.act(func(c *call) *apiError {
		in := c.state.Invoices.get(invoice)
		if in == nil {
			return noSuch("invoice", invoice, "invoice")
		}
		c.book(c.state.Customers.get(in.Customer), balanceTransaction{Amount: -amount, Currency: in.Currency, Type: "unapplied_from_invoice", Invoice: opt(in.ID)}, true)
		return nil
	})
}

// CreditParts are the three ways in which a credit note on a paid invoice gives money back.
type CreditParts struct{ Credit, Refund, OutOfBand int64 }

// CreditNote gives money back for an invoice: for a paid one by the parts, for an open one, which has none, off what is
// due.
func (o *Operator) CreditNote(invoice string, p CreditParts) (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		in := c.state.Invoices.get(invoice)
		if in == nil {
			return noSuch("invoice", invoice, "invoice")
		}
		amount := p.Credit + p.Refund + p.OutOfBand
		sum := amount
		if in.Status == "open" { // has no parts
			sum, p = 0, CreditParts{}
		}
		if err := creditable(in, amount, sum); err != nil {
			return err
		}
		note := &creditNote{Metadata: cloneMetadata(nil), Amount: amount, Invoice: in.ID}
		_, err := c.issue(in, note, parts{p.Credit, p.Refund, p.OutOfBand})
		id = note.ID
		return err
	})
	return id, err
}

// VoidCreditNote takes a credit note back, as far as that can be.
func (o *Operator) VoidCreditNote(id string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		n := c.state.CreditNotes.get(id)
		if n == nil {
			return noSuch("credit_note", id, "id")
		}
		return c.voidNote(n)
	})
}

// NoteMemo changes what a credit note says of itself.
func (o *Operator) NoteMemo(id, memo string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		n := c.state.CreditNotes.get(id)
		if n == nil {
			return noSuch("credit_note", id, "id")
		}
		before := toMap(n)
		n.Memo = opt(memo)
		c.emitUpdated("credit_note.updated", before, n)
		return nil
	})
}

// OtherMode is a customer that was made with the account's other key, live for test or test for live.
func (o *Operator) OtherMode() (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		id = newID("cus_", 14)
		c.state.Elsewhere[id] = true
		return nil
	})
	return id, err
}
