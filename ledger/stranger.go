package ledger

import (
	"context"
	"fmt"
	"time"
)

// ImportDue has the balance transactions of a customer read: Stripe may hold some that are not known here.
func (l *Ledger) ImportDue(ctx context.Context, ref Ref) error {
	_, err := l.db.ExecContext(ctx, `update mirrors set import_due = true, run_at = least(run_at, $3)
		where bucket = $1 and customer_id = $2 and run_at < 'infinity'`,
		ref.Bucket, ref.ID, l.Now())
	l.dirty.add(ref)
	return err
}

// Import books the balance transactions of a leased mirror's customer that are not known yet, given newest
// first and down to the last one of the list that was read before. The first list of a customer who had
// transactions before is booked as one opening balance. It returns how many strangers' it booked.
func (l *Ledger) Import(ctx context.Context, m Mirror, list []StripeTransaction) (strangers int, err error) {
	err = l.inTx(ctx, func(t *tx) error {
		strangers = 0
		if _, err := t.get(&m, `select `+mirrorColumns+` from mirrors where bucket = $1 and customer_id = $2 for update`, m.Bucket, m.Customer); err != nil {
			return err
		}
		newest := ""
		if len(list) > 0 {
			newest = list[0].ID
			if m.ListedTo == nil {
				opening := list[0]
				opening.Amount, opening.Type, opening.Reason, opening.Flush = opening.EndingBalance, "opening", "balance in Stripe before", ""
				opening.Invoice, opening.CreditNote = "", "" // it is the sum of all
				list = []StripeTransaction{opening}
			}
		}
		for i := len(list) - 1; i >= 0; i-- {
			booked, err := t.importOne(&m, list[i])
			if err != nil {
				return err
			}
			if booked {
				strangers++
			}
		}
		return t.exec(`update mirrors set listed_to = case when $3 <> '' then $3 else coalesce(listed_to, '') end, import_due = false, checked_at = $4
			where bucket = $1 and customer_id = $2`, m.Bucket, m.Customer, newest, t.now)
	})
	return strangers, err
}

func (t *tx) importOne(m *Mirror, s StripeTransaction) (booked bool, err error) {
	if s.Flush != "" {
		doubled, err := t.doubled(m, s)
		if err != nil || doubled {
			return false, err
		}
		return false, t.adopt(m, s)
	}
	fresh, err := t.know(m, s)
	if err != nil || !fresh || s.Amount == 0 {
		return false, err
	}
	asset, err := t.mirroredAsset(m)
	if err != nil {
		return false, err
	}
	if err := t.lockWallets(m.Ref()); err != nil { // it may take from two
		return false, err
	}
	w, err := t.walletFor(m.Ref(), asset, scopesAtStripe)
	if err != nil {
		return false, err
	}
	p, _ := asset.price()
	switch {
	case s.Amount < 0 && s.Type == "unapplied_from_invoice" && s.Invoice != "":
		err = t.strangerReturned(w, p, s)
	case s.Amount < 0:
		err = t.strangerGave(w, p, s)
	default:
		err = t.strangerTook(w, p, s)
	}
	return true, err
}

// doubled counts a transaction that says it is a flush of ours, which another has made already: somebody sent it again,
// or copied what it carries. It was never the customer's credit, so no entry follows it: the balance in Stripe is brought
// back to what the ledger says by the next flush. That one is due is put down, for no entry tells of it after a crash.
func (t *tx) doubled(m *Mirror, s StripeTransaction) (bool, error) {
	var another bool
	if _, err := t.get(&another, `select exists (select from flushes where bucket = $1 and id = $2 and transaction <> $3)`, m.Bucket, s.Flush, s.ID); err != nil || !another {
		return false, err
	}
	t.l.log.Error("a balance transaction was made twice", "customer", m.Customer, "flush", s.Flush, "transaction", s.ID)
	s.Flush, s.Type = "", "doubled"
	if _, err := t.know(m, s); err != nil {
		return false, err
	}
	t.dirty = append(t.dirty, m.Ref())
	if err := t.lockWallets(m.Ref()); err != nil {
		return false, err
	}
	return true, t.exec(`update wallets set mirrored_seq = -1 where bucket = $1 and customer_id = $2`, m.Bucket, m.Customer)
}

