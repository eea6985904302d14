package handlers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// newPortal is a service with a portal, a customer acme.
func newPortal(t *testing.T) *Server {
	t.Helper()
	s, _, _ := newServer(t)
	site, err := pages.NewSite(pages.Brand{Name: "Example"})
	if err != nil {
		t.Fatal(err)
	}
	s.Site, s.PortalKey = site, linkKey
	return s
}

// visitor is a browser.
type visitor struct {
	t       *testing.T
	s       *Server
	cookies map[string]string
}

func (s *Server) visitor(t *testing.T) *visitor { return &visitor{t, s, map[string]string{}} }

// do sends a request as a browser does, and keeps the cookies that it gets.
func (v *visitor) do(method, path string, form url.Values) *httptest.ResponseRecorder {
	v.t.Helper()
	u, err := url.Parse(path)
	if err != nil {
		v.t.Fatal(err)
	}
	r := httptest.NewRequest(method, u.RequestURI(), strings.NewReader(form.Encode()))
	r.Header.Set("Accept-Language", "en")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for name, value := range v.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	v.s.Handler().ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if v.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(v.cookies, c.Name)
		}
	}
	return w
}

func (v *visitor) get(path string) *httptest.ResponseRecorder { return v.do("GET", path, nil) }

// link has the merchant make a link.
func (s *Server) link(t *testing.T, customer, back string) string {
	t.Helper()
	body, _ := json.Marshal(map[string]any{"customer": customer, "return_url": orNil(back)})
	w := s.ask("POST", "/v1/portal_sessions", string(body))
	var v portalSessionJSON
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != http.StatusCreated || v.Object != "portal_session" {
		t.Fatalf("%d %s %v", w.Code, w.Body, err)
	}
	return v.URL
}

// enter is a browser in which a customer is signed in.
func (s *Server) enter(t *testing.T, customer string) *visitor {
	t.Helper()
	v := s.visitor(t)
	if w := v.get(s.link(t, customer, "")); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/portal" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return v
}

func (v *visitor) refused(what string, w *httptest.ResponseRecorder, says ...string) {
	v.t.Helper()
	if w.Code != http.StatusForbidden && w.Code != http.StatusUnauthorized || len(w.Result().Cookies()) > 0 || strings.Contains(w.Body.String(), "Sign out") {
		v.t.Errorf("%s: %d %v\n%s", what, w.Code, w.Header(), w.Body)
	}
	for _, text := range append(says, "Please open this page again") {
		if !strings.Contains(w.Body.String(), text) {
			v.t.Errorf("%s: it does not say %q:\n%s", what, text, w.Body)
		}
	}
}

const wayBack = `href="https://app.example.com/billing"`

// A link signs a browser in once. The browser that it signed in may come by it again; to any other it is used, and says where
// to get another. So it is to one that is expired, of a customer who was deleted, or of another secret.
func TestLinkOpensOnce(t *testing.T) {
	t.Parallel()
	s := newPortal(t)
	link := s.link(t, "acme", "https://app.example.com/billing")
	first, second := s.visitor(t), s.visitor(t)
	for _, method := range []string{"HEAD"} { // who only looks whether it is there has not followed it
		if w := first.do(method, link, nil); w.Code != http.StatusNoContent || len(first.cookies) > 0 {
			t.Errorf("%s: %d %v", method, w.Code, first.cookies)
		}
	}
	w := first.get(link)
	if w.Code != http.StatusSeeOther || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	c := w.Result().Cookies()[0]
	if c.Name != "lockstep_portal" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure || c.Path != "/portal" {
		t.Errorf("the cookie: %+v", c)
	}
	if w := first.get("/portal"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), wayBack) || !strings.Contains(w.Body.String(), "Sign out") {
		t.Errorf("home: %d %s", w.Code, w.Body)
	}
	second.refused("used", second.get(link), "used already", wayBack)
	if w := first.get(link); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/portal" {
		t.Errorf("its own browser again: %d", w.Code)
	}
	// A session of another link is none of this one, even the same customer's.
	other := s.enter(t, "acme")
	other.refused("used, with another session", other.get(link), "used already")
	// A tampered one does not lead to where it says.
	second.refused("tampered", second.get(link[:len(link)-1]+"x"))
	if w := second.get(link[:len(link)-3]); strings.Contains(w.Body.String(), wayBack) {
		t.Error("a link that was not signed leads somewhere")
	}
	strange := &Server{PortalKey: PortalKey("another"), Ledger: s.Ledger}
	payload, _ := newLink("acme", "", time.Now())
	second.refused("of another secret", second.get("/portal/enter/"+payload+"."+signature(strange.PortalKey, payload)))
	old := newToken("acme", "https://app.example.com/billing", time.Now().Add(-linkLife-time.Second))
	second.refused("expired", second.get("/portal/enter/"+old), "too old", wayBack)
	second.refused("of nobody", second.get("/portal/enter/"+newToken("nobody", "", time.Now())))
	second.refused("without any", second.get("/portal"), "not signed in")

	out := first.do("POST", "/portal/sign_out", nil)
	if out.Code != http.StatusOK || len(first.cookies) > 0 || !strings.Contains(out.Body.String(), wayBack) {
		t.Errorf("sign out: %d %v", out.Code, first.cookies)
	}
	first.cookies[c.Name] = c.Value // kept by a thief
	first.refused("after signing out", first.get("/portal"))
	first.refused("the link after signing out", first.get(link))
}

