package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/ledger"
	"lockstep/ledger/ledgertest"
	"lockstep/stripeutil/stripesim"
	"lockstep/stripeutil/stripesim/referee"
)

// A patient is a service that is not running: its settings, its database and its Stripe account, all in order until a
// test spoils one of them.
type patient struct {
	t     *testing.T
	sim   *stripesim.Sim
	env   map[string]string
	clock testClock // Stripe's
}

// secretsOf are the settings that nobody may ever read in an answer.
var secretsOf = []string{"STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "LOCKSTEP_API_KEY", "PORTAL_SECRET"}

const patientURL = "https://billing.example.com"

func newPatient(t *testing.T, key string) *patient {
	t.Helper()
	p := &patient{t: t}
	sim, err := stripesim.New(stripesim.Options{SecretKey: key, Now: p.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(referee.New(t).Wrap(sim))
	t.Cleanup(func() { srv.Close(); sim.Close() })
	p.sim = sim
	p.env = map[string]string{"DATABASE_URL": ledgertest.URL(t), "STRIPE_SECRET_KEY": key, "STRIPE_WEBHOOK_SECRET": "whsec_of_the_patient",
		"STRIPE_API_BASE": srv.URL, "LOCKSTEP_API_KEY": "lsk_of_the_patient", "PORTAL_SECRET": "portal_of_the_patient", "PUBLIC_URL": patientURL,
		"STRIPE_REQUESTS_PER_SECOND": "1000", "DEFAULT_ASSET": "usd"}
	return p
}

// healthy also has the endpoint.
func healthy(t *testing.T) *patient {
	t.Helper()
	p := newPatient(t, "sk_test_ofThePatient")
	p.endpoint(func(*stripesim.Endpoint) {})
	return p
}

func (p *patient) endpoint(change func(*stripesim.Endpoint)) string {
	e := stripesim.Endpoint{URL: patientURL + webhookPath, EnabledEvents: eventTypes(), APIVersion: stripesim.APIVersion}
	change(&e)
	return p.sim.AddEndpoint(e)
}

// run runs a command with the patient's settings and looks for secrets in what it says.
func (p *patient) run(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	for name, value := range p.env {
		p.t.Setenv(name, value)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out, err bytes.Buffer
	code = run(ctx, args, &out, &err)
	for _, name := range secretsOf {
		if secret := p.env[name]; secret != "" && strings.Contains(out.String()+err.String(), secret) {
			p.t.Errorf("%s is in the answer of lockstep %v", name, args)
		}
	}
	return out.String(), err.String(), code
}

// examined are doctor's findings, as JSON has them; they agree with the exit code and with the text.
func (p *patient) examined() []finding {
	p.t.Helper()
	var report struct {
		OK     bool
		Checks []finding
	}
	out, errs, code := p.run("doctor", "-json")
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		p.t.Fatalf("%v: %s%s", err, out, errs)
	}
	problems := false
	for _, f := range report.Checks {
		problems = problems || f.Status == problem
		if (f.Mend == "") != (f.Status == fine) || f.Message == "" {
			p.t.Errorf("what is not ok says how to mend it: %+v", f)
		}
	}
	if report.OK == problems || code == 0 == problems {
		p.t.Errorf("exit %d, ok %t: %s", code, report.OK, out)
	}
	return report.Checks
}

// has fails the test unless the findings have one of the check with this status and these words, and nothing else is
// wrong but what is named in also.
func (p *patient) has(status, check, words string, also ...string) {
	p.t.Helper()
	all := p.examined()
	found := false
	for _, f := range all {
		switch {
		case f.Check == check && f.Status == status && strings.Contains(f.Message, words):
			found = true
		case f.Status != fine && f.Check != check && !slices.Contains(also, f.Check):
			p.t.Errorf("this too: %+v", f)
		}
	}
	if !found {
		p.t.Errorf("no %s of %q with %q in %+v", status, check, words, all)
	}
}

func TestDoctorFindsNothing(t *testing.T) {
	p := healthy(t)
	for _, f := range p.examined() {
		if f.Status != fine {
			t.Errorf("%+v", f)
		}
	}
	out, _, code := p.run("doctor")
	for _, words := range []string{"sk_test_… is accepted", "test mode", "webhook endpoint", "PostgreSQL", "up to date", "usd is known"} {
		if code != 0 || !strings.Contains(out, words) || strings.Contains(out, "→") {
			t.Errorf("exit %d, no %q in\n%s", code, words, out)
		}
	}
	if n := len(p.sim.Events()); n != 0 {
		t.Errorf("looking made %d events in Stripe", n)
	}
	for _, r := range p.sim.Requests() {
		if r.Method != "GET" {
			t.Errorf("doctor sent %s %s", r.Method, r.Path)
		}
	}
	if _, _, code := p.run("doctor", "what"); code != 2 {
		t.Errorf("an argument: exit %d", code)
	}
}

func TestDoctorOfSettings(t *testing.T) {
	for name, c := range map[string]struct {
		variable, value, status, check, words string
		also                                  []string
	}{
		"log level":     {"LOG_FORMAT", "xml", problem, "settings", "LOG_FORMAT", nil},
		"no duration":   {"MIRROR_INTERVAL", "12", problem, "settings", "MIRROR_INTERVAL", nil},
		"dev's key":     {"LOCKSTEP_API_KEY", devKey, problem, "settings", "dev's", nil},
		"no public URL": {"PUBLIC_URL", "", warning, "settings", "PUBLIC_URL", nil},
		"http URL":      {"PUBLIC_URL", "http://billing.example.com", problem, "webhook endpoint", "https", nil},
		"no secret":     {"STRIPE_WEBHOOK_SECRET", "", problem, "webhook secret", "missing", nil},
		"wrong secret":  {"STRIPE_WEBHOOK_SECRET", "sk_test_123456789", problem, "webhook secret", "whsec_", nil},
		"no key":        {"STRIPE_SECRET_KEY", "", problem, "stripe key", "missing", nil},
		"publishable":   {"STRIPE_SECRET_KEY", "pk_test_ofThePatient", problem, "stripe key", "publishable", nil},
		"crooked key":   {"STRIPE_SECRET_KEY", "ofThePatient", problem, "stripe key", "does not look like", nil},
		"refused key":   {"STRIPE_SECRET_KEY", "sk_test_ofSomebodyElse", problem, "stripe key", "does not accept", nil},
		"Stripe away":   {"STRIPE_API_BASE", "http://127.0.0.1:9", problem, "stripe key", "can't be reached", nil},
		"no database":   {"DATABASE_URL", "", warning, "database", "embedded", nil},
		"another kind":  {"DATABASE_URL", "mysql://u:aLongPassword@h/d", problem, "settings", "postgres://", nil},
		"database away": {"DATABASE_URL", "postgres://u:aLongPassword@127.0.0.1:9/d?sslmode=disable", problem, "database", "can't be reached", nil},
		"in the clear":  {"DATABASE_URL", "postgres://u:aLongPassword@192.0.2.1:9/d?sslmode=disable", warning, "database tls", "clear", []string{"database"}},
		"not verified":  {"DATABASE_URL", "postgres://u:aLongPassword@192.0.2.1:9/d", warning, "database tls", "require", []string{"database"}},
		"crooked URL":   {"DATABASE_URL", "postgres://u:aLongPassword@h:port/d", problem, "settings", "DATABASE_URL", nil},
		"empty":         {"DATABASE_URL", ledgertest.Empty(t), problem, "schema", "migrations", nil},
		"mixed up":      {"DEFAULT_ASSET", "lsk_of_the_patient", problem, "default asset", "no asset", nil},
		"asset":         {"DEFAULT_ASSET", "doubloons", problem, "default asset", "doubloons", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := healthy(t)
			p.env[c.variable] = c.value
			if c.variable == "PUBLIC_URL" && c.value == "" {
				p.endpoint(func(e *stripesim.Endpoint) { e.URL = "https://elsewhere.example.com" })
			}
			p.has(c.status, c.check, c.words, c.also...)
			if out, errs, _ := p.run("doctor"); strings.Contains(out+errs, "aLongPassword") {
				t.Errorf("a password is shown:\n%s%s", out, errs)
			}
		})
	}
}

func TestDoctorOfStripe(t *testing.T) {
	for name, c := range map[string]struct {
		spoil                func(p *patient)
		status, check, words string
		also                 []string
	}{
		"no endpoint":      {func(p *patient) { p.sim.SetEndpoint(stripesim.Endpoint{URL: "https://other.example.com"}) }, problem, "webhook endpoint", "none of the account's 1", nil},
		"another version":  {func(p *patient) { p.spoil(func(e *stripesim.Endpoint) { e.APIVersion = "2022-11-15" }) }, problem, "webhook endpoint", "2022-11-15", nil},
		"account's own":    {func(p *patient) { p.spoil(func(e *stripesim.Endpoint) { e.APIVersion = "" }) }, problem, "webhook endpoint", "the account's API version", nil},
		"disabled":         {func(p *patient) { p.spoil(func(e *stripesim.Endpoint) { e.Disabled = true }) }, problem, "webhook endpoint", "is disabled", nil},
		"a missing type":   {func(p *patient) { p.spoil(func(e *stripesim.Endpoint) { e.EnabledEvents = e.EnabledEvents[1:] }) }, problem, "webhook endpoint", "does not send " + eventTypes()[0], nil},
		"all types":        {func(p *patient) { p.spoil(func(e *stripesim.Endpoint) { e.EnabledEvents = []string{"*"} }) }, fine, "webhook endpoint", "sends", nil},
		"two":              {func(p *patient) { p.endpoint(func(*stripesim.Endpoint) {}) }, warning, "webhook endpoint", "same URL", nil},
		"a bad one beside": {func(p *patient) { p.endpoint(func(e *stripesim.Endpoint) { e.APIVersion = "" }) }, warning, "webhook endpoint", "same URL", nil},
		"no portal":        {func(p *patient) { _ = p.sim.Operator().SavePortal(false) }, warning, "billing portal", "never been saved", nil},
		"a minute ahead":   {func(p *patient) { p.clock.add(90 * time.Second) }, warning, "clock", "behind Stripe's", nil},
		"far ahead":        {func(p *patient) { p.clock.add(5 * time.Minute) }, problem, "clock", "behind Stripe's", nil},
		"a minute behind":  {func(p *patient) { p.clock.add(-90 * time.Second) }, warning, "clock", "ahead of Stripe's", nil},
		"far behind":       {func(p *patient) { p.clock.add(-5 * time.Minute) }, problem, "clock", "ahead of Stripe's", nil},
		"seconds":          {func(p *patient) { p.clock.add(20 * time.Second) }, fine, "clock", "within", nil},
		"no refunds":       {func(p *patient) { p.forbid("/v1/refunds") }, problem, "stripe rights", "Refunds (rak_refund_read)", nil},
		"no customers":     {func(p *patient) { p.forbid("/v1/customers") }, problem, "stripe rights", "Customers", nil},
		"no endpoints":     {func(p *patient) { p.forbid("/v1/webhook_endpoints") }, warning, "stripe rights", "Webhook Endpoints", []string{"webhook endpoint"}},
		"no portal right":  {func(p *patient) { p.forbid("/v1/billing_portal/configurations") }, problem, "stripe rights", "Customer portal", []string{"billing portal"}},
		"out of order": {func(p *patient) {
			p.sim.Inject(stripesim.Fault{Method: "GET", Kind: stripesim.Unavailable, ShouldRetry: "false", Times: -1})
		}, problem, "stripe key", "does not answer", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := healthy(t)
			c.spoil(p)
			p.has(c.status, c.check, c.words, c.also...)
		})
	}
}

// spoil has the account's only endpoint be another.
func (p *patient) spoil(change func(*stripesim.Endpoint)) {
	e := stripesim.Endpoint{URL: patientURL + webhookPath, EnabledEvents: eventTypes(), APIVersion: stripesim.APIVersion}
	change(&e)
	p.sim.SetEndpoint(e)
}

func (p *patient) forbid(path string) {
	p.sim.Inject(stripesim.Fault{Method: "GET", Path: path, Kind: stripesim.Forbidden, Times: -1})
}

// A restricted key is told all that it needs, since what it may write can't be seen; one that lacks a right is named.
func TestDoctorOfARestrictedKey(t *testing.T) {
	p := newPatient(t, "rk_test_ofThePatient")
	p.endpoint(func(*stripesim.Endpoint) {})
	p.has(fine, "stripe rights", "Customers: Write")
	p.forbid("/v1/disputes")
	p.forbid("/v1/events")
	p.has(problem, "stripe rights", "Events (rak_event_read), Disputes (rak_dispute_read)")

	live := newPatient(t, "sk_live_ofThePatient")
	live.endpoint(func(*stripesim.Endpoint) {})
	live.has(fine, "stripe key", "live mode: charges are real")
}

// A database that lacks what a gateway needs, though it answers.
func TestDoctorOfTheDatabase(t *testing.T) {
	p := healthy(t)
	key := p.env["LOCKSTEP_API_KEY"]
	p.env["LOCKSTEP_API_KEY"] = ""
	p.has(problem, "api keys", "none")
	p.env["LOCKSTEP_API_KEY"] = key
	p.has(fine, "api keys", "the only one")
	if _, _, code := p.run("keys", "create"); code != 0 {
		t.Fatal(code)
	}
	p.env["LOCKSTEP_API_KEY"] = ""
	p.has(fine, "api keys", "1 valid")

	db, err := ledger.Connect(t.Context(), p.env["DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`insert into goose_db_version (version_id, is_applied) values (99999, true)`); err != nil {
		t.Fatal(err)
	}
	p.has(warning, "schema", "a newer build has applied 1")
	if _, err := db.Exec(`delete from goose_db_version where version_id = (select max(version_id) from goose_db_version where version_id < 99999)`); err != nil {
		t.Fatal(err)
	}
	p.has(problem, "schema", "1 migrations")
	p.env["DATABASE_URL"] += "&default_transaction_read_only=on"
	p.has(problem, "database", "only reads", "schema")
}

// What came from elsewhere, such as a driver's error, is shown without the secrets in it.
func TestHide(t *testing.T) {
	c := config{DatabaseURL: "postgres://lockstep:p%40ss-word@db:5432/x", StripeSecretKey: "sk_test_aSecret", APIKey: "lsk_aSecret", StripeWebhookSecret: []string{"whsec_1", "whsec_22"}}
	in := "dial postgres://lockstep:p%40ss-word@db:5432/x: p@ss-word of lockstep, lockstep:p%40ss-word@db, sk_test_aSecret, lsk_aSecret, whsec_22"
	if got := c.hide(in); got != "dial …: … of lockstep, …@db, …, …, …" {
		t.Errorf("%s", got)
	}
}
