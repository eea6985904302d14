package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// An export is all entries that are wanted, each once, in order, from short wallets and long ones; and it ends where
// its taker fails.
func TestExport(t *testing.T) {
	t.Parallel()
	l, err := ledger.Open(ctx, ledger.Options{URL: ledgertest.URL(t)}) // not New: these books are made up
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i, n := range []int{0, 3, 25_000, 9_999, 1, 10_000, 10_001} {
		c := newCustomer(t, l, fmt.Sprint("c", i), "")
		for _, made := range []string{`
			insert into entries (bucket, wallet_id, seq, id, type, amount, balance_after, parts, created_at)
			select w.bucket, w.id, n, 'ent_' || w.id || n, 'debit', n, n, 'grt_x:' || n, timestamptz '2026-01-01' + n * interval '1 second' from wallets w, generate_series(1, $1::bigint) n
			where w.customer_id = $2`,
			`update wallets set seq = $1::bigint, created_at = '2026-01-01', entered_at = timestamptz '2026-01-01' + $1 * interval '1 second' where customer_id = $2`} {
			if _, err := l.DB().Exec(made, n, c.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := func(seconds int) *time.Time {
		t := time.Date(2026, 1, 1, 0, 0, seconds, 0, time.UTC)
		return &t
	}
	long := wallet(t, l, "c2")
	for name, tt := range map[string]struct {
		in    ledger.ExportInput
		where string
	}{
		"all":                  {ledger.ExportInput{}, `true`},
		"a customer":           {ledger.ExportInput{Customer: ledger.Ref{Bucket: long.Bucket, ID: "c2"}}, `customer_id = 'c2'`},
		"a wallet":             {ledger.ExportInput{Wallet: long.ID}, `customer_id = 'c2'`},
		"from":                 {ledger.ExportInput{From: at(9_999)}, `e.created_at >= '2026-01-01 02:46:39+00'`},
		"to":                   {ledger.ExportInput{To: at(10_001)}, `e.created_at < '2026-01-01 02:46:41+00'`},
		"from and to":          {ledger.ExportInput{From: at(2), To: at(12_000)}, `e.created_at >= '2026-01-01 00:00:02+00' and e.created_at < '2026-01-01 03:20:00+00'`},
		"before there was any": {ledger.ExportInput{To: at(1)}, `false`},
		"after all":            {ledger.ExportInput{From: at(25_001)}, `false`},
		"backwards":            {ledger.ExportInput{From: at(12_000), To: at(2)}, `false`},
	} {
		var want, got []string
		if err := l.DB().Select(&want, `select e.wallet_id || ' ' || e.seq || ' ' || e.amount || ' ' || w.customer_id || ' ' || w.asset from entries e join wallets w on w.bucket = e.bucket and w.id = e.wallet_id
			where `+tt.where+` order by e.bucket, e.wallet_id, e.seq`); err != nil {
			t.Fatal(err)
		}
		done, of := int64(0), int64(0)
		err := l.Export(ctx, tt.in, func(d, all int64) { done, of = d, all }, func(e *ledger.ExportedEntry) error {
			got = append(got, fmt.Sprint(e.Wallet, " ", e.Seq, " ", e.Amount, " ", e.Customer, " ", e.Asset))
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %d entries, want %d; %v", name, len(got), len(want), err)
		}
		if done != of {
			t.Errorf("%s: ended at %d of %d", name, done, of)
		}
	}
	full := errors.New("the disk is full")
	n := 0
	err = l.Export(ctx, ledger.ExportInput{}, func(int64, int64) {}, func(*ledger.ExportedEntry) error {
		if n++; n == 12_345 {
			return full
		}
		return nil
	})
	if !errors.Is(err, full) || n != 12_345 {
		t.Errorf("after %d entries: %v", n, err)
	}
}
