package stripeutil

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const customerUpdated = `{"id":"evt_1","object":"event","api_version":"2026-08-26.dahlia","created":1700000000,"livemode":true,
	"type":"customer.updated","pending_webhooks":1,"request":{"id":"req_1","idempotency_key":"flush:9"},
	"data":{"object":{"id":"cus_1","object":"customer","balance":-250,"currency":"usd","a_field_of_tomorrow":{"x":[1]},
		"invoice_settings":{"default_payment_method":"pm_2"}},
		"previous_attributes":{"balance":-300,"invoice_settings":{"default_payment_method":null},"shipping":null}}}`

func TestParseEvent(t *testing.T) {
	e, err := ParseEvent([]byte(customerUpdated))
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != "evt_1" || e.Type != "customer.updated" || e.APIVersion != "2026-08-26.dahlia" || !e.Livemode ||
		e.RequestIdempotencyKey != "flush:9" || !e.Created.Equal(time.Unix(1700000000, 0)) || e.ObjectID() != "cus_1" {
		t.Errorf("got %+v", e)
	}
	cus, err := e.Customer()
	if err != nil || cus.Balance != -250 || cus.DefaultPaymentMethod != "pm_2" || cus.Deleted {
		t.Errorf("customer %+v, %v", cus, err)
	}
	if _, err := e.PaymentIntent(); !errors.Is(err, ErrInvalid) {
		t.Errorf("a customer read as a payment: %v", err)
	}
	for field, want := range map[string]bool{
		"balance": true, "invoice_settings": true, "invoice_settings.default_payment_method": true,
		"invoice_settings.footer": false, "currency": false, "balance.x": true, "shipping.address.city": true,
		"shipping": true, "": false, ".": false,
	} {
		if e.Changed(field) != want {
			t.Errorf("Changed(%q) is %v", field, !want)
		}
	}
}

func TestParseEventOfStripeItself(t *testing.T) {
	for _, request := range []string{`null`, `"req_old"`, `{"id":null,"idempotency_key":null}`} {
		e, err := ParseEvent([]byte(`{"id":"evt_1","object":"event","type":"customer.deleted","request":` + request + `,
			"api_version":null,"data":{"object":{"id":"cus_1","object":"customer"},"previous_attributes":null}}`))
		if err != nil || e.RequestIdempotencyKey != "" || e.PreviousAttributes != nil || e.Changed("balance") {
			t.Errorf("request %s: %+v, %v", request, e, err)
		}
		if cus, err := e.Customer(); err != nil || !cus.Deleted {
			t.Errorf("a deleted customer: %+v, %v", cus, err)
		}
	}
}

func TestParseEventRefuses(t *testing.T) {
	for _, raw := range []string{
		``, `null`, `[]`, `7`, `{}`, `{"id":"evt_1"`, `{"id":"cus_1","object":"customer"}`,
		`{"id":"","object":"event","type":"x","data":{"object":{}}}`, `{"id":"evt_1","object":"event","data":{"object":{}}}`,
		`{"id":"evt_1","object":"event","type":"x"}`, `{"id":"evt_1","object":"event","type":"x","data":{"object":null}}`,
		`{"id":"evt_1","object":"event","type":"x","data":{"object":"cus_1"}}`, `{"id":7,"object":"event"}`,
		`{"id":"evt_1","object":"v2.core.event","type":"x"}`, customerUpdated + "x",
	} {
		if e, err := ParseEvent([]byte(raw)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", raw, e, err)
		}
	}
}

func event(i int, typ string, created int) string {
	return fmt.Sprintf(`{ "id":"evt_%d", "object":"event","type":%q,"created":%d,"data":{"object":{"id":"x_%d"}} }`, i, typ, created, i)
}

