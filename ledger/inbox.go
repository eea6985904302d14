package ledger

import (
	"context"
	"time"
)

// StripeEvent is an event from Stripe, kept as it came.
type StripeEvent struct {
	ID         string    `db:"id"`
	Type       string    `db:"type"`
	APIVersion string    `db:"api_version"`
	Livemode   bool      `db:"livemode"`
	Payload    string    `db:"payload"`
	Origin     string    `db:"origin"`
	Status     string    `db:"status"`
	Tries      int       `db:"tries"`
	LastError  string    `db:"last_error"`
	CreatedAt  time.Time `db:"created_at"`
	ReceivedAt time.Time `db:"received_at"`
}

const eventColumns = `id, type, api_version, livemode, payload, origin, status, tries, last_error, created_at, received_at`

// StoreEvent keeps an event; fresh is false when it was there. Status is pending for one that is to be
// worked off, ignored for one that is only kept.
func (l *Ledger) StoreEvent(ctx context.Context, e StripeEvent) (fresh bool, err error) {
	now := l.Now()
	res, err := l.db.ExecContext(ctx, `insert into stripe_events (id, type, api_version, livemode, payload, origin, status, run_at, created_at, received_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $8) on conflict do nothing`,
		e.ID, e.Type, e.APIVersion, e.Livemode, e.Payload, e.Origin, e.Status, now, e.CreatedAt)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// eventLease is how long a worker has an event for itself.
const eventLease = 20 * time.Second

// LeaseEvents gives the caller events that are due, oldest first.
func (l *Ledger) LeaseEvents(ctx context.Context, limit int) ([]StripeEvent, error) {
	var events []StripeEvent
	now := l.Now()
	err := l.db.SelectContext(ctx, &events, `
		update stripe_events set run_at = $2, tries = tries + 1 where id in (
			select id from stripe_events where status = 'pending' and run_at <= $1 order by run_at limit $3 for update skip locked)
		returning `+eventColumns, now, now.Add(eventLease), limit)
	return events, err
}

// eventTries is how often an event is tried before it is left for a person to replay: over a day, with the
// waits below.
const eventTries = 20

// EndEvent notes how an event ended: done, ignored (it says nothing to us), or, with cause, not yet. One
// that fails too often is put aside as failed, where replay finds it.
func (l *Ledger) EndEvent(ctx context.Context, e StripeEvent, status string, cause error) error {
	now := l.Now()
	if cause == nil {
		_, err := l.db.ExecContext(ctx, `update stripe_events set status = $2, done_at = $3, last_error = '' where id = $1`, e.ID, status, now)
		return err
	}
	status = "pending"
	if e.Tries >= eventTries {
		status = "failed"
	}
	wait := min(time.Hour*2, time.Second<<min(e.Tries, 13))
	_, err := l.db.ExecContext(ctx, `update stripe_events set status = $2, run_at = $3, last_error = $4 where id = $1`,
		e.ID, status, now.Add(wait), truncate(cause.Error(), 500))
	return err
}

func truncate(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// Replay puts events back to be worked off: those of the ids given, or, with none, all that failed. It
// returns how many.
func (l *Ledger) Replay(ctx context.Context, ids []string) (int64, error) {
	query := `update stripe_events set status = 'pending', tries = 0, run_at = $1 where status = 'failed' and $2::text[] is not null`
	if len(ids) > 0 {
		query = `update stripe_events set status = 'pending', tries = 0, run_at = $1 where id = any($2::text[])`
	}
	res, err := l.db.ExecContext(ctx, query, l.Now(), textArray(ids))
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Progress is how far something has got; zero when it never began.
func (l *Ledger) Progress(ctx context.Context, name string) (time.Time, error) {
	var at time.Time
	_, err := l.getRow(ctx, &at, `select at from progress where name = $1`, name)
	return at.UTC(), err
}

// SetProgress notes how far something has got.
func (l *Ledger) SetProgress(ctx context.Context, name string, at time.Time) error {
	_, err := l.db.ExecContext(ctx, `insert into progress (name, at) values ($1, $2)
		on conflict (name) do update set at = greatest(progress.at, excluded.at)`, name, at)
	return err
}
