package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"

	"lockstep/stripeutil"
)

// stripeCommand is what there is to do in the Stripe account from here.
func stripeCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flags("stripe setup", stderr)
	base := f.String("url", "", "where Stripe reaches this service, such as https://billing.example.com; PUBLIC_URL where it is left out")
	dry := f.Bool("dry-run", false, "say what would be done, and do nothing")
	f.Usage = func() {
		fmt.Fprint(stderr, "Usage: lockstep stripe setup [-url https://…] [-dry-run]\nMakes the webhook endpoint in Stripe, or mends the one that is there.\n")
		f.PrintDefaults()
	}
	if len(args) == 0 || args[0] != "setup" {
		f.Usage()
		return errUsage
	}
	if err := parse(f, args[1:]); err != nil {
		return err
	}
	if f.NArg() > 0 {
		f.Usage()
		return errUsage
	}
	cfg, err := loadConfig()
	if err != nil {
		return err
	}
	if cfg.StripeSecretKey == "" {
		return errors.New("STRIPE_SECRET_KEY is missing: the endpoint is made with a key of your Stripe account")
	}
	if *base == "" {
		*base = cfg.PublicURL
	}
	client, err := cfg.stripeClient()
	if err != nil {
		return err
	}
	url, err := webhookURL(*base, client.Livemode())
	if err != nil {
		return err
	}
	s := setup{client: client, url: url, dry: *dry, out: stdout}
	if err = s.run(ctx); errors.Is(err, stripeutil.ErrAuth) {
		err = fmt.Errorf("the key %s is not accepted, or lacks the right Webhook Endpoints: Write", stripeutil.KeyKind(cfg.StripeSecretKey))
	}
	return err
}

// setup brings the account's webhook endpoint for one URL to what the gateway needs.
type setup struct {
	client *stripeutil.Client
	url    string
	dry    bool
	out    io.Writer
	failed error // of the first write to out
}

// run finds what is there before it makes anything, so that a second run changes nothing.
func (s *setup) run(ctx context.Context) error {
	all, err := s.client.WebhookEndpoints(ctx)
	if err != nil {
		return err
	}
	var good, others []stripeutil.WebhookEndpoint
	for _, e := range endpointsAt(all, s.url) {
		if e.APIVersion == s.client.APIVersion() {
			good = append(good, e)
		} else {
			others = append(others, e)
		}
	}
	for _, e := range others {
		s.say("%s is there for %s with %s, which Stripe can't change to %s.", e.ID, s.url, versionOf(e), s.client.APIVersion())
	}
	if len(good) == 0 {
		err = s.create(ctx)
	} else {
		// One whose secret is in use is enabled; of several, the one that was made last.
		err = s.mend(ctx, good[max(0, slices.IndexFunc(good, func(e stripeutil.WebhookEndpoint) bool { return e.Enabled }))])
	}
	if err != nil {
		return err
	}
	if len(others) > 0 {
		s.say("While both are there each event comes twice, which does nothing twice: keep both secrets in STRIPE_WEBHOOK_SECRET.\nDelete %s in the dashboard once every process runs with the new secret.", idsOf(others))
	}
	if len(good) > 1 {
		s.say("There are %d endpoints for %s with API version %s (%s): one is enough.", len(good), s.url, s.client.APIVersion(), idsOf(good))
	}
	return s.failed
}

func (s *setup) say(format string, args ...any) {
	if _, err := fmt.Fprintf(s.out, format+"\n", args...); err != nil && s.failed == nil {
		s.failed = err
	}
}

// create makes the endpoint. The key of the call is a new one each time: under an old one Stripe would answer an endpoint
// that may have been deleted since.
func (s *setup) create(ctx context.Context) error {
	types := eventTypes()
	if s.dry {
		s.say("Would make an endpoint for %s with API version %s and %d types of events.", s.url, s.client.APIVersion(), len(types))
		return nil
	}
	e, err := s.client.CreateWebhookEndpoint(ctx, s.url, types, "lockstep-setup:"+rand.Text())
	if errors.Is(err, stripeutil.ErrUnknown) {
		return fmt.Errorf("%w; it may have been made all the same: run it again, and if it is there, the dashboard shows its signing secret", err)
	}
	if err != nil {
		return err
	}
	s.say("Made %s for %s with API version %s and %d types of events.\n\n%s\n", e.ID, e.URL, e.APIVersion, len(types), e.Secret)
	s.say("This is the only time that the secret is shown here. Set STRIPE_WEBHOOK_SECRET to it (beside the one that is there, with a\ncomma between, as long as events signed with that one may come) and restart the gateway.")
	return nil
}

// mend has an endpoint send what it should, unless it does.
func (s *setup) mend(ctx context.Context, e stripeutil.WebhookEndpoint) error {
	types := eventTypes()
	var add, drop []string
	for _, t := range types {
		if !slices.Contains(e.EventTypes, t) {
			add = append(add, t)
		}
	}
	for _, t := range e.EventTypes {
		if !slices.Contains(types, t) {
			drop = append(drop, t)
		}
	}
	if e.Enabled && len(add) == 0 && len(drop) == 0 {
		s.say("%s is right: enabled, %d types of events, API version %s. Nothing was changed.", e.ID, len(types), e.APIVersion)
		return nil
	}
	verb := "Changed"
	if s.dry {
		verb = "Would change"
	} else if _, err := s.client.UpdateWebhookEndpoint(ctx, e.ID, types, "lockstep-setup:"+rand.Text()); err != nil {
		return err
	}
	s.say("%s %s for %s; its secret stays as it is.", verb, e.ID, s.url)
	if !e.Enabled {
		s.say("  enabled: it was disabled")
	}
	for _, t := range add {
		s.say("  + %s", t)
	}
	for _, t := range drop {
		s.say("  - %s", t)
	}
	return nil
}

func versionOf(e stripeutil.WebhookEndpoint) string {
	if e.APIVersion == "" {
		return "the account's own API version"
	}
	return "API version " + e.APIVersion
}

func idsOf(all []stripeutil.WebhookEndpoint) (ids string) {
	for i, e := range all {
		if i > 0 {
			ids += ", "
		}
		ids += e.ID
	}
	return ids
}
