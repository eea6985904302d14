package stripesim

var portalRoutes = map[string]handler{
	"POST /v1/billing_portal/sessions": createPortalSession,
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
// customer does behind it is Operator's SetDefaultPaymentMethod and the like.
func createPortalSession(c *call) (any, *apiError) {
	s := portalSession{ID: newID("bps_1", 23), Object: "billing_portal.session", Configuration: c.ref("configuration"), Created: c.unix(),
		Customer: c.need("customer"), Livemode: c.livemode, URL: "https://billing.stripe.com/p/session/" + newID("test_", 40)}
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
		s.Configuration = defaultPortal
	}
	if s.Configuration != defaultPortal {
		return nil, noSuchParam("configuration", s.Configuration, "configuration")
	}
	return s, nil
}
