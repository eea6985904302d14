package handlers

import (
	"context"
	"errors"
	"net/http"
	"strings"

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
	kind        string // of a finding that is no drift
}

// finding is a customer of whom a reconciliation has something to say.
type finding struct {
	Customer    string `json:"customer"`
	State       string `json:"state"`
	Kind        string `json:"kind"`
	Ledger      int64  `json:"ledger"`
	Stripe      int64  `json:"stripe"`
	Drift       int64  `json:"drift"`
	Explanation string `json:"explanation"`
	Repaired    bool   `json:"repaired"`
}

// Unsettled is how many customers are out of step after it. One who was deleted in Stripe has nothing there to be in step
// with.
func (r *Reconciliation) Unsettled() (n int) {
	for _, f := range r.Findings {
		if !f.Repaired && f.State != "in_step" && f.Kind != "customer_deleted" {
			n++
		}
	}
	return n
}

// Reconciliation is the outcome of comparing customers with Stripe.
type Reconciliation struct {
	Object    string    `json:"object"`
	Customers int       `json:"customers"`
	InStep    int       `json:"in_step"`
	Repaired  int       `json:"repaired"`
	Findings  []finding `json:"findings"`
}

func (s *Server) getLockstep(c *call) error {
	cust, err := s.customer(c)
	if err != nil {
		return err
	}
	v, why, err := s.judge(c.ctx(), cust.Ref)
	if err != nil {
		return err
	}
	v.Explanation = why
	return c.reply(http.StatusOK, v)
}

// judgeTries bounds how often a customer is compared whose balance moves meanwhile.
const judgeTries = 5

// judge compares one customer with Stripe as it is now, and says in words what it found. Ledger and Stripe
// can't be read in one moment, so a difference that no transaction explains is believed only where the ledger
// stood still while Stripe was asked.
func (s *Server) judge(ctx context.Context, ref ledger.Ref) (v lockstepJSON, why string, err error) {
	for range judgeTries {
		if v, why, err = s.judgeOnce(ctx, ref); err != nil || !v.unexplained() {
			return v, why, err
		}
		m, _, err := s.Ledger.MirrorOf(ctx, ref)
		if err != nil || m.Credit == v.known() {
			return v, why, err
		}
	}
	return v, why, nil
}

// unexplained says that Stripe shows what no known transactions add up to.
func (v *lockstepJSON) unexplained() bool {
	return v.State == "stripe_ahead" || v.State == "ledger_ahead"
}

// known is what all transactions booked here add up to.
func (v *lockstepJSON) known() int64 { return v.Ledger - v.Unflushed }

// judgeOnce is judge for one look at both.
//
// ledger is what Stripe should show. What it is known to show, by all transactions booked here, is ledger
// less unflushed; drift is by how much Stripe shows more than that.
func (s *Server) judgeOnce(ctx context.Context, ref ledger.Ref) (v lockstepJSON, why string, err error) {
	m, found, err := s.Ledger.MirrorOf(ctx, ref)
	if err != nil {
		return v, "", err
	}
	v = lockstepJSON{Object: "lockstep", State: "in_step", CheckedAt: stamp(s.Ledger.Now())}
	if !found {
		v.State = "unknown"
		return v, "the customer has no balance in Stripe yet", nil
	}
	v.Currency, v.Ledger, v.Unflushed, v.Stripe = m.Currency, m.Want, m.Want-m.Credit, m.Credit
	var sc stripeutil.Customer
	if !m.Stopped {
		if sc, err = s.Stripe.Customer(ctx, m.StripeCustomer); err != nil {
			v.State, v.Stripe = "unknown", 0
			return v, "Stripe could not be asked: " + err.Error(), nil
		}
	}
	if m.Stopped || sc.Deleted { // its event may be lost
		v.State, v.kind = "unknown", "customer_deleted"
		return v, "the customer was deleted in Stripe: its books are closed as they were, and no balance is written any more", s.Ledger.CustomerDeleted(ctx, ref)
	}
	if sc.Currency != "" && sc.Currency != m.Currency {
		if changed, err := s.currencyFixed(ctx, ref, sc.Currency); err != nil || changed {
			if err == nil {
				return s.judgeOnce(ctx, ref)
			}
			return v, "", err
		}
	}
	if len(m.Unshown) > 0 {
		v.kind = "currency"
	}
	v.Stripe = -sc.Balance
	v.Drift = v.Stripe - m.Credit
	if _, err := s.Ledger.Checked(ctx, ref); err != nil {
		return v, "", err
	}
	if v.Drift == 0 {
		if v.Unflushed != 0 || m.Open {
			v.State = "flushing"
		}
		if v.kind != "" {
			return v, "Stripe keeps the customer's balance in " + m.Currency + ", for good, so it can't show credit of " + strings.Join(m.Unshown, ", ") +
				", which is priced in another currency and pays usage alone", nil
		}
		return v, "", nil
	}
	return s.judgeDrift(ctx, ref, m, v)
}

