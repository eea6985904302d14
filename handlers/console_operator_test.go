package handlers

import (
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"lockstep/handlers/pages"
)

// operator is a person at the console, as their browser calls it.
type operator struct {
	t      *testing.T
	s      *Server
	h      http.Handler
	cookie *http.Cookie
}

// atConsole signs a person in at a console on a ledger of its own.
func atConsole(t *testing.T) *operator {
	t.Helper()
	s, _, _ := newServer(t)
	site, err := pages.NewSite(pages.Brand{Name: "Acme"})
	if err != nil {
		t.Fatal(err)
	}
	s.Site = site
	o := &operator{t: t, s: s, h: s.Handler()}
	w := o.post("/console/login", url.Values{"name": {"Ann"}, "key": {testKey}}, http.StatusSeeOther)
	o.cookie = w.Result().Cookies()[0]
	return o
}

func (o *operator) call(r *http.Request, want int) *httptest.ResponseRecorder {
	o.t.Helper()
	if o.cookie != nil {
		r.AddCookie(o.cookie)
	}
	w := httptest.NewRecorder()
	o.h.ServeHTTP(w, r)
	if w.Code != want {
		_, content, _ := strings.Cut(w.Body.String(), "<main")
		o.t.Fatalf("%s %.200s: %d, want %d: %s", r.Method, r.URL, w.Code, want, content)
	}
	return w
}

func (o *operator) get(path string) string {
	o.t.Helper()
	return o.call(httptest.NewRequest("GET", path, nil), http.StatusOK).Body.String()
}

func (o *operator) post(path string, form url.Values, want int) *httptest.ResponseRecorder {
	o.t.Helper()
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return o.call(r, want)
}

var actField = regexp.MustCompile(`name="act" value="(act_[^"]+)"`)

// follow answers the page that a request leads to, over at most one redirect.
func (o *operator) follow(r *http.Request, want int) string {
	o.t.Helper()
	if o.cookie != nil {
		r.AddCookie(o.cookie)
	}
	w := httptest.NewRecorder()
	o.h.ServeHTTP(w, r)
	if w.Code == http.StatusSeeOther {
		return o.call(httptest.NewRequest("GET", w.Header().Get("Location"), nil), want).Body.String()
	}
	if w.Code != want {
		o.t.Fatalf("%s %.200s: %d, want %d: %s", r.Method, r.URL, w.Code, want, w.Body)
	}
	return w.Body.String()
}

// preview fills in the form of an act and answers what it would do, and the form to confirm it with.
func (o *operator) preview(path string, form url.Values, want int) (string, url.Values) {
	o.t.Helper()
	confirm := url.Values{}
	for name, values := range form {
		confirm[name] = values
	}
	opened := http.StatusOK
	if len(form) == 0 {
		opened = want
	}
	page := o.follow(httptest.NewRequest("GET", path, nil), opened)
	m := actField.FindStringSubmatch(page)
	if m != nil {
		confirm.Set("act", m[1])
	}
	if len(form) > 0 {
		confirm.Set("step", "preview")
		r := httptest.NewRequest("POST", path, strings.NewReader(confirm.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		page = o.follow(r, want)
	}
	for name, values := range confirm { // as the preview's form has them
		confirm[name] = []string{strings.Join(values, ",")}
	}
	confirm.Set("step", "confirm")
	confirm.Set("reason", "a test")
	return page, confirm
}

// act does an act and answers the page that it leads to.
func (o *operator) act(path string, form url.Values) string {
	o.t.Helper()
	_, confirm := o.preview(path, form, http.StatusOK)
	w := o.post(path, confirm, http.StatusSeeOther)
	return o.get(w.Header().Get("Location"))
}

func has(t *testing.T, what, page string, wants ...string) {
	t.Helper()
	if _, content, ok := strings.Cut(page, "<main"); ok {
		page = content
	}
	for _, want := range wants {
		if !strings.Contains(html.UnescapeString(page), want) {
			t.Errorf("%s does not say %q: %s", what, want, page)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