// Of browsers that follow one link at the same time, one is signed in.
func TestLinkFollowedInParallel(t *testing.T) {
	t.Parallel()
	s := newPortal(t)
	for range 5 {
		link := s.link(t, "acme", "")
		var wg sync.WaitGroup
		var mu sync.Mutex
		in := 0
		for range 12 {
			wg.Go(func() {
				v := s.visitor(t)
				w := v.get(link)
				mu.Lock()
				defer mu.Unlock()
				if w.Code == http.StatusSeeOther {
					in++
				} else if w.Code != http.StatusForbidden || len(v.cookies) > 0 {
					t.Errorf("%d %v", w.Code, v.cookies)
				}
			})
		}
		wg.Wait()
		if in != 1 {
			t.Errorf("%d browsers are signed in by one link", in)
		}
	}
}

// The answer to a repeated call is the first, byte for byte, and works; what is kept of it opens nothing.
func TestLinkIsNotKept(t *testing.T) {
	t.Parallel()
	s := newPortal(t)
	const body = `{"customer":"acme","return_url":"https://app.example.com/billing"}`
	first := s.ask("POST", "/v1/portal_sessions", body, "Idempotency-Key", "one")
	again := s.ask("POST", "/v1/portal_sessions", body, "Idempotency-Key", "one")
	if first.Code != http.StatusCreated || again.Body.String() != first.Body.String() || again.Header().Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s\n%s", first.Body, again.Body)
	}
	var v portalSessionJSON
	if err := json.Unmarshal(again.Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	var kept []string
	if err := s.Ledger.DB().Select(&kept, `select body from answers where key = 'one'`); err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	var stored portalSessionJSON
	if err := json.Unmarshal([]byte(kept[0]), &stored); err != nil || !strings.HasPrefix(stored.URL, v.URL[:len(v.URL)-len(signature(linkKey, ""))-1]) {
		t.Fatalf("%s: %v", kept[0], err)
	}
	_, signed, _ := strings.Cut(v.URL[strings.LastIndexByte(v.URL, '/'):], ".")
	if strings.Contains(kept[0], signed) {
		t.Error("the signature is kept")
	}
	thief := s.visitor(t)
	thief.refused("what is kept", thief.get(stored.URL))
	if w := s.visitor(t).get(v.URL); w.Code != http.StatusSeeOther {
		t.Errorf("the repeated answer's link: %d", w.Code)
	}
	w := s.ask("POST", "/v1/portal_sessions", `{"customer":"acme"}`, "Idempotency-Key", "one")
	if w.Code != http.StatusUnprocessableEntity {
		t.Errorf("another request under the key: %d", w.Code)
	}
	var secrets int
	if err := s.Ledger.DB().Get(&secrets, `select count(*) from portal_sessions where length(secret) <> 32 or length(link) <> 32`); err != nil || secrets > 0 {
		t.Errorf("%d rows have more than hashes, %v", secrets, err)
	}
}

