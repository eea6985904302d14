package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lockstep/stripeutil/stripesim"
)

// devKey is dev's API key: known to everybody, so dev listens on this machine alone with it.
const devKey = "lsk_dev_key"

// dev runs the gateway with everything that it needs: an embedded database, a simulated Stripe unless there
// is a test key of a real account, and a demo customer with a card and an armed rule.
func dev(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if err := parse(flags("dev", stderr), args); err != nil {
		return err
	}
	c, err := loadConfig()
	if err != nil {
		return err
	}
	if err := c.forDev(); err != nil {
		return err
	}
	log := c.logger(stderr)
	fmt.Fprintln(stdout, "Lockstep is starting …")
	var sim *devStripe
	if c.StripeSecretKey == "" {
		if sim, err = startDevStripe(&c, log); err != nil {
			return err
		}
		defer sim.stop()
	}
	return runGateway(ctx, c, log, func(g *gateway, addr net.Addr) error {
		return g.demo(ctx, stdout, sim, "http://"+addr.String())
	})
}

// forDev fills in what dev needs and refuses what it must not touch.
func (c *config) forDev() error {
	c.dev = true
	c.OutboundPrivate = true // a receiver under development is on this machine
	if c.APIKey == "" {
		c.APIKey = devKey
		if host, _, _ := net.SplitHostPort(c.ListenAddr); !isLoopback(host) {
			return fmt.Errorf("dev's API key is known to everybody: with LISTEN_ADDR %s set LOCKSTEP_API_KEY to one of your own", c.ListenAddr)
		}
	}
	switch {
	case c.StripeSecretKey == "":
		return nil
	case strings.Contains(c.StripeSecretKey, "_live_"):
		return errors.New("dev makes demo charges: it takes a test key (sk_test_…), not a live one")
	case len(c.StripeWebhookSecret) == 0:
		return fmt.Errorf("STRIPE_WEBHOOK_SECRET is missing: run `stripe listen --forward-to http://%s/webhooks/stripe` and set the whsec_… that it prints", c.ListenAddr)
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// devStripe is the simulated Stripe on an address of its own.
type devStripe struct {
	sim *stripesim.Sim
	srv *http.Server
	url string
}

// startDevStripe starts the simulator, whose state is kept beside the database, and has the settings point
// to it.
func startDevStripe(c *config, log *slog.Logger) (*devStripe, error) {
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("DATA_DIR: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:12111")
	if err != nil { // taken: any other will do
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, err
	}
	url := "http://" + listener.Addr().String()
	sim, err := stripesim.New(stripesim.Options{File: filepath.Join(dir, "stripe.json"), Logger: log, PagesURL: url})
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("the simulated Stripe: %w", err)
	}
	d := &devStripe{sim: sim, srv: newHTTPServer(sim, log), url: url}
	go func() { _ = d.srv.Serve(listener) }()
	c.StripeSecretKey, c.StripeAPIBase, c.simulated = sim.SecretKey(), d.url, true
	c.StripeWebhookSecret = []string{"whsec_" + rand.Text()}
	return d, nil
}

func (d *devStripe) stop() {
	_ = d.srv.Close()
	d.sim.Close()
}

// demo makes the demo customer, unless an earlier run has, and says what to try.
func (g *gateway) demo(ctx context.Context, stdout io.Writer, sim *devStripe, base string) error {
	if sim != nil {
		sim.sendTo(base+"/webhooks/stripe", g.cfg.StripeWebhookSecret)
	}
	d := demoCaller{base: base, key: g.cfg.APIKey}
	wallet, err := d.customer(ctx, g)
	if err != nil {
		return fmt.Errorf("the demo customer: %w", err)
	}
	simulated := ""
	if sim != nil {
		simulated = fmt.Sprintf("Stripe      simulated at %s, key %s\n", sim.url, g.cfg.StripeSecretKey)
	}
	_, err = fmt.Fprintf(stdout, `
Lockstep is ready.

API         %[1]s, key %[2]s; described at %[1]s/docs
Console     %[1]s/console: sign in with any name and that key
%[4]sDemo        customer "demo", wallet %[3]s: 10.00 usd, refilled by 20.00 when below 5.00,
            at most 100.00 a month, from a saved test card

Try, in another terminal:

  # spend: a debit, exactly once
  curl -s %[1]s/v1/usage -H "Authorization: Bearer %[2]s" \
    -d '{"customer":"demo","amount":"0.25","idempotency_key":"req-1"}'

  # below 5.00 the saved card is charged, and the balance is back a moment later
  curl -s %[1]s/v1/usage -H "Authorization: Bearer %[2]s" \
    -d '{"customer":"demo","amount":"6","idempotency_key":"req-2"}'
  curl -s %[1]s/v1/topups?customer=demo -H "Authorization: Bearer %[2]s"

  # the customer's own pages: open the url that this answers in a browser, within 15 minutes
  curl -s %[1]s/v1/portal_sessions -H "Authorization: Bearer %[2]s" -d '{"customer":"demo"}'

  # the balance, every movement of it, and whether Stripe agrees
  curl -s %[1]s/v1/customers/demo -H "Authorization: Bearer %[2]s"
  curl -s %[1]s/v1/wallets/%[3]s/entries -H "Authorization: Bearer %[2]s"
  curl -s %[1]s/v1/customers/demo/lockstep -H "Authorization: Bearer %[2]s"

The whole story: scripts/demo.sh. Data is kept in %[5]s; ^C stops.
`, base, g.cfg.APIKey, wallet, simulated, g.cfg.DataDir)
	return err
}

// sendTo has the simulator deliver to this run's gateway, and to no earlier run's.
func (d *devStripe) sendTo(url string, secrets []string) {
	d.sim.SetEndpoint(stripesim.Endpoint{URL: url, Secrets: secrets})
}

// demoCaller calls the gateway's own API, as any user would.
type demoCaller struct{ base, key string }

// customer makes the demo customer in steps that can each be had again, and answers its wallet.
func (d demoCaller) customer(ctx context.Context, g *gateway) (wallet string, err error) {
	var c struct {
		StripeCustomer string `json:"stripe_customer"`
		Wallets        []struct {
			ID        string          `json:"id"`
			AutoTopup json.RawMessage `json:"auto_topup"`
		} `json:"wallets"`
	}
	if err := d.call(ctx, "POST", "/v1/customers", "demo-customer", map[string]any{"id": "demo", "name": "Demo customer", "email": "demo@example.com"}, &c); err != nil {
		return "", err
	}
	wallet = c.Wallets[0].ID
	var rule struct{}
	if err := d.call(ctx, "GET", "/v1/wallets/"+wallet+"/auto_topup", "", nil, &rule); err == nil {
		return wallet, nil // an earlier run got to the end
	}
	pm, err := g.stripe.AttachPaymentMethod(ctx, "pm_card_visa", c.StripeCustomer, "dev-attach:"+wallet)
	if err != nil {
		return "", err
	}
	if _, err := g.stripe.SetDefaultPaymentMethod(ctx, c.StripeCustomer, pm, "dev-default:"+wallet); err != nil {
		return "", err
	}
	if err := d.call(ctx, "POST", "/v1/grants", "demo-grant", map[string]any{"customer": "demo", "amount": "10", "kind": "purchased", "reason": "demo"}, nil); err != nil {
		return "", err
	}
	return wallet, d.call(ctx, "PUT", "/v1/wallets/"+wallet+"/auto_topup", "", map[string]any{"enabled": true, "threshold": "5", "amount": "20",
		"spend_cap": map[string]any{"amount": 10000, "currency": "usd", "interval": "month"}}, nil)
}

func (d demoCaller) call(ctx context.Context, method, path, key string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if in == nil {
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+d.key)
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, path, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
