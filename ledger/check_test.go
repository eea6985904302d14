package ledger_test

import (
	"strings"
	"testing"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// Check finds each way in which books can be wrong. The books are spoiled by hand, past every guard.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ spoil, finds string }{
		{`update wallets set total = total + 1`, "a wallet's total is the sum of its entries"},
		{`delete from entries where seq = 1`, "balance_after follows from the entry before"},
		{`update entries set balance_after = balance_after + 1 where seq = 2`, "balance_after follows from the entry before"},
		{`update entries set created_at = created_at - interval '1 day' where seq = 2`, "time does not go back"},
		{`update entries set amount = amount - 1 where seq = 2`, "an entry's parts sum to its amount"},
		{`update grants set remaining = remaining - 1 where in_force`, "a grant has left what its entries' parts say"},
		{`update entries set parts = replace(parts, 'grt_', 'grx_') where seq = 2`, "every part is of a grant of the entry's wallet"},
		{`update grants set amount = amount + 1`, "a grant in force was sold once"},
		{`update grants set source_id = 'grt_another' where in_force`, "a grant in force was sold once"},
		{`update wallets set debt = debt + 5`, "a wallet's total is what its grants have left"},
		{`update wallets set pending = 0`, "a wallet's pending is its grants that wait"},
		{`alter table grants drop constraint grants_live_means; update grants set live = not live where in_force`, "a grant that can be spent is live"},
		{`update topups set status = 'failed'`, "a top-up has its grant"},
		{`drop index topups_one_in_flight; insert into topups (bucket, id, wallet_id, customer_id, trigger, mode, status, amount, charge, currency, grant_id, run_at, created_at)
			select bucket, id || 'x', wallet_id, customer_id, trigger, mode, status, amount, charge, currency, grant_id, run_at, created_at from topups`, "at most one top-up of a wallet is in flight"},
		{`alter table topups drop constraint topups_within_cap; update topups set cap_amount = 10, cap_used = 2000`, "stays within the cap"},
		{`update entries set reason = 'another' where seq = 2`, "seq 2 of wal_"},
		{`update entries set metadata = '{"a":"b"}' where seq = 1`, "seq 1 of wal_"},
		{`update entries set created_at = created_at + interval '1 microsecond' where seq = 2`, "seq 2 of wal_"},
		{`update entries set seal = null where seq = 2`, "the last seal is not the wallet's"},
		{`update entries set used_after = used_after + 1 where seq = 2`, "usage so far is what debits"},
		{`update wallets set alert_state = 'depleted'`, "nobody is left untold"},
		{`update wallets set quiet_from = total + 1`, "nobody is left untold"},
		{`insert into clawback_grants (bucket, id, grant_id, steps, entry_id) select bucket, 're_x', id, amount + 1, 'ent_none' from grants`, "no more of a grant was taken back"},
		{`insert into invoice_spendings (bucket, id, wallet_id, place, minor, steps, entry_id) select bucket, 'cbtxn_x', id, 0, 1, 5, 'ent_none' from wallets`, "what an invoice took of a wallet is an entry"},
		{`update mirrors set credit = credit + 1`, "a mirror's credit is the sum"},
		{`insert into flushes (bucket, id, customer_id, amount, params, status, created_at) select bucket, 'flu_x', id, 5, '{}', 'done', now() from customers`, "every flush that is done has its transaction"},
		{`insert into entries (bucket, wallet_id, seq, id, type, amount, balance_after, parts, refers_to, created_at)
			select bucket, id, n, 'ent_' || n, 'stripe_balance', 0, 0, '', 'cbtxn_1', now() from wallets, (values (98), (99)) v(n)`, "no transaction is booked twice"},
		{`update grants set source_type = 'stripe_invoice' where in_force`, "a line that was sold gave what its row says"},
		{`insert into sold_lines (bucket, id, wallet_id, steps, grant_id) select bucket, source_id || '/rollover', wallet_id, 5, id from grants where in_force`,
			"no more is carried over to a period"},
	} {
		t.Run(tt.finds, func(t *testing.T) {
			t.Parallel()
			l, err := ledger.Open(ctx, ledger.Options{URL: ledgertest.URL(t)}) // not New: these books end wrong
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			newCustomer(t, l, "acme", "10")
			putRule(t, l, "acme", rule(t, 10_000))
			if _, _, err := debit(t, l, "acme", "6", ""); err != nil {
				t.Fatal(err)
			}
			if findings, err := l.Check(ctx); err != nil || len(findings) > 0 {
				t.Fatalf("before: %v %v", findings, err)
			}
			if _, err := l.DB().Exec(tt.spoil); err != nil {
				t.Fatal(err)
			}
			findings, err := l.Check(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(ledger.Describe(findings), tt.finds) {
				t.Errorf("not found; found:\n%s", ledger.Describe(findings))
			}
			// Books so large that every bucket is a part of its own are found wrong in the same places, each once.
			if _, err := l.DB().Exec(`update pg_class set reltuples = 1e9 where relname = 'entries'`); err != nil {
				t.Fatal(err)
			}
			inParts, err := l.Check(ctx)
			if err != nil || ledger.Describe(inParts) != ledger.Describe(findings) {
				t.Errorf("in parts: %v\n%s\nin one:\n%s", err, ledger.Describe(inParts), ledger.Describe(findings))
			}
		})
	}
}

