package handlers

import (
	"maps"
	"net/http"
	"path"
	"strings"
)

// route is one method on one path, with the scope that a key needs for it.
type route struct {
	pattern string
	scope   string
	handle  func(*call) error
}

// table is the table of contents: one line a route. Each has its operation in the OpenAPI document.
func (s *Server) table() []route {
	return []route{
		{"POST /v1/usage", "usage", s.postUsage},
		{"POST /v1/usage/batch", "usage", s.postUsageBatch},
		{"GET /v1/customers/{customer}/check", "usage|read", s.getCheck},

		{"POST /v1/customers", "write", s.postCustomer},
		{"GET /v1/customers", "read", s.listCustomers},
		{"GET /v1/customers/{customer}", "read", s.getCustomer},
		{"PATCH /v1/customers/{customer}", "write", s.patchCustomer},
		{"POST /v1/customers/{customer}/wallets", "write", s.postWallet},
		{"GET /v1/customers/{customer}/wallets", "read", s.listWallets},
		{"POST /v1/customers/{customer}/setup_sessions", "write", s.postSetupSession},
		{"POST /v1/customers/{customer}/billing_portal_sessions", "write", s.postBillingPortalSession},
		{"GET /v1/customers/{customer}/lockstep", "read", s.getLockstep},
		{"POST /v1/portal_sessions", "write", s.postPortalSession},

		{"GET /v1/wallets/{id}", "read", s.getWallet},
		{"PATCH /v1/wallets/{id}", "write", s.patchWallet},
		{"GET /v1/wallets/{id}/balance", "read", s.getBalance},
		{"GET /v1/wallets/{id}/entries", "read", s.listEntries},
		{"GET /v1/wallets/{id}/forecast", "read", s.getForecast},
		{"PUT /v1/wallets/{id}/auto_topup", "write", s.putRule},
		{"GET /v1/wallets/{id}/auto_topup", "read", s.getRule},
		{"POST /v1/wallets/{id}/auto_topup/pause", "write", s.pauseRule},
		{"POST /v1/wallets/{id}/auto_topup/resume", "write", s.resumeRule},
		{"POST /v1/wallets/{id}/auto_topup/simulate", "read|write", s.simulateRule},

		{"PUT /v1/assets/{code}", "write", s.putAsset},
		{"GET /v1/assets/{code}", "read", s.getAsset},
		{"GET /v1/assets", "read", s.listAssets},

		{"PUT /v1/features/{key}", "write", s.putFeature},
		{"GET /v1/features/{key}", "read", s.getFeature},
		{"GET /v1/features", "read", s.listFeatures},

		{"POST /v1/grants", "write", s.postGrant},
		{"GET /v1/grants", "read", s.listGrants},
		{"GET /v1/grants/{id}", "read", s.getGrant},
		{"POST /v1/grants/{id}/void", "write", s.voidGrant},

		{"GET /v1/debits/{id}", "read", s.getDebit},
		{"GET /v1/debits/{id}/explain", "read", s.explainDebit},
		{"POST /v1/debits/{id}/reverse", "usage|write", s.reverseDebit},

		{"POST /v1/holds", "usage", s.postHold},
		{"GET /v1/holds/{id}", "usage|read", s.getHold},
		{"POST /v1/holds/{id}/capture", "usage", s.captureHold},
		{"POST /v1/holds/{id}/extend", "usage", s.extendHold},
		{"POST /v1/holds/{id}/release", "usage", s.releaseHold},

		{"POST /v1/topups", "write", s.postTopup},
		{"GET /v1/topups", "read", s.listTopups},
		{"GET /v1/topups/{id}", "read", s.getTopup},
		{"POST /v1/topups/{id}/cancel", "write", s.cancelTopup},

		{"GET /v1/reports/revenue", "read", s.getRevenue},

		{"POST /v1/reconcile", "write", s.postReconcile},

		{"POST /v1/webhook_endpoints", "write", s.postEndpoint},
		{"GET /v1/webhook_endpoints", "read", s.listEndpoints},
		{"GET /v1/webhook_endpoints/{id}", "read", s.getEndpoint},
		{"PATCH /v1/webhook_endpoints/{id}", "write", s.patchEndpoint},
		{"DELETE /v1/webhook_endpoints/{id}", "write", s.deleteEndpoint},
		{"POST /v1/webhook_endpoints/{id}/rotate_secret", "write", s.rotateSecret},
		{"GET /v1/webhook_endpoints/{id}/deliveries", "read", s.listDeliveries},
		{"GET /v1/events", "read", s.listEvents},
		{"GET /v1/events/{id}", "read", s.getEvent},
		{"POST /v1/events/{id}/resend", "write", s.resendEvent},
	}
}

