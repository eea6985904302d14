package ledger

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
)

// The types of events.
const (
	EventBalanceAlert        = "wallet.balance_alert"
	EventDepleted            = "wallet.depleted"
	EventGrantConfirmed      = "grant.confirmed"
	EventGrantExpiring       = "grant.expiring"
	EventGrantExpired        = "grant.expired"
	EventTopupSucceeded      = "topup.succeeded"
	EventTopupFailed         = "topup.failed"
	EventTopupActionRequired = "topup.action_required"
	EventRulePaused          = "auto_topup.paused"
	EventRuleResumed         = "auto_topup.resumed"
	EventDrift               = "lockstep.drift"
	EventDisputeOpened       = "dispute.opened"
	EventDisputeClosed       = "dispute.closed"
)

// EventTypes are all of them: what an endpoint may ask for.
var EventTypes = []string{EventBalanceAlert, EventDepleted, EventGrantConfirmed, EventGrantExpiring, EventGrantExpired,
	EventTopupSucceeded, EventTopupFailed, EventTopupActionRequired, EventRulePaused, EventRuleResumed, EventDrift,
	EventDisputeOpened, EventDisputeClosed}

// Event is something that happened. Data is the object that it is about as it was then, as JSON.
type Event struct {
	Bucket    int16     `db:"bucket"`
	ID        string    `db:"id"`
	Type      string    `db:"type"`
	Customer  string    `db:"customer_id"`
	Wallet    *string   `db:"wallet_id"` // nil: it is about no one wallet
	Data      string    `db:"data"`
	CreatedAt time.Time `db:"created_at"`
}

// emit tells of something that happens to a wallet by this transaction. subject is rendered here and now, by
// Options.Render, so it is what it has become, and may change after. Nothing is written before flushEvents. What
// can't be rendered is told of without its data: no debit is to be refused for an event's sake.
func (t *tx) emit(eventType string, w *Wallet, subject any) {
	t.emitFor(eventType, w.ref(), &w.ID, subject)
}

// emitFor is emit for what is about a customer and, with a nil wallet, about none of the wallets.
func (t *tx) emitFor(eventType string, ref Ref, wallet *string, subject any) {
	data, err := t.l.render(subject)
	if err != nil {
		t.l.log.Error("event without its data", "type", eventType, "customer", ref.ID, "error", err)
		data = []byte("null")
	}
	t.events = append(t.events, Event{Bucket: ref.Bucket, ID: t.l.ids.newID("evt_", ref.Bucket, t.now), Type: eventType,
		Customer: ref.ID, Wallet: wallet, Data: string(data), CreatedAt: t.now})
}

// emitGrant is emit for a grant, whose row may have been written from less than the API shows.
func (t *tx) emitGrant(eventType string, w *Wallet, g Grant) {
	g.Scale = w.Scale
	if g.Metadata == "" {
		g.Metadata = "{}"
	}
	if g.CreatedAt.IsZero() {
		g.CreatedAt = t.now
	}
	t.emit(eventType, w, &g)
}

