package openapi

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// small is a document of two files.
func small(change ...string) fstest.MapFS {
	first := `
openapi: 3.1.0
components:
  headers: {Request-Id: {}, Retry-After: {}, Idempotent-Replayed: {}}
  schemas: {Error: {}, Short: {}}
x-codes:
  parameter_invalid: {status: 400, type: invalid_request_error, text: common}
  parameter_unknown: {status: 400, type: invalid_request_error, text: common}
  api_key_invalid: {status: 401, type: authentication_error, text: common}
  short: {status: 402, type: short, schema: Short, text: common}
  card: {status: 402, type: card_error, open: true, text: common}
  scope_missing: {status: 403, type: permission_error, text: common}
  body_too_large: {status: 413, type: invalid_request_error, code: parameter_invalid, text: common}
  idempotency_key_reused: {status: 422, type: idempotency_error, text: common}
  rate_limited: {status: 429, type: rate_limit_error, text: common}
  unavailable: {status: 503, type: api_error, text: common}
`
	second := `
paths:
  /v1/things:
    post:
      security: [{key: [write]}]
      requestBody: {content: {}}
      responses: {"201": {description: "Made."}}
      x-errors: {card: the card, parameter_invalid: }
  /healthz:
    get:
      security: []
      responses: {"200": {description: "It lives."}}
`
	for i := 0; i+1 < len(change); i += 2 {
		if !strings.Contains(second, change[i]) {
			panic("nothing to change: " + change[i])
		}
		second = strings.Replace(second, change[i], change[i+1], 1)
	}
	return fstest.MapFS{"openapi.yaml": {Data: []byte(first)}, "a.yaml": {Data: []byte(second)}}
}

// What every operation has is added, in the order of the table of codes, and what it says of itself stays.
func TestExpand(t *testing.T) {
	t.Parallel()
	d, err := load(small())
	if err != nil {
		t.Fatal(err)
	}
	responses := d.Root.In("paths", "/v1/things", "post", "responses")
	var statuses []string
	for _, m := range responses.Members() {
		statuses = append(statuses, m.Name)
	}
	if want := []string{"201", "400", "401", "402", "403", "413", "422", "429", "503"}; !slices.Equal(statuses, want) {
		t.Errorf("answers %v, want %v", statuses, want)
	}
	for status, want := range map[string]string{
		"201": `{"description":"Made.","headers":{"Request-Id":{"$ref":"#/components/headers/Request-Id"},"Idempotent-Replayed":{"$ref":"#/components/headers/Idempotent-Replayed"}}}`,
		"400": `"enum":["parameter_invalid","parameter_unknown"]`,
		"402": `{"description":"` + "`card`: the card" + `","content":{"application/json":{"schema":{"allOf":[{"$ref":"#/components/schemas/Error"},{"properties":{"error":{"properties":{"type":{"enum":["card_error"]}}}}}]}}}`,
		"413": `"code":{"enum":["parameter_invalid"]}`,
		"429": `"Retry-After":{"$ref":"#/components/headers/Retry-After"}`,
		"503": `"Retry-After":{"$ref":"#/components/headers/Retry-After"}`,
	} {
		b, err := json.Marshal(responses.In(status))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: %s %v, want %s", status, b, err, want)
		}
	}
	if b, _ := json.Marshal(d.Root.In("paths", "/v1/things", "post").List("parameters")); !strings.Contains(string(b), "Idempotency-Key") {
		t.Errorf("a POST's parameters: %s", b)
	}
	if b, _ := json.Marshal(d.Root.In("paths", "/healthz", "get", "responses")); string(b) != `{"200":{"description":"It lives.","headers":{"Request-Id":{"$ref":"#/components/headers/Request-Id"}}}}` {
		t.Errorf("a route without a key: %s", b)
	}
}

// What can't be right is said when the document is put together, with the operation it is about.
func TestMistakesInTheFiles(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		files fstest.MapFS
		says  string
	}{
		"no security":             {small("security: []", ""), "GET /healthz: security is missing"},
		"an unknown code":         {small("card: the card", "crad: x"), "POST /v1/things: there is no code crad"},
		"two shapes of an answer": {small("card: the card", "card: a, short: b"), "card: status 402 has an answer of another shape"},
		"the same path twice":     {small("/healthz", "/v1/things"), "/v1/things comes twice"},
		"an object of two files":  {fstest.MapFS{"openapi.yaml": {Data: []byte("a: {b: 1}")}, "x.yaml": {Data: []byte("a: {b: 2}")}}, "x.yaml: /a/b is in a file before"},
		"an alias":                {fstest.MapFS{"openapi.yaml": {Data: []byte("a: &x {}\nb: *x")}}, "line 2: only objects"},
		"a list":                  {fstest.MapFS{"openapi.yaml": {Data: []byte("[]")}}, "is no object"},
		"nothing":                 {fstest.MapFS{"openapi.yaml": {}}, "is empty"},
		"no YAML":                 {fstest.MapFS{"openapi.yaml": {Data: []byte("a: {")}}, "openapi.yaml: "},
	} {
		if _, err := load(c.files); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", what, err, c.says)
		}
	}
}

// Members keep their order, and values their kind.
func TestOrder(t *testing.T) {
	t.Parallel()
	o, err := parse([]byte("z: 1\na: [true, null, 1.50, \"1\", 2026-03-01T12:00:00Z]\nm: {y: x, b: c}"))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := json.Marshal(o); string(b) != `{"z":1,"a":[true,null,1.50,"1","2026-03-01T12:00:00Z"],"m":{"y":"x","b":"c"}}` {
		t.Errorf("%s", b)
	}
}
