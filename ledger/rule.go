package ledger

import (
	"context"
	"slices"
	"time"
)

// Rule is the auto top-up rule of a wallet. Amounts are steps of the wallet's asset.
type Rule struct {
	Bucket             int16      `db:"bucket"`
	Wallet             string     `db:"wallet_id"`
	Enabled            bool       `db:"enabled"`
	Threshold          *int64     `db:"threshold"`
	ThresholdPercent   *int16     `db:"threshold_percent"`
	RunwayMinutes      *int32     `db:"runway_minutes"` // acts also when the balance would not last that long
	Amount             *int64     `db:"amount"`
	Target             *int64     `db:"target"`
	CapAmount          *int64     `db:"cap_amount"`
	CapCurrency        *string    `db:"cap_currency"`
	CapInterval        *string    `db:"cap_interval"`
	Mode               string     `db:"mode"`
	Settlement         string     `db:"settlement"`
	PaymentMethod      *string    `db:"payment_method"`
	GrantKind          string     `db:"grant_kind"`
	GrantPriority      int16      `db:"grant_priority"`
	GrantExpiresInDays *int32     `db:"grant_expires_in_days"`
	PauseReason        *string    `db:"pause_reason"`
	PauseSince         *time.Time `db:"pause_since"`
	PauseUntil         *time.Time `db:"pause_until"`
	PauseMethod        *string    `db:"pause_method"`
	PauseTopup         *string    `db:"pause_topup"`
	DeclineRetries     int16      `db:"decline_retries"` // how often a card that was declined for a passing reason is tried again
	Retried            int16      `db:"retried"`         // since a payment last went through
	InvoiceTerms
	UpdatedAt time.Time `db:"updated_at"`
}

const ruleColumns = `bucket, wallet_id, enabled, threshold, threshold_percent, runway_minutes, amount, target, cap_amount, cap_currency,
	cap_interval, mode, settlement, payment_method, grant_kind, grant_priority, grant_expires_in_days,
	pause_reason, pause_since, pause_until, pause_method, pause_topup, decline_retries, retried,
	automatic_tax, days_until_due, updated_at`

// Why a rule is paused.
const (
	PausePaymentFailed   = "payment_failed"
	PauseActionRequired  = "action_required"
	PauseNoPaymentMethod = "no_payment_method"
	PauseSpendCap        = "spend_cap"
	PauseManual          = "manual"
)

// RuleInput sets a rule.
type RuleInput struct {
	Enabled            bool
	Threshold          *Decimal
	ThresholdPercent   *int16
	RunwayMinutes      *int32 // beside a threshold
	DeclineRetries     int16  // 0 to 4
	Amount, Target     *Decimal
	Cap                *Money
	CapInterval        string
	Mode               string        // "" is charge
	Invoice            *InvoiceTerms // of mode invoice alone
	Settlement         string        // "" is on_payment
	PaymentMethod      string        // "" is the customer's default when the charge is made
	GrantKind          string        // "" is purchased
	GrantPriority      int16
	GrantExpiresInDays *int32
	MinimumCharge      func(currency string) int64 // Stripe's, in minor units; 0 is not known
}

