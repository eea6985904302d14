package ledger

import (
	"context"
	"math/big"
	"strings"
	"time"
)

// Forecast is how long a wallet's credit lasts at the rates of late.
type Forecast struct {
	Wallet     Wallet
	At         time.Time
	Burn       []Burn
	NextExpiry *Expiry // nil: nothing that is there expires
}

// Burn is a wallet's usage over one window up to now. A wallet younger than the window has one as long as itself, of a
// minute at least: a rate over time in which nobody could spend would be too low.
type Burn struct {
	Window string // hour, day, week
	From   time.Time
	Used   int64 // steps: debits and captures less what was given back

	PerHour     string     // in the asset's unit, rounded to the nearest of 9 decimals; exact is Used over the window
	EmptyAt     *time.Time // when available is gone at that rate, by exact division; nil: not within a hundred years
	MinutesLeft *int64     // whole minutes until then, rounded down
}

// Expiry is the next of a wallet's credit to expire: what is left of a grant and not held.
type Expiry struct {
	At     time.Time `db:"expires_at"`
	Amount int64     `db:"amount"`
	Grant  string    `db:"id"`
}

// forecastWindows are those that rates are taken over.
var forecastWindows = []struct {
	name   string
	length time.Duration
}{{"hour", time.Hour}, {"day", 24 * time.Hour}, {"week", 7 * 24 * time.Hour}}

// foreseeable is as far ahead as a forecast says anything.
const foreseeable = 100 * 365 * 24 * time.Hour

// Forecast says how fast a wallet's credit is used and how long what is available lasts. What will expire until then is
// not taken off, but told beside. Its cost does not grow with the entries.
func (l *Ledger) Forecast(ctx context.Context, walletID string) (Forecast, error) {
	w, err := l.Wallet(ctx, walletID)
	if err != nil {
		return Forecast{}, err
	}
	get := l.getter(ctx)
	f := Forecast{Wallet: w, At: l.Now()}
	for _, window := range forecastWindows {
		b := Burn{Window: window.name, From: f.At.Add(-window.length)}
		if w.CreatedAt.After(b.From) {
			b.From, b.Used = w.CreatedAt.UTC(), w.Used
		} else if b.Used, err = usedSince(get, &w, b.From); err != nil {
			return Forecast{}, err
		}
		b.foresee(f.At, w.Available(), w.Scale)
		f.Burn = append(f.Burn, b)
	}
	var next Expiry
	found, err := get(&next, `select expires_at, remaining - held as amount, id from grants
		where bucket = $1 and wallet_id = $2 and live and remaining > held and expires_at is not null order by expires_at, id limit 1`, w.Bucket, w.ID)
	if found {
		f.NextExpiry = &next
	}
	return f, err
}

// foresee draws the rate and how long available lasts from what was used since b.From.
func (b *Burn) foresee(at time.Time, available int64, scale int16) {
	span := max(at.Sub(b.From), time.Minute)
	perHour := new(big.Rat).SetFrac(big.NewInt(b.Used), pow10(int(scale)))
	perHour.Mul(perHour, big.NewRat(int64(time.Hour), int64(span)))
	b.PerHour = formatRat(perHour, 9)
	lasts := time.Duration(0)
	if available > 0 {
		if b.Used <= 0 {
			return
		}
		n := new(big.Int).Mul(big.NewInt(available), big.NewInt(int64(span)))
		if n.Div(n, big.NewInt(b.Used)); n.Cmp(big.NewInt(int64(foreseeable))) > 0 {
			return
		}
		lasts = time.Duration(n.Int64())
	}
	end, minutes := at.Add(lasts), int64(lasts/time.Minute)
	b.EmptyAt, b.MinutesLeft = &end, &minutes
}

// formatRat writes a fraction as a decimal, rounded to the nearest of so many decimals, halves away from zero.
func formatRat(r *big.Rat, decimals int) string {
	s := r.FloatString(decimals)
	if strings.ContainsRune(s, '.') {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if s == "-0" {
		return "0"
	}
	return s
}
