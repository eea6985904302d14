package stripesim

import (
	"errors"
	"fmt"
)

// Check verifies what is always true of a Stripe account, and that the caller
// never used an idempotency key for two different requests. It reports all that
// is wrong.
func (s *Sim) Check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wrong []error
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf("stripesim: "+format, args...)) }
	s.checkBalances(bad)
	s.checkPayments(bad)
	s.checkInvoices(bad)
	s.checkEvents(bad)
	for _, r := range s.reused {
		bad("%s", r)
	}
	return errors.Join(wrong...)
}

type complain func(format string, args ...any)

func (s *Sim) checkBalances(bad complain) {
	sums := map[string]int64{}
	for id, t := range s.state.BalanceTransactions.oldest {
		sums[t.Customer] += t.Amount
		if t.EndingBalance != sums[t.Customer] {
			bad("%s: ending_balance %d, but the transactions up to it sum to %d", id, t.EndingBalance, sums[t.Customer])
		}
		if cus := s.state.Customers.get(t.Customer); cus == nil {
			bad("%s: no customer %s", id, t.Customer)
		} else if string(cus.Currency) != t.Currency {
			bad("%s: currency %s on a balance in %s", id, t.Currency, cus.Currency)
		}
	}
	for id, cus := range s.state.Customers.oldest {
		if cus.Balance != sums[id] {
			bad("%s: balance %d, but its transactions sum to %d", id, cus.Balance, sums[id])
		}
		if pm := string(cus.InvoiceSettings.DefaultPaymentMethod); pm != "" && !cus.Deleted {
			if m := s.state.PaymentMethods.get(pm); m == nil || string(m.Customer) != id {
				bad("%s: default payment method %s is not attached to it", id, pm)
			}
		}
	}
}

func (s *Sim) checkPayments(bad complain) {
	refunded := map[string]int64{}
	for _, re := range s.state.Refunds.oldest {
		if re.Status != "failed" {
			refunded[string(re.Charge)] += re.Amount
		}
	}
	paid := map[string]int{}
	for id, ch := range s.state.Charges.oldest {
		if ch.AmountRefunded != refunded[id] || ch.AmountRefunded > ch.Amount {
			bad("%s: amount_refunded %d of %d, but its refunds sum to %d", id, ch.AmountRefunded, ch.Amount, refunded[id])
		}
		if ch.Paid {
			paid[string(ch.PaymentIntent)]++
		}
	}
	for id, pi := range s.state.PaymentIntents.oldest {
		want := 0
		if pi.Status == "succeeded" {
			want = 1
		}
		if paid[id] != want {
			bad("%s: %s with %d paid charges", id, pi.Status, paid[id])
		}
		if (pi.AmountReceived == pi.Amount) != (pi.Status == "succeeded") {
			bad("%s: %s with %d of %d received", id, pi.Status, pi.AmountReceived, pi.Amount)
		}
	}
}

// checkEvents looks for events about nothing. Objects are never forgotten;
// webhook endpoints have no events.
func (s *Sim) checkEvents(bad complain) {
	for id, e := range s.state.Events.oldest {
		object := objectID(e)
		if e.Type != unknownType && s.find(object) == nil {
			bad("%s (%s): there is no object %q", id, e.Type, object)
		}
	}
}