// everybodys are the routes that need no key.
func (s *Server) everybodys() map[string]http.Handler {
	open := map[string]http.Handler{
		"POST /webhooks/stripe": s.open(s.postWebhook),
		"GET /healthz":          s.plain(http.HandlerFunc(s.healthz)),
		"GET /readyz":           s.plain(http.HandlerFunc(s.readyz)),
		"GET /openapi.json":     s.open(s.getDocument),
		"GET /docs":             s.open(s.getDocs),
		"GET /docs/docs.css":    s.open(s.getDocsStyle),

		"GET /static/{version}/{name}": s.open(s.getStatic),
	}
	maps.Copy(open, s.ConsoleRoutes())
	for _, r := range s.portalTable() {
		open[r.pattern] = s.webIn("portal", r.place, s.portal(r.handle))
	}
	open["GET /portal/{rest...}"] = s.web("portal", s.noPage)
	open["GET /portal/enter/{token}"] = s.web("portal", s.enterPortal)
	if !s.MetricsElsewhere {
		open["GET /metrics"] = s.plain(s.MetricsHandler())
	}
	return open
}

func (s *Server) routes() http.Handler {
	own, all := http.NewServeMux(), http.NewServeMux() // all has one route more, for what fits none
	handle := func(pattern string, h http.Handler) {
		own.Handle(pattern, h)
		all.Handle(pattern, h)
	}
	for _, r := range s.table() {
		handle(r.pattern, s.api(r.scope, s.rooms.of(r.pattern), r.handle))
	}
	for pattern, h := range s.everybodys() {
		handle(pattern, h)
	}
	unmatched := s.unmatched(own)
	all.Handle("/", unmatched)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isClean(r) {
			all.ServeHTTP(w, r)
		} else { // it gets no redirect, which most clients would not follow with a POST
			unmatched.ServeHTTP(w, r)
		}
	})
}

// queries names what a route takes in its query; the others take nothing there.
var queries = map[string][]string{
	"GET /v1/customers":                    {"limit", "starting_after"},
	"GET /v1/customers/{customer}/wallets": {"limit", "starting_after"},
	"GET /v1/customers/{customer}/check":   {"amount", "asset", "feature", "quantity"},
	"GET /v1/wallets/{id}/balance":         {"at"},
	"GET /v1/wallets/{id}/entries":         {"limit", "starting_after"},
	"GET /v1/features":                     {"limit", "starting_after"},
	"GET /v1/assets":                       {"limit", "starting_after"},
	"GET /v1/grants":                       {"customer", "status", "limit", "starting_after"},
	"GET /v1/topups":                       {"customer", "limit", "starting_after"},
	"GET /v1/events":                       {"type", "customer", "limit", "starting_after"},
	"GET /v1/webhook_endpoints":            {"limit", "starting_after"},

	"GET /v1/webhook_endpoints/{id}/deliveries": {"limit", "starting_after"},
	"GET /v1/reports/revenue":                   {"from", "to", "format"},
}

// plain is a route for everybody that does not speak JSON.
func (s *Server) plain(h http.Handler) http.Handler {
	return s.open(func(c *call) error {
		h.ServeHTTP(c.w, c.r)
		return nil
	})
}

// unmatched answers in the API's own words where none of the routes fits.
func (s *Server) unmatched(own *http.ServeMux) http.Handler {
	return s.open(func(c *call) error {
		probe := &statusProbe{header: make(http.Header)}
		if isClean(c.r) {
			own.ServeHTTP(probe, c.r)
		}
		if probe.status == http.StatusMethodNotAllowed {
			allow := probe.header.Get("Allow")
			c.w.Header().Set("Allow", allow)
			return &fault{http.StatusMethodNotAllowed, "invalid_request_error", "parameter_invalid", "", "method " + c.r.Method + " is not allowed here; allowed: " + allow}
		}
		return &fault{http.StatusNotFound, "invalid_request_error", "resource_missing", "", "Unrecognized request URL (" + c.r.Method + ": " + c.r.URL.Path + ")"}
	})
}

// isClean reports whether a mux would take the request's path as it is.
func isClean(r *http.Request) bool {
	asked := r.URL.EscapedPath()
	return path.Clean(asked) == strings.TrimSuffix(asked, "/") || asked == "/"
}

// statusProbe learns what the mux would answer without answering it.
type statusProbe struct {
	header http.Header
	status int
}

func (p *statusProbe) Header() http.Header { return p.header }
func (p *statusProbe) WriteHeader(s int)   { p.status = s }
func (p *statusProbe) Write(b []byte) (int, error) {
	return len(b), nil
}
