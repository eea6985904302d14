package pages

import (
	"embed"
	"encoding/json"
	"fmt"
	"strings"

	plurals "golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
)

// Every text that a customer reads stands in one file a language, so that a translator needs no other.
//
//go:embed words/*.json
var wordFiles embed.FS

// catalog is the words of one language, by key. A word that counts something has a key for each form that the language
// has of it: runway.days.one, runway.days.other.
type catalog struct {
	tag   language.Tag
	dates string // where the region's way of writing dates is not known
	words map[string]string
}

// catalogs are all languages; a reader of none of them gets the first.
var catalogs, catalogMatcher = func() ([]*catalog, language.Matcher) {
	all := []*catalog{{tag: language.English, dates: "en_US"}, {tag: language.German, dates: "de_DE"}}
	var tags []language.Tag
	for _, c := range all {
		b, err := wordFiles.ReadFile("words/" + c.tag.String() + ".json")
		if err == nil {
			err = json.Unmarshal(b, &c.words)
		}
		if err != nil { // it is part of the binary
			panic(fmt.Sprintf("words in %s: %v", c.tag, err))
		}
		tags = append(tags, c.tag)
	}
	return all, language.NewMatcher(tags)
}()

// T is the text of a key; pairs are what stands in it for {name}: name, value, name, value …
func (l Locale) T(key string, pairs ...any) string {
	text, ok := l.words.words[key]
	if !ok {
		return key
	}
	return fill(text, pairs)
}

// N is the text of a key that counts n, in the form that the language has for it. {n} stands for the number.
func (l Locale) N(key string, n int, pairs ...any) string {
	form := plurals.Cardinal.MatchPlural(l.words.tag, n, 0, 0, 0, 0)
	pairs = append(pairs, "n", l.Number(fmt.Sprint(n)))
	if text, ok := l.words.words[key+"."+pluralForms[form]]; ok {
		return fill(text, pairs)
	}
	return l.T(key+".other", pairs...)
}

// Has reports whether there is a text of that key.
func (l Locale) Has(key string) bool {
	_, ok := l.words.words[key]
	return ok
}

var pluralForms = map[plurals.Form]string{plurals.Zero: "zero", plurals.One: "one", plurals.Two: "two", plurals.Few: "few", plurals.Many: "many", plurals.Other: "other"}

func fill(text string, pairs []any) string {
	var old []string
	for i := 0; i+1 < len(pairs); i += 2 {
		old = append(old, fmt.Sprintf("{%v}", pairs[i]), fmt.Sprint(pairs[i+1]))
	}
	return strings.NewReplacer(old...).Replace(text)
}
