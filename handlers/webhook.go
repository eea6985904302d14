package handlers

import (
	"context"
	"errors"
	"net/http"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// postWebhook takes an event from Stripe: verified, kept, answered. Work comes after the answer.
func (s *Server) postWebhook(c *call) error {
	body, err := c.read(maxWebhook)
	if err != nil {
		return err
	}
	e, err := stripeutil.VerifyWebhook(body, c.r.Header.Get("Stripe-Signature"), s.WebhookSecrets, s.Ledger.Now())
	if errors.Is(err, stripeutil.ErrSignature) {
		s.Log.Warn("webhook refused", "request", c.id, "reason", err)
		return &fault{http.StatusBadRequest, "invalid_request_error", "signature_invalid", "", err.Error()}
	}
	if err != nil {
		return invalid("", "the event can't be read: "+err.Error())
	}
	err = c.within(s.rooms.webhooks, func(c *call) error { return s.StoreEvent(c.ctx(), e, body, "webhook") })
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, []byte("{\"received\":true}\n"))
}

// StoreEvent keeps an event, to be worked off where it says something to us. One of the other mode (test
// or live) is kept and never worked off: nothing that Stripe could send again would change that.
func (s *Server) StoreEvent(ctx context.Context, e stripeutil.Event, raw []byte, origin string) error {
	status := "pending"
	if _, known := effects[e.Type]; !known {
		status = "ignored"
	}
	if e.Livemode != s.Stripe.Livemode() {
		s.Log.Error("event of the other mode ignored", "event", e.ID, "type", e.Type, "livemode", e.Livemode)
		status = "ignored"
	}
	fresh, err := s.Ledger.StoreEvent(ctx, ledger.StripeEvent{ID: e.ID, Type: e.Type, APIVersion: e.APIVersion, Livemode: e.Livemode,
		Payload: string(raw), Origin: origin, Status: status, CreatedAt: e.Created})
	if err != nil {
		return err
	}
	s.metrics.event(origin, fresh)
	if fresh && status == "pending" && s.EventStored != nil {
		s.EventStored()
	}
	return nil
}

// effects says what each event does: one function an event. An event may come twice, late, early, or not
// at all; each function is safe against all of that.
var effects = map[string]func(*Server, context.Context, stripeutil.Event) error{
	"payment_intent.succeeded":             (*Server).paymentChanged,
	"payment_intent.processing":            (*Server).paymentChanged,
	"payment_intent.payment_failed":        (*Server).paymentChanged,
	"payment_intent.canceled":              (*Server).paymentChanged,
	"payment_intent.requires_action":       (*Server).paymentChanged,
	"customer.updated":                     (*Server).customerUpdated,
	"customer.deleted":                     (*Server).customerDeleted,
	"charge.refunded":                      (*Server).moneyBack,
	"charge.refund.updated":                (*Server).moneyBack,
	"refund.created":                       (*Server).moneyBack,
	"refund.updated":                       (*Server).moneyBack,
	"charge.dispute.created":               (*Server).moneyBack,
	"charge.dispute.updated":               (*Server).moneyBack,
	"charge.dispute.closed":                (*Server).moneyBack,
	"charge.dispute.funds_withdrawn":       (*Server).moneyBack,
	"charge.dispute.funds_reinstated":      (*Server).moneyBack,
	"credit_note.created":                  (*Server).creditNoteChanged,
	"credit_note.updated":                  (*Server).creditNoteChanged,
	"credit_note.voided":                   (*Server).creditNoteChanged,
	"invoice.paid":                         (*Server).invoicePaid,
	"invoice.voided":                       (*Server).invoiceChanged,
	"invoice.marked_uncollectible":         (*Server).invoiceChanged,
	"invoice.payment_failed":               (*Server).invoiceChanged,
	"invoice.payment_action_required":      (*Server).invoiceChanged,
	"invoice.finalization_failed":          (*Server).invoiceChanged,
	"payment_method.automatically_updated": (*Server).cardRenewed,
	"payment_method.detached":              (*Server).cardDetached,
	"checkout.session.completed":           (*Server).checkoutPaid,

	"checkout.session.async_payment_succeeded": (*Server).checkoutPaid,
	"checkout.session.async_payment_failed":    (*Server).checkoutEnded,
	"checkout.session.expired":                 (*Server).checkoutEnded,
}

