package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"lockstep/ledger"
)

// What a debit costs must not grow with what a wallet or the database has seen. These cases measure it in one run: a
// wallet with thousands of live grants and one with thousands of spent ones, in turns with a fresh one; then, after the
// tables have grown by millions of entries, the same load again, each time against the yardstick of its own rounds.
var (
	freshOne    = &benchCase{Name: "fresh", Connections: 64, One: benchHot}
	freshAll    = &benchCase{Name: "uniform", Connections: 64}
	liveGrants  = &benchCase{Name: "live grants", Connections: 64, One: benchLive}
	spentGrants = &benchCase{Name: "spent grants", Connections: 64, One: benchSpent}
	grownOne    = &benchCase{Name: "fresh, grown", Connections: 64, One: benchHot}
	grownAll    = &benchCase{Name: "uniform, grown", Connections: 64}
)

// grantsOfOne is how many grants the live and the spent wallet have beside the one that every wallet has.
const grantsOfOne = 5000

// flatWithin is how much more a debit may cost on what has grown.
const flatWithin = 1.3

func measureGrown(ctx context.Context, o *benchOptions, bed *benchBed, load *benchLoad, report *benchReport, stderr io.Writer) error {
	if err := growGrants(ctx, bed.ledger); err != nil {
		return err
	}
	before, after := []*benchCase{nil, freshOne, liveGrants, spentGrants, freshAll}, []*benchCase{nil, grownOne, grownAll}
	progress := newBenchProgress(stderr, 4*o.warmUp+o.rounds*(o.secondsOf(before...)+o.secondsOf(after...))+o.entries/100_000)
	defer progress.end()
	if err := warmUpBench(ctx, o.warmUp, bed, load, progress); err != nil {
		return err
	}
	small, err := benchRounds(ctx, o, before, bed, load, progress)
	if err != nil {
		return err
	}
	done := progress.step(fmt.Sprintf("%d entries", o.entries), o.entries/100_000)
	patient, err := sqlx.Open("postgres", bed.url) // the ledger's own connections give up on a statement after a minute
	if err != nil {
		return err
	}
	defer patient.Close()
	if err := growEntries(ctx, patient, o.entries, o.customers); err != nil {
		done("failed")
		return err
	}
	done("written")
	if err := settleBench(ctx, patient); err != nil {
		return err
	}
	// Keys are random, so debits touch every page of their index; the first change of each after a checkpoint is logged
	// whole. What is to be measured is what comes after.
	if _, err := measureBenchCase(ctx, grownAll, bed, load, benchTime{time.Second, time.Duration(max(1, 3*o.warmUp)) * time.Second, 0}); err != nil {
		return err
	}
	grown, err := benchRounds(ctx, o, after, bed, load, progress)
	if err != nil {
		return err
	}
	report.add(nil, small[nil])
	for _, c := range before[1:] {
		report.add(c, small[c])
	}
	report.Flat = []benchFlat{flatOf(small, spentGrants, small, freshOne), flatOf(small, liveGrants, small, freshOne),
		flatOf(grown, grownOne, small, freshOne), flatOf(grown, grownAll, small, freshAll)}
	for i := range report.Flat {
		report.Flat[i].Entries = o.entries
	}
	return nil
}

// benchFlat compares a debit on what has grown with one on what has not.
type benchFlat struct {
	Case    string  `json:"case"`
	Cost    float64 `json:"times_the_cost"`
	Entries int     `json:"entries"`
}

// flatOf is by how much a debit of c costs more than one of base, each against the yardstick of its own rounds.
func flatOf(samples map[*benchCase][]benchSample, c *benchCase, baseSamples map[*benchCase][]benchSample, base *benchCase) benchFlat {
	ratio := func(of map[*benchCase][]benchSample, c *benchCase) float64 {
		return benchMedians(of[c]).Rate / benchMedians(of[nil]).Rate
	}
	return benchFlat{Case: c.Name, Cost: ratio(baseSamples, base) / ratio(samples, c)}
}

