package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/handlers"
)

// operator is somebody at a browser that follows no redirect by itself.
type operator struct {
	w      *world
	client http.Client
}

func (w *world) operator() *operator {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &operator{w, http.Client{Jar: jar, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// seen is a page that a person sees.
type seen struct {
	status   int
	location string
	header   http.Header
	body     string
}

func (p *operator) send(method, path string, form url.Values, headers ...string) seen {
	p.w.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, p.w.base+path, body)
	if err != nil {
		p.w.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.w.t.Error(err)
		return seen{}
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return seen{resp.StatusCode, resp.Header.Get("Location"), resp.Header, string(b)}
}

func (p *operator) get(path string) seen                   { return p.send("GET", path, nil) }
func (p *operator) post(path string, form url.Values) seen { return p.send("POST", path, form) }

func (p *operator) signIn(key string) *operator {
	p.w.t.Helper()
	if s := p.post("/console/login", url.Values{"name": {"Anna"}, "key": {key}}); s.status != http.StatusSeeOther {
		p.w.t.Fatalf("signed in: %d %s", s.status, s.body)
	}
	return p
}

var hiddenAct = regexp.MustCompile(`name="act" value="(act_[0-9a-z]+)"`)

// previewed fills in an act's form and has it shown what it would do; it answers the form that confirms it.
func (p *operator) previewed(path string, form url.Values) url.Values {
	p.w.t.Helper()
	s := p.get(path)
	if s.status == http.StatusSeeOther { // nothing to fill in
		s = p.get(s.location)
	}
	act := hiddenAct.FindStringSubmatch(s.body)
	if s.status != http.StatusOK || act == nil {
		p.w.t.Fatalf("%s: %d %s", path, s.status, s.body)
	}
	sent := url.Values{"act": {act[1]}, "step": {"preview"}}
	for k, v := range form {
		sent[k] = v
	}
	if len(form) > 0 {
		if s = p.post(path, sent); s.status != http.StatusSeeOther {
			p.w.t.Fatalf("%s: %d %s", path, s.status, s.body)
		}
		if s = p.get(s.location); !strings.Contains(s.body, "What it will do") {
			p.w.t.Fatalf("%s: %d %s", path, s.status, s.body)
		}
	}
	sent.Set("step", "confirm")
	sent.Set("reason", "because")
	return sent
}

// Nobody gets in without a key that may administer, nor by guessing, nor from another site; and a session ends with its key.
func TestConsoleIsClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	walletID, _ := w.customer("acme", "10", "")
	stranger := w.operator()
	for pattern := range w.g.server.ConsoleRoutes() {
		method, path, _ := strings.Cut(pattern, " ")
		if strings.HasPrefix(path, "/console/log") {
			continue
		}
		path = strings.NewReplacer("{id}", walletID, "{customer}", "acme").Replace(path)
		var form url.Values
		if method == "POST" {
			form = url.Values{"amount": {"5"}, "step": {"confirm"}, "reason": {"x"}}
		}
		if s := stranger.send(method, path, form); s.status != http.StatusSeeOther || !strings.HasPrefix(s.location, "/console/login?next=%2Fconsole") || strings.Contains(s.body, "acme") {
			t.Errorf("%s for a stranger: %d %s", pattern, s.status, s.location)
		}
	}
	if s := stranger.send("GET", "/console/live", nil, "HX-Request", "true"); s.status != http.StatusUnauthorized || s.header.Get("HX-Refresh") != "true" {
		t.Errorf("a part of a page: %d %v", s.status, s.header)
	}

	anna := w.operator().signIn(w.key)
	sent := anna.previewed("/console/wallets/"+walletID+"/grant", url.Values{"amount": {"5"}, "kind": {"promotional"}})
	for _, from := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
		if s := anna.send("POST", "/console/wallets/"+walletID+"/grant", sent, from...); s.status != http.StatusForbidden {
			t.Errorf("a form of another site's, %v: %d", from, s.status)
		}
		if s := anna.send("POST", "/console/logout", url.Values{}, from...); s.status != http.StatusForbidden {
			t.Errorf("signed out by another site, %v: %d", from, s.status)
		}
	}
	if got := w.must("GET", "/v1/wallets/"+walletID, nil).str("balance.available"); got != "10" {
		t.Errorf("there is %s", got)
	}
	for next, want := range map[string]string{"/console/audit?x=1": "/console/audit?x=1", "https://evil.example/console": "/console", "//evil.example/console": "/console",
		"/console/../v1": "/console", `/\evil.example`: "/console", "/v1/customers": "/console", "/console/logout": "/console", "javascript:alert(1)": "/console", "/consoled": "/console"} {
		if s := w.operator().post("/console/login", url.Values{"name": {"Anna"}, "key": {w.key}, "next": {next}}); s.location != want {
			t.Errorf("after the door %q leads to %q", next, s.location)
		}
	}
	key, secret, err := w.g.ledger.CreateKey(t.Context(), "leaver", []string{"admin"})
	if err != nil {
		t.Fatal(err)
	}
	bo := w.operator().signIn(secret)
	if s := bo.get("/console/customers/acme"); s.status != http.StatusOK || !strings.Contains(s.header.Get("Content-Security-Policy"), "default-src 'none'") || s.header.Get("Cache-Control") != "no-store" {
		t.Errorf("signed in: %d %v", s.status, s.header)
	}
	if err := w.g.ledger.RevokeKey(t.Context(), key.ID); err != nil {
		t.Fatal(err)
	}
	if s := bo.get("/console/customers/acme"); s.status != http.StatusSeeOther {
		t.Errorf("with a revoked key: %d", s.status)
	}
	w.guess()
}

// guess tries keys, as many as it may and more; the right one opens nevertheless.
func (w *world) guess() {
	w.t.Helper()
	var last seen
	guesses := 0
	for ; last.status != http.StatusTooManyRequests && guesses < 25; guesses++ { // a minute may turn meanwhile
		last = w.operator().post("/console/login", url.Values{"name": {"Eve"}, "key": {"lsk_guess"}})
		if last.status != http.StatusForbidden && last.status != http.StatusTooManyRequests || strings.Contains(last.body, "lsk_guess") {
			w.t.Fatalf("a guess: %d %s", last.status, last.body)
		}
	}
	if guesses <= 10 || last.status != http.StatusTooManyRequests || last.header.Get("Retry-After") == "" || !strings.Contains(last.body, "Too many wrong keys") {
		w.t.Errorf("after %d guesses: %d %s", guesses, last.status, last.body)
	}
	if s := w.operator().post("/console/login", url.Values{"name": {"Anna"}, "key": {w.key}}); s.status != http.StatusSeeOther || len(s.header["Set-Cookie"]) != 1 {
		w.t.Errorf("the right key after too many wrong ones: %d %s", s.status, s.body)
	}
}

// An act is done once: sent by two hands at once, sent again, or sent with something else in it than was shown.
func TestConsoleActsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	walletID, _ := w.customer("acme", "10", "")
	anna := w.operator().signIn(w.key)
	available := func() string { return w.must("GET", "/v1/wallets/"+walletID, nil).str("balance.available") }
	for path, act := range map[string]struct {
		form url.Values
		want string
	}{
		"/console/wallets/" + walletID + "/grant": {url.Values{"amount": {"5"}, "kind": {"promotional"}}, "15"},
	} {
		sent := anna.previewed(path, act.form)
		bare := url.Values{"act": sent["act"], "step": {"confirm"}, "amount": {"500"}, "kind": {"promotional"}, "reason": {"never shown"}}
		if s := anna.post(path, bare); s.status != http.StatusSeeOther || !strings.Contains(s.location, "step=preview") || available() != "10" {
			t.Errorf("what was never shown: %d %s, %s", s.status, s.location, available())
		}
		sent = anna.previewed(path, act.form)
		silent := url.Values{}
		for k, v := range sent {
			silent[k] = v
		}
		silent.Set("reason", "  ")
		if s := anna.post(path, silent); s.status != http.StatusBadRequest || !strings.Contains(s.body, "Say why") || available() != "10" {
			t.Errorf("without a reason: %d", s.status)
		}
		var hands sync.WaitGroup
		for range 6 {
			hands.Go(func() {
				if s := anna.post(path, sent); s.location != "/console/audit/"+sent.Get("act") {
					t.Errorf("%d %s %s", s.status, s.location, s.body)
				}
			})
		}
		hands.Wait()
		if got := available(); got != act.want {
			t.Errorf("%s: there is %s, want %s", path, got, act.want)
		}
	}
	if s := anna.get("/console/audit?customer=acme"); strings.Count(s.body, `href="/console/audit/act_`) != 1 {
		t.Errorf("the trail: %s", s.body)
	}
}

