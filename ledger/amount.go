package ledger

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Decimal is an exact quantity as it was written: Digits × 10^-Scale, with no trailing zeros after the
// point. It becomes steps of an asset once the asset, and so its scale, is known.
type Decimal struct {
	Digits int64
	Scale  int
}

// maxDecimals is more than any asset's scale and more than a price needs; past it a text is refused.
const maxDecimals = 18

// ParseDecimal reads "12", "12.5" or "-0.25" and nothing else: no exponent, no sign but a minus, no space,
// no bare point. ok is false for anything that is not such a text or does not fit.
func ParseDecimal(s string) (d Decimal, ok bool) {
	body, negative := strings.CutPrefix(s, "-")
	whole, fraction, pointed := strings.Cut(body, ".")
	if whole == "" || pointed && fraction == "" || len(whole) > 19 || len(fraction) > 64 {
		return Decimal{}, false
	}
	for _, part := range [2]string{whole, fraction} {
		for i := range len(part) {
			if part[i] < '0' || part[i] > '9' {
				return Decimal{}, false
			}
		}
	}
	fraction = strings.TrimRight(fraction, "0")
	if len(fraction) > maxDecimals {
		return Decimal{}, false
	}
	digits, err := strconv.ParseInt(whole+fraction, 10, 64)
	if err != nil {
		return Decimal{}, false
	}
	if negative {
		digits = -digits
	}
	return Decimal{Digits: digits, Scale: len(fraction)}, true
}

// steps is d in the smallest step of an asset of that scale; ok is false when d has more decimals than the
// asset or does not fit.
func (d Decimal) steps(scale int16) (n int64, ok bool) {
	if d.Scale > int(scale) {
		return 0, false
	}
	n = d.Digits
	for range int(scale) - d.Scale {
		if n > math.MaxInt64/10 || n < math.MinInt64/10 {
			return 0, false
		}
		n *= 10
	}
	return n, true
}

// String is the one way in which a decimal is written: no trailing zeros, no point without decimals.
func (d Decimal) String() string {
	for d.Scale > 0 && d.Digits%10 == 0 {
		d.Digits, d.Scale = d.Digits/10, d.Scale-1
	}
	if d.Digits == 0 {
		d.Scale = 0
	}
	return FormatSteps(d.Digits, int16(d.Scale))
}

// FormatSteps writes steps of an asset of that scale as a decimal in its unit: "12.5", "-0.25", "0".
func FormatSteps(steps int64, scale int16) string {
	return string(AppendSteps(nil, steps, scale))
}

// AppendSteps is FormatSteps onto the end of buf.
func AppendSteps(buf []byte, steps int64, scale int16) []byte {
	u := uint64(steps)
	if steps < 0 {
		buf, u = append(buf, '-'), -u
	}
	var digits [20]byte
	tail := strconv.AppendUint(digits[:0], u, 10)
	point := len(tail) - int(scale)
	if point <= 0 {
		buf = append(buf, '0')
	} else {
		buf = append(buf, tail[:point]...)
	}
	end := len(tail)
	for end > 0 && end > point && tail[end-1] == '0' {
		end--
	}
	if scale == 0 || u == 0 || end <= point {
		return buf
	}
	buf = append(buf, '.')
	for ; point < 0; point++ {
		buf = append(buf, '0')
	}
	return append(buf, tail[point:end]...)
}

// Money is an amount in Stripe's smallest unit of a currency (cents; whole yen).
type Money struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

// picos is how many of a price's smallest step make one: prices have up to 12 decimals.
const picoDecimals = 12

// price is what one unit of an asset costs, in currency × 10^-12.
type price struct {
	pico     int64
	currency string
}

// minorPerStep is the worth of one step in minor units, as a fraction.
func (p price) minorPerStep(scale int16) *big.Rat {
	num := new(big.Int).Mul(big.NewInt(p.pico), pow10(minorDecimals(p.currency)))
	return new(big.Rat).SetFrac(num, pow10(int(scale)+picoDecimals))
}

// worth is what steps of the asset are worth in minor units, rounded toward minus infinity. ok is false
// when it does not fit.
func (p price) worth(steps int64, scale int16) (minor int64, ok bool) {
	r := new(big.Rat).Mul(new(big.Rat).SetInt64(steps), p.minorPerStep(scale))
	return fits(new(big.Int).Div(r.Num(), r.Denom())) // Euclidean; the denominator is positive
}

// charge is what buying steps costs in minor units, rounded up: less would be sold below its price.
func (p price) charge(steps int64, scale int16) (minor int64, ok bool) {
	r := new(big.Rat).Mul(new(big.Rat).SetInt64(-steps), p.minorPerStep(scale))
	n := new(big.Int).Div(r.Num(), r.Denom())
	return fits(n.Neg(n))
}

// buys is how many steps minor units pay for, rounded down.
func (p price) buys(minor int64, scale int16) (steps int64, ok bool) {
	r := new(big.Rat).Quo(new(big.Rat).SetInt64(minor), p.minorPerStep(scale))
	return fits(new(big.Int).Div(r.Num(), r.Denom()))
}

func fits(n *big.Int) (int64, bool) {
	if !n.IsInt64() {
		return 0, false
	}
	return n.Int64(), true
}

func pow10(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// add is a + b; ok is false when it overflows.
func add(a, b int64) (sum int64, ok bool) {
	sum = a + b
	return sum, (sum > a) == (b > 0)
}
