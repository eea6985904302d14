package ledger

import (
	"context"
	"errors"
)

// Before somebody does something by hand they are shown what it would do. That is not worked out a second time beside the
// code that does it, where it would be wrong one day: it is done, looked at, and rolled back.

// Sight is what can be seen of a customer at one moment of a transaction.
type Sight struct {
	Wallets  []Wallet
	Rules    map[string]Rule // by wallet
	InFlight map[string]Topup
	Stripe   int64 // what Stripe's balance is to show, in minor units of credit
	Currency string
}

// Rehearsal is what something would do to a customer.
type Rehearsal struct {
	Before, After Sight
	Entries       []Entry // that it would book, in their order
}

// errRehearsed ends the transaction of a rehearsal.
var errRehearsed = errors.New("rehearsed")

type rehearsalKey struct{}

type rehearsal struct {
	ref  Ref
	seen *Rehearsal
}

// Rehearse does something to a customer and takes it back: do gets a context under which its one transaction, and with it
// every lock that it takes, ends in a rollback instead of a commit. What do refuses is answered as its refusal. What it
// is called with must have no idempotency key, and it must be no debit, which is booked elsewhere.
func (l *Ledger) Rehearse(ctx context.Context, ref Ref, do func(context.Context) error) (seen Rehearsal, err error) {
	if _, err := l.Wallets(ctx, ref); err != nil { // what is due by time is not what is rehearsed
		return Rehearsal{}, err
	}
	err = do(context.WithValue(ctx, rehearsalKey{}, &rehearsal{ref, &seen}))
	switch {
	case errors.Is(err, errRehearsed):
		return seen, nil
	case err == nil:
		err = errors.New("a rehearsal had no transaction")
	}
	return Rehearsal{}, err
}

// rehearse runs f in a transaction that is not committed, with a look before and after. It locks in the one order that
// everybody locks in: the customer, then the wallets.
func (t *tx) rehearse(r *rehearsal, f func(*tx) error) error {
	*r.seen = Rehearsal{}
	if err := t.exec(`select from customers where bucket = $1 and id = $2 for no key update`, r.ref.Bucket, r.ref.ID); err != nil {
		return err
	}
	if err := t.lockWallets(r.ref); err != nil {
		return err
	}
	var err error
	if r.seen.Before, err = t.sight(r.ref); err != nil {
		return err
	}
	if err := f(t); err != nil {
		return err
	}
	if r.seen.After, err = t.sight(r.ref); err != nil {
		return err
	}
	had := make(map[string]int64, len(r.seen.Before.Wallets))
	for _, w := range r.seen.Before.Wallets {
		had[w.ID] = w.Seq
	}
	for _, w := range r.seen.After.Wallets {
		var booked []Entry
		if err := t.SelectContext(t.ctx, &booked, `select `+entryColumns+` from entries where bucket = $1 and wallet_id = $2 and seq > $3 order by seq limit 100`,
			w.Bucket, w.ID, had[w.ID]); err != nil {
			return err
		}
		r.seen.Entries = append(r.seen.Entries, booked...)
	}
	return errRehearsed
}

// sight looks at a customer.
func (t *tx) sight(ref Ref) (s Sight, err error) {
	if err := t.SelectContext(t.ctx, &s.Wallets, `select `+walletColumns+` from wallets where bucket = $1 and customer_id = $2 order by id`, ref.Bucket, ref.ID); err != nil {
		return s, err
	}
	var rules []Rule
	if err := t.SelectContext(t.ctx, &rules, `select `+ruleColumns+` from topup_rules
		where bucket = $1 and wallet_id in (select id from wallets where bucket = $1 and customer_id = $2)`, ref.Bucket, ref.ID); err != nil {
		return s, err
	}
	s.Rules = make(map[string]Rule, len(rules))
	for _, r := range rules {
		s.Rules[r.Wallet] = r
	}
	s.InFlight = make(map[string]Topup)
	for _, w := range s.Wallets {
		var top Topup
		found, err := t.get(&top, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.wallet_id = $2
			and t.status in ('pending', 'processing', 'action_required')`, w.Bucket, w.ID)
		if err != nil {
			return s, err
		}
		if found {
			s.InFlight[w.ID] = top
		}
	}
	var currency *string
	if _, err := t.get(&currency, `select currency from customers where bucket = $1 and id = $2`, ref.Bucket, ref.ID); err != nil || currency == nil {
		return s, err
	}
	s.Currency = *currency
	s.Stripe, _, err = t.want(ref, s.Currency)
	return s, err
}

// ForeseeDebit is what a debit would do, as Rehearse says it. Debits are gathered and booked by the lanes, so this one is
// worked out, by the same functions that decide there: which wallet pays, and which of its grants.
func (l *Ledger) ForeseeDebit(ctx context.Context, customer, asset string, amount Decimal) (w *Wallet, seen Rehearsal, err error) {
	wallets, err := l.usageWalletsOf(ctx, customer, asset)
	if err != nil {
		return nil, seen, err
	}
	steps, err := stepsOf(amount, wallets[0].Scale, "amount", wallets[0].Asset)
	if err != nil {
		return nil, seen, err
	}
	if steps <= 0 {
		return nil, seen, refuse(CodeInvalid, "amount", "amount must be above zero")
	}
	if w, err = payer(wallets, steps); err != nil {
		return nil, seen, err
	}
	err = l.inTx(ctx, func(t *tx) error {
		if seen.Before, err = t.sight(w.ref()); err != nil {
			return err
		}
		if seen.After, err = t.sight(w.ref()); err != nil {
			return err
		}
		grants, err := t.liveGrants(w, `true`)
		if err != nil {
			return err
		}
		tranches, mirrored := make([]tranche, len(grants)), int64(0)
		covers := make(map[string]string, len(grants))
		for i, g := range grants {
			tranches[i], covers[g.ID] = tranche{id: g.ID, free: g.Remaining - g.Held}, g.Covers
		}
		parts, short := burn(tranches, steps)
		for _, p := range parts {
			if covers[p.Grant] == "all" {
				mirrored -= p.Amount
			}
		}
		if short > 0 {
			parts = append(parts, Part{debtPart, -short})
		}
		for i := range seen.After.Wallets {
			if after := &seen.After.Wallets[i]; after.ID == w.ID {
				after.Total, after.Debt = after.Total-steps, after.Debt+short
			}
		}
		seen.Entries = []Entry{{Wallet: w.ID, Type: "debit", Amount: -steps, Parts: parts}}
		return t.showLess(w, mirrored, &seen.After)
	})
	return w, seen, err
}

// showLess takes credit that Stripe shows out of a sight.
func (t *tx) showLess(w *Wallet, steps int64, s *Sight) error {
	a, err := t.asset(w.Asset)
	if err != nil {
		return err
	}
	p, priced := a.price()
	if !priced || p.currency != s.Currency || w.Scope == "usage" {
		return nil
	}
	var wallets []shown
	if err := t.SelectContext(t.ctx, &wallets, shownSQL, w.Bucket, w.Customer); err != nil {
		return err
	}
	for _, is := range wallets {
		if is.ID != w.ID {
			continue
		}
		before, ok1 := p.worth(is.Steps, w.Scale)
		after, ok2 := p.worth(is.Steps-steps, w.Scale)
		if ok1 && ok2 {
			s.Stripe -= before - after
		}
	}
	return nil
}
