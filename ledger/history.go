package ledger

import (
	"context"
	"time"
)

// A wallet's entries are its archived ones and then those of the table entries (see archive.go). So a moment is looked up
// among the latter, as nearly all are, and where those begin only after it, in the archive, in the one month that it is in.
//
// Along seq time never goes back. So what looks for a moment halves the range of seqs until one is left: some twenty steps
// down the primary key in a million entries. The look at one entry is a scalar subquery so that no planner reads the
// wallet whole instead.

// halvesSQL begins a step, which goes on with how to look at the entry in the middle.
const halvesSQL = `
	union all
	select case when before then middle else low end, case when before then high else middle - 1 end from (
		select low, high, middle, `

// spanSQL halves what was booked, to the last entry by $3. One that is missing from the table entries was archived: it is
// older than all that are there. So where these begin after the moment, it ends at the last one that was archived.
const spanSQL = `
with recursive span(low, high) as (
	select 0::bigint, seq from wallets where bucket = $1 and id = $2` + halvesSQL + `coalesce((select e.created_at <= $3::timestamptz from entries e
			where e.bucket = $1 and e.wallet_id = $2 and e.seq = middle), true) as before
		from (select low, high, low + (high - low + 1) / 2 as middle from span where low < high) halves offset 0) looked
), found as (select low as seq from span where low = high)`

// entryAtSQL finds a wallet's last entry at or before a moment among those that were not archived.
const entryAtSQL = spanSQL + `
select ` + entryColumns + ` from entries where bucket = $1 and wallet_id = $2 and seq = (select seq from found)`

// archivedAtSQL finds it in the archive, among the entries of the moment's month, which begins at $4 and ends at $5.
const archivedAtSQL = `
with recursive first as (
	select seq, created_at from archived_entries
	where bucket = $1 and wallet_id = $2 and created_at >= $4 and created_at < $5 order by seq limit 1
), span(low, high) as (
	select first.seq, (select seq from archived_entries
		where bucket = $1 and wallet_id = $2 and created_at >= $4 and created_at < $5 order by seq desc limit 1)
	from first where first.created_at <= $3` + halvesSQL + `coalesce((select e.created_at <= $3::timestamptz from archived_entries e
			where e.bucket = $1 and e.wallet_id = $2 and e.seq = middle and e.created_at >= $4 and e.created_at < $5), false) as before
		from (select low, high, low + (high - low + 1) / 2 as middle from span where low < high) halves offset 0) looked)
select ` + entryColumns + ` from archived_entries
where bucket = $1 and wallet_id = $2 and seq = (select low from span where low = high) and created_at >= $4 and created_at < $5`

// archivedBeforeSQL finds the last one before a month, which begins at $3.
const archivedBeforeSQL = `select ` + entryColumns + ` from archived_entries
where bucket = $1 and wallet_id = $2 and created_at < $3 order by seq desc limit 1`

// nextSQL is the seq of a wallet's first entry since the beginning of a month, $4, or of the one that will be booked next,
// where none that was not archived is as old as $3.
const nextSQL = spanSQL + `
select coalesce((select seq from archived_entries where bucket = $1 and wallet_id = $2 and created_at >= $4 order by seq limit 1),
	(select seq + 1 from found))`

// usedAtSQL is a wallet's usage by a moment that is younger than anything in the archive. Where the last entry by then was
// archived, the one after it tells, or the wallet.
const usedAtSQL = spanSQL + `
select coalesce(
	(select used_after from entries where bucket = $1 and wallet_id = $2 and seq = (select seq from found)),
	(select used_after + case when seal is not null and type in ('debit', 'capture', 'reversal') then amount else 0 end
		from entries where bucket = $1 and wallet_id = $2 and seq = (select seq + 1 from found)),
	(select used from wallets where bucket = $1 and id = $2))`

// getter reads one row, in a transaction or outside of one.
type getter func(dest any, query string, args ...any) (found bool, err error)

func (l *Ledger) getter(ctx context.Context) getter {
	return func(dest any, query string, args ...any) (bool, error) { return l.getRow(ctx, dest, query, args...) }
}

// entryAt is a wallet's last entry at or before a moment; the zero Entry where it had none by then. It refuses where that
// entry lies in a month that was detached.
func entryAt(get getter, bucket int16, wallet string, at time.Time) (Entry, error) {
	e, next, err := around(get, bucket, wallet, at)
	if err == nil && next > e.Seq+1 {
		err = refuse(CodeState, "at", "wallet %s: its entries %d to %d are archived in a month that was detached, and the last one by %s is one of them; attach the month again, or ask for another moment",
			wallet, e.Seq+1, next-1, at.UTC().Format(time.RFC3339Nano))
	}
	return e, err
}

// around is a wallet's last entry at or before a moment, of those that are there, and the seq of the one after it. Where
// they don't follow on each other, what is between them was detached. Each statement may see more in the archive than the
// one before, and none less.
func around(get getter, bucket int16, wallet string, at time.Time) (e Entry, next int64, err error) {
	found, err := get(&e, entryAtSQL, bucket, wallet, at)
	if err != nil || found {
		return e, e.Seq + 1, err
	}
	begin, end := period("month", at)
	if found, err = get(&e, archivedAtSQL, bucket, wallet, at, begin, end); err != nil || found {
		return e, e.Seq + 1, err
	}
	if _, err = get(&e, archivedBeforeSQL, bucket, wallet, begin); err != nil {
		return e, 0, err
	}
	_, err = get(&next, nextSQL, bucket, wallet, at, begin)
	return e, next, err
}

// usedSince is the usage of a wallet (debits and captures less what was given back) after a moment, in steps, which must
// be younger than archiveAge. The wallet's count of it may wrap around; the difference of two does not mind.
func usedSince(get getter, w *Wallet, at time.Time) (int64, error) {
	var used int64
	_, err := get(&used, usedAtSQL, w.Bucket, w.ID, at)
	return w.Used - used, err
}