// emitTopup is emit for a top-up that has just been settled: as its row says now.
func (t *tx) emitTopup(eventType string, w *Wallet, top *Topup) error {
	if _, err := t.get(top, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.id = $2`, top.Bucket, top.ID); err != nil {
		return err
	}
	t.emit(eventType, w, top)
	return nil
}

// ruleChange is a rule as a transaction found it and as it leaves it: what pauses it may end and begin again in
// one transaction, and only what that comes to is told.
type ruleChange struct {
	w      *Wallet
	before string // why it was paused; "" when it was not
	after  *Rule  // nil: as it was
}

// ruleFound remembers how the transaction found a wallet's rule when it first looked.
func (t *tx) ruleFound(w *Wallet, r *Rule) {
	if !slices.ContainsFunc(t.rules, func(c ruleChange) bool { return c.w.ID == w.ID }) {
		t.rules = append(t.rules, ruleChange{w: w, before: deref(r.PauseReason)})
	}
}

// ruleSaved remembers how the transaction leaves a rule that it has found.
func (t *tx) ruleSaved(r Rule) {
	for i := range t.rules {
		if t.rules[i].w.ID == r.Wallet {
			r.UpdatedAt = t.now
			t.rules[i].after = &r
		}
	}
}

// emitPauses tells of the rules that the transaction paused, for a reason that they were not paused for before,
// and of those whose pause it ended.
func (t *tx) emitPauses() error {
	for _, c := range t.rules {
		if c.after == nil || deref(c.after.PauseReason) == c.before {
			continue
		}
		asset, err := t.asset(c.w.Asset)
		if err != nil {
			return err
		}
		v := RuleView{Rule: *c.after}
		if err := v.complete(t.ctx, t, c.w, asset, t.now); err != nil {
			return err
		}
		eventType := EventRulePaused
		if v.PauseReason == nil {
			eventType = EventRuleResumed
		}
		t.emit(eventType, c.w, &v)
	}
	return nil
}

// flushEvents writes what was emitted, with one statement. It comes last before the commit; where nothing
// happened it costs nothing.
func (t *tx) flushEvents() error {
	if err := t.emitPauses(); err != nil {
		return err
	}
	if len(t.events) == 0 {
		return nil
	}
	n := len(t.events)
	buckets, at := make(pq.Int64Array, n), make(pq.Int64Array, n)
	var texts [5]textArray
	for i := range texts {
		texts[i] = make(textArray, n)
	}
	for i, e := range t.events {
		buckets[i], at[i] = int64(e.Bucket), e.CreatedAt.UnixMicro()
		for c, v := range [...]string{e.ID, e.Type, e.Customer, deref(e.Wallet), e.Data} {
			texts[c][i] = v
		}
	}
	return t.exec(`insert into events (bucket, id, type, customer_id, wallet_id, data, created_at)
		select bucket, id, type, customer_id, nullif(wallet_id, ''), data, timestamptz 'epoch' + at * interval '1 microsecond'
		from unnest($1::smallint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[])
			as u(bucket, id, type, customer_id, wallet_id, data, at)`,
		buckets, texts[0], texts[1], texts[2], texts[3], texts[4], at)
}

const eventFields = `bucket, id, type, customer_id, wallet_id, data, created_at`

// EventByID finds an event.
func (l *Ledger) EventByID(ctx context.Context, id string) (e Event, err error) {
	found := false
	if bucket, ok := bucketOfID("evt_", id); ok {
		found, err = l.getRow(ctx, &e, `select `+eventFields+` from events where bucket = $1 and id = $2`, bucket, id)
	}
	if err == nil && !found {
		err = refuse(CodeNotFound, "event", "No such event: '%s'", id)
	}
	return e, err
}

// Events lists events, newest first: a customer's, or with the zero Ref everybody's, of one type or with "" of all.
func (l *Ledger) Events(ctx context.Context, customer Ref, eventType, after string, limit int) ([]Event, error) {
	if _, ok := bucketOfID("evt_", after); after != "" && !ok {
		return nil, noneAfter(after)
	}
	if eventType != "" && !slices.Contains(EventTypes, eventType) {
		return nil, refuse(CodeInvalid, "type", "there is no event %.60q; there are %s", eventType, strings.Join(EventTypes, ", "))
	}
	where, args := ``, []any{after, limit}
	if customer.ID != "" {
		where, args = `bucket = $3 and customer_id = $4 and `, append(args, customer.Bucket, customer.ID)
	}
	if eventType != "" {
		args = append(args, eventType)
		where += `type = $` + strconv.Itoa(len(args)) + ` and `
	}
	var events []Event
	err := l.db.SelectContext(ctx, &events, `select `+eventFields+` from events
		where `+where+`($1 = '' or id < $1) order by id desc limit $2`, args...)
	return events, err
}

// How long events and the delivery log are kept: an event that is still on its way a while longer.
const (
	eventsKept        = 30 * 24 * time.Hour
	eventsKeptPending = 40 * 24 * time.Hour
	pruneBatch        = 500
)

// PruneEvents deletes a bounded number of old events, with their deliveries, and of old lines of the delivery log.
// It answers whether there may be more.
func (l *Ledger) PruneEvents(ctx context.Context) (more bool, err error) {
	now := l.Now()
	var events, attempts int
	// Only the oldest are looked at, so that looking costs the same whether or not there is something to delete.
	if err := l.db.GetContext(ctx, &events, `
		with o as (
			select bucket, id, created_at from events order by id limit $1
		), e as (
			delete from events using o where events.bucket = o.bucket and events.id = o.id and o.created_at < $2
				and (o.created_at < $3 or not exists (select from deliveries d
					where d.bucket = o.bucket and d.event_id = o.id and d.status = 'pending'))
			returning o.bucket, o.id
		), d as (
			delete from deliveries using e where deliveries.bucket = e.bucket and deliveries.event_id = e.id
		)
		select count(*) from e`, pruneBatch, now.Add(-eventsKept), now.Add(-eventsKeptPending)); err != nil {
		return false, err
	}
	err = l.db.GetContext(ctx, &attempts, `
		with o as (
			select bucket, id, created_at from delivery_attempts order by id limit $1
		), a as (
			delete from delivery_attempts a using o where a.bucket = o.bucket and a.id = o.id and o.created_at < $2 returning 1
		)
		select count(*) from a`, pruneBatch, now.Add(-eventsKept))
	return events == pruneBatch || attempts == pruneBatch, err
}

// EventsDue is told, without a count, when an event was committed: it need not wait for the next look.
func (l *Ledger) EventsDue() <-chan struct{} { return l.eventsDue }

// renderBare stands in for Options.Render.
func renderBare(subject any) ([]byte, error) { return json.Marshal(subject) }
