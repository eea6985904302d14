package handlers

import (
	"context"
	"fmt"
	"strings"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// examineSale looks at an invoice or a checkout session, and at what it gave.
func (s *Server) examineSale(ctx context.Context, id string) (e exam, err error) {
	all, err := s.Ledger.SalesBooked(ctx, []string{id})
	if err != nil {
		return e, err
	}
	sides := saleSides{id: id, books: all[id]}
	if sides.books != nil {
		e.customer, e.ref, e.known = sides.books.ID, sides.books.Ref, true
	}
	var topup string
	if strings.HasPrefix(id, "cs_") {
		err = s.sidesOfSession(ctx, &sides, &e)
	} else {
		topup, err = s.sidesOfSold(ctx, &sides, &e)
	}
	switch {
	case unknownAtStripe(err):
		sides.gone = true
	case err != nil:
		return e, err
	case topup != "":
		return s.examineTopupInvoice(ctx, id, topup)
	}
	e.found = judgeSale(sides)
	if len(e.found) == 0 && sides.books != nil {
		return e, s.Ledger.Verified(ctx, nil, []string{id})
	}
	return e, nil
}

// examineTopupInvoice looks at an invoice that says to be a top-up's.
func (s *Server) examineTopupInvoice(ctx context.Context, id, topup string) (e exam, err error) {
	in, err := s.Stripe.Invoice(ctx, id)
	if err != nil {
		return e, err
	}
	if err := s.whoseExam(ctx, &e, in.Customer); err != nil {
		return e, err
	}
	all, err := s.Ledger.TopupsBooked(ctx, []string{topup})
	if err != nil {
		return e, err
	}
	e.found = judgeTopup(sidesOfInvoice(all[topup], in))
	return e, nil
}

// sidesOfSold reads an invoice; topup is whose it is where it is no sale.
func (s *Server) sidesOfSold(ctx context.Context, sides *saleSides, e *exam) (topup string, err error) {
	in, err := s.Stripe.Invoice(ctx, sides.id)
	if err != nil {
		return "", err
	}
	if topup = in.Metadata[TopupMetadata]; topup != "" {
		return topup, nil
	}
	sides.payment, sides.currency, sides.status, sides.paid, sides.amount = in.PaymentIntent, in.Currency, in.Status, in.Status == "paid", in.AmountPaid
	if sides.books != nil || !sides.paid {
		return "", nil
	}
	lines, err := s.Stripe.InvoiceLines(ctx, in.ID)
	if err != nil {
		return "", err
	}
	sale := ledger.Sale{Lines: saleLines(lines)}
	sides.sells = sale.Sells()
	if !sides.sells {
		return "", nil
	}
	ref, owned, err := s.Ledger.SaleOwner(ctx, in.ID, in.Subscription)
	if err != nil {
		return "", err
	}
	if owned {
		sides.owner = ref.ID
	} else if err := s.whoseExam(ctx, e, in.Customer); err != nil {
		return "", err
	} else if e.known {
		sides.owner = e.customer
	}
	return "", s.ownerOfSale(ctx, sides, e, in.PaidAt, owned)
}

// ownerOfSale looks at the customer whose a sale is. What was paid before there was one is not theirs, unless somebody
// has said so.
func (s *Server) ownerOfSale(ctx context.Context, sides *saleSides, e *exam, paidAt time.Time, said bool) error {
	if sides.owner == "" {
		return nil
	}
	cust, err := s.Ledger.Customer(ctx, sides.owner)
	if ledger.IsCode(err, ledger.CodeNotFound) { // is made when the sale is booked
		e.customer = sides.owner
		return nil
	}
	if err != nil {
		return err
	}
	e.customer, e.ref, e.known = cust.ID, cust.Ref, true
	sides.closed = cust.Status == "deleted"
	if !said && paidAt.Before(cust.CreatedAt.Truncate(time.Second)) {
		sides.sells = false
	}
	return nil
}

// sidesOfSession reads a checkout session.
func (s *Server) sidesOfSession(ctx context.Context, sides *saleSides, e *exam) error {
	cs, err := s.Stripe.CheckoutSession(ctx, sides.id)
	if err != nil {
		return err
	}
	sides.payment, sides.status = cs.PaymentIntent, cs.Status
	sides.paid = cs.Status == "complete" && (cs.PaymentStatus == "paid" || cs.PaymentStatus == "no_payment_required")
	if cs.Payment != nil {
		sides.amount, sides.currency = cs.Payment.AmountReceived, cs.Payment.Currency
	}
	if sides.books != nil || !sides.paid || cs.Metadata[TopupMetadata] != "" || cs.Mode == "setup" {
		return nil
	}
	if booked, err := s.sessionBooked(ctx, cs); err != nil || booked {
		return err
	}
	lines, err := s.Stripe.CheckoutLines(ctx, cs.ID)
	if err != nil {
		return err
	}
	sale := ledger.Sale{Lines: saleLines(lines)}
	if sides.sells = sale.Sells(); !sides.sells {
		return nil
	}
	named := cs.ClientReference != "" && (ledger.CheckCustomerID(cs.ClientReference) == nil || strings.HasPrefix(cs.ClientReference, "cus_"))
	sides.owner = cs.ClientReference
	if !named {
		sides.owner = ""
		if err := s.whoseExam(ctx, e, cs.Customer); err != nil {
			return err
		}
		if e.known {
			sides.owner = e.customer
		}
	}
	return s.ownerOfSale(ctx, sides, e, cs.Created, named)
}

// sessionBooked reports whether what a session sold is booked as something else: as its invoice, or as the invoices of
// its subscription, whose customer is known.
func (s *Server) sessionBooked(ctx context.Context, cs stripeutil.CheckoutSession) (bool, error) {
	if cs.Mode == "subscription" && cs.ClientReference == "" {
		return true, nil // its invoices tell of themselves
	}
	for _, id := range []string{cs.Invoice, cs.Subscription} {
		if id == "" {
			continue
		}
		if _, owned, err := s.Ledger.SaleOwner(ctx, id); err != nil || owned {
			return owned, err
		}
	}
	if cs.Invoice == "" {
		return false, nil
	}
	all, err := s.Ledger.SalesBooked(ctx, []string{cs.Invoice})
	return all[cs.Invoice] != nil, err
}

func (s *Server) mendSale(ctx context.Context, id string) error {
	if strings.HasPrefix(id, "cs_") {
		cs, err := s.Stripe.CheckoutSession(ctx, id)
		if err != nil {
			return err
		}
		paidAt := cs.Created
		if cs.Payment != nil {
			paidAt = cs.Payment.Created
		}
		return s.applySession(ctx, cs, paidAt)
	}
	in, err := s.Stripe.Invoice(ctx, id)
	if err != nil {
		return err
	}
	if in.Metadata[TopupMetadata] != "" {
		return s.topupInvoice(ctx, in)
	}
	return s.applyInvoice(ctx, in)
}

// examineEvent looks at an event that was given up.
func (s *Server) examineEvent(ctx context.Context, id string) (e exam, err error) {
	row, found, err := s.Ledger.StoredEvent(ctx, id)
	if err != nil || !found || row.Status != "failed" {
		return e, err
	}
	ids := []string{row.ID}
	if ev, err := stripeutil.ParseEvent([]byte(row.Payload)); err == nil {
		customer := ev.CustomerID()
		if strings.HasPrefix(ev.Type, "customer.") && customer == "" {
			customer = ev.ObjectID()
		}
		ids = nonempty([]string{row.ID, ev.ObjectID()})
		if err := s.whoseExam(ctx, &e, customer); err != nil {
			return e, err
		}
	}
	e.found = []difference{{kind: kindEventFailed, state: "unknown", ids: ids, repairable: true,
		why:  fmt.Sprintf("event %s (%s) was tried %d times in vain and given up: %s", row.ID, row.Type, row.Tries, row.LastError),
		todo: "put right what it says, then try it again: lockstep replay " + row.ID}}
	return e, nil
}

// mendEvent tries an event that was given up once more.
func (s *Server) mendEvent(ctx context.Context, id string) error {
	row, found, err := s.Ledger.StoredEvent(ctx, id)
	if err != nil || !found || row.Status != "failed" {
		return err
	}
	e, err := stripeutil.ParseEvent([]byte(row.Payload))
	if err != nil {
		return err
	}
	handled, err := s.Apply(ctx, e)
	if err != nil {
		return err
	}
	status := "ignored"
	if handled {
		status = "done"
	}
	return s.Ledger.EndEvent(ctx, row, status, nil)
}
