package handlers

import (
	"errors"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// The operators' console. Whoever signs in brings an API key with the scope admin, and a name, which the audit trail
// shows beside all that they do.

// ConsoleRoutes are the console's routes: one line a page.
func (s *Server) ConsoleRoutes() map[string]http.Handler {
	all := map[string]http.Handler{
		"GET /console/login":   s.web("console", s.showLogin),
		"POST /console/login":  s.web("console", s.postLogin),
		"POST /console/logout": s.web("console", s.postLogout),

		"GET /console":         s.console(s.showOverview),
		"GET /console/live":    s.console(s.showLive),
		"GET /console/paused":  s.console(s.showPaused),
		"GET /console/drifted": s.console(s.showDrifted),

		"GET /console/customers":                     s.console(s.showCustomers),
		"GET /console/customers/{customer}":          s.console(s.showCustomer),
		"GET /console/customers/{customer}/lockstep": s.consoleAtStripe(s.showLockstep),
		"GET /console/wallets/{id}":                  s.console(s.showWallet),
		"GET /console/debits/{id}":                   s.console(s.showDebit),
		"GET /console/grants/{id}":                   s.console(s.showGrant),

		"GET /console/audit":      s.console(s.showAudit),
		"GET /console/audit/{id}": s.console(s.showAct),
	}
	maps.Copy(all, s.backOffice())
	maps.Copy(all, s.orders())
	return all
}

// console is a page of the console: a person without a session goes to the door, and comes back after.
func (s *Server) console(handle func(*visit) error) http.Handler {
	return s.web("console", s.signedIn(handle))
}

// consoleAtStripe is console for a page that waits for Stripe.
func (s *Server) consoleAtStripe(handle func(*visit) error) http.Handler {
	return s.webIn("console", s.rooms.stripe, s.signedIn(handle))
}

// consoleReport is console for what reads much of the books.
func (s *Server) consoleReport(handle func(*visit) error) http.Handler {
	return s.webIn("console", s.rooms.reports, s.signedIn(handle))
}

func (s *Server) signedIn(handle func(*visit) error) func(*visit) error {
	return func(v *visit) error {
		fetched := v.r.Header.Get("HX-Request") != "" // by a page, not by a person
		cookie, err := v.r.Cookie(sessionCookie)
		found := false
		if err == nil {
			if v.operator, found, err = s.Ledger.OperatorOf(v.ctx(), cookie.Value, !fetched); err != nil {
				return err
			}
		}
		if found {
			v.who = v.operator.Name
			return handle(v)
		}
		if fetched {
			v.done = true
			v.w.Header().Set("HX-Refresh", "true") // the page itself, which goes to the door
			v.w.WriteHeader(http.StatusUnauthorized)
			return nil
		}
		return v.goTo("/console/login?next=" + url.QueryEscape(v.r.URL.RequestURI()))
	}
}

const (
	sessionCookie = "lockstep_console"
	consolePath   = "/console"
	maxOperator   = 80 // bytes of a person's name
)

// comeBack is the page of the console that somebody was sent to the door from. It is one of ours, or the first one.
func comeBack(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || strings.ContainsAny(next, "\\\r\n\t") {
		return consolePath
	}
	if u.Path != consolePath && !strings.HasPrefix(u.Path, consolePath+"/") || strings.HasPrefix(u.Path, consolePath+"/log") || strings.Contains(u.Path, "..") {
		return consolePath
	}
	u.Fragment = ""
	return u.String()
}

// loginForm is what the door shows.
type loginForm struct {
	Name, Next        string
	NameError, KeyErr string
	Said              string
}

func (s *Server) showLogin(v *visit) error {
	return s.show(v, http.StatusOK, "login", pages.Frame{Title: "Sign in", Data: loginForm{Next: comeBack(v.query.Get("next"))}})
}

func (s *Server) postLogin(v *visit) error {
	f := loginForm{Name: strings.TrimSpace(v.form.Get("name")), Next: comeBack(v.form.Get("next"))}
	refused := func(status int) error {
		return s.show(v, status, "login", pages.Frame{Title: "Sign in", Data: f})
	}
	key := strings.TrimSpace(v.form.Get("key"))
	if f.Name == "" {
		f.NameError = "Say who you are: the audit trail shows this name beside what you do."
	} else if len(f.Name) > maxOperator {
		f.NameError = "A name of at most 80 bytes, please."
	}
	if key == "" {
		f.KeyErr = "An API key with the scope admin is needed."
	}
	if f.NameError != "" || f.KeyErr != "" {
		return refused(http.StatusBadRequest)
	}
	address := addressOf(v.r)
	if !s.tries.take(address, time.Now()) {
		v.w.Header().Set("Retry-After", "60")
		f.Said = "Too many tries from your address. Wait a minute, then try again."
		return refused(http.StatusTooManyRequests)
	}
	secret, found, err := s.Ledger.SignIn(v.ctx(), key, f.Name)
	if err != nil {
		return err
	}
	if !found {
		s.Log.Warn("console: sign-in refused", "request", v.id, "address", address)
		f.KeyErr = "This key is not known, was revoked, or lacks the scope admin."
		return refused(http.StatusForbidden)
	}
	s.tries.giveBack(address)
	s.setCookie(v, sessionCookie, consolePath, secret, ledger.SessionLife)
	return v.goTo(f.Next)
}

// postLogout ends the session, if there is one.
func (s *Server) postLogout(v *visit) error {
	cookie, err := v.r.Cookie(sessionCookie)
	if errors.Is(err, http.ErrNoCookie) {
		return v.goTo(consolePath + "/login")
	}
	if err := s.Ledger.SignOut(v.ctx(), cookie.Value); err != nil {
		return err
	}
	s.setCookie(v, sessionCookie, consolePath, "", 0)
	return v.goTo(consolePath + "/login")
}

// tries counts who tried to sign in this minute, in this process, so that keys can't be guessed.
type tries struct {
	mu     sync.Mutex
	minute int64
	counts map[string]int
}

const (
	triesPerMinute = 10
	maxAddresses   = 10_000 // that are counted; past it nobody new may try until the minute is over
)

// take counts a try of an address, and says whether it may be made.
func (t *tries) take(address string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if minute := now.Unix() / 60; minute != t.minute || t.counts == nil {
		t.minute, t.counts = minute, make(map[string]int)
	}
	n, known := t.counts[address]
	if n >= triesPerMinute || !known && len(t.counts) >= maxAddresses {
		return false
	}
	t.counts[address] = n + 1
	return true
}

// giveBack takes back the count of a try that succeeded.
func (t *tries) giveBack(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[address] > 0 {
		t.counts[address]--
	}
}

// addressOf is who a request came from, as the network says: a header anybody can send says nothing. Of IPv6 it is the
// network, of which one person has all addresses.
func addressOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Unmap().Is4() {
		return host
	}
	if p, err := ip.Prefix(64); err == nil {
		return p.String()
	}
	return host
}
