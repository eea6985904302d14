// Package stripeutil holds everything that knows Stripe's words: the calls the gateway makes, the events it is sent,
// and what each of Stripe's refusals means for money.
//
// It promises three things to the rest of the program:
//
//   - No stripe-go type leaves it. Answers and events are decoded into the small structs of this package, by field
//     name and tolerantly, so that an event rendered by a newer API version still reads.
//   - Every write carries an idempotency key chosen by the caller, and the same parameters give the same bytes.
//     Resending a call with its stored parameters and key is therefore always safe (Stripe remembers a key for at
//     least 24 hours: docs.stripe.com/api/idempotent_requests).
//   - Every failure of a call is an *Error of exactly one kind, and the kind says whether Stripe may have executed
//     the call. Only ErrUnknown leaves that open.
//
// Amounts are int64 in the currency's minor unit (cents for usd, whole yen for jpy), currencies are lower-case ISO
// codes as Stripe writes them, and times have a resolution of one second because Stripe's have.
package stripeutil

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/form"
)

const (
	// Stripe allows 100 requests a second in live mode and 25 in test mode (docs.stripe.com/rate-limits). The
	// defaults stay below, because a person in the dashboard and other programs of the account share the allowance.
	defaultLiveRate = 90
	defaultTestRate = 22

	defaultCallTimeout = 15 * time.Second
)

// Config is what New needs to know. Only SecretKey is required.
type Config struct {
	// SecretKey is sk_test_…, sk_live_…, rk_test_… or rk_live_….
	SecretKey string
	// APIBase is the address of the API without "/v1"; empty means https://api.stripe.com.
	APIBase string
	// RequestsPerSecond caps the attempts (retries included) of this client; 0 means 90 in live and 22 in test mode.
	RequestsPerSecond float64
	// CallTimeout bounds one call with all its attempts and waits; 0 means 15 s. Keep it shorter than the lease of
	// the worker that calls, or two workers may send the same call at once.
	CallTimeout time.Duration
	// Logger receives one debug line a call, with no key, body or query in it; nil discards.
	Logger *slog.Logger
	// Transport is how one attempt is sent; nil means a pooled transport of our own.
	Transport http.RoundTripper
}

// String hides the secret key from %v and friends.
func (c Config) String() string {
	return fmt.Sprintf("stripe config (key %s, base %q)", keyKind(c.SecretKey), c.APIBase)
}

// GoString hides it from %#v.
func (c Config) GoString() string { return c.String() }

// LogValue hides the secret key from slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Client calls Stripe. It is safe for use by many goroutines.
type Client struct {
	backend     stripe.Backend
	pace        *pace
	key         string
	live        bool
	callTimeout time.Duration
	log         *slog.Logger
}

// New checks the configuration and returns a client. It sends nothing.
func New(cfg Config) (*Client, error) { return newClient(cfg, defaultBackoff) }

func newClient(cfg Config, waits backoff) (*Client, error) {
	live, err := parseKey(cfg.SecretKey)
	if err != nil {
		return nil, err
	}
	base, err := parseBase(cfg.APIBase, live)
	if err != nil {
		return nil, err
	}
	perSecond, err := requestRate(cfg.RequestsPerSecond, live)
	if err != nil {
		return nil, err
	}
	timeout := cfg.CallTimeout
	if timeout < 0 {
		return nil, fmt.Errorf("stripe: a call timeout of %s is negative", timeout)
	}
	if timeout == 0 {
		timeout = defaultCallTimeout
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	transport := cfg.Transport
	if transport == nil {
		transport = defaultTransport()
	}
	p := newPace(perSecond)
	return &Client{
		backend:     newBackend(base, newRetryTransport(transport, p, waits, timeout/10)),
		pace:        p,
		key:         cfg.SecretKey,
		live:        live,
		callTimeout: timeout,
		log:         log,
	}, nil
}

// newBackend is stripe-go's wire layer with everything switched off that works behind our back: its own retries (they
// would multiply ours), its telemetry, its logger and its package-wide client.
func newBackend(base string, transport http.RoundTripper) stripe.Backend {
	return stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		URL:               stripe.String(base),
		HTTPClient:        &http.Client{Transport: transport},
		MaxNetworkRetries: stripe.Int64(0),
		EnableTelemetry:   stripe.Bool(false),
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull},
	})
}

// defaultTransport is Go's own with a dial that gives up while a retry still fits the call, and enough idle
// connections for a pool of workers.
func defaultTransport() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	t = t.Clone()
	t.DialContext = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.TLSHandshakeTimeout = 5 * time.Second
	t.MaxIdleConnsPerHost = 32
	return t
}

// Livemode reports whether the key moves real money. An event of the other mode is not ours.
func (c *Client) Livemode() bool { return c.live }

// APIVersion is the version every request names, and the one a webhook endpoint should be created with.
func (c *Client) APIVersion() string { return stripe.APIVersion }

