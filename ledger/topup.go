package ledger

import (
	"context"
	"math/big"
	"time"
)

// Topup is one purchase of credit. Amount is in steps of the wallet's asset, Charge in minor units.
type Topup struct {
	Bucket         int16      `db:"bucket"`
	ID             string     `db:"id"`
	Wallet         string     `db:"wallet_id"`
	Customer       string     `db:"customer_id"`
	Trigger        string     `db:"trigger"` // auto, manual
	Mode           string     `db:"mode"`
	Status         string     `db:"status"`
	Amount         int64      `db:"amount"`
	Charge         int64      `db:"charge"`
	Currency       string     `db:"currency"`
	Attempt        int        `db:"attempt"`
	PaymentMethod  *string    `db:"payment_method"`
	Params         *string    `db:"params"`
	CalledAt       *time.Time `db:"called_at"`
	PaymentIntent  *string    `db:"payment_intent"`
	FailureCode    *string    `db:"failure_code"`
	DeclineCode    *string    `db:"decline_code"`
	FailureMessage *string    `db:"failure_message"`
	GrantID        string     `db:"grant_id"`
	ExpiresInDays  *int32     `db:"expires_in_days"`
	CapUsed        *int64     `db:"cap_used"`
	CapAmount      *int64     `db:"cap_amount"`
	Cancel         bool       `db:"cancel"`
	Tries          int        `db:"tries"`
	CreatedAt      time.Time  `db:"created_at"`
	StripeCustomer string     `db:"stripe_customer"`
	Scale          int16      `db:"scale"`

	CheckoutSession *string `db:"checkout_session"`
	URL             *string `db:"url"`
	SuccessURL      *string `db:"success_url"`
}

const topupColumns = `t.bucket, t.id, t.wallet_id, t.customer_id, t.trigger, t.mode, t.status, t.amount, t.charge, t.currency, t.attempt,
	t.payment_method, t.params, t.called_at, t.payment_intent, t.failure_code, t.decline_code, t.failure_message, t.grant_id,
	t.expires_in_days, t.cap_used, t.cap_amount, t.cancel, t.tries, t.created_at, coalesce(c.stripe_customer, '') as stripe_customer, w.scale,
	t.checkout_session, t.url, t.success_url`

const topupsFrom = ` from topups t join customers c on c.bucket = t.bucket and c.id = t.customer_id
	join wallets w on w.bucket = t.bucket and w.id = t.wallet_id `

// InFlight reports whether the top-up may still charge.
func (t *Topup) InFlight() bool {
	return t.Status == "pending" || t.Status == "processing" || t.Status == "action_required"
}

// terms are those of the grant that a top-up buys.
type terms struct {
	kind          string
	priority      int16
	expiresInDays *int32
}

// maxCharge is the most that one charge may be, in minor units: more digits than Stripe takes are a mistake.
const maxCharge = 999_999_999_999

// TopupInput buys credit by hand.
type TopupInput struct {
	Customer, Asset string
	Wallet          string // "" is the one that the rule for new credit says
	Amount          Decimal
	Mode            string // "" is charge
	PaymentMethod   string // "" is the customer's default
	SuccessURL      string // of a checkout: where its customer goes from Stripe's page
	MinimumCharge   func(currency string) int64
}

