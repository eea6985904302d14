package handlers

import (
	"crypto/rand"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// The customer's portal. Whoever follows a link that the merchant made is that one customer for as long as their session
// lasts, and reads with a reader that has nothing of any other.

// portalVisit is a visit by a customer.
type portalVisit struct {
	*visit
	cust   ledger.Customer
	own    ledger.Reader
	secret portalSecret
}

// portalRoute is a page of the portal, or what one of its forms does. What waits for Stripe does so in a room of its own: it
// must keep nobody from the other pages.
type portalRoute struct {
	pattern string
	place   *room
	handle  func(*portalVisit) error
}

// portalTable is the portal's table of contents. A {wallet} and a {topup} are the customer's own: who asks for another's
// is told that there is none.
func (s *Server) portalTable() []portalRoute {
	own, stripe := s.rooms.pages, s.rooms.stripe
	return []portalRoute{
		{"GET /portal", own, s.portalHome},
		{"GET /portal/chart/{wallet}", own, s.portalChart},
		{"GET /portal/refill/{wallet}", stripe, s.portalRefill},
		{"POST /portal/refill/{wallet}", stripe, s.saveRefill},
		{"POST /portal/refill/{wallet}/resume", own, s.resumeRefill},
		{"GET /portal/cards", stripe, s.portalCards},
		{"POST /portal/cards/add", stripe, s.addCard},
		{"POST /portal/cards/manage", stripe, s.manageCards},
		{"GET /portal/buy/{wallet}", stripe, s.portalBuy},
		{"POST /portal/buy/{wallet}", stripe, s.buy},
		{"GET /portal/purchases/{wallet}", own, s.portalTopups},
		{"GET /portal/topups/{topup}", own, s.portalTopup},
		{"GET /portal/topups/{topup}/receipt", stripe, s.portalReceipt},
		{"POST /portal/topups/{topup}/cancel", stripe, s.cancelBuy},
		{"GET /portal/activity/{wallet}", own, s.portalActivity},
		{"GET /portal/activity/{wallet}/csv", s.rooms.reports, s.portalCSV},
		{"GET /portal/grants/{wallet}", own, s.portalGrants},
		{"POST /portal/sign_out", own, s.leavePortal},
	}
}

// portalSecret is what the cookie holds: the bucket in which the session is found, and what nobody can guess.
type portalSecret struct {
	bucket int16
	random string
}

func (p portalSecret) String() string { return strconv.Itoa(int(p.bucket)) + "." + p.random }

// portalCookie is the cookie's name and path. A browser keeps a name with the prefix __Host- only when it came over TLS,
// for this host alone, so that no neighbour under the same domain can put one there.
func (s *Server) portalCookie() (name, path string) {
	if s.secure() {
		return "__Host-lockstep_portal", "/"
	}
	return "lockstep_portal", "/portal"
}

// portalSecret reads the cookie.
func (s *Server) portalSecret(v *visit) (p portalSecret, ok bool) {
	name, _ := s.portalCookie()
	cookie, err := v.r.Cookie(name)
	if err != nil {
		return p, false
	}
	bucket, random, _ := strings.Cut(cookie.Value, ".")
	n, err := strconv.ParseUint(bucket, 10, 8)
	if err != nil || n >= ledger.Buckets || len(random) != len(rand.Text()) {
		return p, false
	}
	return portalSecret{int16(n), random}, true
}

// portalSession is the session that the browser holds.
func (s *Server) portalSession(v *visit) (session ledger.PortalSession, secret portalSecret, found bool, err error) {
	secret, ok := s.portalSecret(v)
	if !ok {
		return session, secret, false, nil
	}
	session, found, err = s.Ledger.PortalSession(v.ctx(), secret.bucket, []byte(secret.random))
	return session, secret, found, err
}

// portal lets a customer in who has a session; everybody else is told where to get a link.
func (s *Server) portal(handle func(*portalVisit) error) func(*visit) error {
	return func(v *visit) error {
		session, secret, found, err := s.portalSession(v)
		if err != nil {
			return err
		}
		if !found {
			return s.show(v, http.StatusUnauthorized, "out", pages.Frame{Title: v.locale.T("portal.out.title"), Data: outView{}})
		}
		v.who, v.back = session.Customer.Name, session.ReturnURL
		if v.who == "" {
			v.who = session.Customer.ID
		}
		if session.Customer.Status == "frozen" && v.r.Method == http.MethodPost && v.r.URL.Path != "/portal/sign_out" {
			return v.refuse(http.StatusConflict, "conflict", string(ledger.CodeFrozen), "portal.frozen") // who is frozen may look
		}
		return handle(&portalVisit{visit: v, cust: session.Customer, own: s.Ledger.ReaderOf(session.Customer.Ref), secret: secret})
	}
}

// outView is the page of those who have no session: why, and where a link can be had.
type outView struct {
	Link bool   // they came by a link that does not open
	Left bool   // they signed out
	Back string // the merchant's page, where the link's signature says so
}

// enterPortal exchanges a link for a session, once. A link whose signature is wrong, that is too old, was used, or whose
// customer is gone is refused in the same words; only to whom the merchant's signature was shown is told the way back.
// The browser that used it and comes again, by its way back, goes on to the portal.
func (s *Server) enterPortal(v *visit) error {
	link, ok := readLink(s.PortalKey, v.r.PathValue("token"))
	if purpose := v.r.Header.Get("Sec-Purpose"); v.r.Method != http.MethodGet || strings.Contains(purpose, "prefetch") {
		v.done = true // who only looks whether there is something must not use the link up
		v.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if ok {
		secret := portalSecret{ledger.BucketOfKey(link.Customer), rand.Text()} // a customer's id hashes as a key does
		entered, err := s.Ledger.EnterPortal(v.ctx(), link, []byte(secret.random))
		if err != nil {
			return err
		}
		if entered {
			name, path := s.portalCookie()
			s.setCookie(v, name, path, secret.String(), ledger.PortalMost)
			return v.goTo("/portal")
		}
		session, _, found, err := s.portalSession(v)
		if err != nil {
			return err
		}
		if found && session.Link == ledger.PortalLinkHash(link.Nonce) {
			return v.goTo("/portal")
		}
	}
	return s.show(v, http.StatusForbidden, "out", pages.Frame{Title: v.locale.T("portal.out.title"), Data: outView{Link: true, Back: link.ReturnURL}})
}

// leavePortal ends the session.
func (s *Server) leavePortal(p *portalVisit) error {
	if err := s.Ledger.LeavePortal(p.ctx(), p.secret.bucket, []byte(p.secret.random)); err != nil {
		return err
	}
	name, path := s.portalCookie()
	s.setCookie(p.visit, name, path, "", 0)
	back := p.back
	p.who, p.back = "", ""
	return s.show(p.visit, http.StatusOK, "out", pages.Frame{Title: p.locale.T("portal.left.title"), Data: outView{Left: true, Back: back}})
}

// wallet is the one in the path, which is the customer's.
func (p *portalVisit) wallet() (ledger.Wallet, error) {
	w, err := p.own.Wallet(p.ctx(), p.r.PathValue("wallet"))
	return w, p.missing(err)
}

// missing says in the reader's language that there is no such page, whatever it was that is not there.
func (p *portalVisit) missing(err error) error {
	var r *ledger.Refusal
	if errors.As(err, &r) && r.Code == ledger.CodeNotFound {
		return p.refuse(http.StatusNotFound, "invalid_request_error", "resource_missing", "error.missing")
	}
	return err
}

// nonce is what a form carries that moves money or changes something: sent twice, it does it once.
func nonce() string { return rand.Text() }
