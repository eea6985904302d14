package pages

import (
	"cmp"
	"html/template"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bojanz/currency"
	"github.com/goodsign/monday"
	"golang.org/x/text/language"

	"lockstep/ledger"
)

// Locale is a reader's language and region: which words they read, and how dates and amounts are written.
type Locale struct {
	Tag   string // such as de-AT, for the page's lang
	Dir   string // ltr, or rtl
	words *catalog
	dates monday.Locale
	money currency.Locale
}

// LocaleOf picks the locale of a reader by what their browser says: the best of the languages that there are words in, and
// of it the region they named.
func LocaleOf(acceptLanguage string) Locale {
	wanted := languages(acceptLanguage)
	_, index, _ := catalogMatcher.Match(wanted...)
	c := catalogs[index]
	tag := c.tag
	for _, w := range wanted {
		base, _ := w.Base()
		own, _ := c.tag.Base()
		region, sure := w.Region()
		if base == own && sure == language.Exact {
			if t, err := language.Compose(base, region); err == nil {
				tag = t
			}
			break
		}
	}
	return newLocale(c, tag)
}

// English is the locale itself where it is one of English, else the plain one: for pages that have words in no other.
func (l Locale) English() Locale {
	if l.words == catalogs[0] {
		return l
	}
	return newLocale(catalogs[0], catalogs[0].tag)
}

// languages are those that a browser names, the dearest first; one that nobody knows is passed over.
func languages(accept string) (wanted []language.Tag) {
	quality := make(map[language.Tag]float32)
	for i, one := range strings.SplitN(accept, ",", 11) {
		if i == 10 { // nobody reads more
			break
		}
		tags, q, err := language.ParseAcceptLanguage(one)
		if err == nil && len(tags) == 1 && q[0] > quality[tags[0]] {
			wanted, quality[tags[0]] = append(wanted, tags[0]), q[0]
		}
	}
	slices.SortStableFunc(wanted, func(a, b language.Tag) int { return cmp.Compare(quality[b], quality[a]) })
	return wanted
}

func newLocale(c *catalog, tag language.Tag) Locale {
	l := Locale{Tag: tag.String(), Dir: "ltr", words: c, money: currency.NewLocale(tag.String())}
	if script, _ := tag.Script(); strings.Contains("Arab Hebr Thaa Syrc", script.String()) {
		l.Dir = "rtl"
	}
	base, _ := tag.Base()
	region, _ := tag.Region() // of a language alone, the likeliest
	l.dates = monday.Locale(base.String() + "_" + region.String())
	if _, known := monday.MediumFormatsByLocale[l.dates]; !known {
		l.dates = monday.Locale(c.dates)
	}
	return l
}

// Date is a day, such as Nov 2, 2026. Times are in UTC; a script shows them in the reader's own zone.
func (l Locale) Date(t time.Time) string {
	return monday.Format(t.UTC(), monday.MediumFormatsByLocale[l.dates], l.dates)
}

// DateTime is a moment to the minute.
func (l Locale) DateTime(t time.Time) string {
	return l.Date(t) + ", " + t.UTC().Format("15:04") + " UTC"
}

// Month is a month of a year, such as November 2026.
func (l Locale) Month(t time.Time) string { return monday.Format(t.UTC(), "January 2006", l.dates) }

// Stamp is a time for machines.
func (l Locale) Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Time is a moment as an element that a script turns to the reader's own zone.
func (l Locale) Time(t any) template.HTML {
	at, ok := moment(t)
	if !ok {
		return ""
	}
	return template.HTML(`<time datetime="` + l.Stamp(at) + `">` + template.HTMLEscapeString(l.DateTime(at)) + `</time>`)
}

// Day is Time to the day.
func (l Locale) Day(t any) template.HTML {
	at, ok := moment(t)
	if !ok {
		return ""
	}
	return template.HTML(`<time datetime="` + l.Stamp(at) + `" data-day>` + template.HTMLEscapeString(l.Date(at)) + `</time>`)
}

