package stripesim

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
)

// encode renders one of the package's own values, which cannot fail.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// pretty is encode with Stripe's two-space indent.
func pretty(v any) []byte {
	var b bytes.Buffer
	if err := json.Indent(&b, encode(v), "", "  "); err != nil {
		panic(err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// toMap is v as decoded JSON, with exact numbers.
func toMap(v any) map[string]any {
	d := json.NewDecoder(bytes.NewReader(encode(v)))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		panic(err)
	}
	return m
}

// changes is what previous_attributes holds: the old value of every attribute
// that differs, and of nested objects only the parts that differ.
func changes(before, after map[string]any) map[string]any {
	out := map[string]any{}
	keys := slices.Collect(maps.Keys(before))
	for k := range after {
		if _, ok := before[k]; !ok {
			keys = append(keys, k)
		}
	}
	for _, k := range keys {
		was, is := before[k], after[k]
		if reflect.DeepEqual(was, is) {
			continue
		}
		wasMap, ok1 := was.(map[string]any)
		isMap, ok2 := is.(map[string]any)
		if ok1 && ok2 {
			out[k] = changes(wasMap, isMap)
		} else {
			out[k] = was
		}
	}
	return out
}
