package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/oasdiff/yaml3"
)

// Object is a JSON object whose members keep the order in which they were written, which is the order for readers.
// A nil one is empty. The other values are []any, string, json.Number, bool and nil.
type Object struct{ members []Member }

// Member is a name and its value.
type Member struct {
	Name  string
	Value any
}

// Members are the names and values in their order.
func (o *Object) Members() []Member {
	if o == nil {
		return nil
	}
	return o.members
}

// Get is the value of a name, nil where there is none.
func (o *Object) Get(name string) any {
	for _, m := range o.Members() {
		if m.Name == name {
			return m.Value
		}
	}
	return nil
}

// Has reports whether there is a value of that name, null included.
func (o *Object) Has(name string) bool {
	return slices.ContainsFunc(o.Members(), func(m Member) bool { return m.Name == name })
}

// In follows names into objects; nil where they lead to none.
func (o *Object) In(names ...string) *Object {
	for _, name := range names {
		o, _ = o.Get(name).(*Object)
	}
	return o
}

// Text is the string of a name, "" where there is none.
func (o *Object) Text(name string) string {
	s, _ := o.Get(name).(string)
	return s
}

// List is the list of a name, empty where there is none.
func (o *Object) List(name string) []any {
	l, _ := o.Get(name).([]any)
	return l
}

// Set gives a name a value, at the end where it is new.
func (o *Object) Set(name string, value any) {
	for i := range o.members {
		if o.members[i].Name == name {
			o.members[i].Value = value
			return
		}
	}
	o.members = append(o.members, Member{name, value})
}

// MarshalJSON writes the members in their order.
func (o *Object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, m := range o.members {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := e.Encode(m.Name); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := e.Encode(m.Value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// object makes one of names and values in turn.
func object(pairs ...any) *Object {
	o := &Object{}
	for i := 0; i+1 < len(pairs); i += 2 {
		o.Set(pairs[i].(string), pairs[i+1])
	}
	return o
}

// parse reads one YAML file.
func parse(data []byte) (*Object, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(data, &n); err != nil {
		return nil, err
	}
	if len(n.Content) != 1 {
		return nil, errors.New("the file is empty")
	}
	v, err := value(n.Content[0])
	if err != nil {
		return nil, err
	}
	o, ok := v.(*Object)
	if !ok {
		return nil, errors.New("the file is no object")
	}
	return o, nil
}

// value turns YAML into what JSON knows. A name that comes twice is a mistake that YAML would hide.
func value(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.MappingNode:
		o := &Object{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i].Value
			if o.Has(name) {
				return nil, fmt.Errorf("line %d: %s comes twice", n.Content[i].Line, name)
			}
			v, err := value(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			o.members = append(o.members, Member{name, v})
		}
		return o, nil
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i := range n.Content {
			var err error
			if list[i], err = value(n.Content[i]); err != nil {
				return nil, err
			}
		}
		return list, nil
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!int", "!!float":
			return json.Number(n.Value), nil
		case "!!bool":
			return n.Value == "true", nil
		case "!!null":
			return nil, nil
		}
		return n.Value, nil
	}
	return nil, fmt.Errorf("line %d: only objects, lists and plain values are understood", n.Line)
}
