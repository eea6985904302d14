package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Over several machines the schema is spread by Citus: a table with a bucket lies in shards by it, all of them
// side by side, so that what one transaction of a customer's touches is on one node. The few tables that are
// about no customer, or that have to be unique over all of them, lie elsewhere.

// place is where a table that is not spread by bucket lies.
type place struct {
	reference bool   // a copy on every node, else one, on the coordinator
	why       string // it is not spread
}

// elsewhere are the tables that are not spread by bucket. Every other table has to be.
var elsewhere = map[string]place{
	"assets":            {true, "about no customer; read beside every wallet, written by hand"},
	"features":          {true, "about no customer; read by every process, written by hand"},
	"webhook_endpoints": {true, "about no customer; joined with the deliveries of all, written by hand"},
	"api_keys":          {false, "about no customer; kept in memory by every process"},
	"stripe_links":      {false, "unique over all buckets: it refuses two customers on one Stripe customer; read once per process"},
	"sale_owners":       {false, "unique over all buckets: it refuses two customers on one sale"},
	"stripe_events":     {false, "unique over all buckets by Stripe's id, before it is known whose an event is"},
	"console_sessions":  {false, "about no customer; a row a person who is signed in"},
	"acts":              {false, "what operators did, in one order over all customers; written by hand"},
	"act_previews":      {false, "about no customer; a row an act that was not begun yet"},
	"progress":          {false, "a handful of rows"},
	"walks":             {false, "a handful of rows"},
	"archived_months":   {false, "a row a month; written by the archive, read where it is"},
	"goose_db_version":  {false, "which migrations were applied"},
}

// shardedBy is the column by which tables are spread.
const shardedBy = "bucket"

// DefaultShards is how many shards a table is spread over.
const DefaultShards = 64

// first is the table that the others lie beside.
const first = "wallets"

// spread lists the tables that are spread by bucket, the first one first.
func spread(ctx context.Context, db *sql.DB) ([]string, error) {
	all, err := list(ctx, db, `select relname from pg_class
		where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p') and not relispartition
		order by relname <> $1, relname`, first)
	tables := all[:0]
	for _, t := range all {
		if _, other := elsewhere[t]; !other {
			tables = append(tables, t)
		}
	}
	return tables, err
}

// unspreadable are the reasons for which a table that is named can't be spread by bucket, as pairs of table and reason.
// A foreign key may lead from bucket to bucket, or to a table that every node has a copy of.
const unspreadable = `
with c as (
	select c.oid, c.relname from pg_class c
	where c.relnamespace = current_schema()::regnamespace and c.relname = any(string_to_array($1, ',')) and not c.relispartition
)
select c.relname, 'it has no column bucket smallint not null without a default' from c where not exists (
	select from pg_attribute a where a.attrelid = c.oid and a.attname = 'bucket' and a.atttypid = 'smallint'::regtype and a.attnotnull and not a.atthasdef)
union all
select c.relname, 'it has no primary key' from c where not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)
union all
select c.relname, format('its unique index %s is without bucket', i.indexrelid::regclass)
from pg_index i join c on c.oid = coalesce(pg_partition_root(i.indrelid), i.indrelid)
where (i.indisunique or i.indisexclusion) and not exists (select from pg_attribute a
	where a.attrelid = i.indrelid and a.attname = 'bucket' and a.attnum = any ((i.indkey::smallint[])[0:i.indnkeyatts - 1]))
union all
select coalesce(c.relname, f.conrelid::regclass::text), format('its foreign key %s leads to %s', f.conname, f.confrelid::regclass)
from pg_constraint f left join c on c.oid = f.conrelid left join c other on other.oid = f.confrelid
where f.contype = 'f' and (c.oid is not null or other.oid is not null)
	and not (c.oid is not null and f.confrelid::regclass::text = any(string_to_array($2, ',')))
	and not (c.oid is not null and other.oid is not null and exists (
		select from unnest(f.conkey, f.confkey) k(here, there)
		join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.here and a.attname = 'bucket'
		join pg_attribute b on b.attrelid = f.confrelid and b.attnum = k.there and b.attname = 'bucket'))
union all
select c.relname, format('it has the trigger %s', g.tgname) from pg_trigger g join c on c.oid = g.tgrelid where not g.tgisinternal
order by 1, 2`

