package handlers

import "strings"

// Usage is asked for thousands of times a second, nearly always in the same few words: an object of our own names and
// texts without escapes. That is read here in one pass. Whatever is said in another way, right or wrong, is left to
// encoding/json, so what is taken and what is refused is decided there alone.

// reader reads JSON from a text; false means that it is not as plain as that.
type reader struct {
	text string
	at   int
}

// next is the next byte that is no space, 0 at the end.
func (r *reader) next() byte {
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// skip takes the next byte, if it is c.
func (r *reader) skip(c byte) bool {
	if r.next() != c {
		return false
	}
	r.at++
	return true
}

// string takes a string of printable ASCII without escapes.
func (r *reader) string() (string, bool) {
	if !r.skip('"') {
		return "", false
	}
	for i := r.at; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case c == '"':
			s := r.text[r.at:i]
			r.at = i + 1
			return s, true
		case c < ' ' || c > '~' || c == '\\':
			return "", false
		}
	}
	return "", false
}

// object takes an object and calls member after each name; member takes the value.
func (r *reader) object(member func(name string) bool) bool {
	if !r.skip('{') {
		return false
	}
	if r.skip('}') {
		return true
	}
	for {
		name, ok := r.string()
		if !ok || !r.skip(':') || !member(name) {
			return false
		}
		if !r.skip(',') {
			return r.skip('}')
		}
	}
}

// event takes a usage event.
func (r *reader) event(e *usageEvent) bool {
	said := 0
	return r.object(func(name string) bool {
		var field **string
		switch name {
		case "customer":
			field = &e.Customer
		case "asset":
			field = &e.Asset
		case "amount":
			field = &e.Amount
		case "feature":
			field = &e.Feature
		case "quantity":
			field = &e.Quantity
		case "idempotency_key":
			field = &e.IdempotencyKey
		case "metadata":
			return e.Metadata == nil && r.metadata(e)
		}
		if field == nil || *field != nil { // said twice
			return false
		}
		value, ok := r.string()
		e.said[said] = value
		*field = &e.said[said]
		said++
		return ok
	})
}

func (r *reader) metadata(e *usageEvent) bool {
	e.Metadata = make(map[string]string)
	return r.object(func(name string) bool {
		value, ok := r.string()
		e.Metadata[name] = value
		return ok
	})
}

// decodeEvent reads a usage event from a body of its own.
func decodeEvent(body string, e *usageEvent) error {
	if r := (reader{text: body}); r.event(e) && r.next() == 0 && r.at == len(body) {
		return nil
	}
	*e = usageEvent{}
	return decodeJSON([]byte(body), e)
}

// plainBatch reads the events of a batch where all of it is plain.
func plainBatch(body string) ([]batchEvent, bool) {
	r := reader{text: body}
	if !r.skip('{') {
		return nil, false
	}
	if name, ok := r.string(); !ok || name != "events" || !r.skip(':') || !r.skip('[') {
		return nil, false
	}
	events := make([]batchEvent, min(maxEvents, strings.Count(body[r.at:], "{")))
	for n := 0; n < len(events); n++ {
		if !r.event(&events[n].usageEvent) {
			return nil, false
		}
		if !r.skip(',') {
			return events[:n+1], r.skip(']') && r.skip('}') && r.next() == 0 && r.at == len(body)
		}
	}
	return nil, false
}
