package openapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// expand adds to an operation what every operation has, so that the files say only what is particular: see
// openapi.yaml.
func expand(root *Object, op Operation) error {
	open := len(op.List("security")) == 0
	if open && !op.Has("security") {
		return fmt.Errorf("security is missing: [] for a route without a key")
	}
	keyed := !open && op.Method == "POST"
	errors := &Object{}
	if given := op.In("x-errors"); given != nil {
		errors.members = slices.Clone(given.members)
	}
	common := func(codes ...string) {
		for _, code := range codes {
			if !errors.Has(code) {
				errors.Set(code, nil)
			}
		}
	}
	if !open {
		common("parameter_invalid", "parameter_unknown", "api_key_invalid", "scope_missing", "rate_limited", "unavailable")
	}
	if op.Has("requestBody") {
		common("body_too_large")
	}
	if keyed {
		common("idempotency_key_reused")
		op.Set("parameters", append(slices.Clone(op.List("parameters")), reference("parameters", "Idempotency-Key")))
	}
	if len(errors.members) > 0 {
		op.Set("x-errors", errors)
	}
	if err := expandErrors(root, op, errors); err != nil {
		return err
	}
	for _, m := range op.In("responses").members {
		headers := object("Request-Id", reference("headers", "Request-Id"))
		if keyed && m.Name[0] == '2' {
			headers.Set("Idempotent-Replayed", reference("headers", "Idempotent-Replayed"))
		}
		if m.Name == "503" && errors.Has("unavailable") || m.Name == "429" && errors.Has("rate_limited") {
			headers.Set("Retry-After", reference("headers", "Retry-After"))
		}
		m.Value.(*Object).Set("headers", headers)
	}
	return nil
}

// expandErrors turns the codes of x-errors into answers: one a status, in the order of the table of codes, with
// the codes that can come and what each means.
func expandErrors(root *Object, op Operation, errors *Object) error {
	table := root.In("x-codes")
	for _, m := range errors.members {
		if table.In(m.Name) == nil {
			return fmt.Errorf("there is no code %s in x-codes", m.Name)
		}
	}
	for _, known := range table.members {
		if !errors.Has(known.Name) {
			continue
		}
		code := known.Value.(*Object)
		if text := errors.Text(known.Name); text == "" {
			errors.Set(known.Name, code.Text("text"))
		}
		if err := addError(op.In("responses"), known.Name, code, errors.Text(known.Name)); err != nil {
			return err
		}
	}
	return nil
}

func addError(responses *Object, name string, code *Object, text string) error {
	number, _ := code.Get("status").(json.Number)
	status := number.String()
	schema := "Error"
	if s := code.Text("schema"); s != "" {
		schema = s
	}
	response := responses.In(status)
	if response == nil {
		facts := object("properties", object("error", object("properties", object("type", object("enum", []any{}), "code", object("enum", []any{})))))
		response = object("description", "", "content", object("application/json", object("schema",
			object("allOf", []any{reference("schemas", schema), facts}))))
		responses.Set(status, response)
	}
	all := response.In("content", "application/json", "schema").List("allOf")
	if len(all) != 2 || !strings.HasSuffix(all[0].(*Object).Text("$ref"), "/"+schema) {
		return fmt.Errorf("%s: status %s has an answer of another shape", name, status)
	}
	properties := all[1].(*Object).In("properties", "error", "properties")
	addTo(properties.In("type"), code.Text("type"))
	if code.Get("open") == true {
		properties.members = slices.DeleteFunc(properties.members, func(m Member) bool { return m.Name == "code" })
	} else if c := code.Text("code"); c != "" {
		addTo(properties.In("code"), c)
	} else {
		addTo(properties.In("code"), name)
	}
	response.Set("description", strings.TrimPrefix(response.Text("description")+"\n\n`"+name+"`: "+text, "\n\n"))
	return nil
}

// addTo adds a value to an enum, once.
func addTo(schema *Object, v string) {
	if list := schema.List("enum"); !slices.Contains(list, any(v)) {
		schema.Set("enum", append(list, v))
	}
}

func reference(kind, name string) *Object { return object("$ref", "#/components/"+kind+"/"+name) }
