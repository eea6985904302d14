package pages

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func site(t *testing.T, b Brand) *Site {
	t.Helper()
	s, err := NewSite(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each language has each text, with the same names in it, and no other.
func TestWordsAreWhole(t *testing.T) {
	t.Parallel()
	names := regexp.MustCompile(`\{[a-z]+\}`)
	first := catalogs[0]
	for _, c := range catalogs[1:] {
		for key, text := range first.words {
			other, ok := c.words[key]
			if !ok {
				t.Errorf("%s has no %s", c.tag, key)
				continue
			}
			for _, name := range names.FindAllString(text, -1) {
				if !strings.Contains(other, name) {
					t.Errorf("%s: %s says nothing of %s", c.tag, key, name)
				}
			}
		}
		for key := range c.words {
			if _, ok := first.words[key]; !ok {
				t.Errorf("%s has %s, which %s lacks", c.tag, key, first.tag)
			}
		}
	}
}

// builtKeys are the keys that are put together of a beginning, which a template or the code has, and one of these ends.
var builtKeys = map[string]string{
	"portal.scope.":      "usage invoices", // all has no words
	"portal.rule.":       "armed disabled paused topping_up",
	"portal.rule.spent.": "day week month",
	"portal.rule.wrong.": "threshold percent amount target cap card form",
	"portal.interval.":   "day week month",
	"portal.pause.":      "no_payment_method dispute manual", // the others have names in their texts
	"portal.decline.":    "insufficient_funds expired_card authentication_required processing_error other",
	"portal.done.":       "rule resumed card paid",
	"portal.topup.":      "pending processing action_required succeeded failed canceled",
	"portal.topup.said.": "pending processing action_required succeeded failed canceled",
	"portal.trigger.":    "auto manual",
	"portal.entry.":      "grant debit hold capture release expire void refund dispute reversal stripe_balance adjustment",
	"portal.reason.":     "usage topup auto_topup expired capture console_grant console_adjustment console_void console_reversal",
	"portal.kind.":       "purchased promotional plan adjustment",
	"portal.why.":        "priority expiry kind older",
}

// Each key that a template or the code asks for is in the catalog, and the catalog has no other.
func TestWordsAreAskedFor(t *testing.T) {
	t.Parallel()
	sources, err := filepath.Glob("../*.go")
	pages, err2 := filepath.Glob("portal/*.html")
	if err != nil || err2 != nil || len(sources) < 50 || len(pages) < 10 {
		t.Fatal(len(sources), len(pages), err, err2)
	}
	named, asked := regexp.MustCompile(`"((?:error|frame|portal)\.[a-z_.]+)"`), map[string]bool{}
	for _, file := range append(sources, pages...) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(b), -1) {
			if asked[m[1]] = true; strings.HasSuffix(m[1], ".") && builtKeys[m[1]] == "" {
				t.Errorf("%s builds keys of %s, which stands in no list", file, m[1])
			}
		}
	}
	delete(asked, "portal.css") // a file
	for start, ends := range builtKeys {
		if !asked[start] {
			t.Errorf("nothing builds keys of %s", start)
		}
		for _, end := range strings.Fields(ends) {
			asked[start+end] = true
		}
	}
	en := newLocale(catalogs[0], catalogs[0].tag)
	for key := range asked {
		if !strings.HasSuffix(key, ".") && !en.Has(key) && !en.Has(key+".other") {
			t.Errorf("there are no words for %s", key)
		}
	}
	for key := range catalogs[0].words {
		if counted := key[:strings.LastIndexByte(key, '.')]; !asked[key] && !(asked[counted] && en.Has(counted+".other")) {
			t.Errorf("nobody asks for %s", key)
		}
	}
}

// The licenses of what others have written are in the binary, as text.
func TestLicensesAreServed(t *testing.T) {
	t.Parallel()
	s := site(t, Brand{})
	for _, name := range []string{"htmx", "pico", "uplot"} {
		f, ok := s.Static(name + ".LICENSE")
		if !ok || f.Kind != "text/plain; charset=utf-8" || len(f.Content) < 500 {
			t.Errorf("%s: %v, %s, %d bytes", name, ok, f.Kind, len(f.Content))
		}
		if _, err := s.asset(name + ".LICENSE"); err != nil {
			t.Error(err)
		}
	}
}

