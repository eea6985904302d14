package stripesim

import (
	"net/url"
	"slices"
)

var endpointRoutes = map[string]handler{
	"POST /v1/webhook_endpoints":        createEndpoint,
	"GET /v1/webhook_endpoints":         listEndpoints,
	"GET /v1/webhook_endpoints/{id}":    getEndpoint,
	"POST /v1/webhook_endpoints/{id}":   updateEndpoint,
	"DELETE /v1/webhook_endpoints/{id}": deleteEndpoint,
}

type endpoint struct {
	ID            string            `json:"id"`
	Object        string            `json:"object"`
	APIVersion    opt               `json:"api_version"`
	Application   any               `json:"application"`
	Created       int64             `json:"created"`
	Description   opt               `json:"description"`
	EnabledEvents []string          `json:"enabled_events"`
	Livemode      bool              `json:"livemode"`
	Metadata      map[string]string `json:"metadata"`
	Status        string            `json:"status"`
	URL           string            `json:"url"`
	// Secrets sign the deliveries, one v1 each. Only the answer to a creation
	// shows the first of them.
	Secrets []string `json:"stripesim_secrets,omitempty"`
	Secret  string   `json:"secret,omitempty"`
}

func (e *endpoint) listens(kind string) bool {
	return e.Status == "enabled" && slices.ContainsFunc(e.EnabledEvents, func(p string) bool { return p == "*" || p == kind })
}

// shown is the endpoint as the API answers it.
func (e *endpoint) shown(withSecret bool) endpoint {
	out := *e
	out.Secrets = nil
	if withSecret {
		out.Secret = e.Secrets[0]
	}
	return out
}

func createEndpoint(c *call) (any, *apiError) {
	e := &endpoint{URL: c.need("url"), EnabledEvents: c.params.list("enabled_events"), Metadata: c.metadata(nil)}
	c.set("api_version", &e.APIVersion)
	c.set("description", &e.Description)
	if c.boolean("connect") {
		c.fail(badRequest("", "connect", "Your account is not a Connect platform."))
	}
	if !c.has("enabled_events") {
		c.fail(missing("enabled_events"))
	}
	c.checkURL(e.URL)
	if err := c.done(); err != nil {
		return nil, err
	}
	c.putEndpoint(e)
	return e.shown(true), nil
}

func (c *call) checkURL(u string) {
	if parsed, err := url.Parse(u); u != "" && (err != nil || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http") {
		c.fail(badRequest("url_invalid", "url", "Invalid URL: An explicit scheme (such as https) must be provided."))
	}
}

func (c *call) putEndpoint(e *endpoint) {
	e.ID, e.Object, e.Created, e.Livemode = newID("we_1", 23), "webhook_endpoint", c.unix(), c.livemode
	if e.Status == "" {
		e.Status = "enabled"
	}
	if len(e.EnabledEvents) == 0 {
		e.EnabledEvents = []string{"*"}
	}
	if len(e.Secrets) == 0 {
		e.Secrets = []string{newID("whsec_", 32)}
	}
	c.state.Endpoints.put(e.ID, e)
}

func (c *call) endpointAt() (*endpoint, *apiError) {
	if e := c.state.Endpoints.get(c.id()); e != nil {
		return e, nil
	}
	return nil, noSuch("webhook endpoint", c.id(), "webhook_endpoint")
}

func getEndpoint(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	e, err := c.endpointAt()
	if err != nil {
		return nil, err
	}
	return e.shown(false), nil
}

func updateEndpoint(c *call) (any, *apiError) {
	e, err := c.endpointAt()
	if err != nil {
		return nil, err
	}
	next := *e
	next.Metadata = c.metadata(e.Metadata)
	c.set("description", &next.Description)
	if c.has("url") {
		next.URL = c.need("url")
		c.checkURL(next.URL)
	}
	if c.has("enabled_events") {
		next.EnabledEvents = c.params.list("enabled_events")
	}
	if c.has("disabled") {
		next.Status = "enabled"
		if c.boolean("disabled") {
			next.Status = "disabled"
		}
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	*e = next
	return e.shown(false), nil
}

func deleteEndpoint(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	e, err := c.endpointAt()
	if err != nil {
		return nil, err
	}
	c.state.Endpoints.remove(e.ID)
	c.state.Pending = slices.DeleteFunc(c.state.Pending, func(d *delivery) bool { return d.Endpoint == e.ID })
	return deleted{ID: e.ID, Object: "webhook_endpoint", Deleted: true}, nil
}

func listEndpoints(c *call) (any, *apiError) {
	return list(c, &c.state.Endpoints, c.window(false), "webhook endpoint",
		func(e *endpoint) int64 { return e.Created }, func(*endpoint) bool { return true })
}

// Endpoint is a webhook endpoint as a Go caller adds one.
type Endpoint struct {
	URL           string
	Secrets       []string // several while a secret is being rolled; none: one is made
	EnabledEvents []string // nil or "*": all
	APIVersion    string   // "": APIVersion
	Disabled      bool
}

func (e Endpoint) row() *endpoint {
	row := &endpoint{URL: e.URL, APIVersion: opt(e.APIVersion), EnabledEvents: slices.Clone(e.EnabledEvents),
		Metadata: map[string]string{}, Secrets: slices.Clone(e.Secrets)}
	if e.Disabled {
		row.Status = "disabled"
	}
	return row
}

// AddEndpoint adds a webhook endpoint and returns its id.
func (s *Sim) AddEndpoint(e Endpoint) string {
	row := e.row()
	s.act(func(c *call) *apiError { c.putEndpoint(row); return nil })
	return row.ID
}

// EndpointSecrets are the secrets an endpoint's deliveries are signed with.
func (s *Sim) EndpointSecrets(id string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.state.Endpoints.get(id); e != nil {
		return slices.Clone(e.Secrets)
	}
	return nil
}

// SetEndpointSecrets rolls an endpoint's secrets: both the old and the new one
// sign for as long as both are listed.
func (s *Sim) SetEndpointSecrets(id string, secrets ...string) {
	s.act(func(c *call) *apiError {
		if e := c.state.Endpoints.get(id); e != nil {
			e.Secrets = slices.Clone(secrets)
		}
		return nil
	})
}

// SetEndpoint makes e the account's only webhook endpoint. What still waited
// for an earlier one goes to it, at once: a receiver that restarts elsewhere
// misses nothing.
func (s *Sim) SetEndpoint(e Endpoint) string {
	row := e.row()
	s.act(func(c *call) *apiError {
		c.putEndpoint(row)
		for _, old := range slices.Clone(c.state.Endpoints.Order) {
			if old != row.ID {
				c.state.Endpoints.remove(old)
			}
		}
		for id := range c.state.Waiting {
			c.state.Waiting[id] = []string{row.ID}
		}
		var pending []*delivery
		sent := map[string]bool{}
		for _, d := range c.state.Pending {
			// An attempt on the wire belongs to the endpoint that is gone; its
			// event is sent anew.
			if !sent[d.Event] {
				sent[d.Event] = true
				pending = append(pending, &delivery{Event: d.Event, Endpoint: row.ID, Due: c.now(), Held: d.Held})
			}
		}
		c.state.Pending = pending
		return nil
	})
	return row.ID
}
