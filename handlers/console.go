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
		"POST /console/login":  s.slowed(s.web("console", s.postLogin)),
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

		"GET /console/{rest...}": s.console(s.noPage),
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
		name, _ := s.consoleCookie()
		cookie, err := v.r.Cookie(name)
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
	consolePath = "/console"
	maxOperator = 80 // bytes of a person's name
)

// consoleCookie is the cookie's name and path, with the prefix that portalCookie says why.
func (s *Server) consoleCookie() (name, path string) {
	if s.secure() {
		return "__Host-lockstep_console", "/"
	}
	return "lockstep_console", consolePath
}

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
	secret, found, err := s.Ledger.SignIn(v.ctx(), key, f.Name)
	if err != nil {
		return err
	}
	if !found {
		address := addressOf(v.r)
		s.Log.Warn("console: sign-in refused", "request", v.id, "address", address)
		if s.tries.fail(address, time.Now()) {
			v.w.Header().Set("Retry-After", "60")
			f.Said = "Too many wrong keys from your address. Wait a minute, then try again."
			return refused(http.StatusTooManyRequests)
		}
		f.KeyErr = "This key is not known, was revoked, or lacks the scope admin."
		return refused(http.StatusForbidden)
	}
	name, path := s.consoleCookie()
	s.setCookie(v, name, path, secret, ledger.SessionLife)
	return v.goTo(f.Next)
}

// slowed has those wait a moment whose address has had too many wrong keys this minute. They wait before they take a slot in
// a room. No right key is refused: behind one proxy all have one address, and nobody guesses 256 random bits.
func (s *Server) slowed(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.tries.over(addressOf(r), time.Now()) {
			select {
			case <-time.After(slowTry):
			case <-r.Context().Done():
			}
		}
		h.ServeHTTP(w, r)
	})
}

// postLogout ends the session, if there is one.
func (s *Server) postLogout(v *visit) error {
	name, path := s.consoleCookie()
	cookie, err := v.r.Cookie(name)
	if errors.Is(err, http.ErrNoCookie) {
		return v.goTo(consolePath + "/login")
	}
	if err := s.Ledger.SignOut(v.ctx(), cookie.Value); err != nil {
		return err
	}
	s.setCookie(v, name, path, "", 0)
	return v.goTo(consolePath + "/login")
}

// tries counts the wrong keys of this minute by the address that they came from, in this process: a flood of them is not to
// keep the database busy.
type tries struct {
	mu     sync.Mutex
	minute int64
	counts map[string]int
}

const (
	triesPerMinute = 10
	maxAddresses   = 10_000                 // that are counted; past it a new one counts as one that had too many
	slowTry        = 500 * time.Millisecond // that one waits who had too many
)

// of is how many an address had; t is locked.
func (t *tries) of(address string, now time.Time) int {
	if minute := now.Unix() / 60; minute != t.minute || t.counts == nil {
		t.minute, t.counts = minute, make(map[string]int)
	}
	n, known := t.counts[address]
	if !known && len(t.counts) >= maxAddresses {
		return triesPerMinute
	}
	return n
}

// over says whether an address has had all its tries.
func (t *tries) over(address string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of(address, now) >= triesPerMinute
}

// fail counts a wrong key of an address, and says whether it had all its tries before.
func (t *tries) fail(address string, now time.Time) (over bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of(address, now) >= triesPerMinute {
		return true
	}
	t.counts[address]++
	return false
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
