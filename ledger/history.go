package ledger

import (
	"context"
	"time"
)

// entryAtSQL finds a wallet's last entry at or before a moment. Along seq time never goes back, so it halves the
// range of seqs until one is left: some twenty steps down the primary key in a million entries. The look at one entry
// is a scalar subquery so that no planner reads the wallet whole instead.
const entryAtSQL = `
with recursive span(low, high) as (
	select 0::bigint, seq from wallets where bucket = $1 and id = $2
	union all
	select case when before then middle else low end, case when before then high else middle - 1 end from (
		select low, high, middle, coalesce((select e.created_at <= $3::timestamptz from entries e
			where e.bucket = $1 and e.wallet_id = $2 and e.seq = middle), false) as before
		from (select low, high, low + (high - low + 1) / 2 as middle from span where low < high) halves offset 0) looked)
select ` + entryColumns + ` from entries
where bucket = $1 and wallet_id = $2 and seq = (select low from span where low = high)`

// getter reads one row, in a transaction or outside of one.
type getter func(dest any, query string, args ...any) (found bool, err error)

func (l *Ledger) getter(ctx context.Context) getter {
	return func(dest any, query string, args ...any) (bool, error) { return l.getRow(ctx, dest, query, args...) }
}

// entryAt is a wallet's last entry at or before a moment; the zero Entry where it had none by then.
func entryAt(get getter, bucket int16, wallet string, at time.Time) (e Entry, err error) {
	_, err = get(&e, entryAtSQL, bucket, wallet, at)
	return e, err
}

// usedSince is the usage of a wallet (debits and captures less what was given back) after a moment, in steps.
// The wallet's count of it may wrap around; the difference of two does not mind.
func usedSince(get getter, w *Wallet, at time.Time) (int64, error) {
	e, err := entryAt(get, w.Bucket, w.ID, at)
	return w.Used - e.UsedAfter, err
}