// judgeDrift finds out whose transactions make the difference.
func (s *Server) judgeDrift(ctx context.Context, ref ledger.Ref, m ledger.MirrorView, v lockstepJSON) (lockstepJSON, string, error) {
	foreign, own := int64(0), int64(0)
	list, err := s.unknownTransactions(ctx, &m.Mirror)
	if err != nil {
		v.State = "unknown"
		return v, "Stripe could not be asked: " + err.Error(), nil
	}
	for _, t := range list {
		if t.Flush != "" {
			own -= t.Amount
		} else {
			foreign -= t.Amount
		}
	}
	switch {
	case own == v.Drift:
		v.State, v.Drift, v.Unflushed = "flushing", 0, v.Unflushed-own
		return v, "", nil
	case own+foreign == v.Drift && len(list) > 0:
		v.State = "foreign"
		return v, "somebody else wrote balance transactions that are not booked here yet", nil
	case v.Drift > 0:
		v.State = "stripe_ahead"
		return v, "Stripe shows more credit than all known transactions add up to", nil
	default:
		v.State = "ledger_ahead"
		return v, "Stripe shows less credit than all known transactions add up to", nil
	}
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
			own, err := s.Ledger.OwnFlush(ctx, m.Ref(), flush)
			if err != nil {
				wrong = err
				return false
			}
			if own {
				st.Flush = flush
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

func (s *Server) postReconcile(c *call) error {
	var in struct {
		Customer *string `json:"customer"`
		Repair   bool    `json:"repair"`
	}
	if err := c.decodeOptional(&in); err != nil {
		return err
	}
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	if err := filled(field{"customer", in.Customer}); err != nil { // null is all customers, "" is a mistake
		return err
	}
	if err := texts("customer", deref(in.Customer)); err != nil {
		return err
	}
	repair := "look"
	if in.Repair {
		repair = "repair"
	}
	return s.once(c, key, ledger.BucketOfKey(key), []string{deref(in.Customer), repair}, func(ledger.Once) (int, any, error) {
		v, err := s.Reconcile(c.ctx(), deref(in.Customer), in.Repair)
		return http.StatusOK, v, err
	})
}

// Reconcile compares one customer, or with "" all of them, with Stripe; with repair it brings those that
// are out of step back by the mirror's own way. It also fetches events that never arrived.
func (s *Server) Reconcile(ctx context.Context, customer string, repair bool) (Reconciliation, error) {
	r := Reconciliation{Object: "reconciliation", Findings: []finding{}}
	if err := s.Backfill(ctx); err != nil {
		return r, err
	}
	if customer != "" {
		c, err := s.Ledger.Customer(ctx, customer)
		if err != nil {
			return r, err
		}
		return r, s.reconcileOne(ctx, c.Ref, repair, &r)
	}
	for after := (ledger.Ref{Bucket: -1}); ; {
		mirrors, err := s.Ledger.Mirrors(ctx, after, 500)
		if err != nil || len(mirrors) == 0 {
			return r, err
		}
		for i := range mirrors {
			after = mirrors[i].Ref()
			if err := s.reconcileOne(ctx, after, repair, &r); err != nil {
				return r, err
			}
		}
	}
}

func (s *Server) reconcileOne(ctx context.Context, ref ledger.Ref, repair bool, r *Reconciliation) error {
	before, why, err := s.judge(ctx, ref)
	if err != nil {
		return err
	}
	r.Customers++
	f := finding{Customer: ref.ID, State: before.State, Kind: "drift", Ledger: before.Ledger, Stripe: before.Stripe, Drift: before.Drift, Explanation: why}
	if before.kind != "" {
		f.Kind = before.kind
	}
	if before.State == "in_step" {
		r.InStep++
		if before.kind != "" {
			r.Findings = append(r.Findings, f)
		}
		return s.Ledger.DriftGone(ctx, ref)
	}
	if before.kind == "customer_deleted" {
		r.Findings = append(r.Findings, f)
		return s.Ledger.DriftGone(ctx, ref)
	}
	if before.State == "flushing" {
		f.Kind, f.Explanation = "unflushed", "the ledger has moved and Stripe follows with the next flush"
	}
	if before.unexplained() {
		if err := s.Ledger.DriftFound(ctx, ref, f); err != nil { // told once, until the customer is seen in step
			return err
		}
	}
	if repair {
		after, err := s.repair(ctx, ref, before)
		if err != nil {
			f.Explanation += "; the repair failed: " + err.Error()
		} else if f.Repaired = after.State == "in_step"; f.Repaired {
			r.Repaired++
			if err := s.Ledger.DriftGone(ctx, ref); err != nil {
				return err
			}
		}
	}
	r.Findings = append(r.Findings, f)
	return nil
}

// repair imports what is not known, levels what no transaction explains, and lets the mirror catch up.
func (s *Server) repair(ctx context.Context, ref ledger.Ref, before lockstepJSON) (after lockstepJSON, err error) {
	if before.Drift != 0 {
		if err := s.Ledger.ImportDue(ctx, ref); err != nil {
			return after, err
		}
	}
	if err := s.Sync(ctx, ref); err != nil {
		return after, err
	}
	after, _, err = s.judge(ctx, ref)
	if err != nil || !after.unexplained() {
		return after, err
	}
	if err := s.Ledger.LevelMirror(ctx, ref, after.known(), after.Stripe); err != nil {
		return after, err
	}
	if err := s.Sync(ctx, ref); err != nil {
		return after, err
	}
	after, _, err = s.judge(ctx, ref)
	return after, err
}
