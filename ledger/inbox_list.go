package ledger

import (
	"context"
	"slices"
	"strconv"
	"time"
)

// InboxStatuses are all the words for how an event from Stripe stands.
var InboxStatuses = []string{"pending", "done", "ignored", "failed"}

// InboxEvent is an event from Stripe with what became of it. In a list it is without its payload.
type InboxEvent struct {
	StripeEvent
	RunAt  time.Time  `db:"run_at"` // when it is worked off next, where it is pending
	DoneAt *time.Time `db:"done_at"`
}

// InboxFilter says which events are listed; what is empty chooses nothing.
type InboxFilter struct{ Status, Type string }

// Inbox lists events from Stripe as they came, the last first.
func (l *Ledger) Inbox(ctx context.Context, f InboxFilter, after string, limit int) ([]InboxEvent, error) {
	if f.Status != "" && !slices.Contains(InboxStatuses, f.Status) {
		return nil, refuse(CodeInvalid, "status", "there is no status %.60q", f.Status)
	}
	where, args := `true`, []any{}
	also := func(condition string, v any) {
		args = append(args, v)
		where += ` and ` + condition + `$` + strconv.Itoa(len(args))
	}
	if f.Status != "" {
		also(`status = `, f.Status)
	}
	if f.Type != "" {
		also(`type = `, f.Type)
	}
	if after != "" {
		var at time.Time
		found, err := l.getRow(ctx, &at, `select received_at from stripe_events where id = $1`, after)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, noneAfter(after)
		}
		args = append(args, at, after)
		where += ` and (received_at, id) < ($` + strconv.Itoa(len(args)-1) + `, $` + strconv.Itoa(len(args)) + `)`
	}
	var events []InboxEvent
	err := l.db.SelectContext(ctx, &events, `select id, type, api_version, livemode, '' as payload, origin, status, tries, last_error, created_at, received_at,
			run_at, done_at
		from stripe_events where `+where+` order by received_at desc, id desc limit `+strconv.Itoa(limit), args...)
	return events, err
}

// InboxTypes are the types of events that ever came, by their names.
func (l *Ledger) InboxTypes(ctx context.Context) ([]string, error) {
	// Each step finds the next name by the index: there are some dozens of them, among any number of events.
	var types []string
	err := l.db.SelectContext(ctx, &types, `with recursive names(type) as (
			(select type from stripe_events order by type limit 1)
			union all
			select (select type from stripe_events where type > names.type order by type limit 1) from names where names.type is not null)
		select type from names where type is not null limit 500`)
	return types, err
}

// InboxEvent answers an event from Stripe with its payload.
func (l *Ledger) InboxEvent(ctx context.Context, id string) (e InboxEvent, err error) {
	found, err := l.getRow(ctx, &e, `select `+eventColumns+`, run_at, done_at from stripe_events where id = $1`, id)
	if err == nil && !found {
		err = refuse(CodeNotFound, "event", "No such event from Stripe: '%s'", id)
	}
	return e, err
}

// StripeTraces are what in the books came of objects of Stripe's.
type StripeTraces struct {
	Topups    []Topup
	Grants    []Grant     // that sales of theirs gave
	Back      []TakenBack // refunds and disputes of them, or that they are
	Movements []string    // balance transactions that the ledger knows
}

// TracesOf finds what came of a customer's objects at Stripe: payments, invoices, pages, refunds, disputes and balance
// transactions by their ids, and top-ups by ours. Each is found by an index; twenty of a kind are enough.
func (l *Ledger) TracesOf(ctx context.Context, ref Ref, ids []string) (s StripeTraces, err error) {
	all := textArray(ids)
	if err := l.db.SelectContext(ctx, &s.Topups, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.customer_id = $2 and (t.id = any($3::text[])
			or t.payment_intent = any($3::text[]) or t.invoice = any($3::text[]) or t.checkout_session = any($3::text[])) order by t.id desc limit 20`,
		ref.Bucket, ref.ID, all); err != nil {
		return s, err
	}
	// The limit has each object's grants looked up by itself.
	if err := l.db.SelectContext(ctx, &s.Grants, `with of as materialized (
			select o.id from unnest($3::text[]) u(id) cross join lateral (select id from grants where bucket = $1 and source_id >= u.id and source_id < u.id || '0'
				and (source_id = u.id or starts_with(source_id, u.id || '/')) order by source_id limit 20) o where u.id not like 'top\_%')
		select `+grantColumns+grantsFrom+`join of on of.id = g.id where g.bucket = $1 and w.customer_id = $2 order by g.id desc limit 20`, ref.Bucket, ref.ID, all); err != nil {
		return s, err
	}
	if err := l.db.SelectContext(ctx, &s.Back, `select c.id, c.kind, c.amount, c.currency, c.status, c.stands, c.created_at,
			coalesce(g.steps, 0) as steps, coalesce(g.entry_id, '') as entry_id, coalesce(g.returned, false) as returned
		from clawbacks c left join clawback_grants g on g.bucket = c.bucket and g.id = c.id
		where c.bucket = $1 and c.customer_id = $2 and (c.id = any($3::text[]) or c.payment_intent = any($3::text[])) order by c.created_at, c.id limit 20`,
		ref.Bucket, ref.ID, all); err != nil {
		return s, err
	}
	err = l.db.SelectContext(ctx, &s.Movements, `select id from balance_transactions where bucket = $1 and customer_id = $2 and id = any($3::text[]) limit 20`,
		ref.Bucket, ref.ID, all)
	return s, err
}