var keyShape = regexp.MustCompile(`^(sk|rk)_(test|live)_[A-Za-z0-9_]+$`)

// parseKey refuses what cannot be a secret key. Its errors never repeat the key.
func parseKey(key string) (live bool, err error) {
	switch {
	case key == "":
		return false, errors.New("stripe: no secret key")
	case strings.HasPrefix(key, "pk_"):
		return false, errors.New("stripe: this is a publishable key (pk_…); the gateway needs the secret one (sk_… or rk_…)")
	}
	m := keyShape.FindStringSubmatch(key)
	if m == nil {
		return false, errors.New("stripe: the secret key does not look like sk_test_…, sk_live_…, rk_test_… or rk_live_…")
	}
	return m[2] == "live", nil
}

// keyKind is the part of a key that may be shown.
func keyKind(key string) string {
	if m := keyShape.FindStringSubmatch(key); m != nil {
		return m[1] + "_" + m[2] + "_…"
	}
	return "of unknown shape"
}

func parseBase(base string, live bool) (string, error) {
	if base == "" {
		return stripe.APIURL, nil
	}
	u, err := url.Parse(base)
	if err != nil {
		return "", errors.New("stripe: the API base is not a URL")
	}
	path := strings.TrimRight(u.Path, "/")
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return "", errors.New("stripe: the API base must be http://host or https://host")
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return "", errors.New("stripe: the API base must have no user, query or fragment")
	case strings.HasSuffix(path, "/v1"):
		return "", errors.New("stripe: write the API base without /v1")
	case live && u.Scheme == "http" && !loopback(u.Hostname()):
		return "", errors.New("stripe: a live key must not travel over plain http; use https")
	}
	return strings.TrimRight(base, "/"), nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func requestRate(perSecond float64, live bool) (float64, error) {
	switch {
	case perSecond > 0:
		return perSecond, nil
	case perSecond != 0: // negative, or not a number
		return 0, fmt.Errorf("stripe: %v requests a second makes no sense", perSecond)
	case live:
		return defaultLiveRate, nil
	}
	return defaultTestRate, nil
}

// answer takes any JSON object and keeps stripe-go's copy of its bytes; decoding is ours (see wire.go).
type answer struct{ stripe.APIResource }

// call sends one request with all its attempts and returns the bytes of a 2xx answer. params is one of stripe-go's
// parameter structs, or nil; key is empty for reads only. Any error is an *Error.
func (c *Client) call(ctx context.Context, method, path, key string, params any) (json.RawMessage, error) {
	return c.traced(ctx, &trace{method: method}, path, key, params)
}

// traced is call for those who want to know how it went: trace is new, with the method alone.
func (c *Client) traced(ctx context.Context, trace *trace, path, key string, params any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, c.callTimeout)
	defer cancel()
	p := &stripe.Params{Context: context.WithValue(ctx, traceKey{}, trace)}
	if key != "" {
		p.IdempotencyKey = &key
	}
	body := &form.Values{}
	if params != nil {
		form.AppendTo(body, params)
	}
	var out answer
	start := time.Now()
	err := c.backend.CallRaw(trace.method, path, c.key, body, p, &out)
	failure := c.judge(trace, err)
	if trace.method == http.MethodGet {
		countReads(ctx, trace.attempts)
	}
	c.log.LogAttrs(ctx, slog.LevelDebug, "stripe call",
		slog.String("method", trace.method), slog.String("path", path),
		slog.Int("status", trace.status), slog.String("request_id", trace.requestID),
		slog.Int("attempts", trace.attempts), slog.Duration("took", time.Since(start)))
	if failure != nil {
		return nil, failure
	}
	return out.LastResponse.RawJSON, nil
}

func (c *Client) get(ctx context.Context, path string, params any) (json.RawMessage, error) {
	return c.call(ctx, http.MethodGet, path, "", params)
}

// post refuses a write without a key of the caller's: stripe-go would invent a random one, and a resend after a crash
// would then be a second charge.
func (c *Client) post(ctx context.Context, path, key string, params any) (json.RawMessage, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return c.call(ctx, http.MethodPost, path, key, params)
}

// checkKey allows what fits in a header unchanged. 255 is Stripe's limit (docs.stripe.com/api/idempotent_requests).
func checkKey(key string) error {
	if key == "" {
		return refuse("a write to Stripe needs an idempotency key; this one has none")
	}
	if len(key) > 255 {
		return refuse("an idempotency key may have 255 characters; this one has %d", len(key))
	}
	for _, r := range key {
		if r <= ' ' || r > '~' {
			return refuse("an idempotency key may only have printable ASCII characters without spaces")
		}
	}
	return nil
}

// checkID keeps an empty or crooked id from turning a read of one object into a call of something else.
func checkID(what, id string) error {
	if id == "" || len(id) > 255 || strings.Trim(id, ".") == "" || strings.ContainsAny(id, "/?#% \t\r\n") {
		return refuse("%q is not the id of a %s", id, what)
	}
	return nil
}