// mirroredAsset is the one in which what strangers do to the balance in Stripe is booked: the currency itself, else
// the default asset where it is priced in it.
func (t *tx) mirroredAsset(m *Mirror) (Asset, error) {
	asset, err := t.asset(m.Currency)
	if err != nil {
		return Asset{}, err
	}
	byDefault, err := t.asset(t.l.defaultAsset)
	if err != nil {
		return Asset{}, err
	}
	if byDefault.Currency == m.Currency && byDefault.Code != asset.Code {
		var own bool
		if _, err := t.get(&own, `select exists (select from wallets where bucket = $1 and customer_id = $2 and asset = $3)`,
			m.Bucket, m.Customer, asset.Code); err != nil {
			return Asset{}, err
		}
		if !own {
			asset = byDefault
		}
	}
	return asset, nil
}

func (t *tx) strangerGave(w *Wallet, p price, s StripeTransaction) error {
	amount, ok := p.buys(-s.Amount, w.Scale)
	if !ok {
		return fmt.Errorf("balance transaction %s gives more than %s can count", s.ID, w.Asset)
	}
	if amount == 0 {
		return nil // less than the asset's smallest step: the mirror levels it
	}
	g := Grant{Bucket: w.Bucket, ID: t.l.ids.newID("grt_", w.Bucket, t.now), Wallet: w.ID, Amount: amount, Kind: "adjustment",
		Priority: DefaultPriority, Covers: "all", Status: "confirmed", EffectiveAt: t.now, Reason: s.Reason,
		SourceType: "stripe_balance", SourceID: s.ID}
	if err := t.insertGrant(g); err != nil {
		return err
	}
	posting := newPosting(t.now)
	posting.begin(t.l, w, &g, "stripe_balance")
	if err := t.write(posting); err != nil {
		return err
	}
	t.emitGrant(EventGrantConfirmed, w, g)
	return t.filled(w)
}

// take burns amount from a locked wallet's live grants that fit a condition.
func (t *tx) take(p *posting, w *Wallet, amount int64, condition string) (parts Parts, short int64, err error) {
	grants, err := t.liveGrants(w, condition)
	if err != nil {
		return nil, 0, err
	}
	parts, short = takeFrom(p, grants, amount)
	return parts, short, nil
}

// takeFrom burns amount from grants in the order given.
func takeFrom(p *posting, grants []Grant, amount int64) (parts Parts, short int64) {
	tranches := make([]tranche, len(grants))
	for i, g := range grants {
		tranches[i] = tranche{id: g.ID, free: g.Remaining - g.Held}
	}
	parts, short = burn(tranches, amount)
	for i := range parts { // burn takes from the front: a part is of the grant at its place, or of a later one
		for j := range grants {
			if g := &grants[j]; g.ID == parts[i].Grant {
				g.Remaining += parts[i].Amount
				if g.Remaining == 0 {
					g.Status = "exhausted"
				}
				p.set(g.state())
			}
		}
	}
	return parts, short
}

// MirrorView is what the ledger can say of a customer's balance in Stripe.
type MirrorView struct {
	Mirror
	Want    int64    // what Stripe should show, minor units of credit
	Open    bool     // a flush is on its way, or its outcome is unknown
	Stopped bool     // the customer was deleted in Stripe: nothing is shown any more
	Unshown []string // assets of credit that can't be shown there, for it is priced in another currency
}

