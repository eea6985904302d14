package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	"lockstep/handlers"
)

// config is every setting, from the environment. .env.example says the same, and a test compares them.
type config struct {
	DatabaseURL         string        `envconfig:"DATABASE_URL"`
	DataDir             string        `envconfig:"DATA_DIR" default:".lockstep"`
	ListenAddr          string        `envconfig:"LISTEN_ADDR" default:"127.0.0.1:8080"`
	MetricsAddr         string        `envconfig:"METRICS_ADDR"`
	StripeSecretKey     string        `envconfig:"STRIPE_SECRET_KEY"`
	StripeWebhookSecret []string      `envconfig:"STRIPE_WEBHOOK_SECRET"`
	StripeAPIBase       string        `envconfig:"STRIPE_API_BASE"`
	StripeRate          float64       `envconfig:"STRIPE_REQUESTS_PER_SECOND"`
	APIKey              string        `envconfig:"LOCKSTEP_API_KEY"`
	DefaultAsset        string        `envconfig:"DEFAULT_ASSET" default:"usd"`
	MirrorInterval      time.Duration `envconfig:"MIRROR_INTERVAL" default:"2s"`
	BackfillInterval    time.Duration `envconfig:"BACKFILL_INTERVAL" default:"60s"`
	ReconcileAt         string        `envconfig:"RECONCILE_AT" default:"03:30"`
	ExpiryWarning       time.Duration `envconfig:"EXPIRY_WARNING" default:"72h"`
	OutboundPrivate     bool          `envconfig:"OUTBOUND_ALLOW_PRIVATE" default:"false"`
	PortalSecret        string        `envconfig:"PORTAL_SECRET"`
	PublicURL           string        `envconfig:"PUBLIC_URL"`
	MerchantName        string        `envconfig:"MERCHANT_NAME" default:"Billing"`
	MerchantColor       string        `envconfig:"MERCHANT_COLOR"`
	MerchantLogo        string        `envconfig:"MERCHANT_LOGO"`
	LogFormat           string        `envconfig:"LOG_FORMAT" default:"text"`
	LogLevel            slog.Level    `envconfig:"LOG_LEVEL" default:"info"`

	dev       bool
	simulated bool             // Stripe is the simulator, whose key everybody knows
	now       func() time.Time // the ledger's clock; nil, as ever outside of tests, is time.Now
}

func loadConfig() (config, error) {
	var c config
	if err := envconfig.Process("", &c); err != nil {
		return c, fmt.Errorf("settings: %w", err)
	}
	secrets := c.StripeWebhookSecret[:0]
	for _, s := range c.StripeWebhookSecret {
		if s = strings.TrimSpace(s); s != "" {
			secrets = append(secrets, s)
		}
	}
	c.StripeWebhookSecret = secrets
	return c, c.check()
}

// check says everything that is wrong with the settings at once.
func (c *config) check() error {
	var wrong []error
	bad := func(name, format string, args ...any) {
		wrong = append(wrong, fmt.Errorf("%s %s", name, fmt.Sprintf(format, args...)))
	}
	if c.DatabaseURL == "" && c.DataDir == "" {
		bad("DATA_DIR", "is empty; without a DATABASE_URL it is where the embedded PostgreSQL keeps its data")
	}
	if u, err := url.Parse(c.DatabaseURL); c.DatabaseURL != "" && (err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql") {
		bad("DATABASE_URL", "must start with postgres://")
	}
	if _, _, err := net.SplitHostPort(c.ListenAddr); err != nil {
		bad("LISTEN_ADDR", "must be host:port, such as 127.0.0.1:8080")
	}
	if c.MirrorInterval < 10*time.Millisecond {
		bad("MIRROR_INTERVAL", "must be at least 10ms")
	}
	if c.BackfillInterval < time.Second {
		bad("BACKFILL_INTERVAL", "must be at least 1s")
	}
	if _, err := timeOfDay(c.ReconcileAt); c.ReconcileAt != "" && err != nil {
		bad("RECONCILE_AT", "must be a time of day in UTC, such as 03:30, or empty for never")
	}
	if c.ExpiryWarning < 0 {
		bad("EXPIRY_WARNING", "can't be below zero; 0 is no warning")
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		bad("LOG_FORMAT", "must be text or json")
	}
	if c.DefaultAsset == "" {
		bad("DEFAULT_ASSET", "is empty; usd is the default")
	}
	if c.APIKey != "" && len(c.APIKey) < minAPIKey {
		bad("LOCKSTEP_API_KEY", "must have at least %d characters: it opens everything", minAPIKey)
	}
	if u, err := url.Parse(c.PublicURL); c.PublicURL != "" && (err != nil || u.Host == "") {
		bad("PUBLIC_URL", "must be a URL such as https://billing.example.com")
	}
	if c.PortalSecret != "" && len(c.PortalSecret) < minPortalSecret {
		bad("PORTAL_SECRET", "must have at least %d characters, drawn at random: whoever guesses it opens every customer's portal", minPortalSecret)
	}
	return errors.Join(wrong...)
}

// minPortalSecret keeps out secrets that can be tried one after the other.
const minPortalSecret = 16

// portalKey signs the links to the portal. Without a secret of its own it is made of Stripe's key, which every replica has
// and nobody else. The simulator's is no secret, so what stands on it makes one that lives as long as the process does.
func (c *config) portalKey() []byte {
	switch {
	case c.PortalSecret != "":
		return handlers.PortalKey(c.PortalSecret)
	case c.simulated || c.StripeSecretKey == "":
		return handlers.PortalKey(rand.Text())
	default:
		return handlers.PortalKey(c.StripeSecretKey)
	}
}

// minAPIKey keeps out keys that can be guessed.
const minAPIKey = 8

// checkServe says what production can't do without.
func (c *config) checkServe() error {
	var wrong []error
	if c.StripeSecretKey == "" {
		wrong = append(wrong, errors.New("STRIPE_SECRET_KEY is missing: a key of your Stripe account, sk_test_… or sk_live_… (lockstep dev runs without one)"))
	}
	if len(c.StripeWebhookSecret) == 0 {
		wrong = append(wrong, errors.New("STRIPE_WEBHOOK_SECRET is missing: the whsec_… of the webhook endpoint, several with commas between"))
	}
	return errors.Join(wrong...)
}

// logger writes the service's log.
func (c *config) logger(w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
