package handlers

import (
	"net/http"
	"strings"

	"lockstep/ledger"
)

type portalSessionJSON struct {
	Object    string `json:"object"`
	URL       string `json:"url"`
	ExpiresAt string `json:"expires_at"`
}

// unsignedEnd ends a link in an answer that is kept: before the answer is sent, the signature stands in its place.
const unsignedEnd = ".signature-is-not-kept"

// postPortalSession makes a link to a customer's portal.
//
// A repeated call is answered byte for byte, so the answer is kept, and with it would be a link that opens the portal of
// whoever finds it in the database within its quarter of an hour. So what is kept is the link without its signature, which
// cannot be had without the secret; whoever sends the answer, first or again, signs it there and then. A repetition gives
// the same link, which may have been followed or expired by then: a new link takes a new key. (Should PORTAL_SECRET be
// changed in between, the repetition's link differs in its signature, and works.)
func (s *Server) postPortalSession(c *call) error {
	var in struct {
		Customer  *string `json:"customer"`
		ReturnURL *string `json:"return_url"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if deref(in.Customer) == "" {
		return missing("customer")
	}
	if err := texts("customer", *in.Customer); err != nil {
		return err
	}
	back := ""
	if in.ReturnURL != nil {
		var err error
		if back, err = s.pageURL("return_url", in.ReturnURL); err != nil {
			return err
		}
	}
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	cust, err := s.Ledger.Customer(c.ctx(), *in.Customer)
	if err != nil {
		return err
	}
	if cust.Status == "deleted" {
		return &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "customer", "customer " + cust.ID + " was deleted in Stripe"}
	}
	c.finish = s.signLink
	return s.once(c, key, cust.Bucket, []string{cust.ID, back}, func(ledger.Once) (int, any, error) {
		payload, expires := newLink(cust.ID, back, s.Ledger.Now())
		return http.StatusCreated, portalSessionJSON{"portal_session", s.base(c) + "/portal/enter/" + payload + unsignedEnd, stamp(expires)}, nil
	})
}

// signLink puts the signature into an answer. The payload is what is between the last slash and its end: base64 has none.
func (s *Server) signLink(body []byte) []byte {
	at := strings.LastIndex(string(body), unsignedEnd)
	if at < 0 {
		return body
	}
	before, after := string(body[:at]), string(body[at+len(unsignedEnd):])
	payload := before[strings.LastIndexByte(before, '/')+1:]
	return []byte(before + "." + signature(s.PortalKey, payload) + after)
}

// base is the address of this service for browsers: the one that is set, else the one that the call came to.
func (s *Server) base(c *call) string {
	if s.PublicURL != "" {
		return strings.TrimRight(s.PublicURL, "/")
	}
	if c.r.TLS != nil {
		return "https://" + c.r.Host
	}
	return "http://" + c.r.Host
}
