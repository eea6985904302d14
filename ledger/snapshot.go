package ledger

import "context"

// part is a range of buckets. What looks at all of the books takes a part at a time, so that no one statement runs for
// longer than a connection is trusted to be silent, or sorts more than there is room for.
type part struct{ from, to int16 }

// partRows is about how many entries make a part: a few seconds of work for the heaviest statement over them.
const partRows = 4_000_000

// snapshot makes the transaction one that reads, all of it in one snapshot, and answers the parts to read the books in.
func (t *tx) snapshot() ([]part, error) {
	if err := t.exec(`set transaction isolation level repeatable read, read only`); err != nil {
		return nil, err
	}
	if err := t.exec(`set local work_mem = '64MB'`); err != nil { // what is sorted and summed here is more than a server expects of a query
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
