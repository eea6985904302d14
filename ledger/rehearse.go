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
