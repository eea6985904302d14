package stripeutil

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// ref is a field that Stripe renders as an id, as null, or, when expanded, as the object itself.
type ref string

// UnmarshalJSON keeps the id of whichever form came.
func (r *ref) UnmarshalJSON(b []byte) error {
	*r = ""
	if bytes.HasPrefix(b, []byte("{")) {
		var object struct {
			ID string `json:"id"`
		}
		err := json.Unmarshal(b, &object)
		*r = ref(object.ID)
		return err
	}
	return json.Unmarshal(b, (*string)(r))
}

// unixTime reads Stripe's seconds; absent stays the zero time.
func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// decode reads one object and insists on an id: an answer without one is not the object that was asked for, however
// well it parses.
func decode[W any](raw json.RawMessage, what string, wire *W, id *string) error {
	if err := json.Unmarshal(raw, wire); err != nil {
		return fmt.Errorf("not a readable %s: %w", what, err)
	}
	if *id == "" {
		return fmt.Errorf("not a %s: it has no id", what)
	}
	return nil
}

// read passes the bytes of an answer through a decoder; what does not decode leaves the outcome unknown.
func read[T any](raw json.RawMessage, err error, decode func(json.RawMessage) (T, error)) (T, error) {
	var none T
	if err != nil {
		return none, err
	}
	v, err := decode(raw)
	if err != nil {
		return none, unreadable("%v", err)
	}
	return v, nil
}

// pageSize is the largest page Stripe gives (docs.stripe.com/api/pagination).
const pageSize = 100

// pager walks one list of Stripe's, newest first, a page at a time and each page a call of its own.
type pager struct {
	client *Client
	path   string
	params func(stripe.ListParams) any

	page  []json.RawMessage
	after string // id of the last object handed out: the cursor of the next page
	last  bool   // no page after this one
}

// next returns the bytes of the next object, or ok false at the end.
func (p *pager) next(ctx context.Context) (raw json.RawMessage, ok bool, err error) {
	if len(p.page) == 0 {
		if p.last {
			return nil, false, nil
		}
		if err := p.fetch(ctx); err != nil || len(p.page) == 0 {
			return nil, false, err
		}
	}
	raw, p.page = p.page[0], p.page[1:]
	id, err := objectID(raw)
	if err != nil || id == "" {
		return nil, false, unreadable("a list has an entry without an id")
	}
	// A server that ignores the cursor would give the same page for ever.
	if id == p.after {
		return nil, false, unreadable("a list does not advance past %s", id)
	}
	p.after = id
	return raw, true, nil
}

func (p *pager) fetch(ctx context.Context) error {
	list := stripe.ListParams{Limit: stripe.Int64(pageSize)}
	if p.after != "" {
		list.StartingAfter = &p.after
	}
	raw, err := p.client.get(ctx, p.path, p.params(list))
	if err != nil {
		return err
	}
	var page struct {
		Data    []json.RawMessage `json:"data"`
		HasMore bool              `json:"has_more"`
	}
	if err := json.Unmarshal(raw, &page); err != nil {
		return unreadable("not a readable list: %v", err)
	}
	if page.Data == nil {
		return unreadable("not a list: it has no data")
	}
	p.page, p.last = page.Data, !page.HasMore || len(page.Data) == 0
	return nil
}

func objectID(raw json.RawMessage) (string, error) {
	var object struct {
		ID string `json:"id"`
	}
	err := json.Unmarshal(raw, &object)
	return object.ID, err
}
