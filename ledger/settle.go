package ledger

import (
	"context"
	"math/big"
	"time"
)

// Outcome is what Stripe says of a top-up's payment.
type Outcome struct {
	Topup         string
	PaymentIntent string
	PaymentMethod string
	Status        string // succeeded, processing, failed, action_required, canceled
	Received      int64  // minor units, where it succeeded
	Code          string // of a failure
	DeclineCode   string
	Message       string
	Soft          bool // of a decline: the same card may well pay on another day
}

// SettleTopup is the fourth money step: whoever learns the outcome first, the answer to the call, a
// webhook, the backfill of events or a sweep, brings it here, and it is booked once. A payment that
// succeeded is credited even where the top-up was given up before: the money came.
func (l *Ledger) SettleTopup(ctx context.Context, o Outcome) (Topup, error) {
	bucket, ok := bucketOfID("top_", o.Topup)
	if !ok {
		return Topup{}, noTopup(o.Topup)
	}
	seen, err := l.TopupByID(ctx, o.Topup)
	if err != nil {
		return Topup{}, err
	}
	err = l.inTx(ctx, func(t *tx) error {
		w, err := t.lockWallet(bucket, seen.Wallet) // the wallet first: the one order in which everybody locks
		if err != nil {
			return err
		}
		var top Topup
		if _, err := t.get(&top, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.id = $2 for update of t`, bucket, o.Topup); err != nil {
			return err
		}
		return t.settle(w, &top, o)
	})
	if err != nil {
		return Topup{}, err
	}
	return l.TopupByID(ctx, o.Topup)
}

func (t *tx) settle(w *Wallet, top *Topup, o Outcome) error {
	if o.Status == "canceled" && o.Code == "authentication_required" && top.Trigger == "manual" {
		o.Status = "failed" // canceled for its decline, whose word may come after that of the cancel
	}
	next := nextStatus(*top, o.Status)
	if top.Page > 0 && o.Status == "action_required" {
		return nil // of the payment that the page is in place of: nothing new
	}
	if next == top.Status && (next != "action_required" || top.Cancel) {
		look := processingLook << min(top.Tries, 6)
		if next == "action_required" { // what is heard late neither pauses the rule again nor keeps the cancel waiting
			look = time.Second
		}
		return t.exec(`update topups set lease_until = null, payment_intent = coalesce(payment_intent, nullif($3, '')),
			run_at = greatest(run_at, $4) where bucket = $1 and id = $2`, top.Bucket, top.ID, o.PaymentIntent, t.now.Add(look))
	}
	was, waited := top.Status, top.InFlight()
	run, page := t.now.Add(processingLook), t.paged(top, next)
	wanted := page == pageWanted && top.Page == 0
	if wanted {
		run, t.wake = t.now, true
	}
	if err := t.exec(`update topups set status = $3, payment_intent = coalesce(nullif($4, ''), payment_intent), failure_code = nullif($5, ''),
			decline_code = nullif($6, ''), failure_message = nullif($7, ''), lease_until = null, cancel = false, run_at = $8, tries = 0, page = $10,
			settled_at = case when $3 in ('succeeded', 'failed', 'canceled') then $9::timestamptz end
		where bucket = $1 and id = $2`,
		top.Bucket, top.ID, next, o.PaymentIntent, o.Code, o.DeclineCode, o.Message, run, t.now, page); err != nil {
		return err
	}
	top.Status, top.Page = next, page
	if next != was && next != "processing" && next != "canceled" && !wanted { // of a page is told when it is open
		if err := t.emitTopup("topup."+next, w, top); err != nil {
			return err
		}
	}
	switch next {
	case "succeeded":
		if top.Immediate {
			return t.unpaidPaid(w, top, o)
		}
		return t.credit(w, top, o, waited)
	case "failed", "action_required":
		// Before any credit is taken back: what is missing then must not have the rule charge again.
		if err := t.pauseFor(w, top, o); err != nil {
			return err
		}
	}
	if next == "failed" || next == "canceled" {
		if err := t.giveUp(w, top); err != nil {
			return err
		}
	}
	return t.rearm(w)
}

// processingLook is how long Stripe's word is waited for before the payment is looked at again, twice as long after each
// look, up to half a day: a bank may take a fortnight. Webhooks are quicker; this is for those that never come, and rare
// enough for Stripe's allowance of reads.
const processingLook = 10 * time.Minute

// nextStatus is what becomes of a top-up when Stripe says status of its payment, in whatever order that
// is heard: success is final, and the only word that is still believed after an end.
func nextStatus(top Topup, status string) string {
	switch {
	case top.Status == "succeeded", status == "succeeded":
		return "succeeded"
	case !top.InFlight():
		return top.Status
	case status == "action_required" && top.Trigger == "manual":
		return "failed" // there is a caller to tell, and nobody who would finish it
	case status == "processing" && top.Status == "action_required":
		return "processing"
	default:
		return status
	}
}

// credit books the grant of a top-up that was paid.
func (t *tx) credit(w *Wallet, top *Topup, o Outcome, waited bool) error {
	if waited {
		if err := t.addPending(w, -top.Amount); err != nil {
			return err
		}
	}
	var g Grant
	if _, err := t.get(&g, `select `+grantColumns+grantsFrom+`where g.bucket = $1 and g.id = $2`, top.Bucket, top.GrantID); err != nil {
		return err
	}
	if o.Received > 0 && o.Received != top.Charge {
		// Never seen from Stripe for these charges; what came is what is credited.
		g.Amount = share(top.Amount, o.Received, top.Charge)
		t.l.log.Error("payment differs from charge", "topup", top.ID, "charge", top.Charge, "received", o.Received)
	}
	g.Status = "confirmed"
	g.EffectiveAt = t.now
	if top.ExpiresInDays != nil {
		at := t.now.AddDate(0, 0, int(*top.ExpiresInDays))
		g.ExpiresAt = &at
	}
	if err := t.exec(`update grants set amount = $3, remaining = $3, effective_at = $4, expires_at = $5 where bucket = $1 and id = $2`,
		g.Bucket, g.ID, g.Amount, g.EffectiveAt, g.ExpiresAt); err != nil {
		return err
	}
	p := newPosting(t.now)
	p.begin(t.l, w, &g, "grant")
	if err := t.write(p); err != nil {
		return err
	}
	t.emitGrant(EventGrantConfirmed, w, g)
	if g.ExpiresAt != nil {
		if err := t.turnsAt(w, *g.ExpiresAt); err != nil {
			return err
		}
	}
	if err := t.paid(w); err != nil {
		return err
	}
	return t.filled(w)
}

// paid ends a pause that a payment that went through has cleared.
func (t *tx) paid(w *Wallet) error {
	r, found, err := t.rule(w)
	if err != nil || !found {
		return err
	}
	switch deref(r.PauseReason) {
	case PausePaymentFailed, PauseActionRequired, PauseNoPaymentMethod:
		return t.unpause(&r)
	}
	if r.Retried == 0 {
		return nil
	}
	r.Retried = 0
	return t.saveRule(r)
}

// giveUp voids the grant of a top-up that will not be paid, or takes back what it gave already, and gives its part of the
// cap back.
func (t *tx) giveUp(w *Wallet, top *Topup) error {
	if top.Immediate {
		return t.takeUnpaid(w, top)
	}
	if err := t.addPending(w, -top.Amount); err != nil {
		return err
	}
	return t.exec(`update grants set status = 'voided', remaining = 0 where bucket = $1 and id = $2`, top.Bucket, top.GrantID)
}

// pauseFor pauses the rule whose top-up failed. A manual one that failed has told its caller.
func (t *tx) pauseFor(w *Wallet, top *Topup, o Outcome) error {
	if top.Trigger != "auto" {
		return nil
	}
	r, found, err := t.rule(w)
	if err != nil || !found {
		return err
	}
	reason := PausePaymentFailed
	switch {
	case top.Status == "action_required":
		reason = PauseActionRequired
	case o.Code == PauseNoPaymentMethod:
		reason = PauseNoPaymentMethod
	case o.Code == PauseSpendCap: // with its tax
		_, to := period(deref(r.CapInterval), t.now)
		return t.pause(w, &r, PauseSpendCap, &to, "", top.ID)
	}
	method := o.PaymentMethod
	if method == "" { // Stripe takes it off a payment that failed
		method = deref(top.PaymentMethod)
	}
	if reason == PausePaymentFailed && o.Soft && r.Retried < r.DeclineRetries {
		again := t.now.Add(retryAfter[r.Retried])
		r.Retried++
		return t.pause(w, &r, reason, &again, method, top.ID)
	}
	return t.pause(w, &r, reason, nil, method, top.ID)
}

// share is amount × part / whole, rounded down.
func share(amount, part, whole int64) int64 {
	n := new(big.Int).Mul(big.NewInt(amount), big.NewInt(part))
	return n.Div(n, big.NewInt(whole)).Int64()
}

// Share is amount × part / whole, rounded down, which is how a part of a payment is turned into credit.
func Share(amount, part, whole int64) int64 { return share(amount, part, whole) }