func TestLocale(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 7, 15, 4, 0, 0, time.UTC)
	for accept, want := range map[string][5]string{
		"":                        {"en", "$1,234,567.89", "-$0.005", "1,234.5 tokens", "Mar 07, 2026"},
		"en-GB":                   {"en-GB", "US$1,234,567.89", "-US$0.005", "1,234.5 tokens", "07 Mar 2026"},
		"de":                      {"de", "1.234.567,89 $", "-0,005 $", "1.234,5 tokens", "07.03.2026"},
		"fr-FR, de-CH;q=0.8":      {"de-CH", "$ 1'234'567.89", "$-0.005", "1'234.5 tokens", "07.03.2026"},
		"xx, en-IN;q=0.5":         {"en-IN", "$12,34,567.89", "-$0.005", "1,234.5 tokens", "Mar 07, 2026"},
		"\x00;;q=, en":            {"en", "$1,234,567.89", "-$0.005", "1,234.5 tokens", "Mar 07, 2026"},
		strings.Repeat("a,", 999): {"en", "$1,234,567.89", "-$0.005", "1,234.5 tokens", "Mar 07, 2026"},
	} {
		l := LocaleOf(accept)
		got := [5]string{l.Tag, l.Money(123456789, "usd"), l.Amount(-5000, 6, "usd"), l.Amount(12345, 1, "tokens"), l.Date(at)}
		for i := range got { // spaces that do not break are spaces
			got[i] = strings.NewReplacer("\u00a0", " ", "\u202f", " ").Replace(got[i])
		}
		if got != want {
			t.Errorf("%.20q: %q, want %q", accept, got, want)
		}
	}
	if got := LocaleOf("en").Money(500, "jpy"); got != "¥500" {
		t.Error(got)
	}
	if got := LocaleOf("en").Money(-1, "kwd"); !strings.HasSuffix(got, "0.001") {
		t.Error(got)
	}
	if got := string(LocaleOf("en").Time(&at)); got != `<time datetime="2026-03-07T15:04:00Z">Mar 07, 2026, 15:04 UTC</time>` {
		t.Error(got)
	}
}

// Whatever color a merchant has, text of it and on it can be read, by day and by night.
func TestBrandIsReadable(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "#ffffff", "#000000", "#ffee00", "#0b57b0", "#808080", "#ff0000", "#00ff7f"} {
		css, err := Brand{Color: name}.css()
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`--brand: (#......); --on-brand: (#......)`).FindAllStringSubmatch(css, -1)
		if len(found) != 2 {
			t.Fatal(css)
		}
		for i, paper := range []color{lightPaper, darkPaper} {
			brand, err1 := parseColor(found[i][1])
			on, err2 := parseColor(found[i][2])
			if err1 != nil || err2 != nil || brand.contrast(paper) < 4.5 || on.contrast(brand) < 4.5 {
				t.Errorf("%s: %s on paper %.2f, on it %.2f", name, found[i][0], brand.contrast(paper), on.contrast(brand))
			}
		}
	}
	for _, bad := range []string{"blue", "#12345", "0b57b00", "#12345g"} {
		if _, err := NewSite(Brand{Color: bad}); err == nil {
			t.Errorf("%s is a color", bad)
		}
	}
}

func TestLogo(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "logo.svg")
	write := func(b string) {
		if err := os.WriteFile(file, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>`)
	if f, ok := site(t, Brand{Logo: file}).Static("logo"); !ok || f.Kind != "image/svg+xml" {
		t.Errorf("%v %v", ok, f.Kind)
	}
	write("<html>")
	if _, err := NewSite(Brand{Logo: file}); err == nil {
		t.Error("a page is a picture")
	}
	write("<svg>" + strings.Repeat(" ", maxLogo))
	if _, err := NewSite(Brand{Logo: file}); err == nil {
		t.Error("too large a logo is taken")
	}
	if _, err := NewSite(Brand{Logo: file + "x"}); err == nil {
		t.Error("a logo that is not there is taken")
	}
}

// A number is read as its reader writes it, and what a page wrote is read as what it was.
func TestDecimal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ accept, typed, want string }{
		{"en", "1,234.5", "1234.5"}, {"en", "1,234", "1234"}, {"en", "4,50", "4.50"}, {"en", " 12 ", "12"}, {"en", "12345,678", "12345.678"}, {"en", "1,2,3", "1.2,3"},
		{"en-IN", "1,00,000", "100000"}, {"en-IN", "12,34,567.89", "1234567.89"},
		{"de", "1.234,5", "1234.5"}, {"de", "1.234", "1234"}, {"de", "4.50", "4.50"}, {"de", "12345.678", "12345.678"}, {"de-CH", "1'234.5", "1234.5"}, {"de", "", ""},
	} {
		if got := LocaleOf(c.accept).Decimal(c.typed); got != c.want {
			t.Errorf("%s %q: %q, want %q", c.accept, c.typed, got, c.want)
		}
	}
	for _, accept := range []string{"en", "en-IN", "de", "de-CH", "de-AT", "en-ZA"} {
		l := LocaleOf(accept)
		for _, n := range []string{"0.5", "12", "1234", "100000", "1234567.891", "9223372036854"} {
			if got := l.Decimal(l.Number(n)); got != n {
				t.Errorf("%s: %s is written %s and read %s", accept, n, l.Number(n), got)
			}
		}
	}
}
