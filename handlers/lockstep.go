package handlers

import (
	"context"
	"errors"
	"net/http"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// lockstepJSON says whether Stripe and the ledger agree about a customer; amounts are minor units of credit.
type lockstepJSON struct {
	Object    string `json:"object"`
	State     string `json:"state"`
	Currency  string `json:"currency"`
	Ledger    int64  `json:"ledger"`
	Stripe    int64  `json:"stripe"`
	Unflushed int64  `json:"unflushed"`
	Drift     int64  `json:"drift"`
	CheckedAt string `json:"checked_at"`

	Explanation string `json:"explanation,omitempty"`
}

func (s *Server) getLockstep(c *call) error {
	cust, err := s.customer(c)
	if err != nil {
		return err
	}
	v, found, err := s.judge(c.ctx(), cust)
	var se *stripeutil.Error
	if errors.As(err, &se) { // that Stripe can't be asked is an answer too
		v, err = lockstepJSON{Object: "lockstep", State: "unknown", CheckedAt: stamp(s.Ledger.Now()), Explanation: "Stripe could not be asked: " + se.Error()}, nil
		if m, found, err := s.Ledger.MirrorOf(c.ctx(), cust.Ref); err == nil && found {
			v.Currency, v.Ledger, v.Unflushed = m.Currency, m.Want, m.Want-m.Credit
		}
	}
	if err != nil {
		return err
	}
	if len(found) > 0 {
		v.Explanation = found[0].why
	}
	return c.reply(http.StatusOK, v)
}

// judgeTries bounds how often a customer is compared whose balance moves meanwhile.
const judgeTries = 5

// judge compares one customer with Stripe as it is now. Ledger and Stripe can't be read in one moment, so a difference
// that no transaction explains is believed only where the ledger stood still while Stripe was asked. A customer without
// a balance in Stripe has nothing to compare.
func (s *Server) judge(ctx context.Context, cust ledger.Customer) (v lockstepJSON, found []difference, err error) {
	for range judgeTries {
		sides, mirrored, err := s.balanceOf(ctx, cust)
		if err != nil {
			return v, nil, err
		}
		if !mirrored {
			return lockstepJSON{Object: "lockstep", State: "unknown", CheckedAt: stamp(s.Ledger.Now()), Explanation: "the customer has no balance in Stripe yet"}, nil, nil
		}
		v, found = judgeBalance(sides)
		v.CheckedAt = stamp(s.Ledger.Now())
		if !v.unexplained() {
			return v, found, nil
		}
		m, _, err := s.Ledger.MirrorOf(ctx, cust.Ref)
		if err != nil || m.Credit == v.known() {
			return v, found, err
		}
	}
	return v, found, nil
}

// unexplained says that Stripe shows what no known transactions add up to.
func (v *lockstepJSON) unexplained() bool {
	return v.State == "stripe_ahead" || v.State == "ledger_ahead"
}

// known is what all transactions booked here add up to.
func (v *lockstepJSON) known() int64 { return v.Ledger - v.Unflushed }

// balanceOf reads both sides of a customer's balance; mirrored is false for one who has none in Stripe.
func (s *Server) balanceOf(ctx context.Context, cust ledger.Customer) (b balanceSides, mirrored bool, err error) {
	b = balanceSides{customer: cust.ID, stripeCustomer: cust.StripeCustomer, deletedHere: cust.Status == "deleted"}
	if b.mirror, mirrored, err = s.Ledger.MirrorOf(ctx, cust.Ref); err != nil || !mirrored {
		return b, mirrored, err
	}
	if b.deletedHere = b.deletedHere || b.mirror.Stopped; b.deletedHere {
		return b, true, nil
	}
	b.stripe, err = s.Stripe.Customer(ctx, b.mirror.StripeCustomer)
	if unknownAtStripe(err) {
		b.missing = true
		return b, true, nil
	}
	if err != nil || b.stripe.Deleted {
		return b, true, err
	}
	if b.stripe.Currency != "" && b.stripe.Currency != b.mirror.Currency {
		changed, err := s.currencyFixed(ctx, cust.Ref, b.stripe.Currency)
		if err == nil && changed {
			b.mirror, mirrored, err = s.Ledger.MirrorOf(ctx, cust.Ref)
		}
		if err != nil {
			return b, mirrored, err
		}
	}
	if _, err := s.Ledger.Checked(ctx, cust.Ref); err != nil {
		return b, true, err
	}
	if -b.stripe.Balance != b.mirror.Credit {
		b.unknown, err = s.unknownTransactions(ctx, &b.mirror.Mirror)
	}
	return b, true, err
}

// unknownTransactions lists a customer's balance transactions at Stripe that are not booked, newest first.
func (s *Server) unknownTransactions(ctx context.Context, m *ledger.Mirror) ([]ledger.StripeTransaction, error) {
	list, err := s.ListTransactions(ctx, m)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(list))
	for i, t := range list {
		ids[i] = t.ID
	}
	known, err := s.Ledger.KnownTransactions(ctx, m.Ref(), ids)
	if err != nil {
		return nil, err
	}
	unknown := list[:0]
	for _, t := range list {
		if !known[t.ID] {
			unknown = append(unknown, t)
		}
	}
	return unknown, nil
}

// FlushMetadata is the name under which a balance transaction carries the flush that asked for it.
const FlushMetadata = "lockstep_flush"

// maxListed bounds how many balance transactions are read at once.
const maxListed = 20_000

// ListTransactions reads a customer's balance transactions from Stripe, newest first, down to the newest of
// the last time. Of a list that was never read, the newest alone says what the balance was before us. One of another
// currency is none of this balance, and says that the mirror was begun in the wrong one where it has shown nothing yet.
func (s *Server) ListTransactions(ctx context.Context, m *ledger.Mirror) (list []ledger.StripeTransaction, err error) {
	var wrong error
	other, looked := "", 0
	err = s.Stripe.BalanceTransactions(ctx, m.StripeCustomer, func(t stripeutil.BalanceTransaction) bool {
		if m.ListedTo != nil && t.ID == *m.ListedTo {
			return false
		}
		if looked++; t.Currency != m.Currency {
			other = t.Currency
			return looked < maxListed
		}
		st := ledger.StripeTransaction{ID: t.ID, Amount: t.Amount, EndingBalance: t.EndingBalance, Type: t.Type, Reason: reasonOf(t), Created: t.Created,
			Invoice: t.Invoice, CreditNote: t.CreditNote}
		if flush := t.Metadata[FlushMetadata]; flush != "" {
			known, own, err := s.Ledger.OwnFlush(ctx, m.Ref(), flush)
			if err != nil {
				wrong = err
				return false
			}
			if own {
				st.Flush = flush
			}
			if own && known != "" && known != t.ID {
				st.Doubles = known
			}
		}
		list = append(list, st)
		return m.ListedTo != nil && len(list) < maxListed
	})
	if wrong != nil {
		err = wrong
	}
	if err == nil && other != "" {
		var changed bool
		if changed, err = s.currencyFixed(ctx, m.Ref(), other); changed {
			err = errors.New("the balance of customer " + m.Customer + " is kept in " + other + ", not in " + m.Currency + ": it is looked at again")
		}
	}
	return list, err
}

// reasonOf says in an entry what a stranger's balance transaction was.
func reasonOf(t stripeutil.BalanceTransaction) string {
	reason := t.Type
	for _, about := range []string{t.Invoice, t.CreditNote, t.Description} {
		if about != "" {
			reason += " " + about
		}
	}
	return reason[:min(len(reason), maxText)]
}
