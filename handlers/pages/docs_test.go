package pages

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"lockstep/handlers/openapi"
)

// The page shows every operation, every object and every code, its links lead somewhere, and it has nothing that
// its policy would keep from running.
func TestDocs(t *testing.T) {
	t.Parallel()
	b, err := Docs()
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if ids[m[1]] {
			t.Errorf("two things are at #%s", m[1])
		}
		ids[m[1]] = true
	}
	links := 0
	for _, m := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		to, within := strings.CutPrefix(m[1], "#")
		switch {
		case within && !ids[to]:
			t.Errorf("a link leads to #%s, where nothing is", to)
		case !within && m[1] != "/docs/docs.css" && m[1] != "/openapi.json":
			t.Errorf("a link leads out: %s", m[1])
		}
		links++
	}
	if links < 200 {
		t.Errorf("only %d links", links)
	}
	if bad := regexp.MustCompile(`(?i)<script|<style|style=|<img|<iframe|\son[a-z]+=|javascript:|<no value>|%!`).FindString(page); bad != "" {
		t.Errorf("the page has %q", bad)
	}
	d, err := openapi.Load()
	if err != nil {
		t.Fatal(err)
	}
	for op := range d.Root.Operations() {
		if !ids[op.Text("operationId")] || !strings.Contains(page, "<code>"+op.Path+"</code>") {
			t.Errorf("%s %s is not on the page", op.Method, op.Path)
		}
	}
	for _, m := range d.Root.In("x-codes").Members() {
		if !strings.Contains(page, "<code>"+m.Name+"</code>") {
			t.Errorf("the code %s is not on the page", m.Name)
		}
	}
}

// What the document says is text, whatever is in it.
func TestDocsEscapes(t *testing.T) {
	t.Parallel()
	const evil = "<script>alert(1)</script>"
	tag := object("name", "Things", "description", evil+" `"+evil+"` **"+evil+"**")
	op := object("operationId", "x", "tags", []any{"Things"}, "summary", evil, "description", evil, "responses", object(), "parameters",
		[]any{object("name", evil, "in", "query", "description", evil, "example", evil, "schema", object("type", "string"))})
	b, err := docs(object("info", object("title", evil, "description", evil), "tags", []any{tag}, "paths", object("/"+evil, object("get", op))))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "<script") || strings.Count(string(b), "&lt;script&gt;") < 8 {
		t.Errorf("%s", b)
	}
}

func TestDocsRefusesAnUnknownTopic(t *testing.T) {
	t.Parallel()
	op := object("operationId", "x", "tags", []any{"Thnigs"}, "responses", object())
	if _, err := docs(object("paths", object("/x", object("get", op)))); err == nil || !strings.Contains(err.Error(), "GET /x needs one tag") {
		t.Errorf("%v", err)
	}
}

// Examples are laid out for people, and are the JSON that they were.
func TestPretty(t *testing.T) {
	t.Parallel()
	long := []any{}
	for range 20 {
		long = append(long, object("n", json.Number("1")))
	}
	for _, v := range []any{object(), object("a", "b"), object("a", object("b", []any{true, nil, "<&>"})), []any{}, "x", long} {
		s, err := pretty(v)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := json.Unmarshal([]byte(s), &got); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		flat, _ := json.Marshal(v)
		again, _ := json.Marshal(got)
		if string(again) != string(flat) {
			t.Errorf("%s is not %s", again, flat)
		}
		if strings.Contains(s, `\u00`) {
			t.Errorf("escaped for HTML: %s", s)
		}
	}
}

func object(pairs ...any) *openapi.Object {
	o := &openapi.Object{}
	for i := 0; i+1 < len(pairs); i += 2 {
		o.Set(pairs[i].(string), pairs[i+1])
	}
	return o
}
