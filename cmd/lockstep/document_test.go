package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// The judge finds a difference where there is one, in either direction, and none where there is none.
func TestContractJudges(t *testing.T) {
	t.Parallel()
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	const check = `{"object":"check","allowed":true,"available":"1","reason":null}`
	const refusal = `{"error":{"type":"invalid_request_error","code":"parameter_invalid","message":"no","request_id":"req_1"}}`
	const path = "/v1/customers/acme/check?amount=1"
	replace := func(s, old, new string) string { return strings.Replace(s, old, new, 1) }
	for what, x := range map[string]struct {
		method, path, sent string
		status             int
		answer, says       string
	}{
		"an answer":                     {"GET", path, "", 200, check, ""},
		"a refusal":                     {"GET", path, "", 400, refusal, ""},
		"a body that is refused":        {"POST", "/v1/usage", `{"surprise":1}`, 400, refusal, ""},
		"no such path":                  {"GET", "/v1/nothing", "", 404, replace(refusal, "parameter_invalid", "resource_missing"), ""},
		"a field that is new":           {"GET", path, "", 200, replace(check, `"allowed"`, `"extra":1,"allowed"`), "'extra' not allowed"},
		"a field that is gone":          {"GET", path, "", 200, replace(check, `"available":"1",`, ""), "missing property 'available'"},
		"a number for a decimal string": {"GET", path, "", 200, replace(check, `"1"`, `1`), "want string"},
		"a float of a decimal string":   {"GET", path, "", 200, replace(check, `"1"`, `"1.50"`), "does not match pattern"},
		"a reason there is not":         {"GET", path, "", 200, replace(check, `null`, `"spent"`), "value must be one of"},
		"a status there is not":         {"GET", path, "", 201, check, "status is not supported"},
		"a code there is not":           {"GET", path, "", 400, replace(refusal, "parameter_invalid", "currency_mismatch"), "value must be one of"},
		"a type of another code":        {"GET", path, "", 400, replace(refusal, "invalid_request_error", "conflict"), "value must be 'invalid_request_error'"},
		"a path that is served":         {"GET", "/v1/nothing", "", 200, check, "is not in the document"},
		"another error":                 {"GET", "/v1/nothing", "", 404, `{"message":"no"}`, "missing property 'error'"},
		"no JSON":                       {"GET", path, "", 200, "oops", "invalid character"},
		"a query that is taken":         {"GET", path + "&extra=1", "", 200, check, `query parameter "extra"`},
		"a bad value in the query":      {"GET", replace(path, "=1", "=x"), "", 200, check, `parameter "amount" in query`},
		"an unknown field":              {"POST", "/v1/reconcile", `{"extra":1}`, 200, `{"object":"reconciliation","customers":0,"in_step":0,"repaired":0,"findings":[]}`, "'extra' not allowed"},
		"no body":                       {"PUT", "/v1/assets/x", "", 200, `{"object":"asset","code":"x","scale":0,"price_per_unit":null,"currency":null}`, "no body"},
		"a body that may be left out":   {"POST", "/v1/reconcile", "", 200, `{"object":"reconciliation","customers":0,"in_step":0,"repaired":0,"findings":[]}`, ""},
	} {
		a := answer{status: x.status, raw: []byte(x.answer), header: http.Header{"Content-Type": {"application/json"}, "Request-Id": {"req_1"}}}
		err := c.judge(exchange{x.method, x.path, http.Header{}, []byte(x.sent), a})
		if x.says == "" && err != nil || x.says != "" && (err == nil || !strings.Contains(err.Error(), x.says)) {
			t.Errorf("%s: %v, want %q", what, err, x.says)
		}
	}
	for what, header := range map[string]http.Header{
		"no Request-Id": {"Content-Type": {"application/json"}}, "another type": {"Content-Type": {"text/html"}, "Request-Id": {"req_1"}},
		"an odd replay": {"Content-Type": {"application/json"}, "Request-Id": {"req_1"}, "Idempotent-Replayed": {"yes"}},
	} {
		a := answer{status: 200, raw: []byte(`{"object":"reconciliation","customers":0,"in_step":0,"repaired":0,"findings":[]}`), header: header}
		if err := c.judge(exchange{"POST", "/v1/reconcile", http.Header{}, nil, a}); err == nil {
			t.Errorf("%s: nothing is said", what)
		}
	}
}