// The digest of the books is the same for the same books, and another for any other.
func TestDigest(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	seen := make(map[string]string)
	look := func(after string, fresh bool) {
		t.Helper()
		v, err := l.Verify(ctx, func(done, of int) {
			if done >= of {
				t.Errorf("step %d of %d", done, of)
			}
		})
		if err != nil || len(v.Findings) > 0 || len(v.Digest) != 64 || strings.ToLower(v.Digest) != v.Digest {
			t.Fatalf("%+v %v", v, err)
		}
		if before, ok := seen[v.Digest]; ok == fresh {
			t.Errorf("%s: digest %s; before: %q", after, v.Digest, before)
		}
		seen[v.Digest] = after
	}
	look("nothing", true)
	newCustomer(t, l, "acme", "10")
	newCustomer(t, l, "other", "10")
	look("credit", true)
	look("nothing more", false)
	mustDebit(t, l, "acme", "1")
	look("a debit", true)
	mustDebit(t, l, "other", "1")
	look("another", true)
}

// loadSQL makes wallets, each with a grant that its first entry books.
const loadSQL = `
create temporary table loaded as select (n % 64)::smallint as bucket, to_char(n, 'FM00000000') as name from generate_series(1, 10000) n;
insert into customers (bucket, id, created_at) select bucket, name, now() from loaded;
insert into wallets (bucket, id, customer_id, asset, scale, scope, total, seq, entered_at, created_at)
	select bucket, 'wal_' || name, name, 'usd', 6, 'all', 5, 1, now(), now() from loaded;
insert into grants (bucket, id, wallet_id, amount, remaining, kind, kind_rank, priority, covers, status, live, in_force,
		effective_at, reason, source_type, source_id, created_at)
	select bucket, 'grt_' || name, 'wal_' || name, 5, 5, 'promotional', 1, 50, 'usage', 'confirmed', true, true, now(), '', 'api', 'grt_' || name, now() from loaded;
insert into entries (bucket, wallet_id, seq, id, type, amount, balance_after, parts, reason, refers_to, created_at)
	select bucket, 'wal_' || name, 1, 'ent_' || name, 'grant', 5, 5, 'grt_' || name || ':5', '', 'grt_' || name, now() from loaded`

// Books that nobody has analyzed since they were loaded are analyzed before they are checked: a join that is planned for
// a few rows does not end with many. What was analyzed, and what is small, is left.
func TestCheckKnowsTheTables(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{Connections: 1})
	analyzed := func() (names string) {
		t.Helper()
		if findings, err := l.Check(ctx); err != nil || len(findings) > 0 {
			t.Fatal(findings, err)
		}
		if err := l.DB().Get(&names, `select coalesce(string_agg(tablename, ' ' order by tablename), '') from (
			select distinct tablename from pg_stats where schemaname = current_schema() and tablename in ('customers', 'wallets', 'grants', 'entries')) s`); err != nil {
			t.Fatal(err)
		}
		return names
	}
	for _, table := range []string{"customers", "wallets", "grants", "entries"} { // before the server's own analyzing comes by
		l.DB().MustExec(`alter table ` + table + ` set (autovacuum_enabled = off)`)
	}
	newCustomer(t, l, "acme", "10")
	before := analyzed()
	l.DB().MustExec(loadSQL)
	if after := analyzed(); before != "" || after != "entries grants wallets" {
		t.Errorf("%q analyzed while all was small, %q once it was not", before, after)
	}
	l.DB().MustExec(`delete from pg_statistic where starelid = 'wallets'::regclass`)
	if again := analyzed(); again != "entries grants" {
		t.Errorf("analyzed again though known: %q", again)
	}
}

// Books in many parts are read by plans that know each part's bounds: one for any bounds takes a part for small.
func TestCheckPlansEachPart(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{Connections: 1})
	newCustomer(t, l, "acme", "10")
	l.DB().MustExec(`update pg_class set reltuples = 1e9 where relname = 'entries'`)
	if findings, err := l.Check(ctx); err != nil || len(findings) > 0 {
		t.Fatal(findings, err)
	}
	var planned struct{ Custom, Generic int }
	if err := l.DB().Get(&planned, `select sum(custom_plans) as custom, sum(generic_plans) as generic from pg_prepared_statements
		where statement like '%broken(subject%'`); err != nil || planned.Custom < 64 || planned.Generic > 0 {
		t.Errorf("%+v %v", planned, err)
	}
}
