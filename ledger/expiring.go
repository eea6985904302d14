package ledger

import (
	"context"
	"time"
)

// warnBatch bounds how many grants one call of WarnExpiring looks at.
const warnBatch = 500

// WarnExpiring tells, once each, of a bounded number of live grants that expire within the warning, and answers
// how many it looked at. A grant whose whole life is shorter than twice the warning is passed over: whoever gave
// it knows its end. Rows that somebody else has in hand wait for the next call.
func (l *Ledger) WarnExpiring(ctx context.Context, warning time.Duration) (int, error) {
	var due []struct {
		Bucket int16  `db:"bucket"`
		ID     string `db:"id"`
	}
	now := l.Now()
	if err := l.db.SelectContext(ctx, &due, `select bucket, id from grants where live and warned_at is null
		and expires_at > $1 and expires_at <= $2 order by expires_at limit $3`, now, now.Add(warning), warnBatch); err != nil {
		return 0, err
	}
	byBucket := make(map[int16]textArray)
	for _, d := range due {
		byBucket[d.Bucket] = append(byBucket[d.Bucket], d.ID)
	}
	warned := 0
	for bucket, ids := range byBucket {
		n := 0
		err := l.inTx(ctx, func(t *tx) (err error) {
			n, err = t.warn(bucket, ids, warning)
			return err
		})
		if err != nil {
			return warned, err
		}
		warned += n
	}
	return warned, nil
}

// warn tells of those of the grants that nobody has told of meanwhile. It changes nothing that a debit is decided
// by, so it needs no wallet's lock; and it waits for no row, so that it can't stand in a debit's way for long.
func (t *tx) warn(bucket int16, ids textArray, warning time.Duration) (int, error) {
	var taken []string
	if err := t.SelectContext(t.ctx, &taken, `update grants set warned_at = $3 where bucket = $1 and id = any(array(
			select id from grants where bucket = $1 and id = any($2::text[]) and live and warned_at is null for update skip locked))
		returning id`, bucket, ids, t.now); err != nil {
		return 0, err
	}
	var rows []struct {
		Grant
		Customer string `db:"customer_id"`
	}
	if err := t.SelectContext(t.ctx, &rows, `select `+grantColumns+`, w.customer_id`+grantsFrom+`
		where g.bucket = $1 and g.id = any($2::text[]) order by g.expires_at, g.id`, bucket, textArray(taken)); err != nil {
		return 0, err
	}
	for i := range rows {
		g := &rows[i].Grant
		if g.ExpiresAt.Sub(g.EffectiveAt) >= 2*warning {
			t.emitGrant(EventGrantExpiring, &Wallet{Bucket: g.Bucket, ID: g.Wallet, Customer: rows[i].Customer, Scale: g.Scale}, *g)
		}
	}
	return len(taken), nil
}
