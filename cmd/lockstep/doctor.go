package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// How a check of doctor's ended.
const (
	fine    = "ok"
	warning = "warning" // works, but somebody should know
	problem = "problem" // the gateway does not work, or not with money
)

// finding is one check's outcome and, where it is not ok, how to mend it.
type finding struct {
	Check   string `json:"check"`
	Status  string `json:"status"`
	Message string `json:"message"`
	Mend    string `json:"mend,omitempty"`
}

// examination gathers what doctor finds. It only reads: in Stripe, in the database and in the settings.
type examination struct {
	cfg      config
	findings []finding
}

// doctor looks at everything that a gateway depends on before one trusts it with money, and says how to mend what is
// not right.
func doctor(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flags("doctor", stderr)
	asJSON := f.Bool("json", false, "answer as JSON")
	if err := parse(f, args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		f.Usage()
		return errUsage
	}
	cfg, err := loadConfig()
	e := examination{cfg: cfg}
	e.settings(err)
	e.stripe(ctx)
	e.database(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for i := range e.findings {
		e.findings[i].Message, e.findings[i].Mend = cfg.hide(e.findings[i].Message), cfg.hide(e.findings[i].Mend)
	}
	if err := e.write(stdout, *asJSON); err != nil {
		return err
	}
	if n := e.count(problem); n > 0 {
		return fmt.Errorf("%d of %d checks found a problem", n, len(e.findings))
	}
	return nil
}

func (e *examination) ok(check, format string, args ...any) {
	e.findings = append(e.findings, finding{Check: check, Status: fine, Message: fmt.Sprintf(format, args...)})
}

// found notes what is not right.
func (e *examination) found(status, check, mend, format string, args ...any) {
	e.findings = append(e.findings, finding{Check: check, Status: status, Message: fmt.Sprintf(format, args...), Mend: mend})
}

func (e *examination) count(status string) (n int) {
	for _, f := range e.findings {
		if f.Status == status {
			n++
		}
	}
	return n
}

func (e *examination) write(w io.Writer, asJSON bool) error {
	if asJSON {
		out := json.NewEncoder(w)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		return out.Encode(struct {
			Object   string    `json:"object"`
			OK       bool      `json:"ok"`
			Problems int       `json:"problems"`
			Warnings int       `json:"warnings"`
			Checks   []finding `json:"checks"`
		}{"doctor", e.count(problem) == 0, e.count(problem), e.count(warning), e.findings})
	}
	for _, f := range e.findings {
		if _, err := fmt.Fprintf(w, "%-7s  %-16s  %s\n", f.Status, f.Check, f.Message); err != nil {
			return err
		}
		if f.Mend != "" {
			if _, err := fmt.Fprintf(w, "%-7s  %-16s  → %s\n", "", "", f.Mend); err != nil {
				return err
			}
		}
	}
	return nil
}

// hide takes every secret of the settings out of a text that came from elsewhere, such as a driver's error.
func (c *config) hide(s string) string {
	secrets := append([]string{c.StripeSecretKey, c.APIKey, c.PortalSecret, c.DatabaseURL}, c.StripeWebhookSecret...)
	for _, secret := range secrets {
		if len(secret) >= minAPIKey { // shorter ones would be found in every word
			s = strings.ReplaceAll(s, secret, "…")
		}
	}
	u, err := url.Parse(c.DatabaseURL)
	if err != nil || u.User == nil {
		return s
	}
	if password, ok := u.User.Password(); ok && password != u.User.Username() && len(password) >= minAPIKey {
		s = strings.ReplaceAll(s, password, "…")
	}
	return strings.ReplaceAll(s, u.User.String()+"@", "…@")
}

// settings reports what loading them said, and what only doctor asks for.
func (e *examination) settings(err error) {
	const check, mend = "settings", "set it in the environment; .env.example says what each is"
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			e.found(problem, check, mend, "%s", strings.TrimSpace(line))
		}
	}
	if e.cfg.PublicURL == "" {
		e.found(warning, check, "PUBLIC_URL=https://… is where Stripe, and your customers, reach this service", "PUBLIC_URL is empty")
	}
	if e.cfg.APIKey == devKey {
		e.found(problem, check, "set one of your own, or make keys with lockstep keys create and set none", "LOCKSTEP_API_KEY is dev's, which is known to everybody")
	}
	if len(e.findings) == 0 {
		e.ok(check, "complete")
	}
	e.webhookSecrets()
}

func (e *examination) webhookSecrets() {
	const check = "webhook secret"
	const mend = "lockstep stripe setup prints the secret of the endpoint that it makes; the dashboard shows it as the endpoint's signing secret"
	n := len(e.cfg.StripeWebhookSecret)
	for i, s := range e.cfg.StripeWebhookSecret {
		if !strings.HasPrefix(s, "whsec_") {
			e.found(problem, check, mend, "number %d of %d in STRIPE_WEBHOOK_SECRET is none of Stripe's: they start with whsec_", i+1, n)
			return
		}
	}
	switch n {
	case 0:
		e.found(problem, check, mend, "STRIPE_WEBHOOK_SECRET is missing: no event of Stripe's would be believed")
	case 1:
		e.ok(check, "set")
	default:
		e.ok(check, "%d are set, as while one is being rolled", n)
	}
}

// webhookPath is where the gateway takes Stripe's events.
const webhookPath = "/webhooks/stripe"

// webhookURL is the URL of the webhook endpoint of a service that is reached at base.
func webhookURL(base string, live bool) (string, error) {
	u, err := url.Parse(base)
	switch {
	case base == "":
		return "", errors.New("it is not known where Stripe reaches this service: set PUBLIC_URL, or say -url https://…")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("the URL must be one such as https://billing.example.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("the URL must have no user, query or fragment")
	case u.Scheme == "http" && (live || !isLoopback(u.Hostname())):
		return "", fmt.Errorf("%s is plain http: events are sent over https, except in test mode to this machine itself", base)
	}
	return strings.TrimSuffix(strings.TrimRight(base, "/"), webhookPath) + webhookPath, nil
}