// EventTypes lists the events that have an effect.
func EventTypes() []string {
	types := make([]string, 0, len(effects))
	for t := range effects {
		types = append(types, t)
	}
	return types
}

// Apply works an event off. handled is false when it says nothing to us.
func (s *Server) Apply(ctx context.Context, e stripeutil.Event) (handled bool, err error) {
	effect, ok := effects[e.Type]
	if !ok {
		return false, nil
	}
	return true, effect(s, ctx, e)
}

// TopupMetadata is the name under which a payment at Stripe carries its top-up's id.
const TopupMetadata = "lockstep_topup"

// paymentChanged settles the top-up that a payment belongs to. An event rendered by another API version is
// taken as a hint, and the payment read again in ours.
func (s *Server) paymentChanged(ctx context.Context, e stripeutil.Event) error {
	pi, err := e.PaymentIntent()
	if e.APIVersion != s.Stripe.APIVersion() {
		pi, err = s.Stripe.PaymentIntent(ctx, e.ObjectID())
	}
	if err != nil {
		return err
	}
	return s.settlePayment(ctx, pi)
}

// settlePayment books what a payment says of its top-up.
func (s *Server) settlePayment(ctx context.Context, pi stripeutil.PaymentIntent) error {
	if pi.Metadata[TopupMetadata] == "" || pi.Invoice != "" {
		return nil // somebody else's payment, or an invoice's, which tells of itself
	}
	o, ok := OutcomeOf(pi)
	if !ok {
		return nil
	}
	top, err := s.Ledger.TopupByID(ctx, o.Topup)
	if ledger.IsCode(err, ledger.CodeNotFound) {
		s.Log.Warn("payment of an unknown top-up", "payment_intent", pi.ID, "topup", o.Topup)
		return nil
	}
	if err == nil && (top.Mode == "checkout" || top.Page > 0) {
		return s.paidOnPage(ctx, top, pi, o)
	}
	if err == nil {
		_, err = s.Ledger.SettleTopup(ctx, o)
	}
	return err
}

// OutcomeOf is what a payment at Stripe says of its top-up; ok is false when it says nothing yet.
func OutcomeOf(pi stripeutil.PaymentIntent) (o ledger.Outcome, ok bool) {
	o = ledger.Outcome{Topup: pi.Metadata[TopupMetadata], PaymentIntent: pi.ID, PaymentMethod: pi.PaymentMethod}
	if f := pi.Failure; f != nil {
		o.Code, o.DeclineCode, o.Message = f.Code, f.DeclineCode, f.Message
		o.Soft = !stripeutil.HardDecline(*f)
		if o.DeclineCode == "" { // Stripe has none for the declines that are codes of their own, such as expired_card
			o.DeclineCode = f.Code
		}
	}
	switch pi.Status {
	case "succeeded":
		o.Status, o.Received = "succeeded", pi.AmountReceived
		o.Code, o.DeclineCode, o.Message = "", "", ""
	case "processing":
		o.Status = "processing"
	case "canceled":
		o.Status = "canceled"
	case "requires_action":
		o.Status = "action_required"
	case "requires_payment_method":
		if pi.Failure == nil {
			return o, false
		}
		o.Status = "failed"
		// Off-session, Stripe asks for authentication by declining; the same payment can still be
		// confirmed by the customer, so it is not over.
		if o.Code == "authentication_required" || o.DeclineCode == "authentication_required" {
			o.Status = "action_required"
		}
	default:
		return o, false
	}
	return o, true
}

// customerOf is whose Stripe customer an event is about; known is false for a stranger's.
func (s *Server) customerOf(ctx context.Context, e stripeutil.Event) (ref ledger.Ref, known bool, err error) {
	ref, err = s.Ledger.Resolve(ctx, e.ObjectID())
	if ledger.IsCode(err, ledger.CodeNotFound) {
		return ref, false, nil
	}
	return ref, err == nil, err
}
