package stripesim

import (
	"fmt"
	"slices"
	"time"
)

const (
	jobFinalize = "invoice.finalize"
	jobCollect  = "invoice.collect"

	finalizeAfter = time.Hour      // after a 2xx to invoice.created
	finalizeLate  = 72 * time.Hour // without one
)

// dunning are the waits between Stripe's own attempts to collect.
var dunning = []time.Duration{24 * time.Hour, 3 * 24 * time.Hour, 5 * 24 * time.Hour, 5 * 24 * time.Hour}

// hardDeclines are never retried on the same method.
// https://docs.stripe.com/billing/revenue-recovery/smart-retries
var hardDeclines = []string{"incorrect_number", "lost_card", "pickup_card", "stolen_card", "revocation_of_authorization",
	"revocation_of_all_authorizations", "authentication_required", "highest_risk_level", "transaction_not_allowed"}

func finalizeInvoice(c *call) (any, *apiError) {
	auto, given := c.boolean("auto_advance"), c.has("auto_advance")
	if err := c.done(); err != nil {
		return nil, err
	}
	in, err := c.invoiceAt()
	if err != nil {
		return nil, err
	}
	if given {
		in.AutoAdvance = auto
	}
	if err := c.finalize(in); err != nil {
		return nil, err
	}
	if in.Status == "open" && in.AutoAdvance {
		c.collectAt(in, c.now().Add(time.Hour))
	}
	return in, nil
}

// finalize fixes a draft. The whole balance goes into it, whichever its
// direction, before anything is paid: credit lowers what is due, debt raises
// it. Nobody can keep it out.
func (c *call) finalize(in *invoice) *apiError {
	if in.Status != "draft" {
		return badRequest("invoice_not_editable", "", "This invoice is already finalized, you can't re-finalize a non-draft invoice.")
	}
	if len(in.Lines.Data) == 0 {
		return c.finalizationFailed(in, badRequest("invoice_no_customer_line_items", "", "Nothing to invoice for customer"))
	}
	c.sum(in)
	if err := in.locationMissing(); err != nil {
		return c.finalizationFailed(in, err)
	}
	c.state.dropJobs(jobFinalize, in.ID)
	cus := c.state.Customers.get(in.Customer)
	now := c.unix()
	in.Status, in.StatusTransitions.FinalizedAt, in.EffectiveAt, in.NextPaymentAttempt = "open", optInt(now), optInt(now), 0
	in.Number = opt(fmt.Sprintf("%s-%04d", cus.InvoicePrefix, cus.NextInvoiceSequence))
	in.HostedInvoiceURL = opt(c.hostedURL("https://invoice.stripe.com", "/i/"+in.ID))
	in.InvoicePDF = opt("https://pay.stripe.com/invoice/" + in.ID + "/pdf")
	before := toMap(cus)
	cus.NextInvoiceSequence++
	ending := min(in.Total+in.StartingBalance, 0)
	if ending != in.StartingBalance {
		c.book(cus, balanceTransaction{Amount: ending - in.StartingBalance, Currency: in.Currency, Type: "applied_to_invoice", Invoice: opt(in.ID)}, false)
	}
	if least := minimumCharge[in.Currency]; in.AmountDue > 0 && in.AmountDue < least {
		// Too little to charge: it waits on the balance for the next invoice.
		ending = in.AmountDue
		c.book(cus, balanceTransaction{Amount: in.AmountDue, Currency: in.Currency, Type: "invoice_too_small", Invoice: opt(in.ID)}, false)
		in.AmountDue, in.AmountRemaining = 0, 0
	}
	in.EndingBalance = &ending
	if in.AmountDue > 0 {
		pi := c.newPaymentIntent(paymentIntent{Amount: in.AmountDue, Currency: in.Currency, Customer: opt(cus.ID), Invoice: opt(in.ID),
			Description: "Payment for Invoice", PaymentMethodTypes: in.methodTypes()})
		in.PaymentIntent = opt(pi.ID)
	}
	c.emit("invoice.finalized", in, nil)
	c.emitUpdated("customer.updated", before, cus)
	if in.AmountDue == 0 {
		in.Attempted = true
		c.paid(in)
	}
	return nil
}