// MirrorOf answers a customer's mirror; found is false when the customer has none.
func (l *Ledger) MirrorOf(ctx context.Context, ref Ref) (v MirrorView, found bool, err error) {
	if _, err := l.Wallets(ctx, ref); err != nil {
		return MirrorView{}, false, err
	}
	err = l.inTx(ctx, func(t *tx) error {
		// One statement sees mirror and wallets of one moment; the flush is looked for in the same snapshot.
		if err := t.exec(`set transaction isolation level repeatable read, read only`); err != nil {
			return err
		}
		if found, err = t.get(&v.Mirror, `select `+mirrorColumns+` from mirrors where bucket = $1 and customer_id = $2`, ref.Bucket, ref.ID); err != nil || !found {
			return err
		}
		var wallets []shown
		if v.Want, wallets, err = t.want(ref, v.Currency); err != nil {
			return err
		}
		if v.Unshown, err = t.unshown(wallets, v.Currency); err != nil {
			return err
		}
		var is struct {
			Open    bool `db:"open"`
			Stopped bool `db:"stopped"`
		}
		_, err = t.get(&is, `select exists (select from flushes f where f.bucket = m.bucket and f.customer_id = m.customer_id and f.status = 'pending') as open,
			m.run_at = 'infinity' as stopped from mirrors m where m.bucket = $1 and m.customer_id = $2`, ref.Bucket, ref.ID)
		v.Open, v.Stopped = is.Open, is.Stopped
		return err
	})
	return v, found, err
}

// Mirrors answers mirrors in the order of their customers, after the one named: for a look at all of them.
func (l *Ledger) Mirrors(ctx context.Context, after Ref, limit int) ([]Mirror, error) {
	var mirrors []Mirror
	err := l.db.SelectContext(ctx, &mirrors, `select `+mirrorColumns+` from mirrors where (bucket, customer_id) > ($1, $2)
		order by bucket, customer_id limit $3`, after.Bucket, after.ID, limit)
	return mirrors, err
}

// KnownTransactions answers which of the ids are booked.
func (l *Ledger) KnownTransactions(ctx context.Context, ref Ref, ids []string) (map[string]bool, error) {
	var known []string
	err := l.db.SelectContext(ctx, &known, `select id from balance_transactions where bucket = $1 and id = any($2)`, ref.Bucket, textArray(ids))
	is := make(map[string]bool, len(known))
	for _, id := range known {
		is[id] = true
	}
	return is, err
}

// LevelMirror corrects what Stripe is known to show after its whole list was read and it still shows
// something else, with a transaction of no one's that says so; from there the mirror goes on by its own way.
// from is what it was known to show when Stripe was asked; where that has changed, nothing is done.
func (l *Ledger) LevelMirror(ctx context.Context, ref Ref, from, credit int64) error {
	return l.inTx(ctx, func(t *tx) error {
		var m Mirror
		found, err := t.get(&m, `select `+mirrorColumns+` from mirrors where bucket = $1 and customer_id = $2 for update`, ref.Bucket, ref.ID)
		if err != nil || !found || m.Credit != from || m.Credit == credit {
			return err
		}
		t.dirty = append(t.dirty, ref)
		if err := t.exec(`update wallets set mirrored_seq = -1 where bucket = $1 and customer_id = $2`, ref.Bucket, ref.ID); err != nil {
			return err
		}
		_, err = t.know(&m, StripeTransaction{ID: l.ids.newID("level_", ref.Bucket, t.now), Amount: m.Credit - credit, Type: "level", Created: t.now})
		return err
	})
}

// Checked notes that a mirror was compared with Stripe.
func (l *Ledger) Checked(ctx context.Context, ref Ref) (time.Time, error) {
	now := l.Now()
	_, err := l.db.ExecContext(ctx, `update mirrors set checked_at = $3 where bucket = $1 and customer_id = $2`, ref.Bucket, ref.ID, now)
	return now, err
}

// BalanceSeen hears from Stripe what a customer's balance is, in Stripe's sign. Unless it is what all known
// transactions add up to, or will be once the flush on its way is known, the transactions are to be read.
func (l *Ledger) BalanceSeen(ctx context.Context, ref Ref, balance int64) error {
	var expected bool
	found, err := l.getRow(ctx, &expected, `select m.credit = -$3::bigint or exists (
			select from flushes f where f.bucket = $1 and f.customer_id = $2 and f.status = 'pending' and m.credit - f.amount = -$3::bigint)
		from mirrors m where m.bucket = $1 and m.customer_id = $2`, ref.Bucket, ref.ID, balance)
	if err != nil || !found || expected {
		return err
	}
	return l.ImportDue(ctx, ref)
}
