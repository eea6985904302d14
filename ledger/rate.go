package ledger

import (
	"context"
	"encoding/json"
	"math/big"
	"regexp"
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

// FeatureInput sets what a feature costs.
type FeatureInput struct {
	Key, Asset, Name string
	UnitCost         *Decimal
	Tiers            []Tier
	TierMode         string
	MinimumCost      *Decimal
	EffectiveAt      *time.Time // nil, or passed: at once
}

var featureKey = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,99}$`)

const maxTiers = 50

func (in FeatureInput) check() error {
	switch {
	case !featureKey.MatchString(in.Key):
		return refuse(CodeInvalid, "key", "a feature's key is 1 to 100 of A-Z, a-z, 0-9, '_', '.', ':', '/', '-' and starts with a letter or digit")
	case in.Asset == "":
		return refuse(CodeMissing, "asset", "asset is missing: what the feature is paid in")
	case in.UnitCost == nil && in.Tiers == nil:
		return refuse(CodeMissing, "unit_cost", "unit_cost or tiers is missing")
	case in.UnitCost != nil && in.Tiers != nil:
		return refuse(CodeInvalid, "tiers", "give unit_cost or tiers, not both")
	case in.UnitCost != nil && in.UnitCost.Digits < 0:
		return refuse(CodeInvalid, "unit_cost", "unit_cost can't be below zero")
	case in.MinimumCost != nil && in.MinimumCost.Digits < 0:
		return refuse(CodeInvalid, "minimum_cost", "minimum_cost can't be below zero")
	case in.Tiers == nil && in.TierMode != "":
		return refuse(CodeInvalid, "tier_mode", "tier_mode is for tiers")
	case in.Tiers != nil && in.TierMode != "graduated" && in.TierMode != "volume":
		return refuse(CodeInvalid, "tier_mode", "tier_mode is graduated or volume")
	case in.Tiers != nil && (len(in.Tiers) == 0 || len(in.Tiers) > maxTiers):
		return refuse(CodeInvalid, "tiers", "tiers has 1 to %d tiers", maxTiers)
	}
	for i, t := range in.Tiers {
		param := "tiers[" + strconv.Itoa(i) + "]"
		last := i == len(in.Tiers)-1
		switch {
		case last != (t.UpTo == nil):
			return refuse(CodeInvalid, param+".up_to", "every tier but the last needs an up_to, and the last has none")
		case !last && t.UpTo.Digits <= 0, i > 0 && !last && t.UpTo.rat().Cmp(in.Tiers[i-1].UpTo.rat()) <= 0:
			return refuse(CodeInvalid, param+".up_to", "up_to must rise from tier to tier, from above zero")
		case t.UnitCost.Digits < 0:
			return refuse(CodeInvalid, param+".unit_cost", "%s.unit_cost can't be below zero", param)
		case t.FlatCost != nil && t.FlatCost.Digits < 0:
			return refuse(CodeInvalid, param+".flat_cost", "%s.flat_cost can't be below zero", param)
		}
	}
	return nil
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

type featureRow struct {
	Key         string    `db:"key"`
	Version     int       `db:"version"`
	Asset       string    `db:"asset"`
	Name        string    `db:"name"`
	UnitCost    *string   `db:"unit_cost"`
	Tiers       *string   `db:"tiers"`
	TierMode    *string   `db:"tier_mode"`
	MinimumCost *string   `db:"minimum_cost"`
	EffectiveAt time.Time `db:"effective_at"`
	CreatedAt   time.Time `db:"created_at"`
}

const featureColumns = `key, version, asset, name, unit_cost, tiers, tier_mode, minimum_cost, effective_at, created_at`

func (r featureRow) feature() (f Feature, err error) {
	f = Feature{Key: r.Key, Version: r.Version, Asset: r.Asset, Name: r.Name, TierMode: deref(r.TierMode),
		EffectiveAt: r.EffectiveAt.UTC(), CreatedAt: r.CreatedAt.UTC()}
	for _, d := range []struct {
		text *string
		out  **Decimal
	}{{r.UnitCost, &f.UnitCost}, {r.MinimumCost, &f.MinimumCost}} {
		if d.text == nil {
			continue
		}
		v, _ := ParseDecimal(*d.text) // ours
		*d.out = &v
	}
	if r.Tiers != nil {
		err = json.Unmarshal([]byte(*r.Tiers), &f.Tiers)
	}
	return f, err
}

// PutFeature sets what a feature costs: a new version, unless the newest says the same already.
func (l *Ledger) PutFeature(ctx context.Context, in FeatureInput) (f Feature, err error) {
	if err := in.check(); err != nil {
		return Feature{}, err
	}
	if _, err := l.Asset(ctx, in.Asset); err != nil {
		return Feature{}, err
	}
	for range transactionTries {
		f, err = l.putFeature(ctx, in)
		if !violates(err, "features_pkey") { // another version came in between
			break
		}
	}
	l.rates.forget(in.Key)
	return f, err
}

func (l *Ledger) putFeature(ctx context.Context, in FeatureInput) (f Feature, err error) {
	err = l.inTx(ctx, func(t *tx) error {
		row := featureRow{Key: in.Key, Asset: in.Asset, Name: in.Name, UnitCost: decimalText(in.UnitCost), TierMode: ref(in.TierMode),
			MinimumCost: decimalText(in.MinimumCost), EffectiveAt: t.now, CreatedAt: t.now}
		if in.EffectiveAt != nil && in.EffectiveAt.After(t.now) {
			row.EffectiveAt = in.EffectiveAt.UTC().Truncate(time.Microsecond)
		}
		if in.Tiers != nil {
			b, err := json.Marshal(in.Tiers)
			if err != nil {
				return err
			}
			row.Tiers = ref(string(b))
		}
		var newest featureRow
		found, err := t.get(&newest, `select `+featureColumns+` from features where key = $1 order by version desc limit 1`, in.Key)
		if err != nil {
			return err
		}
		if found && newest.says(&row) {
			f, err = newest.feature()
			return err
		}
		row.Version = newest.Version + 1
		if err := t.exec(`insert into features (`+featureColumns+`) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, row.Key, row.Version,
			row.Asset, row.Name, row.UnitCost, row.Tiers, row.TierMode, row.MinimumCost, row.EffectiveAt, row.CreatedAt); err != nil {
			return err
		}
		f, err = row.feature()
		return err
	})
	return f, err
}