// growGrants gives the live wallet thousands of grants of a dollar, which it burns before its large one, and the spent
// one thousands that are spent.
func growGrants(ctx context.Context, l *ledger.Ledger) error {
	for _, n := range []int{benchLive, benchSpent} {
		ref, err := l.Resolve(ctx, string(appendBenchCustomer(nil, n)))
		if err != nil {
			return err
		}
		wallets, err := l.Wallets(ctx, ref)
		if err != nil {
			return err
		}
		ids := make(pq.StringArray, grantsOfOne)
		for i := range ids {
			ids[i] = benchID("grt_", 1_000_000*-n+i, ref.Bucket, l.Now())
		}
		if _, err := l.DB().ExecContext(ctx, growGrantsSQL, ref.Bucket, wallets[0].ID, ids, l.Now(), n == benchSpent, grantsOfOne); err != nil {
			return fmt.Errorf("grow grants: %w", err)
		}
	}
	return settleBench(ctx, l.DB())
}

// growGrantsSQL books grants of 1,000,000 steps and, of a wallet that is to have spent them, captures that took each.
const growGrantsSQL = `
with g as (
	insert into grants (bucket, id, wallet_id, amount, remaining, kind, kind_rank, priority, covers, status, live, in_force,
		effective_at, reason, source_type, source_id, created_at)
	select $1, id, $2, 1000000, case when $5 then 0 else 1000000 end, 'promotional', 1, 10, 'usage',
		case when $5 then 'exhausted' else 'confirmed' end, not $5, true, $4, 'bench', 'api', id, $4 from unnest($3::text[]) u(id)
), e as (
	insert into entries (bucket, wallet_id, seq, id, type, amount, balance_after, parts, reason, refers_to, created_at)
	select w.bucket, w.id, w.seq + n, 'ent_g' || w.id || n, case when n <= $6 then 'grant' else 'capture' end,
		case when n <= $6 then 1000000 else -1000000 end, w.total + 1000000::bigint * case when n <= $6 then n else 2 * $6 - n end,
		($3::text[])[case when n <= $6 then n else n - $6 end] || case when n <= $6 then ':1000000' else ':-1000000' end, 'bench',
		case when n <= $6 then ($3::text[])[n] end, $4
	from wallets w, generate_series(1, case when $5 then 2 * $6 else $6 end) n where w.bucket = $1 and w.id = $2
)
update wallets set seq = seq + case when $5 then 2 * $6 else $6 end, total = total + case when $5 then 0 else 1000000::bigint * $6 end,
	version = version + 1, entered_at = $4 where bucket = $1 and id = $2`

// grownPerTurn is how many entries each wallet gets at once: a real table has the entries of all wallets mixed.
const grownPerTurn = 10

// growEntries writes entries as captures of a step, with keys, spread over all wallets. The index of keys is made when
// they are there: their keys are as random as everybody's, and one by one they would take hours.
func growEntries(ctx context.Context, db *sqlx.DB, entries, customers int) error {
	if _, err := db.ExecContext(ctx, `drop index entries_key`); err != nil {
		return err
	}
	for written, turn := 0, 0; written < entries; turn++ {
		res, err := db.ExecContext(ctx, growEntriesSQL, turn, min(grownPerTurn, max(1, (entries-written)/customers)), time.Now().UTC().Truncate(time.Microsecond))
		if err != nil {
			return fmt.Errorf("grow entries: %w", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		written += int(n)
	}
	_, err := db.ExecContext(ctx, `create unique index entries_key on entries (bucket, key) where key is not null`)
	return err
}

const growEntriesSQL = `
with w as materialized (
	select w.bucket, w.id, w.seq, w.total, g.id as grant_id from wallets w
	join grants g on g.bucket = w.bucket and g.wallet_id = w.id and g.priority = 50
	where w.customer_id not in ('bench-hot', 'bench-live', 'bench-spent') order by w.bucket, w.id for update
), moved as (
	update wallets set seq = wallets.seq + $2, total = wallets.total - $2, version = version + 1, entered_at = $3
	from w where wallets.bucket = w.bucket and wallets.id = w.id
), burned as (
	update grants set remaining = remaining - $2 from w where grants.bucket = w.bucket and grants.id = w.grant_id
)
insert into entries (bucket, wallet_id, seq, id, type, amount, balance_after, parts, reason, key, request, created_at)
select w.bucket, w.id, w.seq + n, 'ent_' || lpad(to_hex($1::int), 6, '0') || substr(w.id, 5) || n, 'capture', -1, w.total - n, w.grant_id || ':-1', 'bench',
	md5(w.id || $1::int || n), 1, $3
from w, generate_series(1, $2::int) n`
