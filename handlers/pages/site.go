package pages

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"path"
	"strings"
)

//go:embed portal/*.html console/*.html
var templates embed.FS

// Site renders the pages that are made for each reader: the customer's portal and the operators' console.
type Site struct {
	Brand   Brand
	statics map[string]Static
	pages   map[string]*template.Template // by room and name: portal/home
}

// NewSite reads a brand's logo and all templates, and refuses what is wrong in them.
func NewSite(b Brand) (*Site, error) {
	s := &Site{Brand: b, pages: make(map[string]*template.Template)}
	var err error
	if s.statics, err = statics(); err != nil {
		return nil, err
	}
	css, err := b.css()
	if err != nil {
		return nil, err
	}
	s.statics["brand.css"] = newStatic("text/css; charset=utf-8", []byte(css))
	if b.Logo != "" {
		if s.statics["logo"], err = b.logo(); err != nil {
			return nil, err
		}
	}
	for _, room := range []string{"portal", "console"} {
		if err := s.parse(room); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// parse reads a room's pages. A file whose name begins with an underscore is a part of all of them.
func (s *Site) parse(room string) error {
	parts := template.New("").Funcs(template.FuncMap{"asset": s.asset, "dict": dict, "list": func(all ...any) []any { return all },
		"deref": deref, "words": plainly, "minus": func(a, b int64) int64 { return a - b }})
	names, err := fs.Glob(templates, room+"/*.html")
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(path.Base(name), "_") {
			if parts, err = parts.ParseFS(templates, name); err != nil {
				return err
			}
		}
	}
	for _, name := range names {
		base := strings.TrimSuffix(path.Base(name), ".html")
		if base[0] == '_' {
			continue
		}
		t, err := parts.Clone()
		if err == nil {
			_, err = t.ParseFS(templates, name)
		}
		if err != nil {
			return err
		}
		s.pages[room+"/"+base] = t
	}
	return nil
}

// dict is how a template hands several values to a part.
func dict(pairs ...any) (map[string]any, error) {
	m := make(map[string]any, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		key, ok := pairs[i].(string)
		if !ok || i+1 == len(pairs) {
			return nil, fmt.Errorf("dict takes names and values by turns, not %v", pairs)
		}
		m[key] = pairs[i+1]
	}
	return m, nil
}

// deref is what a pointer points to; a template can't compare one.
func deref(p any) any {
	switch p := p.(type) {
	case *string:
		if p != nil {
			return *p
		}
		return ""
	case *int64:
		if p != nil {
			return *p
		}
		return int64(0)
	}
	return p
}

// plainly writes a name of ours, such as action_required, as words.
func plainly(name string) string { return strings.ReplaceAll(name, "_", " ") }

// Frame is what stands around a page's own content. Templates see it as their dot, and what is the page's as .Data.
type Frame struct {
	Locale        // how words, dates and amounts are written
	Title  string // of the page
	Path   string // where it is, for the mark in the menu
	Notice string // what a step just done came to; "" for nothing
	Data   any

	Brand   Brand
	Who     string // who is signed in
	Back    string // where they came from, on another site; "" for nowhere
	Request string // its id
	Dev     bool   // of lockstep dev: pages say that nothing here is real money
	Live    bool   // Stripe's key moves real money
}

// Render makes a page, such as portal/home, or a part of one, such as portal/home#chart.
func (s *Site) Render(page string, f Frame) ([]byte, error) {
	page, part, _ := strings.Cut(page, "#")
	t := s.pages[page]
	if t == nil {
		return nil, fmt.Errorf("pages: there is no page %s", page)
	}
	if part == "" {
		part = "layout"
	}
	f.Brand = s.Brand
	var b bytes.Buffer
	err := t.ExecuteTemplate(&b, part, f)
	return b.Bytes(), err
}
