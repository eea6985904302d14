package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep/handlers"
	"lockstep/ledger"
	"lockstep/stripeutil"
)

// runInvoice takes a leased top-up that an invoice pays for as far as it goes.
//
//	intent → parameters → draft → line → (its tax) → (mirror to nothing) → finalize → pay, or send → settle
//
// Each arrow is a commit. Killed at any of them, a worker finds the row due and repeats the step under its own key,
// which makes a replay of one that was executed. Killed while the mirror shows nothing: the row says so, so nobody
// restores it before the invoice is finalized or given up, and the commit that says so has the mirror looked at.
// A bank takes days to pay. Its no is written down, then the invoice is voided, then the top-up has failed: killed in
// between, a worker finds it processing and goes on, or whoever hears of the void settles it for the reason that is there.
// A key that Stripe remembers with a fault, or may have forgotten, is not used again: the invoice is looked at, and
// closed where it was not paid, after which nobody can pay it. One that was sent waits for its customer.
func (g *gateway) runInvoice(ctx context.Context, top ledger.Topup) error {
	switch {
	case top.Cancel:
		return g.endInvoice(ctx, top, ledger.Outcome{Topup: top.ID, Status: "canceled"})
	case top.Status == "processing":
		return g.lookAtDebit(ctx, top)
	case top.Status != "pending" || top.InvoiceStep == ledger.InvoiceSent:
		return g.lookAtInvoice(ctx, top)
	}
	p, err := g.fixInvoice(ctx, &top)
	if err != nil || p == nil {
		return err
	}
	crash("topup.fixed")
	if g.ledger.Now().Sub(*top.CalledAt) > resendFor {
		return g.endInvoice(ctx, top, notExecuted(top))
	}
	for top.InvoiceStep < ledger.InvoiceFinalized {
		at := top.InvoiceStep
		if err := g.nextInvoiceStep(ctx, &top, *p); err != nil {
			return g.invoiceRefused(ctx, top, *p, err)
		}
		if top.InvoiceStep == at { // the mirror has another writer
			return g.ledger.LookAgain(ctx, top, time.Second)
		}
	}
	if top.DaysUntilDue != nil {
		return g.sendInvoice(ctx, top, *p)
	}
	err = g.stripe.PayInvoice(ctx, *top.Invoice, *p)
	crash("topup.called")
	switch {
	case err == nil:
		return g.lookAtDebit(ctx, top)
	case errors.Is(err, stripeutil.ErrDeclined):
		return g.invoiceDeclined(ctx, top, *p, err)
	default:
		return g.invoiceRefused(ctx, top, *p, err)
	}
}

func notExecuted(top ledger.Topup) ledger.Outcome {
	return ledger.Outcome{Topup: top.ID, Status: "failed", Code: "not_executed", Message: "Stripe never said what became of it, and has closed the invoice"}
}

// nextInvoiceStep takes one of the steps before the payment. The step stays where it is when the mirror could not be
// had for finalizing.
func (g *gateway) nextInvoiceStep(ctx context.Context, top *ledger.Topup, p stripeutil.InvoiceParams) error {
	switch top.InvoiceStep {
	case 0:
		in, err := g.stripe.DraftInvoice(ctx, p)
		crash("invoice.drafted")
		if err != nil {
			return err
		}
		return g.ledger.InvoiceStep(ctx, top, ledger.InvoiceDrafted, in.ID)
	case ledger.InvoiceDrafted:
		err := g.stripe.AddInvoiceLine(ctx, *top.Invoice, p)
		crash("invoice.complete")
		if err != nil {
			return err
		}
		return g.completeInvoice(ctx, top, p)
	default:
		return g.finalizeInvoice(ctx, top, p)
	}
}

// errPastCap is of an invoice that comes to more, with its tax, than the rule may spend.
var errPastCap = errors.New("the invoice comes to more than the spend cap allows")

// errChanged is of an invoice that comes to more than was noted of its draft: its tax has risen since, or somebody has
// put something on it. Nobody has said that as much may be charged.
var errChanged = errors.New("the finalized invoice comes to more than its draft")

// completeInvoice notes that an invoice has its line, and the tax that Stripe put on top of it.
func (g *gateway) completeInvoice(ctx context.Context, top *ledger.Topup, p stripeutil.InvoiceParams) error {
	if !p.AutomaticTax {
		return g.ledger.InvoiceStep(ctx, top, ledger.InvoiceComplete, "")
	}
	in, err := g.stripe.Invoice(ctx, *top.Invoice)
	if err != nil {
		return fmt.Errorf("reading what invoice %s comes to: %v", *top.Invoice, err) // says nothing of a step that was taken
	}
	fits, err := g.ledger.InvoiceTotal(ctx, top, in.Total)
	crash("invoice.taxed")
	if err == nil && !fits {
		err = errPastCap
	}
	return err
}

