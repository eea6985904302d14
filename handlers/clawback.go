package handlers

import (
	"context"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// moneyBack follows a payment of which money went back, or came back again. Whatever the event says, all refunds and
// disputes of the payment are read as they are now: events come twice, late and in any order.
func (s *Server) moneyBack(ctx context.Context, e stripeutil.Event) error {
	id := e.PaymentIntentID()
	if id == "" {
		return nil // of a payment without a payment intent, which none of ours is
	}
	return s.followRefunds(ctx, id)
}

func (s *Server) followRefunds(ctx context.Context, id string) error {
	pi, err := s.Stripe.PaymentIntent(ctx, id)
	if err != nil || pi.AmountReceived == 0 { // nothing came, so nothing goes back
		return err
	}
	if pi.Invoice != "" {
		in, err := s.Stripe.Invoice(ctx, pi.Invoice)
		if err != nil {
			return err
		}
		return s.followInvoice(ctx, in, false)
	}
	ref, known, err := s.payer(ctx, pi.ID, pi.Customer)
	if err != nil || !known {
		return err
	}
	moves, err := s.movesOf(ctx, id)
	if err != nil {
		return err
	}
	return s.Ledger.ClawBack(ctx, ref, ledger.Purchase{PaymentIntent: id, Topup: pi.Metadata[TopupMetadata], Received: pi.AmountReceived}, moves)
}

// creditNoteChanged follows a credit note, which gives money back for an invoice that was paid, in up to three parts:
//
//   - On the customer's balance: that is credit, which the mirror imports by its id. What the invoice bought is not taken
//     back for it: the merchant has kept the money, and has given the customer its worth in credit beside what they
//     bought, or in its place, which a void of the bought grant does.
//   - As a refund: that is counted by the refund's id, whoever tells of it first.
//   - Outside Stripe: the money is gone as by a refund, so the share of what the invoice bought that it stands for is
//     taken back, and given back where the note is voided.
//
// The event is only a hint: the note, its invoice and all that was given back for it are read as they are now. Stopped
// anywhere, the same event starts over and finds what was done.
func (s *Server) creditNoteChanged(ctx context.Context, e stripeutil.Event) error {
	note, err := s.Stripe.CreditNote(ctx, e.ObjectID())
	if err != nil || note.BeforePayment {
		return err // it lowered what was due: less was paid, and nothing was given back
	}
	if err := s.importNote(ctx, note); err != nil {
		return err
	}
	in, err := s.Stripe.Invoice(ctx, note.Invoice)
	if err != nil {
		return err
	}
	return s.followInvoice(ctx, in, true)
}

// importNote has what a credit note did to the balance imported, unless it is known. The transaction that takes a voided
// one back is not named by it.
func (s *Server) importNote(ctx context.Context, note stripeutil.CreditNote) error {
	if note.BalanceTransaction == "" || note.Customer == "" {
		return nil
	}
	ref, err := s.Ledger.Resolve(ctx, note.Customer)
	if ledger.IsCode(err, ledger.CodeNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	known, err := s.Ledger.KnownTransactions(ctx, ref, []string{note.BalanceTransaction})
	if err != nil || known[note.BalanceTransaction] && note.Status != "void" {
		return err
	}
	return s.Ledger.ImportDue(ctx, ref)
}

// followInvoice follows what was given back for an invoice. Credit notes are asked for where it says that it has some;
// with noted, whatever it says.
func (s *Server) followInvoice(ctx context.Context, in stripeutil.Invoice, noted bool) error {
	ref, known, err := s.Ledger.SaleOwner(ctx, in.ID, in.Subscription)
	if err == nil && !known {
		ref, known, err = s.payer(ctx, in.PaymentIntent, in.Customer)
	}
	if err != nil || !known {
		return err
	}
	moves, err := s.movesOfInvoice(ctx, in, noted)
	if err != nil {
		return err
	}
	return s.Ledger.ClawBack(ctx, ref, ledger.Purchase{PaymentIntent: in.PaymentIntent, Invoice: in.ID, Topup: in.Metadata[TopupMetadata], Received: in.Received()}, moves)
}

// movesOfInvoice reads what was given back for an invoice: refunds and disputes of its payment, and, with noted or where
// the invoice says that it has some, what credit notes gave back outside Stripe.
func (s *Server) movesOfInvoice(ctx context.Context, in stripeutil.Invoice, noted bool) (moves []ledger.MoneyBack, err error) {
	if in.PaymentIntent != "" && in.AmountPaid > 0 && !in.PaidOutOfBand {
		if moves, err = s.movesOf(ctx, in.PaymentIntent); err != nil {
			return nil, err
		}
	}
	if !noted && in.Credited == 0 {
		return moves, nil
	}
	notes, err := s.Stripe.CreditNotes(ctx, in.ID)
	for _, n := range notes {
		if n.OutOfBand > 0 && !n.BeforePayment {
			moves = append(moves, ledger.MoneyBack{ID: n.ID, Kind: "credit_note", Amount: n.OutOfBand, Currency: n.Currency, Status: n.Status,
				Stands: n.Status != "void", Final: n.Status == "void", Created: n.Created})
		}
	}
	return moves, err
}

// movesOf reads all refunds and disputes of a payment.
func (s *Server) movesOf(ctx context.Context, id string) (moves []ledger.MoneyBack, err error) {
	refunds, err := s.Stripe.Refunds(ctx, id)
	if err != nil {
		return nil, err
	}
	disputes, err := s.Stripe.Disputes(ctx, id)
	for _, r := range refunds {
		moves = append(moves, refundMove(r))
	}
	for _, d := range disputes {
		moves = append(moves, disputeMove(d))
	}
	return moves, err
}

func refundMove(r stripeutil.Refund) ledger.MoneyBack {
	return ledger.MoneyBack{ID: r.ID, Kind: "refund", Amount: r.Amount, Currency: r.Currency, Status: r.Status, Stands: r.Stands(),
		Final: r.Status == "failed" || r.Status == "canceled", Created: r.Created}
}

func disputeMove(d stripeutil.Dispute) ledger.MoneyBack {
	return ledger.MoneyBack{ID: d.ID, Kind: "dispute", Amount: d.Amount, Currency: d.Currency, Status: d.Status, Stands: d.Stands(), Open: d.Open(),
		Final: d.Status == "won" || d.Status == "lost", Created: d.Created}
}

// payer is the customer who got the credit of a payment; known is false for a stranger's.
func (s *Server) payer(ctx context.Context, paymentIntent, stripeCustomer string) (ref ledger.Ref, known bool, err error) {
	if ref, known, err = s.Ledger.SoldTo(ctx, paymentIntent); err != nil || known || stripeCustomer == "" {
		return ref, known, err
	}
	ref, err = s.Ledger.Resolve(ctx, stripeCustomer)
	if ledger.IsCode(err, ledger.CodeNotFound) {
		return ref, false, nil
	}
	return ref, err == nil, err
}

// disputeJSON is a dispute as events show it.
type disputeJSON struct {
	Object        string       `json:"object"`
	ID            string       `json:"id"`
	Customer      string       `json:"customer"`
	PaymentIntent string       `json:"payment_intent"`
	Amount        ledger.Money `json:"amount"`
	Status        string       `json:"status"`
	CreatedAt     string       `json:"created_at"`
}

func newDispute(c *ledger.Clawback) disputeJSON {
	return disputeJSON{Object: c.Kind, ID: c.ID, Customer: c.Customer, PaymentIntent: c.PaymentIntent,
		Amount: ledger.Money{Amount: c.Amount, Currency: c.Currency}, Status: c.Status, CreatedAt: stamp(c.Created)}
}
