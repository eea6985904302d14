// Package referee holds a Stripe simulator, and whoever talks to it, to
// Stripe's own description of API version 2023-10-16, the one that stripe-mock
// carries. A request that the simulator accepts must be one that stripe-mock
// accepts; an answer, and an event, must have the shape that Stripe gives it.
package referee

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stripe/stripe-mock/param"
	"github.com/stripe/stripe-mock/param/coercer"
	"github.com/stripe/stripe-mock/spec"
)

// Referee fails a test for whatever Stripe would not have understood or said.
type Referee struct {
	tb  testing.TB
	doc *document
}

// New returns a referee for one test.
func New(tb testing.TB) *Referee {
	tb.Helper()
	doc, err := load()
	if err != nil {
		tb.Fatal(err)
	}
	return &Referee{tb: tb, doc: doc}
}

// Wrap watches an HTTP handler that plays Stripe. It judges before it lets the
// answer out, so that a test cannot end before the verdict.
func (f *Referee) Wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v1/") {
			h.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		held := &answer{under: w, status: http.StatusOK}
		h.ServeHTTP(held, r)
		if held.hijacked {
			return // the simulator broke the connection on purpose
		}
		for _, err := range f.judge(r, body, held) {
			f.tb.Errorf("referee: %s %s %s: %v", r.Method, r.URL.RequestURI(), body, err)
		}
		w.WriteHeader(held.status)
		w.Write(held.body.Bytes())
	})
}

// Receiver watches the webhooks that reach a handler.
func (f *Referee) Receiver(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.Event(body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.ServeHTTP(w, r)
	})
}

// Event judges a webhook's payload.
func (f *Referee) Event(payload []byte) {
	f.tb.Helper()
	if err := f.checkEvent(payload); err != nil {
		f.tb.Errorf("referee: event %.200s: %v", payload, err)
	}
}

func (f *Referee) checkEvent(payload []byte) error {
	v, err := decode(payload)
	if err != nil {
		return err
	}
	s, err := f.doc.named("event")
	if err != nil {
		return err
	}
	if err := f.doc.check("event", v, s); err != nil {
		return err
	}
	return f.checkEventObject(v.(map[string]any))
}

// checkEventObject judges data.object, which the event's own schema leaves open,
// by the schema of the kind of object that it says it is.
func (f *Referee) checkEventObject(e map[string]any) error {
	data, _ := e["data"].(map[string]any)
	object, _ := data["object"].(map[string]any)
	name, _ := object["object"].(string)
	if f.doc.objects[name] == "" {
		if name == "test_helpers.unknown" {
			return nil // sent on purpose, to see what receivers do
		}
		return fmt.Errorf("data.object: Stripe has no object %q", name)
	}
	s, err := f.doc.named(f.doc.objects[name])
	if err != nil {
		return err
	}
	if err := f.doc.check("data.object", object, s); err != nil {
		return err
	}
	previous, _ := data["previous_attributes"].(map[string]any)
	for k := range previous {
		if s.Properties[k] == nil {
			return fmt.Errorf("data.previous_attributes: %s has no property %s", name, k)
		}
	}
	return nil
}

// judge returns all that is wrong with a request and its answer.
func (f *Referee) judge(r *http.Request, body []byte, a *answer) []error {
	op, err := f.doc.operation(r.Method, r.URL.Path)
	if err != nil {
		return []error{err}
	}
	accepted := a.status/100 == 2 || a.status == http.StatusPaymentRequired
	if op == nil {
		if accepted {
			return []error{fmt.Errorf("answered %d, but Stripe has no such call", a.status)}
		}
		return nil
	}
	var wrong []error
	if err := op.accepts(r, body); err != nil && accepted {
		wrong = append(wrong, fmt.Errorf("answered %d, but stripe-mock refuses the request: %w", a.status, err))
	} else if err == nil && a.status == http.StatusBadRequest && bytes.Contains(a.body.Bytes(), []byte(`"parameter_unknown"`)) {
		f.tb.Logf("referee: %s %s: the simulator does not know a parameter that Stripe does: %s", r.Method, r.URL.Path, a.body.Bytes())
	}
	if err := f.checkAnswer(op, a); err != nil {
		wrong = append(wrong, fmt.Errorf("answered %d: %w", a.status, err))
	}
	return wrong
}

// accepts runs stripe-mock's own treatment of a request: parse, coerce,
// validate.
func (op *operation) accepts(r *http.Request, body []byte) error {
	again := r.Clone(r.Context())
	again.Body = io.NopCloser(bytes.NewReader(body))
	data, err := param.ParseParams(again)
	if err != nil {
		return err
	}
	if op.request == nil {
		return nil
	}
	if err := coercer.CoerceParams(op.request, data); err != nil {
		return err
	}
	return op.validate(data)
}

func (f *Referee) checkAnswer(op *operation, a *answer) error {
	v, err := decode(a.body.Bytes())
	if err != nil {
		return err
	}
	status := spec.StatusCode(strconv.Itoa(a.status))
	res, ok := op.responses[status]
	if !ok {
		res, ok = op.responses["default"]
	}
	media := res.Content["application/json"]
	if !ok || media.Schema == nil {
		return fmt.Errorf("status %d is none that Stripe answers this call with", a.status)
	}
	if err := f.doc.check("answer", v, media.Schema); err != nil {
		return err
	}
	return f.checkEvents(v)
}

// checkEvents judges the events inside an answer.
func (f *Referee) checkEvents(v any) error {
	m, _ := v.(map[string]any)
	if m["object"] == "event" {
		return f.checkEventObject(m)
	}
	list, _ := m["data"].([]any)
	for _, e := range list {
		if em, ok := e.(map[string]any); ok && em["object"] == "event" {
			if err := f.checkEventObject(em); err != nil {
				return err
			}
		}
	}
	return nil
}

func decode(body []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	return v, nil
}

// answer holds a response back until it is judged.
type answer struct {
	under    http.ResponseWriter
	status   int
	body     bytes.Buffer
	hijacked bool
}

func (a *answer) Header() http.Header         { return a.under.Header() }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// Hijack lets the simulator break the connection.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.hijacked = true
	return http.NewResponseController(a.under).Hijack()
}
