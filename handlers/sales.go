package handlers

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// customerMetadata is the name under which a Stripe customer that Lockstep made carries its own id.
const customerMetadata = "lockstep_customer"

// invoicePaid books what a paid invoice sold. The event is only a hint: the invoice is read again.
func (s *Server) invoicePaid(ctx context.Context, e stripeutil.Event) error {
	in, err := s.Stripe.Invoice(ctx, e.ObjectID())
	if err != nil {
		return err
	}
	if in.Metadata[TopupMetadata] != "" {
		return s.topupInvoice(ctx, in)
	}
	return s.applyInvoice(ctx, in)
}

// applyInvoice books a paid invoice. What it takes back or carries over is of earlier ones, whose events may be late or
// lost: those of its subscription are booked before it.
//
//	owner → commit → earlier invoices → lines → commit
//
// Stopped anywhere, the same event starts over and finds what was done.
func (s *Server) applyInvoice(ctx context.Context, in stripeutil.Invoice) error {
	sale, ref, owned, err := s.invoiceSale(ctx, in)
	if err != nil || !owned {
		return err
	}
	if in.Subscription != "" && in.Reason != "subscription_create" && sale.Sells() {
		if err := s.applyEarlier(ctx, in, ref); err != nil {
			return err
		}
	}
	return s.bookSale(ctx, sale)
}

// invoiceSale is what an invoice sold and to whom; owned is false when it says nothing to us.
func (s *Server) invoiceSale(ctx context.Context, in stripeutil.Invoice) (sale ledger.Sale, ref ledger.Ref, owned bool, err error) {
	if in.Status != "paid" || in.Metadata[TopupMetadata] != "" || in.PaymentMetadata[TopupMetadata] != "" {
		return sale, ref, false, nil // a top-up's invoice tells of itself
	}
	lines, err := s.Stripe.InvoiceLines(ctx, in.ID)
	if err != nil {
		return sale, ref, false, err
	}
	sale = ledger.Sale{ID: in.ID, PaymentIntent: in.PaymentIntent, PaidAt: in.PaidAt, Lines: saleLines(lines)}
	ref, owned, err = s.invoiceOwner(ctx, in)
	if err != nil {
		return sale, ref, false, err
	}
	if !owned {
		if sale.Sells() {
			s.Log.Warn("credit was sold to a stranger: link the Stripe customer to one of ours and replay the event",
				"invoice", in.ID, "stripe_customer", in.Customer, "subscription", in.Subscription)
		}
		return sale, ref, false, nil
	}
	if sale.Sells() {
		if ref, err = s.Ledger.ClaimSale(ctx, in.ID, ref); err != nil {
			return sale, ref, false, err
		}
	}
	sale.Customer = ref
	return sale, ref, true, nil
}

// invoiceOwner is whose an invoice is: as was said of it or of its subscription, else its Stripe customer's.
func (s *Server) invoiceOwner(ctx context.Context, in stripeutil.Invoice) (ref ledger.Ref, owned bool, err error) {
	if ref, owned, err = s.Ledger.SaleOwner(ctx, in.ID, in.Subscription); err != nil || owned {
		return ref, owned, err
	}
	return s.ownerOf(ctx, in.Customer)
}

// ownerOf is whose a Stripe customer is. One that we made, but were stopped before we wrote that down, says so itself.
func (s *Server) ownerOf(ctx context.Context, stripeCustomer string) (ref ledger.Ref, owned bool, err error) {
	if stripeCustomer == "" {
		return ref, false, nil
	}
	ref, err = s.Ledger.Resolve(ctx, stripeCustomer)
	if err == nil || !ledger.IsCode(err, ledger.CodeNotFound) {
		return ref, err == nil, err
	}
	sc, err := s.Stripe.Customer(ctx, stripeCustomer)
	id := sc.Metadata[customerMetadata]
	if err != nil || sc.Deleted || ledger.CheckCustomerID(id) != nil {
		return ref, false, err
	}
	cust, err := s.Ledger.Customer(ctx, id)
	if ledger.IsCode(err, ledger.CodeNotFound) || err == nil && cust.StripeCustomer != "" {
		return ref, false, nil
	}
	if err == nil {
		err = s.Ledger.LinkCustomer(ctx, cust.Ref, sc.ID, sc.Currency, false)
	}
	return cust.Ref, err == nil, err
}

