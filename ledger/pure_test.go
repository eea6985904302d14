package ledger

import (
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What is not an exact decimal is refused, whatever a looser reader would make of it.
func TestParseDecimalRefuses(t *testing.T) {
	for _, s := range []string{"", "-", ".", "1.", ".5", "+1", " 1", "1 ", "1e3", "1E400", "NaN", "Inf", "0x10", "1,5", "1_000", "--1",
		"1.5.2", "٣", "9223372036854775808", "0.0000000000000000001", strings.Repeat("9", 100), strings.Repeat("0", 1<<20)} {
		if d, ok := ParseDecimal(s); ok {
			t.Errorf("%.40q was read as %v", s, d)
		}
	}
}

// A decimal is written as it was read, less what adds nothing, and its steps are what exact arithmetic says.
func TestDecimalIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scale := rapid.Int16Range(0, 9).Draw(t, "scale")
		steps := rapid.Int64Range(-math.MaxInt64, math.MaxInt64).Draw(t, "steps")
		text := FormatSteps(steps, scale)
		d, ok := ParseDecimal(text)
		if !ok {
			t.Fatalf("%q was not read", text)
		}
		back, ok := d.steps(scale)
		if !ok || back != steps {
			t.Fatalf("%d steps of scale %d became %q and then %d", steps, scale, text, back)
		}
		want, _ := new(big.Rat).SetString(text)
		if got := new(big.Rat).SetFrac(big.NewInt(steps), pow10(int(scale))); got.Cmp(want) != 0 {
			t.Fatalf("%q is not %v", text, got)
		}
		if d.String() != text {
			t.Fatalf("%q was written as %q", text, d.String())
		}
	})
}

// Burning takes what is asked or all there is, in order, and nothing from nowhere.
func TestBurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		frees := rapid.SliceOfN(rapid.Int64Range(0, 1000), 0, 8).Draw(t, "free")
		amount := rapid.Int64Range(1, 5000).Draw(t, "amount")
		tranches := make([]tranche, len(frees))
		total := int64(0)
		for i, f := range frees {
			tranches[i] = tranche{id: string(rune('a' + i)), free: f, was: f}
			total += f
		}
		parts, short := burn(tranches, amount)
		taken := int64(0)
		for _, p := range parts {
			if p.Amount >= 0 {
				t.Fatalf("a part of %d", p.Amount)
			}
			taken -= p.Amount
		}
		if taken+short != amount || short != max(0, amount-total) {
			t.Fatalf("took %d and lacked %d of %d with %d there", taken, short, amount, total)
		}
		for i, tr := range tranches {
			if tr.free < 0 || tr.free > tr.was {
				t.Fatalf("tranche %d went from %d to %d", i, tr.was, tr.free)
			}
			if i > 0 && tr.free < tr.was && tranches[i-1].free > 0 {
				t.Fatal("a later tranche burned before an earlier one was empty")
			}
		}
	})
}

// Buying rounds toward the seller by less than one minor unit, and worth never exceeds what was charged.
func TestPriceRounding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := price{pico: rapid.Int64Range(1, 1e15).Draw(t, "pico"), currency: rapid.SampledFrom([]string{"usd", "jpy", "kwd"}).Draw(t, "currency")}
		scale := rapid.Int16Range(0, 9).Draw(t, "scale")
		steps := rapid.Int64Range(0, 1e12).Draw(t, "steps")
		worth, ok1 := p.worth(steps, scale)
		charge, ok2 := p.charge(steps, scale)
		if !ok1 || !ok2 {
			t.Skip("more than can be counted")
		}
		if charge < worth || charge > worth+1 {
			t.Fatalf("worth %d and charged %d", worth, charge)
		}
		if bought, ok := p.buys(charge, scale); ok && bought < steps {
			t.Fatalf("%d was charged for %d steps and buys %d", charge, steps, bought)
		}
	})
}

// Every moment lies in exactly one period, and the next begins where it ends.
func TestPeriods(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "at"), 0)
		interval := rapid.SampledFrom([]string{"day", "week", "month"}).Draw(t, "interval")
		from, to := period(interval, at)
		if at.Before(from) || !at.Before(to) {
			t.Fatalf("%v is not in %v–%v", at.UTC(), from, to)
		}
		if next, _ := period(interval, to); !next.Equal(to) {
			t.Fatalf("the period after %v begins at %v", to, next)
		}
		if last, _ := period(interval, to.Add(-time.Nanosecond)); !last.Equal(from) {
			t.Fatalf("the last instant before %v is in the period from %v", to, last)
		}
		if interval == "week" && from.Weekday() != time.Monday {
			t.Fatalf("a week that begins on %v", from.Weekday())
		}
	})
}

// Ids sort as they were made, carry their bucket, and are never the same.
func TestIDs(t *testing.T) {
	var s idSource
	now := time.Now()
	last := ""
	for i := range 5000 {
		if i%7 == 0 {
			now = now.Add(time.Millisecond)
		}
		if i%1000 == 0 {
			now = now.Add(-5 * time.Millisecond) // a clock that steps back
		}
		bucket := int16(i % Buckets)
		id := s.newID("wal_", bucket, now)
		if id <= last {
			t.Fatalf("%s does not come after %s", id, last)
		}
		last = id
		if got, ok := bucketOfID("wal_", id); !ok || got != bucket {
			t.Fatalf("%s says bucket %d, %v; want %d", id, got, ok, bucket)
		}
	}
	for _, bad := range []string{"", "wal_", "grt_" + last[4:], "wal_" + strings.Repeat("u", 20), "wal_" + strings.Repeat("0", 21)} {
		if _, ok := bucketOfID("wal_", bad); ok {
			t.Errorf("%q passed for an id", bad)
		}
	}
}

// The id of a debit's entry sorts by its moment, ends in its bucket as every id does, and says where the entry is.
func TestDebitIDs(t *testing.T) {
	var ids idSource
	at := time.UnixMilli(1_790_000_000_123)
	w := &Wallet{ID: ids.newID("wal_", 41, at), Bucket: 41}
	before := ""
	for _, seq := range []int64{1, 2, 31, 32, 1<<seqBits - 1, 1 << seqBits, 1<<seqBits + 1, 5<<seqBits + 77} {
		w.Seq = seq
		id := debitEntryID(w, at.Add(time.Duration(seq)*time.Millisecond))
		if id <= before {
			t.Errorf("%s does not sort after %s", id, before)
		}
		before = id
		tail, low, ok := debitPlace(id)
		if !ok || tail != w.ID[len(w.ID)-walletTail:] || low != seq%(1<<seqBits) {
			t.Errorf("%s of seq %d is at %q, %d, %t", id, seq, tail, low, ok)
		}
		if bucket, ok := bucketOfID("ent_", id); !ok || bucket != 41 {
			t.Errorf("%s is of bucket %d, %t", id, bucket, ok)
		}
	}
	if _, _, ok := debitPlace(ids.newID("ent_", 41, at)); ok {
		t.Error("an id of another entry says that it has a place")
	}
}
