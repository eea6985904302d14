package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// A suspect is something that a list gave reason to look at by itself: then both sides are read anew, and judged. What
// can be repaired is repaired by the very functions that the webhook's events call.

// What a suspect is.
const (
	aCustomer = "customer" // our id: the balance
	aPayment  = "payment"  // pi_…: whether it was credited, its refunds and its disputes
	aTopup    = "topup"    // top_…: whether it was paid
	aSale     = "sale"     // in_… or cs_…
	anEvent   = "event"    // evt_…: given up
)

type suspect struct {
	Kind string `json:"k"`
	ID   string `json:"id"`
}

// exam is what a look at a suspect came to.
type exam struct {
	customer string // as a finding names them: our id, or Stripe's of a customer who is none of ours
	ref      ledger.Ref
	known    bool // one of ours
	found    []difference
}

// whose notes the customer of a look: by our id, or by Stripe's.
func (s *Server) whoseExam(ctx context.Context, e *exam, id string) error {
	e.customer = id
	if id == "" {
		return nil
	}
	ref, err := s.Ledger.Resolve(ctx, id)
	if ledger.IsCode(err, ledger.CodeNotFound) {
		return nil
	}
	e.ref, e.known = ref, err == nil
	if e.known {
		e.customer = ref.ID
	}
	return err
}

// unknownAtStripe says that an answer means that Stripe has no such thing: an id that can't be one is one that it has not.
func unknownAtStripe(err error) bool {
	return errors.Is(err, stripeutil.ErrNotFound) || errors.Is(err, stripeutil.ErrInvalid)
}

// examine reads both sides of a suspect as they are now, and judges them.
func (s *Server) examine(ctx context.Context, su suspect) (e exam, err error) {
	switch su.Kind {
	case aCustomer:
		return s.examineCustomer(ctx, su.ID)
	case aPayment:
		return s.examinePayment(ctx, su.ID)
	case aTopup:
		return s.examineTopup(ctx, su.ID)
	case aSale:
		return s.examineSale(ctx, su.ID)
	case anEvent:
		return s.examineEvent(ctx, su.ID)
	}
	return e, fmt.Errorf("a suspect of no kind: %q", su.Kind)
}

// mend repairs what can be of a suspect, by the ordinary ways.
func (s *Server) mend(ctx context.Context, su suspect, e exam) error {
	switch su.Kind {
	case aCustomer:
		return s.mendBalance(ctx, e)
	case aPayment:
		return s.mendPayment(ctx, su.ID)
	case aTopup:
		return s.mendTopup(ctx, su.ID)
	case aSale:
		return s.mendSale(ctx, su.ID)
	default:
		return s.mendEvent(ctx, su.ID)
	}
}

// mendAndSync is mend, after which Stripe's balance follows what was booked.
func (s *Server) mendAndSync(ctx context.Context, su suspect, e exam) error {
	err := s.mend(ctx, su, e)
	if err == nil && su.Kind != aCustomer && e.known {
		if err := s.Sync(ctx, e.ref); err != nil { // the next flush does it
			s.Log.Warn("repaired, and the balance in Stripe is not up to date", "customer", e.customer, "error", err)
		}
	}
	return err
}

func (s *Server) examineCustomer(ctx context.Context, id string) (e exam, err error) {
	cust, err := s.Ledger.Customer(ctx, id)
	if err != nil {
		return e, err
	}
	e.customer, e.ref, e.known = cust.ID, cust.Ref, true
	_, e.found, err = s.judge(ctx, cust)
	return e, err
}

// mendBalance imports what is not known, levels what no transaction explains, and lets the mirror catch up.
func (s *Server) mendBalance(ctx context.Context, e exam) error {
	cust, err := s.Ledger.Customer(ctx, e.customer)
	if err != nil {
		return err
	}
	for _, d := range e.found {
		if d.kind == kindDeleted {
			return s.Ledger.CustomerDeleted(ctx, cust.Ref)
		}
	}
	if len(e.found) > 0 && e.found[0].kind != kindUnflushed {
		if err := s.Ledger.ImportDue(ctx, cust.Ref); err != nil {
			return err
		}
	}
	if err := s.Sync(ctx, cust.Ref); err != nil {
		return err
	}
	after, _, err := s.judge(ctx, cust)
	if err != nil || !after.unexplained() {
		return err
	}
	if err := s.Ledger.LevelMirror(ctx, cust.Ref, after.known(), after.Stripe); err != nil {
		return err
	}
	return s.Sync(ctx, cust.Ref)
}

