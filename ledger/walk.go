package ledger

import (
	"context"
	"time"
)

// Walk is how far a look at all customers has got. Its texts are the walker's own.
type Walk struct {
	Name     string     `db:"name"`
	State    string     `db:"state"` // "" where there is nothing to go on with
	Suspects string     `db:"suspects"`
	Findings string     `db:"findings"`
	LeaseBy  string     `db:"lease_by"`
	DoneFor  *time.Time `db:"done_for"`
	Updated  time.Time  `db:"updated_at"`
}

const walkColumns = `name, state, suspects, findings, lease_by, done_for, updated_at`

// WalkLease is how long a walk is its walker's without a word. A walker says a word far more often than that.
const WalkLease = 20 * time.Second

// LeaseWalk gives a walk to whoever asks, unless another has it: found is false then. by names the walker.
func (l *Ledger) LeaseWalk(ctx context.Context, name, by string) (w Walk, found bool, err error) {
	now := l.Now()
	found, err = l.getRow(ctx, &w, `insert into walks (name, lease_by, lease_until, updated_at) values ($1, $2, $3, $4)
		on conflict (name) do update set lease_by = excluded.lease_by, lease_until = excluded.lease_until
			where walks.lease_until is null or walks.lease_until <= $4 or walks.lease_by = $2
		returning `+walkColumns, name, by, now.Add(WalkLease), now)
	return w, found, err
}

// WalkAt reads how far a walk has got, and whether somebody is at it; found is false where there never was one.
func (l *Ledger) WalkAt(ctx context.Context, name string) (w Walk, walking, found bool, err error) {
	var row struct {
		Walk
		Until *time.Time `db:"lease_until"`
	}
	found, err = l.getRow(ctx, &row, `select `+walkColumns+`, lease_until from walks where name = $1`, name)
	return row.Walk, row.Until != nil && row.Until.After(l.Now()), found, err
}

// RenewWalk keeps a walk for another lease; kept is false when it is another's meanwhile.
func (l *Ledger) RenewWalk(ctx context.Context, name, by string) (kept bool, err error) {
	_, err = l.getRow(ctx, &kept, `update walks set lease_until = $3 where name = $1 and lease_by = $2 returning true`, name, by, l.Now().Add(WalkLease))
	return kept, err
}

// SaveWalk writes down how far a walk has got and keeps it for another lease; nil leaves suspects or findings as they
// are. kept is false when it is another's meanwhile: then nothing was written, and its walker has to stop.
func (l *Ledger) SaveWalk(ctx context.Context, name, by, state string, suspects, findings *string) (kept bool, err error) {
	now := l.Now()
	res, err := l.db.ExecContext(ctx, `update walks set state = $3, suspects = coalesce($4, suspects), findings = coalesce($5, findings),
		lease_until = $6, updated_at = $7 where name = $1 and lease_by = $2`, name, by, state, suspects, findings, now.Add(WalkLease), now)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// LeaveWalk gives a walk back as it is, to be gone on with.
func (l *Ledger) LeaveWalk(ctx context.Context, name, by string) error {
	_, err := l.db.ExecContext(ctx, `update walks set lease_by = '', lease_until = null where name = $1 and lease_by = $2`, name, by)
	return err
}

// EndWalk notes that a walk came to its end: the next one begins anew. doneFor is what it was for, nil for nothing. kept
// is false when the walk is another's meanwhile.
func (l *Ledger) EndWalk(ctx context.Context, name, by string, doneFor *time.Time) (kept bool, err error) {
	_, err = l.getRow(ctx, &kept, `update walks set state = '', suspects = '[]', findings = '[]', lease_by = '', lease_until = null,
		done_for = coalesce($3, done_for), updated_at = $4 where name = $1 and lease_by = $2 returning true`, name, by, doneFor, l.Now())
	return kept, err
}

// WalkDue reports whether a walk has yet to be made for a time that has come. The first time that anybody asks there is
// nothing to catch up with.
func (l *Ledger) WalkDue(ctx context.Context, name string, at time.Time) (bool, error) {
	now := l.Now()
	var due bool
	_, err := l.getRow(ctx, &due, `insert into walks (name, done_for, updated_at) values ($1, $2, $3)
		on conflict (name) do update set done_for = coalesce(walks.done_for, excluded.done_for)
		returning done_for < $2 and (lease_until is null or lease_until <= $3)`, name, at, now)
	return due, err
}

// WalkSize is about how much a walk will find in the books, for an estimate of what it will ask Stripe.
type WalkSize struct {
	Customers int64 `db:"customers"` // with a balance in Stripe
	Payments  int64 `db:"payments"`  // since the time asked for
	Backs     int64 `db:"backs"`     // refunds and disputes since then
}

// WalkSize counts what is to be walked since a time.
func (l *Ledger) WalkSize(ctx context.Context, since time.Time) (s WalkSize, err error) {
	err = l.db.GetContext(ctx, &s, `select (select count(*) from mirrors) as customers,
		(select count(*) from topups where created_at >= $1) + (select count(*) from sales where paid_at >= $1) as payments,
		(select count(*) from clawbacks where created_at >= $1) as backs`, since)
	return s, err
}