// rule turns what was asked for into a rule of the wallet, or refuses it.
func (in RuleInput) rule(w *Wallet, asset Asset) (Rule, error) {
	r := Rule{Bucket: w.Bucket, Wallet: w.ID, Enabled: in.Enabled, ThresholdPercent: in.ThresholdPercent,
		RunwayMinutes: in.RunwayMinutes, DeclineRetries: in.DeclineRetries, Mode: in.Mode,
		Settlement: in.Settlement, PaymentMethod: ref(in.PaymentMethod), GrantKind: in.GrantKind, GrantPriority: in.GrantPriority,
		GrantExpiresInDays: in.GrantExpiresInDays}
	defaultTo(&r.Mode, "charge")
	defaultTo(&r.Settlement, "on_payment")
	if in.Invoice != nil {
		r.InvoiceTerms = *in.Invoice
	}
	defaultTo(&r.GrantKind, "purchased")
	p, priced := asset.price()
	switch {
	case !priced:
		return Rule{}, refuse(CodeInvalid, "auto_topup", "%s has no price, so it can't be bought: set one with PUT /v1/assets/%s", asset.Code, asset.Code)
	case r.Mode != "charge" && r.Mode != "invoice":
		return Rule{}, refuse(CodeInvalid, "mode", "mode is charge or invoice")
	case r.Settlement != "on_payment" && r.Settlement != "immediate":
		return Rule{}, refuse(CodeInvalid, "settlement", "settlement is on_payment or immediate")
	case !slices.Contains(grantKinds, r.GrantKind):
		return Rule{}, refuse(CodeInvalid, "grant.kind", "grant.kind is purchased, promotional, plan or adjustment")
	case r.GrantPriority < 0 || r.GrantPriority > 100:
		return Rule{}, refuse(CodeInvalid, "grant.priority", "grant.priority is 0 to 100")
	case in.GrantExpiresInDays != nil && (*in.GrantExpiresInDays < 1 || *in.GrantExpiresInDays > 36500):
		return Rule{}, refuse(CodeInvalid, "grant.expires_in_days", "grant.expires_in_days is 1 to 36500, or null for never")
	case in.Threshold == nil && in.ThresholdPercent == nil:
		return Rule{}, refuse(CodeMissing, "threshold", "threshold or threshold_percent is missing")
	case in.Threshold != nil && in.ThresholdPercent != nil:
		return Rule{}, refuse(CodeInvalid, "threshold_percent", "give threshold or threshold_percent, not both")
	case in.ThresholdPercent != nil && (*in.ThresholdPercent < 1 || *in.ThresholdPercent > 99):
		return Rule{}, refuse(CodeInvalid, "threshold_percent", "threshold_percent is 1 to 99")
	case in.DeclineRetries < 0 || int(in.DeclineRetries) > len(retryAfter):
		return Rule{}, refuse(CodeInvalid, "decline_retries", "decline_retries is 0 to %d", len(retryAfter))
	case in.RunwayMinutes != nil && (*in.RunwayMinutes < 1 || *in.RunwayMinutes > maxRunway):
		return Rule{}, refuse(CodeInvalid, "runway_minutes", "runway_minutes is 1 to %d, or null for none", maxRunway)
	case in.Amount == nil && in.Target == nil:
		return Rule{}, refuse(CodeMissing, "amount", "amount or target is missing")
	case in.Amount != nil && in.Target != nil:
		return Rule{}, refuse(CodeInvalid, "target", "give amount or target, not both")
	}
	for _, f := range []struct {
		name string
		in   *Decimal
		out  **int64
	}{{"threshold", in.Threshold, &r.Threshold}, {"amount", in.Amount, &r.Amount}, {"target", in.Target, &r.Target}} {
		if f.in == nil {
			continue
		}
		n, err := stepsOf(*f.in, w.Scale, f.name, w.Asset)
		if err != nil {
			return Rule{}, err
		}
		if n < 0 || n == 0 && f.name != "threshold" {
			return Rule{}, refuse(CodeInvalid, f.name, "%s must be above zero", f.name)
		}
		*f.out = &n
	}
	if err := in.Invoice.check(r.Mode); err != nil {
		return Rule{}, err
	}
	return r, in.checkSize(&r, w, p)
}

