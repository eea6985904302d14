// Package openapi is the description of all that the service serves, as OpenAPI 3.1. It is written by hand, in
// the YAML files beside this one; openapi.yaml says how.
package openapi

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

//go:embed *.yaml
var files embed.FS

// Document is the description, put together.
type Document struct {
	Root *Object
	JSON []byte
}

// Load puts the document together, once.
var Load = sync.OnceValues(func() (*Document, error) { return load(files) })

func load(files fs.FS) (*Document, error) {
	const first = "openapi.yaml"
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == first })
	root := &Object{}
	for _, name := range append([]string{first}, names...) {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		part, err := parse(data)
		if err == nil {
			err = merge(root, part, "")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for op := range root.Operations() {
		if err := expand(root, op); err != nil {
			return nil, fmt.Errorf("%s %s: %w", op.Method, op.Path, err)
		}
	}
	b, err := json.Marshal(root)
	return &Document{Root: root, JSON: b}, err
}

// merge adds a file's objects to those of the files before it. Nothing is said twice.
func merge(into, from *Object, at string) error {
	for _, m := range from.members {
		old, had := into.Get(m.Name), into.Has(m.Name)
		a, both := old.(*Object)
		b, ok := m.Value.(*Object)
		switch {
		case !had:
			into.Set(m.Name, m.Value)
		case both && ok:
			if err := merge(a, b, at+"/"+m.Name); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s/%s is in a file before this one too", at, m.Name)
		}
	}
	return nil
}

// Operation is one method on one path.
type Operation struct {
	Method string // in capitals
	Path   string
	*Object
}

// Operations goes through all operations, in the order of the files.
func (o *Object) Operations() func(yield func(Operation) bool) {
	return func(yield func(Operation) bool) {
		for _, p := range o.In("paths").members {
			item, _ := p.Value.(*Object)
			for _, m := range item.members {
				op, _ := m.Value.(*Object)
				if !yield(Operation{strings.ToUpper(m.Name), p.Name, op}) {
					return
				}
			}
		}
	}
}

// Resolve follows a reference within the document; an object without one is itself. What stands beside the
// reference is added to what it refers to.
func (o *Object) Resolve(v *Object) *Object {
	ref := v.Text("$ref")
	if ref == "" {
		return v
	}
	target := o.Resolve(o.In(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...))
	if len(v.members) == 1 || target == nil {
		return target
	}
	both := &Object{members: slices.Clone(target.members)}
	for _, m := range v.members {
		if m.Name != "$ref" {
			both.Set(m.Name, m.Value)
		}
	}
	return both
}
