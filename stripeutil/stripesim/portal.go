package stripesim

var portalRoutes = map[string]handler{
	"POST /v1/billing_portal/sessions":      createPortalSession,
	"GET /v1/billing_portal/configurations": listPortals,
}

type portalSession struct {
	ID            string         `json:"id"`
	Object        string         `json:"object"`
	Configuration string         `json:"configuration"`
	Created       int64          `json:"created"`
	Customer      string         `json:"customer"`
	Flow          map[string]any `json:"flow"`
	Livemode      bool           `json:"livemode"`
	Locale        opt            `json:"locale"`
	OnBehalfOf    opt            `json:"on_behalf_of"`
	ReturnURL     opt            `json:"return_url"`
	URL           string         `json:"url"`
}

// defaultPortal is the portal's configuration, saved in the dashboard.
const defaultPortal = "bpc_1Stripesim"

// createPortalSession answers a link; nothing can be read back. What the
// customer does behind it is Operator's SetDefaultPaymentMethod and the like,
// or portalPage's.
func createPortalSession(c *call) (any, *apiError) {
	token := newID("test_", 40)
	s := portalSession{ID: newID("bps_1", 23), Object: "billing_portal.session", Configuration: c.ref("configuration"), Created: c.unix(),
		Customer: c.need("customer"), Livemode: c.livemode, URL: c.hostedURL("https://billing.stripe.com", "/p/session/"+token)}
	c.set("locale", &s.Locale)
	c.set("return_url", &s.ReturnURL)
	if h := c.hash("flow_data"); h != nil {
		kind := h.enum("type", "payment_method_update", "subscription_cancel", "subscription_update", "subscription_update_confirm")
		if kind != "payment_method_update" {
			h.fail(badRequest("", "flow_data[type]", "This simulator's portal knows the flow payment_method_update alone."))
		}
		h.ignore("after_completion")
		s.Flow = map[string]any{"after_completion": map[string]any{"hosted_confirmation": nil, "redirect": nil, "type": "portal_homepage"}, "type": kind,
			"subscription_cancel": nil, "subscription_update": nil, "subscription_update_confirm": nil}
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	if _, err := c.customerIn(s.Customer); err != nil {
		return nil, err
	}
	if s.Configuration == "" {
		if c.state.NoPortal {
			return nil, badRequest("", "", "You can't create a portal session in test mode until you save your customer portal settings in test mode at https://dashboard.stripe.com/test/settings/billing/portal.")
		}
		s.Configuration = defaultPortal
	}
	if s.Configuration != defaultPortal {
		return nil, noSuchParam("configuration", s.Configuration, "configuration")
	}
	c.state.Portals[token] = portalVisit{Customer: s.Customer, ReturnURL: string(s.ReturnURL), OneThing: s.Flow != nil}
	return s, nil
}

type portalConfiguration struct {
	ID               string            `json:"id"`
	Object           string            `json:"object"`
	Active           bool              `json:"active"`
	Application      any               `json:"application"`
	BusinessProfile  map[string]any    `json:"business_profile"`
	Created          int64             `json:"created"`
	DefaultReturnURL any               `json:"default_return_url"`
	Features         map[string]any    `json:"features"`
	IsDefault        bool              `json:"is_default"`
	Livemode         bool              `json:"livemode"`
	LoginPage        map[string]any    `json:"login_page"`
	Metadata         map[string]string `json:"metadata"`
	Updated          int64             `json:"updated"`
}

// listPortals answers the one configuration there is, the dashboard's, as it is when nothing in it was changed.
func listPortals(c *call) (any, *apiError) {
	w := c.window(false)
	active, isDefault := c.boolean("active") || !c.has("active"), c.boolean("is_default") || !c.has("is_default")
	var rows table[portalConfiguration]
	if !c.state.NoPortal && active && isDefault {
		off := map[string]any{"enabled": false}
		rows.put(defaultPortal, &portalConfiguration{ID: defaultPortal, Object: "billing_portal.configuration", Active: true, IsDefault: true, Livemode: c.livemode,
			Created: 1700000000, Updated: 1700000000, LoginPage: map[string]any{"enabled": false, "url": nil}, Metadata: map[string]string{},
			BusinessProfile: map[string]any{"headline": nil, "privacy_policy_url": nil, "terms_of_service_url": nil},
			Features: map[string]any{"customer_update": map[string]any{"allowed_updates": []string{}, "enabled": false},
				"invoice_history": map[string]any{"enabled": true}, "payment_method_update": map[string]any{"enabled": true}, "subscription_pause": off,
				"subscription_cancel": map[string]any{"cancellation_reason": map[string]any{"enabled": false, "options": []string{}},
					"enabled": false, "mode": "at_period_end", "proration_behavior": "none"},
				"subscription_update": map[string]any{"default_allowed_updates": []string{}, "enabled": false, "proration_behavior": "none"}}})
	}
	return list(c, &rows, w, "configuration", func(p *portalConfiguration) int64 { return p.Created }, func(*portalConfiguration) bool { return true })
}

// SavePortal saves the billing portal's settings, or takes them back to where nobody ever has.
func (o *Operator) SavePortal(saved bool) error {
	return o.s.act(func(c *call) *apiError { c.state.NoPortal = !saved; return nil })
}