// earlierLooked bounds how many of a subscription's invoices are looked at for one that was missed.
const earlierLooked = 100

// applyEarlier books the paid invoices of a subscription that came before one and that nobody has booked yet. Those
// that were paid before there was a customer to have the credit are nobody's.
func (s *Server) applyEarlier(ctx context.Context, before stripeutil.Invoice, ref ledger.Ref) error {
	cust, err := s.Ledger.Customer(ctx, ref.ID)
	if err != nil {
		return err
	}
	_, sold, err := s.Ledger.SaleOwner(ctx, before.Subscription) // by a checkout, which was before the customer
	if err != nil {
		return err
	}
	missed, err := s.unbooked(ctx, before.Subscription, before.ID, ref)
	if err != nil {
		return err
	}
	since := cust.CreatedAt.Truncate(time.Second) // as fine as Stripe's times
	err = s.bookMissed(ctx, slices.DeleteFunc(missed, func(in stripeutil.Invoice) bool { return !sold && in.PaidAt.Before(since) }))
	var refused *ledger.Refusal
	if errors.As(err, &refused) { // it waits for its metadata under an event of its own, and must not keep this one from its credit
		s.Log.Warn("an earlier invoice of the subscription can't be booked", "invoice", before.ID, "subscription", before.Subscription, "error", err)
		return nil
	}
	return err
}

// bookMissed books invoices that were listed, the newest first, in the order in which they were made. One that is
// refused does not keep the others from being booked.
func (s *Server) bookMissed(ctx context.Context, missed []stripeutil.Invoice) error {
	var refusals error
	for _, in := range slices.Backward(missed) {
		sale, _, owned, err := s.invoiceSale(ctx, in)
		if err == nil && owned {
			err = s.bookSale(ctx, sale)
		}
		var refused *ledger.Refusal
		if err != nil && !errors.As(err, &refused) {
			return err
		}
		refusals = errors.Join(refusals, err)
	}
	return refusals
}

// unbooked lists the paid invoices of a subscription that are older than one, or all where it is "", the newest first,
// down to the first that was booked.
func (s *Server) unbooked(ctx context.Context, subscription, before string, ref ledger.Ref) (missed []stripeutil.Invoice, err error) {
	older, looked := before == "", 0
	var failed error
	err = s.Stripe.InvoicesOf(ctx, subscription, func(in stripeutil.Invoice) bool {
		looked++
		if older && in.Status == "paid" {
			booked, err := s.Ledger.SaleApplied(ctx, ref, in.ID)
			if err != nil || booked {
				failed = err
				return false
			}
			missed = append(missed, in)
		}
		older = older || in.ID == before
		return looked < earlierLooked
	})
	return missed, errors.Join(err, failed)
}

// checkoutPaid books what a checkout session sold, and ties the customer that it names. A subscription's sale, and one
// that has an invoice, is booked as that invoice.
func (s *Server) checkoutPaid(ctx context.Context, e stripeutil.Event) error {
	cs, err := s.Stripe.CheckoutSession(ctx, e.ObjectID())
	if err != nil {
		return err
	}
	return s.applySession(ctx, cs, e.Created)
}

