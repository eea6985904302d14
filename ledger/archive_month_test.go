package ledger_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

// detach takes a month from the archive for the length of f.
func detach(t testing.TB, l *ledger.Ledger, month time.Time, f func()) {
	t.Helper()
	name := "archived_entries_" + month.Format("2006_01")
	change(t, l, `alter table archived_entries detach partition `+name)
	f()
	change(t, l, fmt.Sprintf(`alter table archived_entries attach partition %s for values from ('%s') to ('%s')`,
		name, month.Format("2006-01-02 15:04:05+00"), month.AddDate(0, 1, 0).Format("2006-01-02 15:04:05+00")))
}

// months are books of January to April, archived up to April: acme has entries in each month, quiet none in February, and
// gone in no other.
type months struct {
	t                  testing.TB
	l                  *ledger.Ledger
	clock              *stepClock
	jan, feb, mar, apr time.Time
	debits             []string // one in January, three in February, two in March, two in April
}

func newMonths(t testing.TB) *months {
	clock := newStepClock()
	b := &months{t: t, l: ledgertest.New(t, ledger.Options{Now: clock.now}), clock: clock}
	clock.step(time.Date(clock.now().Year()+1, 1, 1, 0, 0, 0, 0, time.UTC).Sub(clock.now()))
	b.jan = clock.now()
	b.feb, b.mar, b.apr = b.jan.AddDate(0, 1, 0), b.jan.AddDate(0, 2, 0), b.jan.AddDate(0, 3, 0)
	newCustomer(t, b.l, "acme", "10")
	newCustomer(t, b.l, "quiet", "10")
	newCustomer(t, b.l, "gone", "")
	b.spend(b.jan.Add(20*day), "acme")
	clock.step(b.feb.Add(day).Sub(clock.now()))
	grant(t, b.l, ledger.GrantInput{Customer: "gone", Amount: dec(t, "10")})
	b.spend(b.feb.Add(2*day), "acme", "acme", "gone")
	b.spend(b.mar.Add(2*day), "acme", "quiet")
	b.spend(b.apr.Add(2*day), "acme", "quiet")
	clock.step(35 * day)
	if a := archive(t, b.l, b.apr); len(a.Months) != 3 || !a.Oldest.Equal(b.jan) {
		t.Fatalf("%+v", a)
	}
	return b
}

func (b *months) spend(at time.Time, customers ...string) {
	b.clock.step(at.Sub(b.clock.now()))
	for _, c := range customers {
		d, _, err := debit(b.t, b.l, c, "1", "")
		if err != nil {
			b.t.Fatal(err)
		}
		b.debits = append(b.debits, d.ID)
	}
}

// refused wants err to say that something was detached, or to be none.
func (b *months) refused(what string, err error, want bool) {
	b.t.Helper()
	if (err != nil) != want || want && (!ledger.IsCode(err, ledger.CodeState) || !strings.Contains(err.Error(), "detached")) {
		b.t.Errorf("%s: %v", what, err)
	}
}

// Without a month a balance is answered exactly or not at all, and a list has no gap; and the books say what they lack.
func TestDetachedMonthOfAWallet(t *testing.T) {
	t.Parallel()
	b := newMonths(t)
	acme, quiet, gone := wallet(t, b.l, "acme"), wallet(t, b.l, "quiet"), wallet(t, b.l, "gone")
	detach(t, b.l, b.feb, func() {
		for _, at := range []struct {
			w       *ledger.Wallet
			at      time.Time
			seq     int64
			refused bool
		}{
			{&acme, b.jan.Add(-1), 0, false}, {&acme, b.jan.Add(day), 1, false}, {&acme, b.jan.Add(21 * day), 2, false},
			// The last by then may have been in the first days of February, which nobody knows here.
			{&acme, b.feb, 0, true}, {&acme, b.feb.Add(3 * day), 0, true}, {&acme, b.mar.Add(day), 0, true},
			{&acme, b.mar.Add(3 * day), 5, false}, {&acme, b.apr.Add(day), 5, false}, {&acme, b.apr.Add(3 * day), 6, false},
			{&quiet, b.feb.Add(day), 1, false}, {&quiet, b.mar.Add(day), 1, false}, {&quiet, b.mar.Add(3 * day), 2, false},
			{&gone, b.jan.Add(20 * day), 0, true}, {&gone, b.feb.Add(3 * day), 0, true}, {&gone, b.clock.now(), 0, true},
		} {
			_, seq, err := b.l.BalanceAt(ctx, at.w, at.at)
			b.refused(fmt.Sprint("balance of ", at.w.Customer, " at ", at.at), err, at.refused)
			if err == nil && seq != at.seq {
				t.Errorf("balance of %s at %v: seq %d, want %d", at.w.Customer, at.at, seq, at.seq)
			}
		}
		for _, page := range []struct {
			w     *ledger.Wallet
			limit int
			want  bool
		}{{&acme, 2, false}, {&acme, 3, true}, {&acme, 100, true}, {&quiet, 100, false}, {&gone, 1, true}} {
			_, err := b.l.Entries(ctx, page.w, "", page.limit)
			b.refused(fmt.Sprint("entries of ", page.w.Customer), err, page.want)
		}
		findings, err := b.l.Check(ctx)
		if err != nil || len(findings) == 0 || !strings.Contains(findings[0].String(), "archived_entries_"+b.feb.Format("2006_01")+": the month is detached") {
			t.Errorf("check: %v, %v", findings, err)
		}
	})
	if _, seq, err := b.l.BalanceAt(ctx, &acme, b.feb.Add(3*day)); err != nil || seq != 4 {
		t.Errorf("attached again: seq %d, %v", seq, err)
	}
}

