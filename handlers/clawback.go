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
	if err != nil {
		return err
	}
	ref, known, err := s.payer(ctx, pi)
	if err != nil || !known {
		return err
	}
	moves, err := s.movesOf(ctx, id)
	if err != nil {
		return err
	}
	topup, received, err := s.boughtFor(ctx, pi)
	if err != nil {
		return err
	}
	return s.Ledger.ClawBack(ctx, ref, id, topup, received, moves)
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

// boughtFor is the top-up that a payment was for, "" for another purchase, and what came of it: of an invoice's payment,
// which carries no metadata of its own, with what the customer's balance paid beside it.
func (s *Server) boughtFor(ctx context.Context, pi stripeutil.PaymentIntent) (topup string, received int64, err error) {
	topup, received = pi.Metadata[TopupMetadata], pi.AmountReceived
	if topup != "" || pi.Invoice == "" || received == 0 {
		return topup, received, nil
	}
	in, err := s.Stripe.Invoice(ctx, pi.Invoice)
	if topup = in.Metadata[TopupMetadata]; err == nil && topup != "" {
		received += in.EndingBalance - in.StartingBalance
	}
	return topup, received, err
}

// payer is the customer who got the credit of a payment; known is false for a stranger's.
func (s *Server) payer(ctx context.Context, pi stripeutil.PaymentIntent) (ref ledger.Ref, known bool, err error) {
	if ref, known, err = s.Ledger.SoldTo(ctx, pi.ID); err != nil || known || pi.Customer == "" {
		return ref, known, err
	}
	ref, err = s.Ledger.Resolve(ctx, pi.Customer)
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
