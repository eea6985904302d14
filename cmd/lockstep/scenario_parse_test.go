package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// scenario is a story of testdata/scenarios: what happens, what is there after it, and what the books say in the end.
type scenario struct {
	name  string
	at    string // the file and line of its title
	steps []step
	books []books
}

// takesTime says whether time passes in a scenario.
func (sc *scenario) takesTime() bool {
	return slices.ContainsFunc(sc.steps, func(s step) bool { return s.verb.time != nil })
}

// step is one sentence of a scenario, and the figures that must hold after it. Without figures nothing is waited for.
type step struct {
	at, text string
	verb     *verb
	args     []string
	figures  []figureOf
}

type figureOf struct {
	text   string
	figure *figure
	args   []string
}

// books are the revenue report's figures of one kind of credit, over the whole story.
type books struct {
	at, kind                                 string
	sold, earned, refunded, breakage, closed string
}

// words are what the placeholders of sentences stand for.
var words = map[string]string{
	"who":    `[A-Z][a-z]+`,
	"name":   `[A-Z][a-z]+`,
	"amount": `-?\d+\.\d\d|\d+ tokens`,
	"n":      `\d+`,
	"card":   strings.Join(sortedKeys(cardsThat), "|"),
	"state":  strings.Join(sortedKeys(ruleStates), "|"),
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

var placeholder = regexp.MustCompile(`\{([a-z]+)\}`)

// compile makes the expression that a pattern stands for.
func compile(pattern string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("^")
	rest := pattern
	for {
		at := placeholder.FindStringSubmatchIndex(rest)
		if at == nil {
			break
		}
		word, known := words[rest[at[2]:at[3]]]
		if !known {
			panic("no placeholder " + rest[at[2]:at[3]] + " in " + pattern)
		}
		b.WriteString(regexp.QuoteMeta(rest[:at[0]]) + "(" + word + ")")
		rest = rest[at[1]:]
	}
	b.WriteString(regexp.QuoteMeta(rest) + "$")
	return regexp.MustCompile(b.String())
}

// grammar is the table of verbs and figures, ready to be matched.
type grammar struct {
	verbs   []*regexp.Regexp
	figures []*regexp.Regexp
}

func newGrammar() (g grammar) {
	for i := range verbs {
		g.verbs = append(g.verbs, compile(verbs[i].says))
	}
	for i := range figures {
		g.figures = append(g.figures, compile(figures[i].says))
	}
	return g
}

// match finds the one pattern that a text is an instance of.
func match(patterns []*regexp.Regexp, text string) (at int, args []string, err error) {
	at = -1
	for i, p := range patterns {
		m := p.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		if at >= 0 {
			return -1, nil, fmt.Errorf("%q can be read in two ways", text)
		}
		at, args = i, m[1:]
	}
	if at < 0 {
		return -1, nil, errUnread
	}
	return at, args, nil
}

var errUnread = errors.New("no such sentence")

var bookLine = regexp.MustCompile(`^books(?: of (plan|promotional|adjustment) credit)?: sold (-?\d+\.\d\d), earned (-?\d+\.\d\d), refunded (-?\d+\.\d\d), breakage (-?\d+\.\d\d), left (-?\d+\.\d\d)$`)

// parse reads scenarios. Whatever it can't read is an error that names the line, and what could stand there.
func (g grammar) parse(file, text string) (all []scenario, err error) {
	var failed []error
	var now *scenario
	for i, line := range strings.Split(text, "\n") {
		at := fmt.Sprintf("%s:%d", file, i+1)
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		title, titled := strings.CutPrefix(line, "scenario: ")
		switch {
		case line == "":
		case titled:
			all = append(all, scenario{name: title, at: at})
			now = &all[len(all)-1]
		case now == nil:
			failed = append(failed, fmt.Errorf("%s: %q stands before the first scenario", at, line))
		case strings.HasPrefix(line, "books"):
			m := bookLine.FindStringSubmatch(line)
			if m == nil {
				failed = append(failed, fmt.Errorf("%s: books are \"books: sold 1.00, earned 1.00, refunded 1.00, breakage 1.00, left 1.00\", or \"books of plan credit: …\", not %q", at, line))
				continue
			}
			if m[1] == "" {
				m[1] = "purchased"
			}
			now.books = append(now.books, books{at, m[1], m[2], m[3], m[4], m[5], m[6]})
		case len(now.books) > 0:
			failed = append(failed, fmt.Errorf("%s: after its books a scenario is over", at))
		default:
			s, err := g.step(at, line)
			failed = append(failed, err)
			now.steps = append(now.steps, s)
		}
	}
	for _, s := range all {
		if len(s.books) == 0 {
			failed = append(failed, fmt.Errorf("%s: %q has no books", s.at, s.name))
		}
		if n := len(s.steps); n > 0 && len(s.steps[n-1].figures) == 0 {
			failed = append(failed, fmt.Errorf("%s: %q ends without a figure", s.at, s.name))
		}
	}
	return all, errors.Join(failed...)
}

// step reads "sentence. -> figure, figure".
func (g grammar) step(at, line string) (s step, err error) {
	text, after, has := strings.Cut(line, "->")
	s = step{at: at, text: strings.TrimSpace(text)}
	i, args, err := match(g.verbs, s.text)
	if err != nil {
		var b strings.Builder
		for _, v := range verbs {
			b.WriteString("\n\t" + v.says)
		}
		return s, fmt.Errorf("%s: %q: %w. There are:%s", at, s.text, err, b.String())
	}
	s.verb, s.args = &verbs[i], args
	if !has {
		return s, nil
	}
	for text := range strings.SplitSeq(after, ",") {
		text = strings.TrimSpace(text)
		i, args, err := match(g.figures, text)
		if err != nil {
			var b strings.Builder
			for _, f := range figures {
				b.WriteString("\n\t" + f.says)
			}
			return s, fmt.Errorf("%s: %q: %w. After an arrow there are:%s", at, text, err, b.String())
		}
		s.figures = append(s.figures, figureOf{text, &figures[i], args})
	}
	return s, nil
}

// scenarios reads all there are.
func scenarios(t *testing.T) (all []scenario) {
	t.Helper()
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	g := newGrammar()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		of, err := g.parse(filepath.Base(file), string(text))
		if err != nil {
			t.Error(err)
		}
		all = append(all, of...)
	}
	if t.Failed() {
		t.FailNow()
	}
	return all
}

