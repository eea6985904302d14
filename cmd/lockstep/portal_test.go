package main

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// A link to the portal is made for a customer who is there, with a way back that is one or with none.
func TestPortalSessionRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.customer("acme", "", "")
	w.refuses(fields{"POST", "/v1/portal_sessions", map[string]any{"customer": "acme", "return_url": "https://app.example.com"},
		map[string]string{"customer": "text", "return_url": "text"}, []string{"customer"}}.mistakes())
	link := map[string]any{"customer": "acme"}
	w.refuses([]refuse{
		{"nobody", "POST", "/v1/portal_sessions", with(link, "customer", "nobody"), notFound},
		{"a script", "POST", "/v1/portal_sessions", with(link, "return_url", "javascript:alert(1)"), bad("parameter_invalid", "return_url")},
		{"no URL", "POST", "/v1/portal_sessions", with(link, "return_url", "app.example.com"), bad("parameter_invalid", "return_url")},
	})
	a := w.must("POST", "/v1/portal_sessions", link)
	if a.status != 201 || !strings.HasPrefix(a.str("url"), w.base+"/portal/enter/") || a.at("id") != nil {
		t.Errorf("a link: %v", a)
	}
}

// Replicas open each other's links, whether they have a secret of the portal's or only Stripe's key; and the link that one
// has exchanged is used on all.
func TestPortalOverReplicas(t *testing.T) {
	t.Parallel()
	one := newWorld(t, quiet)
	one.customer("acme", "", "")
	two := newWorld(t, quiet, func(o *worldOptions) {
		o.url, o.sim, o.stripeURL, o.clock = one.o.url, one.o.sim, one.o.stripeURL, one.clock
	})
	link := one.must("POST", "/v1/portal_sessions", map[string]any{"customer": "acme"}).str("url")
	open := func(w *world) (*http.Response, string) {
		t.Helper()
		c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		resp, err := c.Get(w.base + strings.TrimPrefix(link, one.base))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body)
		return resp, b.String()
	}
	if resp, body := open(two); resp.StatusCode != http.StatusSeeOther || len(resp.Cookies()) != 1 {
		t.Errorf("the other replica: %s %s", resp.Status, body)
	}
	if resp, _ := open(one); resp.StatusCode != http.StatusForbidden {
		t.Errorf("again at the first: %s", resp.Status)
	}
}

// What signs links is the portal's secret, else made of Stripe's key; never the simulator's key, which everybody knows, and
// never a secret that can be guessed.
func TestPortalKey(t *testing.T) {
	t.Parallel()
	key := func(secret, stripe string, simulated bool) string {
		c := config{PortalSecret: secret, StripeSecretKey: stripe, simulated: simulated}
		return string(c.portalKey())
	}
	own, derived := key("a-secret-of-the-portal", "sk_live_1", false), key("", "sk_live_1", false)
	if own != key("a-secret-of-the-portal", "sk_live_2", true) || derived != key("", "sk_live_1", false) {
		t.Error("two processes with the same settings have different keys")
	}
	if own == derived || derived == key("", "sk_live_2", false) || own == key("another-secret-of-it", "sk_live_1", false) {
		t.Error("different secrets make the same key")
	}
	if key("", "sk_test_stripesim", true) == key("", "sk_test_stripesim", true) || key("", "", false) == key("", "", false) {
		t.Error("the simulator's key, or none, makes a key that can be known")
	}
	c := config{PortalSecret: "fifteen-letters", ListenAddr: "127.0.0.1:0", DataDir: "x", MirrorInterval: 1e9, BackfillInterval: 1e9, LogFormat: "text", DefaultAsset: "usd"}
	if err := c.check(); err == nil || !strings.Contains(err.Error(), "PORTAL_SECRET") || strings.Contains(err.Error(), c.PortalSecret) {
		t.Errorf("a short secret: %v", err)
	}
	if c.PortalSecret += "!"; c.check() != nil {
		t.Errorf("one of sixteen: %v", c.check())
	}
}
