package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"lockstep/stripeutil"
	"lockstep/stripeutil/stripesim"
)

// endpoints are what the account has, as its API says.
func (p *patient) endpoints() []stripeutil.WebhookEndpoint {
	p.t.Helper()
	c, err := stripeutil.New(stripeutil.Config{SecretKey: p.env["STRIPE_SECRET_KEY"], APIBase: p.env["STRIPE_API_BASE"], RequestsPerSecond: 1000})
	if err != nil {
		p.t.Fatal(err)
	}
	all, err := c.WebhookEndpoints(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return all
}

// writes counts what the account was asked to change.
func (p *patient) writes() (n int) {
	for _, r := range p.sim.Requests() {
		if r.Method != "GET" {
			n++
		}
	}
	return n
}

// setsUp runs setup, which must succeed, and answers what it says.
func (p *patient) setsUp(args ...string) string {
	p.t.Helper()
	out, errs, code := p.run(append([]string{"stripe", "setup"}, args...)...)
	if code != 0 {
		p.t.Fatalf("stripe setup %v: exit %d, %s%s", args, code, out, errs)
	}
	return out
}

func TestSetupRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		key, public, url string
		code             int
		words            string
	}{
		"plain http":        {"sk_test_ofThePatient", "", "http://billing.example.com", 1, "plain http"},
		"plain http live":   {"sk_live_ofThePatient", "", "http://127.0.0.1:8080", 1, "plain http"},
		"no URL":            {"sk_test_ofThePatient", "", "", 1, "PUBLIC_URL"},
		"not a URL":         {"sk_test_ofThePatient", "", "billing.example.com", 1, "https://"},
		"another scheme":    {"sk_test_ofThePatient", "", "ftp://billing.example.com", 1, "https://"},
		"a password":        {"sk_test_ofThePatient", "", "https://u:p@billing.example.com", 1, "no user"},
		"a query":           {"sk_test_ofThePatient", "", "https://billing.example.com?a=b", 1, "no user, query"},
		"PUBLIC_URL is bad": {"sk_live_ofThePatient", "http://billing.example.com", "", 1, "plain http"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, c.key)
			p.env["PUBLIC_URL"] = c.public
			args := []string{"stripe", "setup"}
			if c.url != "" {
				args = append(args, "-url", c.url)
			}
			if _, errs, code := p.run(args...); code != c.code || !strings.Contains(errs, c.words) || len(p.sim.Requests()) > 0 {
				t.Errorf("exit %d: %s", code, errs)
			}
		})
	}
	p := newPatient(t, "sk_test_ofThePatient")
	for _, args := range [][]string{{"stripe"}, {"stripe", "undo"}, {"stripe", "setup", "now"}, {"stripe", "setup", "-force"}} {
		if _, _, code := p.run(args...); code != 2 {
			t.Errorf("%v: exit %d", args, code)
		}
	}
	p.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/webhook_endpoints", Kind: stripesim.Forbidden})
	if _, errs, code := p.run("stripe", "setup"); code != 1 || !strings.Contains(errs, "Webhook Endpoints: Write") {
		t.Errorf("without the right: exit %d, %s", code, errs)
	}
	p.env["STRIPE_SECRET_KEY"] = ""
	if _, errs, code := p.run("stripe", "setup"); code != 1 || !strings.Contains(errs, "STRIPE_SECRET_KEY") {
		t.Errorf("without a key: exit %d, %s", code, errs)
	}
}

// From nothing, setup makes the endpoint that doctor asks for and shows its secret once; again, it changes nothing.
func TestSetupFromNothing(t *testing.T) {
	p := newPatient(t, "sk_test_ofThePatient")
	if out := p.setsUp("-dry-run"); !strings.Contains(out, "Would make") || p.writes() != 0 || len(p.endpoints()) != 0 {
		t.Errorf("a dry run: %d writes, %s", p.writes(), out)
	}
	out := p.setsUp()
	all := p.endpoints()
	if len(all) != 1 || all[0].URL != patientURL+webhookPath || all[0].APIVersion != "2023-10-16" || !all[0].Enabled || !slices.Equal(slices.Sorted(slices.Values(all[0].EventTypes)), eventTypes()) {
		t.Fatalf("%+v", all)
	}
	secret := regexp.MustCompile(`whsec_\w+`).FindString(out)
	if !slices.Equal(p.sim.EndpointSecrets(all[0].ID), []string{secret}) || strings.Count(out, secret) != 1 {
		t.Errorf("the secret is not in\n%s", out)
	}
	p.env["STRIPE_WEBHOOK_SECRET"] = secret
	p.has(fine, "webhook endpoint", all[0].ID)
	before := p.writes()
	for _, url := range []string{"", patientURL, patientURL + "/", patientURL + webhookPath} {
		args := []string{}
		if url != "" {
			args = []string{"-url", url}
		}
		if out := p.setsUp(args...); !strings.Contains(out, "Nothing was changed") || strings.Contains(out, "whsec_") || p.writes() != before {
			t.Errorf("again with %q: %s", url, out)
		}
	}
	// Another service of the account, and one on this machine in test mode, have endpoints of their own.
	p.setsUp("-url", "http://127.0.0.1:8080")
	if n := len(p.endpoints()); n != 2 {
		t.Errorf("%d endpoints", n)
	}
}

