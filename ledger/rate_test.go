package ledger_test

import (
	"context"
	"math/big"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
)

func putFeature(t testing.TB, l *ledger.Ledger, in ledger.FeatureInput) ledger.Feature {
	t.Helper()
	f, err := l.PutFeature(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func rate(t testing.TB, l *ledger.Ledger, feature, quantity string) string {
	t.Helper()
	r, err := l.Rate(ctx, feature, dec(t, quantity), "")
	if err != nil {
		t.Fatalf("%s of %s: %v", quantity, feature, err)
	}
	return r.Amount.String()
}

func TestFeatureRefusals(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	tier := func(upTo, cost string) ledger.Tier {
		tr := ledger.Tier{UnitCost: dec(t, cost)}
		if upTo != "" {
			tr.UpTo = decp(t, upTo)
		}
		return tr
	}
	for _, tt := range []struct {
		param string
		in    ledger.FeatureInput
	}{
		{"key", ledger.FeatureInput{Key: "a b", Asset: "usd", UnitCost: decp(t, "1")}},
		{"key", ledger.FeatureInput{Asset: "usd", UnitCost: decp(t, "1")}},
		{"asset", ledger.FeatureInput{Key: "f", UnitCost: decp(t, "1")}},
		{"asset", ledger.FeatureInput{Key: "f", Asset: "unheard", UnitCost: decp(t, "1")}},
		{"unit_cost", ledger.FeatureInput{Key: "f", Asset: "usd"}},
		{"unit_cost", ledger.FeatureInput{Key: "f", Asset: "usd", UnitCost: decp(t, "-1")}},
		{"minimum_cost", ledger.FeatureInput{Key: "f", Asset: "usd", UnitCost: decp(t, "1"), MinimumCost: decp(t, "-1")}},
		{"tiers", ledger.FeatureInput{Key: "f", Asset: "usd", UnitCost: decp(t, "1"), Tiers: []ledger.Tier{tier("", "1")}, TierMode: "volume"}},
		{"tiers", ledger.FeatureInput{Key: "f", Asset: "usd", Tiers: []ledger.Tier{}, TierMode: "volume"}},
		{"tier_mode", ledger.FeatureInput{Key: "f", Asset: "usd", Tiers: []ledger.Tier{tier("", "1")}}},
		{"tier_mode", ledger.FeatureInput{Key: "f", Asset: "usd", UnitCost: decp(t, "1"), TierMode: "volume"}},
		{"tiers[0].up_to", ledger.FeatureInput{Key: "f", Asset: "usd", Tiers: []ledger.Tier{tier("5", "1")}, TierMode: "volume"}},
		{"tiers[0].up_to", ledger.FeatureInput{Key: "f", Asset: "usd", Tiers: []ledger.Tier{tier("", "1"), tier("", "1")}, TierMode: "volume"}},
		{"tiers[1].up_to", ledger.FeatureInput{Key: "f", Asset: "usd", Tiers: []ledger.Tier{tier("5", "1"), tier("5.0", "1"), tier("", "1")}, TierMode: "volume"}},
		{"tiers[1].unit_cost", ledger.FeatureInput{Key: "f", Asset: "usd", Tiers: []ledger.Tier{tier("5", "1"), tier("", "-1")}, TierMode: "volume"}},
	} {
		_, err := l.PutFeature(ctx, tt.in)
		if r, ok := err.(*ledger.Refusal); !ok || r.Param != tt.param {
			t.Errorf("%+v: %v, want a refusal of %s", tt.in, err, tt.param)
		}
	}
	if features, err := l.Features(ctx); err != nil || len(features) != 0 {
		t.Errorf("refused features are there: %v %v", features, err)
	}
	putFeature(t, l, ledger.FeatureInput{Key: "f", Asset: "usd", UnitCost: decp(t, "1")})
	for _, tt := range []struct{ feature, quantity, asset, param string }{
		{"g", "1", "", "feature"}, {"f", "0", "", "quantity"}, {"f", "-1", "", "quantity"}, {"f", "1", "eur", "asset"},
		{"f", "9000000000000000000", "", "quantity"},
	} {
		_, err := l.Rate(ctx, tt.feature, dec(t, tt.quantity), tt.asset)
		if r, ok := err.(*ledger.Refusal); !ok || r.Code != ledger.CodeInvalid || r.Param != tt.param {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestRating(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	tiers := []ledger.Tier{{UpTo: decp(t, "1000"), UnitCost: dec(t, "0.01"), FlatCost: decp(t, "1")},
		{UpTo: decp(t, "5000"), UnitCost: dec(t, "0.005")}, {UnitCost: dec(t, "0.001"), FlatCost: decp(t, "2")}}
	putFeature(t, l, ledger.FeatureInput{Key: "unit", Asset: "usd", UnitCost: decp(t, "0.002")})
	putFeature(t, l, ledger.FeatureInput{Key: "tiny", Asset: "usd", UnitCost: decp(t, "0.0000015")})
	putFeature(t, l, ledger.FeatureInput{Key: "free", Asset: "usd", UnitCost: decp(t, "0")})
	putFeature(t, l, ledger.FeatureInput{Key: "least", Asset: "usd", UnitCost: decp(t, "0.002"), MinimumCost: decp(t, "0.01")})
	putFeature(t, l, ledger.FeatureInput{Key: "graduated", Asset: "usd", Tiers: tiers, TierMode: "graduated"})
	putFeature(t, l, ledger.FeatureInput{Key: "volume", Asset: "usd", Tiers: tiers, TierMode: "volume"})
	for _, tt := range []struct{ feature, quantity, want string }{
		{"unit", "1532", "3.064"}, {"unit", "0.5", "0.001"},
		{"tiny", "1", "0.000002"}, {"tiny", "2", "0.000003"}, {"tiny", "3", "0.000005"}, {"tiny", "1000000", "1.5"},
		{"free", "10", "0"},
		{"least", "1", "0.01"}, {"least", "5", "0.01"}, {"least", "6", "0.012"},
		{"graduated", "1", "1.01"}, {"graduated", "1000", "11"}, {"graduated", "1001", "11.005"}, {"graduated", "5000", "31"},
		{"graduated", "6000", "34"}, {"graduated", "1000.5", "11.0025"},
		{"volume", "1", "1.01"}, {"volume", "1000", "11"}, {"volume", "1001", "5.005"}, {"volume", "5000", "25"}, {"volume", "6000", "8"},
	} {
		if got := rate(t, l, tt.feature, tt.quantity); got != tt.want {
			t.Errorf("%s of %s costs %s, want %s", tt.quantity, tt.feature, got, tt.want)
		}
	}
}

// Whatever the price and the quantity, what is charged is the exact cost, or less than one step above it.
func TestRatingIsExact(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	step := big.NewRat(1, 1_000_000)
	for range 100 {
		unit := ledger.Decimal{Digits: rng.Int64N(1e9), Scale: rng.IntN(15)}
		putFeature(t, l, ledger.FeatureInput{Key: "f", Asset: "usd", UnitCost: &unit})
		for range 20 {
			q := ledger.Decimal{Digits: 1 + rng.Int64N(1e6), Scale: rng.IntN(6)}
			r, err := l.Rate(ctx, "f", q, "")
			if ledger.IsCode(err, ledger.CodeInvalid) {
				continue // beyond what can be counted
			}
			if err != nil {
				t.Fatal(err)
			}
			exact, _ := new(big.Rat).SetString(unit.String())
			times, _ := new(big.Rat).SetString(q.String())
			got, _ := new(big.Rat).SetString(r.Amount.String())
			over := got.Sub(got, exact.Mul(exact, times))
			if over.Sign() < 0 || over.Cmp(step) >= 0 {
				t.Fatalf("seed %d: %s of %s costs %s, off by %s", seed, q, unit, r.Amount, over)
			}
		}
	}
}

// A change is a new version from its moment on; a debit keeps the version that it was rated by, and its key answers
// the first price for ever.
func TestVersions(t *testing.T) {
	t.Parallel()
	clock := newStepClock()
	l := ledgertest.New(t, ledger.Options{Now: clock.now})
	newCustomer(t, l, "acme", "10")
	soon := clock.now().Add(time.Hour)
	put := func(cost string, at *time.Time) ledger.Feature {
		return putFeature(t, l, ledger.FeatureInput{Key: "f", Asset: "usd", UnitCost: decp(t, cost), EffectiveAt: at})
	}
	if f := put("3", &soon); f.Version != 1 {
		t.Fatalf("first version: %+v", f)
	}
	if _, err := l.Rate(ctx, "f", dec(t, "1"), ""); !ledger.IsCode(err, ledger.CodeInvalid) {
		t.Errorf("before the first version: %v", err)
	}
	put("1", nil)
	if f := put("1", nil); f.Version != 2 {
		t.Errorf("the same again made version %d", f.Version)
	}
	if got := rate(t, l, "f", "1"); got != "1" {
		t.Errorf("now: %s", got)
	}
	spend := func(key string) ledger.Debit {
		t.Helper()
		r, err := l.Rate(ctx, "f", dec(t, "1"), "")
		if err != nil {
			t.Fatal(err)
		}
		d, _, err := l.Debit(ctx, ledger.DebitInput{Customer: "acme", Asset: r.Asset, Amount: r.Amount, Rated: &r, Once: ledger.Once{Key: key, Request: 7}})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := spend("k")
	clock.step(time.Hour)
	if got := rate(t, l, "f", "1"); got != "3" {
		t.Errorf("after an hour: %s", got)
	}
	if again := spend("k"); again.ID != first.ID || again.Amount != first.Amount || again.FeatureVersion != 2 {
		t.Errorf("the key again: %+v, first %+v", again, first)
	}
	if d := spend("l"); d.FeatureVersion != 1 || d.Feature != "f" || d.Quantity != "1" || d.Amount != 3_000_000 {
		t.Errorf("a new debit: %+v", d)
	}
	put("2", nil)
	if got := rate(t, l, "f", "1"); got != "2" {
		t.Errorf("after a change at once: %s", got)
	}
	all, err := l.FeatureVersions(ctx, "f")
	if err != nil || len(all) != 3 {
		t.Errorf("versions: %v %v", all, err)
	}
	if in, err := l.Feature(ctx, "f"); err != nil || in.Version != 3 {
		t.Errorf("in force: %+v %v", in, err)
	}
}

// Versions that are set at once from many sides are numbered without a gap, and every rating is by one of them.
func TestVersionsUnderConcurrency(t *testing.T) {
	t.Parallel()
	l := ledgertest.New(t, ledger.Options{})
	putFeature(t, l, ledger.FeatureInput{Key: "f", Asset: "usd", UnitCost: decp(t, "0.5")})
	var wg sync.WaitGroup
	stop, cancel := context.WithCancel(ctx)
	for i := range 4 {
		wg.Go(func() {
			for n := range 5 {
				for try := 0; ; try++ {
					_, err := l.PutFeature(ctx, ledger.FeatureInput{Key: "f", Asset: "usd", UnitCost: &ledger.Decimal{Digits: int64(1 + i*5 + n)}})
					if err == nil {
						break
					}
					if try > 20 {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	reads := make(chan struct{})
	go func() {
		defer close(reads)
		for stop.Err() == nil {
			if _, err := l.Rate(ctx, "f", ledger.Decimal{Digits: 1}, ""); err != nil {
				t.Error(err)
			}
		}
	}()
	wg.Wait()
	cancel()
	<-reads
	all, err := l.FeatureVersions(ctx, "f")
	if err != nil || len(all) != 21 || all[20].Version != 21 {
		t.Errorf("%d versions, %v", len(all), err)
	}
}