// What adds up the entries of some time does so only where all of them are there.
func TestDetachedMonthInReports(t *testing.T) {
	t.Parallel()
	b := newMonths(t)
	detach(t, b.l, b.feb, func() {
		for _, from := range []*time.Time{nil, &b.jan, &b.feb, &b.mar} {
			for _, to := range []*time.Time{nil, &b.feb, &b.mar, &b.apr} {
				if from != nil && to != nil && !from.Before(*to) {
					continue
				}
				var n int
				err := b.l.Export(ctx, ledger.ExportInput{From: from, To: to}, func(int64, int64) {}, func(*ledger.ExportedEntry) error { n++; return nil })
				b.refused(fmt.Sprint("export from ", from, " to ", to), err, from != &b.mar && to != &b.feb)
				if want := map[bool]int{true: 4, false: 2}[to == nil]; from == &b.mar && n != want {
					t.Errorf("export from March to %v has %d entries", to, n)
				}
			}
		}
		_, err := b.l.Revenue(ctx, b.feb, b.apr)
		b.refused("revenue since February", err, true)
		_, err = b.l.Revenue(ctx, b.mar, b.apr)
		b.refused("revenue since March", err, false)
		any := rule(t, 0)
		_, err = b.l.Simulate(ctx, wallet(t, b.l, "acme").ID, ledger.SimulationInput{Days: 400, Rule: &any})
		b.refused("a simulation", err, true)
	})
}

// Nobody is kept from spending by what was detached, and it is known how fast; but a debit is reversed only where it is
// known what was given back of it before.
func TestDetachedMonthOfDebits(t *testing.T) {
	t.Parallel()
	b := newMonths(t)
	detach(t, b.l, b.feb, func() {
		for i, month := range []time.Month{1, 2, 2, 2, 3, 3, 4, 4} {
			_, err := b.l.DebitByID(ctx, b.debits[i])
			b.refused(fmt.Sprint("debit ", i), err, month == time.February)
			_, _, err = b.l.Reverse(ctx, b.debits[i], decp(t, "0.1"), "", ledger.Once{})
			b.refused(fmt.Sprint("reversal of debit ", i), err, month <= time.February)
		}
		for c, back := range map[string]int64{"acme": 200_000, "quiet": 200_000, "gone": 0} {
			w := wallet(t, b.l, c)
			minutes := int32(30)
			in := atOnce(t, 0)
			in.RunwayMinutes = &minutes
			if _, err := b.l.PutRule(ctx, w.ID, in); err != nil {
				t.Error(err)
			}
			for range 2 {
				if _, _, err := debit(t, b.l, c, "1", ""); err != nil {
					t.Error(err)
				}
			}
			if err := b.l.LookAhead(ctx); err != nil {
				t.Error(err)
			}
			if f, err := b.l.Forecast(ctx, w.ID); err != nil || f.Burn[2].Used != 2_000_000-back {
				t.Errorf("%s: %+v, %v", c, f, err)
			}
		}
	})
}

// A month that is detached before it is whole is not begun anew.
func TestArchiveRefusesADetachedMonth(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	clock.step(time.Date(clock.now().Year()+1, 1, 1, 0, 0, 0, 0, time.UTC).Sub(clock.now()))
	jan := clock.now()
	newCustomer(t, l, "acme", "10")
	clock.step(10 * day)
	if _, _, err := debit(t, l, "acme", "1", ""); err != nil {
		t.Fatal(err)
	}
	clock.step(36 * day)
	archive(t, l, jan.Add(day))
	detach(t, l, jan, func() {
		_, err := l.Archive(ctx, ledger.ArchiveInput{Before: jan.Add(11 * day)}, func(int64, int64) {})
		if !ledger.IsCode(err, ledger.CodeState) || !strings.Contains(err.Error(), "attach") {
			t.Errorf("archived beside a detached month: %v", err)
		}
	})
	if a := archive(t, l, jan.Add(11*day)); a.Entries != 1 {
		t.Errorf("attached again: %+v", a)
	}
}

// What a dispute took comes back when it is won, however long ago its entry was archived; where that is detached, the
// dispute waits.
func TestArchivedTakingComesBack(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	c, topup := topped(t, l)
	settle(t, l, ledger.Outcome{Topup: topup, Status: "succeeded", PaymentIntent: "pi_topped", Received: 2000})
	look := func(status string) error {
		return l.ClawBack(ctx, c.Ref, ledger.Purchase{PaymentIntent: "pi_topped", Topup: topup, Received: 2000}, []ledger.MoneyBack{{ID: "dp_1", Kind: "dispute",
			Amount: 900, Currency: "usd", Status: status, Stands: status != "won", Open: status != "won", Final: status == "won", Created: time.Unix(2, 0)}})
	}
	taken := time.Date(clock.now().UTC().Year(), clock.now().UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	if err := look("needs_response"); err != nil || available(t, l, "acme") != "11" {
		t.Fatalf("%v, %s available", err, available(t, l, "acme"))
	}
	clock.step(70 * day)
	if a := archive(t, l, clock.now().Add(-35*day)); a.Entries == 0 {
		t.Fatalf("%+v", a)
	}
	detach(t, l, taken, func() {
		if err := look("won"); !ledger.IsCode(err, ledger.CodeState) || available(t, l, "acme") != "11" {
			t.Errorf("won while the month is detached: %v, %s available", err, available(t, l, "acme"))
		}
	})
	if err := look("won"); err != nil || available(t, l, "acme") != "20" {
		t.Errorf("won: %v, %s available", err, available(t, l, "acme"))
	}
}
