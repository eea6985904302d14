package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lockstep/stripeutil"
)

// Signatures are good for five minutes: a clock that is further off refuses every event.
const (
	skewWarning = time.Minute
	skewProblem = 4 * time.Minute
)

// examineTimeout bounds one look at Stripe or at the database: whoever waits for doctor waits for many.
const examineTimeout = 6 * time.Second

// stripeClient is a client for commands, which would rather hear of trouble than wait for its end.
func (c *config) stripeClient() (*stripeutil.Client, error) {
	return stripeutil.New(stripeutil.Config{SecretKey: c.StripeSecretKey, APIBase: c.StripeAPIBase, RequestsPerSecond: c.StripeRate, CallTimeout: examineTimeout})
}

func (e *examination) stripe(ctx context.Context) {
	const check = "stripe key"
	const mend = "take a secret key (sk_…) or a restricted one (rk_…) from https://dashboard.stripe.com/apikeys and set STRIPE_SECRET_KEY"
	if e.cfg.StripeSecretKey == "" {
		e.found(problem, check, mend, "STRIPE_SECRET_KEY is missing")
		return
	}
	client, err := e.cfg.stripeClient()
	if err != nil {
		e.found(problem, check, mend, "%s", strings.TrimPrefix(err.Error(), "stripe: "))
		return
	}
	skew, err := client.ClockSkew(ctx)
	if err != nil {
		e.found(problem, check, "look at the network between here and api.stripe.com, and at STRIPE_API_BASE", "Stripe can't be reached: %v", err)
		return
	}
	e.clock(skew)
	switch err := client.MayRead(ctx, stripeutil.Rights()[0]); {
	case stripeutil.KeyRefused(err):
		e.found(problem, check, mend+"; this one was revoked, rolled, or never was", "Stripe does not accept the key %s", stripeutil.KeyKind(e.cfg.StripeSecretKey))
		return
	case err != nil && !errors.Is(err, stripeutil.ErrAuth): // a right may be missing, which is looked at below
		e.found(problem, check, "run doctor again", "Stripe does not answer as it should: %v", err)
		return
	}
	mode, where := "test mode: no real money moves", ""
	if client.Livemode() {
		mode = "live mode: charges are real"
	}
	if e.cfg.StripeAPIBase != "" {
		where = " by " + e.cfg.StripeAPIBase + " (STRIPE_API_BASE)"
	}
	e.ok(check, "%s is accepted%s; %s", stripeutil.KeyKind(e.cfg.StripeSecretKey), where, mode)
	e.rights(ctx, client)
	e.endpoint(ctx, client)
	e.portal(ctx, client)
}

// clock judges how far Stripe's is ahead of ours.
func (e *examination) clock(skew time.Duration) {
	const check, mend = "clock", "have this machine's clock set by NTP; signatures of events are good for 5 minutes"
	status, way := fine, "behind"
	if skew < 0 {
		way = "ahead of"
	}
	switch off := skew.Abs(); {
	case off > skewProblem:
		status = problem
	case off > skewWarning:
		status = warning
	}
	if status == fine {
		e.ok(check, "within %v of Stripe's", skewWarning)
		return
	}
	e.found(status, check, mend, "%v %s Stripe's", skew.Abs().Round(time.Second), way)
}

// rights reads one object of each kind that the gateway works with.
func (e *examination) rights(ctx context.Context, client *stripeutil.Client) {
	const check = "stripe rights"
	status := fine
	var lacking, needed []string
	for _, r := range stripeutil.Rights() {
		needed = append(needed, r.String())
		err := client.MayRead(ctx, r)
		switch {
		case err == nil:
			continue
		case !errors.Is(err, stripeutil.ErrAuth):
			e.found(problem, check, "run doctor again", "%s: could not be looked at: %v", r.Name, err)
			return
		case !r.SetupOnly:
			status = problem
		case status == fine:
			status = warning
		}
		name := r.Name
		if its := stripeutil.MissingRight(err); its != "" {
			name += " (" + its + ")"
		}
		lacking = append(lacking, name)
	}
	all := strings.Join(needed, ", ")
	switch {
	case status != fine:
		e.found(status, check, "edit the restricted key at https://dashboard.stripe.com/apikeys; it needs "+all, "the key may not read: %s", strings.Join(lacking, ", "))
	case client.Restricted():
		e.ok(check, "everything can be read; whether it may be written can't be seen without writing: the key needs %s", all)
	default:
		e.ok(check, "a secret key has them all")
	}
}

