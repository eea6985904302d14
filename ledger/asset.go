package ledger

import (
	"context"
	"regexp"
	"time"
)

// currencyScale is the scale of every currency as an asset: a step is a millionth.
const currencyScale = 6

// Asset is what a wallet counts.
type Asset struct {
	Code      string
	Scale     int16
	Price     *Decimal // of one unit, in Currency; nil: granted and spent, never bought, not mirrored
	Currency  string
	CreatedAt time.Time
}

// AssetInput sets an asset.
type AssetInput struct {
	Code     string
	Scale    int16
	Price    *Decimal
	Currency string
}

var assetCode = regexp.MustCompile(`^[a-z][a-z0-9_.-]{0,39}$`)

// PutAsset makes an asset or changes its price. A scale can't change: wallets count in it.
func (l *Ledger) PutAsset(ctx context.Context, in AssetInput) (Asset, error) {
	if err := in.Check(); err != nil {
		return Asset{}, err
	}
	var pico *int64
	var currency *string
	if in.Price != nil {
		n, _ := in.Price.steps(picoDecimals)
		pico, currency = &n, &in.Currency
	}
	err := l.inTx(ctx, func(t *tx) error {
		var scale int16
		_, err := t.get(&scale, `
			insert into assets (code, scale, price_pico, currency, created_at, updated_at) values ($1, $2, $3, $4, $5, $5)
			on conflict (code) do update set price_pico = excluded.price_pico, currency = excluded.currency, updated_at = excluded.updated_at
			returning scale`, in.Code, in.Scale, pico, currency, t.now)
		if err != nil {
			return err
		}
		if scale != in.Scale {
			return refuse(CodeState, "scale", "asset %s has scale %d, which wallets already count in; make another asset for another scale", in.Code, scale)
		}
		// Another price is another worth in Stripe: every wallet of the asset is looked at again.
		return t.exec(`update wallets set mirrored_seq = -1 where asset = $1`, in.Code)
	})
	if err != nil {
		return Asset{}, err
	}
	l.assets.Delete(in.Code)
	return l.Asset(ctx, in.Code)
}

// Check refuses what no asset can be.
func (in AssetInput) Check() error {
	switch {
	case !assetCode.MatchString(in.Code):
		return refuse(CodeInvalid, "code", "an asset's code is 1 to 40 of a-z, 0-9, '_', '.', '-' and starts with a letter")
	case IsCurrency(in.Code):
		return refuse(CodeInvalid, "code", "%s is a currency: it is an asset already, with scale %d", in.Code, currencyScale)
	case in.Scale < 0 || in.Scale > 9:
		return refuse(CodeInvalid, "scale", "scale is the number of decimals, 0 to 9")
	case in.Price != nil && in.Currency == "":
		return refuse(CodeMissing, "currency", "a price needs its currency")
	case in.Price == nil && in.Currency != "":
		return refuse(CodeMissing, "price_per_unit", "a currency needs a price_per_unit")
	case in.Price != nil && !IsCurrency(in.Currency):
		return refuse(CodeInvalid, "currency", "%q is not a currency that Stripe takes, in lower case such as usd", in.Currency)
	}
	if in.Price != nil {
		if n, ok := in.Price.steps(picoDecimals); !ok || n <= 0 {
			return refuse(CodeInvalid, "price_per_unit", "price_per_unit must be above zero, below 9000000 and have at most %d decimals", picoDecimals)
		}
	}
	return nil
}

// Asset answers the asset of that code, or refuses with CodeAssetUnknown.
func (l *Ledger) Asset(ctx context.Context, code string) (Asset, error) {
	return readAsset(code, func(dest any, query string, args ...any) (bool, error) {
		return l.getRow(ctx, dest, query, args...)
	})
}

// asset is Asset inside a transaction, on its own connection.
func (t *tx) asset(code string) (Asset, error) { return readAsset(code, t.get) }

func readAsset(code string, get func(dest any, query string, args ...any) (bool, error)) (Asset, error) {
	if IsCurrency(code) {
		return Asset{Code: code, Scale: currencyScale, Price: &Decimal{Digits: 1}, Currency: code}, nil
	}
	var row struct {
		Scale     int16     `db:"scale"`
		Pico      *int64    `db:"price_pico"`
		Currency  *string   `db:"currency"`
		CreatedAt time.Time `db:"created_at"`
	}
	found, err := get(&row, `select scale, price_pico, currency, created_at from assets where code = $1`, code)
	if err != nil {
		return Asset{}, err
	}
	if !found {
		return Asset{}, refuse(CodeAssetUnknown, "asset", "there is no asset %q; currencies are in lower case, others are made with PUT /v1/assets/{code}", code)
	}
	a := Asset{Code: code, Scale: row.Scale, CreatedAt: row.CreatedAt.UTC()}
	if row.Pico != nil {
		a.Price, a.Currency = &Decimal{Digits: *row.Pico, Scale: picoDecimals}, *row.Currency
	}
	return a, nil
}

// price is what the asset costs; ok is false when it can't be bought.
func (a Asset) price() (p price, ok bool) {
	if a.Price == nil {
		return price{}, false
	}
	pico, ok := a.Price.steps(picoDecimals)
	return price{pico: pico, currency: a.Currency}, ok
}

// DefaultAsset is that of the wallet which each customer has from the start.
func (l *Ledger) DefaultAsset() string { return l.defaultAsset }

// Assets lists the assets that were made, newest first.
func (l *Ledger) Assets(ctx context.Context) ([]Asset, error) {
	var codes []string
	if err := l.db.SelectContext(ctx, &codes, `select code from assets order by created_at desc, code desc`); err != nil {
		return nil, err
	}
	assets := make([]Asset, 0, len(codes))
	for _, code := range codes {
		a, err := l.Asset(ctx, code)
		if err != nil {
			return nil, err
		}
		assets = append(assets, a)
	}
	return assets, nil
}

// assetKnown says whether a code names an asset, from memory where it was seen before: assets are never removed.
func (l *Ledger) assetKnown(ctx context.Context, code string) (bool, error) {
	if _, ok := l.assets.Load(code); ok || IsCurrency(code) {
		return true, nil
	}
	_, err := l.Asset(ctx, code)
	if IsCode(err, CodeAssetUnknown) {
		return false, nil
	}
	if err == nil {
		l.assets.Store(code, struct{}{})
	}
	return err == nil, err
}
