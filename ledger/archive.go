package ledger

import (
	"context"
	"fmt"
	"time"
)

// The archive keeps the table that debits write to small. Archive moves the entries that are older than a cutoff from the
// table entries to archived_entries, which has a partition for each month, and forgets answers as old.
//
//   - The oldest go first, a few thousand in a transaction. So what a wallet has in entries always begins right after what
//     it has in the archive, whenever the mover stops; the next one goes on from there.
//   - An entry is deleted here and written there in one statement. Whoever reads all_entries sees each once.
//   - No wallet is locked, and nothing that a debit reads is touched, but for the keys: those of what has been moved are
//     free again. The cutoff is older than any key is promised to be remembered.
//   - Several may run at once: an advisory lock has them take turns, a transaction each.

// archiveAge is how old an entry is at least before it is moved: keys are promised for thirty days, and no clock is five
// days off.
const archiveAge = 35 * 24 * time.Hour

// ArchiveInput says what is to be archived, and how gently.
type ArchiveInput struct {
	Before     time.Time     // what is older goes
	Tablespace string        // of the months that have to be made; "" is the database's
	Pause      time.Duration // after each transaction
	DryRun     bool          // count only
}

// Archived is what Archive did, or would do.
type Archived struct {
	Entries, Answers int64
	Oldest           time.Time // of the entries; zero where there was none
	Months           []string  // partitions that were made for them, in order
}

const (
	// archiveRows bounds what one transaction moves: a tenth of a second or two of work.
	archiveRows = 4000
	// archiveLock is the advisory lock by which movers take turns.
	archiveLock = 7_205_460_019
)

// Archive moves entries older than a moment to the archive and forgets answers older than it, and tells how many rows it
// is through with, of how many. When it is stopped, what has been moved stays moved, and the next one goes on.
func (l *Ledger) Archive(ctx context.Context, in ArchiveInput, progress func(done, of int64)) (Archived, error) {
	a := archiving{l: l, ctx: ctx, in: in, progress: progress, made: make(map[string]bool)}
	a.in.Before = in.Before.UTC().Truncate(time.Microsecond)
	if latest := l.Now().Add(-archiveAge); a.in.Before.After(latest) {
		return Archived{}, refuse(CodeInvalid, "before", "entries can be archived once they are %d days old, since their idempotency keys are promised for 30: take %s or earlier",
			archiveAge/(24*time.Hour), latest.Format(time.DateOnly))
	}
	if err := a.plain(); err != nil {
		return Archived{}, err
	}
	entries, err := a.look("entries")
	if err != nil {
		return Archived{}, err
	}
	answers, err := a.look("answers")
	if err != nil {
		return Archived{}, err
	}
	a.result.Oldest = entries.oldest
	a.of = entries.rows + answers.rows
	if in.DryRun {
		a.result.Entries, a.result.Answers = entries.rows, answers.rows
		return a.result, nil
	}
	if err = a.sweep(entries, a.moveEntries, &a.result.Entries); err == nil {
		err = a.sweep(answers, a.forgetAnswers, &a.result.Answers)
	}
	return a.result, err
}

// archiving is one on its way.
type archiving struct {
	l        *Ledger
	ctx      context.Context
	in       ArchiveInput
	progress func(done, of int64)
	done, of int64
	made     map[string]bool // months that are known to have their partition
	result   Archived
}

// plain refuses a database that is spread over machines: there a row is not found by where it is.
func (a *archiving) plain() error {
	var spread bool
	if err := a.l.db.GetContext(a.ctx, &spread, `select to_regclass('pg_catalog.pg_dist_partition') is not null`); err != nil || !spread {
		return err
	}
	return refuse(CodeState, "", "this database has Citus, and entries that are spread over machines can't be archived: nothing was done")
}

// aged is what a table has that is older than the cutoff.
type aged struct {
	table  string
	blocks int64
	rows   int64
	oldest time.Time
}

// lookBlocks is how much of a table one statement reads: 64 MB.
const lookBlocks = 8192

// look reads a table from one end to the other, a piece at a time, for what is older than the cutoff.
func (a *archiving) look(table string) (found aged, err error) {
	found.table = table
	err = a.l.db.GetContext(a.ctx, &found.blocks, `select pg_relation_size($1::text::regclass) / current_setting('block_size')::bigint`, table)
	for at := int64(0); err == nil && at < found.blocks; at += lookBlocks {
		var piece struct {
			Rows   int64      `db:"rows"`
			Oldest *time.Time `db:"oldest"`
		}
		err = a.l.db.GetContext(a.ctx, &piece, `select count(*) as rows, min(created_at) as oldest from `+table+`
			where ctid >= $1::text::tid and ctid < $2::text::tid and created_at < $3`,
			fmt.Sprintf("(%d,0)", at), fmt.Sprintf("(%d,0)", at+lookBlocks), a.in.Before)
		found.rows += piece.Rows
		if piece.Oldest != nil && (found.oldest.IsZero() || piece.Oldest.Before(found.oldest)) {
			found.oldest = piece.Oldest.UTC()
		}
	}
	return found, err
}

