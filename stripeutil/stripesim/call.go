package stripesim

import (
	"net/http"
	"strings"
)

// call is one request being executed, or one act of Stripe or of an operator;
// those have no request id. Whoever holds a call holds the simulator's lock.
type call struct {
	*Sim
	*params
	args         []string // the variable parts of the path, in order
	path         string
	request, key string
	made         []string // ids of the events so far
	early        []early  // those of them that the answer waits for
}

// byStripe is a call nobody made over the API.
func (s *Sim) byStripe() *call { return &call{Sim: s, params: newParams(nil)} }

type handler func(*call) (any, *apiError)

// run executes a handler and renders its outcome.
func (c *call) run(handle handler) *answer {
	expand := c.params.list("expand")
	out, err := handle(c)
	if err == nil {
		var body []byte
		if body, err = c.render(out, expand); err == nil {
			return &answer{status: http.StatusOK, body: body, events: c.made, early: c.early}
		}
	}
	a := refusal(err)
	a.events, a.early = c.made, c.early
	return a
}

// id is the first variable part of the path.
func (c *call) id() string { return c.args[0] }

type endpointOf struct {
	method string
	parts  []string // "" is a variable part
	handle handler
}

// routes is the table of contents of the simulated API.
var routes []endpointOf

func init() {
	for _, group := range []map[string]handler{
		customerRoutes, methodRoutes, setupRoutes, intentRoutes, chargeRoutes, refundRoutes, disputeRoutes, eventRoutes, endpointRoutes,
		invoiceRoutes, invoiceItemRoutes, creditNoteRoutes, catalogRoutes, sessionRoutes, portalRoutes,
	} {
		for pattern, handle := range group {
			method, path, _ := strings.Cut(pattern, " ")
			parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
			for i := range parts {
				if strings.HasPrefix(parts[i], "{") {
					parts[i] = ""
				}
			}
			routes = append(routes, endpointOf{method, parts, handle})
		}
	}
}

// route finds the handler of a path; a literal part wins over a variable one.
func route(method, path string) (handler, []string) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	var found handler
	var vars []string
	for _, e := range routes {
		args, ok := e.match(method, parts)
		if ok && (found == nil || len(args) < len(vars)) {
			found, vars = e.handle, args
		}
	}
	return found, vars
}

func (e *endpointOf) match(method string, parts []string) ([]string, bool) {
	if e.method != method || len(e.parts) != len(parts) {
		return nil, false
	}
	args := []string{}
	for i, p := range e.parts {
		switch {
		case p == "" && parts[i] != "":
			args = append(args, parts[i])
		case p != parts[i]:
			return nil, false
		}
	}
	return args, true
}