func defaultTo(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// checkSize refuses a rule that could never act: a target that is no refill, a charge below Stripe's
// minimum, a cap below one top-up.
func (in RuleInput) checkSize(r *Rule, w *Wallet, p price) error {
	smallest := r.smallest()
	if smallest <= 0 {
		return refuse(CodeInvalid, "target", "target must be above threshold: the refill would end below where it starts")
	}
	charge, ok := p.charge(smallest, w.Scale)
	if !ok || charge > maxCharge {
		return refuse(CodeInvalid, "amount", "the charge for that is too large")
	}
	if in.MinimumCharge != nil && r.Amount != nil && charge < in.MinimumCharge(p.currency) {
		return refuse(CodeInvalid, "amount", "one top-up would charge %d, and Stripe charges no less than %d in %s's smallest unit", charge, in.MinimumCharge(p.currency), p.currency)
	}
	if in.MinimumCharge != nil && r.Target != nil && r.RunwayMinutes != nil {
		if early, _ := p.charge(smallest/4, w.Scale); early < in.MinimumCharge(p.currency) {
			return refuse(CodeInvalid, "target", "target must be further above threshold: with runway_minutes a refill may be a quarter of the way, which would charge %d, and Stripe charges no less than %d in %s's smallest unit",
				early, in.MinimumCharge(p.currency), p.currency)
		}
	}
	if in.Cap == nil {
		return nil
	}
	switch {
	case in.Cap.Currency != p.currency:
		return refuse(CodeCurrency, "spend_cap.currency", "spend_cap is in %s and %s is bought in %s", in.Cap.Currency, w.Asset, p.currency)
	case in.CapInterval != "day" && in.CapInterval != "week" && in.CapInterval != "month":
		return refuse(CodeInvalid, "spend_cap.interval", "spend_cap.interval is day, week or month")
	case in.Cap.Amount < charge:
		return refuse(CodeInvalid, "spend_cap.amount", "spend_cap is below one top-up, which charges %d: the rule could never act", charge)
	}
	r.CapAmount, r.CapCurrency, r.CapInterval = &in.Cap.Amount, &in.Cap.Currency, &in.CapInterval
	return nil
}

// RuleView is a rule with what can be said of it now.
type RuleView struct {
	Rule
	Scale    int16
	State    string // disabled, armed, topping_up, paused
	Spent    int64  // charged and in flight in the cap's period, minor units
	Currency string
	From, To time.Time // the period; of a month where there is no cap
}

// RuleOf answers a wallet's rule; found is false when it has none.
func (l *Ledger) RuleOf(ctx context.Context, w *Wallet) (v RuleView, found bool, err error) {
	found, err = l.getRow(ctx, &v.Rule, `select `+ruleColumns+` from topup_rules where bucket = $1 and wallet_id = $2`, w.Bucket, w.ID)
	if err != nil || !found {
		return RuleView{}, false, err
	}
	asset, err := l.Asset(ctx, w.Asset)
	if err != nil {
		return RuleView{}, false, err
	}
	if err := v.complete(ctx, l.db, w, asset, l.Now()); err != nil {
		return RuleView{}, false, err
	}
	return v, true, nil
}

// complete finds out what can be said of a rule now.
func (v *RuleView) complete(ctx context.Context, q querier, w *Wallet, asset Asset, now time.Time) error {
	v.Scale, v.Currency = w.Scale, asset.Currency
	v.From, v.To = period(deref(v.CapInterval), now)
	if err := q.GetContext(ctx, &v.Spent, spentSQL, w.Bucket, w.ID, v.From); err != nil {
		return err
	}
	var inFlight bool
	if err := q.GetContext(ctx, &inFlight, inFlightSQL, w.Bucket, w.ID); err != nil {
		return err
	}
	switch {
	case !v.Enabled:
		v.State = "disabled"
	case v.PauseReason != nil:
		v.State = "paused"
	case inFlight:
		v.State = "topping_up"
	default:
		v.State = "armed"
	}
	return nil
}

// PutRule sets a wallet's rule. A rule that finds the balance below its threshold acts at once. A pause
// outlives it, but for one that it clears: another card after a failed payment, more cap after the cap.
func (l *Ledger) PutRule(ctx context.Context, walletID string, in RuleInput) (Wallet, error) {
	w, err := l.Wallet(ctx, walletID)
	if err != nil {
		return Wallet{}, err
	}
	c, asset, err := l.assetFor(ctx, w.Customer, w.Asset)
	if err != nil {
		return Wallet{}, err
	}
	if c.Status == "deleted" {
		return Wallet{}, refuse(CodeState, "id", "customer %s was deleted in Stripe: nothing can be bought for it any more", c.ID)
	}
	rule, err := in.rule(&w, asset)
	if err != nil {
		return Wallet{}, err
	}
	err = l.inTx(ctx, func(t *tx) error {
		locked, err := t.lockWallet(w.Bucket, w.ID)
		if err != nil {
			return err
		}
		old, found, err := t.rule(locked)
		if err != nil {
			return err
		}
		if found {
			rule.keepPause(old)
		}
		if err := t.saveRule(rule); err != nil {
			return err
		}
		if deref(old.PauseReason) == PauseActionRequired && rule.PauseReason == nil {
			if err := t.cancelWaiting(locked); err != nil {
				return err
			}
		}
		if err := t.rearm(locked); err != nil {
			return err
		}
		w = *locked
		return nil
	})
	return w, err
}

// keepPause carries over a pause that the new rule does not clear.
func (r *Rule) keepPause(old Rule) {
	switch deref(old.PauseReason) {
	case PauseSpendCap:
		return // looked at again right away
	case PausePaymentFailed, PauseNoPaymentMethod, PauseActionRequired:
		if r.PaymentMethod != nil && deref(r.PaymentMethod) != deref(old.PauseMethod) {
			return
		}
		if deref(old.PauseReason) == PauseNoPaymentMethod && old.PaymentMethod != nil && r.PaymentMethod == nil {
			return // the card that it named is gone, and the default is another
		}
	}
	r.PauseReason, r.PauseSince, r.PauseUntil = old.PauseReason, old.PauseSince, old.PauseUntil
	r.PauseMethod, r.PauseTopup, r.Retried = old.PauseMethod, old.PauseTopup, old.Retried
}

func (t *tx) rule(w *Wallet) (r Rule, found bool, err error) {
	found, err = t.get(&r, `select `+ruleColumns+` from topup_rules where bucket = $1 and wallet_id = $2`, w.Bucket, w.ID)
	t.ruleFound(w, &r)
	return r, found, err
}

func (t *tx) saveRule(r Rule) error {
	t.ruleSaved(r)
	return t.exec(`insert into topup_rules (bucket, wallet_id, enabled, threshold, threshold_percent, amount, target,
			cap_amount, cap_currency, cap_interval, mode, settlement, payment_method, grant_kind, grant_priority, grant_expires_in_days,
			pause_reason, pause_since, pause_until, pause_method, pause_topup, updated_at, runway_minutes, decline_retries, retried, automatic_tax, days_until_due)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27)
		on conflict (bucket, wallet_id) do update set enabled = excluded.enabled, threshold = excluded.threshold,
			threshold_percent = excluded.threshold_percent, amount = excluded.amount,
			target = excluded.target, cap_amount = excluded.cap_amount, cap_currency = excluded.cap_currency,
			cap_interval = excluded.cap_interval, mode = excluded.mode, settlement = excluded.settlement,
			payment_method = excluded.payment_method, grant_kind = excluded.grant_kind, grant_priority = excluded.grant_priority,
			grant_expires_in_days = excluded.grant_expires_in_days, pause_reason = excluded.pause_reason,
			pause_since = excluded.pause_since, pause_until = excluded.pause_until, pause_method = excluded.pause_method,
			pause_topup = excluded.pause_topup, updated_at = excluded.updated_at, runway_minutes = excluded.runway_minutes,
			decline_retries = excluded.decline_retries, retried = excluded.retried,
			automatic_tax = excluded.automatic_tax, days_until_due = excluded.days_until_due`,
		r.Bucket, r.Wallet, r.Enabled, r.Threshold, r.ThresholdPercent, r.Amount, r.Target,
		r.CapAmount, r.CapCurrency, r.CapInterval, r.Mode, r.Settlement, r.PaymentMethod, r.GrantKind, r.GrantPriority, r.GrantExpiresInDays,
		r.PauseReason, r.PauseSince, r.PauseUntil, r.PauseMethod, r.PauseTopup, t.now, r.RunwayMinutes, r.DeclineRetries, r.Retried,
		r.AutomaticTax, r.DaysUntilDue)
}

// pause stops a rule with its reason. A pause by hand stays one.
func (t *tx) pause(w *Wallet, r *Rule, reason string, until *time.Time, method, topup string) error {
	if deref(r.PauseReason) == PauseManual {
		return nil
	}
	r.PauseReason, r.PauseSince, r.PauseUntil = &reason, &t.now, until
	r.PauseMethod, r.PauseTopup = ref(method), ref(topup)
	return t.saveRule(*r)
}

// unpause ends a pause because what it waited for has come.
func (t *tx) unpause(r *Rule) error {
	r.Retried = 0
	return t.lift(r)
}

// lift ends a pause because its time is up.
func (t *tx) lift(r *Rule) error {
	r.PauseReason, r.PauseSince, r.PauseUntil, r.PauseMethod, r.PauseTopup = nil, nil, nil, nil, nil
	return t.saveRule(*r)
}

// retryAfter is when a card that was declined for a passing reason, such as a lack of funds, is tried again: days
// apart, as Stripe's own dunning does, and fewer times than any network allows (Visa 20 in 30 days, Mastercard 10 in
// a day, at the time of writing). What no other day will change is never tried again.
var retryAfter = [...]time.Duration{24 * time.Hour, 3 * 24 * time.Hour, 5 * 24 * time.Hour, 7 * 24 * time.Hour}

// PauseRule pauses a wallet's rule by hand.
func (l *Ledger) PauseRule(ctx context.Context, walletID string) (Wallet, error) {
	return l.changeRule(ctx, walletID, func(t *tx, w *Wallet, r *Rule) error {
		r.PauseReason = nil
		return t.pause(w, r, PauseManual, nil, "", "")
	})
}

// ResumeRule ends a rule's pause by hand, whatever its reason. A payment that waits for the customer's
// authentication is canceled first, and the rule arms when Stripe has said so.
func (l *Ledger) ResumeRule(ctx context.Context, walletID string) (Wallet, error) {
	return l.changeRule(ctx, walletID, func(t *tx, w *Wallet, r *Rule) error {
		if err := t.unpause(r); err != nil {
			return err
		}
		return t.cancelWaiting(w)
	})
}

func (l *Ledger) changeRule(ctx context.Context, walletID string, change func(*tx, *Wallet, *Rule) error) (Wallet, error) {
	w, err := l.Wallet(ctx, walletID)
	if err != nil {
		return Wallet{}, err
	}
	err = l.inTx(ctx, func(t *tx) error {
		locked, err := t.lockWallet(w.Bucket, w.ID)
		if err != nil {
			return err
		}
		r, found, err := t.rule(locked)
		if err != nil {
			return err
		}
		if !found {
			return refuse(CodeNotFound, "wallet", "wallet %s has no auto top-up rule; set one with PUT /v1/wallets/%s/auto_topup", w.ID, w.ID)
		}
		if err := change(t, locked, &r); err != nil {
			return err
		}
		if err := t.rearm(locked); err != nil {
			return err
		}
		w = *locked
		return nil
	})
	return w, err
}

// CardChanged arms the rules of a customer again that wait for a card, when the customer's default payment
// method at Stripe has become another one. The card that failed clears nothing.
func (l *Ledger) CardChanged(ctx context.Context, customer Ref, method string) error {
	if method == "" {
		return nil
	}
	return l.cardHelps(ctx, customer, `r.payment_method is null and r.pause_method is distinct from $3`, method,
		func(r *Rule) bool { return deref(r.PauseMethod) != method })
}

// CardRenewed arms the rules of a customer again whose card failed and is another one now: the network has told
// Stripe of a new card in place of the saved one.
func (l *Ledger) CardRenewed(ctx context.Context, customer Ref, method string) error {
	return l.cardHelps(ctx, customer, `r.pause_method = $3`, method, func(r *Rule) bool { return deref(r.PauseMethod) == method })
}

// cardHelps arms those rules of a customer that wait for a card and fit a condition.
func (l *Ledger) cardHelps(ctx context.Context, customer Ref, condition, method string, still func(*Rule) bool) error {
	return l.inTx(ctx, func(t *tx) error {
		var ids []string
		if err := t.SelectContext(ctx, &ids, `select w.id from wallets w join topup_rules r on r.bucket = w.bucket and r.wallet_id = w.id
			where w.bucket = $1 and w.customer_id = $2 and r.pause_reason in ('payment_failed', 'action_required', 'no_payment_method')
			and `+condition+` order by w.id`, customer.Bucket, customer.ID, method); err != nil {
			return err
		}
		for _, id := range ids {
			w, err := t.lockWallet(customer.Bucket, id)
			if err != nil {
				return err
			}
			r, _, err := t.rule(w)
			if err != nil {
				return err
			}
			switch deref(r.PauseReason) {
			case PausePaymentFailed, PauseActionRequired, PauseNoPaymentMethod:
			default:
				continue
			}
			if !still(&r) {
				continue
			}
			if err := t.unpause(&r); err != nil {
				return err
			}
			if err := t.cancelWaiting(w); err != nil {
				return err
			}
			if err := t.rearm(w); err != nil {
				return err
			}
		}
		return nil
	})
}

// WaitsForCard reports whether a rule of the customer is paused until there is another card.
func (l *Ledger) WaitsForCard(ctx context.Context, customer Ref) (bool, error) {
	var waits bool
	err := l.db.GetContext(ctx, &waits, `select exists (select from wallets w join topup_rules r on r.bucket = w.bucket and r.wallet_id = w.id
		where w.bucket = $1 and w.customer_id = $2 and r.payment_method is null
		and r.pause_reason in ('payment_failed', 'action_required', 'no_payment_method'))`, customer.Bucket, customer.ID)
	return waits, err
}