// says reports whether a version says all that another would, from no later a moment on.
func (r *featureRow) says(other *featureRow) bool {
	return r.Asset == other.Asset && r.Name == other.Name && deref(r.UnitCost) == deref(other.UnitCost) && deref(r.Tiers) == deref(other.Tiers) &&
		deref(r.TierMode) == deref(other.TierMode) && deref(r.MinimumCost) == deref(other.MinimumCost) &&
		(r.EffectiveAt.Equal(other.EffectiveAt) || !r.EffectiveAt.After(other.CreatedAt) && !other.EffectiveAt.After(other.CreatedAt))
}

func decimalText(d *Decimal) *string {
	if d == nil {
		return nil
	}
	s := d.String()
	return &s
}

// FeatureVersions lists a feature's versions, the oldest first.
func (l *Ledger) FeatureVersions(ctx context.Context, key string) ([]Feature, error) {
	return l.features(ctx, `select `+featureColumns+` from features where key = $1 order by version`, key)
}

// Features lists the version in force of every feature, or, of one that is not in force yet, the first that will
// be; the one changed last first.
func (l *Ledger) Features(ctx context.Context) ([]Feature, error) {
	return l.features(ctx, `select `+featureColumns+` from (
		select distinct on (key) * from features
		order by key, effective_at > $1, case when effective_at <= $1 then effective_at end desc, effective_at, version desc) f
		order by created_at desc, key`, l.Now())
}

// Feature answers what Features says of one, or refuses with CodeNotFound.
func (l *Ledger) Feature(ctx context.Context, key string) (Feature, error) {
	features, err := l.features(ctx, `select `+featureColumns+` from features where key = $2
		order by effective_at > $1, case when effective_at <= $1 then effective_at end desc, effective_at, version desc limit 1`, l.Now(), key)
	if err != nil {
		return Feature{}, err
	}
	if len(features) == 0 {
		return Feature{}, refuse(CodeNotFound, "feature", "No such feature: '%s'", key)
	}
	return features[0], nil
}

func (l *Ledger) features(ctx context.Context, query string, args ...any) ([]Feature, error) {
	var rows []featureRow
	if err := l.db.SelectContext(ctx, &rows, query, args...); err != nil {
		return nil, err
	}
	features := make([]Feature, len(rows))
	for i, r := range rows {
		var err error
		if features[i], err = r.feature(); err != nil {
			return nil, err
		}
	}
	return features, nil
}
