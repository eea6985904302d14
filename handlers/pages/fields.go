package pages

import (
	"encoding/json"
	"fmt"
	"html/template"
	"regexp"
	"slices"
	"strings"

	"lockstep/handlers/openapi"
)

// direction says whether an object is sent, so that what must be in it is worth a word, or answered, where
// nearly all is always there.
type direction bool

const (
	sent     direction = false
	answered direction = true
)

func (d direction) mark(required bool) string {
	switch {
	case d == sent && required:
		return "required"
	case d == answered && !required:
		return "not always"
	}
	return ""
}

// fields are an object's, those of the objects within it after them.
func (v view) fields(schema *openapi.Object, depth int, way direction) (list []field) {
	required := schema.List("required")
	for _, m := range schema.In("properties").Members() {
		s, _ := m.Value.(*openapi.Object)
		f := v.field(m.Name, s, depth)
		f.Mark = way.mark(slices.Contains(required, any(m.Name)))
		list = append(list, f)
		if f.Link == "" {
			list = append(list, v.fields(v.root.Resolve(v.notNull(s)), depth+1, way)...)
		}
	}
	return list
}

func (v view) field(name string, s *openapi.Object, depth int) field {
	f := field{Name: name, Depth: depth}
	f.Type, f.Link = v.typeOf(s)
	resolved := v.root.Resolve(s)
	text := s.Text("description")
	if text == "" {
		text = resolved.Text("description")
	}
	if text == "" && f.Link == "" {
		text = v.root.Resolve(v.notNull(s)).Text("description")
	}
	f.Text = prose(text)
	if d := resolved.Get("default"); d != nil {
		f.Default = fmt.Sprint(d)
	}
	return f
}

// notNull is the alternative of a schema that is not null; most have no alternatives.
func (v view) notNull(s *openapi.Object) *openapi.Object {
	for _, one := range s.List("anyOf") {
		if a, ok := one.(*openapi.Object); ok && a.Text("type") != "null" {
			return a
		}
	}
	return s
}

// typeOf says in words what a schema allows, and where on the page its object is, if it has a name there.
func (v view) typeOf(s *openapi.Object) (words, link string) {
	var null bool
	if any := s.List("anyOf"); len(any) > 0 {
		var all []string
		for _, one := range any {
			a, _ := one.(*openapi.Object)
			if a.Text("type") == "null" {
				null = true
				continue
			}
			w, l := v.typeOf(a)
			if all = append(all, w); link == "" {
				link = l
			}
		}
		words = strings.Join(all, " or ")
	} else {
		words, null = v.plainType(s)
		link = v.linkTo(s)
	}
	if null {
		words += " or null"
	}
	return words, link
}

// linkTo is the address of the object that a schema, or a list's items, refer to.
func (v view) linkTo(s *openapi.Object) string {
	for _, one := range []*openapi.Object{s, s.In("items"), s.In("properties", "data", "items")} {
		if name, ok := strings.CutPrefix(one.Text("$ref"), "#/components/schemas/"); ok && v.named(v.root.Resolve(one)) {
			return objectAnchor(name)
		}
	}
	return ""
}

func (v view) plainType(s *openapi.Object) (words string, null bool) {
	s = v.root.Resolve(s)
	types := s.List("type")
	if t := s.Text("type"); t != "" {
		types = []any{t}
	}
	null = slices.Contains(types, any("null"))
	kind := ""
	for _, t := range types {
		if t != "null" {
			kind = fmt.Sprint(t)
		}
	}
	enum := s.List("enum")
	null = null || slices.Contains(enum, nil)
	items := s.In("items")
	if data := s.In("properties", "data", "items"); data != nil && s.In("properties", "has_more") != nil {
		w, _ := v.typeOf(data)
		return "list of " + plural(w), null
	}
	switch {
	case s.Has("const"):
		b, _ := json.Marshal(s.Get("const")) // a plain value
		return string(b), null
	case len(enum) > 0:
		var all []string
		for _, e := range enum {
			if e != nil {
				all = append(all, fmt.Sprint(e))
			}
		}
		return strings.Join(all, " | "), null
	case items != nil:
		w, _ := v.typeOf(items)
		return "list of " + plural(w), null
	case s.Text("title") != "":
		return s.Text("title"), null
	case s.Text("format") == "date-time":
		return "time", null
	case idPattern.MatchString(s.Text("pattern")):
		return "id " + idPattern.FindStringSubmatch(s.Text("pattern"))[1] + "…", null
	case kind == "integer":
		return "whole number" + span(s.Get("minimum"), s.Get("maximum")), null
	case kind == "boolean":
		return "true or false", null
	}
	return kind, null
}

// idPattern is that of an id, which begins with a prefix of its kind.
var idPattern = regexp.MustCompile(`^\^([a-z]+_)`)

func span(least, most any) string {
	switch {
	case least != nil && most != nil:
		return fmt.Sprintf(", %v to %v", least, most)
	case least != nil:
		return fmt.Sprintf(", %v or more", least)
	}
	return ""
}

func plural(w string) string {
	switch {
	case strings.Contains(w, " or "):
		return w
	case strings.HasSuffix(w, "y"):
		return strings.TrimSuffix(w, "y") + "ies"
	case strings.HasSuffix(w, "ch"):
		return w + "es"
	}
	return w + "s"
}

// anchor is a name as an address within the page.
func anchor(name string) string {
	return strings.ToLower(strings.NewReplacer(" ", "-", "_", "-").Replace(name))
}

func objectAnchor(name string) string { return "object-" + anchor(name) }

// prose is a text of the document as HTML: paragraphs, `code` and **stress**, which is all that it uses.
func prose(text string) template.HTML {
	var b strings.Builder
	for p := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if p = strings.TrimSpace(p); p != "" {
			b.WriteString("<p>" + inline(p) + "</p>")
		}
	}
	return template.HTML(b.String())
}

func inline(text string) string {
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		safe := template.HTMLEscapeString(part)
		if i%2 == 1 {
			b.WriteString("<code>" + safe + "</code>")
			continue
		}
		for j, piece := range strings.Split(safe, "**") {
			if j%2 == 1 {
				piece = "<strong>" + piece + "</strong>"
			}
			b.WriteString(piece)
		}
	}
	return b.String()
}
