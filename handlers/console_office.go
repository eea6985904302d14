package handlers

import (
	"net/http"
	"strings"
)

// backOffice are the console's pages about how the service runs: payments, what Stripe told, who is told, prices, the books
// and keys.
func (s *Server) backOffice() map[string]http.Handler {
	all := map[string]http.Handler{
		"GET /console/topups":      s.console(s.showTopups),
		"GET /console/topups/{id}": s.console(s.showTopup),

		"GET /console/stripe_events":      s.console(s.showInbox),
		"GET /console/stripe_events/{id}": s.console(s.showInboxEvent),

		"GET /console/webhooks":      s.console(s.showEndpoints),
		"GET /console/webhooks/{id}": s.console(s.showEndpoint),
		"GET /console/events":        s.console(s.showEvents),
		"GET /console/events/{id}":   s.console(s.showEvent),

		"GET /console/rates":         s.console(s.showRates),
		"GET /console/rates/feature": s.console(s.showFeature),
		"GET /console/assets":        s.console(s.showAssets),

		"GET /console/books":              s.console(s.showBooks),
		"GET /console/books/verification": s.console(s.showVerification),
		"GET /console/books/report":       s.consoleReport(s.showReport),
		"GET /console/books/revenue.csv":  s.consoleReport(s.downloadRevenue),
		"GET /console/books/entries.csv":  s.consoleReport(s.downloadEntries),

		"GET /console/keys": s.console(s.showKeys),
	}
	for path, make := range map[string]func(*visit) (*order, error){
		"/console/stripe_events/{id}/replay":   s.replayOrder,
		"/console/stripe_events/replay_failed": s.replayFailedOrder,
		"/console/webhooks/new":                s.newEndpointOrder,
		"/console/webhooks/{id}/edit":          s.editEndpointOrder,
		"/console/webhooks/{id}/disable":       s.disableEndpointOrder,
		"/console/webhooks/{id}/enable":        s.enableEndpointOrder,
		"/console/webhooks/{id}/delete":        s.deleteEndpointOrder,
		"/console/webhooks/{id}/rotate":        s.rotateOrder,
		"/console/events/{id}/resend":          s.resendOrder,
		"/console/rates/change":                s.rateOrder,
		"/console/assets/change":               s.assetOrder,
		"/console/books/verify":                s.verifyOrder,
		"/console/keys/new":                    s.newKeyOrder,
		"/console/keys/{id}/revoke":            s.revokeKeyOrder,
	} {
		h := s.console(s.act(make))
		all["GET "+path], all["POST "+path] = h, h
	}
	cancel := s.consoleAtStripe(s.act(s.cancelTopupOrder))
	all["GET /console/topups/{id}/cancel"], all["POST /console/topups/{id}/cancel"] = cancel, cancel
	return all
}

// officeActs are the acts of these pages, by their names in the audit trail.
var officeActs = []option{
	{"cancel_topup", "Cancel a top-up"}, {"replay_event", "Work an event off again"}, {"replay_failed", "Work failed events off again"},
	{"create_endpoint", "Add a webhook endpoint"}, {"change_endpoint", "Change a webhook endpoint"}, {"disable_endpoint", "Disable a webhook endpoint"},
	{"enable_endpoint", "Enable a webhook endpoint"}, {"delete_endpoint", "Delete a webhook endpoint"}, {"rotate_secret", "Rotate a signing secret"},
	{"resend_event", "Send an event again"}, {"change_rate", "Change a price on the rate card"}, {"change_asset", "Change an asset"},
	{"verify_books", "Check the books"}, {"create_key", "Make an API key"}, {"revoke_key", "Revoke an API key"},
}

// officePlace is the page of the thing with an id; "" where there is none. An event of ours is told from one of Stripe's by
// its length.
func officePlace(id string) string {
	const ownID = len("evt_") + 20
	switch {
	case strings.HasPrefix(id, "top_"):
		return "/console/topups/" + id
	case strings.HasPrefix(id, "whk_"):
		return "/console/webhooks/" + id
	case strings.HasPrefix(id, "evt_") && len(id) == ownID && strings.ToLower(id) == id:
		return "/console/events/" + id
	case strings.HasPrefix(id, "evt_"):
		return "/console/stripe_events/" + id
	case strings.HasPrefix(id, "key_"):
		return "/console/keys"
	}
	return ""
}

// namedLink is an id of Stripe's that says what it is of.
type namedLink struct{ What, ID, URL string }

func (s *Server) namedLink(what, id string) namedLink { return namedLink{what, id, s.atStripe(id)} }
