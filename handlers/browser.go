package handlers

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// What people see in a browser: the customer's portal and the operators' console. Both are forms and links, which work
// without a script. Nothing on them comes from elsewhere, nothing of them is kept by a cache or shown in a frame.

// webPolicy is for pages: their files, their forms and their figures come from here alone.
const webPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// maxForm bounds what a form sends.
const maxForm = 64 << 10

// visit is a call by a person's browser.
type visit struct {
	*call
	room   string // portal or console, whose pages are shown
	locale pages.Locale
	who    string // who is signed in
	back   string // where they came from, on another site
	form   url.Values

	operator ledger.Operator // of the console, who is signed in
}

// web is a route that answers with a page. A POST must come from a page of this very site: a browser says where a form was,
// and one that says another site, or a form that another site made, is refused.
func (s *Server) web(site string, handle func(*visit) error) http.Handler {
	return s.webIn(site, s.rooms.pages, handle)
}

// webIn is web for a page that works in another room than pages do: one that waits for Stripe must keep none from the others.
func (s *Server) webIn(site string, place *room, handle func(*visit) error) http.Handler {
	guard := http.NewCrossOriginProtection()
	return s.open(func(c *call) error {
		v := &visit{call: c, room: site, locale: pages.LocaleOf(c.r.Header.Get("Accept-Language"))}
		if site == "console" { // which has English words alone
			v.locale = v.locale.English()
		}
		h := c.w.Header()
		h.Set("Content-Security-Policy", webPolicy)
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()")
		h.Set("Cache-Control", "no-store")
		if s.secure() {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		err := guard.Check(c.r)
		if err != nil {
			err = &fault{http.StatusForbidden, "permission_error", "state_conflict", "", "this form was not sent from a page of this site"}
		}
		if err == nil {
			err = v.readForm()
		}
		if err == nil {
			err = c.within(place, func(*call) error { return handle(v) })
		}
		if err != nil {
			s.errorPage(v, err)
		}
		return nil
	})
}

// secure reports whether browsers reach this service over TLS, as far as the settings say.
func (s *Server) secure() bool { return strings.HasPrefix(s.PublicURL, "https://") }

// readForm reads a form; a page's query is its own to read.
func (v *visit) readForm() error {
	v.query = v.r.URL.Query()
	if v.r.Method != http.MethodPost {
		return nil
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, maxForm)
	if err := v.r.ParseForm(); err != nil {
		return invalid("", "the form could not be read: send it again")
	}
	v.form = v.r.PostForm
	for name, values := range v.form {
		for _, one := range values {
			if err := text(brief(name), one, 4*maxText); err != nil {
				return err
			}
		}
	}
	return nil
}

// show answers with a page of the visit's room, such as home, or a part of one: home#chart.
func (s *Server) show(v *visit, status int, page string, f pages.Frame) error {
	f.Locale, f.Path, f.Who, f.Back, f.Request = v.locale, v.r.URL.Path, v.who, v.back, v.id
	f.Dev, f.Live = s.Dev, s.Stripe != nil && s.Stripe.Livemode()
	body, err := s.Site.Render(v.room+"/"+page, f)
	if err != nil {
		return err
	}
	v.done = true
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.Header().Set("Content-Language", v.locale.Tag)
	v.w.WriteHeader(status)
	_, _ = v.w.Write(body) // a reader who has gone needs no page
	return nil
}

// told is a refusal in the reader's own language. A customer is shown no other: the API's words are for those who call it.
type told struct{ error }

func (e told) Unwrap() error { return e.error }

// refuse is a refusal with the words of a key.
func (v *visit) refuse(status int, kind, code, key string) error {
	return told{&fault{status, kind, code, "", v.locale.T(key)}}
}

// noPage is what is where no page is.
func (s *Server) noPage(v *visit) error {
	return v.refuse(http.StatusNotFound, "invalid_request_error", "resource_missing", "error.missing")
}

// goTo sends the browser on to a page of ours.
func (v *visit) goTo(path string) error {
	v.done = true
	v.w.Header().Set("Location", path)
	v.w.WriteHeader(http.StatusSeeOther)
	return nil
}

// errorPage says in words what an error is: a refusal's own message, and of what failed on our side that it did.
func (s *Server) errorPage(v *visit, err error) {
	status, body := s.explain(v.call, err)
	if status >= 500 {
		// The route, for an address may be a link that signs its reader in.
		s.complain("page failed", "request", v.id, "route", v.r.Pattern, "status", status, "error", err)
	}
	if v.done {
		return
	}
	said := body.Message
	var own told
	switch {
	case errors.As(err, &own):
	case status == http.StatusTooManyRequests:
		said = v.locale.T("error.busy")
	case status >= 500:
		said = v.locale.T("error.failed")
	case v.room == "console": // operators read what the API says
	case status == http.StatusNotFound:
		said = v.locale.T("error.missing")
	default:
		said = v.locale.T("error.refused")
	}
	if err := s.show(v, status, "error", pages.Frame{Title: v.locale.T("error.title"), Data: said}); err != nil {
		http.Error(v.w, said, status)
	}
}

// setCookie keeps a secret in the browser, out of reach of scripts and of other sites' forms.
func (s *Server) setCookie(v *visit, name, path, value string, life time.Duration) {
	c := &http.Cookie{Name: name, Path: path, Value: value, MaxAge: int(life / time.Second), HttpOnly: true, Secure: s.secure(), SameSite: http.SameSiteLaxMode}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(v.w, c)
}

// getStatic serves what pages load. Its address changes with it, so that a browser keeps it; one that asks for another
// version, of a page from before an update, gets this one and asks again.
func (s *Server) getStatic(c *call) error {
	f, ok := s.Site.Static(c.r.PathValue("name"))
	if !ok {
		return &fault{http.StatusNotFound, "invalid_request_error", "resource_missing", "", "there is no such file"}
	}
	h := c.w.Header()
	h.Set("Content-Type", f.Kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox") // for a logo that is opened by itself
	h.Set("Cache-Control", "no-cache")
	if c.r.PathValue("version") == f.Version {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("ETag", `"`+f.Version+`"`)
	c.done = true
	http.ServeContent(c.w, c.r, "", time.Time{}, bytes.NewReader(f.Content))
	return nil
}