// applySession books what a session that was paid at a time sold.
func (s *Server) applySession(ctx context.Context, cs stripeutil.CheckoutSession, paidAt time.Time) error {
	if cs.Mode == "setup" {
		return s.cardSaved(ctx, cs)
	}
	if cs.Metadata[TopupMetadata] != "" {
		return s.topupSession(ctx, cs)
	}
	if cs.Status != "complete" || cs.PaymentMetadata[TopupMetadata] != "" {
		return nil
	}
	lines, err := s.Stripe.CheckoutLines(ctx, cs.ID)
	if err != nil {
		return err
	}
	sale := ledger.Sale{ID: cs.ID, PaymentIntent: cs.PaymentIntent, PaidAt: paidAt, Lines: saleLines(lines)}
	if !sale.Sells() {
		return nil // somebody else's sale: no customer of ours comes of it
	}
	switch paid := cs.PaymentStatus == "paid" || cs.PaymentStatus == "no_payment_required"; {
	case cs.Mode == "subscription":
		return s.checkoutSubscribed(ctx, cs)
	case !paid:
		return nil // its payment is on the way, and has an event of its own
	case cs.Invoice != "":
		return s.checkoutInvoiced(ctx, cs)
	case cs.Invoices && cs.PaymentStatus == "paid":
		return errors.New("checkout session " + cs.ID + ": its invoice is not there yet")
	}
	ref, owned, err := s.buyer(ctx, cs)
	if err != nil || !owned {
		return err
	}
	if sale.Customer, err = s.Ledger.ClaimSale(ctx, cs.ID, ref); err != nil {
		return err
	}
	return s.bookSale(ctx, sale)
}

// checkoutSubscribed ties a subscription to the customer that its session names, and books its invoices: their events
// may have come when nobody knew whose they are.
func (s *Server) checkoutSubscribed(ctx context.Context, cs stripeutil.CheckoutSession) error {
	if cs.ClientReference == "" || cs.Subscription == "" {
		return nil // its invoices tell of themselves
	}
	ref, owned, err := s.buyer(ctx, cs)
	if err != nil || !owned {
		return err
	}
	if ref, err = s.Ledger.ClaimSale(ctx, cs.Subscription, ref); err != nil {
		return err
	}
	missed, err := s.unbooked(ctx, cs.Subscription, "", ref)
	if err != nil {
		return err
	}
	return s.bookMissed(ctx, missed)
}

// checkoutInvoiced ties the invoice of a one-off sale to the customer that its session names, and books it.
func (s *Server) checkoutInvoiced(ctx context.Context, cs stripeutil.CheckoutSession) error {
	if cs.ClientReference != "" {
		ref, owned, err := s.buyer(ctx, cs)
		if err != nil {
			return err
		}
		if owned {
			if _, err := s.Ledger.ClaimSale(ctx, cs.Invoice, ref); err != nil {
				return err
			}
		}
	}
	in, err := s.Stripe.Invoice(ctx, cs.Invoice)
	if err != nil {
		return err
	}
	return s.applyInvoice(ctx, in)
}

// buyer is the customer that a session names: by the merchant's own id, for whom one is made where there is none, else
// by the session's Stripe customer. The two are tied where both are free.
func (s *Server) buyer(ctx context.Context, cs stripeutil.CheckoutSession) (ref ledger.Ref, owned bool, err error) {
	id := cs.ClientReference
	if id == "" || ledger.CheckCustomerID(id) != nil && !strings.HasPrefix(id, "cus_") {
		if id != "" {
			s.Log.Warn("client_reference_id can't be a customer's id", "checkout_session", cs.ID, "client_reference_id", id)
		}
		if ref, owned, err = s.ownerOf(ctx, cs.Customer); err == nil && !owned {
			s.Log.Warn("credit was sold to a stranger: give the session a client_reference_id, or link its Stripe customer to one of ours and replay the event",
				"checkout_session", cs.ID, "stripe_customer", cs.Customer)
		}
		return ref, owned, err
	}
	cust, err := s.Ledger.Customer(ctx, id)
	switch {
	case ledger.IsCode(err, ledger.CodeNotFound) && strings.HasPrefix(id, "cus_"):
		return s.ownerOf(ctx, id)
	case ledger.IsCode(err, ledger.CodeNotFound):
		if cust, err = s.customerBought(ctx, id, cs); err != nil {
			return ref, false, err
		}
	case err != nil:
		return ref, false, err
	}
	if cust.StripeCustomer == "" && cust.Status == "active" && cs.Customer != "" {
		err = s.tie(ctx, cust, cs.Customer)
	}
	return cust.Ref, err == nil, err
}