// sendInvoice has Stripe mail an invoice to its customer, and leaves it to them.
func (g *gateway) sendInvoice(ctx context.Context, top ledger.Topup, p stripeutil.InvoiceParams) error {
	in, err := g.stripe.Invoice(ctx, *top.Invoice)
	if err != nil {
		return errors.Join(err, g.later(ctx, top))
	}
	if in.Status == "open" {
		if err = g.stripe.SendInvoice(ctx, *top.Invoice, p); errors.Is(err, stripeutil.ErrInvalid) { // paid or closed in this moment
			return g.lookAtInvoice(ctx, top)
		}
		crash("topup.called")
	}
	if err == nil {
		err = g.ledger.PayableAt(ctx, top, in.URL)
	}
	if err == nil {
		err = g.ledger.InvoiceStep(ctx, &top, ledger.InvoiceSent, "")
	}
	if err != nil {
		return g.invoiceRefused(ctx, top, p, err)
	}
	return g.settleInvoice(ctx, top, in)
}

// finalizeInvoice finalizes an invoice on a balance of nothing, as the one writer of that balance.
func (g *gateway) finalizeInvoice(ctx context.Context, top *ledger.Topup, p stripeutil.InvoiceParams) error {
	ref := ledger.Ref{Bucket: top.Bucket, ID: top.Customer}
	leased, emptied, err := g.emptyMirror(ctx, ref)
	if err != nil || !emptied {
		return err
	}
	crash("invoice.emptied")
	if leased {
		err = g.ledger.RenewMirror(ctx, ref)
	}
	var in stripeutil.Invoice
	if err == nil {
		in, err = g.stripe.FinalizeInvoice(ctx, *top.Invoice, p)
		crash("invoice.finalized")
	}
	if err == nil && in.Total > top.Charge { // before the step is noted: whoever goes on after a crash has to see it too
		err = errChanged
	}
	if err == nil {
		err = g.ledger.InvoiceStep(ctx, top, ledger.InvoiceFinalized, "")
		crash("invoice.noted")
	}
	if leased {
		err = errors.Join(err, g.ledger.ReleaseMirror(ctx, ref, false))
	}
	return err
}

