package handlers

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// setupMetadata is the name under which a page for saving a card carries whose it is; a page without it is another
// program's, and its card is left as it is.
const setupMetadata = "lockstep_setup"

// pageJSON is one of Stripe's own pages, opened for a customer.
type pageJSON struct {
	Object    string  `json:"object"`
	ID        string  `json:"id"`
	Customer  string  `json:"customer"`
	URL       string  `json:"url"`
	ExpiresAt *string `json:"expires_at"`
}

func newPage(object string, cust *ledger.Customer, p stripeutil.PageSession) pageJSON {
	v := pageJSON{Object: object, ID: p.ID, Customer: cust.ID, URL: p.URL}
	if !p.ExpiresAt.IsZero() {
		v.ExpiresAt = optionalStamp(&p.ExpiresAt)
	}
	return v
}

// postSetupSession opens Stripe's page on which a customer saves a card. The card becomes the default when they are
// done; no card data ever comes here.
func (s *Server) postSetupSession(c *call) error {
	var in struct {
		SuccessURL *string `json:"success_url"`
		CancelURL  *string `json:"cancel_url"`
	}
	if err := c.decodeOptional(&in); err != nil {
		return err
	}
	success, err := s.pageURL("success_url", in.SuccessURL)
	if err != nil {
		return err
	}
	cancel := ""
	if in.CancelURL != nil {
		if cancel, err = s.pageURL("cancel_url", in.CancelURL); err != nil {
			return err
		}
	}
	return s.openPage(c, []string{success, cancel}, func(cust *ledger.Customer, key string) (pageJSON, error) {
		p, err := s.setupPage(c.ctx(), cust, success, cancel, key)
		return newPage("setup_session", cust, p), err
	})
}

// setupPage opens the page on which a customer saves a card.
func (s *Server) setupPage(ctx context.Context, cust *ledger.Customer, success, cancel, key string) (stripeutil.PageSession, error) {
	return s.Stripe.CreateSetupSession(ctx, stripeutil.SetupSessionParams{Customer: cust.StripeCustomer, SuccessURL: success, CancelURL: cancel,
		Metadata: map[string]string{setupMetadata: cust.ID}, IdempotencyKey: "setup:" + key})
}

// billingPage opens Stripe's billing portal for a customer.
func (s *Server) billingPage(ctx context.Context, cust *ledger.Customer, back, key string) (stripeutil.PageSession, error) {
	return s.Stripe.CreateBillingPortalSession(ctx, cust.StripeCustomer, back, "portal:"+key)
}

// postBillingPortalSession opens Stripe's billing portal, where a customer manages cards, invoices and subscriptions.
func (s *Server) postBillingPortalSession(c *call) error {
	var in struct {
		ReturnURL *string `json:"return_url"`
	}
	if err := c.decodeOptional(&in); err != nil {
		return err
	}
	back, err := s.pageURL("return_url", in.ReturnURL)
	if err != nil {
		return err
	}
	return s.openPage(c, []string{back}, func(cust *ledger.Customer, key string) (pageJSON, error) {
		p, err := s.billingPage(c.ctx(), cust, back, key)
		return newPage("billing_portal_session", cust, p), err
	})
}

// pageURL is where Stripe sends the customer back to: what the caller says, else their portal.
func (s *Server) pageURL(param string, said *string) (string, error) {
	at := ""
	if s.PublicURL != "" {
		at = strings.TrimRight(s.PublicURL, "/") + "/portal"
	}
	if said != nil {
		at = *said
	}
	if at == "" {
		return "", missing(param)
	}
	if err := texts(param, at); err != nil {
		return "", err
	}
	if u, err := url.Parse(at); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return "", invalid(param, param+" must be a URL such as https://app.example.com/billing")
	}
	return at, nil
}

// openPage opens a page of Stripe's for the customer in the path, once under a key. Stripe's own key is made of the
// caller's, so that a call whose answer was lost opens the same page again.
func (s *Server) openPage(c *call, request []string, open func(cust *ledger.Customer, key string) (pageJSON, error)) error {
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	cust, err := s.customer(c)
	if err != nil {
		return err
	}
	switch {
	case cust.Status == "deleted":
		return &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "customer", "customer " + cust.ID + " was deleted in Stripe"}
	case cust.StripeCustomer == "":
		return &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "customer", "customer " + cust.ID + " is not in Stripe yet: try again shortly"}
	}
	return s.once(c, key, cust.Bucket, request, func(once ledger.Once) (int, any, error) {
		own := rand.Text()
		if once.Key != "" {
			own = cust.StripeCustomer + ":" + strconv.FormatInt(ledger.Fingerprint(once.Key), 36)
		}
		v, err := open(&cust, own)
		return http.StatusCreated, v, err
	})
}

// cardSaved makes the card of a finished setup page the customer's default, which arms what waits for a card.
func (s *Server) cardSaved(ctx context.Context, session stripeutil.CheckoutSession) error {
	if session.Metadata[setupMetadata] == "" || session.SetupIntent == "" {
		return nil
	}
	ref, err := s.Ledger.Resolve(ctx, session.Customer)
	if ledger.IsCode(err, ledger.CodeNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	si, err := s.Stripe.SetupIntent(ctx, session.SetupIntent)
	if err != nil || si.Status != "succeeded" || si.PaymentMethod == "" {
		return err
	}
	if _, err := s.Stripe.SetDefaultPaymentMethod(ctx, session.Customer, si.PaymentMethod, "setup:"+session.ID+":default"); err != nil {
		return err
	}
	return s.Ledger.CardChanged(ctx, ref, si.PaymentMethod)
}
