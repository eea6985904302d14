package stripeutil

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
)

// Event is one of Stripe's notes that something happened. It may come twice, late, out of order, and next to a second
// event about the same thing.
type Event struct {
	ID, Type string
	// APIVersion is the version Object is rendered in, fixed when the event was made. It need not be ours.
	APIVersion string
	Livemode   bool
	Created    time.Time // whole seconds, so it does not order events
	// Object is the JSON of the thing the event is about, as it was then.
	Object json.RawMessage
	// PreviousAttributes has, on *.updated events, the former values of the fields that changed; else nil.
	PreviousAttributes json.RawMessage
	// RequestIdempotencyKey is the key of the API call that caused the event; empty when Stripe or a person did.
	RequestIdempotencyKey string
}

// ParseEvent reads an event's JSON, of any API version. The error is an *Error of kind ErrInvalid.
func ParseEvent(raw []byte) (Event, error) {
	var wire struct {
		ID         string          `json:"id"`
		Object     string          `json:"object"`
		Type       string          `json:"type"`
		APIVersion string          `json:"api_version"`
		Livemode   bool            `json:"livemode"`
		Created    int64           `json:"created"`
		Request    json.RawMessage `json:"request"`
		Data       struct {
			Object             json.RawMessage `json:"object"`
			PreviousAttributes json.RawMessage `json:"previous_attributes"`
		} `json:"data"`
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		return Event{}, refuse("not an event: %v", err)
	}
	switch {
	case wire.Object != "event": // "v2.core.event" names a notification without its object, which we never ask for
		return Event{}, refuse("not an event: its object is %.40q", wire.Object)
	case wire.ID == "" || wire.Type == "":
		return Event{}, refuse("not an event: no id or no type")
	case !isObject(wire.Data.Object):
		return Event{}, refuse("event %.80s has no object", wire.ID)
	}
	e := Event{
		ID: wire.ID, Type: wire.Type, APIVersion: wire.APIVersion, Livemode: wire.Livemode,
		Created: unixTime(wire.Created), Object: wire.Data.Object,
	}
	if isObject(wire.Data.PreviousAttributes) {
		e.PreviousAttributes = wire.Data.PreviousAttributes
	}
	// Before 2017-05-25 request was a bare id; only the object has a key, and an event without one is fine.
	var request struct {
		IdempotencyKey string `json:"idempotency_key"`
	}
	if isObject(wire.Request) && json.Unmarshal(wire.Request, &request) == nil {
		e.RequestIdempotencyKey = request.IdempotencyKey
	}
	return e, nil
}

// isObject tells a JSON object from null, absent and everything else. raw is valid JSON or empty.
func isObject(raw json.RawMessage) bool { return bytes.HasPrefix(raw, []byte("{")) }

// PaymentIntent reads the object of a payment_intent.* event. The error is an *Error of kind ErrInvalid.
func (e Event) PaymentIntent() (PaymentIntent, error) {
	if err := e.about("payment_intent"); err != nil {
		return PaymentIntent{}, err
	}
	pi, err := decodePaymentIntent(e.Object)
	if err != nil {
		return PaymentIntent{}, refuse("event %s: %v", e.ID, err)
	}
	return pi, nil
}

// Customer reads the object of a customer.created, .updated or .deleted event; after a deletion, which carries the
// customer's last state, Deleted is set. The error is an *Error of kind ErrInvalid.
func (e Event) Customer() (Customer, error) {
	if err := e.about("customer"); err != nil {
		return Customer{}, err
	}
	cus, err := decodeCustomer(e.Object)
	if err != nil {
		return Customer{}, refuse("event %s: %v", e.ID, err)
	}
	cus.Deleted = cus.Deleted || e.Type == "customer.deleted"
	return cus, nil
}

// Metadata is what the event's object carries, in words that are the same in every API version.
func (e Event) Metadata() map[string]string {
	var wire struct {
		Metadata map[string]string `json:"metadata"`
	}
	if json.Unmarshal(e.Object, &wire) != nil {
		return nil
	}
	return wire.Metadata
}

// about refuses to read one kind of object as another: most of their fields have the same names.
func (e Event) about(object string) error {
	var wire struct {
		Object string `json:"object"`
	}
	if err := json.Unmarshal(e.Object, &wire); err != nil {
		return refuse("event %s: %v", e.ID, err)
	}
	if wire.Object != object {
		return refuse("event %s (%s) is about a %.40q, not a %s", e.ID, e.Type, wire.Object, object)
	}
	return nil
}