// What a crash leaves between the steps of an act: the database fails at that step, and then the form is sent again.
func TestConsoleActsSurviveFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	walletID, _ := w.customer("acme", "50", "pm_card_visa")
	anna := w.operator().signIn(w.key)
	available := func() string { return w.must("GET", "/v1/wallets/"+walletID, nil).str("balance.available") }
	outcome := func(act string) (string, bool) {
		a, found, err := w.g.ledger.Act(t.Context(), act)
		if err != nil {
			t.Fatal(err)
		}
		return a.Outcome, found
	}
	w.sql(`create function fail() returns trigger language plpgsql as $$ begin raise exception 'pulled the plug'; end $$`)
	debit := func() string {
		return w.must("POST", "/v1/usage", map[string]any{"customer": "acme", "amount": "2"}).str("id")
	}
	first, second, third := debit(), debit(), debit()
	wallet := "/console/wallets/" + walletID
	for _, act := range []struct {
		name, path string
		form       url.Values
		books      string // the table that the act's own transaction writes
		before     string // the trigger's columns
		want       [3]string
	}{
		{"grant", wallet + "/grant", url.Values{"amount": {"1"}, "kind": {"promotional"}}, "grants", "insert", [3]string{"45", "46", "47"}},
		{"take", wallet + "/adjust", url.Values{"way": {"take"}, "amount": {"1"}}, "entries", "insert", [3]string{"46", "45", "44"}},
		{"reverse", "", url.Values{"amount": {""}}, "entries", "insert", [3]string{"46", "48", "50"}},
		{"charge", wallet + "/charge", url.Values{"amount": {"20"}}, "topups", "insert", [3]string{"70", "90", "110"}},
	} {
		for i, fails := range []string{"acts insert", act.books + " " + act.before, "acts update"} {
			path := act.path
			if act.name == "reverse" {
				path = "/console/debits/" + []string{first, second, third}[i] + "/reverse"
			}
			sent := anna.previewed(path, act.form)
			table, event, _ := strings.Cut(fails, " ")
			w.sql(`create trigger plug before ` + event + ` on ` + table + ` for each row execute function fail()`)
			s := anna.post(path, sent)
			w.sql(`drop trigger plug on ` + table)
			if s.status != http.StatusServiceUnavailable {
				t.Errorf("%s, %s fails: %d", act.name, fails, s.status)
			}
			said, found := outcome(sent.Get("act"))
			if found != (i > 0) || said != "" {
				t.Errorf("%s, %s fails: in the trail %v, as %q", act.name, fails, found, said)
			}
			if i > 0 {
				if s := anna.get("/console/audit?unknown=1"); !strings.Contains(s.body, sent.Get("act")) {
					t.Errorf("%s, %s fails: not among the unknown", act.name, fails)
				}
			}
			for range 2 {
				if s := anna.post(path, sent); s.location != "/console/audit/"+sent.Get("act") {
					t.Errorf("%s after %s failed: %d %s", act.name, fails, s.status, s.body)
				}
			}
			if said, _ := outcome(sent.Get("act")); said != "done" {
				t.Errorf("%s after %s failed is %q", act.name, fails, said)
			}
			w.eventually("the balance is right", func() bool { return available() == act.want[i] })
		}
	}
}