// examinePayment looks at a payment: at what it bought, and at what went back of it.
func (s *Server) examinePayment(ctx context.Context, id string) (e exam, err error) {
	pi, err := s.Stripe.PaymentIntent(ctx, id)
	if unknownAtStripe(err) {
		return e, nil // whose it was, a top-up or a sale, is looked at by itself
	}
	if err != nil {
		return e, err
	}
	if err := s.whoseExam(ctx, &e, pi.Customer); err != nil {
		return e, err
	}
	if pi.Invoice != "" {
		in, err := s.Stripe.Invoice(ctx, pi.Invoice)
		if err != nil {
			return e, err
		}
		moves, err := s.movesOfInvoice(ctx, in, true)
		if err != nil {
			return e, err
		}
		return e, s.examineBacks(ctx, &e, pi, in.Received(), moves)
	}
	if topup := pi.Metadata[TopupMetadata]; topup != "" {
		books, err := s.Ledger.TopupsBooked(ctx, []string{topup})
		if err != nil {
			return e, err
		}
		sides := sidesOfPayment(topup, books[topup], pi)
		if b := books[topup]; b != nil {
			e.customer, e.ref, e.known = b.Customer, ledger.Ref{Bucket: b.Bucket, ID: b.Customer}, true
		}
		if e.found = judgeTopup(sides); len(e.found) > 0 {
			return e, nil // its refunds are of no consequence until it is booked
		}
	}
	moves, err := s.movesOf(ctx, pi.ID)
	if err != nil {
		return e, err
	}
	return e, s.examineBacks(ctx, &e, pi, pi.AmountReceived, moves)
}

// examineBacks looks at what went back of a payment, and of what else came with it.
func (s *Server) examineBacks(ctx context.Context, e *exam, pi stripeutil.PaymentIntent, received int64, moves []ledger.MoneyBack) error {
	all, err := s.Ledger.PaymentsBooked(ctx, []string{pi.ID})
	if err != nil {
		return err
	}
	books := all[pi.ID]
	if books != nil {
		e.customer, e.ref, e.known = books.ID, books.Ref, true
		e.found = judgeBacks(backSides{payment: pi.ID, currency: pi.Currency, received: received, stripe: moves, books: books.Backs, grants: books.Grants})
		return nil
	}
	if !e.known {
		return nil
	}
	// A payment that bought no credit: only an open dispute of it says something to us, for it stops the rules.
	for _, m := range moves {
		booked, err := s.Ledger.DisputesBooked(ctx, []string{m.ID})
		if err != nil {
			return err
		}
		if m.Open && booked[m.ID] == "" {
			d, _ := judgeBack(backSides{payment: pi.ID}, m, ledger.MoneyBack{}, false)
			d.state, d.ids, d.repairable, d.ledger, d.stripe = "ledger_ahead", []string{m.ID, pi.ID}, true, received, received-m.Amount
			e.found = append(e.found, d)
		}
	}
	return nil
}

// sidesOfPayment is what a payment says of its top-up. On a page only that it was paid counts: what else becomes of a
// payment there, the page tells.
func sidesOfPayment(topup string, books *ledger.TopupBooks, pi stripeutil.PaymentIntent) topupSides {
	s := topupSides{topup: topup, books: books, object: pi.ID, status: pi.Status, back: pi.AmountReceived > 0 && pi.Refunded >= pi.AmountReceived}
	if pi.Metadata[TopupMetadata] != topup {
		s.status = "the payment of something else"
		return s
	}
	s.outcome, s.said = OutcomeOf(pi)
	if books != nil && (books.Mode == "checkout" || books.Page > 0) {
		s.said = s.said && s.outcome.Status == "succeeded"
		inItsCurrency(&books.Topup, pi, &s.outcome)
	}
	return s
}

func (s *Server) mendPayment(ctx context.Context, id string) error {
	pi, err := s.Stripe.PaymentIntent(ctx, id)
	if err != nil {
		return err
	}
	if err := s.settlePayment(ctx, pi); err != nil {
		return err
	}
	if pi.Invoice == "" {
		return s.followRefunds(ctx, id)
	}
	in, err := s.Stripe.Invoice(ctx, pi.Invoice)
	if err != nil {
		return err
	}
	return s.followInvoice(ctx, in, true)
}