// sweep has take move what a table has from its oldest row to the cutoff, a step of time after the other. A step is as
// long as it takes for a transaction's worth of rows: take answers how many it found, and the time of the last.
func (a *archiving) sweep(old aged, take func(t *tx, from, to time.Time) (n int64, last time.Time, err error), total *int64) error {
	if old.rows == 0 {
		return nil
	}
	if err := a.tidy(old); err != nil {
		return err
	}
	widest := a.widest(old)
	step := widest / 4
	for from := old.oldest; from.Before(a.in.Before); {
		to := from.Add(step)
		if to.After(a.in.Before) {
			to = a.in.Before
		}
		var n int64
		var last time.Time
		if err := a.l.inTx(a.ctx, func(t *tx) (err error) {
			// synchronous_commit: what a crash takes back was not moved, and is moved by the next. enable_seqscan: else a
			// planner that was told nothing yet reads all of the table for each step.
			if err = t.exec(`set local synchronous_commit = off; set local enable_seqscan = off`); err == nil {
				err = t.exec(fmt.Sprintf(`select pg_advisory_xact_lock(%d)`, archiveLock))
			}
			if err == nil {
				n, last, err = take(t, from, to)
			}
			return err
		}); err != nil {
			return err
		}
		*total, a.done = *total+n, a.done+n
		a.progress(a.done, max(a.of, a.done))
		switch {
		case n == archiveRows:
			from, step = last, max(step/4, time.Microsecond)
		case n < archiveRows/4:
			from, step = to, min(2*step, widest)
		default:
			from = to
		}
		if n > 0 {
			if err := a.rest(); err != nil {
				return err
			}
		}
	}
	return nil
}

// widest is the longest step: as long as it takes for four transactions' worth of rows, on the average. So a quiet night
// is passed in few steps, and one that meets a busy hour has not too much to look through.
func (a *archiving) widest(old aged) time.Duration {
	span := a.in.Before.Sub(old.oldest)
	return max(time.Duration(float64(span)*min(4*archiveRows/float64(old.rows), 1)), time.Millisecond)
}

// rest leaves the disk to the debits for a while.
func (a *archiving) rest() error {
	select {
	case <-a.ctx.Done():
		return a.ctx.Err()
	case <-time.After(a.in.Pause):
		return nil
	}
}

// tidyRanges is how many ranges of blocks are summed up in one transaction: 8 MB.
const tidyRanges = 8

// tidy sums up a table's blocks anew for the index that finds a time's rows in it: where a block was emptied by an earlier
// archiving and written again, the index still believes that old rows are in it. It is only a saving: where another has
// the lock, what it believes stays.
func (a *archiving) tidy(old aged) error {
	const perRange = 128 // PostgreSQL's pages_per_range, as our indexes leave it
	for at := int64(0); at < old.blocks; at += tidyRanges * perRange {
		err := a.l.oneTx(a.ctx, func(t *tx) error {
			if err := t.exec(`set local lock_timeout = '1s'`); err != nil {
				return err
			}
			return t.exec(fmt.Sprintf(`select brin_desummarize_range(i, b), brin_summarize_range(i, b)
				from to_regclass('%s_created') i, generate_series(%d::bigint, %d, %d) b`,
				old.table, at, min(at+tidyRanges*perRange, old.blocks)-1, perRange))
		})
		if err != nil && !lockTimeout(err) {
			return err
		}
	}
	return nil
}

// entryList are all columns of an entry, as they are.
const entryList = `bucket, wallet_id, seq, id, type, amount, held, balance_after, held_after, pending_after, used_after, parts, reason,
	refers_to, key, request, metadata, rated, seal, created_at`

// moveSQL moves the first so many entries from one moment up to another. They are found first and deleted by where they
// are: nobody else moves them meanwhile, and nobody changes them.
const moveSQL = `
with gone as (
	delete from entries where ctid = any(array(select ctid from entries where created_at >= $1 and created_at < $2
		order by created_at, bucket, wallet_id, seq limit $3)) returning ` + entryList + `
), kept as (
	insert into archived_entries (` + entryList + `) select ` + entryList + ` from gone returning created_at)
select count(*) as rows, max(created_at) as last from kept`

func (a *archiving) moveEntries(t *tx, from, to time.Time) (int64, time.Time, error) {
	for month, _ := period("month", from); month.Before(to); month = month.AddDate(0, 1, 0) {
		if err := a.makeMonth(t, month, from, to); err != nil {
			return 0, time.Time{}, err
		}
	}
	return t.away(moveSQL, from, to)
}

// away runs a statement that takes away rows between two moments.
func (t *tx) away(query string, from, to time.Time) (int64, time.Time, error) {
	var taken struct {
		Rows int64      `db:"rows"`
		Last *time.Time `db:"last"`
	}
	_, err := t.get(&taken, query, from, to, archiveRows)
	return taken.Rows, deref(taken.Last).UTC(), err
}

const forgetSQL = `
with gone as (
	delete from answers where ctid = any(array(select ctid from answers where created_at >= $1 and created_at < $2
		order by created_at limit $3)) returning created_at)
select count(*) as rows, max(created_at) as last from gone`

func (a *archiving) forgetAnswers(t *tx, from, to time.Time) (int64, time.Time, error) {
	return t.away(forgetSQL, from, to)
}
