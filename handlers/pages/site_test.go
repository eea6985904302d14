package pages

import (
	"io/fs"
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

// Each language has each text, with the same names in it, and none that no page asks for.
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

// A key that a template names is in the catalog.
func TestTemplatesKnowTheirWords(t *testing.T) {
	t.Parallel()
	asked := regexp.MustCompile(`\.(T|N) "([a-z_.]+)"`)
	en := newLocale(catalogs[0], catalogs[0].tag)
	err := fs.WalkDir(templates, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(templates, path)
		for _, m := range asked.FindAllStringSubmatch(string(b), -1) {
			if key := m[2]; m[1] == "T" && !en.Has(key) || m[1] == "N" && !en.Has(key+".other") {
				t.Errorf("%s asks for %s", path, key)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
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
