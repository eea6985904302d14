package ledger

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// ListFeatures lists the version in force of features, or, of one that is not in force yet, the first that will be: those
// whose key begins so, in the order of their keys.
func (l *Ledger) ListFeatures(ctx context.Context, begins, after string, limit int) ([]Feature, error) {
	return l.features(ctx, `select f.* from (
			select distinct key from features where key > $2 and key >= $3 and key < $3 || '~' order by key limit `+strconv.Itoa(limit)+`) k -- no key has a ~
		cross join lateral (select `+featureColumns+` from features where key = k.key
			order by effective_at > $1, case when effective_at <= $1 then effective_at end desc, effective_at, version desc limit 1) f
		order by f.key`, l.Now(), after, begins)
}

// ListAssets lists the assets that were made, in the order of their codes.
func (l *Ledger) ListAssets(ctx context.Context, after string, limit int) ([]Asset, error) {
	var rows []struct {
		Code      string    `db:"code"`
		Scale     int16     `db:"scale"`
		Pico      *int64    `db:"price_pico"`
		Currency  *string   `db:"currency"`
		CreatedAt time.Time `db:"created_at"`
	}
	if err := l.db.SelectContext(ctx, &rows, `select code, scale, price_pico, currency, created_at from assets where code > $1 order by code limit $2`,
		after, limit); err != nil {
		return nil, err
	}
	assets := make([]Asset, len(rows))
	for i, r := range rows {
		assets[i] = Asset{Code: r.Code, Scale: r.Scale, CreatedAt: r.CreatedAt.UTC()}
		if r.Pico != nil {
			assets[i].Price, assets[i].Currency = &Decimal{Digits: *r.Pico, Scale: picoDecimals}, *r.Currency
		}
	}
	return assets, nil
}

// Quote says what quantities would cost by a version that is only thought of, by the very reckoning that debits use. It
// refuses what PutFeature refuses.
func (l *Ledger) Quote(ctx context.Context, in FeatureInput, quantities []Decimal) ([]Decimal, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	f := Feature{Key: in.Key, Asset: in.Asset, UnitCost: in.UnitCost, Tiers: in.Tiers, TierMode: in.TierMode, MinimumCost: in.MinimumCost}
	return l.quote(ctx, &f, quantities)
}

// QuoteBy says what quantities cost by a version that there is.
func (l *Ledger) QuoteBy(ctx context.Context, f *Feature, quantities []Decimal) ([]Decimal, error) {
	return l.quote(ctx, f, quantities)
}

func (l *Ledger) quote(ctx context.Context, f *Feature, quantities []Decimal) ([]Decimal, error) {
	a, err := l.Asset(ctx, f.Asset)
	if err != nil {
		return nil, err
	}
	costs := make([]Decimal, len(quantities))
	for i, q := range quantities {
		amount, ok := f.rate(q, a.Scale)
		if !ok {
			return nil, refuse(CodeInvalid, "unit_cost", "what %s units cost by that can't be counted in %s", strings.TrimPrefix(q.String(), "+"), f.Asset)
		}
		costs[i] = amount
	}
	return costs, nil
}