// The examples of schemas are of their schemas.
func TestDocumentExamples(t *testing.T) {
	t.Parallel()
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	for name, ref := range c.document.Components.Schemas {
		for _, example := range ref.Value.Examples {
			b, err := json.Marshal(example)
			if err == nil {
				err = c.judgeJSON(b, "components", "schemas", name)
			}
			if err != nil {
				t.Errorf("the example of %s: %v", name, err)
			}
		}
		if ref.Value.Properties["object"] != nil && len(ref.Value.Examples) == 0 {
			t.Errorf("%s has no example", name)
		}
	}
}

// The document and its page are served to everybody, under a policy that lets nothing in from elsewhere.
func TestDocumentServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	for path, kind := range map[string]string{"/openapi.json": "application/json", "/docs": "text/html; charset=utf-8", "/docs/docs.css": "text/css; charset=utf-8"} {
		a := w.must("GET", path, nil, "Authorization", "")
		tag := a.header.Get("ETag")
		if a.status != 200 || a.header.Get("Content-Type") != kind || a.header.Get("X-Content-Type-Options") != "nosniff" || tag == "" || len(a.raw) < 1000 {
			t.Errorf("GET %s: %d %v", path, a.status, a.header)
		}
		if path == "/docs" && !strings.HasPrefix(a.header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'self';") {
			t.Errorf("the page's policy: %q", a.header.Get("Content-Security-Policy"))
		}
		if again := w.call("GET", path, nil, "If-None-Match", tag); again.status != 304 || len(again.raw) != 0 {
			t.Errorf("GET %s again: %v", path, again)
		}
		if head := w.call("HEAD", path, nil); head.status != 200 || head.header.Get("Content-Length") != fmt.Sprint(len(a.raw)) || len(head.raw) != 0 {
			t.Errorf("HEAD %s: %d %v", path, head.status, head.header)
		}
	}
	if a := w.call("GET", "/openapi.json", nil); a.str("openapi") != "3.1.0" || a.str("info.title") != "Lockstep" {
		t.Errorf("the document: %s", a.str("info"))
	}
	w.refused("no such part of the page", w.call("GET", "/docs/nothing.css", nil), refusal{404, "invalid_request_error", "resource_missing", ""})
}

// Every operation does what its example asks for; without a key, with a field, a parameter or a value that the
// document does not allow, it refuses in the contract's words and books nothing.
func TestDocumentIsTrue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	w.must("PUT", "/v1/assets/credits", map[string]any{"scale": 2, "price_per_unit": "0.01", "currency": "usd"})
	for path, item := range c.document.Paths.Map() {
		for method, op := range item.Operations() {
			if op.OperationID == "stripeWebhook" {
				continue // signed, and Stripe's to describe: the webhook's tests send it
			}
			d := driven{w, c, &routers.Route{Spec: c.document, Path: path, PathItem: item, Method: method, Operation: op}, "acme"}
			if op.OperationID != "postCustomer" {
				d.customer = "acme-" + op.OperationID
				w.customer(d.customer, "1000", "pm_card_visa")
			}
			d.drive()
		}
	}
}

// driven is an operation that is driven by what the document says of it, with a customer of its own.
type driven struct {
	w        *world
	c        *contract
	route    *routers.Route
	customer string
}

