package ledger

import (
	"context"
	"slices"
)

// What becomes of a customer at Stripe: deleted, without a card, or in another currency than was thought.

// CustomerDeleted closes the books of a customer whose Stripe customer was deleted. Nothing is spent or bought any more:
// rules are turned off, top-ups on their way are canceled, at Stripe by a worker where Stripe was asked for them, and the
// mirror stops, for there is no balance left to write. What was there stays, and a payment that goes through after all
// is credited.
func (l *Ledger) CustomerDeleted(ctx context.Context, ref Ref) error {
	return l.inTx(ctx, func(t *tx) error {
		var status string
		found, err := t.get(&status, `select status from customers where bucket = $1 and id = $2 for update`, ref.Bucket, ref.ID)
		if err != nil || !found || status == "deleted" {
			return err
		}
		if err := t.exec(`update customers set status = 'deleted' where bucket = $1 and id = $2`, ref.Bucket, ref.ID); err != nil {
			return err
		}
		if err := t.exec(`update mirrors set run_at = 'infinity' where bucket = $1 and customer_id = $2`, ref.Bucket, ref.ID); err != nil {
			return err
		}
		if err := t.lockWallets(ref); err != nil {
			return err
		}
		if err := t.exec(`update topup_rules r set enabled = false, updated_at = $3 from wallets w
			where w.bucket = $1 and w.customer_id = $2 and r.bucket = w.bucket and r.wallet_id = w.id and r.enabled`, ref.Bucket, ref.ID, t.now); err != nil {
			return err
		}
		if err := t.bar(ref, true); err != nil {
			return err
		}
		return t.cancelTopups(ref)
	})
}

// cancelTopups ends the customer's top-ups that are in flight: those that Stripe was never asked for at once.
func (t *tx) cancelTopups(ref Ref) error {
	var open []Topup
	if err := t.SelectContext(t.ctx, &open, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.customer_id = $2
		and t.status in ('pending', 'processing', 'action_required') order by t.wallet_id, t.id for update of t`, ref.Bucket, ref.ID); err != nil {
		return err
	}
	for i := range open {
		top := &open[i]
		if top.CalledAt == nil {
			w, err := t.lockWallet(ref.Bucket, top.Wallet)
			if err != nil {
				return err
			}
			if err := t.settle(w, top, Outcome{Topup: top.ID, Status: "canceled"}); err != nil {
				return err
			}
			continue
		}
		t.wake = true
		if err := t.exec(`update topups set cancel = true, run_at = $3 where bucket = $1 and id = $2`, top.Bucket, top.ID, t.now); err != nil {
			return err
		}
	}
	return nil
}

// NamedBy answers whose rules name a payment method.
func (l *Ledger) NamedBy(ctx context.Context, method string) (refs []Ref, err error) {
	err = l.db.SelectContext(ctx, &refs, `select distinct w.bucket, w.customer_id as id from topup_rules r
		join wallets w on w.bucket = r.bucket and w.id = r.wallet_id where r.payment_method = $1 order by 1, 2`, method)
	return refs, err
}

// CardGone pauses the customer's rules that have no card to charge any more: those that name one that was taken away,
// and, with none, those that charge the default, of which there is none; a rule that sends invoices needs none. A pause for another reason stays what it is. It
// answers whether it paused any.
func (l *Ledger) CardGone(ctx context.Context, ref Ref, method string, none bool) (paused bool, err error) {
	err = l.inTx(ctx, func(t *tx) error {
		paused = false
		var ids []string
		if err := t.SelectContext(ctx, &ids, `select w.id from wallets w join topup_rules r on r.bucket = w.bucket and r.wallet_id = w.id
			where w.bucket = $1 and w.customer_id = $2 and r.enabled and r.pause_reason is null
			and r.days_until_due is null and (r.payment_method = $3 or $4 and r.payment_method is null) order by w.id`, ref.Bucket, ref.ID, method, none); err != nil {
			return err
		}
		for _, id := range ids {
			w, err := t.lockWallet(ref.Bucket, id)
			if err != nil {
				return err
			}
			r, _, err := t.rule(w)
			if err != nil {
				return err
			}
			if !r.Enabled || r.PauseReason != nil || r.DaysUntilDue != nil || !(deref(r.PaymentMethod) == method || none && r.PaymentMethod == nil) {
				continue
			}
			if err := t.pause(w, &r, PauseNoPaymentMethod, nil, method, ""); err != nil {
				return err
			}
			if err := t.rearm(w); err != nil {
				return err
			}
			paused = true
		}
		return nil
	})
	return paused, err
}

// CurrencyFixed hears in which currency Stripe keeps a customer's balance. The first to write to it decides that, and
// nobody changes it. A mirror that was begun in another has shown nothing yet, for Stripe refuses it, and begins anew;
// credit in another currency can't be shown there, and is refused from then on. It answers whether it did so.
func (l *Ledger) CurrencyFixed(ctx context.Context, ref Ref, currency string) (changed bool, err error) {
	if !IsCurrency(currency) {
		return false, nil
	}
	err = l.inTx(ctx, func(t *tx) error {
		changed = false
		var c customerRow
		found, err := t.get(&c, `select `+customerColumns+` from customers where bucket = $1 and id = $2 for update`, ref.Bucket, ref.ID)
		if err != nil || !found || deref(c.Currency) == currency {
			return err
		}
		if c.Currency == nil {
			changed = true
			return t.mirrorIn(c, currency, false)
		}
		var m Mirror
		if found, err = t.get(&m, `select `+mirrorColumns+` from mirrors where bucket = $1 and customer_id = $2 for update`, ref.Bucket, ref.ID); err != nil || !found {
			return err
		}
		var shown bool
		if _, err := t.get(&shown, `select exists (select from balance_transactions where bucket = $1 and customer_id = $2)`, ref.Bucket, ref.ID); err != nil || shown {
			return err
		}
		if err := t.exec(`update customers set currency = $3 where bucket = $1 and id = $2`, ref.Bucket, ref.ID, currency); err != nil {
			return err
		}
		changed = true
		t.dirty = append(t.dirty, ref)
		return t.exec(`update mirrors set currency = $3, listed_to = null, import_due = true, tries = 0, run_at = least(run_at, $4)
			where bucket = $1 and customer_id = $2 and run_at < 'infinity'`, ref.Bucket, ref.ID, currency, t.now)
	})
	return changed, err
}

// unshown are the assets of credit that may pay invoices and that Stripe's balance can't show, for they are priced in
// another currency than it is kept in.
func (t *tx) unshown(wallets []shown, currency string) (assets []string, err error) {
	for _, w := range wallets {
		asset, err := t.asset(w.Asset)
		if err != nil {
			return nil, err
		}
		if w.Steps != 0 && asset.Currency != "" && asset.Currency != currency && !slices.Contains(assets, w.Asset) {
			assets = append(assets, w.Asset)
		}
	}
	return assets, nil
}