// emptyMirror makes the caller the one writer of a customer's balance and brings it to nothing. emptied is false where
// that can't be done now; leased is false, too, for a customer without a mirror, who has nothing of ours in Stripe.
func (g *gateway) emptyMirror(ctx context.Context, ref ledger.Ref) (leased, emptied bool, err error) {
	for range 20 {
		m, leased, err := g.ledger.LeaseMirror(ctx, ref)
		if err != nil {
			return false, false, err
		}
		if leased {
			for range syncRounds {
				var more bool
				if more, err = g.syncRound(ctx, m); err != nil || !more {
					break
				}
				if m, _, err = g.mirror(ctx, ref); err != nil {
					break
				}
			}
			if err == nil {
				emptied, err = g.ledger.MirrorEmptied(ctx, ref)
			}
			if emptied {
				return true, true, nil
			}
			if err = errors.Join(err, g.ledger.ReleaseMirror(ctx, ref, err != nil)); err != nil {
				return false, false, err
			}
		}
		if _, found, err := g.mirror(ctx, ref); err != nil || !found {
			return false, !found, err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return false, false, nil
}

// fixInvoice answers the parameters of all four calls, written down before the first; nil when there is none to make.
func (g *gateway) fixInvoice(ctx context.Context, top *ledger.Topup) (*stripeutil.InvoiceParams, error) {
	var p *stripeutil.InvoiceParams
	method := deref(top.PaymentMethod)
	if top.Params == nil {
		var m stripeutil.Method
		var err error
		if top.DaysUntilDue == nil {
			if m, err = g.methodFor(ctx, top); err != nil || m.ID == "" {
				return nil, err
			}
		}
		method = m.ID
		p = &stripeutil.InvoiceParams{
			Customer: top.StripeCustomer, PaymentMethod: m.ID, MethodType: m.Type, Amount: top.Charge, Currency: top.Currency, Description: "Credit top-up",
			Metadata:     map[string]string{handlers.TopupMetadata: top.ID, "lockstep_customer": top.Customer},
			AutomaticTax: top.AutomaticTax, DaysUntilDue: int64(deref(top.DaysUntilDue)),
			IdempotencyKey: fmt.Sprintf("topup:%s:attempt:%d", top.ID, top.Attempt),
		}
	}
	return fixCall(ctx, g, top, p, method)
}

// invoiceRefused goes on after a call that failed: what Stripe refused ends the top-up, what it may have done is looked
// at, anything else is tried again.
func (g *gateway) invoiceRefused(ctx context.Context, top ledger.Topup, p stripeutil.InvoiceParams, err error) error {
	var se *stripeutil.Error
	switch {
	case errors.Is(err, errChanged):
		return g.failInvoice(ctx, top, ledger.Outcome{Topup: top.ID, Status: "failed", Code: "invoice_changed", Message: "the invoice came to more when it was finalized than its draft had, and was voided unpaid"})
	case errors.Is(err, errPastCap):
		return g.endInvoice(ctx, top, ledger.Outcome{Topup: top.ID, Status: "failed", Code: ledger.PauseSpendCap, Message: "the charge with its tax would pass the spend cap"})
	case !errors.As(err, &se):
		return errors.Join(err, g.later(ctx, top))
	case errors.Is(err, stripeutil.ErrInvalid), errors.Is(err, stripeutil.ErrNotFound):
		o := ledger.Outcome{Topup: top.ID, Status: "failed", Code: se.Code, Message: se.Message, PaymentMethod: p.PaymentMethod}
		if o.Code == "" {
			o.Code = "invalid_request"
		}
		return g.endInvoice(ctx, top, o)
	case errors.Is(err, stripeutil.ErrKeyMismatch), errors.Is(err, stripeutil.ErrUnknown) && se.HTTPStatus == 500:
		return errors.Join(err, g.invoiceInDoubt(ctx, top, p))
	default:
		return errors.Join(err, g.later(ctx, top))
	}
}

// invoiceInDoubt looks whether a step was taken that Stripe answered with a fault, and goes on after it; a step that
// was not can't be taken under its key any more, and ends the top-up.
func (g *gateway) invoiceInDoubt(ctx context.Context, top ledger.Topup, p stripeutil.InvoiceParams) error {
	in, found, err := g.invoiceOf(ctx, top)
	if err != nil {
		return errors.Join(err, g.later(ctx, top))
	}
	step := int16(0)
	switch {
	case !found || in.Status == "draft" && top.InvoiceStep == ledger.InvoiceComplete:
	case in.Status == "open" && in.Total > top.Charge:
		return g.invoiceRefused(ctx, top, p, errChanged)
	case in.Status != "draft" && top.InvoiceStep < ledger.InvoiceFinalized:
		step = ledger.InvoiceFinalized
	case in.Status == "draft" && in.Subtotal == p.Amount && top.InvoiceStep == ledger.InvoiceDrafted:
		if err := g.completeInvoice(ctx, &top, p); err != nil {
			return g.invoiceRefused(ctx, top, p, err)
		}
		return g.ledger.LookAgain(ctx, top, 0)
	case in.Status == "draft" && top.InvoiceStep == 0:
		step = ledger.InvoiceDrafted
	}
	if step <= top.InvoiceStep {
		return g.endInvoice(ctx, top, notExecuted(top))
	}
	if err := g.ledger.InvoiceStep(ctx, &top, step, in.ID); err != nil {
		return err
	}
	return g.ledger.LookAgain(ctx, top, 0)
}

// invoiceOf reads a top-up's invoice; of one whose call was not answered, it looks for it by its metadata.
func (g *gateway) invoiceOf(ctx context.Context, top ledger.Topup) (in stripeutil.Invoice, found bool, err error) {
	if top.Invoice == nil {
		return g.stripe.FindInvoice(ctx, top.StripeCustomer, top.CreatedAt.Add(-clockSkew), func(in stripeutil.Invoice) bool {
			return in.Metadata[handlers.TopupMetadata] == top.ID
		})
	}
	in, err = g.stripe.Invoice(ctx, *top.Invoice)
	if errors.Is(err, stripeutil.ErrNotFound) { // a draft that was deleted
		return in, false, nil
	}
	return in, err == nil, err
}

// invoiceDeclined books a card that did not pay. An invoice that waits for the customer's authentication stays open
// where a rule asked for it, for the customer to pay; any other is closed, so that nobody pays it later.
func (g *gateway) invoiceDeclined(ctx context.Context, top ledger.Topup, p stripeutil.InvoiceParams, err error) error {
	var se *stripeutil.Error
	if !errors.As(err, &se) {
		return errors.Join(err, g.later(ctx, top))
	}
	o := ledger.Outcome{Topup: top.ID, Status: "failed", PaymentMethod: p.PaymentMethod, Code: se.Code, DeclineCode: se.Code, Message: se.Message}
	if se.PaymentIntent != nil {
		o.PaymentIntent = se.PaymentIntent.ID
	}
	if se.Failure != nil {
		o.Soft = !stripeutil.HardDecline(*se.Failure)
		if se.Failure.DeclineCode != "" {
			o.DeclineCode = se.Failure.DeclineCode
		}
	}
	if se.Code == "invoice_payment_intent_requires_action" || o.DeclineCode == "authentication_required" {
		o.Code, o.DeclineCode, o.Soft = "authentication_required", "authentication_required", false
		if top.Trigger == "auto" {
			o.Status = "action_required"
			in, found, err := g.invoiceOf(ctx, top)
			if err != nil || !found {
				return errors.Join(err, g.later(ctx, top))
			}
			if err := g.ledger.PayableAt(ctx, top, in.URL); err != nil {
				return err
			}
			return g.settle(ctx, o)
		}
	}
	return g.failInvoice(ctx, top, o)
}

// failInvoice closes the invoice of a payment that failed: whoever hears first that it was closed finds written down why.
func (g *gateway) failInvoice(ctx context.Context, top ledger.Topup, o ledger.Outcome) error {
	if err := g.ledger.NoteFailure(ctx, o); err != nil {
		return err
	}
	crash("invoice.failed")
	return g.endInvoice(ctx, top, o)
}

// endInvoice closes a top-up's invoice, whatever it has got to, and settles the top-up; one that was paid meanwhile is
// booked as paid.
func (g *gateway) endInvoice(ctx context.Context, top ledger.Topup, o ledger.Outcome) error {
	in, found, err := g.invoiceOf(ctx, top)
	if err == nil && found {
		switch in.Status {
		case "paid":
			return g.settleInvoice(ctx, top, in)
		case "draft":
			err = g.stripe.DeleteInvoice(ctx, in.ID, "topup:"+top.ID+":delete")
		case "open", "uncollectible":
			err = g.stripe.VoidInvoice(ctx, in.ID, "topup:"+top.ID+":void")
		}
	}
	crash("invoice.closed")
	if errors.Is(err, stripeutil.ErrInvalid) { // it is being paid
		return g.lookAtInvoice(ctx, top)
	}
	if err != nil {
		return errors.Join(err, g.later(ctx, top))
	}
	if err := g.ledger.InvoiceStep(ctx, &top, ledger.InvoiceFinalized, in.ID); err != nil {
		return err
	}
	return g.settle(ctx, o)
}

// lookAtDebit asks Stripe what has become of an invoice whose payment was accepted: a bank takes days for it. One whose
// bank has said no is closed, as one that a card declined at once: it would stay open, and could be paid beside what is
// charged next.
func (g *gateway) lookAtDebit(ctx context.Context, top ledger.Topup) error {
	in, found, err := g.invoiceOf(ctx, top)
	if err != nil || !found {
		return errors.Join(err, g.later(ctx, top))
	}
	if in.Status == "open" && in.Payment != nil {
		if o, ok := handlers.OutcomeOf(*in.Payment); ok && (o.Status == "failed" || o.Status == "action_required") {
			o.Topup, o.Status = top.ID, "failed"
			return g.failInvoice(ctx, top, o)
		}
	}
	return g.settleInvoice(ctx, top, in)
}

// lookAtInvoice asks Stripe what has become of an invoice.
func (g *gateway) lookAtInvoice(ctx context.Context, top ledger.Topup) error {
	in, found, err := g.invoiceOf(ctx, top)
	if err != nil || !found {
		return errors.Join(err, g.later(ctx, top))
	}
	return g.settleInvoice(ctx, top, in)
}

func (g *gateway) settleInvoice(ctx context.Context, top ledger.Topup, in stripeutil.Invoice) error {
	crash("topup.settling")
	settled, err := g.server.SettleInvoice(ctx, top, in)
	crash("topup.settled")
	switch {
	case err != nil || settled:
	case top.InvoiceStep == ledger.InvoiceSent:
		return g.ledger.LookAgain(ctx, top, time.Hour)
	case top.Status != "pending": // the customer may take days
		return g.ledger.LookAgain(ctx, top, 10*time.Minute)
	}
	if err != nil || !settled {
		return errors.Join(err, g.later(ctx, top))
	}
	g.log.Info("invoice settled", "topup", top.ID, "customer", top.Customer, "invoice", in.ID, "status", in.Status)
	return nil
}