// A customer out of step is seen as such, with the transaction that one side lacks; a repair is shown before, and brings
// both in step.
func TestConsoleRepairs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.customer("acme", "20", "")
	_, stripeID := w.customer("other", "7", "")
	w.eventually("both are in step", func() bool {
		return w.must("GET", "/v1/customers/acme/lockstep", nil).str("state") == "in_step" && w.must("GET", "/v1/customers/other/lockstep", nil).str("state") == "in_step"
	})
	w.unheard()
	goodwill, err := w.sim.Operator().AdjustBalance(stripeID, -300, "usd", "goodwill of somebody's")
	if err != nil {
		t.Fatal(err)
	}
	anna := w.operator().signIn(w.key)
	if s := anna.get("/console/customers/acme/lockstep"); !strings.Contains(s.body, "in step</span>") || strings.Contains(s.body, "not booked") || strings.Contains(s.body, "not there") {
		t.Errorf("in step: %d %s", s.status, s.body)
	}
	out := anna.get("/console/customers/other/lockstep")
	if !strings.Contains(out.body, "foreign</span>") || strings.Count(out.body, "not booked") != 1 || !strings.Contains(out.body, goodwill) || !strings.Contains(out.body, "goodwill of somebody") {
		t.Errorf("out of step: %d %s", out.status, out.body)
	}
	w.advance(2 * handlers.DefaultGrace)
	path := "/console/customers/other/repair"
	s := anna.get(path)
	if s = anna.get(s.location); !strings.Contains(s.body, "Foreign transaction: ") || !strings.Contains(s.body, "Repair: ") {
		t.Errorf("the preview: %d %s", s.status, s.body)
	}
	if got := w.must("GET", "/v1/customers/other", nil).str("wallets.0.balance.available"); got != "7" {
		t.Errorf("a preview has booked: %s", got)
	}
	sent := anna.previewed(path, nil)
	if s = anna.post(path, sent); s.status != http.StatusSeeOther {
		t.Fatalf("%d %s", s.status, s.body)
	}
	if s = anna.get(s.location); !strings.Contains(s.body, "repaired: 1.") {
		t.Errorf("repaired: %s", s.body)
	}
	if s = anna.get("/console/customers/other/lockstep"); !strings.Contains(s.body, "in step</span>") || strings.Contains(s.body, "not booked") {
		t.Errorf("after the repair: %s", s.body)
	}
	if got := w.must("GET", "/v1/customers/other", nil).str("wallets.0.balance.available"); got != "10" {
		t.Errorf("there is %s", got)
	}
}
