package handlers

import (
	"encoding/json"
	"net/http"

	"lockstep/ledger"
)

type endpointJSON struct {
	Object         string          `json:"object"`
	ID             string          `json:"id"`
	URL            string          `json:"url"`
	Events         []string        `json:"events"`
	Description    *string         `json:"description"`
	Status         string          `json:"status"`
	DisabledReason *string         `json:"disabled_reason"`
	Secret         *string         `json:"secret,omitempty"` // where it is made, and nowhere else
	Metadata       json.RawMessage `json:"metadata"`
	CreatedAt      string          `json:"created_at"`
}

func newEndpoint(e *ledger.Endpoint) endpointJSON {
	return endpointJSON{Object: "webhook_endpoint", ID: e.ID, URL: e.URL, Events: e.Events(), Description: orNil(e.Description),
		Status: e.Status, DisabledReason: e.DisabledReason, Metadata: json.RawMessage(e.Metadata), CreatedAt: stamp(e.CreatedAt)}
}

// withSecret is the endpoint with the secret that was made by this call.
func withSecret(e *ledger.Endpoint) endpointJSON {
	v := newEndpoint(e)
	v.Secret = &e.Secret
	return v
}

// endpointRequest is what may be said of an endpoint.
type endpointRequest struct {
	URL         *string           `json:"url"`
	Events      []string          `json:"events"`
	Description *string           `json:"description"`
	Metadata    map[string]string `json:"metadata"`
	Status      *string           `json:"status"`
}

func (s *Server) endpointInput(q *endpointRequest) (in ledger.EndpointInput, err error) {
	in = ledger.EndpointInput{URL: q.URL, Events: q.Events, Description: q.Description, Status: q.Status, AllowPrivate: s.OutboundPrivate}
	if q.Metadata != nil {
		meta, err := metadata(q.Metadata)
		if err != nil {
			return in, err
		}
		if meta == "" {
			meta = "{}"
		}
		in.Metadata = &meta
	}
	if err := filled(field{"url", q.URL}, field{"status", q.Status}); err != nil {
		return in, err
	}
	return in, texts("url", deref(q.URL), "description", deref(q.Description))
}

func (s *Server) postEndpoint(c *call) error {
	var q endpointRequest
	if err := c.decode(&q); err != nil {
		return err
	}
	if q.Status != nil {
		return unknown("status") // it is made enabled
	}
	in, err := s.endpointInput(&q)
	if err != nil {
		return err
	}
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	request, err := encode(q)
	if err != nil {
		return err
	}
	return s.once(c, key, ledger.BucketOfKey(key), []string{string(request)}, func(once ledger.Once) (int, any, error) {
		e, err := s.Ledger.CreateEndpoint(c.ctx(), in, once)
		return http.StatusCreated, withSecret(&e), err
	})
}

func (s *Server) listEndpoints(c *call) error {
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	endpoints, err := s.Ledger.Endpoints(c.ctx())
	if err != nil {
		return err
	}
	if endpoints, err = pageOf(endpoints, func(e *ledger.Endpoint) string { return e.ID }, limit, after); err != nil {
		return err
	}
	objects := make([]endpointJSON, len(endpoints))
	for i := range endpoints {
		objects[i] = newEndpoint(&endpoints[i])
	}
	return c.reply(http.StatusOK, list(objects, limit))
}

// endpoint is the one in the path.
func (s *Server) endpoint(c *call) (ledger.Endpoint, error) {
	id := c.r.PathValue("id")
	if err := texts("id", id); err != nil {
		return ledger.Endpoint{}, err
	}
	return s.Ledger.EndpointByID(c.ctx(), id)
}

func (s *Server) getEndpoint(c *call) error {
	e, err := s.endpoint(c)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, newEndpoint(&e))
}

func (s *Server) patchEndpoint(c *call) error {
	var q endpointRequest
	if err := c.decode(&q); err != nil {
		return err
	}
	in, err := s.endpointInput(&q)
	if err != nil {
		return err
	}
	e, err := s.endpoint(c)
	if err != nil {
		return err
	}
	if e, err = s.Ledger.ChangeEndpoint(c.ctx(), e.ID, in); err != nil {
		return err
	}
	return c.reply(http.StatusOK, newEndpoint(&e))
}

func (s *Server) deleteEndpoint(c *call) error {
	e, err := s.endpoint(c)
	if err != nil {
		return err
	}
	if err := s.Ledger.DeleteEndpoint(c.ctx(), e.ID); err != nil {
		return err
	}
	return c.reply(http.StatusOK, struct {
		Object  string `json:"object"`
		ID      string `json:"id"`
		Deleted bool   `json:"deleted"`
	}{"webhook_endpoint", e.ID, true})
}

func (s *Server) rotateSecret(c *call) error {
	if err := c.decodeOptional(&struct{}{}); err != nil {
		return err
	}
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	e, err := s.endpoint(c)
	if err != nil {
		return err
	}
	return s.once(c, key, ledger.BucketOfKey(key), nil, func(once ledger.Once) (int, any, error) {
		e, err := s.Ledger.RotateSecret(c.ctx(), e.ID, once)
		return http.StatusOK, withSecret(&e), err
	})
}

// attemptJSON is one line of the delivery log.
type attemptJSON struct {
	Object      string  `json:"object"`
	ID          string  `json:"id"`
	Endpoint    string  `json:"endpoint"`
	Event       string  `json:"event"`
	EventType   string  `json:"event_type"`
	Attempt     int     `json:"attempt"`
	Status      string  `json:"status"`
	StatusCode  *int    `json:"status_code"`
	Error       *string `json:"error"`
	Response    *string `json:"response"`
	DurationMS  int     `json:"duration_ms"`
	NextAttempt *string `json:"next_attempt_at"`
	CreatedAt   string  `json:"created_at"`
}

func (s *Server) listDeliveries(c *call) error {
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	e, err := s.endpoint(c)
	if err != nil {
		return err
	}
	attempts, err := s.Ledger.Attempts(c.ctx(), e.ID, after, limit+1)
	if err != nil {
		return err
	}
	objects := make([]attemptJSON, len(attempts))
	for i, a := range attempts {
		objects[i] = attemptJSON{Object: "delivery_attempt", ID: a.ID, Endpoint: a.Endpoint, Event: a.Event, EventType: a.EventType,
			Attempt: a.Attempt, Status: "failed", StatusCode: a.StatusCode, Error: orNil(a.Error), Response: orNil(a.Response),
			DurationMS: a.DurationMS, NextAttempt: optionalStamp(a.NextAt), CreatedAt: stamp(a.CreatedAt)}
		if a.Succeeded {
			objects[i].Status = "succeeded"
		}
	}
	return c.reply(http.StatusOK, list(objects, limit))
}
