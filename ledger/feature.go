package ledger

import (
	"context"
	"encoding/json"
	"regexp"
	"strconv"
	"time"
)

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