// endpoint looks for the webhook endpoint that sends this service its events.
func (e *examination) endpoint(ctx context.Context, client *stripeutil.Client) {
	const check, mend = "webhook endpoint", "lockstep stripe setup makes it right; lockstep stripe setup -dry-run says how"
	all, err := client.WebhookEndpoints(ctx)
	if errors.Is(err, stripeutil.ErrAuth) {
		e.found(warning, check, "give the restricted key Webhook Endpoints: Read, or look in the dashboard", "it can't be looked at with this key")
		return
	}
	if err != nil {
		e.found(problem, check, "run doctor again", "the endpoints could not be read: %v", err)
		return
	}
	var url string
	if e.cfg.PublicURL != "" {
		if url, err = webhookURL(e.cfg.PublicURL, client.Livemode()); err != nil {
			e.found(problem, check, "set PUBLIC_URL to where the outside reaches this service", "PUBLIC_URL: %v", err)
			return
		}
	}
	ours := endpointsAt(all, url)
	if len(ours) == 0 {
		if url == "" {
			url = "…" + webhookPath
		}
		e.found(problem, check, "lockstep stripe setup makes one (in test mode, stripe listen --forward-to … does without)", "none of the account's %d is for %s", len(all), url)
		return
	}
	best := slices.MinFunc(ours, func(a, b stripeutil.WebhookEndpoint) int {
		return len(endpointFaults(a, client.APIVersion())) - len(endpointFaults(b, client.APIVersion()))
	})
	if faults := endpointFaults(best, client.APIVersion()); len(faults) > 0 {
		e.found(problem, check, mend, "%s %s", best.ID, strings.Join(faults, "; "))
		return
	}
	e.ok(check, "%s sends the %d types that are acted on to %s, in %s", best.ID, len(eventTypes()), best.URL, best.APIVersion)
	for _, other := range ours {
		if other.ID != best.ID {
			e.found(warning, check, "delete it in the dashboard once its secret is out of STRIPE_WEBHOOK_SECRET", "%s is for the same URL: every event comes once more, which does nothing twice", other.ID)
		}
	}
}

// endpointsAt are the endpoints for a URL; without one, for any service's that takes events where this one does.
func endpointsAt(all []stripeutil.WebhookEndpoint, url string) []stripeutil.WebhookEndpoint {
	return slices.DeleteFunc(slices.Clone(all), func(e stripeutil.WebhookEndpoint) bool {
		at := strings.TrimRight(e.URL, "/")
		return at != url && (url != "" || !strings.HasSuffix(at, webhookPath))
	})
}

// endpointFaults says what keeps an endpoint from telling us all that we act on, as we read it.
func endpointFaults(e stripeutil.WebhookEndpoint, version string) (faults []string) {
	if !e.Enabled {
		faults = append(faults, "is disabled")
	}
	switch e.APIVersion {
	case version:
	case "":
		faults = append(faults, fmt.Sprintf("follows the account's API version, not %s", version))
	default:
		faults = append(faults, fmt.Sprintf("has API version %s, not %s", e.APIVersion, version))
	}
	if missing := slices.DeleteFunc(eventTypes(), e.Receives); len(missing) > 0 {
		faults = append(faults, "does not send "+strings.Join(missing, ", "))
	}
	return faults
}

func (e *examination) portal(ctx context.Context, client *stripeutil.Client) {
	const check = "billing portal"
	saved, err := client.PortalSaved(ctx)
	switch {
	case err != nil:
		e.found(warning, check, "give the restricted key Customer portal: Write, or look in the dashboard", "its settings could not be read")
	case !saved:
		page := "https://dashboard.stripe.com/test/settings/billing/portal"
		if client.Livemode() {
			page = "https://dashboard.stripe.com/settings/billing/portal"
		}
		e.found(warning, check, "save them once at "+page, "its settings have never been saved, so no customer can be sent there")
	default:
		e.ok(check, "has a default configuration")
	}
}