func TestEventsPage(t *testing.T) {
	s := newWire(t, pages(230, func(i int) string { return event(i, "customer.updated", 1700000000+i) }))
	c := clientFor(t, s)
	next := 230
	err := c.Events(t.Context(), []string{"customer.updated"}, time.Unix(1700000000, 0), func(e Event, raw []byte) bool {
		if e.ID != fmt.Sprintf("evt_%d", next) || string(raw) != event(next, "customer.updated", 1700000000+next) {
			t.Fatalf("got %s with %s, want number %d", e.ID, raw, next)
		}
		next--
		return true
	})
	if err != nil || next != 0 {
		t.Fatalf("stopped before %d: %v", next, err)
	}
	want := map[string]string{"types[0]": "customer.updated", "created[gte]": "1700000000", "limit": "100"}
	if got := params(t, s.seen()[0].query); !reflect.DeepEqual(got, want) || len(s.seen()) != 3 {
		t.Errorf("asked for %v, %d pages", got, len(s.seen()))
	}

	n := 0
	if err := c.Events(t.Context(), nil, time.Time{}, func(Event, []byte) bool { n++; return false }); err != nil || n != 1 {
		t.Errorf("stopped by yield: %d events, %v", n, err)
	}
	if got := s.seen()[3].query; got != "limit=100" {
		t.Errorf("all events asked for with %q", got)
	}
}

// More types than one listing takes still come newest first, each once, and yield ends all listings.
func TestEventsOfManyTypes(t *testing.T) {
	var types []string
	for i := range 35 {
		types = append(types, fmt.Sprintf("object%d.updated", i))
	}
	s := newWire(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		var asked []string
		for k, v := range r.URL.Query() {
			if strings.HasPrefix(k, "types[") {
				asked = append(asked, v...)
			}
		}
		if len(asked) == 0 || len(asked) > 20 {
			reply(w, 400, stripeError("invalid_request_error", "too_many_types"))
			return
		}
		// 300 events, whose types take turns, seen through the filter.
		pages(300, func(i int) string {
			if typ := types[i%len(types)]; slices.Contains(asked, typ) {
				return event(i, typ, 1700000000+i)
			}
			return ""
		})(dropEmpty{w}, r, 0)
	})
	c := clientFor(t, s)
	next := 300
	err := c.Events(t.Context(), append(types, types...), time.Unix(1, 0), func(e Event, _ []byte) bool {
		if e.ID != fmt.Sprintf("evt_%d", next) {
			t.Fatalf("got %s, want number %d", e.ID, next)
		}
		next--
		return next > 0
	})
	if err != nil || next != 0 {
		t.Fatalf("stopped before %d: %v", next, err)
	}
}

// dropEmpty removes the gaps that filtering leaves in a list.
type dropEmpty struct{ http.ResponseWriter }

func (d dropEmpty) Write(p []byte) (int, error) {
	s := string(p)
	for strings.Contains(s, ",,") {
		s = strings.ReplaceAll(s, ",,", ",")
	}
	s = strings.NewReplacer("[,", "[", ",]", "]").Replace(s)
	_, err := d.ResponseWriter.Write([]byte(s))
	return len(p), err
}

func (d dropEmpty) WriteString(s string) (int, error) { return d.Write([]byte(s)) }

func TestEventsThatDoNotRead(t *testing.T) {
	s := newWire(t, says(200, `{"data":[{"id":"evt_1","object":"event"}]}`))
	if err := clientFor(t, s).Events(t.Context(), nil, time.Time{}, nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
	s = newWire(t, says(401, stripeError("invalid_request_error", "")))
	if err := clientFor(t, s).Events(t.Context(), nil, time.Time{}, nil); !errors.Is(err, ErrAuth) {
		t.Errorf("got %v", err)
	}
}

// What an object belonged to before is read where the event says so, and nowhere else.
func TestFormerCustomer(t *testing.T) {
	const event = `{"id":"evt_1","object":"event","type":"payment_method.detached","data":{"object":{"id":"pm_1","object":"payment_method","customer":null}%s}}`
	for previous, want := range map[string]string{
		"": "", `,"previous_attributes":{"customer":"cus_1"}`: "cus_1", `,"previous_attributes":{"customer":{"id":"cus_2"}}`: "cus_2",
		`,"previous_attributes":{"customer":null}`: "", `,"previous_attributes":null`: "", `,"previous_attributes":{"customer":7}`: "",
	} {
		e, err := ParseEvent([]byte(fmt.Sprintf(event, previous)))
		if err != nil || e.FormerCustomerID() != want || e.CustomerID() != "" {
			t.Errorf("%s: %q, %v", previous, e.FormerCustomerID(), err)
		}
	}
}
