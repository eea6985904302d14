package ledger

import "strings"

// stripeCurrencies are the currencies that Stripe takes (docs.stripe.com/currencies), each an asset of its own.
var stripeCurrencies = func() map[string]int {
	m := make(map[string]int)
	for _, c := range strings.Fields(`usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd bwp
		byn bzd cad cdf chf cny cop crc cve czk dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl hrk htg
		huf idr ils inr isk jmd kes kgs khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd mmk mnt mop mur mvr mwk mxn myr mzn
		nad ngn nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sek sgd shp sle sos srd std szl thb
		tjs top try ttd twd tzs uah uyu uzs wst xcd yer zar zmw ugx`) {
		m[c] = 2
	}
	// Zero-decimal and three-decimal currencies, by the same page. UGX and ISK are two-decimal on the wire there.
	for _, c := range strings.Fields(`bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf`) {
		m[c] = 0
	}
	for _, c := range strings.Fields(`bhd jod kwd omr tnd`) {
		m[c] = 3
	}
	return m
}()

// IsCurrency reports whether code is a currency that Stripe takes, in lower case.
func IsCurrency(code string) bool {
	_, ok := stripeCurrencies[code]
	return ok
}

// minorDecimals is how many decimals Stripe's smallest unit of the currency stands for.
func minorDecimals(currency string) int { return stripeCurrencies[currency] }

// Minor is a decimal of a currency in its smallest unit; ok is false where it has more decimals, or does not fit.
func (d Decimal) Minor(currency string) (minor int64, ok bool) {
	return d.steps(int16(minorDecimals(currency)))
}

// FormatMinor writes an amount of a currency's smallest unit for people: 2000 usd is "20.00 USD".
func FormatMinor(amount int64, currency string) string {
	text := FormatSteps(amount, int16(minorDecimals(currency)))
	if places := minorDecimals(currency); places > 0 {
		whole, part, _ := strings.Cut(text, ".")
		text = whole + "." + part + strings.Repeat("0", places-len(part))
	}
	return text + " " + strings.ToUpper(currency)
}