// CreateTopup intends a manual top-up. Its charge is a worker's, or the caller's who leases it.
func (l *Ledger) CreateTopup(ctx context.Context, in TopupInput, once Once) (top Topup, replayed bool, err error) {
	if in.Asset, err = l.assetOf(ctx, in.Asset, in.Wallet); err != nil {
		return Topup{}, false, err
	}
	c, asset, err := l.assetFor(ctx, in.Customer, in.Asset)
	if err != nil {
		return Topup{}, false, err
	}
	defaultTo(&in.Mode, "charge")
	if err := in.checkMode(); err != nil {
		return Topup{}, false, err
	}
	p, priced := asset.price()
	switch {
	case !priced:
		return Topup{}, false, refuse(CodeInvalid, "asset", "%s has no price, so it can't be bought", asset.Code)
	case in.Amount.Digits <= 0:
		return Topup{}, false, refuse(CodeInvalid, "amount", "amount must be above zero")
	case c.Status != "active":
		return Topup{}, false, refuse(CodeFrozen, "customer", "customer %s is %s", c.ID, c.Status)
	}
	amount, err := stepsOf(in.Amount, asset.Scale, "amount", asset.Code)
	if err != nil {
		return Topup{}, false, err
	}
	charge, ok := p.charge(amount, asset.Scale)
	if !ok || charge > maxCharge {
		return Topup{}, false, refuse(CodeInvalid, "amount", "the charge for that is too large")
	}
	if least := in.MinimumCharge(p.currency); charge < least {
		return Topup{}, false, refuse(CodeInvalid, "amount", "this would charge %d, and Stripe charges no less than %d in %s's smallest unit", charge, least, p.currency)
	}
	once.Bucket = c.Bucket
	id := ""
	err = l.inTx(ctx, func(t *tx) error {
		if id, replayed, err = t.claim(once, l.ids.newID("top_", c.Bucket, t.now)); err != nil || replayed {
			return err
		}
		w, err := t.creditWallet(in.Wallet, c.Ref, asset, scopesForCredit)
		if err != nil {
			return err
		}
		var inFlight bool
		if _, err := t.get(&inFlight, inFlightSQL, w.Bucket, w.ID); err != nil {
			return err
		}
		if inFlight {
			return refuse(CodeTopupInFlight, "", "a top-up of wallet %s is in flight: wait for it or cancel it", w.ID)
		}
		if err := t.fits(w, amount); err != nil {
			return err
		}
		err = t.intend(w, Topup{ID: id, Trigger: "manual", Mode: in.Mode, Amount: amount, Charge: charge, Currency: p.currency,
			PaymentMethod: ref(in.PaymentMethod), SuccessURL: ref(in.SuccessURL)}, terms{"purchased", DefaultPriority, nil})
		if err != nil {
			return err
		}
		return t.rearm(w)
	})
	if err != nil {
		return Topup{}, false, err
	}
	top, err = l.TopupByID(ctx, id)
	return top, replayed, err
}

// intend writes the first of the four money steps: the top-up, what it will charge, the part of the cap
// that it uses up, and its grant, pending.
func (t *tx) intend(w *Wallet, top Topup, terms terms) error {
	if top.ID == "" {
		top.ID = t.l.ids.newID("top_", w.Bucket, t.now)
	}
	reason := "topup"
	if top.Trigger == "auto" {
		reason = "auto_topup"
	}
	covers := defaultCovers("purchased")
	if w.Scope == "usage" {
		covers = "usage"
	}
	top.GrantID = t.l.ids.newID("grt_", w.Bucket, t.now)
	if err := t.insertGrant(Grant{Bucket: w.Bucket, ID: top.GrantID, Wallet: w.ID, Amount: top.Amount, Kind: terms.kind,
		Priority: terms.priority, Covers: covers, Status: "pending", EffectiveAt: t.now, Reason: reason,
		CostAmount: &top.Charge, CostCurrency: &top.Currency, SourceType: "topup", SourceID: top.ID}); err != nil {
		return err
	}
	run := t.now
	if top.Trigger == "manual" {
		run = t.now.Add(Lease) // its caller charges it; a worker only when the caller has not
	}
	if err := t.exec(`insert into topups (bucket, id, wallet_id, customer_id, trigger, mode, status, amount, charge, currency,
			payment_method, grant_id, expires_in_days, cap_used, cap_amount, run_at, created_at, success_url)
		values ($1, $2, $3, $4, $5, $6, 'pending', $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`,
		w.Bucket, top.ID, w.ID, w.Customer, top.Trigger, top.Mode, top.Amount, top.Charge, top.Currency,
		top.PaymentMethod, top.GrantID, terms.expiresInDays, top.CapUsed, top.CapAmount, run, t.now, top.SuccessURL); err != nil {
		return err
	}
	t.wake = t.wake || top.Trigger == "auto"
	return t.addPending(w, top.Amount)
}

