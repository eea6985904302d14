package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"lockstep/handlers/openapi"
)

// contract is the OpenAPI document that the gateway serves, as a judge of what is sent to the gateway and of
// what it answers. kin-openapi judges the document itself, and status, headers and parameters; bodies are judged by
// the library that it uses for JSON Schema, because it would compile the schema anew for each of them.
type contract struct {
	document *openapi3.T
	mux      *http.ServeMux // to contractRoutes
	compiler *jsonschema.Compiler

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema // by pointer into the document
}

// theContract reads the document once for all tests.
var theContract = sync.OnceValues(func() (*contract, error) {
	d, err := openapi.Load()
	if err != nil {
		return nil, err
	}
	return newContract(d.JSON)
})

func newContract(document []byte) (*contract, error) {
	loaded, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		return nil, err
	}
	if err := loaded.Validate(context.Background()); err != nil {
		return nil, err
	}
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(documentURL, whole); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for path, item := range loaded.Paths.Map() {
		for method, op := range item.Operations() {
			mux.Handle(method+" "+path, contractRoute{route: &routers.Route{Spec: loaded, Path: path, PathItem: item, Method: method, Operation: op}})
		}
	}
	return &contract{document: loaded, mux: mux, compiler: compiler, schemas: map[string]*jsonschema.Schema{}}, nil
}

const documentURL = "https://lockstep.test/openapi.json"

// contractRoute is an operation where a mux wants a handler.
type contractRoute struct {
	http.Handler
	route *routers.Route
}

// find is the operation that a request asks for, with what stands in its path; nil where there is none.
func (c *contract) find(r *http.Request) (*routers.Route, map[string]string) {
	h, _ := c.mux.Handler(r)
	found, ok := h.(contractRoute)
	if !ok {
		return nil, nil
	}
	params := map[string]string{}
	parts := strings.Split(r.URL.Path, "/")
	for i, name := range strings.Split(found.route.Path, "/") {
		if strings.HasPrefix(name, "{") && i < len(parts) {
			params[strings.Trim(name, "{}")] = parts[i]
		}
	}
	return found.route, params
}

// schema is the compiled schema at a place in the document, such as "paths", "/v1/usage", "post" …; a reference
// on the way is followed where the document's own objects are referred to.
func (c *contract) schema(place ...string) (*jsonschema.Schema, error) {
	pointer := "#"
	for _, p := range place {
		pointer += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(p))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.schemas[pointer]; s != nil {
		return s, nil
	}
	s, err := c.compiler.Compile(documentURL + pointer)
	if err == nil {
		c.schemas[pointer] = s
	}
	return s, err
}

// exchange is a request and its answer.
type exchange struct {
	method, path string // with the query
	header       http.Header
	body         []byte
	answer       answer
}

// judge says where the gateway and the document differ about an exchange: an answer that the document does not
// have, or a request that was accepted although the document does not allow it.
func (c *contract) judge(x exchange) error {
	r, err := http.NewRequest(x.method, "http://lockstep.test"+x.path, bytes.NewReader(x.body))
	if err != nil {
		return err
	}
	r.Header = x.header.Clone()
	route, params := c.find(r)
	if route == nil {
		return c.judgeUnknown(x)
	}
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route, Options: &openapi3filter.Options{
		ExcludeRequestBody: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	if err := c.judgeAnswer(in, x); err != nil {
		return fmt.Errorf("%s: the answer is not in the document: %w", route.Operation.OperationID, err)
	}
	if x.answer.status/100 != 2 {
		return nil
	}
	if err := c.judgeRequest(in, x.body); err != nil {
		return fmt.Errorf("%s: accepted what the document does not allow: %w", route.Operation.OperationID, err)
	}
	return nil
}

// judgeUnknown judges the answer to what the document knows no operation for.
func (c *contract) judgeUnknown(x exchange) error {
	if strings.HasPrefix(x.path, "/docs/") {
		return nil // a part of the page
	}
	if s := x.answer.status; s != http.StatusNotFound && s != http.StatusMethodNotAllowed {
		return fmt.Errorf("%s %s is answered %d and is not in the document", x.method, x.path, s)
	}
	if x.method == http.MethodHead {
		return nil
	}
	return c.judgeJSON(x.answer.raw, "components", "schemas", "Error")
}

func (c *contract) judgeAnswer(in *openapi3filter.RequestValidationInput, x exchange) error {
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: x.answer.status, Header: x.answer.header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: true}}
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		return err
	}
	status := fmt.Sprint(x.answer.status)
	content := in.Route.Operation.Responses.Value(status).Value.Content
	kind := x.answer.header.Get("Content-Type")
	switch {
	case len(content) == 0:
		if len(x.answer.raw) > 0 {
			return fmt.Errorf("status %s has a body", status)
		}
		return nil
	case content.Get(kind) == nil:
		return fmt.Errorf("status %s has the content type %q", status, kind)
	case kind != "application/json" || x.method == http.MethodHead:
		return nil
	}
	return c.judgeJSON(x.answer.raw, "paths", in.Route.Path, strings.ToLower(in.Route.Method), "responses", status, "content", kind, "schema")
}

func (c *contract) judgeRequest(in *openapi3filter.RequestValidationInput, body []byte) error {
	for name := range in.Request.URL.Query() {
		if in.Route.Operation.Parameters.GetByInAndName("query", name) == nil {
			return fmt.Errorf("query parameter %q", name)
		}
	}
	if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
		return err
	}
	op := in.Route.Operation
	if op.RequestBody == nil { // as with GET, where a body means nothing
		return nil
	}
	if len(body) == 0 {
		if op.RequestBody.Value.Required {
			return fmt.Errorf("no body")
		}
		return nil
	}
	return c.judgeJSON(body, c.bodyPlace(in.Route)...)
}

// bodyPlace is where the document has the schema of a request's body.
func (c *contract) bodyPlace(route *routers.Route) []string {
	at := []string{"paths", route.Path, strings.ToLower(route.Method), "requestBody"}
	if ref := route.Operation.RequestBody.Ref; ref != "" {
		at = strings.Split(strings.TrimPrefix(ref, "#/"), "/")
	}
	return append(at, "content", "application/json", "schema")
}

// judgeJSON judges a body by the schema at a place in the document.
func (c *contract) judgeJSON(body []byte, place ...string) error {
	s, err := c.schema(place...)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %.200s", err, body)
	}
	if err := s.Validate(v); err != nil {
		return fmt.Errorf("%w\nin %.2000s", err, body)
	}
	return nil
}

// judged fails the test where an exchange and the document differ.
func judged(t *testing.T, x exchange) {
	t.Helper()
	c, err := theContract()
	if err != nil {
		t.Errorf("the OpenAPI document: %v", err)
		return
	}
	if err := c.judge(x); err != nil {
		t.Errorf("%s %.200s %.500s: %v", x.method, x.path, x.body, err)
	}
}