// customerBought makes the customer that a session names, tied to the session's Stripe customer where that is free.
// Without one, a worker makes it a Stripe customer of its own.
func (s *Server) customerBought(ctx context.Context, id string, cs stripeutil.CheckoutSession) (ledger.Customer, error) {
	in := ledger.CustomerInput{ID: id, Email: clip(cs.Email), Name: clip(cs.Name)}
	if cs.Customer != "" {
		sc, err := s.Stripe.Customer(ctx, cs.Customer)
		if err != nil {
			return ledger.Customer{}, err
		}
		if !sc.Deleted {
			in.StripeCustomer, in.Currency = sc.ID, sc.Currency
		}
	}
	cust, _, err := s.Ledger.CreateCustomer(ctx, in, ledger.Once{})
	if ledger.IsCode(err, ledger.CodeState) && in.StripeCustomer != "" { // it is another's
		in.StripeCustomer, in.Currency = "", ""
		cust, _, err = s.Ledger.CreateCustomer(ctx, in, ledger.Once{})
	}
	if ledger.IsCode(err, ledger.CodeState) { // somebody made the customer meanwhile
		return s.Ledger.Customer(ctx, id)
	}
	if err == nil {
		s.Log.Info("customer made by a checkout", "customer", id, "checkout_session", cs.ID, "stripe_customer", in.StripeCustomer)
	}
	return cust, err
}

// clip shortens what somebody typed at a checkout.
func clip(text string) string {
	text = strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	return text
}

// tie links a customer to a Stripe customer that is nobody's.
func (s *Server) tie(ctx context.Context, cust ledger.Customer, stripeCustomer string) error {
	sc, err := s.Stripe.Customer(ctx, stripeCustomer)
	if err != nil || sc.Deleted {
		return err
	}
	err = s.Ledger.LinkCustomer(ctx, cust.Ref, sc.ID, sc.Currency, false)
	if ledger.IsCode(err, ledger.CodeState) {
		s.Log.Info("checkout of a customer who has another Stripe customer", "customer", cust.ID, "stripe_customer", stripeCustomer)
		return nil
	}
	return err
}

// bookSale books a sale. The customer of one that was deleted in Stripe has closed books: what to do with the money is
// for the merchant to say.
func (s *Server) bookSale(ctx context.Context, sale ledger.Sale) error {
	did, err := s.Ledger.ApplySale(ctx, sale)
	if ledger.IsCode(err, ledger.CodeState) {
		if cust, findErr := s.Ledger.Customer(ctx, sale.Customer.ID); findErr == nil && cust.Status == "deleted" {
			s.Log.Error("credit was sold to a customer who was deleted in Stripe: nothing is granted", "sale", sale.ID, "customer", cust.ID)
			return nil
		}
	}
	for _, what := range did {
		s.Log.Info("sale", "sale", sale.ID, "customer", sale.Customer.ID, "line", what)
	}
	switch { // money that went back may have been heard of before what it gives back
	case err != nil || len(did) == 0:
		return err
	case strings.HasPrefix(sale.ID, "in_"):
		in, err := s.Stripe.Invoice(ctx, sale.ID)
		if err != nil {
			return err
		}
		return s.followInvoice(ctx, in, false)
	case sale.PaymentIntent != "":
		return s.followRefunds(ctx, sale.PaymentIntent)
	}
	return nil
}

// saleLines are lines as the ledger takes them.
func saleLines(lines []stripeutil.SaleLine) []ledger.SaleLine {
	out := make([]ledger.SaleLine, len(lines))
	for i, ln := range lines {
		out[i] = ledger.SaleLine(ln)
	}
	return out
}
