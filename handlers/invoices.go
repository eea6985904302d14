package handlers

import (
	"context"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// invoiceChanged follows an invoice that buys credit and was not paid, or not yet. The event is only a hint: the
// invoice is read again.
func (s *Server) invoiceChanged(ctx context.Context, e stripeutil.Event) error {
	if e.Metadata()[TopupMetadata] == "" {
		return nil // a sale, which is booked when it is paid
	}
	in, err := s.Stripe.Invoice(ctx, e.ObjectID())
	if err != nil {
		return err
	}
	return s.topupInvoice(ctx, in)
}

// topupInvoice settles the top-up that an invoice is for, where the invoice says something yet; else its worker looks.
func (s *Server) topupInvoice(ctx context.Context, in stripeutil.Invoice) error {
	top, err := s.Ledger.TopupByID(ctx, in.Metadata[TopupMetadata])
	if ledger.IsCode(err, ledger.CodeNotFound) || err == nil && !isInvoiceOf(&top, in) {
		s.Log.Warn("invoice of an unknown top-up", "invoice", in.ID, "topup", in.Metadata[TopupMetadata])
		return nil
	}
	if err != nil {
		return err
	}
	settled, err := s.SettleInvoice(ctx, top, in)
	if err == nil && !settled && (top.Status == "pending" || top.Status == "processing") {
		err = s.Ledger.HurryTopup(ctx, top)
	}
	return err
}

// isInvoiceOf reports whether an invoice is the one that pays for the top-up.
func isInvoiceOf(top *ledger.Topup, in stripeutil.Invoice) bool {
	return top.Mode == "invoice" && (top.Invoice == nil || *top.Invoice == in.ID) && top.StripeCustomer == in.Customer
}

// SettleInvoice books what a top-up's invoice says; settled is false when it says nothing yet. First the mirror is told
// to show the credit again, and to read what Stripe did to the balance.
func (s *Server) SettleInvoice(ctx context.Context, top ledger.Topup, in stripeutil.Invoice) (settled bool, err error) {
	o, ok := OutcomeOfInvoice(&top, in)
	if !ok {
		return false, nil
	}
	if in.Status != "open" {
		if err := s.Ledger.InvoiceStep(ctx, &top, ledger.InvoiceFinalized, in.ID); err != nil {
			return false, err
		}
	}
	if o.Status == "action_required" {
		if err := s.Ledger.PayableAt(ctx, top, in.URL); err != nil {
			return false, err
		}
	}
	_, err = s.Ledger.SettleTopup(ctx, o)
	return err == nil, err
}

// OutcomeOfInvoice is what an invoice says of its top-up; ok is false when it says nothing yet. An open one whose card
// was declined says nothing: the worker that tried it closes it.
//
// What is credited is what was paid, and what the customer's balance paid of it: that was the customer's credit, and
// the ledger follows the balance by itself. Where the balance owed, the debt goes the same way. So the customer has what
// was there and what was paid, also where Stripe put a charge that is too small on the balance and took no money at all.
func OutcomeOfInvoice(top *ledger.Topup, in stripeutil.Invoice) (o ledger.Outcome, ok bool) {
	o = ledger.Outcome{Topup: top.ID, PaymentIntent: in.PaymentIntent}
	switch in.Status {
	case "paid":
		o.Status, o.Received = "succeeded", in.Received()
		if o.Received <= 0 {
			o.Status, o.Received, o.Code, o.Message = "failed", 0, "nothing_paid", "the invoice was closed without a payment"
		}
	case "void", "uncollectible":
		o.Status, o.Code, o.Message = "failed", "invoice_"+in.Status, "the invoice was closed: it is "+in.Status
		if in.Status == "void" {
			o.Code = "invoice_voided"
		}
		if top.FailureCode != nil { // closed for a decline that is written down
			o.Code, o.DeclineCode, o.Message, o.Soft = *top.FailureCode, deref(top.DeclineCode), deref(top.FailureMessage), top.FailureSoft
		}
		if top.Cancel {
			o = ledger.Outcome{Topup: top.ID, Status: "canceled", PaymentIntent: in.PaymentIntent}
		}
	case "open":
		if top.DaysUntilDue != nil { // it is its customer's to pay, in as many tries as they like
			return o, false
		}
		if in.Payment == nil || in.Payment.Status != "processing" && in.Payment.Status != "requires_action" {
			return o, false
		}
		po, ok := OutcomeOf(*in.Payment)
		po.Topup = top.ID
		if po.Status == "action_required" && top.Trigger == "manual" {
			return po, false // its worker closes it first
		}
		return po, ok
	default:
		return o, false
	}
	return o, true
}