// What is missing is added, what is too much goes, and a disabled endpoint is enabled; its secret stays.
func TestSetupMends(t *testing.T) {
	for name, change := range map[string]func(*stripesim.Endpoint){
		"missing types": func(e *stripesim.Endpoint) { e.EnabledEvents = e.EnabledEvents[2:] },
		"more types":    func(e *stripesim.Endpoint) { e.EnabledEvents = append(e.EnabledEvents, "payout.paid") },
		"all types":     func(e *stripesim.Endpoint) { e.EnabledEvents = []string{"*"} },
		"disabled":      func(e *stripesim.Endpoint) { e.Disabled = true },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, "sk_test_ofThePatient")
			id := p.endpoint(change)
			secrets := p.sim.EndpointSecrets(id)
			before := p.endpoints()[0]
			if out := p.setsUp("-dry-run"); !strings.Contains(out, "Would change") || p.writes() != 0 {
				t.Errorf("a dry run: %d writes, %s", p.writes(), out)
			}
			if after := p.endpoints()[0]; after.Enabled != before.Enabled || !slices.Equal(after.EventTypes, before.EventTypes) {
				t.Errorf("a dry run changed %+v to %+v", before, after)
			}
			if out := p.setsUp(); !strings.Contains(out, "Changed "+id) || strings.Contains(out, "whsec_") {
				t.Errorf("%s", out)
			}
			all := p.endpoints()
			if len(all) != 1 || !all[0].Enabled || !slices.Equal(slices.Sorted(slices.Values(all[0].EventTypes)), eventTypes()) || !slices.Equal(p.sim.EndpointSecrets(id), secrets) {
				t.Errorf("%+v", all)
			}
			p.has(fine, "webhook endpoint", id)
			if out := p.setsUp(); !strings.Contains(out, "Nothing was changed") || p.writes() != 1 {
				t.Errorf("again: %d writes, %s", p.writes(), out)
			}
		})
	}
}

// An endpoint of another API version stays as it is, since Stripe can't change it; the right one is made beside it.
func TestSetupBesideAnotherVersion(t *testing.T) {
	for name, version := range map[string]string{"older": "2022-11-15", "the account's": ""} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, "sk_test_ofThePatient")
			old := p.endpoint(func(e *stripesim.Endpoint) { e.APIVersion = version })
			if out := p.setsUp("-dry-run"); !strings.Contains(out, "can't change") || !strings.Contains(out, "Would make") || p.writes() != 0 {
				t.Errorf("a dry run: %d writes, %s", p.writes(), out)
			}
			if out := p.setsUp(); !strings.Contains(out, "can't change") || !strings.Contains(out, "Delete "+old) || !strings.Contains(out, "whsec_") {
				t.Errorf("%s", out)
			}
			if all := p.endpoints(); len(all) != 2 || all[1].ID != old || all[1].APIVersion != version || all[0].APIVersion != "2023-10-16" {
				t.Errorf("%+v", all)
			}
			p.has(warning, "webhook endpoint", old)
			if out := p.setsUp(); !strings.Contains(out, "Nothing was changed") || !strings.Contains(out, "Delete "+old) || p.writes() != 1 {
				t.Errorf("again: %d writes, %s", p.writes(), out)
			}
		})
	}
}

// An answer that is lost on the way back leaves one endpoint, and is told apart from nothing done.
func TestSetupWithoutAnAnswer(t *testing.T) {
	p := newPatient(t, "sk_test_ofThePatient")
	p.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/webhook_endpoints", Kind: stripesim.DropAfter})
	if out := p.setsUp(); !strings.Contains(out, "whsec_") || len(p.endpoints()) != 1 {
		t.Errorf("%d endpoints, %s", len(p.endpoints()), out)
	}
	p = newPatient(t, "sk_test_ofThePatient")
	p.sim.Inject(stripesim.Fault{Method: "POST", Path: "/v1/webhook_endpoints", Kind: stripesim.Error500After, Times: -1})
	if _, errs, code := p.run("stripe", "setup"); code != 1 || !strings.Contains(errs, "run it again") {
		t.Errorf("exit %d, %s", code, errs)
	}
	if out := p.setsUp(); !strings.Contains(out, "Nothing was changed") || len(p.endpoints()) != 1 {
		t.Errorf("%d endpoints, %s", len(p.endpoints()), out)
	}
}
