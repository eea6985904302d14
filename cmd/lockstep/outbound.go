package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"code.dny.dev/ssrf"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"lockstep/handlers"
	"lockstep/ledger"
)

// Limits on what an endpoint can hold of ours.
const (
	outboundPerEndpoint = 4 // deliveries to one endpoint at once: a slow one holds up nobody else
	outboundTimeout     = 10 * time.Second
	outboundAnswer      = 1 << 10 // bytes of an answer that are read
)

// outbound delivers events to the merchant's endpoints.
type outbound struct {
	client *http.Client
	wg     sync.WaitGroup
	mu     sync.Mutex
	busy   map[string]int // workers by endpoint
}

// newOutbound makes the client that reaches endpoints. Whether an address may be reached is looked at when it is
// connected to, after its name was resolved, so no name that changes its mind gets past it; and no proxy and no
// redirect leads elsewhere.
func newOutbound(allowPrivate bool) *outbound {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	if !allowPrivate {
		dialer.Control = ssrf.New(ssrf.WithAnyPort()).Safe
	}
	return &outbound{busy: make(map[string]int), client: &http.Client{
		Timeout:       outboundTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{Proxy: nil, DialContext: dialer.DialContext, TLSHandshakeTimeout: 5 * time.Second, DisableCompression: true,
			MaxIdleConnsPerHost: outboundPerEndpoint, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 16 << 10},
	}}
}

// fanOut writes the deliveries of what has happened.
func (g *gateway) fanOut(ctx context.Context) error {
	for more := true; more && ctx.Err() == nil; {
		var taken int
		var err error
		if taken, more, err = g.ledger.FanOut(ctx); err != nil {
			return err
		}
		if taken > 0 {
			crash("outbound.fanned")
		}
	}
	return nil
}

// deliverDue starts as many workers for each endpoint as it has deliveries due and room for.
func (g *gateway) deliverDue(ctx context.Context) error {
	due, err := g.ledger.DueDeliveries(ctx, outboundPerEndpoint)
	if err != nil {
		return err
	}
	o := g.outbound
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range due {
		for range min(d.Deliveries, outboundPerEndpoint-o.busy[d.Endpoint]) {
			o.busy[d.Endpoint]++
			o.wg.Go(func() { g.deliverTo(ctx, d.Endpoint) })
		}
	}
	return nil
}

// deliverTo delivers to one endpoint until nothing more is due to it.
func (g *gateway) deliverTo(ctx context.Context, endpoint string) {
	o := g.outbound
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.busy[endpoint]--; o.busy[endpoint] == 0 {
			delete(o.busy, endpoint)
		}
	}()
	for ctx.Err() == nil {
		d, found, err := g.ledger.LeaseDelivery(ctx, endpoint)
		if err != nil && ctx.Err() == nil {
			g.log.Warn("work to be done again", "work", "deliveries", "endpoint", endpoint, "error", err)
		}
		if err != nil || !found {
			return
		}
		if err := g.deliver(context.WithoutCancel(ctx), d); err != nil {
			g.log.Warn("delivery not noted: it will be made again", "endpoint", endpoint, "event", d.ID, "error", err)
			return
		}
	}
}

// deliver tries a leased delivery once and notes what came of it.
func (g *gateway) deliver(ctx context.Context, d ledger.Delivery) error {
	crash("outbound.leased")
	start := time.Now()
	r := g.outbound.post(ctx, d, g.ledger.Now())
	r.Duration = time.Since(start)
	crash("outbound.posted")
	outcome, err := g.ledger.EndTry(ctx, d, r)
	if err != nil {
		return err
	}
	g.server.Delivered(outcome)
	switch outcome {
	case "disabled":
		g.log.Error("webhook endpoint disabled", "endpoint", d.Endpoint, "gone", r.Gone, "error", r.Error)
	case "failed":
		g.log.Warn("event not delivered", "endpoint", d.Endpoint, "event", d.ID, "type", d.Type, "attempt", d.Attempt, "error", r.Error)
	}
	return nil
}

// post sends a delivery, signed by Standard Webhooks.
func (o *outbound) post(ctx context.Context, d ledger.Delivery, now time.Time) (r ledger.Tried) {
	req, err := outboundRequest(ctx, d, now)
	if err != nil {
		return ledger.Tried{Error: err.Error()}
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return ledger.Tried{Error: whyNoAnswer(err)}
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, outboundAnswer)) // what came of it is enough for the log
	r = ledger.Tried{StatusCode: resp.StatusCode, Response: string(answer), Succeeded: resp.StatusCode/100 == 2, Gone: resp.StatusCode == http.StatusGone}
	switch {
	case r.Succeeded:
	case resp.StatusCode/100 == 3:
		r.Error = fmt.Sprintf("answered %d: redirects are not followed, set the url that it leads to", resp.StatusCode)
	default:
		r.Error = fmt.Sprintf("answered %d", resp.StatusCode)
	}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		r.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
	}
	return r
}

func outboundRequest(ctx context.Context, d ledger.Delivery, now time.Time) (*http.Request, error) {
	body, err := handlers.EventBody(&d.Event)
	if err != nil {
		return nil, err
	}
	var signatures []string
	for _, secret := range d.Secrets(now) {
		wh, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return nil, errors.New("the endpoint's secret can't be read: rotate it")
		}
		signature, err := wh.Sign(d.ID, now, body)
		if err != nil {
			return nil, err
		}
		signatures = append(signatures, signature)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Lockstep")
	req.Header.Set(standardwebhooks.HeaderWebhookID, d.ID)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return req, nil
}

// whyNoAnswer says in the delivery log why no answer came.
func whyNoAnswer(err error) string {
	var ue *url.Error
	if errors.As(err, &ue) {
		if ue.Timeout() {
			return fmt.Sprintf("no answer within %v", outboundTimeout)
		}
		err = ue.Err // without the URL
	}
	if errors.Is(err, ssrf.ErrProhibitedIP) || errors.Is(err, ssrf.ErrProhibitedNetwork) {
		return "the address is not a public one: refused (OUTBOUND_ALLOW_PRIVATE is off)"
	}
	s := err.Error()
	return s[:min(len(s), 300)]
}

// retryAfter is how long an answer asks to be left alone: seconds, or a date.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return time.Duration(max(n, 0)) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// pruneEvents deletes what is older than is kept: events, and sessions of the portal.
func (g *gateway) pruneEvents(ctx context.Context) error {
	for more := true; more && ctx.Err() == nil; {
		var err error
		if more, err = g.ledger.PruneEvents(ctx); err != nil {
			return err
		}
	}
	for more := true; more && ctx.Err() == nil; {
		var err error
		if more, err = g.ledger.PrunePortal(ctx); err != nil {
			return err
		}
	}
	return nil
}
