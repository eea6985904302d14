package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/lib/pq"
)

// Act is something that an operator did in the console: the audit trail's row.
type Act struct {
	ID       string     `db:"id"` // act_…
	At       time.Time  `db:"at"`
	Operator string     `db:"operator"`
	KeyID    string     `db:"key_id"`
	KeyName  string     `db:"key_name"`
	Action   string     `db:"action"`
	Customer string     `db:"customer_id"`
	Object   string     `db:"object"` // what it was done to
	Reason   string     `db:"reason"`
	Request  int64      `db:"request"` // fingerprint of what was asked for
	Shown    string     `db:"shown"`   // JSON: what the operator had been shown that it would do
	Outcome  string     `db:"outcome"` // done, refused; "" while nobody knows
	Said     string     `db:"said"`    // what it came to
	Result   string     `db:"result"`  // the id of what it made
	EndedAt  *time.Time `db:"ended_at"`
}

const actColumns = `id, at, operator, key_id, key_name, action, customer_id, object, reason, request, shown, outcome, said, result, ended_at`

// NewActID names an act before it is done, so that its form can be sent twice.
func (l *Ledger) NewActID() string { return l.ids.newID("act_", 0, l.Now()) }

// Key is the idempotency key under which the act is done.
func (a *Act) Key() string { return "console:" + a.ID }

// Preview is what an operator was shown that an act would do.
type Preview struct {
	ID      string    `db:"id"` // the act's
	Request int64     `db:"request"`
	Shown   string    `db:"shown"`
	At      time.Time `db:"at"`
}

// previewLife is how long an act can be begun after what it would do was shown.
const previewLife = 24 * time.Hour

// SavePreview keeps what is shown before an act, in place of what was shown for it before.
func (l *Ledger) SavePreview(ctx context.Context, p Preview) error {
	if !isAct(p.ID) {
		return foreignForm()
	}
	now := l.Now()
	if _, err := l.db.ExecContext(ctx, `delete from act_previews where at < $1`, now.Add(-previewLife)); err != nil {
		return err
	}
	_, err := l.db.ExecContext(ctx, `insert into act_previews (id, request, shown, at) values ($1, $2, $3, $4)
		on conflict (id) do update set request = excluded.request, shown = excluded.shown, at = excluded.at`, p.ID, p.Request, p.Shown, now)
	return err
}

// Previewed finds what was shown before an act.
func (l *Ledger) Previewed(ctx context.Context, id string) (p Preview, found bool, err error) {
	found, err = l.getRow(ctx, &p, `select id, request, shown, at from act_previews where id = $1 and at >= $2`, id, l.Now().Add(-previewLife))
	return p, found, err
}

func isAct(id string) bool {
	_, ok := bucketOfID("act_", id)
	return ok
}

func foreignForm() error {
	return refuse(CodeInvalid, "act", "this form is not one of this page: open the page again")
}

// BeginAct writes an act down before it is done. first is false where it was begun before: begun is that one as it was.
// The same id for another act, or for another request, is refused.
func (l *Ledger) BeginAct(ctx context.Context, a Act) (begun Act, first bool, err error) {
	if !isAct(a.ID) {
		return Act{}, false, foreignForm()
	}
	first, err = l.getRow(ctx, &begun, `insert into acts (id, at, operator, key_id, key_name, action, customer_id, object, reason, request, shown)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict do nothing returning `+actColumns,
		a.ID, l.Now(), a.Operator, a.KeyID, a.KeyName, a.Action, a.Customer, a.Object, a.Reason, a.Request, a.Shown)
	if err != nil || first {
		return begun, first, err
	}
	begun, found, err := l.Act(ctx, a.ID)
	if err == nil && !found {
		err = fmt.Errorf("act %s was neither written nor there", a.ID)
	}
	if err == nil && begun.Request != a.Request {
		err = refuse(CodeState, "act", "this form was sent before, and asked for something else: what it did then is in the audit trail")
	}
	return begun, false, err
}

// EndAct writes down what an act came to. The first word stays: ended is what is written.
func (l *Ledger) EndAct(ctx context.Context, id, outcome, said, result string) (ended Act, err error) {
	found, err := l.getRow(ctx, &ended, `update acts set outcome = $2, said = $3, result = $4, ended_at = $5
		where id = $1 and outcome = '' returning `+actColumns, id, outcome, said, result, l.Now())
	if err != nil || found {
		return ended, err
	}
	ended, _, err = l.Act(ctx, id)
	return ended, err
}

// MadeBy finds what an act made, or was done to, under its key. used is false where nothing used the key: that is certain
// when nobody is at work under it any more.
func (l *Ledger) MadeBy(ctx context.Context, a *Act) (made string, used bool, err error) {
	buckets := pq.Int64Array{int64(BucketOfKey(a.Key()))} // of what is no customer's
	if a.Customer != "" {
		ref, err := l.Resolve(ctx, a.Customer)
		if err != nil {
			return "", false, err
		}
		buckets = append(buckets, int64(ref.Bucket))
	}
	used, err = l.getRow(ctx, &made, `select refers_to from answers where key = $1 and request = $2 and bucket = any ($3)
		union all select 'deb_' || substr(id, 5) from entries where key = $1 and request = $2 and bucket = any ($3) and type = 'debit' limit 1`,
		a.Key(), a.Request, buckets)
	return made, used, err
}

// Act finds an act.
func (l *Ledger) Act(ctx context.Context, id string) (a Act, found bool, err error) {
	found, err = l.getRow(ctx, &a, `select `+actColumns+` from acts where id = $1`, id)
	return a, found, err
}

// ActFilter says which acts are asked for; empty fields ask for all.
type ActFilter struct {
	Customer, Action, Operator string
	Unknown                    bool // those that nobody knows the outcome of
}

// Acts lists acts, newest first, after the one of that id.
func (l *Ledger) Acts(ctx context.Context, f ActFilter, after string, limit int) (acts []Act, err error) {
	err = l.db.SelectContext(ctx, &acts, `select `+actColumns+` from acts
		where ($1 = '' or customer_id = $1) and ($2 = '' or action = $2) and ($3 = '' or lower(operator) = lower($3)) and (not $4 or outcome = '')
			and ($5 = '' or (at, id) < (select at, id from acts where id = $5))
		order by at desc, id desc limit $6`, f.Customer, f.Action, f.Operator, f.Unknown, after, limit)
	return acts, err
}
