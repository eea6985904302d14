package stripeutil

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestNewRefuses(t *testing.T) {
	good := Config{SecretKey: "sk_test_1"}
	for name, change := range map[string]func(*Config){
		"no key":              func(c *Config) { c.SecretKey = "" },
		"a publishable key":   func(c *Config) { c.SecretKey = "pk_live_123456" },
		"a webhook secret":    func(c *Config) { c.SecretKey = "whsec_123456" },
		"a key of no mode":    func(c *Config) { c.SecretKey = "sk_123456" },
		"a bare prefix":       func(c *Config) { c.SecretKey = "sk_live_" },
		"white space":         func(c *Config) { c.SecretKey = "sk_test_123456\n" },
		"a base with /v1":     func(c *Config) { c.APIBase = "https://api.stripe.com/v1" },
		"a base with /v1/":    func(c *Config) { c.APIBase = "http://localhost:12111/v1/" },
		"a base of no scheme": func(c *Config) { c.APIBase = "api.stripe.com" },
		"an ftp base":         func(c *Config) { c.APIBase = "ftp://api.stripe.com" },
		"a base of no host":   func(c *Config) { c.APIBase = "https://" },
		"a base with a user":  func(c *Config) { c.APIBase = "https://u:p@api.stripe.com" },
		"a base with a query": func(c *Config) { c.APIBase = "https://api.stripe.com?x=1" },
		"a base that is none": func(c *Config) { c.APIBase = "http://[::1" },
		"live over http":      func(c *Config) { c.SecretKey, c.APIBase = "sk_live_1", "http://stripe.test" },
		"a negative rate":     func(c *Config) { c.RequestsPerSecond = -1 },
		"no number":           func(c *Config) { c.RequestsPerSecond = math.NaN() },
		"a negative time":     func(c *Config) { c.CallTimeout = -time.Second },
	} {
		cfg := good
		change(&cfg)
		_, err := New(cfg)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.Contains(err.Error(), "123456") {
			t.Errorf("%s: the error repeats the key: %v", name, err)
		}
	}
}

func TestNewAccepts(t *testing.T) {
	for _, tc := range []struct {
		key, base string
		live      bool
	}{
		{"sk_test_1", "", false},
		{"rk_test_1", "http://stripe.test:80/", false},
		{"sk_live_1", "https://stripe.test/proxy", true},
		{"rk_live_1", "http://127.0.0.1:12111", true},
	} {
		c, err := New(Config{SecretKey: tc.key, APIBase: tc.base})
		if err != nil {
			t.Fatalf("%s at %q: %v", tc.key, tc.base, err)
		}
		if c.Livemode() != tc.live || c.APIVersion() != "2023-10-16" {
			t.Errorf("%s: live %v, version %s", tc.key, c.Livemode(), c.APIVersion())
		}
	}
}

// The default rates and the burst on top of them stay within what Stripe allows in any one second.
func TestDefaultRate(t *testing.T) {
	for live, allowed := range map[bool]float64{true: 100, false: 25} {
		perSecond, err := requestRate(0, live)
		if burst := float64(int(perSecond / 10)); err != nil || perSecond+burst > allowed {
			t.Errorf("live %v: %v a second and a burst of %v, %v", live, perSecond, burst, err)
		}
	}
}

// One debug line a call says what happened; neither it nor any error shows the key, a body or a query.
func TestLogsHaveNoSecrets(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := newWire(t, func(w http.ResponseWriter, r *http.Request, n int) {
		switch {
		case r.Method == http.MethodPost && n == 1:
			hangUp(w)
		case r.Method == http.MethodPost:
			reply(w, 402, `{"error":{"type":"card_error","code":"card_declined","message":"Used key `+testKey+`",
				"payment_intent":{"id":"pi_1","client_secret":"pi_1_secret_xyz"}}}`)
		default:
			reply(w, 200, `{"object":"list","data":[],"has_more":false}`)
		}
	})
	c := clientFor(t, s, func(c *Config) { c.Logger = log })
	text := fmt.Sprintln(charge(c))
	text += fmt.Sprintln(c.BalanceTransactions(t.Context(), "cus_1", func(BalanceTransaction) bool { return true }))
	cfg := Config{SecretKey: testKey, APIBase: s.URL}
	log.Info("config", "cfg", cfg)
	text += fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg)
	s.Close()
	text += fmt.Sprintln(charge(c))

	text += out.String()
	for _, secret := range []string{"SecretDoNotShow", "Bearer", "secret_xyz", "Top-up", "limit=100", "off_session"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q shows in:\n%s", secret, text)
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines:\n%s", len(lines), out.String())
	}
	for _, want := range []string{
		`"level":"DEBUG"`, `"method":"POST"`, `"path":"/v1/payment_intents"`, `"status":402`, `"request_id":"req_123"`, `"attempts":2`,
	} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("no %s in %s", want, lines[0])
		}
	}
}

// What goes out is what Stripe expects: the pinned version, the key as bearer, a length, and no telemetry.
func TestHeaders(t *testing.T) {
	s := newWire(t, says(200, paymentJSON))
	c := clientFor(t, s)
	for range 2 { // telemetry, if on, would ride on the second call
		if err := charge(c); err != nil {
			t.Fatal(err)
		}
	}
	h := s.seen()[1].header
	for name, want := range map[string]string{
		"Authorization": "Bearer " + testKey, "Stripe-Version": "2023-10-16",
		"Content-Type": "application/x-www-form-urlencoded", "Idempotency-Key": "topup:t1:attempt:1",
		"X-Stripe-Client-Telemetry": "",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if h.Get("Content-Length") == "" {
		t.Error("the body went out without its length")
	}
}

// The transport of our own is usable, and the client of a test can bring another.
func TestDefaultTransport(t *testing.T) {
	s := newWire(t, says(200, customerJSON))
	c, err := New(Config{SecretKey: testKey, APIBase: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	if err := readCustomer(c); err != nil {
		t.Fatal(err)
	}
	if newRetryTransport(defaultTransport(), newPace(1), fast, 0) == nil {
		t.Fatal("no transport")
	}
}
