package handlers

import (
	"bytes"
	"encoding/csv"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// Over TLS the console's cookie is one that no neighbour under the same domain can put there, and it signs in and out.
func TestConsoleCookieOverTLS(t *testing.T) {
	t.Parallel()
	s, _, _ := newServer(t)
	site, err := pages.NewSite(pages.Brand{Name: "Acme"})
	must(t, err)
	s.Site, s.PublicURL = site, "https://billing.example.com"
	o := &operator{t: t, s: s, h: s.Handler()}
	c := o.post("/console/login", url.Values{"name": {"Ann"}, "key": {testKey}}, http.StatusSeeOther).Result().Cookies()[0]
	if c.Name != "__Host-lockstep_console" || c.Path != "/" || !c.Secure || !c.HttpOnly || c.Domain != "" || c.SameSite != http.SameSiteLaxMode {
		t.Errorf("the cookie: %+v", c)
	}
	planted := *c
	planted.Name = "lockstep_console" // as a neighbour can
	o.cookie = &planted
	o.call(httptest.NewRequest("GET", "/console/audit", nil), http.StatusSeeOther)
	o.cookie = c
	has(t, "signed in", o.get("/console/audit"), "Audit trail")
	out := o.post("/console/logout", nil, http.StatusSeeOther).Result().Cookies()[0]
	if out.Name != c.Name || out.Path != "/" || out.MaxAge >= 0 || !out.Secure {
		t.Errorf("signed out: %+v", out)
	}
	o.call(httptest.NewRequest("GET", "/console/audit", nil), http.StatusSeeOther)
}

// An address of the console where nothing is, is a page that says so, for those who are signed in.
func TestNowhereAtTheConsole(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	for _, path := range []string{"/console/nowhere", "/console/wallets/wal_1/nowhere", "/console/"} {
		w := o.call(httptest.NewRequest("GET", path, nil), http.StatusNotFound)
		if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") || !strings.Contains(w.Body.String(), `href="/console/customers"`) {
			t.Errorf("%s: %v %s", path, w.Header(), w.Body)
		}
	}
	o.cookie = nil
	o.call(httptest.NewRequest("GET", "/console/nowhere", nil), http.StatusSeeOther)
}

// What somebody else chose, a customer's id or the reason of a call, is no formula in the file of entries; numbers stay such.
func TestEntriesAreNoFormulas(t *testing.T) {
	t.Parallel()
	o := atConsole(t)
	for _, id := range []string{"-2+3", "@acme"} {
		newTestCustomer(t, o.s.Ledger, id)
		_, _, err := o.s.Ledger.Grant(t.Context(), ledger.GrantInput{Customer: id, Amount: decimalOf(t, "9"), Reason: "=cmd|' /C calc'!A0"}, ledger.Once{})
		must(t, err)
		_, _, err = o.s.Ledger.Debit(t.Context(), ledger.DebitInput{Customer: id, Amount: decimalOf(t, "1.5"), Reason: "+1", Once: ledger.Once{Key: "\t=1" + id, Request: -7}})
		must(t, err)
	}
	lines, err := csv.NewReader(strings.NewReader(o.get("/console/books/entries.csv"))).ReadAll()
	must(t, err)
	for column, want := range map[string]string{"customer": "'@acme", "reason": "'+1", "amount": "-1.5", "key": "'\t=1@acme", "request": "-7"} {
		at := slices.Index(ExportColumns, column)
		if last := lines[len(lines)-1]; last[0] != "'@acme" && last[0] != "'-2+3" {
			t.Errorf("the last line: %q", last)
		}
		if !slices.ContainsFunc(lines, func(l []string) bool { return l[at] == want }) {
			t.Errorf("no %s is %q: %q", column, want, lines)
		}
	}
	for _, line := range lines[1:] {
		for i, cell := range line {
			if cell != "" && strings.Contains("=+-@\t\r", cell[:1]) && !slices.Contains(exportNumbers, ExportColumns[i]) {
				t.Errorf("%s is %q", ExportColumns[i], cell)
			}
		}
	}
}

// A link that signs its reader in is in no log, whatever fails.
func TestLinksAreNotLogged(t *testing.T) {
	t.Parallel()
	s := newPortal(t)
	var said bytes.Buffer
	s.Log = slog.New(slog.NewTextHandler(&said, nil))
	link, err := url.Parse(s.link(t, "acme", ""))
	must(t, err)
	_, err = s.Ledger.DB().Exec(`alter table portal_sessions rename to gone`)
	must(t, err)
	w := s.visitor(t).get(link.Path)
	_, err = s.Ledger.DB().Exec(`alter table gone rename to portal_sessions`)
	must(t, err)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(said.String(), "page failed") || !strings.Contains(said.String(), "/portal/enter/{token}") {
		t.Fatalf("%d %s", w.Code, said.String())
	}
	if token := link.Path[strings.LastIndexByte(link.Path, '/')+1:]; len(token) < 20 || strings.Contains(said.String(), token) {
		t.Errorf("the log has the link: %s", said.String())
	}
}
