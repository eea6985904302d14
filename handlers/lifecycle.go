package handlers

import (
	"context"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// customerUpdated follows a change of a customer's currency, balance or default card that was made at Stripe.
func (s *Server) customerUpdated(ctx context.Context, e stripeutil.Event) error {
	ref, known, err := s.customerOf(ctx, e)
	if err != nil || !known {
		return err
	}
	c, err := e.Customer()
	if err != nil {
		return err
	}
	if e.Changed("currency") && c.Currency != "" { // final, so whenever it is heard
		if _, err := s.currencyFixed(ctx, ref, c.Currency); err != nil {
			return err
		}
	}
	if e.Changed("balance") {
		if err := s.Ledger.BalanceSeen(ctx, ref, c.Balance); err != nil {
			return err
		}
	}
	if gone := e.Changed("invoice_settings.default_payment_method") && c.DefaultPaymentMethod == ""; gone {
		return s.cardGone(ctx, ref, "", c.ID)
	}
	waits, err := s.Ledger.WaitsForCard(ctx, ref)
	if err != nil || !waits {
		return err
	}
	// Events come in any order: the card that holds now is the one to believe.
	if c, err = s.Stripe.Customer(ctx, c.ID); err != nil || c.Deleted {
		return err
	}
	return s.Ledger.CardChanged(ctx, ref, c.DefaultPaymentMethod)
}

// currencyFixed hears in which currency Stripe keeps a customer's balance.
func (s *Server) currencyFixed(ctx context.Context, ref ledger.Ref, currency string) (changed bool, err error) {
	changed, err = s.Ledger.CurrencyFixed(ctx, ref, currency)
	if changed {
		s.Log.Warn("Stripe keeps the customer's balance in another currency than was thought: credit priced in others can't be shown there",
			"customer", ref.ID, "currency", currency)
	}
	return changed, err
}

// cardDetached hears that a card was taken away for good. The rules that name it pause at once, and so do those of its
// customer that charge the default, where there is none any more: a debit is the wrong moment to find that out.
func (s *Server) cardDetached(ctx context.Context, e stripeutil.Event) error {
	method, former := e.ObjectID(), e.FormerCustomerID()
	if method == "" {
		return nil
	}
	named, err := s.Ledger.NamedBy(ctx, method)
	if err != nil {
		return err
	}
	for _, ref := range named {
		if _, err := s.Ledger.CardGone(ctx, ref, method, false); err != nil {
			return err
		}
	}
	if former == "" {
		return nil // whose default it was, customer.updated tells
	}
	ref, err := s.Ledger.Resolve(ctx, former)
	if ledger.IsCode(err, ledger.CodeNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.cardGone(ctx, ref, method, former)
}

// cardGone pauses the rules of a customer that charge the default card, where there is none now. One that is saved
// while the rules are paused would be heard of before they are, so it is asked for once more.
func (s *Server) cardGone(ctx context.Context, ref ledger.Ref, method, stripeCustomer string) error {
	c, err := s.Stripe.Customer(ctx, stripeCustomer)
	if err != nil || c.Deleted || c.DefaultPaymentMethod != "" {
		return err
	}
	paused, err := s.Ledger.CardGone(ctx, ref, method, true)
	if err != nil || !paused {
		return err
	}
	if c, err = s.Stripe.Customer(ctx, stripeCustomer); err != nil || c.Deleted {
		return err
	}
	return s.Ledger.CardChanged(ctx, ref, c.DefaultPaymentMethod)
}

// cardRenewed hears that the network has told Stripe of a new card in place of a saved one.
func (s *Server) cardRenewed(ctx context.Context, e stripeutil.Event) error {
	customer, method := e.CustomerID(), e.ObjectID()
	if customer == "" || method == "" {
		return nil
	}
	ref, err := s.Ledger.Resolve(ctx, customer)
	if ledger.IsCode(err, ledger.CodeNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.Ledger.CardRenewed(ctx, ref, method)
}

func (s *Server) customerDeleted(ctx context.Context, e stripeutil.Event) error {
	ref, known, err := s.customerOf(ctx, e)
	if err != nil || !known {
		return err
	}
	return s.Ledger.CustomerDeleted(ctx, ref)
}