// Where browsers come over TLS, the cookie goes over nothing else and can't come from a neighbour.
func TestPortalCookieOverTLS(t *testing.T) {
	t.Parallel()
	s := newPortal(t)
	s.PublicURL = "https://billing.example.com/"
	link := s.link(t, "acme", "")
	if !strings.HasPrefix(link, "https://billing.example.com/portal/enter/") {
		t.Error(link)
	}
	v := s.visitor(t)
	c := v.get(link).Result().Cookies()[0]
	if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || c.Path != "/" || c.Domain != "" || !c.HttpOnly {
		t.Errorf("%+v", c)
	}
	if w := v.get("/portal"); w.Code != http.StatusOK || w.Header().Get("Strict-Transport-Security") == "" {
		t.Error(w.Code)
	}
	for _, value := range []string{"", ".", "7", "64." + strings.Repeat("A", 26), "-1." + strings.Repeat("A", 26), "7." + strings.Repeat("A", 26), strings.Repeat("9", 5000)} {
		thief := s.visitor(t)
		thief.cookies[c.Name] = value
		thief.refused("a made-up cookie", thief.get("/portal"))
	}
}

// A customer who is frozen may look and sign out, and change nothing; one who was deleted may not look.
func TestPortalOfFrozenAndDeleted(t *testing.T) {
	t.Parallel()
	s := newPortal(t)
	frozen, gone := newTestCustomer(t, s.Ledger, "frozen"), newTestCustomer(t, s.Ledger, "gone")
	v, before := s.enter(t, "frozen"), s.enter(t, "gone")
	link := s.link(t, "gone", "")
	status := "frozen"
	if _, err := s.Ledger.ChangeCustomer(t.Context(), frozen, ledger.CustomerChange{Status: &status}); err != nil {
		t.Fatal(err)
	}
	if err := s.Ledger.CustomerDeleted(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	wallets, err := s.Ledger.Wallets(t.Context(), frozen)
	if err != nil {
		t.Fatal(err)
	}
	if w := v.get("/portal"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "on hold") {
		t.Errorf("frozen: %d %s", w.Code, w.Body)
	}
	if w := v.do("POST", "/portal/refill/"+wallets[0].ID, url.Values{"enabled": {"1"}, "threshold": {"5"}, "fill": {"amount"}, "amount": {"20"}}); w.Code != http.StatusConflict {
		t.Errorf("a rule while frozen: %d", w.Code)
	}
	if w := v.do("POST", "/portal/sign_out", nil); w.Code != http.StatusOK {
		t.Errorf("sign out while frozen: %d", w.Code)
	}
	for _, path := range []string{"/portal/", "/portal/nothing", "/portal/refill/x/y"} {
		if w := before.get(path); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "There is no such page here.") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	before.refused("a session of one who was deleted", before.get("/portal"))
	before.refused("a link of one who was deleted", before.get(link))
	if w := s.ask("POST", "/v1/portal_sessions", `{"customer":"gone"}`); w.Code != http.StatusConflict {
		t.Errorf("a link for one who was deleted: %d", w.Code)
	}
}

// No page of the portal, and none of its forms, reaches another customer's wallet or purchase: every route of the table is
// asked for with them, and with none.
func TestPortalKeepsToItsCustomer(t *testing.T) {
	t.Parallel()
	s := newPortal(t)
	id := "other" // of the same bucket: nothing but whose it is tells them apart
	for n := 0; ledger.BucketOfKey(id) != ledger.BucketOfKey("acme"); n++ {
		id = fmt.Sprint("other", n)
	}
	other := newTestCustomer(t, s.Ledger, id)
	wallets, err := s.Ledger.Wallets(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	top, _, err := s.Ledger.CreateTopup(t.Context(), ledger.TopupInput{Customer: id, Asset: "usd", Amount: ledger.Decimal{Digits: 20},
		MinimumCharge: func(string) int64 { return 50 }}, ledger.Once{})
	if err != nil {
		t.Fatal(err)
	}
	v, owner, nobody := s.enter(t, "acme"), s.enter(t, id), s.visitor(t)
	look := func() (books string) {
		if err := s.Ledger.DB().Get(&books, `select concat((select count(*) from topup_rules), (select string_agg(status || cancel, ',') from topups), (select count(*) from entries))`); err != nil {
			t.Fatal(err)
		}
		return books
	}
	before, asked := look(), 0
	form := url.Values{"nonce": {nonce()}, "amount": {"20"}, "agreed": {"1"}, "how": {"card"}, "threshold": {"5"}, "fill": {"amount"}, "enabled": {"1"}}
	part := regexp.MustCompile(`\{\w+\}`)
	for _, r := range s.portalTable() {
		method, path, _ := strings.Cut(r.pattern, " ")
		theirs := strings.NewReplacer("{wallet}", wallets[0].ID, "{topup}", top.ID).Replace(path)
		if part.MatchString(theirs) {
			t.Fatalf("%s: say here what of another customer's stands in its path", r.pattern)
		}
		if w := nobody.do(method, theirs, form); w.Code != http.StatusUnauthorized {
			t.Errorf("%s without a session: %d", r.pattern, w.Code)
		}
		if theirs == path {
			continue // it has nothing in its path: it is the session's own
		}
		asked++
		for _, id := range []string{theirs, part.ReplaceAllString(path, "nothing"), part.ReplaceAllString(path, "%ff"), strings.NewReplacer("{wallet}", top.ID, "{topup}", wallets[0].ID).Replace(path)} {
			if w := v.do(method, id, form); w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), "other") {
				t.Errorf("%s %s: %d %s", method, id, w.Code, w.Body)
			}
		}
		if method == "GET" && !strings.HasSuffix(path, "/receipt") && !strings.Contains(path, "/refill/") && !strings.Contains(path, "/buy/") { // which ask Stripe
			if w := owner.do(method, theirs, nil); w.Code != http.StatusOK {
				t.Errorf("%s by its owner: %d %s", r.pattern, w.Code, w.Body)
			}
		}
	}
	if after := look(); after != before || asked < 10 {
		t.Errorf("%d routes asked; the books were %s and are %s", asked, before, after)
	}
}

