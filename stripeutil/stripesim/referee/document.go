package referee

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/stripe/stripe-mock/embedded"
	"github.com/stripe/stripe-mock/spec"
)

// document is stripe-mock's copy of Stripe's OpenAPI description. It is six
// megabytes, of which a test needs little: operations and schemas are decoded
// when they are first asked for.
type document struct {
	paths   []path
	schemas map[string]json.RawMessage

	mu         sync.Mutex
	decoded    map[string]*spec.Schema
	operations map[string]*operation
	objects    map[string]string // "payment_intent" -> schema of that object
}

type path struct {
	parts []string // "" is a variable part
	verbs map[string]json.RawMessage
}

// operation is one method on one path.
type operation struct {
	request   *spec.Schema
	validate  func(any) error // stripe-mock's judgement of the request
	responses map[spec.StatusCode]spec.Response
}

// load reads the description once per process.
var load = sync.OnceValues(func() (*document, error) {
	var in struct {
		Components struct{ Schemas map[string]json.RawMessage }
		Paths      map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(embedded.OpenAPISpec, &in); err != nil {
		return nil, fmt.Errorf("referee: stripe-mock's OpenAPI description: %w", err)
	}
	d := &document{schemas: in.Components.Schemas, decoded: map[string]*spec.Schema{}, operations: map[string]*operation{}, objects: map[string]string{}}
	for p, verbs := range in.Paths {
		parts := strings.Split(strings.Trim(p, "/"), "/")
		for i := range parts {
			if strings.HasPrefix(parts[i], "{") {
				parts[i] = ""
			}
		}
		d.paths = append(d.paths, path{parts, verbs})
	}
	for name, data := range d.schemas {
		var s struct {
			Properties struct {
				Object  struct{ Enum []string }
				Deleted *struct{}
			}
		}
		if json.Unmarshal(data, &s) == nil && len(s.Properties.Object.Enum) == 1 && s.Properties.Deleted == nil {
			d.objects[s.Properties.Object.Enum[0]] = name
		}
	}
	return d, nil
})

// operation finds what the description says of a request; nil when it knows no
// such call.
func (d *document) operation(method, requestPath string) (*operation, error) {
	parts := strings.Split(strings.Trim(requestPath, "/"), "/")
	var found json.RawMessage
	key, fewest := "", len(parts)+1
	for _, p := range d.paths {
		variables, ok := p.match(parts)
		if raw := p.verbs[strings.ToLower(method)]; ok && raw != nil && variables < fewest {
			found, fewest, key = raw, variables, method+" "+strings.Join(p.parts, "/")
		}
	}
	if found == nil {
		return nil, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if op := d.operations[key]; op != nil {
		return op, nil
	}
	op, err := decodeOperation(method, found)
	if err != nil {
		return nil, fmt.Errorf("referee: %s %s: %w", method, requestPath, err)
	}
	d.operations[key] = op
	return op, nil
}

func (p *path) match(parts []string) (variables int, ok bool) {
	if len(p.parts) != len(parts) {
		return 0, false
	}
	for i, part := range p.parts {
		if part == "" {
			variables++
		} else if part != parts[i] {
			return 0, false
		}
	}
	return variables, true
}

// decodeOperation builds the request's validator as stripe-mock's server does:
// from the query's parameters for GET, from the form's schema otherwise.
func decodeOperation(method string, data json.RawMessage) (*operation, error) {
	var o spec.Operation
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, err
	}
	op := &operation{responses: o.Responses}
	if method == "GET" {
		op.request = spec.BuildQuerySchema(&o)
	} else if o.RequestBody != nil {
		for _, media := range o.RequestBody.Content {
			op.request = media.Schema
		}
	}
	if op.request == nil {
		return op, nil
	}
	v, err := spec.GetValidatorForOpenAPI3Schema(op.request, nil)
	if err != nil {
		return nil, err
	}
	op.validate = v.Validate
	return op, nil
}

// schema resolves a reference.
func (d *document) schema(s *spec.Schema) (*spec.Schema, error) {
	if s.Ref == "" {
		return s, nil
	}
	return d.named(strings.TrimPrefix(s.Ref, "#/components/schemas/"))
}

func (d *document) named(name string) (*spec.Schema, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.decoded[name]; s != nil {
		return s, nil
	}
	data, ok := d.schemas[name]
	if !ok {
		return nil, fmt.Errorf("no schema %q in Stripe's description", name)
	}
	s := &spec.Schema{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	d.decoded[name] = s
	return s, nil
}
