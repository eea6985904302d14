package ledger

import (
	"math/big"
	"time"
)

// below is the balance below which the rule acts, in steps.
func (r *Rule) below(w *Wallet) int64 {
	if r.Threshold != nil {
		return *r.Threshold
	}
	return percentOf(w.FullAmount, deref(r.ThresholdPercent))
}

// percentOf is the balance below which less than that percent of full is left: in whole steps, the ceiling.
func percentOf(full int64, percent int16) int64 {
	n := new(big.Int).Mul(big.NewInt(full), big.NewInt(int64(percent)))
	n.Add(n, big.NewInt(99)).Div(n, big.NewInt(100))
	return n.Int64()
}

// size is what one refill buys of a wallet that has have available or on its way, and what it charges.
// A refill to a target buys whole minor units: what is paid is credited.
func (r *Rule) size(have int64, scale int16, p price) (amount, charge int64, ok bool) {
	if r.Amount != nil {
		charge, ok = p.charge(*r.Amount, scale)
		return *r.Amount, charge, ok
	}
	need, ok := add(*r.Target, -have)
	if !ok || need <= 0 {
		return 0, 0, false
	}
	if charge, ok = p.charge(need, scale); !ok {
		return 0, 0, false
	}
	amount, ok = p.buys(charge, scale)
	return max(amount, need), charge, ok
}

// period is the calendar period of a cap that holds now, in UTC; weeks begin on Monday.
func period(interval string, now time.Time) (from, to time.Time) {
	now = now.UTC()
	day := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	switch interval {
	case "day":
		return day, day.AddDate(0, 0, 1)
	case "week":
		from = day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
		return from, from.AddDate(0, 0, 7)
	default:
		from = time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
		return from, from.AddDate(0, 1, 0)
	}
}

// spentSQL is what a wallet's auto top-ups have charged since a moment, with all that may still charge:
// one in flight counts whenever it began, since its money may move in this period.
const spentSQL = `select coalesce(sum(charge), 0)::bigint from topups where bucket = $1 and wallet_id = $2 and trigger = 'auto'
	and (status in ('pending', 'processing', 'action_required') or status = 'succeeded' and (created_at >= $3 or settled_at >= $3))`

const inFlightSQL = `select exists (select from topups where bucket = $1 and wallet_id = $2
	and status in ('pending', 'processing', 'action_required'))`

// filled notes what is available right after credit came in force, which thresholds in percent are of,
// and looks at what follows from the balance.
func (t *tx) filled(w *Wallet) error {
	w.FullAmount = max(w.Available(), 0)
	if err := t.exec(`update wallets set full_amount = $3, version = version + 1 where bucket = $1 and id = $2`,
		w.Bucket, w.ID, w.FullAmount); err != nil {
		return err
	}
	if err := t.watch(w, true); err != nil { // alerts in percent are measured by it
		return err
	}
	return t.rearm(w)
}

// rearm draws what follows from a locked wallet's balance: alerts that begin or end, and its auto top-up
// rule, which it arms, leaves unarmed, or, where the balance is below the threshold, has intend a top-up or
// pause at its cap. It runs in the same commit as whatever moved the balance, so no look is late and no two
// race.
func (t *tx) rearm(w *Wallet) error {
	if err := t.alert(w); err != nil {
		return err
	}
	below, err := t.refill(w)
	if err != nil {
		return err
	}
	if below == nil && w.RefillBelow == nil || below != nil && w.RefillBelow != nil && *below == *w.RefillBelow {
		return nil
	}
	w.RefillBelow = below
	return t.exec(`update wallets set refill_below = $3, version = version + 1 where bucket = $1 and id = $2`, w.Bucket, w.ID, below)
}

// refill decides: below is the balance at which the wallet is to be looked at again, nil for not armed.
func (t *tx) refill(w *Wallet) (below *int64, err error) {
	r, found, err := t.rule(w)
	if err != nil || !found {
		return nil, err
	}
	// A new period of the cap, or time to try a card again.
	if r.PauseUntil != nil && !r.PauseUntil.After(t.now) {
		if err := t.lift(&r); err != nil {
			return nil, err
		}
	}
	if !r.Enabled || !w.active() {
		return nil, nil
	}
	if deref(r.PauseReason) != "" && deref(r.PauseReason) != PauseSpendCap {
		return nil, nil
	}
	var disputed bool
	if _, err := t.get(&disputed, disputedSQL, w.Bucket, w.Customer); err != nil {
		return nil, err
	}
	if disputed {
		return nil, t.pause(w, &r, PauseDispute, nil, "", "")
	}
	var inFlight bool
	if _, err := t.get(&inFlight, inFlightSQL, w.Bucket, w.ID); err != nil || inFlight {
		return nil, err
	}
	asset, err := t.asset(w.Asset)
	if err != nil {
		return nil, err
	}
	p, priced := asset.price()
	if !priced {
		return nil, nil
	}
	have := w.Available() + w.Pending
	limit, mark, err := t.limits(w, &r)
	if err != nil {
		return nil, err
	}
	amount, charge, ok := r.size(have, w.Scale, p)
	if have >= mark || !ok {
		return &mark, t.unpauseCap(&r)
	}
	if have >= limit { // near it: a pause at the cap neither begins nor ends
		if r.PauseReason != nil {
			return nil, nil
		}
		return &mark, nil
	}
	return t.buy(w, &r, mark, p, amount, charge)
}

// buy intends a refill, where the cap leaves room for it; else it pauses the rule. It answers as refill does.
func (t *tx) buy(w *Wallet, r *Rule, mark int64, p price, amount, charge int64) (below *int64, err error) {
	from, to := period(deref(r.CapInterval), t.now)
	due, err := t.withTax(w, r, charge)
	if err != nil {
		return nil, err
	}
	var spent int64
	if _, err := t.get(&spent, spentSQL, w.Bucket, w.ID, from); err != nil {
		return nil, err
	}
	if r.CapAmount != nil && due > *r.CapAmount-spent {
		if deref(r.PauseReason) == PauseSpendCap {
			return nil, nil
		}
		return nil, t.pause(w, r, PauseSpendCap, &to, "", "")
	}
	if err := t.unpauseCap(r); err != nil {
		return nil, err
	}
	if err := t.fits(w, amount); IsCode(err, CodeInvalid) {
		return &mark, nil // a rule that can't act must not refuse the debit that asked it to
	} else if err != nil {
		return nil, err
	}
	immediate, err := t.givesAtOnce(w, r)
	if err != nil {
		return nil, err
	}
	used := spent + due
	return nil, t.intend(w, Topup{Immediate: immediate, Trigger: "auto", Mode: r.Mode, Amount: amount, Charge: charge, Currency: p.currency, PaymentMethod: r.PaymentMethod,
		CapUsed: &used, CapAmount: r.CapAmount, InvoiceTerms: r.InvoiceTerms}, terms{r.GrantKind, r.GrantPriority, r.GrantExpiresInDays})
}

// unpauseCap ends a pause at the cap that no longer holds.
func (t *tx) unpauseCap(r *Rule) error {
	if deref(r.PauseReason) != PauseSpendCap {
		return nil
	}
	return t.unpause(r)
}
