package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"lockstep/ledger"
)

// The numbers of the customers that are alone in a case; the others count from 0, and those of the mix from benchMixed.
const (
	benchHot   = -1
	benchLive  = -2 // has thousands of small grants to spend
	benchSpent = -3 // has spent thousands of grants
	benchFirst = benchSpent
	benchMixed = 1 << 30
)

// appendBenchCustomer writes the id of a customer.
func appendBenchCustomer(buf []byte, n int) []byte {
	if n < 0 {
		return append(append(buf, "bench-"...), [...]string{"hot", "live", "spent"}[-1-n]...)
	}
	if n >= benchMixed {
		return strconv.AppendInt(append(buf, "bench-mix-"...), int64(n-benchMixed), 10)
	}
	return strconv.AppendInt(append(buf, "bench-"...), int64(n), 10)
}

// benchSkew is the exponent of the zipf distribution: the first of 10,000 wallets gets a seventh of all events.
const benchSkew = 1.1

// benchZipf spreads events by a zipf distribution: its n-th number is the part of all events that the first n wallets get.
type benchZipf []float64

func newBenchZipf(n int) benchZipf {
	z, sum := make(benchZipf, n), 0.0
	for i := range z {
		sum += math.Pow(float64(i+1), -benchSkew)
		z[i] = sum
	}
	for i := range z {
		z[i] /= sum
	}
	return z
}

// pick is the number that the bits of a key give, the same each time.
func (z benchZipf) pick(key uint64) int {
	at := float64(key>>11) / (1 << 53) // 0 ≤ at < 1
	i, found := slices.BinarySearch(z, at)
	if found {
		i++
	}
	return min(i, len(z)-1) // the last sum may be short of 1 by a rounding
}

// benchGrant is what each customer gets, in steps: 100 million dollars, which no run can spend.
const benchGrant = 100_000_000_000_000

// benchRows are the columns of what is loaded, a row for each customer.
type benchRows struct {
	buckets                                            pq.Int64Array
	customers, stripe, wallets, grants, entries, parts pq.StringArray
}

// benchTables are filled from benchRows: customers that are linked to Stripe, as all are in production, each
// with a wallet and a promotional grant that its first entry books. Stripe is told nothing of promotional
// credit, so the wallets are in step with it.
var benchTables = []struct{ table, insert string }{
	{"customers", `insert into customers (bucket, id, stripe_customer, currency, created_at)
		select bucket, customer, stripe, 'usd', $8 from `},
	{"stripe_links", `insert into stripe_links (stripe_customer, bucket, customer_id)
		select stripe, bucket, customer from `},
	{"mirrors", `insert into mirrors (bucket, customer_id, stripe_customer, currency, listed_to, import_due, run_at)
		select bucket, customer, stripe, 'usd', '', false, $8 from `},
	{"wallets", `insert into wallets (bucket, id, customer_id, asset, scale, scope, total, seq, mirrored_seq, entered_at, created_at)
		select bucket, wallet, customer, 'usd', 6, 'all', $9, 1, 1, $8, $8 from `},
	{"grants", `insert into grants (bucket, id, wallet_id, amount, remaining, kind, kind_rank, priority, covers, status, live, in_force,
			effective_at, reason, source_type, source_id, created_at)
		select bucket, grant_id, wallet, $9, $9, 'promotional', 1, 50, 'usage', 'confirmed', true, true, $8, 'bench', 'api', grant_id, $8 from `},
	{"entries", `insert into entries (bucket, wallet_id, seq, id, type, amount, balance_after, parts, reason, refers_to, created_at)
		select bucket, wallet, 1, entry, 'grant', $9, $9, parts, 'bench', grant_id, $8 from `},
}

// benchUnnest is where benchTables select from. The condition is always true: it gives the parameters that
// a statement does not use a type.
const benchUnnest = `unnest($1::smallint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
	as u(bucket, customer, stripe, wallet, grant_id, entry, parts) where $8::timestamptz is not null and $9::bigint > 0`

// loadBench makes n customers and the hot one, and checks that the ledger takes them for its own.
func loadBench(ctx context.Context, l *ledger.Ledger, n int) error {
	rows, err := makeBenchRows(ctx, l, n)
	if err != nil {
		return err
	}
	tx, err := l.DB().BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	for _, t := range benchTables {
		if _, err := tx.ExecContext(ctx, t.insert+benchUnnest, rows.buckets, rows.customers, rows.stripe, rows.wallets,
			rows.grants, rows.entries, rows.parts, l.Now(), int64(benchGrant)); err != nil {
			return fmt.Errorf("load %s: %w", t.table, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if err := settleBench(ctx, l.DB()); err != nil { // before the check, whose plans are made for tables that are known
		return err
	}
	findings, err := l.Check(ctx)
	if err == nil && len(findings) > 0 {
		err = fmt.Errorf("the customers of the benchmark are not what the ledger would have made:\n%s", ledger.Describe(findings))
	}
	return err
}

func makeBenchRows(ctx context.Context, l *ledger.Ledger, n int) (*benchRows, error) {
	rows := &benchRows{}
	now := time.Now()
	for i := benchFirst; i < n; i++ {
		ref, err := l.Resolve(ctx, string(appendBenchCustomer(nil, i)))
		if err != nil {
			return nil, err
		}
		grant := benchID("grt_", i, ref.Bucket, now)
		rows.buckets = append(rows.buckets, int64(ref.Bucket))
		rows.customers = append(rows.customers, ref.ID)
		rows.stripe = append(rows.stripe, fmt.Sprintf("cus_bench%08d", i-benchFirst))
		rows.wallets = append(rows.wallets, benchID("wal_", i, ref.Bucket, now))
		rows.grants = append(rows.grants, grant)
		rows.entries = append(rows.entries, benchID("ent_", i, ref.Bucket, now))
		rows.parts = append(rows.parts, fmt.Sprintf("%s:%d", grant, benchGrant))
	}
	return rows, nil
}

// benchID makes an id as the ledger makes them: 48 bits of milliseconds, 46 bits of a number, and 6 bits of
// bucket, five bits a character.
func benchID(prefix string, n int, bucket int16, now time.Time) string {
	ms, tail := uint64(now.UnixMilli())&(1<<48-1), uint64(n-benchFirst)
	hi, lo := ms<<2|tail>>44, tail&(1<<44-1)<<6|uint64(bucket)
	var out [20]byte
	for i := 9; i >= 0; i-- {
		const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
		out[i], hi = alphabet[hi&31], hi>>5
		out[i+10], lo = alphabet[lo&31], lo>>5
	}
	return prefix + string(out[:])
}

// settleBench leaves the tables as a database has them that has been running for a while.
func settleBench(ctx context.Context, db *sqlx.DB) error {
	for _, t := range benchTables {
		if _, err := db.ExecContext(ctx, `vacuum analyze `+t.table); err != nil {
			return fmt.Errorf("vacuum %s: %w", t.table, err)
		}
	}
	// A role that may not ask for a checkpoint gets one when it is due; the warm-up is there for both.
	_, _ = db.ExecContext(ctx, `checkpoint`)
	return nil
}