// Changed reports whether the event says that a field changed. The field may be a path with dots, such as
// "invoice_settings.default_payment_method". Where only a parent is named with a value that is not an object (it was
// null before), everything below it counts as changed.
func (e Event) Changed(field string) bool {
	at := e.PreviousAttributes
	for name := range strings.SplitSeq(field, ".") {
		var fields map[string]json.RawMessage
		if !isObject(at) {
			return at != nil
		}
		if json.Unmarshal(at, &fields) != nil {
			return false
		}
		var named bool
		if at, named = fields[name]; !named {
			return false
		}
	}
	return true
}

// ObjectID is the id of the thing the event is about; empty for the few that have none.
func (e Event) ObjectID() string {
	id, err := objectID(e.Object)
	if err != nil {
		return ""
	}
	return id
}

// CustomerID is the customer that the event's object belongs to; empty where it belongs to none.
func (e Event) CustomerID() string {
	var wire struct {
		Customer ref `json:"customer"`
	}
	if json.Unmarshal(e.Object, &wire) != nil {
		return ""
	}
	return string(wire.Customer)
}

// FormerCustomerID is the customer that the event's object belonged to before it; empty where the event does not say.
func (e Event) FormerCustomerID() string {
	var wire struct {
		Customer ref `json:"customer"`
	}
	if !isObject(e.PreviousAttributes) || json.Unmarshal(e.PreviousAttributes, &wire) != nil {
		return ""
	}
	return string(wire.Customer)
}

// PaymentIntentID is the payment that a charge, refund or dispute is of; empty for those of payments older than
// payment intents, and for anything else.
func (e Event) PaymentIntentID() string {
	var wire struct {
		PaymentIntent ref `json:"payment_intent"`
	}
	if json.Unmarshal(e.Object, &wire) != nil {
		return ""
	}
	return string(wire.PaymentIntent)
}

// maxTypes is how many types one listing of events may name (docs.stripe.com/api/events/list).
const maxTypes = 20

// Events hands the account's events made at since or later to yield, newest first, with the event's own JSON, and
// stops when yield returns false. No types means all. Stripe keeps 30 days. More than 20 types take several listings,
// which are merged by time; events of one second from different listings come in no particular order.
func (c *Client) Events(
	ctx context.Context, types []string, since time.Time, yield func(Event, []byte) bool,
) error {
	var heads []head
	for _, chunk := range chunks(types) {
		h := head{list: &pager{client: c, path: "/v1/events", params: func(p stripe.ListParams) any {
			params := &stripe.EventListParams{ListParams: p, CreatedRange: from(since)}
			if len(chunk) > 0 { // an empty slice would be sent as an empty filter
				params.Types = stripe.StringSlice(chunk)
			}
			return params
		}}}
		ok, err := h.advance(ctx)
		if err != nil {
			return err
		}
		if ok {
			heads = append(heads, h)
		}
	}
	for len(heads) > 0 {
		newest := 0
		for i, h := range heads {
			if h.event.Created.After(heads[newest].event.Created) {
				newest = i
			}
		}
		h := &heads[newest]
		if !yield(h.event, h.raw) {
			return nil
		}
		ok, err := h.advance(ctx)
		if err != nil {
			return err
		}
		if !ok {
			heads = slices.Delete(heads, newest, newest+1)
		}
	}
	return nil
}

// head is a listing of events and the next one to come from it.
type head struct {
	list  *pager
	event Event
	raw   []byte
}

func (h *head) advance(ctx context.Context) (bool, error) {
	raw, ok, err := h.list.next(ctx)
	if err != nil || !ok {
		return false, err
	}
	e, err := ParseEvent(raw)
	if err != nil {
		return false, unreadable("the list of events has one that does not read: %v", err)
	}
	h.event, h.raw = e, raw
	return true, nil
}

// chunks splits the types, each once, into listings; no types is one listing without a filter.
func chunks(types []string) [][]string {
	if len(types) == 0 {
		return [][]string{nil}
	}
	types = slices.Clone(types)
	slices.Sort(types)
	return slices.Collect(slices.Chunk(slices.Compact(types), maxTypes))
}