// Unspreadable says what keeps the schema of db from being spread by bucket, a sentence each: a table with neither
// bucket nor a place elsewhere, a unique index without bucket, a foreign key or a trigger that Citus refuses. It only reads.
func Unspreadable(ctx context.Context, db *sql.DB) ([]string, error) {
	tables, err := spread(ctx, db)
	if err != nil {
		return nil, err
	}
	return list(ctx, db, `select relname || ': ' || why from (`+unspreadable+`) w(relname, why)`, strings.Join(tables, ","), strings.Join(references(), ","))
}

// ErrNoCitus says that the database is an ordinary PostgreSQL.
var ErrNoCitus = errors.New("this database has no Citus, and nothing was changed: on every node install Citus 11 or newer for its version of " +
	"PostgreSQL, set shared_preload_libraries = 'citus', restart it, and run CREATE EXTENSION citus in this database; join the nodes with " +
	"citus_set_coordinator_host and citus_add_node, then run this again")

// Spread spreads the schema over the nodes of Citus: tables with a bucket by it, over so many shards, the others as
// elsewhere says. What is spread already is passed over, so that it may be run again: after a failure it goes on, after a
// new migration it does what is new. did is told of each table that was done. Without Citus it answers ErrNoCitus.
func Spread(ctx context.Context, db *sql.DB, shards int, did func(table, how string)) error {
	if shards < 1 || shards > 1024 {
		return fmt.Errorf("shards is %d: from 1 to 1024", shards)
	}
	var there bool
	if err := db.QueryRowContext(ctx, `select to_regproc('create_distributed_table') is not null and to_regproc('create_reference_table') is not null
		and to_regproc('citus_add_local_table_to_metadata') is not null and to_regclass('pg_dist_partition') is not null`).Scan(&there); err != nil {
		return err
	}
	if !there {
		return ErrNoCitus
	}
	if wrong, err := Unspreadable(ctx, db); err != nil {
		return err
	} else if len(wrong) > 0 {
		return fmt.Errorf("the schema can't be spread by bucket: %s", strings.Join(wrong, "; "))
	}
	done, err := list(ctx, db, `select logicalrelid::regclass::text from pg_dist_partition`)
	if err != nil {
		return err
	}
	skip := make(map[string]bool, len(done))
	for _, t := range done {
		skip[t] = true
	}
	steps, err := steps(ctx, db, shards)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if skip[s.table] {
			continue
		}
		if _, err := db.ExecContext(ctx, s.call, s.args...); err != nil {
			return fmt.Errorf("%s: %w", s.table, err)
		}
		did(s.table, s.how)
	}
	return nil
}

// step is a call of Citus that gives one table its place.
type step struct {
	table, how, call string
	args             []any
}

// steps are the calls in their order: the copies first, since a table may refer to them; then the table that the
// others lie beside, and the others.
func steps(ctx context.Context, db *sql.DB, shards int) ([]step, error) {
	tables, err := spread(ctx, db)
	if err != nil {
		return nil, err
	}
	var all []step
	for _, t := range references() {
		all = append(all, step{t, "a copy on every node", `select create_reference_table($1::text::regclass)`, []any{t}})
	}
	for _, t := range tables {
		s := step{t, "by bucket, beside " + first, `select create_distributed_table($1::text::regclass, $2, colocate_with => $3)`, []any{t, shardedBy, first}}
		if t == first {
			s = step{t, fmt.Sprintf("by bucket, over %d shards", shards),
				`select create_distributed_table($1::text::regclass, $2, colocate_with => 'none', shard_count => $3::int)`, []any{t, shardedBy, shards}}
		}
		all = append(all, s)
	}
	for _, t := range sorted(false) {
		all = append(all, step{t, "on the coordinator, for every node to ask", `select citus_add_local_table_to_metadata($1::text::regclass)`, []any{t}})
	}
	return all, nil
}

func references() []string { return sorted(true) }

// sorted are the tables that have copies on every node, or the others that are not spread.
func sorted(reference bool) (tables []string) {
	for t, p := range elsewhere {
		if p.reference == reference {
			tables = append(tables, t)
		}
	}
	slices.Sort(tables)
	return tables
}

// list reads rows of one text each.
func list(ctx context.Context, db *sql.DB, query string, args ...any) (all []string, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}
