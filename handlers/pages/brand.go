package pages

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// Brand is the merchant whose customers see the pages.
type Brand struct {
	Name  string
	Color string // #rrggbb; "" is Lockstep's own
	Logo  string // a file: SVG, PNG, JPEG or WebP; "" for none
}

// maxLogo bounds what every page of a customer loads.
const maxLogo = 256 << 10

// ownColor is a calm blue.
const ownColor = "#0b57b0"

// color is one of a screen's, each part from 0 to 1.
type color struct{ r, g, b float64 }

func parseColor(s string) (color, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "#"), 16, 32)
	if err != nil || len(s) != 7 || s[0] != '#' {
		return color{}, fmt.Errorf("a color is written as #rrggbb, such as %s, not %q", ownColor, s)
	}
	return color{float64(n>>16&255) / 255, float64(n>>8&255) / 255, float64(n&255) / 255}, nil
}

func (c color) String() string {
	part := func(f float64) int { return int(math.Round(f * 255)) }
	return fmt.Sprintf("#%02x%02x%02x", part(c.r), part(c.g), part(c.b))
}

// luminance and contrast are WCAG 2.2's.
func (c color) luminance() float64 {
	linear := func(f float64) float64 {
		if f <= 0.04045 {
			return f / 12.92
		}
		return math.Pow((f+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c.r) + 0.7152*linear(c.g) + 0.0722*linear(c.b)
}

func (c color) contrast(with color) float64 {
	a, b := c.luminance(), with.luminance()
	return (max(a, b) + 0.05) / (min(a, b) + 0.05)
}

// readable moves c towards to until text of it can be read on paper, whatever a merchant's color is.
func (c color) readable(paper, to color) color {
	const enough = 4.6 // WCAG AA wants 4.5
	for step := 0.0; step <= 1; step += 0.02 {
		mixed := color{c.r + (to.r-c.r)*step, c.g + (to.g-c.g)*step, c.b + (to.b-c.b)*step}
		if mixed.contrast(paper) >= enough {
			return mixed
		}
	}
	return to
}

var black, white = color{}, color{1, 1, 1}

// What text has to be read on at worst: app.css's --soft in a light page, and in a dark one a gray somewhat lighter than its
// papers.
var lightPaper, darkPaper = color{0.957, 0.965, 0.973}, color{0.129, 0.149, 0.180}

// css is the brand's style sheet. Text on a button of the color is black or white, as can be read better.
func (b Brand) css() (string, error) {
	if b.Color == "" {
		b.Color = ownColor
	}
	c, err := parseColor(b.Color)
	if err != nil {
		return "", err
	}
	rule := func(brand color) string {
		on := white
		if black.contrast(brand) > white.contrast(brand) {
			on = black
		}
		return fmt.Sprintf("--brand: %s; --on-brand: %s;", brand, on)
	}
	return fmt.Sprintf(":root { %s }\n@media (prefers-color-scheme: dark) { :root { %s } }\n",
		rule(c.readable(lightPaper, black)), rule(c.readable(darkPaper, white))), nil
}

// logo reads the logo's file.
func (b Brand) logo() (Static, error) {
	content, err := os.ReadFile(b.Logo)
	if err != nil {
		return Static{}, err
	}
	if len(content) > maxLogo {
		return Static{}, fmt.Errorf("%s has %d bytes; at most %d are fine", b.Logo, len(content), maxLogo)
	}
	kind := http.DetectContentType(content)
	if strings.HasSuffix(strings.ToLower(b.Logo), ".svg") && bytes.Contains(content, []byte("<svg")) {
		kind = "image/svg+xml"
	}
	switch kind {
	case "image/svg+xml", "image/png", "image/jpeg", "image/webp":
		return newStatic(kind, content), nil
	}
	return Static{}, errors.New(b.Logo + " is no SVG, PNG, JPEG or WebP picture")
}