func (t *tx) addPending(w *Wallet, amount int64) error {
	w.Pending += amount
	return t.exec(`update wallets set pending = $3, version = version + 1 where bucket = $1 and id = $2`, w.Bucket, w.ID, w.Pending)
}

// TopupByID finds a top-up.
func (l *Ledger) TopupByID(ctx context.Context, id string) (Topup, error) {
	bucket, ok := bucketOfID("top_", id)
	if !ok {
		return Topup{}, noTopup(id)
	}
	var top Topup
	found, err := l.getRow(ctx, &top, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.id = $2`, bucket, id)
	if err == nil && !found {
		err = noTopup(id)
	}
	return top, err
}

func noTopup(id string) error { return refuse(CodeNotFound, "topup", "No such topup: '%s'", id) }

// Topups lists a customer's top-ups, or with the zero Ref everybody's, newest first.
func (l *Ledger) Topups(ctx context.Context, customer Ref, after string, limit int) ([]Topup, error) {
	if _, ok := bucketOfID("top_", after); after != "" && !ok {
		return nil, noneAfter(after)
	}
	var tops []Topup
	whose, args := ``, []any{after, limit}
	if customer.ID != "" {
		whose, args = `t.bucket = $3 and t.customer_id = $4 and `, append(args, customer.Bucket, customer.ID)
	}
	err := l.db.SelectContext(ctx, &tops, `select `+topupColumns+topupsFrom+`
		where `+whose+`($1 = '' or t.id < $1) order by t.id desc limit $2`, args...)
	return tops, err
}

// Lease is how long a worker has a row for itself. A call to Stripe takes less, all its retries included;
// should two workers call after all, the idempotency key makes one of them a replay.
const Lease = 20 * time.Second

// LeaseTopup gives the caller a top-up that is due, or the one of that id whether it is due or not; found is
// false when there is none that nobody has.
func (l *Ledger) LeaseTopup(ctx context.Context, id string) (top Topup, found bool, err error) {
	err = l.inTx(ctx, func(t *tx) error {
		var key struct {
			Bucket int16  `db:"bucket"`
			ID     string `db:"id"`
		}
		bucket, _ := bucketOfID("top_", id)
		query, args := `select bucket, id from topups where status in ('pending', 'processing', 'action_required')
			and run_at <= $1 and (lease_until is null or lease_until <= $1) order by run_at limit 1 for update skip locked`, []any{t.now}
		if id != "" {
			query = `select bucket, id from topups where status in ('pending', 'processing', 'action_required')
				and bucket = $2 and id = $3 and (lease_until is null or lease_until <= $1) for update skip locked`
			args = append(args, bucket, id)
		}
		if found, err = t.get(&key, query, args...); err != nil || !found {
			return err
		}
		if err := t.exec(`update topups set lease_until = $3, tries = tries + 1 where bucket = $1 and id = $2`,
			key.Bucket, key.ID, t.now.Add(Lease)); err != nil {
			return err
		}
		_, err = t.get(&top, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.id = $2`, key.Bucket, key.ID)
		return err
	})
	return top, found, err
}

// FixCall writes down, before the call of a top-up is made, with which parameters it is made; whoever
// resends it finds the same. It answers the parameters that hold, the first that were written; ok is false
// when the top-up has been settled or canceled meanwhile, so that there is nothing to call.
func (l *Ledger) FixCall(ctx context.Context, top Topup, params, method string) (fixed string, calledAt time.Time, ok bool, err error) {
	var row struct {
		Params   string    `db:"params"`
		CalledAt time.Time `db:"called_at"`
	}
	ok, err = l.getRow(ctx, &row, `update topups set params = coalesce(params, $3), called_at = coalesce(called_at, $4),
			payment_method = coalesce(payment_method, nullif($5, ''))
		where bucket = $1 and id = $2 and status in ('pending', 'processing', 'action_required') and not cancel
		returning params, called_at`, top.Bucket, top.ID, params, l.Now(), method)
	return row.Params, row.CalledAt.UTC(), ok, err
}