func (d driven) drive() {
	op := d.route.Operation
	path, query := d.path(), d.query()
	example := d.example()
	before := d.books()
	if len(*op.Security) > 0 {
		d.w.refused(op.OperationID+" without a key", d.w.call(d.route.Method, path+query, example, "Authorization", ""),
			refusal{401, "authentication_error", "api_key_invalid", ""})
		d.mutateQuery(path)
		d.mutateBody(path+query, example)
	}
	if d.route.Method == "POST" && len(*op.Security) > 0 {
		d.w.refused(op.OperationID+" with a long key", d.w.call("POST", path, example, "Idempotency-Key", strings.Repeat("k", 256)),
			bad("parameter_invalid", "idempotency_key"))
	}
	if after := d.books(); after != before {
		d.w.t.Errorf("%s: booked something while it refused: %s, before it %s", op.OperationID, after, before)
	}
	a := d.w.call(d.route.Method, path+query, example)
	want := 2
	if op.OperationID == "cancelTopup" {
		want = 4 // one that was paid; those that can be canceled are in the top-ups' tests
	}
	if a.status/100 != want {
		d.w.t.Errorf("%s: the example is answered %v", op.OperationID, a)
	}
}

// books are all but Stripe's events, which the gateway fetches when it starts.
func (d driven) books() string {
	d.w.t.Helper()
	books, _, _ := strings.Cut(d.w.books(), " events ")
	return books
}

// path is the operation's with things in it that are there.
func (d driven) path() string {
	wallet := d.w.call("GET", "/v1/customers/"+d.customer, nil).str("wallets.0.id")
	path := strings.NewReplacer("{customer}", d.customer, "{code}", "credits", "{key}", "words").Replace(d.route.Path)
	make := func(path string, body map[string]any) string {
		body["customer"] = d.customer
		return d.w.must("POST", path, body).str("id")
	}
	if strings.HasSuffix(path, "/words") {
		d.w.must("PUT", "/v1/features/words", map[string]any{"asset": "usd", "unit_cost": "0.001"})
	}
	if !strings.Contains(path, "{id}") {
		return path
	}
	var id string
	switch kind := strings.Split(path, "/")[2]; kind {
	case "wallets":
		id = wallet
		d.w.must("PUT", "/v1/wallets/"+wallet+"/auto_topup", map[string]any{"threshold": "1", "amount": "20"})
	case "webhook_endpoints":
		id = d.w.must("POST", "/v1/webhook_endpoints", map[string]any{"url": "https://app.example.com/hook", "events": []string{"*"}}).str("id")
	case "events":
		d.w.must("POST", "/v1/webhook_endpoints", map[string]any{"url": "https://app.example.com/all", "events": []string{"*"}}) // to be sent to
		id = d.w.must("GET", "/v1/events", nil).str("data.0.id")
	case "debits":
		id = make("/v1/usage", map[string]any{"amount": "0.25"})
	case "holds", "topups":
		id = make("/v1/"+kind, map[string]any{"amount": "20"})
	case "grants":
		id = make("/v1/grants", map[string]any{"amount": "20"})
	default:
		d.w.t.Fatalf("%s: say here how one of %s is made", d.route.Operation.OperationID, kind)
	}
	return strings.ReplaceAll(path, "{id}", id)
}

// query has what the operation can't do without, and what the document shows.
func (d driven) query() string {
	for _, p := range d.route.Operation.Parameters {
		if p.Value.In == "query" && p.Value.Example != nil && p.Value.Name != "customer" { // which is another's there
			return "?" + p.Value.Name + "=" + fmt.Sprint(p.Value.Example)
		}
		if p.Value.In == "query" && p.Value.Required {
			return "?" + p.Value.Name + "=" + fmt.Sprint(p.Value.Schema.Value.Examples[0])
		}
	}
	return ""
}

// example is the request that the document shows, as of this operation's customer; nil where there is none.
func (d driven) example() any {
	body := d.route.Operation.RequestBody
	if body == nil {
		return nil
	}
	b, err := json.Marshal(body.Value.Content["application/json"].Example)
	if err != nil || string(b) == "null" {
		d.w.t.Fatalf("%s has no example of its body: %v", d.route.Operation.OperationID, err)
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(b), `"acme"`, `"`+d.customer+`"`)), &v); err != nil {
		d.w.t.Fatal(err)
	}
	return v
}

