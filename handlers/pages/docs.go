// Package pages are what people look at in a browser: templates and styles, embedded in the binary.
package pages

import (
	"bytes"
	"embed"
	"html/template"
	"sync"

	"lockstep/handlers/openapi"
)

//go:embed *.html *.css
var files embed.FS

// Docs is the page that shows the OpenAPI document. It changes with the binary alone, and is made once.
var Docs = sync.OnceValues(func() ([]byte, error) {
	d, err := openapi.Load()
	if err != nil {
		return nil, err
	}
	return docs(d.Root)
})

func docs(root *openapi.Object) ([]byte, error) {
	page, err := view{root}.page()
	if err != nil {
		return nil, err
	}
	t, err := template.ParseFS(files, "docs.html")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, page)
	return b.Bytes(), err
}

// Style is the style sheet of that name.
func Style(name string) ([]byte, error) { return files.ReadFile(name) }
