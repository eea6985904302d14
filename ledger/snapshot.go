package ledger

import "context"

// part is a range of buckets. What looks at all of the books takes a part at a time, so that no one statement runs for
// longer than a connection is trusted to be silent, or sorts more than there is room for.
type part struct{ from, to int16 }

// partRows is about how many entries make a part: a few seconds of work for the heaviest statement over them.
const partRows = 2_000_000

// snapshot makes the transaction one that reads, all of it in one snapshot, and answers the parts to read the books in.
func (t *tx) snapshot() ([]part, error) {
	if err := t.exec(`set transaction isolation level repeatable read, read only`); err != nil {
		return nil, err
	}
	// What is sorted and summed here is more than a server expects of a query. And a plan that does not know its part's
	// bounds takes the part for small.
	if err := t.exec(`set local work_mem = '64MB'; set local plan_cache_mode = force_custom_plan`); err != nil {
		return nil, err
	}
	var rows float64 // as the planner believes; none where it was never told
	if _, err := t.get(&rows, `select sum(greatest(reltuples, 0)) from pg_class where oid = 'entries'::regclass
		or oid in (select inhrelid from pg_inherits where inhparent = 'archived_entries'::regclass)`); err != nil {
		return nil, err
	}
	return partsOf(rows), nil
}

// partsOf cuts the buckets into parts for so many entries.
func partsOf(rows float64) (parts []part) {
	n := min(max(int(rows/partRows)+1, 1), Buckets)
	for i := range n {
		parts = append(parts, part{int16(i * Buckets / n), int16((i+1)*Buckets/n - 1)})
	}
	return parts
}

// strangersSQL finds the tables that the planner knows little of: those that were never analyzed, or are twice as large as
// when they were. Small ones are read soon enough, whatever it thinks of them.
const strangersSQL = `
select c.oid::regclass::text from pg_class c join pg_stat_all_tables s on s.relid = c.oid
where c.relkind = 'r' and c.relnamespace = (select relnamespace from pg_class where oid = 'wallets'::regclass)
	and pg_relation_size(c.oid) > 100 * current_setting('block_size')::bigint
	and (coalesce(s.last_analyze, s.last_autoanalyze) is null or pg_relation_size(c.oid) > 2 * c.relpages * current_setting('block_size')::bigint)`

// acquaint makes the planner know the tables before much of them is read: where books were loaded a moment ago,
// autovacuum has not come by yet, and a join that is planned for a few rows takes hours for millions. A table that somebody
// else is at, or that is not ours to analyze, is left.
func (l *Ledger) acquaint(ctx context.Context) error {
	var tables []string
	if err := l.db.SelectContext(ctx, &tables, strangersSQL); err != nil {
		return err
	}
	for _, table := range tables {
		if _, err := l.db.ExecContext(ctx, `analyze (skip_locked) `+table); err != nil {
			return err
		}
	}
	return nil
}

// slowLooks bounds how many callers at once have much of the books read: the others wait, and the connections are left
// to those who spend and buy.
const slowLooks = 2

// slowly runs f when it is its turn.
func (l *Ledger) slowly(ctx context.Context, f func() error) error {
	select {
	case l.slow <- struct{}{}:
		defer func() { <-l.slow }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	}
}