// A form that another site sends is refused, whatever cookie comes with it.
func TestPortalForgedForms(t *testing.T) {
	t.Parallel()
	s := newPortal(t)
	v := s.enter(t, "acme")
	for name, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
		r := httptest.NewRequest("POST", "/portal/sign_out", nil)
		r.Header.Set(name, value)
		for n, c := range v.cookies {
			r.AddCookie(&http.Cookie{Name: n, Value: c})
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusForbidden {
			t.Errorf("%s %s: %d", name, value, w.Code)
		}
	}
	if w := v.get("/portal"); w.Code != http.StatusOK {
		t.Errorf("the session is gone: %d", w.Code)
	}
}

// A text that somebody chose is no formula in the table, and the table is RFC 4180's.
func TestPortalCSV(t *testing.T) {
	t.Parallel()
	s := newPortal(t)
	for i, reason := range []string{"=cmd|' /C calc'!A0", "+1", "-2", "@x", "plain, with \"quotes\"\nand lines", "\ttab"} {
		in := ledger.GrantInput{Customer: "acme", Amount: ledger.Decimal{Digits: int64(i + 1)}, Kind: "promotional", Priority: 50, Reason: reason}
		if _, _, err := s.Ledger.Grant(t.Context(), in, ledger.Once{}); err != nil {
			t.Fatal(err)
		}
	}
	wallets, err := s.Ledger.Wallets(t.Context(), ledger.Ref{Bucket: ledger.BucketOfKey("acme"), ID: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	v := s.enter(t, "acme")
	w := v.get("/portal/activity/" + wallets[0].ID + "/csv?type=grant")
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/csv; charset=utf-8" || !strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment;") {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	body := w.Body.String()
	for _, want := range []string{"time,type,amount,balance,asset,reason,feature,metadata\r\n", "'=cmd|", "'+1", "'-2", "'@x", `"plain, with ""quotes""`, "'\ttab"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	for _, path := range []string{"?type=debit", "?q=nothing+such"} {
		if got := v.get("/portal/activity/" + wallets[0].ID + "/csv" + path).Body.String(); strings.Count(got, "\r\n") != 1 {
			t.Errorf("%s: %s", path, got)
		}
	}
	for _, path := range []string{"?type=x", "?before=x", "?before=-1", "?q=" + strings.Repeat("x", 101)} {
		if got := v.get("/portal/activity/" + wallets[0].ID + path); got.Code != 404 && got.Code != 400 {
			t.Errorf("%s: %d", path, got.Code)
		}
	}
}
