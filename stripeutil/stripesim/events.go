package stripesim

import (
	"slices"
	"strings"
)

var eventRoutes = map[string]handler{
	"GET /v1/events":      listEvents,
	"GET /v1/events/{id}": getEvent,
}

type event struct {
	ID              string        `json:"id"`
	Object          string        `json:"object"`
	APIVersion      string        `json:"api_version"`
	Created         int64         `json:"created"`
	Data            eventData     `json:"data"`
	Livemode        bool          `json:"livemode"`
	PendingWebhooks int           `json:"pending_webhooks"`
	Request         *eventRequest `json:"request"`
	Type            string        `json:"type"`
}

type eventData struct {
	Object             raw            `json:"object"`
	PreviousAttributes map[string]any `json:"previous_attributes,omitempty"`
}

type eventRequest struct {
	ID             opt `json:"id"`
	IdempotencyKey opt `json:"idempotency_key"`
}

// emit stores an event about an object as it is now, and queues it for every
// endpoint that listens.
func (c *call) emit(kind string, object any, previous map[string]any) {
	e := &event{Object: "event", APIVersion: APIVersion, Created: c.unix(), Livemode: c.livemode, Type: kind,
		Data:    eventData{Object: compact(object), PreviousAttributes: previous},
		Request: &eventRequest{ID: opt(c.request), IdempotencyKey: opt(c.key)}}
	e.ID = newID("evt_1", 23)
	fault := c.takeDelivery(kind, false)
	if fault == nil && c.choose != nil {
		fault = c.choose(c.viewEvent(e))
	}
	c.store(e, fault)
	switch {
	case fault == nil:
	case fault.Kind == Twin:
		twin := *e
		twin.ID = newID("evt_1", 23)
		c.store(&twin, nil)
	case fault.Kind == First:
		c.early = append(c.early, early{e.ID, fault.Until})
	}
}

// emitUpdated is emit with previous_attributes. An update that changes nothing
// is not an event.
func (c *call) emitUpdated(kind string, before map[string]any, object any) {
	if previous := changes(before, toMap(object)); len(previous) > 0 {
		c.emit(kind, object, previous)
	}
}

func (c *call) store(e *event, fault *DeliveryFault) {
	c.state.Events.put(e.ID, e)
	c.made = append(c.made, e.ID)
	c.overtakes(e)
	for id, ep := range c.state.Endpoints.oldest {
		if ep.listens(e.Type) {
			c.state.Waiting[e.ID] = append(c.state.Waiting[e.ID], id)
			c.enqueue(e.ID, id, fault)
		}
	}
}

// eventWire is an event with its count of endpoints yet to accept it.
func (s *Sim) eventWire(e *event) event {
	out := *e
	out.PendingWebhooks = len(s.state.Waiting[e.ID])
	return out
}

func getEvent(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	if e := c.state.Events.get(c.id()); e != nil {
		return e, nil
	}
	return nil, noSuch("event", c.id(), "id")
}

func listEvents(c *call) (any, *apiError) {
	w, kind, kinds := c.window(true), c.params.str("type"), c.params.list("types")
	if kind != "" {
		kinds = append(kinds, kind)
	}
	if kind != "" && len(kinds) > 1 {
		c.fail(badRequest("", "types", "You may only specify one of these parameters: type, types."))
	}
	if len(kinds) > 20 {
		c.fail(badRequest("", "types", "You can only filter by up to 20 event types."))
	}
	filtered := c.has("delivery_success")
	delivered := c.boolean("delivery_success")
	return list(c, &c.state.Events, w, "event", func(e *event) int64 { return e.Created }, func(e *event) bool {
		if filtered && delivered != (len(c.state.Waiting[e.ID]) == 0) {
			return false
		}
		return len(kinds) == 0 || slices.ContainsFunc(kinds, func(k string) bool { return matchType(k, e.Type) })
	})
}

// matchType understands the wildcards that Stripe does: *, and charge.*
func matchType(pattern, kind string) bool {
	prefix, wild := strings.CutSuffix(pattern, "*")
	return pattern == kind || wild && strings.HasPrefix(kind, prefix)
}
