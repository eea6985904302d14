package handlers

import (
	"bytes"
	"encoding/json"
	"net/http"

	"lockstep/ledger"
)

// Render writes what an event is about as the API shows it: the ledger's Options.Render.
func Render(subject any) ([]byte, error) {
	switch v := subject.(type) {
	case *ledger.Grant:
		subject = newGrant(v)
	case *ledger.Topup:
		subject = newTopup(v)
	case *ledger.Wallet:
		subject = newWallet(v)
	case *ledger.Clawback:
		subject = newDispute(v)
	case *ledger.AlertFired:
		subject = newFired(v)
	case *ledger.RuleView:
		subject = newRule(v)
	}
	data, err := encode(subject)
	return bytes.TrimSuffix(data, []byte("\n")), err
}

type eventJSON struct {
	Object    string          `json:"object"`
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Customer  string          `json:"customer"`
	Wallet    *string         `json:"wallet"`
	CreatedAt string          `json:"created_at"`
	Timestamp string          `json:"timestamp,omitempty"` // where it is sent: Standard Webhooks asks for it
	Data      json.RawMessage `json:"data"`
}

func newEvent(e *ledger.Event) eventJSON {
	return eventJSON{Object: "event", ID: e.ID, Type: e.Type, Customer: e.Customer, Wallet: e.Wallet, CreatedAt: stamp(e.CreatedAt),
		Data: json.RawMessage(e.Data)}
}

// EventBody is an event as it is sent to endpoints: the same bytes each time.
func EventBody(e *ledger.Event) ([]byte, error) {
	v := newEvent(e)
	v.Timestamp = v.CreatedAt
	return encode(v)
}

func (s *Server) listEvents(c *call) error {
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	eventType := c.query.Get("type")
	if c.query.Has("type") && eventType == "" {
		return missing("type")
	}
	ref, err := s.whose(c)
	if err != nil {
		return err
	}
	events, err := s.Ledger.Events(c.ctx(), ref, eventType, after, limit+1)
	if err != nil {
		return err
	}
	objects := make([]eventJSON, len(events))
	for i := range events {
		objects[i] = newEvent(&events[i])
	}
	return c.reply(http.StatusOK, list(objects, limit))
}

func (s *Server) getEvent(c *call) error {
	e, err := s.Ledger.EventByID(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, newEvent(&e))
}

func (s *Server) resendEvent(c *call) error {
	var in struct {
		Endpoint *string `json:"endpoint"`
	}
	if err := c.decodeOptional(&in); err != nil {
		return err
	}
	if err := filled(field{"endpoint", in.Endpoint}); err != nil { // null is all that take it, "" is a mistake
		return err
	}
	if err := texts("endpoint", deref(in.Endpoint)); err != nil {
		return err
	}
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	e, err := s.Ledger.EventByID(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.once(c, key, e.Bucket, []string{deref(in.Endpoint)}, func(once ledger.Once) (int, any, error) {
		return http.StatusOK, newEvent(&e), s.Ledger.Resend(c.ctx(), e, deref(in.Endpoint), once)
	})
}