// LookAgain gives a leased top-up back, to be looked at after a while: its outcome is unknown or not there yet.
func (l *Ledger) LookAgain(ctx context.Context, top Topup, after time.Duration) error {
	_, err := l.db.ExecContext(ctx, `update topups set lease_until = null, run_at = $3 where bucket = $1 and id = $2`,
		top.Bucket, top.ID, l.Now().Add(after))
	return err
}

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
	if next == top.Status && (next != "action_required" || top.Cancel) {
		look := processingLook
		if next == "action_required" { // what is heard late neither pauses the rule again nor keeps the cancel waiting
			look = time.Second
		}
		return t.exec(`update topups set lease_until = null, payment_intent = coalesce(payment_intent, nullif($3, '')),
			run_at = greatest(run_at, $4) where bucket = $1 and id = $2`, top.Bucket, top.ID, o.PaymentIntent, t.now.Add(look))
	}
	was, waited := top.Status, top.InFlight()
	run := t.now.Add(processingLook)
	if err := t.exec(`update topups set status = $3, payment_intent = coalesce(nullif($4, ''), payment_intent), failure_code = nullif($5, ''),
			decline_code = nullif($6, ''), failure_message = nullif($7, ''), lease_until = null, cancel = false, run_at = $8, tries = 0,
			settled_at = case when $3 in ('succeeded', 'failed', 'canceled') then $9::timestamptz end
		where bucket = $1 and id = $2`,
		top.Bucket, top.ID, next, o.PaymentIntent, o.Code, o.DeclineCode, o.Message, run, t.now); err != nil {
		return err
	}
	top.Status = next
	if next != was && next != "processing" && next != "canceled" {
		if err := t.emitTopup("topup."+next, w, top); err != nil {
			return err
		}
	}
	switch next {
	case "succeeded":
		return t.credit(w, top, o, waited)
	case "failed", "canceled":
		if err := t.giveUp(w, top); err != nil {
			return err
		}
	}
	if next == "failed" || next == "action_required" {
		if err := t.pauseFor(w, top, o); err != nil {
			return err
		}
	}
	return t.rearm(w)
}

// processingLook is how long Stripe's word is waited for before the payment is looked at again. Webhooks
// are quicker; this is for those that never come, and rare enough for Stripe's allowance of reads.
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

// giveUp voids the grant of a top-up that will not be paid and gives its part of the cap back.
func (t *tx) giveUp(w *Wallet, top *Topup) error {
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

// cancelWaiting has a worker cancel the payment that waits for the customer's authentication, so that a new
// one can't be made beside it.
func (t *tx) cancelWaiting(w *Wallet) error {
	t.wake = true
	return t.exec(`update topups set cancel = true, run_at = $3 where bucket = $1 and wallet_id = $2 and status = 'action_required'`,
		w.Bucket, w.ID, t.now)
}

// CancelTopup asks for a top-up to be canceled. One that was never called is canceled here and now; of one
// that was, Stripe says whether it still can be: a worker, or the caller, who leases it, asks.
func (l *Ledger) CancelTopup(ctx context.Context, id string) (Topup, error) {
	top, err := l.TopupByID(ctx, id)
	if err != nil {
		return Topup{}, err
	}
	err = l.inTx(ctx, func(t *tx) error {
		w, err := t.lockWallet(top.Bucket, top.Wallet)
		if err != nil {
			return err
		}
		if _, err := t.get(&top, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.id = $2 for update of t`, top.Bucket, id); err != nil {
			return err
		}
		switch {
		case top.Status == "canceled":
			return nil
		case !top.InFlight():
			return refuse(CodeState, "id", "topup %s has %s: it can't be canceled", id, top.Status)
		case top.CalledAt == nil:
			return t.settle(w, &top, Outcome{Topup: id, Status: "canceled"})
		}
		t.wake = true
		return t.exec(`update topups set cancel = true, run_at = $3 where bucket = $1 and id = $2`, top.Bucket, id, t.now)
	})
	if err != nil {
		return Topup{}, err
	}
	return l.TopupByID(ctx, id)
}