// mutateQuery sends what the document does not allow in the query.
func (d driven) mutateQuery(path string) {
	try := func(what, query string) {
		r, err := http.NewRequest(d.route.Method, "http://lockstep.test"+path+query, nil)
		if err != nil {
			d.w.t.Fatal(err)
		}
		in := &openapi3filter.RequestValidationInput{Request: r, Route: d.route, Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
		if d.c.judgeRequest(in, []byte(`{}`)) != nil {
			d.refused(what, path+query, d.example())
		}
	}
	try("an unknown parameter", "?surprise=1")
	for _, p := range d.route.Operation.Parameters {
		if p.Value.In != "query" {
			continue
		}
		if p.Value.Required {
			d.refused("without "+p.Value.Name, path, nil)
		}
		for _, value := range []string{"nonsense!", "-1", "1.5", "1e2", "0", "101", strings.Repeat("x", 501)} {
			if d.disallows(p.Value, value) {
				d.refused(p.Value.Name+" "+value[:min(len(value), 20)], path+"?"+p.Value.Name+"="+url.QueryEscape(value), nil)
			}
		}
	}
}

// disallows reports whether the document refuses a parameter's value.
func (d driven) disallows(p *openapi3.Parameter, value string) bool {
	r, err := http.NewRequest("GET", "http://lockstep.test/?"+p.Name+"="+url.QueryEscape(value), nil)
	if err != nil {
		d.w.t.Fatal(err)
	}
	return openapi3filter.ValidateParameter(d.w.t.Context(), &openapi3filter.RequestValidationInput{Request: r, Route: d.route, Options: &openapi3filter.Options{}}, p) != nil
}

// refused makes the call and sees that it is refused as bad input.
func (d driven) refused(what, path string, body any) {
	a := d.w.call(d.route.Method, path, body)
	d.w.refused(d.route.Operation.OperationID+": "+what, a, bad("", "*"))
}

// mutateBody sends the example with one thing in it that the document does not allow.
func (d driven) mutateBody(path string, example any) {
	body, ok := example.(map[string]any)
	if !ok {
		return
	}
	place := d.c.bodyPlace(d.route)
	tried := 0
	try := func(what string, body any) {
		b, err := json.Marshal(body)
		if err != nil {
			d.w.t.Fatal(err)
		}
		if d.c.judgeJSON(b, place...) != nil {
			d.refused(what+": "+string(b), path, body)
			tried++
		}
	}
	for _, v := range []any{[]any{}, "text", 1, true} {
		try("no object", v)
	}
	schema := d.route.Operation.RequestBody.Value.Content["application/json"].Schema.Value
	var mutate func(schema *openapi3.Schema, body map[string]any, whole func(map[string]any) any)
	mutate = func(schema *openapi3.Schema, body map[string]any, whole func(map[string]any) any) {
		try("an unknown field", whole(with(body, "surprise", 1)))
		for _, name := range schema.Required {
			b := maps.Clone(body)
			delete(b, name)
			try("without "+name, whole(b))
		}
		for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
			for _, v := range []any{nil, "", "nonsense!", "-1", "1e2", 12, 1.5, -1, 101, true, []any{}, map[string]any{}, map[string]any{"nonsense": 1}, strings.Repeat("x", 501)} {
				try(name, whole(with(body, name, v)))
			}
			if within := objectWithin(schema.Properties[name].Value); within != nil {
				sub, _ := body[name].(map[string]any)
				if sub == nil {
					sub = map[string]any{}
				}
				if len(sub) == 0 && len(within.Examples) > 0 {
					sub, _ = within.Examples[0].(map[string]any)
				}
				mutate(within, sub, func(b map[string]any) any { return whole(with(body, name, b)) })
			}
		}
	}
	mutate(schema, body, func(b map[string]any) any { return b })
	if tried < 5 {
		d.w.t.Errorf("%s: only %d bodies that the document does not allow", d.route.Operation.OperationID, tried)
	}
}

// objectWithin is the object that a field may be; nil where it is none, or one whose names are the caller's.
func objectWithin(s *openapi3.Schema) *openapi3.Schema {
	for _, one := range s.AnyOf {
		if within := objectWithin(one.Value); within != nil {
			return within
		}
	}
	if len(s.Properties) == 0 {
		return nil
	}
	return s
}
