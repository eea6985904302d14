package stripeutil

import "strings"

// MinimumCharge is the smallest amount Stripe charges in a currency, in its minor unit, or 0 where this package does
// not know one. The table is docs.stripe.com/currencies#minimum-and-maximum-charge-amounts, where the minimum is
// stated for the currency the account settles in: a charge in another currency must be worth that currency's minimum
// after conversion, so Stripe may still refuse (code amount_too_small) what passes here.
func MinimumCharge(currency string) int64 { return minimumCharges[strings.ToLower(currency)] }

var minimumCharges = map[string]int64{
	"usd": 50, "aed": 200, "aud": 50, "bgn": 100, "brl": 50, "cad": 50, "chf": 50, "czk": 1500, "dkk": 250,
	"eur": 50, "gbp": 30, "hkd": 400, "huf": 17500, "inr": 50, "jpy": 50, "mxn": 1000, "myr": 200, "nok": 300,
	"nzd": 50, "pln": 200, "ron": 200, "sek": 300, "sgd": 50, "thb": 1000,
}