// examineTopup looks for what paid for a top-up.
func (s *Server) examineTopup(ctx context.Context, id string) (e exam, err error) {
	all, err := s.Ledger.TopupsBooked(ctx, []string{id})
	b := all[id]
	if err != nil || b == nil || b.Leased {
		return e, err
	}
	e.customer, e.ref, e.known = b.Customer, ledger.Ref{Bucket: b.Bucket, ID: b.Customer}, true
	sides, _, _, err := s.sidesOfTopup(ctx, b)
	if err != nil {
		return e, err
	}
	e.found = judgeTopup(sides)
	if len(e.found) == 0 && b.Status == "succeeded" {
		return e, s.Ledger.Verified(ctx, []string{id}, nil)
	}
	return e, nil
}

// clockSkew is how far Stripe's clock may be from ours.
const clockSkew = 10 * time.Minute

// sidesOfTopup reads what paid for a top-up, wherever that is: its payment, or its invoice.
func (s *Server) sidesOfTopup(ctx context.Context, b *ledger.TopupBooks) (sides topupSides, pi *stripeutil.PaymentIntent, in *stripeutil.Invoice, err error) {
	if b.Mode == "invoice" {
		return s.sidesOfInvoiced(ctx, b)
	}
	sides = topupSides{topup: b.ID, books: b}
	switch {
	case b.PaymentIntent != nil && !(b.Paged() && b.InFlight()): // a page stands in its place
		sides.object = *b.PaymentIntent
		var p stripeutil.PaymentIntent
		p, err = s.Stripe.PaymentIntent(ctx, sides.object)
		pi = &p
	case b.CheckoutSession != nil:
		sides.object = *b.CheckoutSession
		var cs stripeutil.CheckoutSession
		cs, err = s.Stripe.CheckoutSession(ctx, sides.object)
		sides.status, pi = cs.Status, cs.Payment
	default:
		p, found, findErr := s.Stripe.FindPaymentIntent(ctx, b.StripeCustomer, b.CreatedAt.Add(-clockSkew), func(pi stripeutil.PaymentIntent) bool {
			return pi.Metadata[TopupMetadata] == b.ID
		})
		if pi, err = &p, findErr; err == nil && !found {
			sides.gone, pi = true, nil
		}
	}
	if unknownAtStripe(err) {
		sides.gone = true
		return sides, nil, nil, nil
	}
	if err != nil || pi == nil {
		return sides, nil, nil, err
	}
	return sidesOfPayment(b.ID, b, *pi), pi, nil, nil
}

func (s *Server) sidesOfInvoiced(ctx context.Context, b *ledger.TopupBooks) (sides topupSides, _ *stripeutil.PaymentIntent, _ *stripeutil.Invoice, err error) {
	sides = topupSides{topup: b.ID, books: b}
	var in stripeutil.Invoice
	found := true
	if b.Invoice != nil {
		sides.object = *b.Invoice
		in, err = s.Stripe.Invoice(ctx, *b.Invoice)
	} else {
		in, found, err = s.Stripe.FindInvoice(ctx, b.StripeCustomer, b.CreatedAt.Add(-clockSkew), func(in stripeutil.Invoice) bool {
			return in.Metadata[TopupMetadata] == b.ID
		})
	}
	if unknownAtStripe(err) || err == nil && !found {
		sides.gone = true
		return sides, nil, nil, nil
	}
	if err != nil {
		return sides, nil, nil, err
	}
	return sidesOfInvoice(b, in), nil, &in, nil
}

func sidesOfInvoice(b *ledger.TopupBooks, in stripeutil.Invoice) topupSides {
	s := topupSides{topup: in.Metadata[TopupMetadata], books: b, object: in.ID, status: in.Status}
	if b == nil {
		s.said = in.Status == "paid"
		s.outcome = ledger.Outcome{Status: "succeeded", Received: in.AmountPaid}
		return s
	}
	if !isInvoiceOf(&b.Topup, in) {
		s.status = "the invoice of something else"
		return s
	}
	s.outcome, s.said = OutcomeOfInvoice(&b.Topup, in)
	return s
}

func (s *Server) mendTopup(ctx context.Context, id string) error {
	all, err := s.Ledger.TopupsBooked(ctx, []string{id})
	b := all[id]
	if err != nil || b == nil {
		return err
	}
	_, pi, in, err := s.sidesOfTopup(ctx, b)
	switch {
	case err != nil:
		return err
	case in != nil:
		return s.topupInvoice(ctx, *in)
	case pi != nil:
		return s.settlePayment(ctx, *pi)
	}
	return nil
}
