package ledger

import (
	"context"
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
	FailureSoft    bool       `db:"failure_soft"` // of one that is written down before its invoice is closed
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
	Invoice         *string `db:"invoice"`
	InvoiceStep     int16   `db:"invoice_step"`
	Page            int16   `db:"page"`
	Immediate       bool    `db:"immediate"` // its credit does not wait for the payment
	TakenEntry      *string `db:"taken_entry"`
	Tax             *int64  `db:"tax"` // the part of Charge that is tax, once known
	InvoiceTerms
}

const topupColumns = `t.bucket, t.id, t.wallet_id, t.customer_id, t.trigger, t.mode, t.status, t.amount, t.charge, t.currency, t.attempt,
	t.payment_method, t.params, t.called_at, t.payment_intent, t.failure_code, t.decline_code, t.failure_message, t.grant_id,
	t.expires_in_days, t.cap_used, t.cap_amount, t.cancel, t.tries, t.created_at, coalesce(c.stripe_customer, '') as stripe_customer, w.scale,
	t.checkout_session, t.url, t.success_url, t.invoice, t.invoice_step, t.tax, t.automatic_tax, t.days_until_due, t.failure_soft, t.page,
	t.immediate, t.taken_entry`

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
	Mode            string        // "" is charge
	PaymentMethod   string        // "" is the customer's default
	SuccessURL      string        // of a checkout: where its customer goes from Stripe's page
	Invoice         *InvoiceTerms // of mode invoice alone
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
	amount, cost, err := asset.cost(in.Amount, in.MinimumCharge)
	if err != nil {
		return Topup{}, false, err
	}
	if c.Status != "active" {
		return Topup{}, false, refuse(CodeFrozen, "customer", "customer %s is %s", c.ID, c.Status)
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
		err = t.intend(w, Topup{ID: id, Trigger: "manual", Mode: in.Mode, Amount: amount, Charge: cost.Amount, Currency: cost.Currency,
			PaymentMethod: ref(in.PaymentMethod), SuccessURL: ref(in.SuccessURL), InvoiceTerms: deref(in.Invoice)}, terms{"purchased", DefaultPriority, nil})
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

// cost is an amount of an asset in steps, and what it costs; or why it can't be bought.
func (a Asset) cost(d Decimal, least func(currency string) int64) (steps int64, cost Money, err error) {
	p, priced := a.price()
	switch {
	case !priced:
		return 0, cost, refuse(CodeInvalid, "asset", "%s has no price, so it can't be bought", a.Code)
	case d.Digits <= 0:
		return 0, cost, refuse(CodeInvalid, "amount", "amount must be above zero")
	}
	if steps, err = stepsOf(d, a.Scale, "amount", a.Code); err != nil {
		return 0, cost, err
	}
	charge, ok := p.charge(steps, a.Scale)
	if !ok || charge > maxCharge {
		return 0, cost, refuse(CodeInvalid, "amount", "the charge for that is too large")
	}
	if smallest := least(p.currency); charge < smallest {
		return 0, cost, refuse(CodeInvalid, "amount", "this would charge %d, and Stripe charges no less than %d in %s's smallest unit", charge, smallest, p.currency)
	}
	return steps, Money{Amount: charge, Currency: p.currency}, nil
}

// intend writes the first of the four money steps: the top-up, what it will charge, the part of the cap
// that it uses up, and its grant: pending, or, of an immediate one, in force.
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
	g := Grant{Bucket: w.Bucket, ID: top.GrantID, Wallet: w.ID, Amount: top.Amount, Kind: terms.kind,
		Priority: terms.priority, Covers: covers, Status: "pending", EffectiveAt: t.now, Reason: reason,
		CostAmount: &top.Charge, CostCurrency: &top.Currency, SourceType: "topup", SourceID: top.ID}
	if top.Immediate {
		g.Status, g.Covers = "confirmed", "usage"
	}
	if err := t.insertGrant(g); err != nil {
		return err
	}
	run := t.now
	if top.Trigger == "manual" {
		run = t.now.Add(Lease) // its caller charges it; a worker only when the caller has not
	}
	if err := t.exec(`insert into topups (bucket, id, wallet_id, customer_id, trigger, mode, status, amount, charge, currency,
			payment_method, grant_id, expires_in_days, cap_used, cap_amount, run_at, created_at, success_url,
			automatic_tax, days_until_due, immediate)
		values ($1, $2, $3, $4, $5, $6, 'pending', $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)`,
		w.Bucket, top.ID, w.ID, w.Customer, top.Trigger, top.Mode, top.Amount, top.Charge, top.Currency,
		top.PaymentMethod, top.GrantID, terms.expiresInDays, top.CapUsed, top.CapAmount, run, t.now, top.SuccessURL,
		top.AutomaticTax, top.DaysUntilDue, top.Immediate); err != nil {
		return err
	}
	t.wake = t.wake || top.Trigger == "auto"
	if top.Immediate {
		return t.giveUnpaid(w, g)
	}
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
