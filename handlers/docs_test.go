package handlers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"lockstep/handlers/openapi"
)

// peoples are the addresses of what people look at in a browser; the document is about the API.
var peoples = []string{"/docs/", "/static/", "/portal", "/console"}

// The document has an operation for each route, with its scope and its query, and no other.
func TestDocumentHasTheRoutes(t *testing.T) {
	t.Parallel()
	d, err := openapi.Load()
	if err != nil {
		t.Fatal(err)
	}
	type facts struct {
		scope string
		query []string
	}
	served := map[string]facts{}
	s := &Server{}
	s.prepare() // pages are in rooms
	for _, r := range s.table() {
		if _, twice := served[r.pattern]; twice {
			t.Errorf("%s is in the table twice", r.pattern)
		}
		served[r.pattern] = facts{r.scope, queries[r.pattern]}
	}
	for pattern := range queries {
		if _, ok := served[pattern]; !ok {
			t.Errorf("queries has %s, which is no route", pattern)
		}
	}
	for pattern := range s.everybodys() {
		if path := pattern[strings.IndexByte(pattern, ' ')+1:]; !slices.ContainsFunc(peoples, func(p string) bool { return strings.HasPrefix(path, p) }) {
			served[pattern] = facts{}
		}
	}
	said := map[string]facts{}
	ids := map[string]string{}
	for op := range d.Root.Operations() {
		pattern := op.Method + " " + op.Path
		f := facts{}
		var scopes []string
		for _, one := range op.List("security") {
			for _, scope := range one.(*openapi.Object).List("key") {
				scopes = append(scopes, fmt.Sprint(scope))
			}
		}
		f.scope = strings.Join(scopes, "|")
		for _, one := range op.List("parameters") {
			p := d.Root.Resolve(one.(*openapi.Object))
			if p.Text("in") == "query" {
				f.query = append(f.query, p.Text("name"))
			}
		}
		said[pattern] = f
		id := op.Text("operationId")
		if id == "" || op.Text("summary") == "" || op.Text("description") == "" || ids[id] != "" {
			t.Errorf("%s needs an operationId of its own, a summary and a description; %q is of %q", pattern, id, ids[id])
		}
		ids[id] = pattern
	}
	for _, pattern := range slices.Sorted(maps.Keys(served)) {
		want, got := served[pattern], said[pattern]
		slices.Sort(want.query)
		slices.Sort(got.query)
		if _, ok := said[pattern]; !ok {
			t.Errorf("%s is served and not in the document", pattern)
		} else if want.scope != got.scope || !slices.Equal(want.query, got.query) {
			t.Errorf("%s: served with %v, in the document with %v", pattern, want, got)
		}
	}
	for _, pattern := range slices.Sorted(maps.Keys(said)) {
		if _, ok := served[pattern]; !ok {
			t.Errorf("%s is in the document and not served", pattern)
		}
	}
}