// Money writes minor units of a currency, with its symbol.
func (l Locale) Money(minor int64, code string) string {
	amount, _, _ := strings.Cut(ledger.FormatMinor(minor, code), " ")
	return l.write(amount, code, currency.DefaultDigits)
}

// Amount writes steps of an asset: a currency as money, with more than its usual decimals only where there are any; another
// with its name after it.
func (l Locale) Amount(steps int64, scale int16, asset string) string {
	return l.AmountOf(ledger.FormatSteps(steps, scale), asset)
}

// IsMoney reports whether an asset is a currency.
func (l Locale) IsMoney(asset string) bool { return ledger.IsCurrency(asset) }

// Unit is what amounts of an asset, or of a currency, are typed in.
func (l Locale) Unit(asset string) string {
	if ledger.IsCurrency(asset) {
		return strings.ToUpper(asset)
	}
	return asset
}

// AmountOf is Amount of a decimal in the asset's unit.
func (l Locale) AmountOf(decimal, asset string) string {
	if strings.Contains(decimal, ".") {
		decimal = strings.TrimRight(strings.TrimRight(decimal, "0"), ".")
	}
	if ledger.IsCurrency(asset) {
		return l.write(decimal, asset, currency.DefaultDigits)
	}
	return l.Number(decimal) + "\u00a0" + asset
}

// MinorOf is Money of a number of minor units that may be too large for 64 bits.
func (l Locale) MinorOf(minor, code string) string {
	n, err := strconv.ParseInt(minor, 10, 64)
	if err != nil {
		return minor + " " + strings.ToUpper(code)
	}
	return l.Money(n, code)
}

// Int is a count for N.
func (l Locale) Int(n int64) int { return int(n) }

// Number writes a decimal as the locale does.
func (l Locale) Number(decimal string) string {
	a, err := currency.NewAmount(decimal, "USD") // shown without
	if err != nil {
		return decimal
	}
	f := currency.NewFormatter(l.money)
	f.CurrencyDisplay, f.MinDigits, f.MaxDigits = currency.DisplayNone, 0, 12
	return strings.TrimSpace(f.Format(a))
}

// grouped are digits in groups of three, or of two as in India, the last of three, by the mark between them.
var grouped = map[string]*regexp.Regexp{
	",": regexp.MustCompile(`^\d{1,3}(,\d{2,3})*,\d{3}$`),
	".": regexp.MustCompile(`^\d{1,3}(\.\d{2,3})*\.\d{3}$`),
}

// Decimal reads a number as the reader writes it, into one with a point: 1.234,50 where that is how it is done, and 4.50
// where it can mean nothing else. What is no number comes back as something that is none.
func (l Locale) Decimal(typed string) string {
	s := strings.NewReplacer(" ", "", "\u00a0", "", "\u202f", "", "'", "", "’", "").Replace(strings.TrimSpace(typed))
	own, other := ".", ","
	if strings.Contains(l.Number("0.5"), ",") {
		own, other = ",", "."
	}
	whole, fraction, pointed := strings.Cut(s, own)
	if strings.Contains(whole, other) && grouped[other].MatchString(strings.TrimPrefix(whole, "-")) {
		whole = strings.ReplaceAll(whole, other, "")
	} else if !pointed {
		return strings.Replace(whole, other, ".", 1)
	}
	if pointed {
		whole += "." + fraction
	}
	return whole
}

func (l Locale) write(amount, code string, least uint8) string {
	a, err := currency.NewAmount(amount, strings.ToUpper(code))
	if err != nil { // not one of the CLDR's
		return amount + " " + strings.ToUpper(code)
	}
	f := currency.NewFormatter(l.money)
	f.MinDigits, f.MaxDigits = least, 12
	return f.Format(a)
}

// moment is a time, or what a pointer to one points to.
func moment(t any) (time.Time, bool) {
	switch t := t.(type) {
	case time.Time:
		return t, !t.IsZero()
	case *time.Time:
		if t != nil {
			return *t, true
		}
	}
	return time.Time{}, false
}
