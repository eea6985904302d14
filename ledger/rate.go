package ledger

import (
	"context"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The rate card says what usage of a feature costs. A feature has versions; the one in force is that with the
// latest effective_at that has come, and of two with the same, the later one. A version is never changed, and a
// debit keeps the one that it was rated by.
//
// Rating is exact: quantity × cost is worked out in whole, tiers and minimum included, and only the sum is brought
// to the asset's steps, once. What is left over of a step is charged as a whole step, so nothing is sold below its
// price and no event costs a step more than it. Tiers are of one event's quantity: graduated prices each part of it
// by its own tier, volume prices all of it by the tier that it ends in.

// Tier is one step of a price that depends on the quantity.
type Tier struct {
	UpTo     *Decimal `json:"up_to"` // inclusive; nil: without end
	UnitCost Decimal  `json:"unit_cost"`
	FlatCost *Decimal `json:"flat_cost,omitempty"` // once for an event that reaches the tier
}

// Feature is one version of what a feature costs, in its asset's unit.
type Feature struct {
	Key         string
	Version     int
	Asset       string
	Name        string
	UnitCost    *Decimal // this or Tiers
	Tiers       []Tier
	TierMode    string // graduated, volume
	MinimumCost *Decimal
	EffectiveAt time.Time
	CreatedAt   time.Time
}

// rat is the decimal as a fraction.
func (d Decimal) rat() *big.Rat {
	return new(big.Rat).SetFrac(big.NewInt(d.Digits), pow10(d.Scale))
}

// MarshalText writes the decimal as String does.
func (d Decimal) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDecimal reads.
func (d *Decimal) UnmarshalText(text []byte) error {
	v, ok := ParseDecimal(string(text))
	if !ok {
		return refuse(CodeInvalid, "", "%q is not a decimal", text)
	}
	*d = v
	return nil
}

// cost is what quantity costs, exactly.
func (f *Feature) cost(quantity Decimal) *big.Rat {
	q, sum := quantity.rat(), new(big.Rat)
	part := func(of *big.Rat, t *Tier) {
		sum.Add(sum, new(big.Rat).Mul(of, t.UnitCost.rat()))
		if t.FlatCost != nil {
			sum.Add(sum, t.FlatCost.rat())
		}
	}
	from := new(big.Rat)
	for i := range f.Tiers {
		t := &f.Tiers[i]
		within := t.UpTo == nil || q.Cmp(t.UpTo.rat()) <= 0
		if f.TierMode == "volume" {
			if within {
				part(q, t)
				break
			}
			continue
		}
		if within {
			part(new(big.Rat).Sub(q, from), t)
			break
		}
		part(new(big.Rat).Sub(t.UpTo.rat(), from), t)
		from = t.UpTo.rat()
	}
	if f.UnitCost != nil {
		sum.Mul(q, f.UnitCost.rat())
	}
	if f.MinimumCost != nil && sum.Cmp(f.MinimumCost.rat()) < 0 {
		sum = f.MinimumCost.rat()
	}
	return sum
}

// rate is what quantity costs in whole steps of an asset of that scale; ok is false when it does not fit.
func (f *Feature) rate(quantity Decimal, scale int16) (amount Decimal, ok bool) {
	c := f.cost(quantity)
	n := new(big.Int).Mul(c.Num(), pow10(int(scale)))
	rest := new(big.Int)
	n.QuoRem(n, c.Denom(), rest)
	if rest.Sign() > 0 {
		n.Add(n, big.NewInt(1))
	}
	steps, ok := fits(n)
	return Decimal{Digits: steps, Scale: int(scale)}, ok
}

// Rated is what a quantity of a feature costs now.
type Rated struct {
	Feature  string
	Version  int
	Quantity Decimal
	Asset    string
	Amount   Decimal
}

// note is how an entry keeps by what it was rated.
func (r *Rated) note() string {
	return r.Feature + " " + strconv.Itoa(r.Version) + " " + r.Quantity.String()
}

// ratedBy reads a note back.
func ratedBy(note string) (feature string, version int, quantity string) {
	feature, rest, _ := strings.Cut(note, " ")
	v, quantity, _ := strings.Cut(rest, " ")
	version, _ = strconv.Atoi(v) // ours: it was written by note
	return feature, version, quantity
}

// Rate says what quantity of a feature costs by the version in force. asset is what the caller expects to pay in, ""
// for whatever the rate card says.
func (l *Ledger) Rate(ctx context.Context, feature string, quantity Decimal, asset string) (Rated, error) {
	if quantity.Digits <= 0 {
		return Rated{}, refuse(CodeInvalid, "quantity", "quantity must be above zero")
	}
	f, err := l.rates.inForce(ctx, l, feature)
	if err != nil {
		return Rated{}, err
	}
	if asset != "" && asset != f.Asset {
		return Rated{}, refuse(CodeInvalid, "asset", "feature %s is paid in %s, not in %s: leave asset out", feature, f.Asset, asset)
	}
	a, err := l.Asset(ctx, f.Asset)
	if err != nil {
		return Rated{}, err
	}
	amount, ok := f.rate(quantity, a.Scale)
	if !ok {
		return Rated{}, refuse(CodeInvalid, "quantity", "quantity is too large: what it costs can't be counted in %s", f.Asset)
	}
	return Rated{Feature: feature, Version: f.Version, Quantity: quantity, Asset: f.Asset, Amount: amount}, nil
}

// rateCard remembers versions that are in force or will be, for a moment: a change made by another process is
// followed within rateLife.
type rateCard struct {
	mu    sync.RWMutex
	known map[string]knownFeature
}

type knownFeature struct {
	versions []Feature // in the order in which they come in force
	until    time.Time
}

const (
	rateLife         = time.Second
	maxKnownFeatures = 10_000
)

func (r *rateCard) inForce(ctx context.Context, l *Ledger, key string) (*Feature, error) {
	r.mu.RLock()
	k, ok := r.known[key]
	r.mu.RUnlock()
	if !ok || time.Now().After(k.until) {
		var err error
		if k.versions, err = l.FeatureVersions(ctx, key); err != nil {
			return nil, err
		}
		slices.SortStableFunc(k.versions, func(a, b Feature) int { return a.EffectiveAt.Compare(b.EffectiveAt) })
		k.until = time.Now().Add(rateLife)
		r.mu.Lock()
		if r.known == nil || len(r.known) >= maxKnownFeatures {
			r.known = make(map[string]knownFeature)
		}
		r.known[key] = k
		r.mu.Unlock()
	}
	now := l.Now()
	for i := len(k.versions) - 1; i >= 0; i-- {
		if f := &k.versions[i]; !f.EffectiveAt.After(now) {
			return f, nil
		}
	}
	if len(k.versions) > 0 {
		return nil, refuse(CodeInvalid, "feature", "feature %s is on the rate card from %s on, not yet", key, k.versions[0].EffectiveAt.Format(time.RFC3339))
	}
	return nil, refuse(CodeInvalid, "feature", "there is no feature %q on the rate card; set it with PUT /v1/features/{key}", key)
}

func (r *rateCard) forget(key string) {
	r.mu.Lock()
	delete(r.known, key)
	r.mu.Unlock()
}
