package ledger

import (
	"context"
	"time"
)

// What the operators' overview counts. Pulse reads little, by indexes; Outstanding and TopupsSince read many rows, so
// whoever asks keeps the answer for a while.

// Counted is how many there are of something.
type Counted struct {
	What string `db:"what"`
	N    int64  `db:"n"`
}

// Pulse is what may need somebody's attention now.
type Pulse struct {
	At            time.Time
	Drifted       int64      // customers out of step with Stripe
	Paused        []Counted  // rules, by reason
	InFlight      int64      // top-ups
	EventsWaiting int64      // of Stripe, to be worked off
	EventsOldest  *time.Time // when the one that has waited longest came
	EventsFailed  int64      // that were given up
}

// Pulse counts at most so many of each.
func (l *Ledger) Pulse(ctx context.Context) (p Pulse, err error) {
	p.At = l.Now()
	var n struct {
		Drifted  int64      `db:"drifted"`
		InFlight int64      `db:"in_flight"`
		Waiting  int64      `db:"waiting"`
		Oldest   *time.Time `db:"oldest"`
		Failed   int64      `db:"failed"`
	}
	if err := l.db.GetContext(ctx, &n, `select (select count(*) from (select from customers where drift_told <> '' limit 10000) c) as drifted,
		(select count(*) from (select from topups where status in ('pending', 'processing', 'action_required') limit 10000) t) as in_flight,
		(select count(*) from (select from stripe_events where status = 'pending' limit 10000) e) as waiting,
		(select min(received_at) from (select received_at from stripe_events where status = 'pending' order by run_at limit 10000) e) as oldest,
		(select count(*) from (select from stripe_events where status = 'failed' limit 10000) e) as failed`); err != nil {
		return p, err
	}
	p.Drifted, p.InFlight, p.EventsWaiting, p.EventsOldest, p.EventsFailed = n.Drifted, n.InFlight, n.Waiting, n.Oldest, n.Failed
	err = l.db.SelectContext(ctx, &p.Paused, `select pause_reason as what, count(*) as n from topup_rules
		where pause_reason is not null and enabled group by 1 order by 2 desc, 1`)
	return p, err
}

// Outstanding is the credit of one asset that customers have.
type Outstanding struct {
	Asset   string `db:"asset"`
	Scale   int16  `db:"scale"`
	Wallets int64  `db:"wallets"`
	Total   string `db:"total"` // sums of steps, as decimals without a fraction: they may not fit 64 bits
	Held    string `db:"held"`
	Debt    string `db:"debt"`
	Pending string `db:"pending"`
}

// Outstanding adds up all wallets.
func (l *Ledger) Outstanding(ctx context.Context) (all []Outstanding, err error) {
	err = l.slowly(ctx, func() error {
		all = nil
		return l.db.SelectContext(ctx, &all, `select asset, scale, count(*) as wallets, sum(total + debt)::text as total, sum(held)::text as held, sum(debt)::text as debt,
			sum(pending)::text as pending from wallets group by 1, 2 order by 1, 2`)
	})
	return all, err
}

// TopupCount is how many top-ups have come to something, and what they charged.
type TopupCount struct {
	Status   string `db:"status"`
	Currency string `db:"currency"`
	N        int64  `db:"n"`
	Charge   string `db:"charge"` // minor units
}

// TopupsSince counts the top-ups begun since a moment.
func (l *Ledger) TopupsSince(ctx context.Context, since time.Time) (all []TopupCount, err error) {
	err = l.slowly(ctx, func() error {
		all = nil
		return l.db.SelectContext(ctx, &all, `select status, currency, count(*) as n, sum(charge)::text as charge from topups
			where id >= $1 and created_at >= $2 group by 1, 2 order by 2, 1`, firstID("top_", since), since)
	})
	return all, err
}

// firstID is where the ids with that prefix that were made since a moment begin.
func firstID(prefix string, since time.Time) string {
	var out [10]byte
	base32(out[:], uint64(since.Add(-time.Second).UnixMilli())<<2)
	return prefix + string(out[:])
}

// MonthOf is the month, in UTC, that a moment is in.
func MonthOf(at time.Time) (from, to time.Time) { return period("month", at) }
