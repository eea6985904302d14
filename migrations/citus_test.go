package migrations_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
	"lockstep/migrations"
)

// open opens a migrated database of the test's own.
func open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := ledger.Connect(context.Background(), ledgertest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db.DB
}

func run(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// Every table of the schema is spread by bucket, or is one of the few that are named with their reason; every unique
// index of what is spread carries the bucket, and no foreign key and no trigger leads out of it. What breaks that is
// named, table by table.
func TestSchemaIsSpreadByBucket(t *testing.T) {
	t.Parallel()
	db := open(t)
	wrong, err := migrations.Unspreadable(context.Background(), db)
	if err != nil || len(wrong) > 0 {
		t.Fatalf("%q, %v", wrong, err)
	}
	run(t, db,
		`create table strangers (id text primary key)`,
		`create table wide (bucket integer not null, id text, primary key (bucket, id))`,
		`create table keyless (bucket smallint not null, id text)`,
		`create unique index entries_seal on entries (seal)`,
		`create unique index grants_hidden on grants (id) include (bucket)`,
		`alter table holds add constraint holds_of_asset foreign key (metadata) references assets`,
		`alter table holds add constraint holds_of_wallet foreign key (bucket, wallet_id) references wallets`,
		`alter table wallets add unique (bucket, id, asset)`,
		`alter table topups add constraint topups_of_link foreign key (id) references stripe_links`,
		`create table crossed (bucket smallint not null, id text, n smallint not null, primary key (bucket, id), constraint crossed_wallet foreign key (n, id) references wallets (bucket, id))`,
		`create function nothing() returns trigger language plpgsql as 'begin return new; end'`,
		`create trigger flushes_told before insert on flushes for each row execute function nothing()`)
	if wrong, err = migrations.Unspreadable(context.Background(), db); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"crossed: its foreign key crossed_wallet leads to wallets",
		"entries: its unique index entries_seal is without bucket",
		"flushes: it has the trigger flushes_told",
		"grants: its unique index grants_hidden is without bucket",
		"keyless: it has no primary key",
		"strangers: it has no column bucket smallint not null without a default",
		"strangers: its unique index strangers_pkey is without bucket",
		"topups: its foreign key topups_of_link leads to stripe_links",
		"wide: it has no column bucket smallint not null without a default",
	}
	slices.Sort(wrong)
	if !slices.Equal(wrong, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(wrong, "\n"), strings.Join(want, "\n"))
	}
}

// The tables are spread in an order in which each finds what it lies beside; run again, only what is new is done, and
// after a failure the rest. Without Citus nothing is done, and it is said what is missing.
//
// Citus itself is not here: testdata/citus.sql writes down what is asked of it.
func TestSpread(t *testing.T) {
	t.Parallel()
	ctx, url := context.Background(), ledgertest.URL(t)
	plain, err := ledger.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	none := func(table, how string) { t.Errorf("%s was done", table) }
	if err := migrations.Spread(ctx, plain.DB, 64, none); !errors.Is(err, migrations.ErrNoCitus) {
		t.Fatalf("without Citus: %v", err)
	}
	stand, err := os.ReadFile("testdata/citus.sql")
	if err != nil {
		t.Fatal(err)
	}
	run(t, plain.DB, string(stand), `insert into citus.down values ('holds')`)

	x, err := ledger.Connect(ctx, url+"&search_path=public,citus")
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	var did []string
	note := func(table, _ string) { did = append(did, table) }
	for _, shards := range []int{0, 1025} {
		if err := migrations.Spread(ctx, x.DB, shards, none); err == nil || !strings.Contains(err.Error(), "from 1 to 1024") {
			t.Errorf("%d shards: %v", shards, err)
		}
	}
	if err := migrations.Spread(ctx, x.DB, 64, note); err == nil || !strings.Contains(err.Error(), "holds: ") || slices.Contains(did, "holds") {
		t.Errorf("with a node away: %v, after %q", err, did)
	}
	half := len(did)
	run(t, x.DB, `delete from citus.down`)
	if err := migrations.Spread(ctx, x.DB, 64, note); err != nil {
		t.Fatal(err)
	}
	var calls []string
	if err := x.Select(&calls, `select call from citus.calls order by n`); err != nil {
		t.Fatal(err)
	}
	if len(calls) != len(did) || half == 0 || half >= len(did) {
		t.Errorf("%d calls, %d told of, %d of them before the failure", len(calls), len(did), half)
	}
	at := func(call string) int { return slices.Index(calls, call) }
	wallets, entries := at("distributed wallets bucket hash none 64"), at("distributed entries bucket hash wallets -")
	assets, events := at("reference assets"), at("local stripe_events")
	if assets < 0 || wallets < assets || entries < wallets || events < entries {
		t.Errorf("in another order: %q", calls)
	}
	var left []string
	if err := x.Select(&left, `select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
		and not relispartition and oid not in (select logicalrelid from pg_dist_partition)`); err != nil || len(left) > 0 {
		t.Errorf("tables without a place: %q, %v", left, err)
	}

	run(t, x.DB, `create table coupons (bucket smallint not null, id text not null, constraint coupons_pkey primary key (bucket, id))`)
	did = nil
	if err := migrations.Spread(ctx, x.DB, 64, note); err != nil || !slices.Equal(did, []string{"coupons"}) {
		t.Errorf("again, with a new table: %q, %v", did, err)
	}
	run(t, x.DB, `create table strangers (id text primary key)`)
	if err := migrations.Spread(ctx, x.DB, 64, none); err == nil || !strings.Contains(err.Error(), "strangers") {
		t.Errorf("with a table that has no place: %v", err)
	}
}