func (c *call) finalizationFailed(in *invoice, err *apiError) *apiError {
	c.emit("invoice.finalization_failed", in, nil)
	return err
}

// methodTypes are the types of method that may pay an invoice: those of its
// payment settings, else those that the dashboard has on.
func (in *invoice) methodTypes() []string {
	switch types := in.PaymentSettings["payment_method_types"].(type) {
	case []string:
		if len(types) > 0 {
			return types
		}
	case []any: // read back from the state file
		var out []string
		for _, t := range types {
			if s, ok := t.(string); ok {
				out = append(out, s)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	types := []string{"card"}
	for _, kind := range []string{"us_bank_account", "sepa_debit", "acss_debit", "au_becs_debit", "bacs_debit"} {
		if slices.Contains(debitCurrencies(kind), in.Currency) {
			types = append(types, kind)
		}
	}
	return types
}

// paid ends an invoice. It proves nothing about money: see AmountPaid.
func (c *call) paid(in *invoice) {
	in.Status, in.Paid, in.StatusTransitions.PaidAt, in.NextPaymentAttempt = "paid", true, optInt(c.unix()), 0
	in.AmountRemaining = 0
	c.state.dropJobs(jobCollect, in.ID)
	c.subscriptionPaid(in, true)
	c.emit("invoice.paid", in, nil)
	if !in.PaidOutOfBand {
		c.emit("invoice.payment_succeeded", in, nil)
	}
}

// payElsewhere notes that an invoice was paid without Stripe.
func (c *call) payElsewhere(in *invoice) {
	if pi := c.state.PaymentIntents.get(string(in.PaymentIntent)); pi != nil {
		c.cancelIntent(pi, "")
	}
	in.PaidOutOfBand, in.AmountPaid = true, in.AmountDue
	c.paid(in)
}

func payInvoice(c *call) (any, *apiError) {
	methodID, elsewhere := c.ref("payment_method"), c.boolean("paid_out_of_band")
	c.boolean("off_session")
	c.boolean("forgive")
	if err := c.done(); err != nil {
		return nil, err
	}
	in, err := c.invoiceAt()
	if err != nil {
		return nil, err
	}
	switch in.Status {
	case "paid":
		return nil, badRequest("", "", "Invoice is already paid")
	case "void":
		return nil, badRequest("", "", "This invoice can no longer be paid because it is void")
	case "draft":
		if err := c.finalize(in); err != nil || in.Status == "paid" {
			return orError(in, err)
		}
	}
	if elsewhere {
		c.payElsewhere(in)
		return in, nil
	}
	return orError(in, c.collect(in, methodID))
}

// collect tries to get an open invoice paid: by the method given, the invoice's
// own or the customer's default.
func (c *call) collect(in *invoice, methodID string) *apiError {
	cus := c.state.Customers.get(in.Customer)
	for _, next := range []opt{in.DefaultPaymentMethod, cus.InvoiceSettings.DefaultPaymentMethod} {
		if methodID == "" {
			methodID = string(next)
		}
	}
	if methodID == "" {
		return badRequest("resource_missing", "", "Cannot charge customer that has no attached payment source or default payment method. Please consider adding a default payment method.")
	}
	pm, err := c.usable(methodID, cus.ID)
	if err != nil {
		return err
	}
	pi := c.state.PaymentIntents.get(string(in.PaymentIntent))
	if pi.Status == "processing" {
		return badRequest("", "", "This invoice is being paid: its PaymentIntent is processing.")
	}
	if !slices.Contains(pi.PaymentMethodTypes, pm.Type) {
		return incompatible(pi, pm)
	}
	in.Attempted = true
	in.AttemptCount++
	if err := c.attempt(pi, pm, confirmation{}, false); err != nil {
		return err
	}
	if pi.Status == "requires_action" {
		c.emit("invoice.payment_action_required", in, nil)
		e := refuse(402, "invoice_payment_intent_requires_action", "", "This payment requires additional user action before it can be completed successfully. Payment can be completed using the PaymentIntent associated with the invoice. For more details see: https://stripe.com/docs/billing/subscriptions/overview#requires-action")
		e.Type = cardError
		return e.withIntent(pi)
	}
	return nil
}

// invoicePaymentSucceeded books a payment on the invoice it is for.
func (c *call) invoicePaymentSucceeded(pi *paymentIntent) {
	in := c.state.Invoices.get(string(pi.Invoice))
	if in == nil || in.Paid {
		return
	}
	in.Charge, in.AmountPaid, in.Attempted = pi.LatestCharge, pi.Amount, true
	c.paid(in)
}

func (c *call) invoicePaymentFailed(pi *paymentIntent) {
	in := c.state.Invoices.get(string(pi.Invoice))
	if in == nil || in.Status != "open" {
		return
	}
	in.Charge, in.Attempted, in.NextPaymentAttempt = pi.LatestCharge, true, 0
	tries := int(in.AttemptCount) - 1
	hard := slices.Contains(hardDeclines, pi.LastPaymentError.DeclineCode) || slices.Contains(hardDeclines, pi.LastPaymentError.Code)
	if in.AutoAdvance && !hard && tries >= 0 && tries < len(dunning) {
		c.collectAt(in, c.now().Add(dunning[tries]))
	}
	c.subscriptionPaid(in, false)
	c.emit("invoice.payment_failed", in, nil)
}

func (c *call) collectAt(in *invoice, at time.Time) {
	c.state.dropJobs(jobCollect, in.ID)
	in.NextPaymentAttempt = optInt(at.Unix())
	c.state.Jobs = append(c.state.Jobs, &job{At: at, Kind: jobCollect, ID: in.ID})
}

// autoFinalize is Stripe finalizing a draft by itself: an hour after the
// endpoints accepted invoice.created, or after three days without that.
func (c *call) autoFinalize(id string) {
	in := c.state.Invoices.get(id)
	if in == nil || in.Status != "draft" || !in.AutoAdvance {
		return
	}
	if c.unannounced(id) && c.now().Sub(time.Unix(in.Created, 0)) < finalizeLate {
		c.state.Jobs = append(c.state.Jobs, &job{At: c.now().Add(finalizeAfter), Kind: jobFinalize, ID: id})
		return
	}
	if err := c.finalize(in); err != nil {
		return
	}
	c.autoCollect(id)
}

// unannounced says whether an endpoint has yet to accept invoice.created.
func (c *call) unannounced(id string) bool {
	for eventID := range c.state.Waiting {
		if e := c.state.Events.get(eventID); e != nil && e.Type == "invoice.created" && objectID(e) == id {
			return true
		}
	}
	return false
}

func (c *call) autoCollect(id string) {
	in := c.state.Invoices.get(id)
	if in == nil || in.Status != "open" || !in.AutoAdvance || in.CollectionMethod != "charge_automatically" {
		return
	}
	// A refusal is in the events already, and the next attempt is planned.
	if err := c.collect(in, ""); err != nil && err.status != 402 {
		in.Attempted, in.NextPaymentAttempt = true, 0
		c.emit("invoice.payment_failed", in, nil)
	}
}

// sendInvoice mails an invoice to its customer; a draft is finalized first.
func sendInvoice(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	in, err := c.invoiceAt()
	switch {
	case err != nil:
		return nil, err
	case in.CollectionMethod != "send_invoice":
		return nil, badRequest("", "", "You can only manually send an invoice if its collection method is 'send_invoice'.")
	case in.Status == "draft":
		if err := c.finalize(in); err != nil {
			return nil, err
		}
	case in.Status != "open":
		return nil, badRequest("", "", "You can only send open invoices. This invoice isn't open.")
	}
	c.emit("invoice.sent", in, nil)
	return in, nil
}

func voidInvoice(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	in, err := c.invoiceAt()
	if err == nil {
		err = c.void(in, true)
	}
	return orError(in, err)
}

// void calls an invoice off and gives back the balance that went into it, unless told not to.
func (c *call) void(in *invoice, giveBack bool) *apiError {
	if in.Status != "open" && in.Status != "uncollectible" {
		return badRequest("", "", "You can only pass in open invoices. This invoice isn't open.")
	}
	if pi := c.state.PaymentIntents.get(string(in.PaymentIntent)); pi != nil {
		if pi.Status == "processing" {
			return badRequest("", "", "This invoice cannot be voided while its payment is processing.")
		}
		c.cancelIntent(pi, "void_invoice")
	}
	in.Status, in.StatusTransitions.VoidedAt, in.NextPaymentAttempt = "void", optInt(c.unix()), 0
	c.state.dropJobs(jobCollect, in.ID)
	if back := in.StartingBalance - *in.EndingBalance; back != 0 && giveBack {
		c.book(c.state.Customers.get(in.Customer), balanceTransaction{Amount: back, Currency: in.Currency, Type: "unapplied_from_invoice", Invoice: opt(in.ID)}, true)
	}
	c.emit("invoice.voided", in, nil)
	return nil
}

func markUncollectible(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	in, err := c.invoiceAt()
	if err != nil {
		return nil, err
	}
	if in.Status != "open" {
		return nil, badRequest("", "", "You can only mark an open invoice as uncollectible. This invoice isn't open.")
	}
	in.Status, in.StatusTransitions.MarkedUncollectibleAt, in.NextPaymentAttempt = "uncollectible", optInt(c.unix()), 0
	c.state.dropJobs(jobCollect, in.ID)
	c.emit("invoice.marked_uncollectible", in, nil)
	return in, nil
}

// billed is an invoice of one line, finalized.
func (c *call) billed(customer string, amount int64, currency, collection string) (*invoice, *apiError) {
	cus, err := c.liveCustomer(customer)
	if err == nil {
		err = currencyFits(cus, currency)
	}
	if err != nil {
		return nil, err
	}
	in := c.newInvoice(cus, invoice{Currency: currency, CollectionMethod: collection})
	c.emit("invoice.created", in, nil)
	c.newItem(invoiceItem{Customer: customer, Amount: amount, Currency: currency, Quantity: 1, Description: "Something else"}, amount, in)
	return in, c.finalize(in)
}

// Invoice is somebody's one-off invoice, drafted, finalized and collected at
// the dashboard; the balance pays first. A refused payment leaves it open.
func (o *Operator) Invoice(customer string, amount int64, currency string) (id string, err error) {
	err = o.s.act(func(c *call) *apiError {
		in, err := c.billed(customer, amount, currency, "charge_automatically")
		if in != nil {
			id = in.ID
		}
		if err != nil || in.Status == "paid" {
			return err
		}
		return c.collect(in, "")
	})
	return id, err
}

// VoidInvoice voids an open invoice.
func (o *Operator) VoidInvoice(id string) (string, error) {
	return id, o.s.act(func(c *call) *apiError {
		in := c.state.Invoices.get(id)
		if in == nil {
			return noSuch("invoice", id, "invoice")
		}
		return c.void(in, true)
	})
}

// checkInvoices verifies that an invoice's balance transactions explain its two
// balances, and that money came in for what says so.
func (s *Sim) checkInvoices(bad complain) {
	moved := map[string]int64{}
	for _, t := range s.state.BalanceTransactions.oldest {
		if t.Invoice != "" && t.Type != "unapplied_from_invoice" && t.Type != "credit_note" {
			moved[string(t.Invoice)] += t.Amount
		}
	}
	for id, in := range s.state.Invoices.oldest {
		if in.EndingBalance != nil && *in.EndingBalance-in.StartingBalance != moved[id] {
			bad("%s: balance %d to %d, but its transactions sum to %d", id, in.StartingBalance, *in.EndingBalance, moved[id])
		}
		pi := s.state.PaymentIntents.get(string(in.PaymentIntent))
		if received := pi != nil && pi.Status == "succeeded"; received != (in.AmountPaid > 0 && !in.PaidOutOfBand) || received && pi.Amount != in.AmountPaid {
			bad("%s: %s with amount_paid %d, which its payment does not explain", id, in.Status, in.AmountPaid)
		}
	}
}
