package handlers

import (
	"reflect"
	"strings"
	"testing"
)

// fields is what an event says, however it was read.
func (e *usageEvent) fields() usageEvent {
	own := *e
	own.said = [6]string{}
	return own
}

// What is read in one pass is what encoding/json reads, to the field, and it takes nothing that the other refuses.
func FuzzPlainEvent(f *testing.F) {
	for _, body := range []string{
		`{"customer":"acme","asset":"usd","amount":"0.25","idempotency_key":"req-1","metadata":{"a":"b"}}`,
		` { "customer" : "acme" , "feature" : "gpt-4o.output", "quantity" : "1532" } ` + "\n",
		`{}`, `{"customer":"a","customer":"b"}`, `{"customer":null}`, `{"customer":1}`, `{"Customer":"a"}`, `{"customer":"a"}x`, `{"customer":"a",}`,
		`{"customer":"\u0061"}`, `{"customer":"ä"}`, "{\"customer\":\"a\x01\"}", `{"metadata":{}}`, `{"metadata":{"a":"1","a":"2"}}`, `{"metadata":{"a":1}}`,
		`{"metadata":{},"metadata":{"a":"1"}}`, `{"customer":"a" "asset":"b"}`, `{"said":"x"}`, `{"":""}`, `[]`, `"`, `{"customer`, `{"customer":"a"`, "",
		`{"customer":"1","asset":"2","amount":"3","feature":"4","quantity":"5","idempotency_key":"6","metadata":{"A":"B"}}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		var plain, whole usageEvent
		r := reader{text: body}
		if !r.event(&plain) || r.next() != 0 || r.at != len(body) {
			return
		}
		if err := decodeJSON([]byte(body), &whole); err != nil {
			t.Fatalf("%q was taken, and is refused: %v", body, err)
		}
		if !reflect.DeepEqual(plain.fields(), whole.fields()) {
			t.Fatalf("%q was read as %+v and is %+v", body, plain, whole)
		}
		batch := `{"events":[` + body + `, ` + body + `]}`
		events, ok := plainBatch(batch)
		if !ok || len(events) != 2 || !reflect.DeepEqual(events[1].fields(), whole.fields()) {
			t.Fatalf("a batch of two of %q was read as %+v, %t", body, events, ok)
		}
	})
}

// The events that people send take the short way; a batch of the most there may be does, and one more does not.
func TestPlainIsPlain(t *testing.T) {
	const event = `{"customer":"acme","amount":"0.25","idempotency_key":"req-1","metadata":{"model":"gpt-4o"}}`
	r := reader{text: event}
	if !r.event(&usageEvent{}) {
		t.Error("an event was not read in one pass")
	}
	batch := func(n int) string {
		return `{"events":[` + strings.TrimSuffix(strings.Repeat(event+",", n), ",") + `]}`
	}
	for n, want := range map[int]bool{0: false, 1: true, maxEvents: true, maxEvents + 1: false} {
		if events, ok := plainBatch(batch(n)); ok != want || ok && len(events) != n {
			t.Errorf("a batch of %d was read: %t, with %d events", n, ok, len(events))
		}
	}
	for _, body := range []string{`{"events":[` + event + `],"events":[]}`, `{"events":[` + event + `]} {}`, `{"events":[` + event + `,]}`, `{"events":[` + event, `{"events":{}}`} {
		if events, ok := plainBatch(body); ok {
			t.Errorf("%s was read as %d events", body, len(events))
		}
	}
}
