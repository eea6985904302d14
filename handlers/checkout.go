package handlers

import (
	"context"
	"errors"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// checkoutEnded follows a page that expired, or whose payment failed days after it was completed.
func (s *Server) checkoutEnded(ctx context.Context, e stripeutil.Event) error {
	if e.Metadata()[TopupMetadata] == "" {
		return nil // nothing was bought
	}
	cs, err := s.Stripe.CheckoutSession(ctx, e.ObjectID())
	if err != nil {
		return err
	}
	return s.topupSession(ctx, cs)
}

// topupSession settles the top-up that a page is for, where the page says something yet.
func (s *Server) topupSession(ctx context.Context, cs stripeutil.CheckoutSession) error {
	top, err := s.Ledger.TopupByID(ctx, cs.Metadata[TopupMetadata])
	if ledger.IsCode(err, ledger.CodeNotFound) || err == nil && !isPageOf(&top, cs) {
		s.Log.Warn("checkout of an unknown top-up", "checkout_session", cs.ID, "topup", cs.Metadata[TopupMetadata])
		return nil
	}
	if err != nil {
		return err
	}
	_, err = s.SettleCheckout(ctx, top, cs)
	return err
}

// isPageOf reports whether a session is the page on which the top-up is paid.
func isPageOf(top *ledger.Topup, cs stripeutil.CheckoutSession) bool {
	return (top.Mode == "checkout" || top.Paged()) && (top.CheckoutSession == nil || *top.CheckoutSession == cs.ID) && top.StripeCustomer == cs.Customer
}

// SettleCheckout books what a top-up's page says; settled is false when it says nothing yet. The card is kept first:
// whoever is stopped in between finds the top-up to be settled, and keeps the card again.
func (s *Server) SettleCheckout(ctx context.Context, top ledger.Topup, cs stripeutil.CheckoutSession) (settled bool, err error) {
	if cs.Status == "expired" && top.Paged() {
		err = s.Ledger.PageExpired(ctx, top, cs.ID)
		return err == nil, err
	}
	o, ok := outcomeOfSession(&top, cs)
	if !ok {
		return false, nil
	}
	if o.Status == "succeeded" && cs.Payment != nil {
		err = s.keepCard(ctx, top, *cs.Payment)
	}
	_, failed := s.Ledger.SettleTopup(ctx, o)
	return failed == nil, errors.Join(failed, err)
}

// outcomeOfSession is what a page says of its top-up. A card that was declined says nothing: the page is still open,
// for another.
func outcomeOfSession(top *ledger.Topup, cs stripeutil.CheckoutSession) (o ledger.Outcome, ok bool) {
	o = ledger.Outcome{Topup: top.ID}
	switch {
	case cs.Status == "expired":
		o.Status = "canceled"
		return o, true
	case cs.Status != "complete" || cs.Payment == nil:
		return o, false
	}
	if o, ok = OutcomeOf(*cs.Payment); !ok {
		return o, false
	}
	o.Topup = top.ID
	if cs.PaymentStatus == "paid" {
		o.Status, o.Code, o.DeclineCode, o.Message = "succeeded", "", "", ""
	}
	if o.Status == "action_required" || o.Status == "canceled" {
		o.Status = "failed" // the page is closed: nobody can pay on it any more
	}
	inItsCurrency(top, *cs.Payment, &o)
	return o, true
}

// inItsCurrency sets aside how much came where the customer paid in a currency of their own: what Stripe took for the
// page's price pays for all of it.
func inItsCurrency(top *ledger.Topup, pi stripeutil.PaymentIntent, o *ledger.Outcome) {
	if pi.Currency != top.Currency {
		o.Received = 0
	}
}

// keepCard makes the card that paid on a page the customer's default where they have none, which arms what waits for
// a card. Stripe saved it with the payment.
func (s *Server) keepCard(ctx context.Context, top ledger.Topup, pi stripeutil.PaymentIntent) error {
	if pi.PaymentMethod == "" || top.StripeCustomer == "" {
		return nil
	}
	cust, err := s.Stripe.Customer(ctx, top.StripeCustomer)
	if err != nil || cust.Deleted || cust.DefaultPaymentMethod != "" && cust.DefaultPaymentMethod != pi.PaymentMethod {
		return err
	}
	if cust.DefaultPaymentMethod == "" {
		_, err = s.Stripe.SetDefaultPaymentMethod(ctx, top.StripeCustomer, pi.PaymentMethod, "topup:"+top.ID+":default")
		if errors.Is(err, stripeutil.ErrInvalid) || errors.Is(err, stripeutil.ErrNotFound) {
			s.Log.Warn("the card that paid can't be kept", "topup", top.ID, "error", err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return s.Ledger.CardChanged(ctx, ledger.Ref{Bucket: top.Bucket, ID: top.Customer}, pi.PaymentMethod)
}

// paidOnPage books what a payment says that was made on a page. Only that it came, or is on its way, counts: what else
// becomes of a payment, its page tells.
func (s *Server) paidOnPage(ctx context.Context, top ledger.Topup, pi stripeutil.PaymentIntent, o ledger.Outcome) error {
	if o.Status != "succeeded" && o.Status != "processing" {
		return nil
	}
	var kept error
	if o.Status == "succeeded" {
		kept = s.keepCard(ctx, top, pi)
	}
	inItsCurrency(&top, pi, &o)
	_, err := s.Ledger.SettleTopup(ctx, o)
	return errors.Join(err, kept)
}
