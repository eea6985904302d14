package ledger

import (
	"encoding/json"
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
// Options.Render, so it is what it has become, and may change after. Nothing is written before flushEvents.
func (t *tx) emit(eventType string, w *Wallet, subject any) {
	t.emitFor(eventType, w.ref(), &w.ID, subject)
}

// emitFor is emit for what is about a customer and, with a nil wallet, about none of the wallets.
func (t *tx) emitFor(eventType string, ref Ref, wallet *string, subject any) {
	data, err := t.l.render(subject)
	if err != nil && t.emitErr == nil {
		t.emitErr = err
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

// flushEvents writes what was emitted, with one statement. It comes last before the commit; where nothing
// happened it costs nothing.
func (t *tx) flushEvents() error {
	if len(t.events) == 0 || t.emitErr != nil {
		return t.emitErr
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

// EventsDue is told, without a count, when an event was committed: it need not wait for the next look.
func (l *Ledger) EventsDue() <-chan struct{} { return l.eventsDue }

// renderBare stands in for Options.Render.
func renderBare(subject any) ([]byte, error) { return json.Marshal(subject) }