// What can't be read is refused with its line, and with what could stand there.
func TestScenariosAreReadStrictly(t *testing.T) {
	t.Parallel()
	g := newGrammar()
	const fine = "scenario: A\n  Acme is a customer.  # new\n  Acme uses 1.00. -> credit -1.00, refused\n  books: sold 0.00, earned 0.00, refunded 0.00, breakage 0.00, left 0.00\n"
	all, err := g.parse("f.txt", fine)
	if err != nil || len(all) != 1 || len(all[0].steps) != 2 || len(all[0].steps[1].figures) != 2 || all[0].books[0].kind != "purchased" {
		t.Errorf("%+v, %v", all, err)
	}
	for text, want := range map[string]string{
		"  Acme is a customer.\n":                                "f.txt:1: ",
		fine + "  Acme uses 1.00.\n":                             "f.txt:5: after its books",
		strings.Replace(fine, "uses", "eats", 1):                 "f.txt:3: \"Acme eats 1.00.\": no such sentence. There are:\n\t{who} is a customer",
		strings.Replace(fine, "1.00.", "1.", 1):                  "f.txt:3: ",
		strings.Replace(fine, "refused", "sorry", 1):             "f.txt:3: \"sorry\": no such sentence. After an arrow there are:\n\tcredit {amount}",
		strings.Replace(fine, "earned", "had", 1):                "f.txt:4: books are",
		strings.Split(fine, "  books")[0]:                        "f.txt:1: \"A\" has no books",
		strings.Replace(fine, "-> credit -1.00, refused", "", 1): "f.txt:1: \"A\" ends without a figure",
	} {
		if _, err := g.parse("f.txt", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nis refused with %v, want %q", text, err, want)
		}
	}
	for _, patterns := range [][]*regexp.Regexp{g.verbs, g.figures} { // no two say the same
		seen := map[string]bool{}
		for _, p := range patterns {
			if seen[p.String()] {
				t.Errorf("twice: %s", p)
			}
			seen[p.String()] = true
		}
	}
}
